"""Tests of laws known in full: their level on null samples, their power at the mde, and what they refuse. Fixed
seeds; thresholds on rates are binomial quantiles at a false-alarm rate of 1e-6."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate
from scipy.stats import binom

from mcverify.errors import InputError
from mcverify.statistics import laws
from mcverify.statistics.unit_laws import UNIT_LAWS, shares_under, sphere_coordinate
from mcverify.weights import LAWS, TRUNCATED_VARIANCE

RUNS = 4_000
SMALLEST = 2000  # the fewest samples that the default bins take


def rng(*key):
    return np.random.default_rng([20261121, *key])


def keeps(p, level):
    """Whether p-values ≤ level are no more frequent than the level says, and occur at all."""
    hits = int((np.asarray(p) <= level).sum())
    return 0 < hits <= binom.ppf(1 - 1e-6, len(p), level)


# ---- level ----------------------------------------------------------------------------------------------


def test_p_values_keep_their_level_on_null_samples():
    """At the smallest size that is taken, where Pearson's approximation is worst."""
    tests = [laws.law_test(rng(0, run).random(SMALLEST)) for run in range(RUNS)]
    for part in ("p", "ks", "variance", "bins"):
        p = [getattr(t, part) for t in tests]
        for level in (0.1, 0.01, 0.003):
            assert keeps(p, level), (part, level, np.mean(np.array(p) <= level))


@pytest.mark.parametrize("name", ["rademacher", "truncated_normal"])
def test_the_transform_keeps_the_level_with_and_without_atoms(name):
    law = UNIT_LAWS[name]
    p = []
    for run in range(2_000):
        g = rng(1, run)
        x = law.quantile(g.random(SMALLEST)).astype(np.float32).astype(float)  # atoms rounded as a library rounds them
        p.append(laws.law_test(laws.pit(x, law.cdf, law.below, g)).p)
    assert keeps(p, 0.03)
    assert keeps(p, 0.01)


def test_the_variance_test_is_exact_at_small_sizes():
    p = [laws.gaussian_variance(rng(2, run).normal(0, 3.0, size=5), 9.0) for run in range(RUNS)]
    for level in (0.5, 0.1, 0.01):
        assert keeps(p, level)
        assert (np.array(p) <= level).sum() >= binom.ppf(1e-6, RUNS, level)


# ---- power ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [200, 2_000])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_variance_test_has_its_power_at_the_mde(samples, sign):
    alpha, power = 0.01, 0.9
    factor = 1 + sign * laws.variance_mde(samples, alpha, power)
    x = rng(3, samples).normal(0, math.sqrt(factor), size=(RUNS, samples))
    missed = sum(laws.gaussian_variance(row, 1.0) > alpha for row in x)
    assert missed <= binom.ppf(1 - 1e-6, RUNS, 1 - power)


def test_samples_for_a_change_of_variance():
    for change in (0.3, 0.02):
        n = laws.variance_samples(change)
        assert laws.variance_mde(n) <= change < laws.variance_mde(n - 1)
    assert laws.variance_mde(1_000_000) == pytest.approx(math.sqrt(2e-6) * (3.2905 + 2.3263), rel=0.01)


def test_the_bins_have_their_power_at_the_mde():
    alpha, power, n = 0.01, 0.9, 3_000
    tilt = np.where(np.arange(len(laws.BINS)) % 2 == 0, 1.0, -1.0) * laws.BINS
    tilt -= laws.BINS * tilt.sum()
    tilt *= laws.bins_mde(n, alpha=alpha, power=power) / math.sqrt((tilt**2 / laws.BINS).sum())
    g = rng(4)
    edges = np.concatenate([[0.0], np.cumsum(laws.BINS)])
    missed = 0
    for _ in range(1_000):
        counts = g.multinomial(n, laws.BINS + tilt)
        u = np.repeat((edges[1:] + edges[:-1]) / 2, counts)
        missed += laws.fixed_bins(u)[0] > alpha
    assert missed <= binom.ppf(1 - 1e-6, 1_000, 1.15 * (1 - power))  # the noncentral law is an approximation: 15%


def test_kolmogorov_smirnov_has_its_power_at_the_mde():
    alpha, power, n = 0.01, 0.9, 400
    shift = laws.ks_mde(n, alpha, power)
    missed = sum(laws.ks(shift + (1 - shift) * rng(5, run).random(n)) > alpha for run in range(1_000))
    assert missed <= binom.ppf(1 - 1e-6, 1_000, 1 - power)


def test_scale_is_seen_where_kolmogorov_smirnov_is_blind():
    """Why there is a scale-sensitive statistic: 3% in the standard deviation."""
    n = 10_000
    scale = 1 + laws.variance_mde(n) / 2
    u = [laws.pit(rng(6, run).normal(0, scale, size=n), UNIT_LAWS["gaussian"].cdf) for run in range(50)]
    assert sum(laws.normal_scores_variance(v) <= 1e-3 for v in u) >= 40
    assert sum(laws.ks(v) <= 1e-3 for v in u) <= 10


