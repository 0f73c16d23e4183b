"""Two-sample tests: their level on equal laws, their power at the mde, equivalence, and what they refuse. Fixed
seeds; thresholds on rates are binomial quantiles at a false-alarm rate of 1e-6."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import anderson_ksamp, binom

from mcverify.errors import InputError
from mcverify.statistics import two_sample
from mcverify.statistics.evidence import CONFIRM_LEVEL, confirms, mde, p_value, samples_needed

RUNS = 4_000
EDGES = [-1.5, -0.5, 0.5, 1.5]


def rng(*key):
    return np.random.default_rng([20261122, *key])


def at_most(hits, rate, runs=RUNS):
    return hits <= binom.ppf(1 - 1e-6, runs, rate)


def keeps(p, level):
    hits = int((np.asarray(p) <= level).sum())
    return hits > 0 and at_most(hits, level, len(p))


# ---- means ----------------------------------------------------------------------------------------------


def pair(key, shift=0.0, sizes=(256, 512), components=3):
    """Samples of unequal variance and of laws with tails on either side, with means `shift` apart."""
    g = rng(*key)
    a = g.exponential(size=(sizes[0], components)) - 1 + shift
    return a, 3.0 * g.uniform(-1, 1, size=(sizes[1], components))


def test_means_keep_their_level_under_unequal_variances():
    p = [p_value(two_sample.means(*pair((0, run)), 1.0)) for run in range(RUNS)]
    assert keeps(p, 0.1)
    assert keeps(p, 0.01)


def test_means_are_refuted_at_the_mde():
    seen = 0
    for run in range(RUNS):
        e = two_sample.means(*pair((1, run)), 1.0)
        shift = mde(e, 1e-3, power=0.9)[0]
        seen += p_value(two_sample.means(*pair((1, run), np.array([shift, 0, 0])), 1.0)) <= 1e-3
    assert at_most(RUNS - seen, 0.11)  # a standard error estimated from 256 exponentials: a tenth of 10% more


def test_means_a_margin_apart_are_rarely_called_equivalent():
    hits = sum(confirms(two_sample.means(*pair((2, run), 0.9), 0.9)) for run in range(RUNS))
    assert at_most(hits, CONFIRM_LEVEL)


def test_equal_means_are_called_equivalent_at_the_samples_needed():
    pilot = two_sample.means(*pair((3, 0), sizes=(4_096, 4_096)), 0.3)
    n = samples_needed(pilot, power=0.99) // 2 * 11 // 10  # the pilot's own spread: 10%
    hits = sum(confirms(two_sample.means(*pair((3, run), sizes=(n, n)), 0.3)) for run in range(1, 501))
    assert at_most(500 - hits, 0.01, 500)


def test_samples_for_a_difference_of_means():
    n = two_sample.means_samples(0.3, 1.0, np.sqrt(3.0), power=0.9)
    seen = sum(p_value(two_sample.means(*pair((4, run), 0.3, (n, n), 1), 1.0)) <= 1e-3 for run in range(1_000))
    assert at_most(1_000 - seen, 0.11, 1_000)


# ---- laws -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounded", [False, True])
def test_same_law_keeps_its_level(rounded):
    p = []
    for run in range(RUNS):
        a, b = (rng(5, run, i).normal(size=n) for i, n in enumerate((300, 500)))
        p.append(two_sample.same_law(*((np.round(v) if rounded else v) for v in (a, b)), EDGES))
    assert keeps(p, 0.1)
    assert keeps(p, 0.01)


def test_counts_keep_their_level_where_bins_expect_five():
    shares = np.array([0.05, 0.15, 0.3, 0.4, 0.1])
    p = []
    for run in range(RUNS):
        a, b = (rng(6, run).multinomial(150, shares, size=2)).astype(float)
        if a[0] + b[0] >= 10:  # the others are refused
            p.append(two_sample.binned(a, b))
    assert keeps(p, 0.1)
    assert keeps(p, 0.01)


def test_scale_is_seen_by_the_bins_where_kolmogorov_smirnov_is_weak():
    both = [(rng(7, r).normal(size=3_000), rng(8, r).normal(0, 1.1, size=3_000)) for r in range(30)]
    ks = sum(two_sample.ks(a, b) <= 1e-3 for a, b in both)
    whole = sum(two_sample.same_law(a, b, EDGES) <= 1e-3 for a, b in both)
    assert whole > ks + 5


def test_power_at_the_mdes():
    n, alpha, power = 400, 0.01, 0.9
    shift = two_sample.ks_mde(n, n, alpha, power)
    seen = sum(two_sample.ks(rng(9, r).random(n), shift + rng(10, r).random(n)) <= alpha for r in range(1_000))
    assert at_most(1_000 - seen, 1 - power, 1_000)
    assert two_sample.ks_samples(shift, alpha, power) == pytest.approx(n, abs=1)

    shares, n = np.full(5, 0.2), 2_000
    tilt = np.array([1.0, -1.0, 1.0, -1.0, 0.0]) * 0.2
    tilt *= two_sample.binned_mde(n, n, shares, alpha, power) / np.sqrt((tilt**2 / shares).sum())
    g = rng(11)
    draws = ((g.multinomial(n, shares + tilt / 2), g.multinomial(n, shares - tilt / 2)) for _ in range(1_000))
    seen = sum(two_sample.binned(a, b) <= alpha for a, b in draws)
    assert at_most(1_000 - seen, 1.15 * (1 - power), 1_000)  # the noncentral law is an approximation: 15%


def test_p_values_are_not_clipped():
    """The trap named at the top of the module, and that these tests do not fall into it."""
    a, b = rng(12).normal(size=2_000), rng(13).normal(1.0, size=2_000)
    with pytest.warns(UserWarning):  # noqa: PT030 - its wording differs between versions of scipy
        assert anderson_ksamp([a, b], midrank=True).pvalue >= 1e-3 - 1e-9
    assert two_sample.same_law(a, b, EDGES) < 1e-50


# ---- what is refused ------------------------------------------------------------------------------------

GOOD = np.linspace(-1, 1, 300)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: two_sample.means(GOOD[:200], GOOD, 1.0), "a"),
        (lambda: two_sample.means(GOOD, np.where(GOOD > 0.9, np.nan, GOOD), 1.0), "b"),
        (lambda: two_sample.means(GOOD, np.stack([GOOD, GOOD], 1), 1.0), "b"),
        (lambda: two_sample.means(np.ones(300), np.zeros(300), 1.0), "a, b"),
        (lambda: two_sample.means(GOOD, GOOD, 0.0), "margin"),
        (lambda: two_sample.means(GOOD, GOOD, [1.0, 1.0]), "margin"),
        (lambda: two_sample.means(np.zeros((2, 2, 2)), GOOD, 1.0), "a"),
        (lambda: two_sample.ks(np.ones(9), np.ones(9)), "a, b"),
        (lambda: two_sample.ks([], GOOD), "a"),
        (lambda: two_sample.ks(GOOD, [np.inf]), "b"),
        (lambda: two_sample.binned([5, 0], [50, 1]), "counts"),
        (lambda: two_sample.binned([0, 0], [0, 0]), "counts"),
        (lambda: two_sample.binned([50, 50], [50, 50, 50]), "b_counts"),
        (lambda: two_sample.binned([50.5, 50], [50, 50]), "a_counts"),
        (lambda: two_sample.binned([50, -50], [50, 50]), "a_counts"),
        (lambda: two_sample.same_law(GOOD, GOOD, [0.5, 0.0]), "edges"),
        (lambda: two_sample.same_law(GOOD, GOOD, [5.0]), "counts"),
        (lambda: two_sample.ks_mde(0, 5), "a_samples"),
        (lambda: two_sample.means_samples(0.1, 0.0, 1.0), "sd_a"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, field):
    with pytest.raises(InputError, match=field) as error:
        call()
    assert "\n" not in str(error.value)
