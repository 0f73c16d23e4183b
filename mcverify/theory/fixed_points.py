"""All fixed points of the variance map, and which of them a sequence of variances tends to.

In x = log √q the moment ⟨φ²⟩_q is φ² smoothed by the density of log|z|, whose Fourier transform falls like
e^{−π|k|/4}. A step of 0.07 in x (16 samples a decade of q) leaves out only what that smoothing has damped by
more than 10^13, so that a scan of Q(q)/q resolves every fixed point in its range, however wildly φ itself
may vary.

The density of √q z at u changes with q by the factor (u²/q − 1)/2 per unit of log q, so d log⟨φ²⟩/d log q ≥ −1/2. Hence
dQ/dq > −1/2 at every fixed point, and Q has no cycle of period 2 (over a cycle the mean elasticity is −1): a sequence
of variances settles, at a fixed point, 0 or ∞ (Coppel 1955). None oscillates for ever.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mcverify.errors import InputError
from mcverify.expectations import gaussian
from mcverify.theory import roots
from mcverify.theory.variance_map import VarianceMap

Floats = NDArray[np.float64]
Stability = Literal["stable", "unstable", "marginal", "half-stable"]

_PER_DECADE = 16
_LOWEST, _HIGHEST = 1e-16, 1e16
_EPSILON = float(np.finfo(float).eps)
SLOPE_TOLERANCE = 1e-13
"""A fixed point whose slope is this near ±1 is called marginal."""


@dataclass(frozen=True)
class FixedPoint:
    """A fixed point of a one-dimensional map.

    value: where it is, may be 0 or inf. slope: the derivative of the map there; at inf the gain lim Q(q)/q,
    so that a slope above 1 attracts. stability: "stable" attracts from all sides, "unstable" from none,
    "half-stable" from one side (the map touches the diagonal), "marginal" has a slope of ±1, and its pull or
    push is not geometric.
    """

    value: float
    slope: float
    stability: Stability


@dataclass(frozen=True)
class FixedPoints:
    """All fixed points of a variance map, in increasing order, 0 and inf included where they are fixed.

    continuum: every q > 0 is fixed, and `points` is empty. toward: per point (from below, from above),
    whether the map moves towards it there. increasing: whether Q increases over the whole range, so that
    sequences are monotone.
    """

    points: tuple[FixedPoint, ...]
    toward: tuple[tuple[bool, bool], ...] = ()
    continuum: bool = False
    increasing: bool = True


@lru_cache(maxsize=64)
def fixed_points(q_map: VarianceMap) -> FixedPoints:
    """Every fixed point of Q in [0, ∞]."""
    return _homogeneous_points(q_map) if q_map.homogeneous_gain is not None else _scanned_points(q_map)


def stability(slope: float) -> Stability:
    """From the slope alone: |slope| against 1."""
    if abs(abs(slope) - 1.0) <= SLOPE_TOLERANCE:
        return "marginal"
    return "stable" if abs(slope) < 1.0 else "unstable"


def _homogeneous_points(q_map: VarianceMap) -> FixedPoints:
    """Q(q) = a q + σ_b² in closed form: one line meets the diagonal once, never, or everywhere."""
    a, b = q_map.homogeneous_gain, q_map.sigma_b2
    assert a is not None
    if abs(a - 1.0) <= 8 * _EPSILON:
        a = 1.0
    below_one, has_infinity = a < 1.0, a > 0.0
    at_infinity: Stability = "marginal" if a == 1.0 else "unstable" if below_one else "stable"
    if a == 1.0 and b == 0.0:
        return FixedPoints((), continuum=True)
    points: list[FixedPoint] = []
    toward: list[tuple[bool, bool]] = []
    if b == 0.0 or below_one:
        points.append(FixedPoint(b / (1.0 - a), a, stability(a)) if below_one else FixedPoint(0.0, a, "unstable"))
        toward.append((below_one, below_one))
    if has_infinity:
        points.append(FixedPoint(math.inf, a, at_infinity))
        toward.append((not below_one, False))
    return FixedPoints(tuple(points), tuple(toward))


def _grid(q_map: VarianceMap) -> Floats:
    """Where to look: no fixed point lies below σ_b², since Q ≥ σ_b²."""
    low = q_map.sigma_b2 / 2 if q_map.sigma_b2 > 0 else _LOWEST
    high = max(_HIGHEST, 1e4 * q_map.sigma_b2)
    count = math.ceil(_PER_DECADE * math.log10(high / low)) + 1
    return np.geomspace(low, high, count)


def _scanned_points(q_map: VarianceMap) -> FixedPoints:
    """Fixed points in (0, ∞) from a scan of Q(q)/q − 1, then 0 and infinity from the ends of the scan."""
    grid = _grid(q_map)
    q, image, error = _finite_samples(q_map, grid)
    found = roots.scan(q_map.excess, q, image / q - 1.0, error / q + 4 * _EPSILON)
    if found.flat:
        return FixedPoints((), continuum=True)
    points, toward = [], []
    for root in found.roots:
        slope = float(q_map.slope(root.x))
        kind = "half-stable" if root.kind == "touching" else stability(slope)
        points.append(FixedPoint(root.x, slope, kind))
        toward.append(_pull(q_map, root))
    zero = _zero(q_map, found.first)
    infinity = _infinity(q_map, float(q[-1]), float(image[-1]), found.last, len(q) < len(grid))
    ends = [(zero, (False, found.first < 0))] if zero else []
    tail = [(infinity, (found.last > 0, False))] if infinity else []
    every = [*ends, *zip(points, toward, strict=True), *tail]
    rising = bool(np.all(np.diff(image) >= -error[1:]))
    return FixedPoints(tuple(p for p, _ in every), tuple(t for _, t in every), increasing=rising)


def _finite_samples(q_map: VarianceMap, grid: Floats) -> tuple[Floats, Floats, Floats]:
    """(q, Q(q), its error) up to where φ² overflows: φ may grow exponentially."""
    fits = _count_that_fits(q_map, grid)
    return grid[:fits], q_map(grid[:fits]), q_map.error(grid[:fits])


def _count_that_fits(q_map: VarianceMap, grid: Floats) -> int:
    """How many leading samples have a finite Q, by bisection. Raises InputError where the first has none."""

    def fits(count: int) -> bool:
        try:
            return bool(np.all(np.isfinite(q_map(grid[count - 1 : count]))))
        except InputError:
            if count == 1:
                raise
            return False

    if fits(len(grid)):
        return len(grid)
    good, bad = 1, len(grid)
    fits(good)
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def _pull(q_map: VarianceMap, root: roots.Root) -> tuple[bool, bool]:
    """Whether the map moves q towards a root, from below and from above."""
    if root.kind == "touching":
        grows = q_map.excess(root.x * 1.01) > 0
        return grows, not grows
    return root.kind == "falling", root.kind == "falling"


def _zero(q_map: VarianceMap, first: int) -> FixedPoint | None:
    """q = 0, where Q(0) = 0. A jump of φ at 0 makes the slope infinite."""
    if q_map.sigma_b2 > 0 or float(q_map(0.0)) > 0:
        return None
    if any(point == 0.0 for point, _ in q_map.activation.jumps):
        return FixedPoint(0.0, math.inf if q_map.sigma_w2 > 0 else 0.0, "unstable" if first > 0 else "stable")
    at = gaussian.second_moment_slope(q_map.activation, 0.0)
    slope = q_map.gain * float(at.value) if at.value > at.error else 0.0
    return FixedPoint(0.0, slope, stability(slope))


def _infinity(q_map: VarianceMap, top: float, image: float, last: int, overflow: bool) -> FixedPoint | None:
    """q = ∞, where Q(q) → ∞; its gain from the elasticity d log Q/d log q at the top of the scan."""
    if overflow:
        return FixedPoint(math.inf, math.inf, "stable")
    elasticity = float(q_map.slope(top)) * top / image if image > 0 else 0.0
    if q_map.activation.bounded or elasticity < 1e-2:
        return None
    linear = abs(elasticity - 1.0) < 1e-3
    gain = image / top if linear else math.inf if elasticity > 1 else 0.0
    if linear and abs(gain - 1.0) <= 1e-7:
        return FixedPoint(math.inf, 1.0, "marginal")
    return FixedPoint(math.inf, gain, "stable" if last > 0 else "unstable")


def settle(q_map: VarianceMap, q0: float, *, steps: int = 2000) -> FixedPoint | None:
    """The fixed point that q0, Q(q0), Q(Q(q0)), … tends to; None when it has not settled in `steps`.

    Where Q increases the sequence is monotone and runs to the next fixed point on its side: nothing to iterate.
    Elsewhere Q is iterated until it is close to a stable point, which it comes to (see the top of the file)."""
    everything = fixed_points(q_map)
    at = q0
    for _ in range(1 if everything.increasing else steps):
        for point in everything.points:
            near = 1e-12 if everything.increasing or point.stability != "stable" else 1e-6
            if abs(at - point.value) <= near * point.value < math.inf:
                return point
        if everything.increasing:
            return _next(everything, at)
        at = float(q_map(at))
    return None


def _next(everything: FixedPoints, at: float) -> FixedPoint | None:
    """The neighbour that a monotone sequence from `at` tends to."""
    below = [i for i, p in enumerate(everything.points) if p.value < at]
    above = [i for i, p in enumerate(everything.points) if p.value > at]
    if below and everything.toward[below[-1]][1]:
        return everything.points[below[-1]]
    if above and everything.toward[above[0]][0]:
        return everything.points[above[0]]
    return None
