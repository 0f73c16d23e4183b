"""From which widths on, and to which depth, the limit of infinite width holds within a margin.

To first order what a finite width adds to a mean goes as 1/width, and so does the variance between networks. With s the
shift and v the variance of a quantity at the network's own widths, in units of its limit, hidden widths times f give

    the mean over networks:    |s|/f ≤ margin,
    a typical network:         √(v/f + s²/f²) ≤ margin, the root mean square of its deviation.

Of three quantities: the length Ĝ^l_aa, which is the mean of q^l_aa given the layer below, l ≥ 2; the correlation of Ĝ^l
between two inputs, l ≥ 2, in its own unit; and the gradient norm ‖δ^l‖² for a given cotangent, l < L.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mcverify.errors import Unpredictable
from mcverify.layers.dense import Dense
from mcverify.layers.layer import Layer
from mcverify.network import Network
from mcverify.theory.corrections import first_order
from mcverify.theory.propagation import propagate

FloatArray = NDArray[np.float64]
Kind = Literal["mean", "typical"]

KINDS: tuple[Kind, ...] = ("mean", "typical")
DEEPEST = 128  # layers to which a network is continued in search of the depth at which a prediction fails
_EXACT = 1e-9  # shifts below it are rounding


@dataclass(frozen=True)
class Deviation:
    """How far a quantity lies from its limit at the network's own widths, to first order: (layer, item) each, an item
    being an input or a pair of inputs a < b. shift and remainder: of the mean; variance: between networks; all in units
    of `limit`, but for correlations. first: the number of the first layer. NaN where there is no answer."""

    quantity: str
    first: int
    limit: FloatArray
    shift: FloatArray
    remainder: FloatArray
    variance: FloatArray

    def size(self, kind: Kind, factor: float = 1.0) -> FloatArray:
        """The deviation at all hidden widths times `factor`, (layer, item)."""
        mean = np.abs(self.shift) / factor
        return mean if kind == "mean" else np.sqrt(np.maximum(self.variance, 0.0) / factor + mean**2)

    def needed(self, kind: Kind, margin: float) -> FloatArray:
        """The smallest factor at which each deviation is within the margin, (layer, item)."""
        s2, v = self.shift**2, np.maximum(self.variance, 0.0)  # of sign(h) it is 0, to rounding
        if kind == "mean":
            return np.abs(self.shift) / margin
        return (v + np.sqrt(v**2 + 4 * margin**2 * s2)) / (2 * margin**2)

    def safe(self, margin: float) -> FloatArray:
        """The same of the mean, with the remainder, which goes as 1/width², added to the shift."""
        s = np.abs(self.shift)
        return (s + np.sqrt(s**2 + 4 * margin * self.remainder)) / (2 * margin)


@dataclass(frozen=True)
class Boundary:
    """Where a prediction begins to hold. factor: of all hidden widths, the smallest at which it holds in every layer,
    0 for any width at all, NaN where there is no answer; safe: the same with the remainder, for means; widths: the
    hidden widths at `factor`; layer, item: what asks for most, of size `deviation` at the network's own widths.
    layers: which hold there, as (first, last) spans, of all_layers; depth: the deepest network of these widths that
    holds in all layers, None where the widths are not alike and DEEPEST where it ends the search."""

    quantity: str
    kind: Kind
    margin: float
    factor: float
    safe: float
    widths: tuple[int, ...]
    layer: int
    item: int
    deviation: float
    layers: tuple[tuple[int, int], ...]
    all_layers: tuple[int, int]
    depth: int | None


def deviations(net: Network, x: FloatArray) -> list[Deviation]:
    """Of lengths, correlations and gradient norms, those that there are.

    Raises Unpredictable for a network that first-order corrections do not treat, or of one layer."""
    if len(net.maps) < 2:
        raise Unpredictable("a single layer has no hidden width: its statistics are exact")
    p = propagate(net, x)
    f = first_order(net, p, drawn=False)
    a, b = np.triu_indices(len(x), 1)
    own = np.arange(len(x))
    q, g = p.q[1:, own, own], p.grad_gram[:-1, own, own]
    out = [
        _relative("length", 2, q, *(v[1:, own, own] for v in _parts(f.metric))),
        _relative("gradient norm", 1, g, *(v[:-1] for v in _parts(f.grad_norm2))),
    ]
    if len(a):
        with np.errstate(divide="ignore", invalid="ignore"):
            c = p.q[1:, a, b] / np.sqrt(q[:, a] * q[:, b])
        parts = (np.where(np.isnan(c), np.nan, v[1:, a, b]) for v in _parts(f.c))
        out.insert(1, Deviation("correlation", 2, c, *parts))
    return out


def _parts(shift: object) -> tuple[FloatArray, ...]:
    return tuple(getattr(shift, name) for name in ("value", "remainder", "variance"))


def _relative(
    name: str, first: int, limit: FloatArray, value: FloatArray, remainder: FloatArray, variance: FloatArray
) -> Deviation:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return Deviation(name, first, limit, value / limit, remainder / limit, variance / limit**2)


def boundaries(net: Network, x: FloatArray, margin: float) -> list[Boundary]:
    """Of every quantity, its mean over networks and a typical network."""
    deeper = _Deeper(net, x)
    return [_boundary(net, d, kind, margin, deeper) for d in deviations(net, x) for kind in KINDS]


def _boundary(net: Network, d: Deviation, kind: Kind, margin: float, deeper: _Deeper) -> Boundary:
    needed = d.needed(kind, margin)
    whole = d.first, d.first + len(needed) - 1
    unknown = np.isnan(d.shift) & np.isfinite(d.limit) & (d.limit != 0)
    if unknown.any() or not np.isfinite(needed).any():
        return Boundary(d.quantity, kind, margin, math.nan, math.nan, (), d.first, 0, math.nan, (), whole, None)
    needed = np.where(needed * margin < _EXACT, 0.0, needed)
    layer, item = np.unravel_index(int(np.nanargmax(needed)), needed.shape)
    factor = float(needed[layer, item])
    size = d.size(kind)
    return Boundary(
        d.quantity, kind, margin, factor, float(np.nanmax(d.safe(margin))) if kind == "mean" and factor else factor,
        tuple(hidden(widened(net, factor))), d.first + int(layer), int(item), float(size[layer, item]),
        tuple(_spans(_holds(size, margin), d.first)), whole, deeper.depth(d.quantity, kind, margin),
    )  # fmt: skip


def _holds(size: FloatArray, margin: float) -> NDArray[np.bool_]:
    """(layer,): whether all items are within the margin; what is not known does not count."""
    return np.asarray((np.nan_to_num(size) <= margin).all(axis=1))


def _spans(holds: NDArray[np.bool_], first: int) -> list[tuple[int, int]]:
    """Runs of True as (first, last) layer numbers."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], holds, [False]]).astype(int)))
    return [(first + int(start), first + int(end) - 1) for start, end in edges.reshape(-1, 2)]


