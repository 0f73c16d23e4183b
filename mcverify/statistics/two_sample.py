"""Whether two samples of fixed size come from the same law, or have means that differ by less than a margin.

Knows nothing of networks. The samples are independent of one another and so are their members; vectors are compared
component by component, so averaging over correlated units makes no more samples than there are rows.

Two tests that are *not* used, since their p-values stop short of what one error budget over many tests needs:
scipy.stats.anderson_ksamp clips its p-values to [0.001, 0.25], and a p-value by resampling is never below
1/(resamples + 1), so that 1e-6 would take a million resamples.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri
from scipy.stats import chi2_contingency, ks_2samp

from mcverify.errors import InputError
from mcverify.levels import ALPHA
from mcverify.statistics.evidence import Evidence
from mcverify.statistics.laws import bins_mde, checked_levels, finite_sample
from mcverify.validate import between, count, positive

FloatArray = NDArray[np.float64]

LEAST_EXPECTED = 5.0  # counts in either sample below which the statistic is not yet χ² (Cochran 1954)
LEAST = 256  # samples below which a mean of light-tailed values is not yet taken as Gaussian
STATISTICS = 2  # what `same_law` divides by


def means(a: ArrayLike, b: ArrayLike, margin: float | ArrayLike) -> Evidence:
    """Evidence that two samples a (samples, k) and b (other samples, k), or (samples,), have the same means.

    The estimates are the differences ā − b̄ (k,), the prediction is zero, and the errors are Welch's (1947), with
    variances that may differ. margin: the difference that matters, one number or (k,), above 0. What is asked of
    it is in statistics/evidence.py:

    `p_value`: two-sided normal tests, Bonferroni over components; `confirms`: equivalence, two one-sided tests
    (TOST: Schuirmann 1987) in every component, so that means which differ by the margin or more are called
    equivalent with probability at most 1e-3; `mde`: the difference that would be refuted; `samples_needed`: the
    samples, of a and b together in their present ratio, at which equal means would be called equivalent.

    Assumes that the mean of 256 or more values is Gaussian: light tails. Raises InputError for fewer, for values
    that are not finite, for a different k, and where a component has no variance in either sample."""
    x, y = _rows("a", a), _rows("b", b)
    if x.shape[1] != y.shape[1]:
        raise InputError("b", f"{y.shape[1]} components", f"must have {x.shape[1]}, as a has")
    for field, values in (("a", x), ("b", y)):
        if len(values) < LEAST:
            raise InputError(field, f"{len(values)} samples", f"must be at least {LEAST}, for a mean to be Gaussian")
    se = np.sqrt(x.var(axis=0, ddof=1) / len(x) + y.var(axis=0, ddof=1) / len(y))
    if not se.all():
        raise InputError("a, b", f"component {int(np.argmin(se))}", "must vary: a mean without spread has no test")
    margins = np.asarray(margin, dtype=np.float64)
    if margins.shape not in ((), se.shape) or not np.isfinite(margins).all() or margins.min() <= 0:
        raise InputError("margin", margin, f"must be a finite number above 0, or {len(se)} of them")
    zero = np.zeros_like(se)
    return Evidence(x.mean(axis=0) - y.mean(axis=0), se, zero, zero, zero + margins, len(x) + len(y))


def ks(a: ArrayLike, b: ArrayLike) -> float:
    """Two-sample Kolmogorov–Smirnov p-value that a (samples,) and b (other samples,) follow one law.

    Guarantee: exact up to 10,000 samples of a continuous law, asymptotic beyond (scipy.stats.ks_2samp; Hodges
    1958); conservative where values are tied. Weak for scale. Raises InputError for values that are not finite,
    and where all of them are equal."""
    x, y = finite_sample("a", a), finite_sample("b", b)
    if min(x.min(), y.min()) == max(x.max(), y.max()):
        raise InputError("a, b", float(x[0]), "must vary")
    return float(ks_2samp(x, y).pvalue)


def binned(a_counts: ArrayLike, b_counts: ArrayLike) -> float:
    """Pearson's χ² p-value that two rows of counts (bin,) come from the same shares.

    The bins must have been fixed without a look at either sample. Guarantee: the level holds as counts grow
    (Pearson 1911; scipy.stats.chi2_contingency). Raises InputError for counts that are no whole numbers, and where
    a bin expects fewer than 5 in either sample."""
    rows = _counts("a_counts", a_counts), _counts("b_counts", b_counts)
    if len(rows[0]) != len(rows[1]):
        raise InputError("b_counts", f"{len(rows[1])} bins", f"must have {len(rows[0])}, as a_counts has")
    table = np.array(rows)
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / max(1.0, table.sum())
    if expected.min() < LEAST_EXPECTED:
        least = f"must expect at least {LEAST_EXPECTED:g} in either sample: join bins or take more"
        raise InputError("counts", f"bin {int(np.argmin(expected.min(axis=0)))} expects {expected.min():.3g}", least)
    return float(chi2_contingency(table, correction=False).pvalue)


def same_law(a: ArrayLike, b: ArrayLike, edges: ArrayLike) -> float:
    """p-value that a (samples,) and b (other samples,) follow one law: `ks`, and `binned` over the bins between
    increasing edges fixed beforehand (what lies outside makes two bins more), by Bonferroni.

    Guarantee: p ≤ x with probability at most x, up to the approximation in `binned`. Raises InputError as these."""
    cuts = finite_sample("edges", edges)
    if (np.diff(cuts) <= 0).any():
        raise InputError("edges", cuts.tolist(), "must increase")
    rows = [np.bincount(np.searchsorted(cuts, finite_sample(f, v), side="right"), minlength=len(cuts) + 1)
            for f, v in (("a", a), ("b", b))]  # fmt: skip
    return min(1.0, STATISTICS * min(ks(a, b), binned(*rows)))


# ---- what a test could have seen ------------------------------------------------------------------------


def ks_mde(a_samples: int, b_samples: int, alpha: float = ALPHA, power: float = 0.99) -> float:
    """A distance sup|F_a − F_b| that `ks` refutes at level alpha with at least this power, whatever the laws: the
    critical value by Smirnov's law (1939), the fluctuation by Hoeffding's bound (1963)."""
    count("a_samples", a_samples)
    count("b_samples", b_samples)
    checked_levels(alpha, power)
    unit = math.sqrt((1 / a_samples + 1 / b_samples) / 2)
    return unit * (math.sqrt(math.log(2 / alpha)) + math.sqrt(-math.log(1 - power)))


def ks_samples(distance: float, alpha: float = ALPHA, power: float = 0.99) -> int:
    """The samples *of each* at which `ks_mde` is this distance, in (0, 1]."""
    between("distance", distance, 0.0, 1.0, open_low=True)
    return math.ceil((ks_mde(1, 1, alpha, power) / distance) ** 2)


def binned_mde(a_samples: int, b_samples: int, shares: ArrayLike, alpha: float = ALPHA, power: float = 0.99) -> float:
    """The smallest √Σ (p_a − p_b)²/p over bins, of shares p (bin,), that `binned` refutes at level alpha with this
    power, by the noncentral χ² law: two samples see what one of size n_a n_b/(n_a + n_b) would."""
    count("a_samples", a_samples)
    count("b_samples", b_samples)
    return bins_mde(1, shares, alpha, power) * math.sqrt(1 / a_samples + 1 / b_samples)


def means_samples(difference: float, sd_a: float, sd_b: float, alpha: float = ALPHA, power: float = 0.99) -> int:
    """The samples *of each* at which a difference of means is refuted at level alpha with this power, for standard
    deviations sd_a and sd_b; at least 256."""
    for field, value in (("difference", difference), ("sd_a", sd_a), ("sd_b", sd_b)):
        positive(field, value)
    checked_levels(alpha, power)
    reach = float(ndtri(1 - alpha / 2) + ndtri(power))
    return max(LEAST, math.ceil((sd_a**2 + sd_b**2) * (reach / difference) ** 2))


# ---- checks ---------------------------------------------------------------------------------------------


def _rows(field: str, x: ArrayLike) -> FloatArray:
    values = np.asarray(x, dtype=np.float64)
    rows = values[:, None] if values.ndim == 1 else values
    if rows.ndim != 2 or not rows.size:
        raise InputError(field, f"shape {values.shape}", "must have shape (samples, components) or (samples,)")
    if not np.isfinite(rows).all():
        raise InputError(field, f"{int((~np.isfinite(rows)).sum())} values not finite", "must be finite")
    return rows


def _counts(field: str, x: ArrayLike) -> FloatArray:
    values = finite_sample(field, x)
    if len(values) < 2 or values.min() < 0 or (values != np.floor(values)).any():
        raise InputError(field, values.tolist(), "must be whole numbers, at least 0, of two bins or more")
    return values
