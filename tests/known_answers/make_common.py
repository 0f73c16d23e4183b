"""Gaussian averages by quadrature, for the scripts that make the known answers (mpmath only, no closed forms).

One input:   <f>_q = E f(√q z) with z ~ N(0, 1).
Two inputs:  E F(u_a, u_b) with (u_a, u_b) ~ N(0, [[q_aa, q_ab], [q_ab, q_bb]]), where
             u_a = √q_aa z1 and u_b = √q_bb (c z1 + s z2), c the correlation and s = √(1 - c²).

Methods:
- one input: composite Gauss-Legendre on panels split at every kink and graded in units of 1/√q;
- two inputs, analytic φ: the trapezoid rule on a lattice of (z1, z2), whose error is exp(-2π d/h) for step h and
  distance d to the nearest complex singularity. The lattice shifted by half a step is an independent estimate: the mean
  of the two is returned, their difference is the error;
- two inputs, φ with kinks: Gauss-Legendre in z2 split at the kinks of u_b, inside Gauss-Legendre in z1 split at the
  kinks of u_a and, in units of s/|c|, around the smoothed kinks of u_b.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from exact_activations import ACTIVATIONS, Activation
from mpmath import mp, mpf

# ------------------------------------------------------------------------------------------- Gauss-Legendre


def _legendre(n: int, x: mpf) -> tuple[mpf, mpf]:
    """P_n(x) and P_n'(x) by the three-term recurrence."""
    previous, current = mpf(1), x
    for j in range(2, n + 1):
        previous, current = current, ((2 * j - 1) * x * current - (j - 1) * previous) / j
    return current, n * (x * current - previous) / (x * x - 1)


@lru_cache(None)
def gauss_legendre(n: int, digits: int) -> list[tuple[mpf, mpf]]:
    """The n nodes and weights on [-1, 1], correct to the given number of digits (Newton on P_n)."""
    rule = []
    with mp.workdps(digits + 8):
        for k in range(n):
            x = mp.cos(mp.pi * (4 * k + 3) / (4 * n + 2))
            for _ in range(100):
                value, slope = _legendre(n, x)
                x -= value / slope
                if abs(value / slope) < mpf(10) ** (-(digits + 4)):
                    break
            slope = _legendre(n, x)[1]
            rule.append((x, 2 / ((1 - x * x) * slope * slope)))
    return rule


def subdivide(points: Iterable[mpf], width: mpf) -> list[mpf]:
    """The points in order, with equally spaced ones added so that no gap exceeds width."""
    ordered = sorted(set(points))
    breaks = [ordered[0]]
    for a, b in pairwise(ordered):
        parts = max(1, int(mp.ceil((b - a) / width)))
        breaks += [a + (b - a) * i / parts for i in range(1, parts + 1)]
    return breaks


def composite_rule(breaks: Sequence[mpf], n: int) -> tuple[list[mpf], list[mpf]]:
    """Nodes and weights of n-point Gauss-Legendre on every panel between consecutive breaks."""
    nodes, weights = [], []
    rule = gauss_legendre(n, mp.dps)
    for a, b in pairwise(breaks):
        middle, half = (a + b) / 2, (b - a) / 2
        nodes += [middle + half * x for x, _ in rule]
        weights += [half * w for _, w in rule]
    return nodes, weights


# ------------------------------------------------------------------------------------------- one input


def _offsets(name: str) -> list[mpf]:
    """Distances in u from a kink (or from zero) at which panels end: geometric, from 1/2 to 200."""
    # tanh(u³) is flat at zero and then turns within one unit.
    offsets = [mpf(i) / 4 for i in range(1, 13)] if name == "tanh_cubed" else []
    distance = mpf(1) / 2
    while distance < 200:
        offsets.append(distance)
        distance = distance * mpf(3) / 2
    return offsets


def break_points(name: str, q: mpf) -> list[mpf]:
    """Ends of the panels in z: the kinks, graded distances from them in units of 1/√q, and never more than 1 apart."""
    root = mp.sqrt(mpf(q))
    reach = mp.sqrt(2 * mp.log(10) * (mp.dps + 6))  # beyond it the Gaussian weight is below the precision
    kinks = [mpf(k) for k in ACTIVATIONS[name].kinks]
    graded = [k + sign * offset for k in kinks or [mpf(0)] for sign in (1, -1) for offset in _offsets(name)]
    inside = [u / root for u in kinks + graded if abs(u / root) < reach]
    ordered = sorted([-reach, mpf(0), reach, *inside])
    distinct = [ordered[0]]
    for z in ordered[1:]:
        if z - distinct[-1] > mpf("1e-23") * max(1 / root, 1):  # closer ones differ by rounding alone
            distinct.append(z)
    return subdivide(distinct, mpf(1))


