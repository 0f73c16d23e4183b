"""Linear convolutional networks as sums over paths, in rational arithmetic. No covariance is ever propagated.

    h^l_j(p) = Σ_i Σ_β W^l_{β,j,i} h^{l-1}_i(p + β) + b^l_j,   Var W = σ_w²/(K c_in), Var b = σ_b², one b for a channel

K taps, along an axis of k at the offsets -⌊(k - 1)/2⌋ … ⌊k/2⌋. With φ = identity every pre-activation is a polynomial
in weights and biases. A path fixes where it starts (an input entry, or a bias), which tap it takes at each layer and
which channels it passes; it gives one monomial, the product of the weights it uses, one for each layer. Weights are
independent and of mean zero, so that the mean of a product of two monomials vanishes unless they are the same, and is
the product of their variances then. That is all there is here: list the paths, collect the monomials, sum over
coincident ones. `check_polynomials` and `check_signs` hold the polynomials and the moments against explicit networks.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import product
from math import prod
from typing import Any

import numpy as np

Position = tuple[int, ...]
Label = tuple[Any, ...]  # of a random variable: its kind, its layer, its indices
Monomial = tuple[Label, ...]
Polynomial = dict[Monomial, Fraction]
Signal = Sequence[Sequence[Fraction]]  # by channel and position, positions row-major
Matrix = list[list[Fraction]]  # symmetric, over (input, position), the input outermost


def offsets(taps: int) -> range:
    """Where the taps along one axis look."""
    return range(-((taps - 1) // 2), taps // 2 + 1)


@dataclass(frozen=True)
class Paths:
    """The path sums of one network of channels c_0 … c_L.

    readout: "", nothing above the last convolution; "flatten", y_o = Σ_jp V_{o,jp} h_j(p) + d_o, Var V = σ_w²/(c_L P);
    "average", y_o = Σ_j V_{oj} (1/P) Σ_p h_j(p) + d_o, Var V = σ_w²/c_L; Var d = σ_b².
    """

    grid: tuple[int, ...]
    kernel: tuple[int, ...]
    channels: tuple[int, ...]
    sigma_w2: Fraction
    sigma_b2: Fraction
    padding: str
    readout: str = ""
    outputs: int = 1

    @property
    def depth(self) -> int:
        return len(self.channels) - 1

    @cached_property
    def taps(self) -> list[Position]:
        return list(product(*map(offsets, self.kernel)))

    @cached_property
    def positions(self) -> list[Position]:
        return list(product(*map(range, self.grid)))

    def move(self, p: Position, offset: Position, sign: int = 1) -> Position | None:
        """p + sign · offset on the grid, or None where zero padding cuts it off."""
        there = tuple(a + sign * o for a, o in zip(p, offset, strict=True))
        if self.padding == "circular":
            return tuple(a % n for a, n in zip(there, self.grid, strict=True))
        return there if all(0 <= a < n for a, n in zip(there, self.grid, strict=True)) else None

    def end(self, p: Position, route: Sequence[Position], sign: int) -> Position | None:
        """Where a path from p along these taps ends, or None where it leaves the grid on the way."""
        here: Position | None = p
        for offset in route:
            here = self.move(here, offset, sign) if here is not None else None
        return here

    def variance(self, label: Label) -> Fraction:
        """Of a weight "w", a readout's weight "v", a bias "b" or "d"."""
        if label[0] == "w":
            return self.sigma_w2 / (len(self.taps) * self.channels[label[1] - 1])
        if label[0] == "v":
            return self.sigma_w2 / (self.channels[-1] * (len(self.positions) if self.readout == "flatten" else 1))
        return self.sigma_b2

    # ------------------------------------------------------------------------------------------- forward

    def h(self, x: Signal, layer: int, j: int, p: Position) -> Polynomial:
        """h^layer_j(p) of one input."""
        found: Polynomial = defaultdict(Fraction)
        for start in range(layer + 1):  # 0: at the input; otherwise at the bias of layer `start`
            for route in product(self.taps, repeat=layer - start):  # taps at layers layer … start + 1
                here = self.end(p, route, 1)
                if here is None:
                    continue
                for between in product(*(range(self.channels[m]) for m in range(layer - 1, start - 1, -1))):
                    chain = (j, *between)  # channels at layers layer … start
                    monomial = tuple(("w", layer - t, tap, chain[t], chain[t + 1]) for t, tap in enumerate(route))
                    if start:
                        found[*monomial, ("b", start, chain[-1])] += 1
                    else:
                        found[monomial] += x[chain[-1]][self.positions.index(here)]
        return {monomial: factor for monomial, factor in found.items() if factor}

    def y(self, x: Signal, o: int) -> Polynomial:
        """Output o of the readout."""
        found: Polynomial = defaultdict(Fraction, {(("d", "out", o),): Fraction(1)})
        for j, p in product(range(self.channels[-1]), self.positions):
            label, scale = self.edge(o, j, p)
            for monomial, factor in self.h(x, self.depth, j, p).items():
                found[label, *monomial] += factor * scale
        return dict(found)

    def edge(self, o: int, j: int, p: Position) -> tuple[Label, Fraction]:
        """The weight with which output o sees channel j at p, and what multiplies it."""
        if self.readout == "flatten":
            return ("v", "out", o, j, p), Fraction(1)
        return ("v", "out", o, j), Fraction(1, len(self.positions))

    # ------------------------------------------------------------------------------------------- backward

    def delta(self, v: Any, layer: int, i: int, p: Position) -> Polynomial:
        """∂E/∂h^layer_i(p) of one input: E = Σ_jp v_j(p) h^L_j(p), or Σ_o v_o y_o below a readout."""
        found: Polynomial = defaultdict(Fraction)
        for route in product(self.taps, repeat=self.depth - layer):  # taps at layers layer + 1 … L: p_{m-1} = p_m + β
            here = self.end(p, route, -1)
            if here is None:
                continue
            for between in product(*(range(self.channels[m]) for m in range(layer + 1, self.depth + 1))):
                chain = (i, *between)
                monomial = tuple(("w", layer + 1 + t, tap, chain[t + 1], chain[t]) for t, tap in enumerate(route))
                if self.readout:
                    for o in range(self.outputs):
                        label, scale = self.edge(o, chain[-1], here)
                        found[*monomial, label] += v[o] * scale
                else:
                    found[monomial] += v[chain[-1]][self.positions.index(here)]
        return {monomial: factor for monomial, factor in found.items() if factor}

    # ------------------------------------------------------------------------------------------- moments

    def mean_product(self, f: Polynomial, g: Polynomial) -> Fraction:
        """E f g: coincident monomials alone survive."""
        same = ((monomial, factor * g[monomial]) for monomial, factor in f.items() if monomial in g)
        return sum((factor * prod(map(self.variance, monomial)) for monomial, factor in same), Fraction(0))

    def gram(self, polynomials: Sequence[Sequence[Polynomial]]) -> Matrix:
        """Σ over channels of E f_u f_w; polynomials by (u, channel)."""
        size = len(polynomials)
        out = [[Fraction(0)] * size for _ in range(size)]
        for u in range(size):
            for w in range(u, size):
                pairs = zip(polynomials[u], polynomials[w], strict=True)
                out[u][w] = out[w][u] = sum((self.mean_product(f, g) for f, g in pairs), Fraction(0))
        return out

    def covariance(self, xs: Sequence[Signal], layer: int) -> Matrix:
        """E (1/c) Σ_j h_j(a, p) h_j(b, p')."""
        c = self.channels[layer]
        gram = self.gram([[self.h(x, layer, j, p) for j in range(c)] for x in xs for p in self.positions])
        return [[entry / c for entry in row] for row in gram]

    def gradient_moment(self, vs: Sequence[Any], layer: int) -> Matrix:
        """E Σ_i δ_i(a, p) δ_i(b, p')."""
        c = self.channels[layer]
        return self.gram([[self.delta(v, layer, i, p) for i in range(c)] for v in vs for p in self.positions])

    def output_moment(self, xs: Sequence[Signal]) -> Matrix:
        """E y_o(a) y_o(b), the same for every output o."""
        return self.gram([[self.y(x, 0)] for x in xs])


