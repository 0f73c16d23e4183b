"""Tests that may be looked at as often as one likes, and stopped whenever one likes.

An e-process has expectation at most one at every stopping time while its hypothesis is true, so by Ville's
inequality (Ville 1939) the chance that it ever reaches 1/α is at most α: p = 1/max E. Each function says what
it takes for granted. Logarithms throughout: e-values overflow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import erfcx, log_ndtr, logsumexp

FloatArray = NDArray[np.float64]
_ROOT_2 = np.sqrt(2.0)
Cumulant = Callable[[FloatArray], FloatArray]  # λ -> log E exp(λ (X − μ)), +∞ where it does not exist


def sequential_p(log_e: ArrayLike, axis: int = -1) -> Any:
    """min(1, 1/max E) over the looks along `axis`: valid whenever one stops."""
    return np.exp(-np.maximum(0.0, np.max(np.asarray(log_e, dtype=np.float64), axis=axis)))


def _log_mean_exp(values: FloatArray) -> FloatArray:
    """log of the mean of exp over the last axis: a mixture with equal weights."""
    return np.asarray(logsumexp(values, axis=-1) - np.log(values.shape[-1]))


# ---- light tails: the exact logarithm of the moment-generating function -------------------------------


def gaussian_cumulant(variance: float) -> Cumulant:
    """Of N(μ, variance); also an upper bound for every sub-Gaussian law of that variance proxy."""
    return lambda slope: 0.5 * variance * slope**2


def chi_square_cumulant(df: float) -> Cumulant:
    """Of χ²_df/df, the mean of df squares of standard normals."""

    def cumulant(slope: FloatArray) -> FloatArray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(2 * slope < df, -slope - 0.5 * df * np.log1p(-2 * slope / df), np.inf)

    return cumulant


def sub_exponential_cumulant(variance: float, scale: float) -> Cumulant:
    """The Bernstein bound λ² variance/(2 (1 − scale |λ|)), for |λ| < 1/scale: holds for |X − μ| ≤ 3·scale,
    and wherever E|X − μ|^k ≤ ½ k! variance scale^{k−2} (Boucheron, Lugosi & Massart 2013, §2.8)."""

    def cumulant(slope: FloatArray) -> FloatArray:
        room = 1 - scale * np.abs(slope)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(room > 0, 0.5 * variance * slope**2 / room, np.inf)

    return cumulant


def slopes(variance: float, first: float, last: float, alpha: float, points: int = 12) -> FloatArray:
    """λ of both signs for looks between `first` and `last` samples: each is best at one number of samples, where
    λ = √(2 log(1/α)/(t·variance)); geometric between them. (2·points,)."""
    best = np.sqrt(2 * np.log(1 / alpha) / (variance * np.array([last, first], dtype=np.float64)))
    positive = np.geomspace(best[0], best[1], points)
    return np.concatenate([-positive[::-1], positive])


def log_e_mean(total: ArrayLike, count: ArrayLike, cumulant: Cumulant, slope: FloatArray) -> FloatArray:
    """log E after `count` samples whose X − μ sum to `total`, (looks,): the mean over λ of
    exp(λ total − count ψ(λ)).

    Guarantee: an e-process for E X = μ where ψ is (at least) the logarithm of the moment-generating function of
    X − μ and samples are independent (Darling & Robbins 1967; Howard et al. 2020)."""
    s, t = (np.asarray(v, dtype=np.float64)[..., None] for v in (total, count))
    psi = cumulant(slope)
    with np.errstate(invalid="ignore"):
        exponent = np.where(np.isfinite(psi), slope * s - t * np.where(np.isfinite(psi), psi, 0.0), -np.inf)
    return _log_mean_exp(exponent)


# ---- heavy tails: non-negative samples ----------------------------------------------------------------


def log_e_upper(ratio: ArrayLike, slope: FloatArray | None = None) -> FloatArray:
    """log E after each sample of X/μ ≥ 0 along the last axis: Π (1 + λ (X/μ − 1)), the mean over λ in [0, 1).

    Guarantee: an e-process for E X ≤ μ whatever the tail, for independent samples (Waudby-Smith & Ramdas 2024,
    for the capital process). It sees a mean that is too large; one that is too small hides in a heavy tail.
    Raises ValueError for a negative or non-finite ratio, for which it promises nothing."""
    x = np.asarray(ratio, dtype=np.float64)
    if not np.isfinite(x).all() or (x < 0).any():
        raise ValueError("ratio: every X/μ must be finite and not negative")
    bets = np.geomspace(1e-3, 0.9, 12) if slope is None else slope
    if ((bets < 0) | (bets >= 1)).any():
        raise ValueError("slope: every λ must lie in [0, 1)")
    return _log_mean_exp(np.cumsum(np.log1p(bets * (x[..., None] - 1)), axis=-2))


def log_e_lower(ratio: ArrayLike, second_moment: float, slope: FloatArray | None = None) -> FloatArray:
    """log E after each sample of X/μ ≥ 0 along the last axis: Π exp(−λ (X/μ − 1) − λ² m₂/(2μ²)), mixed over λ > 0.

    second_moment: E X²/μ², from theory. Guarantee: an e-process for E X ≥ μ (e^{−u} ≤ 1 − u + u²/2 for u ≥ 0).
    It is blind before about 2 (m₂/μ²) log(1/α) samples. Raises ValueError as `log_e_upper`."""
    x = np.asarray(ratio, dtype=np.float64)
    if not np.isfinite(x).all() or (x < 0).any():
        raise ValueError("ratio: every X/μ must be finite and not negative")
    bets = np.geomspace(1e-3, 1.0, 12) / second_moment if slope is None else slope
    return _log_mean_exp(np.cumsum(-bets * (x[..., None] - 1) - 0.5 * bets**2 * second_moment, axis=-2))


# ---- estimates that are Gaussian: a mixture in information --------------------------------------------


def log_e_normal(excess: ArrayLike, information: ArrayLike, precision: ArrayLike) -> FloatArray:
    """log E against θ ≤ 0 of an estimate `excess` ~ N(θ, 1/information): the likelihood ratio against zero, mixed
    over θ ~ half-normal of that precision.

    Guarantee: an e-process for θ ≤ 0 when information accrues and the estimates have independent increments, as
    efficient estimates have (Robbins 1970; Jennison & Turnbull 2000, ch. 11). Means of many replicates with an
    estimated variance are so in the limit; the calibration suite measures how far."""
    x, i, tau = (np.asarray(v, dtype=np.float64) for v in (excess, information, precision))
    z = x * i / np.sqrt(i + tau)
    up, down = np.maximum(z, 0.0), np.minimum(z, 0.0)
    with np.errstate(divide="ignore", over="ignore"):  # below zero z²/2 and log Φ would cancel
        tail = np.where(z > 0, 0.5 * up**2 + log_ndtr(up), np.log(0.5 * erfcx(-down / _ROOT_2)))
    return np.asarray(np.log(2.0) + 0.5 * (np.log(tau) - np.log(i + tau)) + tail)


def planned_precision(information: ArrayLike, level: ArrayLike) -> FloatArray:
    """The precision whose test at `level` is about the sharpest when information has reached this."""
    return np.asarray(information, dtype=np.float64) / (2 * np.log(1 / np.asarray(level, dtype=np.float64)))


def normal_boundary(share: float, level: float) -> float:
    """How many standard errors above zero an estimate must lie for `log_e_normal` to reach log 1/level, at
    information of `share` times what `planned_precision` was given."""
    tau = float(planned_precision(1.0, level))
    shrink = np.sqrt(share / (share + tau))

    def gap(s: float) -> float:
        """At z = s/shrink, for s stays of order one however small the share."""
        return float(log_e_normal(s / (shrink * np.sqrt(share)), share, tau) + np.log(level))

    return float(brentq(gap, 0.0, 100.0) / shrink)
