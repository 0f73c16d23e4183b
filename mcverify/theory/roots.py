"""All roots of a sampled function: sign changes, roots that only touch, and pairs hidden between samples.

SciPy's solvers are imported on first use: start-up stays light.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Scalar = Callable[[float], float]
Kind = Literal["falling", "rising", "touching"]


class Root(NamedTuple):
    """A root at `x`: the function goes from + to − ("falling"), − to + ("rising"), or back ("touching")."""

    x: float
    kind: Kind


class Scan(NamedTuple):
    """`roots` in increasing order; `first` and `last`: the signs (−1, 0, 1) at the two ends of the scan.

    A run of samples too near to zero for a sign belongs, at an end, to that end; `flat`: all samples are."""

    roots: tuple[Root, ...]
    first: int
    last: int
    flat: bool


def refine(function: Scalar, low: float, high: float, rtol: float = 4 * np.finfo(float).eps) -> float:
    """The root in a bracket, by default to the last few places of its own size (Brent 1973)."""
    from scipy.optimize import brentq

    return float(brentq(function, low, high, xtol=1e-300, rtol=rtol, maxiter=500))


def scan(function: Scalar, x: Floats, values: Floats, noise: Floats) -> Scan:
    """Roots of `function`, given its `values` (n,) at increasing `x` (n,), each sure to ± `noise` (n,).

    Finds every root that the samples resolve: crossings, and both roots of a pair that falls between
    samples, since each local extremum is refined before it is dismissed. A sample has a sign only where it
    is ten times its noise."""
    signs = np.where(np.abs(values) <= 10 * noise, 0, np.sign(values)).astype(int)
    sure = np.flatnonzero(signs)
    if not len(sure):
        return Scan((), 0, 0, True)
    found: list[Root] = []
    for i, j in pairwise(sure):
        if signs[i] != signs[j]:
            kind: Kind = "falling" if signs[i] > 0 else "rising"
            found.append(Root(refine(function, float(x[i]), float(x[j])), kind))
        elif j > i + 1:
            found += _near_zero(function, int(signs[i]), float(x[i]), float(x[j]), float(np.min(noise[i:j])))
    for at in _turns(signs, np.abs(values)):
        found += _near_zero(function, int(signs[at]), float(x[at - 1]), float(x[at + 1]), float(noise[at]))
    return Scan(tuple(sorted(found)), int(signs[sure[0]]), int(signs[sure[-1]]), False)


def _turns(signs: NDArray[np.int_], size: Floats) -> Iterator[int]:
    """Samples nearest to zero between two neighbours of the same sign, near enough to hide a root.

    A parabola that reaches zero between the three has an outer value of at least four times the middle one,
    so an extremum far flatter than that is passed over."""
    for i in range(1, len(signs) - 1):
        if signs[i] != 0 and signs[i - 1] == signs[i] == signs[i + 1]:
            low, high = sorted((size[i - 1], size[i + 1]))
            if size[i] <= low and high >= 2 * size[i]:
                yield i


def _near_zero(function: Scalar, sign: int, left: float, right: float, noise: float) -> list[Root]:
    """No root, one that touches, or two, between two points of the same sign."""
    at, depth = _lowest(function, sign, left, right)
    if depth > noise:
        return []
    if depth >= -noise:
        return [Root(at, "touching")]
    kinds: tuple[Kind, Kind] = ("falling", "rising") if sign > 0 else ("rising", "falling")
    return [Root(refine(function, left, at), kinds[0]), Root(refine(function, at, right), kinds[1])]


def _lowest(function: Scalar, sign: int, left: float, right: float) -> tuple[float, float]:
    """(where, value) of the minimum of sign · function on [left, right]."""
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda t: sign * function(float(t)),
        bounds=(left, right),
        method="bounded",
        options={"xatol": 1e-9 * left},
    )
    return float(found.x), float(found.fun)
