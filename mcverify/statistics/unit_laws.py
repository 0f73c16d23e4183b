"""Distribution functions of unit-variance laws: for each name, P(X ≤ x), P(X < x) and the quantiles.

Written apart from the samplers, from the laws' definitions, so that a sampler can be held against them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import beta

from mcverify.statistics.laws import BINS, which_bin
from mcverify.weights import TRUNCATED_VARIANCE, TRUNCATION

FloatArray = NDArray[np.float64]
Function = Callable[[FloatArray], FloatArray]

SUPPORT_ROUNDING = 1e-5  # relative; float32 rounds an atom or an end of the support by 1e-7, and scaling it adds some


@dataclass(frozen=True)
class UnitLaw:
    """cdf(x) = P(X ≤ x); below(x) = P(X < x), None for a law without atoms; quantile(u)."""

    cdf: Function
    below: Function | None
    quantile: Function


_ROOT_3 = np.sqrt(3.0)
_SPREAD = np.sqrt(TRUNCATED_VARIANCE)
_LOW, _HIGH = ndtr(-TRUNCATION), ndtr(TRUNCATION)


def _truncated_cdf(x: FloatArray) -> FloatArray:
    return np.asarray((ndtr(np.clip(x * _SPREAD, -TRUNCATION, TRUNCATION)) - _LOW) / (_HIGH - _LOW))


def _two_points(x: FloatArray) -> FloatArray:
    return np.asarray(0.5 * (x >= -1) + 0.5 * (x >= 1))


UNIT_LAWS: dict[str, UnitLaw] = {
    "gaussian": UnitLaw(ndtr, None, ndtri),
    "uniform": UnitLaw(
        lambda x: np.clip((x / _ROOT_3 + 1) / 2, 0.0, 1.0), None, lambda u: np.asarray(_ROOT_3 * (2 * u - 1))
    ),
    "truncated_normal": UnitLaw(_truncated_cdf, None, lambda u: np.asarray(ndtri(_LOW + u * (_HIGH - _LOW)) / _SPREAD)),
    # A value within rounding of ±1 is ±1.
    "rademacher": UnitLaw(
        lambda x: _two_points(x + SUPPORT_ROUNDING),
        lambda x: _two_points(x - SUPPORT_ROUNDING),
        lambda u: np.where(u < 0.5, -1.0, 1.0),
    ),
}


def sphere_coordinate(dimension: int) -> UnitLaw:
    """√m times a coordinate of a uniform point on the unit sphere in m dimensions: x²/m is Beta(½, (m−1)/2). Also
    the law of √m uᵀQv for a Haar matrix Q on O(m) and any fixed unit vectors u, v."""
    half, root = (dimension - 1) / 2, np.sqrt(dimension)
    return UnitLaw(
        lambda x: np.asarray(beta.cdf((np.clip(x / root, -1, 1) + 1) / 2, half, half)),
        None,
        lambda u: np.asarray(root * (2 * beta.ppf(u, half, half) - 1)),
    )


def shares_under(law: UnitLaw, other: UnitLaw, probabilities: FloatArray = BINS) -> FloatArray:
    """The share (bin,) of each of law's bins if samples followed the other law, to 1e-4."""
    midpoints = (np.arange(20_000) + 0.5) / 20_000
    x = other.quantile(midpoints)
    u = law.cdf(x)
    if law.below is not None:  # the same midpoints, shuffled, in place of a random number
        u = law.below(x) + np.random.default_rng(0).permutation(midpoints) * (u - law.below(x))
    return np.bincount(which_bin(u, probabilities), minlength=len(probabilities)) / len(midpoints)
