"""One claim as a picture: how far each component lies from its prediction, in margins, as inline SVG.

The page's own style sheet colours the drawing, so that it follows a light or a dark reader. What the signs
mean is returned beside it, for a legend in text that wraps on a narrow screen.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from html import escape
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from mcverify.report.figures import number

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from mcverify.verdict import Result

    FloatArray = NDArray[np.float64]

CAP = 25.0  # margins shown on either side at most; beyond them the band itself would vanish
NEAR = 4.0  # margins up to which the axes are widened to show the rival
LABELS = 30  # on the component axis
LONGEST = 30  # characters of a label

# Colours that stand for the page's variables and are replaced by them.
INK, MUTED, BAND, REST, POINT, RIVAL = (f"#0{i}0{i}0{i}" for i in range(1, 7))
_THEME = dict(
    zip((INK, MUTED, BAND, REST, POINT, RIVAL), ("ink", "muted", "band", "rest", "point", "rival"), strict=True)
)


@dataclass(frozen=True)
class Sign:
    """An entry of the legend: which sign (a symbol of the template), and its meaning."""

    kind: str
    text: str


@dataclass(frozen=True)
class Plot:
    """A drawing, its legend, and the width in CSS pixels at which its letters have their own size."""

    svg: str
    legend: list[Sign]
    width: int


@dataclass(frozen=True)
class Gaps:
    """A result in units of its margins, (component,) each; NaN where a number is not finite."""

    deviation: FloatArray
    reach: FloatArray  # half the 99.9% interval
    remainder: FloatArray
    mde: FloatArray
    rival: FloatArray  # empty where there is none
    one_sided: bool


def gaps(r: Result) -> Gaps:
    """Deviations in margins. An infinite number, or a margin of zero, gives NaN."""
    import numpy as np

    from mcverify.statistics.evidence import CONFIRM_LEVEL

    margin = np.asarray(r.margin, dtype=float)
    prediction = np.asarray(r.prediction, dtype=float)

    def scaled(values: Any) -> FloatArray:
        with np.errstate(all="ignore"):
            out = np.asarray(values, dtype=float) / margin
        return np.where(np.isfinite(out), out, np.nan)

    with np.errstate(all="ignore"):
        deviation = np.asarray(r.estimate, dtype=float) - prediction
        rival = scaled(np.asarray(r.rival, dtype=float) - prediction) if r.rival else np.empty(0)
    reach = NormalDist().inv_cdf(1 - CONFIRM_LEVEL) * scaled(r.se)
    return Gaps(scaled(deviation), reach, scaled(r.remainder), scaled(r.mde), rival, r.one_sided)


def draw(r: Result) -> Plot | None:
    """The plot of a result, or None for one without components."""
    if not r.labels:
        return None
    from matplotlib import rcParams, style
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    g = gaps(r)
    with style.context("default"):
        rcParams.update({"svg.fonttype": "none", "svg.hashsalt": r.name, "text.parse_math": False, "font.size": 9})
        labels = [label if len(label) <= LONGEST else label[: LONGEST - 1] + "…" for label in r.labels]
        width, height, box = _layout(labels)
        figure = Figure(figsize=(width, height))
        canvas = FigureCanvasSVG(figure)
        figure.patch.set_visible(False)
        ax = figure.add_axes(box)
        low, high = limits(g)
        legend = _bands(ax, g, low) + _points(ax, g, low, high) + _rival(ax, g, r.rival_name, low, high)
        _axes(ax, labels, low, high)
        title = f"{r.name}: deviation of each component from its prediction, in margins"
        return Plot(inline(canvas, title), legend, round(96 * width))


def limits(g: Gaps) -> tuple[float, float]:
    """The lowest and highest deviation shown, in margins."""
    import numpy as np

    shown = [g.deviation + g.reach, g.deviation - g.reach, g.deviation, g.mde]
    shown += [] if g.one_sided else [-g.mde]
    near = g.rival[np.abs(g.rival) <= NEAR]
    values = np.concatenate([*shown, near, [-1.15, 1.15]])
    values = values[np.isfinite(values)]
    return 1.12 * max(-CAP, float(values.min())), 1.12 * min(CAP, float(values.max()))


def _layout(labels: list[str]) -> tuple[float, float, tuple[float, float, float, float]]:
    """Width and height in inches, and the box of the axes in shares of them."""
    longest = max(map(len, labels)) * 0.075  # inches, at this size of letters
    width = min(8.0, max(4.2, 1.2 + 0.34 * len(labels)))
    below = 0.2 + (0.17 if _flat(labels, width) else 0.1 + 0.72 * longest)
    left = 0.62 if _flat(labels, width) else max(0.62, 0.62 * longest - 0.1)
    height = 2.2 + below
    return width, height, (left / width, below / height, 1 - (left + 0.12) / width, 1 - (below + 0.1) / height)


def _flat(labels: list[str], width: float) -> bool:
    """Whether the labels fit side by side."""
    return max(map(len, labels)) * 0.08 * min(len(labels), LABELS) < width - 0.8


def _bands(ax: Axes, g: Gaps, low: float) -> list[Sign]:
    """The margin, the remainder and the prediction itself."""
    import numpy as np

    ax.axhspan(low if g.one_sided else -1, 1, color=BAND, lw=0)
    for edge in (1,) if g.one_sided else (1, -1):
        ax.axhline(edge, color=MUTED, lw=0.7, ls=(0, (4, 3)))
    ax.axhline(0, color=INK, lw=0.8)
    legend = [Sign("band", "up to the margin above the bound" if g.one_sided else "within the margin")]
    rest = np.nan_to_num(g.remainder)
    if np.any(rest > 0):
        edges = np.arange(len(rest) + 1) - 0.5
        base = np.zeros_like(rest) if g.one_sided else -rest
        ax.stairs(np.minimum(rest, 2 * CAP), edges, baseline=np.maximum(base, -2 * CAP), fill=True, color=REST, lw=0)
        legend.append(Sign("rest", "remainder: what the claim itself leaves open"))
    return legend


def _points(ax: Axes, g: Gaps, low: float, high: float) -> list[Sign]:
    """Estimates with their intervals, and the smallest deviations that would be refuted."""
    import numpy as np

    x = np.arange(len(g.deviation))
    size = _size(len(x))
    legend = []
    ends = np.clip([g.deviation - g.reach, g.deviation + g.reach], low, high)
    inside = (g.deviation >= low) & (g.deviation <= high)
    if np.any(inside):
        ax.vlines(x[inside], ends[0][inside], ends[1][inside], color=POINT, lw=0.3 * size)
        ax.plot(x[inside], g.deviation[inside], "o", color=POINT, ms=size)
        legend.append(Sign("point", "measured, with its interval (99.9% on each side)"))
    if _arrows(ax, x, g.deviation, low, high, POINT):
        legend.append(Sign("beyond", f"measured, outside the plot: {_span(g.deviation[~inside])}"))
    unknown = ~np.isfinite(g.deviation)
    if np.any(unknown):
        edge = np.full(int(unknown.sum()), low + 0.04 * (high - low))
        ax.plot(x[unknown], edge, "x", color=INK, ms=1.3 * size, mew=0.34 * size)
        legend.append(Sign("undefined", "undefined: no finite value"))
    known = np.isfinite(g.mde)
    if np.any(known):
        for side in (1,) if g.one_sided else (1, -1):
            ax.plot(x[known], side * g.mde[known], "_", color=MUTED, ms=1.6 * size, mew=0.3 * size)
        legend.append(Sign("mde", "MDE: the smallest deviation this run would refute 99 times in 100"))
    return legend


def _rival(ax: Axes, g: Gaps, name: str, low: float, high: float) -> list[Sign]:
    """The rival theory: diamonds, or arrows towards it."""
    import numpy as np

    if len(g.rival) != len(g.deviation):
        return []
    x = np.arange(len(g.rival))
    inside = (g.rival >= low) & (g.rival <= high)
    legend = []
    if np.any(inside):
        ax.plot(x[inside], g.rival[inside], "D", mfc="none", mec=RIVAL, ms=1.1 * _size(len(x)), mew=1.2)
        legend.append(Sign("rival", f"rival: {name}"))
    if _arrows(ax, x, g.rival, low, high, RIVAL):
        legend.append(Sign("rival-beyond", f"rival, outside the plot: {name}, {_span(g.rival[~inside])}"))
    return legend


def _arrows(ax: Axes, x: Any, values: FloatArray, low: float, high: float, colour: str) -> bool:
    """Arrows at the edge towards the values outside it; whether there are any."""
    look: dict[str, Any] = {"mfc": "none" if colour == RIVAL else colour, "mec": colour, "mew": 1.2, "ls": "none"}
    above, below = values > high, values < low
    for at, edge, marker in ((above, high, "^"), (below, low, "v")):
        if at.any():
            inward = edge - 0.03 * (high - low) * (1 if edge > 0 else -1)
            ax.plot(x[at], [inward] * int(at.sum()), marker, ms=1.2 * _size(len(x)), **look)
    return bool(above.any() or below.any())


def _size(components: int) -> float:
    """The diameter of a point, in points of type; smaller where many stand close together."""
    return min(4.4, max(1.5, 440 / components))


def _span(values: FloatArray) -> str:
    """`47 to 61 margins away`."""
    import numpy as np

    distance = np.abs(values[np.isfinite(values)])
    ends = [number(v, 3) for v in (distance.min(), distance.max())]
    return f"{ends[0] if ends[0] == ends[1] else ' to '.join(ends)} margins away"


def _axes(ax: Axes, labels: list[str], low: float, high: float) -> None:
    """Frame, ticks and labels; every so many labels where there are too many to read."""
    ax.patch.set_visible(False)
    ax.set_xlim(-0.6, len(labels) - 0.4)
    ax.set_ylim(low, high)
    ax.set_ylabel("deviation, in margins", color=INK)
    at = range(0, len(labels), math.ceil(len(labels) / LABELS))
    width = float(ax.get_figure(root=True).get_size_inches()[0])  # type: ignore[union-attr]
    slant: dict[str, Any] = {} if _flat(labels, width) else {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    ax.set_xticks(list(at), [labels[i] for i in at], color=INK, **slant)
    ax.tick_params(axis="y", labelcolor=INK)
    ax.tick_params(color=MUTED, length=3)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(MUTED)


def inline(canvas: Any, title: str) -> str:
    """The drawing as an <svg> element that takes its colours and letters from the page."""
    import io
    import warnings

    out = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # letters are the reader's, not Matplotlib's
        canvas.print_svg(out, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r'<(g|path) id="[^"]*_\d+"', r"<\1", text)  # the same in every plot, so no use as an id
    text = re.sub(r"font-family: [^;\"]*; ", "", text)
    text = re.sub(r"\n\s*", "\n", text)
    for colour, name in _THEME.items():
        text = text.replace(colour, f"var(--{name})")
    title = escape(title, quote=True)
    box = re.search(r'viewBox="[^"]*"', text)
    head = f'role="img" aria-label="{title}" {box.group() if box else ""} xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f"<svg {head}>" + text[text.index(">") + 1 :].strip()
