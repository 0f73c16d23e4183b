"""Pictures in files, for those who asked for one: a phase diagram, and a network layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mcverify.errors import InputError, Unpredictable
from mcverify.inputs import checked
from mcverify.network import Network, describe
from mcverify.theory.failure_modes import gradient_spread, length_spread
from mcverify.theory.propagation import propagate

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mcverify.theory.phase_record import Phase

FloatArray = NDArray[np.float64]
FORMATS = (".svg", ".png", ".pdf")

# Colours that are told apart by readers who do not see red and green apart, and in grey.
INK, MUTED, THEORY, MEASURED = "#222222", "#777777", "#0b5394", "#c04f15"
_SHADE = {
    "ordered": "#cfe2f3", "chaotic": "#fbe0c8", "critical": "#e6e0ef", "degenerate": "#eeeeee", "divergent": "#f4d9d9",
    "discontinuous": "#e9e9d8",
}  # fmt: skip
_ELSE = "#dddddd"
_DEPTHS = 3, 10, 30, 100  # layers, of the contours of ξ_c; the last lies close to the line, with no room for a label


def save(figure: Figure, path: Path) -> None:
    """The same bytes for the same figure; transparent nowhere, so that it can be read on any page."""
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "mcverify", "svg.fonttype": "path"}):
        figure.savefig(path, dpi=160, metadata={"CreationDate" if path.suffix == ".pdf" else "Date": None}
                       if path.suffix != ".png" else {})  # fmt: skip


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


# ---- phases -------------------------------------------------------------------------------------------


def phase_diagram(d: xr.Dataset, here: Phase | None = None) -> Figure:
    """Phases shaded, the depth scale ξ_c in contours, the critical line; here: a point to mark."""
    figure = _figure(6.4, 4.6)
    ax = figure.add_subplot()
    _shade(ax, d)
    ax.set(xlim=(max(0.0, ax.get_xlim()[0]), ax.get_xlim()[1]), ylim=(max(0.0, ax.get_ylim()[0]), ax.get_ylim()[1]))
    _depths(ax, d)
    with_line = _line(ax, d)
    if here is not None:
        told = f"{here.name}, σ_w² = {here.sigma_w2:g}, σ_b² = {here.sigma_b2:g}"
        ax.plot([here.sigma_w2], [here.sigma_b2], "o", color=MEASURED, ms=8, mec="white", label=told, clip_on=False)
    if with_line or here is not None:
        ax.legend(loc="upper left", framealpha=0.9, fontsize=9)
    ax.set(xlabel="weight variance σ_w²", ylabel="bias variance σ_b²")
    kept = "" if d.attrs["keep"] == 1 else f", keep {d.attrs['keep']:g}"
    ax.set_title(f"{d.attrs['activation']}{kept}: phases, and depth scales ξ_c in layers", fontsize=10, color=INK)
    return figure


def _shade(ax: Axes, d: xr.Dataset) -> None:
    """A colour for each phase, with its name where most of it lies."""
    from matplotlib.colors import ListedColormap

    w2, b2, names = d["sigma_w2"].values, d["sigma_b2"].values, d["name"].values
    there = sorted(set(names.ravel()))
    index = np.searchsorted(there, names)
    colours = ListedColormap([_SHADE.get(n, _ELSE) for n in there])
    ax.pcolormesh(w2, b2, index, cmap=colours, vmin=-0.5, vmax=len(there) - 0.5, shading="nearest", rasterized=True)
    for i, name in enumerate(there):
        rows, columns = np.nonzero(index == i)
        if len(rows) < 0.03 * index.size:
            continue
        at = np.argmin(np.abs(rows - rows.mean()) / len(b2) + np.abs(columns - columns.mean()) / len(w2))
        ax.text(w2[columns[at]], b2[rows[at]], name, color=INK, fontsize=11, ha="center", va="center", style="italic")


def _depths(ax: Axes, d: xr.Dataset) -> None:
    """Contours of ξ_c. It is infinite on the critical line, so that they are drawn of 1/ξ_c, negative in chaos, which
    passes through zero there."""
    with np.errstate(divide="ignore"):
        rate = np.where(d["name"] == "chaotic", -1.0, 1.0) / d["xi_c"].values
    rate[~np.isfinite(rate)] = np.nan
    if np.isfinite(rate).sum() < 0.1 * rate.size:
        return
    told = {sign / depth: f"{depth}" for depth in _DEPTHS for sign in (-1, 1)}
    levels = [level for level in sorted(told) if np.nanmin(rate) < level < np.nanmax(rate)]
    lines = ax.contour(d["sigma_w2"], d["sigma_b2"], rate, levels=levels, colors=MUTED, linewidths=0.8, linestyles="-")
    ax.clabel(lines, [level for level in levels if abs(level) > 1 / _DEPTHS[-1]], fmt=told, fontsize=8)


def _line(ax: Axes, d: xr.Dataset) -> bool:
    """The critical line, χ_1 = 1, from theory and not from the grid; whether there is one to be seen."""
    from mcverify.theory.phase import critical_line

    if d.attrs["keep"] < 1 or not np.isfinite(d["chi_1"].values).any():
        return False
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    line = critical_line(d.attrs["activation"], np.geomspace(1e-6, 100, 400))
    point = np.ptp(line.sigma_w2) == 0  # of a positively homogeneous φ, at every q
    w2, b2 = line.sigma_w2, np.where(line.stable | point, line.sigma_b2, np.nan)
    if not np.any((w2 >= left) & (w2 <= right) & (b2 >= low - 1e-9) & (b2 <= high)):
        return False
    look: dict[str, Any] = {"marker": "s", "ms": 8, "ls": "none", "clip_on": False} if point else {"lw": 2.2}
    ax.plot(w2[:1] if point else w2, b2[:1] if point else b2, color=INK, label="critical, χ_1 = 1", **look)
    return True


# ---- layers -------------------------------------------------------------------------------------------

_SIGNS = {"q": "mean square q", "length": "length", "chi": "χ", "grad_norm2": "gradient norm ‖δ‖²"}
_BAND = 12  # layers at which the laws of single networks are worked out


def layers(net: Network, x: FloatArray, measured: xr.Dataset | None = None) -> Figure:
    """q, length, χ and ‖δ‖² of the first input by layer: predicted as lines, with where 9 in 10 networks lie; measured
    means with two standard errors as points, where a simulation is given."""
    from mcverify.report.prediction import means, series

    x = checked(x, net.input_shape)
    predicted, _ = series(net, x)
    shown = [n for n, v in predicted.items() if (np.isfinite(v).any() if measured is None else n in measured)]
    bands = _bands(net, x, predicted)
    figure = _figure(3.2 * max(len(shown), 1), 3.2)
    for i, name in enumerate(shown):
        ax = figure.add_subplot(1, len(shown), i + 1)
        _panel(ax, predicted[name], bands.get(name), None if measured is None else means(measured, name))
        ax.set_title(_SIGNS[name], fontsize=10, color=INK)
    handles = {label: h for ax in figure.axes for h, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    figure.suptitle(_title(net), fontsize=9, color=MUTED)
    return figure


def _bands(net: Network, x: FloatArray, predicted: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """Of lengths and gradients at some layers: (4, layer) the layer, and the quantiles 5%, 50%, 95% over networks; only
    what is known."""
    try:
        p = propagate(net, x[:1])
    except (Unpredictable, InputError):  # as of one input alone, which has no batch norm
        return {}
    depth = len(net.maps)
    at = sorted(set(np.linspace(1, depth, min(depth, _BAND)).astype(int).tolist()))
    found = {
        "length": [(l, length_spread(net, p, l)) for l in at],
        "grad_norm2": [(l, gradient_spread(net, l)) for l in at if l < depth],
    }
    out = {}
    for name, spreads in found.items():
        known = [(l, *(predicted[name][l - 1] * v for v in (s.low, s.median, s.high))) for l, s in spreads if s]
        if len(known) > 1:
            out[name] = np.array(known).T
    return out


def _panel(ax: Axes, values: FloatArray, band: FloatArray | None, means: tuple[FloatArray, FloatArray] | None) -> None:
    depth = np.arange(1, len(values) + 1)
    seen = [values]
    if band is not None:
        at, low, median, high = band
        ax.fill_between(at, low, high, color=THEORY, alpha=0.15, lw=0, label="9 in 10 networks")
        ax.plot(at, median, color=THEORY, lw=1, ls=(0, (4, 3)), label="the median network")
        seen += [low, median, high]
    ax.plot(depth, values, color=THEORY, lw=1.8, marker="o" if len(depth) == 1 else None, label="mean in theory")
    if means is not None:
        ax.errorbar(depth, means[0], 2 * means[1], fmt="o", color=MEASURED, ms=3, lw=1, label="measured mean ± 2 se")
        seen.append(means[0])
    _scale(ax, np.concatenate(seen))
    ax.set_xlabel("layer")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.spines[["top", "right"]].set_visible(False)


def _scale(ax: Axes, values: FloatArray) -> None:
    """Logarithmic where values span more than a factor of 20; one that hardly moves is not blown up."""
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return
    low, high = finite.min(), finite.max()
    if low > 0 and high > 20 * low:
        ax.set_yscale("log")
    elif high - low < 0.1 * abs(high):
        ax.set_ylim(low - 0.1 * abs(high), high + 0.1 * abs(high))


def _title(net: Network, most: int = 110) -> str:
    told = describe(net)
    return told if len(told) <= most else told[: most - 1] + "…"