# ---- networks of other widths and depths --------------------------------------------------------------


def hidden(net: Network) -> list[int]:
    """The widths of all layers but the last, on which nothing here depends."""
    return net.widths[:-1]


def widened(net: Network, factor: float) -> Network:
    """The network with every hidden width times `factor`, rounded up, at least 1. Dense layers alone."""
    last, layers = net.maps[-1], []
    for i, v in enumerate(net.layers):
        if isinstance(v, Dense):
            fan_in = v.fan_in if i == 0 else _times(v.fan_in, factor)
            v = replace(v, fan_in=fan_in, fan_out=v.fan_out if i == last else _times(v.fan_out, factor))
        layers.append(v)
    return Network(layers, net.name)


def _times(width: int, factor: float) -> int:
    return max(1, math.ceil(width * factor - 1e-9))


def with_depth(net: Network, depth: int) -> Network | None:
    """The network cut or continued to `depth` maps by its last hidden block but one; None where hidden widths differ or
    there is no such block."""
    blocks = [list(net.layers[i:j]) for i, j in zip(net.maps, [*net.maps[1:], len(net.layers)], strict=True)]
    widths = hidden(net)
    if len(blocks) < 3 or len(set(widths)) > 1:
        return None
    first, middle, last = blocks[0], blocks[1:-1], blocks[-1]
    inner = (middle + [middle[-1]] * depth)[: depth - 2]
    layers: list[Layer] = [*first, *(v for block in inner for v in block), *last]
    return Network(layers, net.name)


class _Deeper:
    """The network cut or continued to other depths, whose deviations are computed once."""

    def __init__(self, net: Network, x: FloatArray) -> None:
        self.net, self.x = net, x
        self.known: dict[int, dict[str, Deviation]] = {}
        self.alike = with_depth(net, 2) is not None
        self.deepest = max(DEEPEST, len(net.maps))

    def holds(self, depth: int, quantity: str, kind: Kind, margin: float) -> NDArray[np.bool_]:
        if depth not in self.known:
            other = with_depth(self.net, depth)
            assert other is not None
            self.known[depth] = {d.quantity: d for d in deviations(other, self.x)}
        return _holds(self.known[depth][quantity].size(kind), margin)

    def depth(self, quantity: str, kind: Kind, margin: float) -> int | None:
        """The largest depth at which all layers hold, 1 where none does. What goes upwards does not depend on the
        layers above; for gradients by bisection, since deviations add up with depth."""
        if not self.alike:
            return None
        whole = self.holds(self.deepest, quantity, kind, margin)
        if whole.all():
            return self.deepest
        if quantity != "gradient norm":
            return 1 + int(np.argmin(whole))
        low, high = 1, self.deepest
        own = len(self.net.maps)
        if self.holds(own, quantity, kind, margin).all():
            low = own
        else:
            high = own
        while high - low > 1:
            middle = min((low + high) // 2, 2 * low)
            if self.holds(middle, quantity, kind, margin).all():
                low = middle
            else:
                high = middle
        return low