def average(name: str, q: mpf, functions: Sequence[Callable[[mpf, mpf, mpf], mpf]], n: int = 44) -> list[mpf]:
    """E f(φ(u), φ'(u), z) with u = √q z, for every f in functions."""
    activation, root = ACTIVATIONS[name], mp.sqrt(mpf(q))
    weights: list[mpf] = []
    columns: list[list[mpf]] = [[] for _ in functions]
    for z, w in zip(*composite_rule(break_points(name, q), n), strict=True):
        phi, dphi = activation(root * z)
        weights.append(w * mp.exp(-z * z / 2))
        for column, f in zip(columns, functions, strict=True):
            column.append(f(phi, dphi, z))
    return [mp.fdot(weights, column) * (1 / mp.sqrt(2 * mp.pi)) for column in columns]


class Moments(NamedTuple):
    """<φ²>_q, <φ'²>_q and d<φ²>_q/dq."""

    phi2: mpf
    dphi2: mpf
    d_phi2_dq: mpf


def moments(name: str, q: mpf, n: int = 44) -> Moments:
    """The one-input averages of the tables; the slope in q is <(z² - 1) φ²>/(2q)."""
    phi2, dphi2, hermite = average(
        name,
        q,
        [
            lambda phi, dphi, z: phi * phi,
            lambda phi, dphi, z: dphi * dphi,
            lambda phi, dphi, z: (z * z - 1) * phi * phi,
        ],
        n,
    )
    return Moments(phi2, dphi2, hermite / (2 * mpf(q)))


# ------------------------------------------------------------------------------------------- two inputs


class PairAverages(NamedTuple):
    """E φ_a φ_b, E φ'_a φ'_b and E φ_a² φ_b²."""

    phi_phi: mpf
    dphi_dphi: mpf
    phi2_phi2: mpf


class _Pair(NamedTuple):
    """u_a = root_a z1 and u_b = root_b (c z1 + s z2)."""

    root_a: mpf
    root_b: mpf
    c: mpf
    s: mpf


def pair_averages(name: str, q_aa: mpf, q_ab: mpf, q_bb: mpf) -> tuple[PairAverages, mpf | None]:
    """The two-input averages, and their relative error where two lattices give one (φ without kinks)."""
    activation = ACTIVATIONS[name]
    q_aa, q_ab, q_bb = mpf(q_aa), mpf(q_ab), mpf(q_bb)
    determinant = q_aa * q_bb - q_ab * q_ab
    pair = _Pair(mp.sqrt(q_aa), mp.sqrt(q_bb), q_ab / mp.sqrt(q_aa * q_bb), mp.sqrt(determinant / (q_aa * q_bb)))
    if activation.kinks:
        return PairAverages(*_nested(activation, pair)), None
    first = _lattice(activation, pair, mpf(0))
    second = _lattice(activation, pair, mpf(1) / 2)
    negligible = mpf("1e-36")  # an average that vanishes has no relative error
    error = max(abs(x - y) / abs(x) for x, y in zip(first, second, strict=True) if abs(x) > negligible)
    return PairAverages(*((x + y) / 2 for x, y in zip(first, second, strict=True))), error


def correlated(name: str, q: mpf, c: mpf) -> PairAverages:
    """The two-input averages at equal variances q and correlation c."""
    return pair_averages(name, q, c * q, q)[0]


def _inner(activation: Activation, weights: list[mpf], inputs: Iterable[mpf]) -> tuple[mpf, mpf, mpf]:
    """Σ w φ, Σ w φ' and Σ w φ² over the values of u_b at one z1."""
    values, slopes = zip(*(activation(u) for u in inputs), strict=True)
    return mp.fdot(weights, values), mp.fdot(weights, slopes), mp.fdot(weights, [v * v for v in values])