@pytest.mark.parametrize(("said", "drawn"), [(a, b) for a in UNIT_LAWS for b in UNIT_LAWS if a != b])
def test_every_law_is_told_from_every_other_of_the_same_variance(said, drawn):
    law, g = UNIT_LAWS[said], rng(7)
    x = UNIT_LAWS[drawn].quantile(g.random(20_000))
    assert laws.law_test(laws.pit(x, law.cdf, law.below, g)).p < 1e-6


def test_a_constant_sample_is_refuted():
    assert laws.law_test(np.full(SMALLEST, 0.5)).p < 1e-10
    assert laws.gaussian_variance(np.zeros(10), 1.0) == 0.0


# ---- the distribution functions -------------------------------------------------------------------------


@pytest.mark.parametrize("name", UNIT_LAWS)
def test_each_law_has_mean_zero_unit_variance_and_its_kurtosis(name):
    law = UNIT_LAWS[name]
    moments = [integrate.quad(lambda u, k=k: float(law.quantile(np.array(u))) ** k, 0, 0.5)[0] for k in (2, 4)]
    assert 2 * moments[0] == pytest.approx(1.0, rel=1e-8)
    assert 2 * moments[1] == pytest.approx(LAWS[name].kurtosis, rel=1e-7)
    u = np.linspace(0.01, 0.99, 99)
    np.testing.assert_allclose(law.quantile(1 - u), -law.quantile(u), atol=1e-12 if name != "rademacher" else 2.0)
    if law.below is None:
        np.testing.assert_allclose(law.cdf(law.quantile(u)), u, atol=1e-12)


def test_the_sphere_coordinate_against_points_on_spheres():
    g = rng(8)
    for m in (2, 3, 17):
        x = g.normal(size=(20_000, m))
        x *= np.sqrt(m) / np.linalg.norm(x, axis=1, keepdims=True)
        assert laws.law_test(laws.pit(x[:, 0], sphere_coordinate(m).cdf)).p > 1e-4
        assert laws.law_test(laws.pit(x[:, 0], sphere_coordinate(m + 2).cdf)).p < (1e-4 if m < 10 else 1.0)
    x = np.linspace(-3, 3, 7)
    np.testing.assert_allclose(sphere_coordinate(1_000_000).cdf(x), UNIT_LAWS["gaussian"].cdf(x), atol=1e-5)


def test_shares_under_another_law_against_draws():
    for said in UNIT_LAWS:
        for drawn in UNIT_LAWS:
            law, g = UNIT_LAWS[said], rng(9)
            x = UNIT_LAWS[drawn].quantile(g.random(100_000))
            _, shares = laws.fixed_bins(laws.pit(x, law.cdf, law.below, g))
            np.testing.assert_allclose(shares_under(law, UNIT_LAWS[drawn]), shares, atol=0.01)


def test_truncation_is_at_two_standard_deviations():
    law = UNIT_LAWS["truncated_normal"]
    end = 2 / math.sqrt(TRUNCATED_VARIANCE)
    assert law.cdf(np.array([-end, end, 2 * end])).tolist() == [0.0, 1.0, 1.0]


# ---- what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: laws.ks([0.1, np.nan]), "u"),
        (lambda: laws.ks([0.1, np.inf]), "u"),
        (lambda: laws.ks([0.1, 1.1]), "u"),
        (lambda: laws.ks([]), "u"),
        (lambda: laws.ks([[0.1]]), "u"),
        (lambda: laws.pit([np.nan], UNIT_LAWS["gaussian"].cdf), "x"),
        (lambda: laws.pit([1.0], UNIT_LAWS["rademacher"].cdf, UNIT_LAWS["rademacher"].below), "rng"),
        (lambda: laws.gaussian_variance([1.0], 0.0), "variance"),
        (lambda: laws.gaussian_variance([np.inf], 1.0), "x"),
        (lambda: laws.law_test(np.linspace(0, 1, SMALLEST - 1)), "samples"),
        (lambda: laws.fixed_bins(np.linspace(0, 1, 9), [0.5, 0.5]), "samples"),
        (lambda: laws.fixed_bins(np.linspace(0, 1, 99), [0.5, 0.4]), "probabilities"),
        (lambda: laws.fixed_bins(np.linspace(0, 1, 99), [1.0]), "probabilities"),
        (lambda: laws.variance_samples(0.0), "change"),
        (lambda: laws.variance_mde(10, alpha=0.0), "alpha"),
        (lambda: laws.ks_mde(10, power=1.0), "power"),
        (lambda: laws.ks_mde(0), "samples"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, field):
    with pytest.raises(InputError, match=field) as error:
        call()
    assert "\n" not in str(error.value)
