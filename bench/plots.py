"""The report's drawings, as SVG."""

from __future__ import annotations

import io
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from bench.results import Results

OWN, PEER, LEAST, MUTED = "#1f5fa8", "#a9b0b8", "#c2410c", "#6b7280"
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "xtick.color": MUTED,
    "svg.fonttype": "none",
    "svg.hashsalt": "mcverify",
}


def short(value: float) -> str:
    """Three significant figures and a prefix: 2.31 G."""
    for size, prefix in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if value >= size:
            return f"{value / (1e3 if size == 1e4 else size):.3g}{prefix}"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    plt.close(figure)
    return out.getvalue()


def _bars(axes: Axes, results: Results, subject: str, group: str, scale: float) -> tuple[float, float]:
    """One bar to a result, the fastest on top, and a stroke where its floor lies. Returns (least, most) drawn."""
    found = results.of(subject, group)
    rates = np.array([r.rate * scale for r in found])
    axes.barh(range(len(found)), rates, color=[OWN if r.own else PEER for r in found], height=0.62)
    most = rates.max()
    for i, r in enumerate(found):
        end = rates[i]
        least = results.floor_of(r)
        if least is not None and r.own:
            bound = r.work * scale / least.total
            axes.plot([bound, bound], [i - 0.42, i + 0.42], color=LEAST, lw=2)
            most = max(most, bound)
            if end < bound < 3 * end:  # a stroke just beyond the bar would cross the number
                end = bound
        axes.annotate(short(rates[i]), (end, i), (5, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(range(len(found)), [r.who for r in found])
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.set_xscale("log")
    axes.set_title(group, loc="left", fontsize=9, fontweight="bold")
    return float(rates.min()), float(most)


def bars(results: Results, subject: str, groups: list[str], unit: str, per_network: bool = False) -> str:
    """A panel to a group, one under the other."""
    with plt.rc_context(STYLE):
        rows = [len(results.of(subject, group)) for group in groups]
        figure, panels = plt.subplots(
            len(groups), 1, figsize=(7.4, sum(0.26 * n + 0.72 for n in rows) + 0.2), layout="constrained",
            height_ratios=[n + 1.5 for n in rows], squeeze=False, sharex=True,
        )  # fmt: skip
        ends = []
        for axes, group in zip(panels[:, 0], groups, strict=True):
            depth = results.of(subject, group)[0].info["depth"] if per_network else 1
            ends.append(_bars(axes, results, subject, group, depth))
        panels[-1, 0].set_xlim(min(low for low, _ in ends) / 2, 3 * max(high for _, high in ends))
        panels[-1, 0].xaxis.set_minor_formatter(NullFormatter())
        panels[-1, 0].xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        panels[-1, 0].set_xlabel(unit, color=MUTED)
        return _svg(figure)


def scaling(results: Results) -> str:
    """Time and memory against width, both axes logarithmic."""
    s = results.scaling()
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.0), layout="constrained")
        left.loglog(s.widths, s.factor * s.widths**s.exponent, color=PEER, lw=1.5, label=f"∝ n^{s.exponent:.3f}")
        left.loglog(s.widths, s.seconds, "o", color=OWN, ms=5, label="measured")
        left.loglog(s.widths, _least(results), color=LEAST, lw=1.5, label="floor (normals)")
        left.set_title("seconds per network", loc="left", fontsize=9, fontweight="bold")
        right.loglog(s.widths, np.maximum(s.memory, 1) / 2**20, "o-", color=OWN, ms=5, lw=1)
        right.set_title("peak memory, MiB", loc="left", fontsize=9, fontweight="bold")
        for axes in (left, right):
            axes.set_xlabel("width n", color=MUTED)
        left.legend(frameon=False)
        return _svg(figure)


def _least(results: Results) -> Any:
    found = sorted(results.of("scaling"), key=lambda r: r.info["width"])
    floors = [results.floor_of(r) for r in found]
    return [np.nan if least is None else least.total / r.work for r, least in zip(found, floors, strict=True)]