def _step(activation: Activation, rate_a: mpf, rate_b: mpf) -> mpf:
    """The lattice step along a direction of z in which u_a and u_b change at the given rates."""
    exponent = mpf("2.22") * mp.dps  # one lattice aims at an error of exp(-exponent), that is 10^(-0.96 dps)
    for_the_weight = mp.sqrt(2 * mp.pi**2 / exponent)
    kind, parameter = activation.continuation
    if kind == "gauss":
        return mp.sqrt(2 * mp.pi**2 / exponent / (1 + 4 * parameter * (rate_a**2 + rate_b**2)))
    if kind == "exp":
        return 2 * mp.pi / (2 * mp.pi / for_the_weight + 2 * parameter * (rate_a + rate_b))
    fastest = max(rate_a, rate_b)
    if fastest == 0 or parameter / fastest >= 2 * mp.pi / for_the_weight:
        return for_the_weight
    distance = parameter / fastest
    return min(for_the_weight, 2 * mp.pi * distance / (exponent + distance * distance / 2))


def _lattice(activation: Activation, pair: _Pair, shift: mpf) -> list[mpf]:
    """The trapezoid rule on the lattice moved by shift steps both ways, within a disc of (z1, z2)."""
    reach = mp.sqrt(mpf("4.3") * mp.dps)
    h1 = _step(activation, pair.root_a, pair.root_b * abs(pair.c))
    h2 = _step(activation, mpf(0), pair.root_b * pair.s)
    n1, n2 = int(reach / h1) + 1, int(reach / h2) + 1
    z2 = [(j + shift) * h2 for j in range(-n2, n2 + 1)]
    weights = [mp.exp(-z * z / 2) for z in z2]
    offsets = [pair.root_b * pair.s * z for z in z2]
    totals = [mpf(0)] * 3
    # For odd φ the point (-z1, -z2) gives what (z1, z2) gives: half the lattice, counted twice.
    for i in range(0 if activation.odd else -n1, n1 + 1):
        z1 = (i + shift) * h1
        if abs(z1) > reach:
            continue
        chord = mp.sqrt(reach * reach - z1 * z1)
        low = max(0, int(mp.floor(-chord / h2 - shift)) + n2)
        high = min(len(z2), int(mp.ceil(chord / h2 - shift)) + n2 + 1)
        centre = pair.root_b * pair.c * z1
        inner = _inner(activation, weights[low:high], (centre + v for v in offsets[low:high]))
        weight = mp.exp(-z1 * z1 / 2)
        if activation.odd and z1 != 0:
            weight *= 2
        phi, dphi = activation(pair.root_a * z1)
        for k, outer in enumerate((phi, dphi, phi * phi)):
            totals[k] += weight * outer * inner[k]
    return [total * h1 * h2 / (2 * mp.pi) for total in totals]


def _outer_breaks(activation: Activation, pair: _Pair, reach: mpf, width: mpf) -> list[mpf]:
    """Ends of the panels in z1: the kinks of u_a, and a fan around each kink of u_b as far as z2 blurs it."""
    points = [-reach, reach, *(k / pair.root_a for k in activation.kinks)]
    blur = pair.s / abs(pair.c) if pair.c else mpf(10)
    if blur < mpf("1.3"):
        points += [k / pair.root_b / pair.c + mpf(3) / 2 * blur * j for k in activation.kinks for j in range(-9, 10)]
    return subdivide([z for z in points if abs(z) <= reach], width)


def _nested(activation: Activation, pair: _Pair) -> list[mpf]:
    """Gauss-Legendre in z2 inside Gauss-Legendre in z1, both split at the kinks; the error is near 1e-30."""
    n, reach, width = 32, mpf("12.4"), mpf("2.4")
    totals = [mpf(0)] * 3
    for z1, w1 in zip(*composite_rule(_outer_breaks(activation, pair, reach, width), n), strict=True):
        centre = pair.c * z1
        kinks = [(k / pair.root_b - centre) / pair.s for k in activation.kinks]
        breaks = subdivide([-reach, reach, *(z for z in kinks if abs(z) < reach)], width)
        z2, w2 = composite_rule(breaks, n)
        weights = [w * mp.exp(-z * z / 2) for z, w in zip(z2, w2, strict=True)]
        inner = _inner(activation, weights, (pair.root_b * (centre + pair.s * z) for z in z2))
        weight = w1 * mp.exp(-z1 * z1 / 2)
        phi, dphi = activation(pair.root_a * z1)
        for k, outer in enumerate((phi, dphi, phi * phi)):
            totals[k] += weight * outer * inner[k]
    return [total / (2 * mp.pi) for total in totals]
