"""Tests of whole laws, on one sample and on two: false refutations.

These tests take half a millisecond each. Their p-values fall as their statistics grow, so statistics are computed for
all runs at once, and the test itself is asked wherever one of them lies beyond its 1.2% point; elsewhere no p-value is
below 0.01. tests/test_calibration.py holds the two together.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri
from scipy.stats import chi2, kstwo

from mcverify.statistics import laws, two_sample
from mcverify.statistics.evidence import p_value

from . import samplers
from .levels import OF
from .rows import LAWS, MILLION, FloatArray, Row, both, targets
from .samplers import Rng

SAMPLES = 2000  # the fewest that law_test takes
PAIR = 500  # samples of each of two
ASKED = 0.012
EDGES = np.array([-1.5, -0.5, 0.0, 0.5, 1.5])


def _beyond(statistic: FloatArray, freedom: int) -> FloatArray:
    return statistic >= chi2.isf(ASKED, freedom)


def _pearson(counts: FloatArray, expected: FloatArray) -> FloatArray:
    return ((counts - expected) ** 2 / expected).sum(axis=-1)


def law_asked(u: FloatArray) -> FloatArray:
    """Which of the samples u (run, n) may have a p-value ≤ 0.01 in one of law_test's statistics."""
    runs, n = u.shape
    ordered, steps = np.sort(u, axis=1), np.arange(n + 1) / n
    distance = np.maximum((steps[1:] - ordered).max(axis=1), (ordered - steps[:-1]).max(axis=1))
    square = (ndtri(u) ** 2).sum(axis=1)
    bins = laws.which_bin(u.ravel(), laws.BINS).reshape(u.shape) + len(laws.BINS) * np.arange(runs)[:, None]
    counts = np.bincount(bins.ravel(), minlength=runs * len(laws.BINS)).reshape(runs, -1)
    return (
        (distance >= kstwo.isf(ASKED, n))
        | (square >= chi2.isf(ASKED / 2, n)) | (square <= chi2.ppf(ASKED / 2, n))
        | _beyond(_pearson(counts, n * laws.BINS), len(laws.BINS) - 1)
    )  # fmt: skip


def one_sample(rng: Rng, runs: int) -> dict[str, FloatArray]:
    u = rng.random((runs, SAMPLES))
    p = np.ones((4, runs))
    for at in np.flatnonzero(law_asked(u)):
        test = laws.law_test(u[at])
        p[:, at] = test.p, test.ks, test.variance, test.bins
    names = ("law_test", "ks", "variance", "bins")
    return {k: v for name, row in zip(names, p, strict=True) for k, v in both(name, row).items()}


def _counts(x: FloatArray) -> FloatArray:
    """(run, bin) between EDGES."""
    return np.diff((x[:, :, None] < EDGES).sum(axis=1), axis=1, prepend=0, append=x.shape[1])


def pair_asked(a: FloatArray, b: FloatArray) -> FloatArray:
    """Which pairs of samples (run, n) may have a p-value ≤ 0.01 in one of same_law's statistics."""
    n = a.shape[1]
    order = np.argsort(np.concatenate([a, b], axis=1), axis=1)
    distance = np.abs(np.cumsum(np.where(order < n, 1, -1), axis=1)).max(axis=1) / n
    rows = np.stack([_counts(a), _counts(b)])
    expected = rows.mean(axis=0)
    # Smirnov's limit law (1939) is 2 exp(−n D²) at most; exact p-values lie near it, and nowhere at a third.
    return (2 * np.exp(-n * distance**2) <= 3 * ASKED) | _beyond(_pearson(rows, expected).sum(axis=0), len(EDGES))


def two_samples(rng: Rng, runs: int) -> dict[str, FloatArray]:
    a, b = rng.standard_normal((2, runs, PAIR))
    p = np.ones((2, runs))
    for at in np.flatnonzero(pair_asked(a, b)):
        p[:, at] = two_sample.same_law(a[at], b[at], EDGES), two_sample.ks(a[at], b[at])
    return both("same_law", p[0]) | both("ks", p[1])


def means(rng: Rng, runs: int) -> dict[str, FloatArray]:
    """Two samples of unlike size and spread; components are independent, so that each stands for a run."""
    few = two_sample.LEAST
    e = two_sample.means(rng.standard_normal((few, runs)), 2 * rng.standard_normal((2 * few, runs)), 1.0)
    return both("means", p_value(samplers.gaussian(e.estimate[:, None], e.se[:, None])))


EXACT = targets("ks", "variance", exact=True)
ROWS = [
    Row("level/laws/one-sample", OF, f"a uniform sample of {SAMPLES}", MILLION, 10_000,
        samplers.chunked(one_sample, SAMPLES), targets("law_test", "bins") | EXACT, "fixed_laws.py", LAWS, seconds=220),
    Row("level/laws/two-samples", OF, f"two Gaussian samples of {PAIR}", MILLION, 10_000,
        samplers.chunked(two_samples, 2 * PAIR), targets("same_law", "ks"), "fixed_laws.py", LAWS, seconds=220),
    Row("level/laws/means", OF, f"means of {two_sample.LEAST} and of {2 * two_sample.LEAST} samples, twice as spread",
        MILLION, 10_000, samplers.chunked(means, 3 * two_sample.LEAST), targets("means"), "fixed_laws.py", LAWS,
        seconds=15),
]  # fmt: skip
