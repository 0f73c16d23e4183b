"""Sequential tests against their promise: at most α false alarms whenever one stops, and power where it is said.
Fixed seeds; thresholds are binomial quantiles at 1e-6."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import binom, chi2, norm

from mcverify.statistics import evidence, sequential
from mcverify.statistics.evidence import Evidence
from mcverify.statistics.watch import Watch, look

ALPHA = 0.01
RUNS = 4000
RNG = np.random.default_rng(20261122)


def at_most(hits, rate, runs=RUNS):
    return hits <= binom.ppf(1 - 1e-6, runs, rate)


# ---- exact cumulants ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cumulant", "density", "range_"),
    [
        (sequential.gaussian_cumulant(0.7), lambda x: norm.pdf(x, scale=np.sqrt(0.7)), (-9, 9)),
        (sequential.chi_square_cumulant(5), lambda x: 5 * chi2.pdf(5 * (x + 1), 5), (-1, 12)),
    ],
)
@pytest.mark.parametrize("slope", [-1.5, -0.2, 0.3, 1.1])
def test_cumulants_are_the_logarithms_of_their_integrals(cumulant, density, range_, slope):
    integral = quad(lambda x: np.exp(slope * x) * density(x), *range_, epsabs=1e-12, limit=200)[0]
    assert cumulant(np.array(slope)) == pytest.approx(np.log(integral), abs=1e-6)


def test_cumulants_are_infinite_where_the_law_has_none():
    assert np.isinf(sequential.chi_square_cumulant(4)(np.array([2.0, 3.0]))).all()
    assert np.isinf(sequential.sub_exponential_cumulant(1.0, 0.5)(np.array([-2.0, 2.0]))).all()
    e = sequential.log_e_mean(3.0, 4, sequential.chi_square_cumulant(4), np.array([0.5, 5.0]))
    assert np.isfinite(e)  # a slope without a cumulant bets nothing


@given(st.floats(0.05, 4), st.floats(0, 1), st.floats(-0.9, 0.9))
def test_the_bernstein_bound_lies_above_the_gaussian(variance, scale, slope):
    bound = sequential.sub_exponential_cumulant(variance, scale)(np.array(slope))
    assert bound >= sequential.gaussian_cumulant(variance)(np.array(slope)) - 1e-12


# ---- e-processes --------------------------------------------------------------------------------------


def paths(samples, cumulant, slope):
    """log E after each of (run, sample)."""
    total = np.cumsum(samples, axis=1)
    return sequential.log_e_mean(total, np.arange(1, samples.shape[1] + 1), cumulant, slope)


@pytest.mark.parametrize("df", [3, 40])
def test_light_tailed_means_keep_their_level_at_every_look(df):
    ratio = RNG.chisquare(df, (RUNS, 400)) / df - 1
    slope = sequential.slopes(2 / df, 20, 400, ALPHA)
    p = sequential.sequential_p(paths(ratio, sequential.chi_square_cumulant(df), slope))
    assert at_most((p <= ALPHA).sum(), ALPHA)
    assert (p <= ALPHA).any()  # one that never fires is dead


def test_peeking_at_a_fixed_sample_test_does_not_keep_it():
    """The planted error that e-processes are for: the smallest of many p-values."""
    z = np.cumsum(RNG.normal(size=(RUNS, 400)), axis=1) / np.sqrt(np.arange(1, 401))
    assert (np.abs(z).max(axis=1) > norm.isf(ALPHA / 2)).mean() > 5 * ALPHA


def test_light_tailed_means_see_an_error_of_either_sign():
    df, slope = 40, sequential.slopes(2 / 40, 20, 4000, ALPHA)
    for gain in (0.95, 1.05):
        ratio = gain * RNG.chisquare(df, (200, 2000)) / df - 1
        p = sequential.sequential_p(paths(ratio, sequential.chi_square_cumulant(df), slope))
        assert (p <= ALPHA).mean() > 0.99


def test_heavy_tails_keep_their_level_above_and_below():
    """Products of twenty ratios of χ²₄: the mean of one exists, its sample mean says nothing about it."""
    product = np.prod(RNG.chisquare(4, (1000, 200, 20)) / 4, axis=-1)
    assert at_most((sequential.sequential_p(sequential.log_e_upper(product)) <= ALPHA).sum(), ALPHA, 1000)
    second = (1 + 2 / 4) ** 20
    assert at_most((sequential.sequential_p(sequential.log_e_lower(product, second)) <= ALPHA).sum(), ALPHA, 1000)


def test_heavy_tails_see_a_mean_that_is_too_large():
    ratio = 1.5 * RNG.chisquare(4, (200, 400)) / 4
    assert (sequential.sequential_p(sequential.log_e_upper(ratio)) <= ALPHA).mean() > 0.99
    low = 0.5 * RNG.chisquare(4, (200, 400)) / 4
    assert (sequential.sequential_p(sequential.log_e_lower(low, 1.5)) <= ALPHA).mean() > 0.99


@pytest.mark.parametrize("bad", [[-0.1], [np.nan], [np.inf]])
def test_heavy_tails_refuse_what_they_promise_nothing_for(bad):
    with pytest.raises(ValueError, match="not negative"):
        sequential.log_e_upper(bad)
    with pytest.raises(ValueError, match="not negative"):
        sequential.log_e_lower(bad, 2.0)
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        sequential.log_e_upper([1.0], np.array([1.0]))


# ---- estimates in information time --------------------------------------------------------------------


@given(st.floats(-6, 6), st.floats(0.1, 100), st.floats(0.1, 100))
def test_the_normal_mixture_is_its_integral(z, information, precision):
    x = z / np.sqrt(information)

    def mixed(theta):
        return 2 * norm.pdf(theta * np.sqrt(precision)) * np.sqrt(precision) * np.exp(
            information * (x * theta - theta**2 / 2)
        )  # fmt: skip

    width = 1 / np.sqrt(information + precision)
    middle = max(0.0, x * information / (information + precision))
    inside = [v for v in (middle - 3 * width, middle, middle + 3 * width) if v > 0]
    integral = quad(mixed, 0, middle + 12 * width, points=inside, limit=200)[0]
    assert sequential.log_e_normal(x, information, precision) == pytest.approx(np.log(integral), abs=1e-6)


def test_the_normal_mixture_survives_extremes():
    e = sequential.log_e_normal([-1e3, 0.0, 1e3], [1e200, 1e200, 1e200], [1e190, 1e190, 1e190])
    assert not np.isnan(e).any()
    assert e[0] < e[1] < 0 < e[2]


@pytest.mark.parametrize("share", [1e-12, 6e-8, 1e-3, 0.5, 1.0, 30.0])
def test_the_boundary_is_where_the_mixture_reaches_its_level(share):
    """However little is known beside what was planned for, as after a pilot that hardly varied."""
    z = sequential.normal_boundary(share, 1e-4)
    tau = sequential.planned_precision(1.0, 1e-4)
    assert sequential.log_e_normal(z / np.sqrt(share), share, tau) == pytest.approx(-np.log(1e-4))


def walk(shift, components=3, looks=(0.125, 0.25, 0.5, 1.0), runs=RUNS, alpha=ALPHA, within=False, margin=7.5):
    """(p, confirmed) of runs that look at growing samples whose standard errors at the planned size are one."""
    out = []
    planned = Evidence(
        *(np.zeros(components), np.ones(components), np.zeros(components), np.zeros(components)),
        np.full(components, margin), 1, covariance=np.eye(components), weights=np.ones(components), within=within,
    )  # fmt: skip
    for _ in range(runs):
        watch = Watch(evidence.tested(planned)[2], alpha, planned.weights)
        steps = np.sqrt(np.diff((0, *looks)))[:, None] * RNG.normal(size=(len(looks), components))
        for share, total in zip(looks, np.cumsum(steps, axis=0), strict=True):
            se = 1 / np.sqrt(share)
            e = replace(planned, estimate=shift + total / share, se=np.full(components, se))
            watch = look(watch, replace(e, covariance=se**2 * np.eye(components)), planned=share == 1.0)
        out.append((watch.p, watch.confirmed))
    return np.array(out).T


def test_watching_keeps_the_level_and_confirms_what_is_true():
    p, confirmed = walk(np.zeros(3))
    assert at_most((p <= ALPHA).sum(), ALPHA)
    assert (p <= ALPHA).any()
    assert RUNS - confirmed.sum() <= binom.ppf(1 - 1e-6, RUNS, 1e-3)


def test_a_truth_at_the_margin_is_rarely_confirmed_by_watching():
    shift = np.array([0.0, 0.0, 7.5])
    for side in (1, -1):
        _, confirmed = walk(side * shift)
        assert at_most(confirmed.sum(), 1e-3)
    _, confirmed = walk(shift, looks=(0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0), runs=1000)
    assert at_most(confirmed.sum(), 1e-3, 1000)


def test_within_keeps_its_level_at_the_margin():
    p, _ = walk(np.array([7.5, -7.5, 7.5]), within=True)
    assert at_most((p <= ALPHA).sum(), ALPHA)


def test_what_the_components_have_in_common_is_seen():
    """Each of sixteen components lies two standard errors off: none shows alone, their mean does."""
    p, _ = walk(np.full(16, 2.0), components=16, runs=200, alpha=1e-5)
    assert (p <= 1e-5).mean() > 0.95


def test_what_is_not_finite_is_never_decided():
    e = Evidence(*(np.array([np.nan]) for _ in range(2)), np.zeros(1), np.zeros(1), np.ones(1), 10)
    watch = look(Watch(np.ones(1), ALPHA), e, planned=True)
    assert watch.looks == 1
    assert watch.p == 1.0
    assert not watch.confirmed


def test_the_halves_make_one_level():
    assert Watch(np.ones(1), ALPHA, p_planned=0.01).p == pytest.approx(0.02)
    assert Watch(np.ones(1), ALPHA, e_refute=np.log(50.0)).p == pytest.approx(0.04)


def test_the_highest_look_counts():
    """An e-value that was reached stays reached, whatever comes after it."""
    far, near = (Evidence(np.array([d]), np.ones(1), np.zeros(1), np.zeros(1), np.full(1, 9.0), 10) for d in (8.0, 0.0))
    once = look(Watch(np.ones(1), ALPHA), far, planned=False)
    assert look(once, near, planned=False).p == once.p < 1e-9
