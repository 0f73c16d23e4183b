"""Whether a sample of fixed size follows a law that is known in full.

Knows nothing of networks. A sample is first brought to the uniform law by its distribution function, randomised
where the law has atoms. Three statistics are then asked, since each is blind where another sees: Kolmogorov–Smirnov
(location and shape; weak for scale), χ² on the variance of the normal scores (scale, tails), and χ² over bins that
were fixed beforehand by their probability (anything local). Bonferroni makes one p-value of them.

A constant sample is no obstacle here, as nothing is estimated from it: a law known in full refutes it.
None of these may be asked again as samples accrue.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import ndtri
from scipy.stats import chi2, chisquare, ks_1samp, ncx2, uniform

from mcverify.errors import InputError
from mcverify.levels import ALPHA
from mcverify.validate import between, count, positive

FloatArray = NDArray[np.float64]
Distribution = Callable[[FloatArray], FloatArray]

# Probabilities of the fixed bins: twentieths, of which the outermost are split to see the tails.
BINS = np.array([0.01, 0.04, *[0.05] * 18, 0.04, 0.01])
# Counts below which Pearson's tail at 10⁻⁴ is too thick: by 1.4 at five, by 1.14 at ten.
LEAST_EXPECTED = 20.0
STATISTICS = 3  # what `law_test` divides by
_EDGE = 2.0**-53  # a normal score is finite, at most 8.2: rounding alone can reach the end of a law's support


@dataclass(frozen=True)
class LawTest:
    """p: of the whole, by Bonferroni; ks, variance, bins: of each statistic alone; shares (bin,): the share of
    the sample in each bin."""

    p: float
    ks: float
    variance: float
    bins: float
    shares: FloatArray


def pit(
    x: ArrayLike, cdf: Distribution, below: Distribution | None = None, rng: np.random.Generator | None = None
) -> FloatArray:
    """The probability integral transform u = P(X < x) + v P(X = x) of a sample x (n,), as (n,).

    cdf(x) = P(X ≤ x); below(x) = P(X < x), for a law with atoms, where v is uniform and comes from rng.
    Guarantee: under the law u is exactly uniform on [0, 1], independent between samples if they are (Rüschendorf
    2009, "On the distributional transform, Sklar's theorem, and the empirical copula process", Prop. 2.1).
    Raises InputError for values that are not finite, and for atoms without a Generator."""
    values = finite_sample("x", x)
    if below is None:
        return np.asarray(cdf(values), dtype=np.float64)
    if not isinstance(rng, np.random.Generator):
        raise InputError("rng", rng, "must be a numpy Generator: a law with atoms is randomised at them")
    low = below(values)
    return np.asarray(low + rng.random(len(values)) * (cdf(values) - low), dtype=np.float64)


def ks(u: ArrayLike) -> float:
    """Kolmogorov–Smirnov p-value that u (n,) is uniform on [0, 1].

    Guarantee: exact at every n for independent samples of a continuous law (scipy.stats.ks_1samp; Simard &
    L'Ecuyer 2011). Raises InputError for values outside [0, 1]."""
    return float(ks_1samp(_uniform(u), uniform.cdf).pvalue)


def normal_scores_variance(u: ArrayLike) -> float:
    """Two-sided p-value that the normal scores Φ⁻¹(u) of u (n,) have variance 1 about 0.

    Guarantee: exact at every n for independent uniform u, where Σ Φ⁻¹(u)² is χ²_n. Raises InputError for values
    outside [0, 1]."""
    return gaussian_variance(ndtri(np.clip(_uniform(u), _EDGE, 1 - _EDGE)), 1.0)


def gaussian_variance(x: ArrayLike, variance: float) -> float:
    """Two-sided p-value that Gaussian x (n,) of mean zero has this variance.

    Guarantee: exact at every n if x is independent and Gaussian, since Σ x²/variance is then χ²_n (Fisher 1925);
    for other laws it has no level at all (Box 1953). Raises InputError for values that are not finite and a
    variance that is not positive."""
    positive("variance", variance)
    values = finite_sample("x", x)
    total = float((values**2).sum()) / variance
    return min(1.0, 2 * min(float(chi2.sf(total, len(values))), float(chi2.cdf(total, len(values)))))


def fixed_bins(u: ArrayLike, probabilities: ArrayLike = BINS) -> tuple[float, FloatArray]:
    """Pearson's χ² p-value that u (n,) is uniform, and the share (bin,) of each bin; bins of [0, 1] with these
    probabilities, fixed before u is seen.

    Guarantee: the level holds as n grows (Pearson 1900); tests/test_laws.py measures it at the smallest n that
    is taken. Raises InputError where a bin expects fewer than 20, and for probabilities that do not sum to one."""
    values, share = _uniform(u), _probabilities(probabilities)
    expected = share * len(values)
    if expected.min() < LEAST_EXPECTED:
        need = math.ceil(LEAST_EXPECTED / share.min())
        raise InputError("samples", len(values), f"must be at least {need}: every bin must expect {LEAST_EXPECTED:g}")
    counts = np.bincount(which_bin(values, share), minlength=len(share))
    # Expectations sum to n only up to rounding, which chisquare would refuse at some sizes.
    return float(chisquare(counts, expected * (counts.sum() / expected.sum())).pvalue), counts / len(values)


def law_test(u: ArrayLike, probabilities: ArrayLike = BINS) -> LawTest:
    """All three statistics on u (n,), which is uniform under the law.

    Guarantee: p ≤ a with probability at most a for independent samples, under any dependence of the statistics
    (Bonferroni), up to the approximation in `fixed_bins`. Raises InputError as these do."""
    binned, shares = fixed_bins(u, probabilities)
    each = ks(u), normal_scores_variance(u), binned
    return LawTest(min(1.0, STATISTICS * min(each)), *each, shares)


def which_bin(u: FloatArray, probabilities: FloatArray) -> NDArray[np.intp]:
    """The number of the bin that holds each u (n,)."""
    return np.searchsorted(np.cumsum(probabilities)[:-1], u, side="right")


# ---- what a test could have seen ------------------------------------------------------------------------


def variance_mde(samples: float, alpha: float = ALPHA, power: float = 0.99) -> float:
    """The smallest r such that a variance 1 + r, and one of 1 − r, is refuted by `gaussian_variance` (or, for
    Gaussian samples, by `normal_scores_variance`) at level alpha with this power. Exact; above 1 where only an
    increase would be seen."""
    checked_levels(alpha, power)
    up = chi2.isf(alpha / 2, samples) / chi2.ppf(1 - power, samples) - 1
    down = 1 - chi2.ppf(alpha / 2, samples) / chi2.ppf(power, samples)
    return float(max(up, down))


def variance_samples(change: float, alpha: float = ALPHA, power: float = 0.99) -> int:
    """The samples at which `variance_mde` is `change`, a relative change of the variance in (0, 1]."""
    between("change", change, 0.0, 1.0, open_low=True)
    checked_levels(alpha, power)
    guess = 2 * ((ndtri(1 - alpha / 2) + ndtri(power)) / change) ** 2
    return math.ceil(brentq(lambda n: variance_mde(n, alpha, power) - change, guess / 20, 20 * guess + 100))


def ks_mde(samples: int, alpha: float = ALPHA, power: float = 0.99) -> float:
    """A distance sup|F − F₀| that `ks` refutes at level alpha with at least this power, whatever the laws.

    From Massart's bound on the critical value (1990) and Hoeffding's on the sample's fluctuation where the two
    distribution functions are farthest apart (1963); the true mde is somewhat smaller."""
    checked_levels(alpha, power)
    count("samples", samples)
    return (math.sqrt(math.log(2 / alpha)) + math.sqrt(-math.log(1 - power))) / math.sqrt(2 * samples)


def bins_mde(samples: int, probabilities: ArrayLike = BINS, alpha: float = ALPHA, power: float = 0.99) -> float:
    """The smallest √Σ (p − p₀)²/p₀ over bins that `fixed_bins` refutes at level alpha with this power, by the
    noncentral χ² law (Cohen 1988, his w)."""
    checked_levels(alpha, power)
    count("samples", samples)
    freedom = len(_probabilities(probabilities)) - 1
    critical = chi2.isf(alpha, freedom)
    far = (math.sqrt(critical) + 10) ** 2
    return math.sqrt(brentq(lambda nc: ncx2.sf(critical, freedom, nc) - power, 1e-9, far) / samples)


# ---- checks ---------------------------------------------------------------------------------------------


def finite_sample(field: str, x: ArrayLike) -> FloatArray:
    """x as (samples,), at least one, all finite. Raises InputError for anything else."""
    values = np.asarray(x, dtype=np.float64)
    if values.ndim != 1 or not values.size:
        raise InputError(field, f"shape {values.shape}", "must have shape (samples,), at least one")
    if not np.isfinite(values).all():
        raise InputError(field, f"{int((~np.isfinite(values)).sum())} values not finite", "must be finite")
    return values


def _uniform(u: ArrayLike) -> FloatArray:
    values = finite_sample("u", u)
    if values.min() < 0 or values.max() > 1:
        raise InputError("u", f"values in [{values.min():g}, {values.max():g}]", "must lie in [0, 1]")
    return values


def _probabilities(probabilities: ArrayLike) -> FloatArray:
    share = finite_sample("probabilities", probabilities)
    if len(share) < 2 or share.min() <= 0 or abs(share.sum() - 1) > 1e-9:
        raise InputError("probabilities", share.tolist(), "must be at least two positive numbers that sum to one")
    return share


def checked_levels(alpha: float, power: float) -> None:
    """Raises InputError for an alpha outside (0, ½] and a power outside [½, 1)."""
    between("alpha", alpha, 0.0, 0.5, open_low=True)
    between("power", power, 0.5, 1 - 1e-12)