# ------------------------------------------------------------------------------------------- explicit networks

Values = Mapping[Label, Any]


def convolve(net: Paths, values: Values, layer: int, x: np.ndarray) -> np.ndarray:
    """(channels, *grid) through one convolution, by slices of a padded array: no code of the paths."""
    fan_out, fan_in = net.channels[layer], net.channels[layer - 1]
    mode: Any = "wrap" if net.padding == "circular" else "constant"
    padded = np.pad(x, [(0, 0), *(((k - 1) // 2, k // 2) for k in net.kernel)], mode=mode)
    bias = np.array([values["b", layer, j] for j in range(fan_out)], dtype=x.dtype)
    out = np.zeros((fan_out, *net.grid), dtype=x.dtype) + bias.reshape(-1, *(1 for _ in net.grid))
    for tap in np.ndindex(*net.kernel):
        offset = tuple(t - (k - 1) // 2 for t, k in zip(tap, net.kernel, strict=True))
        w = [[values["w", layer, offset, j, i] for i in range(fan_in)] for j in range(fan_out)]
        window = padded[(slice(None), *(slice(t, t + n) for t, n in zip(tap, net.grid, strict=True)))]
        out = out + np.tensordot(np.array(w, dtype=x.dtype), window, axes=(1, 0))
    return out


def outputs(net: Paths, values: Values, layer: int, h: np.ndarray) -> np.ndarray:
    """h^layer, (channels, *grid), through the layers above: h^L, or what the readout makes of it."""
    for above in range(layer + 1, net.depth + 1):
        h = convolve(net, values, above, h)
    if not net.readout:
        return h
    flat = h.reshape(len(h), -1)
    found = []
    for o in range(net.outputs):
        if net.readout == "flatten":
            weights = [[values["v", "out", o, j, p] for p in net.positions] for j in range(len(h))]
            seen = (np.array(weights, dtype=object) * flat).sum()
        else:
            weights = [values["v", "out", o, j] for j in range(len(h))]
            seen = (np.array(weights, dtype=object) * flat.sum(axis=1)).sum() * Fraction(1, flat.shape[1])
        found.append(seen + values["d", "out", o])
    return np.array(found, dtype=object)


def evaluate(polynomial: Polynomial, values: Values) -> Fraction:
    """The polynomial at these values."""
    return sum((factor * prod(values[label] for label in m) for m, factor in polynomial.items()), Fraction(0))


def check_polynomials(net: Paths, xs: Sequence[Signal], vs: Sequence[Any]) -> None:
    """Asserts that every polynomial is what an explicit network computes at some integer weights, to the last digit.

    The cost is affine in h^l, so that its derivative is E(h + e) - E(h)."""
    rng = random.Random(0)
    values: Values = defaultdict(lambda: rng.randint(-3, 3))
    for x, v in zip(xs, vs, strict=True):
        weights = np.array(v, dtype=object)
        h = np.array(x, dtype=object).reshape(net.channels[0], *net.grid)
        for layer in range(1, net.depth + 1):
            h = convolve(net, values, layer, h)

            def cost(z: np.ndarray, layer: int = layer, weights: np.ndarray = weights) -> Fraction:
                top = outputs(net, values, layer, z)
                return (weights.reshape(top.shape) * top).sum()

            base = cost(h)
            for j, p in product(range(net.channels[layer]), net.positions):
                assert h[(j, *p)] == evaluate(net.h(x, layer, j, p), values)
                moved = h.copy()
                moved[(j, *p)] += 1
                assert cost(moved) - base == evaluate(net.delta(v, layer, j, p), values)
        if net.readout:
            top = outputs(net, values, net.depth, h)
            assert all(top[o] == evaluate(net.y(x, o), values) for o in range(net.outputs))


def check_signs(net: Paths, xs: Sequence[Signal]) -> None:
    """Asserts that networks whose weights are ± their standard deviation, all patterns of signs, have the covariances
    of the paths: second moments know no more of a law than its variance."""
    assert set(net.channels) == {1}
    layers = range(1, net.depth + 1)
    labels = [("w", l, tap, 0, 0) for l in layers for tap in net.taps] + [("b", l, 0) for l in layers]
    sizes = [float(net.variance(label)) ** 0.5 for label in labels]
    inputs = [np.array(x, dtype=float).reshape(1, *net.grid) for x in xs]
    total = 0
    for signs in product((1, -1), repeat=len(labels)):
        values = {label: sign * size for label, sign, size in zip(labels, signs, sizes, strict=True)}
        h = np.concatenate([outputs(net, values, 0, x).ravel() for x in inputs])
        total = total + np.outer(h, h)
    exact = np.array(net.covariance(xs, net.depth), dtype=float)
    assert np.abs(total / 2 ** len(labels) - exact).max() < 1e-10
