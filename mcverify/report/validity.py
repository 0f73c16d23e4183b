"""Where the limit of infinite width holds, for a terminal and as a page of its own with a plot."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mcverify.errors import InputError
from mcverify.report import plots
from mcverify.report.figures import number
from mcverify.report.plots import INK, MUTED, POINT, RIVAL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.console import Console

    from mcverify.sampled_validity import Row, Validity
    from mcverify.theory.validity import Boundary, Deviation

_OF = {"mean": "mean over networks", "typical": "typical network"}
_COLOUR = {"mean": POINT, "typical": RIVAL}
_TERMS = (
    "From width: from which on every layer is within the margin, to first order in 1/width; safe from: the same if "
    "the next order adds all that it may. Off here, layers here: the largest deviation at these widths, and the "
    "layers within the margin. Depth: to how many such layers it holds. Mean over networks: how far the average is "
    "off; typical network: the root mean square of how far single ones are. Sampled: confirmed is beyond the margin "
    "at half the width and within it at twice; holds, that only the latter is sure."
)


@dataclass(frozen=True)
class Cells:
    """A row in words."""

    what: str
    of: str
    width: str
    safe: str
    here: str
    layers: str
    depth: str
    sampled: str
    reason: str


def cells(row: Row, own: tuple[int, ...]) -> Cells:
    """A boundary in words; own: the network's hidden widths."""
    from mcverify.theory.validity import DEEPEST

    b = row.boundary
    depth = "–" if b.depth is None else f"{'≥ ' if b.depth >= DEEPEST else ''}{b.depth}"
    if math.isnan(b.factor):
        return Cells(b.quantity, _OF[b.kind], "unknown", "–", "–", "–", "–", row.agreement, row.reason)
    return Cells(
        b.quantity, _OF[b.kind], _width(b.factor, own), _width(b.safe, own) if b.kind == "mean" else "–",
        f"{b.deviation:.2%}" if b.quantity != "correlation" else f"{b.deviation:.4f}", _layers(b), depth,
        row.agreement, row.reason,
    )  # fmt: skip


def _width(factor: float, own: tuple[int, ...]) -> str:
    """One width where all are alike, else the factor of all of them."""
    if factor == 0:
        return "any"
    if len(set(own)) == 1:
        return f"{max(1, math.ceil(own[0] * factor - 1e-9)):,}"
    return f"×{factor:.3g}"


def _layers(b: Boundary) -> str:
    """The layers that hold at the network's own widths."""
    if b.layers == (b.all_layers,):
        return "all"
    return ", ".join(f"{first}" if first == last else f"{first}–{last}" for first, last in b.layers) or "none"


HEADERS = ("prediction", "of", "from width", "safe from", "off here", "layers here", "depth", "sampled")


def show(v: Validity, console: Console) -> None:
    """The table, and what was sampled."""
    from rich.table import Table

    console.print(v.network, highlight=False)
    console.print()
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in HEADERS:
        table.add_column(name, justify="left" if name in ("prediction", "of", "sampled") else "right", no_wrap=True)
    for row in v.rows:
        c = cells(row, v.widths)
        table.add_row(c.what, c.of, c.width, c.safe, c.here, c.layers, c.depth, c.sampled)
    console.print(table)
    console.print()
    console.print(_margin(v), highlight=False)
    console.print(_TERMS, highlight=False)
    if any(row.points for row in v.rows):
        console.print()
    for row in v.rows:
        if row.points:
            told = "; ".join(point_text(row, i) for i in range(len(row.points)))
            console.print(f"{row.boundary.quantity}, {_OF[row.boundary.kind]}: {told}.", highlight=False)
        if row.agreement not in ("confirmed", "not sampled"):
            console.print(f"  {row.reason}.", highlight=False)
    if v.dropped:
        console.print(dropped(v), highlight=False)
    if v.interrupted:
        console.print("Interrupted: what the first order says is whole, what was not sampled yet says so.")


def _margin(v: Validity) -> str:
    return f"Margin {100 * v.margin:.3g}%, relative to the limit; for correlations {v.margin:.3g}, absolute."


def dropped(v: Validity) -> str:
    """How many sampled networks count for nothing; "" for none."""
    if not v.dropped:
        return ""
    return (
        f"Dropped: {v.dropped:,} of {v.sampled:,} sampled networks, where the quantity does not exist: a dead layer "
        "has no correlation. What is said is said of the others."
    )


def point_text(row: Row, i: int) -> str:
    """`width 62: 0.269 ± 0.006 (first order 0.283, 600 networks)`, with those that were dropped."""
    p = row.points[i]
    widths = f"{p.widths[0]:,}" if len(set(p.widths)) == 1 else f"×{p.factor:.3g}"
    measured = f"{p.measured:.3g} ± {p.se:.1g}" if math.isfinite(p.measured) else "too few networks"
    networks = f"{p.networks:,} networks" + (f", {p.dropped:,} more dropped" if p.dropped else "")
    return f"width {widths}: {measured} (first order {p.predicted:.3g}, {networks})"


def write(v: Validity, directory: Path) -> Path:
    """Write validity.html and validity.json into a folder, made if need be; the page's path.

    Raises InputError where the folder cannot be written."""
    import json

    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    from mcverify.report.prediction import finite

    environment = Environment(
        loader=PackageLoader("mcverify", "report/templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    sampled = [(c, row, [point_text(row, i) for i in range(len(row.points))]) for c, row in _rows(v)]
    text = environment.get_template("validity.html.j2").render(
        v=v, rows=sampled, headers=HEADERS, svg=Markup(draw(v)), margin=_margin(v), terms=_TERMS,
        dropped=dropped(v),
    )
    page = directory / "validity.html"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "validity.json").write_text(json.dumps(finite(v.to_dict()), indent=2) + "\n", encoding="utf-8")
        page.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError("report", str(directory), f"must be a folder that can be written ({error.strerror})") from None
    return page


def _rows(v: Validity) -> list[tuple[Cells, Row]]:
    return [(cells(row, v.widths), row) for row in v.rows]


# ---- the plot -----------------------------------------------------------------------------------------


def draw(v: Validity) -> str:
    """Deviation against width, a panel for each quantity: curves to first order, points as sampled, the margin."""
    from matplotlib import rcParams, style
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with style.context("default"):
        rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "validity", "text.parse_math": False, "font.size": 9})
        figure = Figure(figsize=(3.1 * len(v.deviations), 3.0), layout="constrained")
        canvas = FigureCanvasSVG(figure)
        figure.patch.set_visible(False)
        low, high = _range(v)
        factors = np.geomspace(low, high, 60)
        for i, d in enumerate(v.deviations):
            ax = figure.add_subplot(1, len(v.deviations), i + 1)
            _panel(ax, v, d, factors)
            if i == 0:
                ax.set_ylabel("deviation from the limit", color=INK)
        return plots.inline(canvas, "Deviation from the limit of infinite width against width")


def _range(v: Validity) -> tuple[float, float]:
    """The factors shown: all boundaries and the network itself, with a factor of three about them."""
    known = [1.0, *(row.boundary.factor for row in v.rows if 0 < row.boundary.factor < math.inf)]
    return max(min(known) / 3, 0.5 / max(v.widths)), 3 * max(known)


def _panel(ax: Axes, v: Validity, d: Deviation, factors: Any) -> None:
    unit = float(min(v.widths))
    rows = [row for row in v.rows if row.boundary.quantity == d.quantity]
    for row in rows:
        b, colour = row.boundary, _COLOUR[row.boundary.kind]
        if math.isnan(b.factor):
            continue
        worst = [float(np.nanmax(d.size(b.kind, f))) for f in factors]
        if max(worst) > 0:
            ax.plot(unit * factors, worst, color=colour, lw=1.4)
        for p in row.points:
            at = min(p.widths)
            ax.plot([at] * 2, [max(p.measured - 3 * p.se, 1e-6), p.measured + 3 * p.se], color=colour, lw=1.2)
            ax.plot([at], [p.measured], "o", color=colour, ms=4)
    ax.axhline(v.margin, color=MUTED, lw=0.9, ls=(0, (4, 3)))
    ax.axvline(unit, color=MUTED, lw=0.7, ls=(0, (1, 2)))
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_ylim(v.margin / 30, max(v.margin * 30, 1.0))
    ax.set_xlim(unit * factors[0], unit * factors[-1])
    ax.set_title(d.quantity, color=INK, fontsize=9)
    ax.set_xlabel("hidden width" if len(set(v.widths)) == 1 else "narrowest hidden width", color=INK)
    _plain(ax)


def _plain(ax: Axes) -> None:
    """Ticks as plain numbers, in the page's colours."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    ax.patch.set_visible(False)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
        axis.set_minor_formatter(NullFormatter())
    ax.tick_params(which="both", color=MUTED, labelcolor=INK, length=3)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(MUTED)
