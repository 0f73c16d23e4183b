"""The decision layer against its own promises, on null and shifted samplers. Fixed seeds; every threshold
below is a binomial or normal quantile at a false-alarm rate of 1e-6 or less."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binom, norm

from mcverify.statistics import evidence, ladder
from mcverify.statistics.evidence import Evidence
from mcverify.statistics.multiplicity import holm

RUNS = 20_000
RNG = np.random.default_rng(20261121)


def some(estimate, se=1.0, prediction=0.0, remainder=0.0, margin=10.0, **more):
    k = np.ones_like(np.atleast_1d(np.asarray(estimate, float)))
    fields = (np.atleast_1d(estimate), se * k, prediction * k, remainder * k, margin * k)
    return Evidence(*fields, samples=100, **more)


def at_most(hits, rate):
    """Whether `hits` of RUNS are compatible with a rate of at most `rate`."""
    return hits <= binom.ppf(1 - 1e-6, RUNS, rate)


@pytest.mark.parametrize("components", [1, 7])
@pytest.mark.parametrize("one_sided", [False, True])
def test_false_refutations_keep_their_level(components, one_sided):
    hits = sum(evidence.p_value(some(RNG.normal(size=components), one_sided=one_sided)) <= 0.01 for _ in range(RUNS))
    assert at_most(hits, 0.01)
    assert hits > RUNS * 0.01 / 2  # a test that never fires is dead


def test_a_remainder_is_tolerated_and_no_more():
    inside = [evidence.p_value(some(RNG.normal(2.0), remainder=2.0)) for _ in range(RUNS)]
    assert at_most(sum(p <= 0.01 for p in inside), 0.01)
    assert evidence.p_value(some(9.0, remainder=2.0)) < 1e-10


def test_within_is_refuted_only_beyond_the_margin():
    assert evidence.p_value(some(3.0, se=0.1, margin=4.0, within=True)) == 1.0
    assert evidence.p_value(some(5.0, se=0.1, margin=4.0, within=True)) < 1e-10


def test_a_truth_at_the_margin_is_rarely_confirmed():
    for components in (1, 5):
        shift = np.zeros(components)
        shift[-1] = 8.0
        hits = sum(evidence.confirms(some(shift + RNG.normal(size=components), margin=8.0)) for _ in range(RUNS))
        assert at_most(hits, evidence.CONFIRM_LEVEL)


def test_bounds_are_confirmed_inside_and_not_above():
    assert evidence.confirms(some(-5.0, one_sided=True))
    assert not evidence.confirms(some(0.5, se=0.1, one_sided=True))
    hits = sum(evidence.confirms(some(RNG.normal(), one_sided=True)) for _ in range(RUNS))
    assert at_most(hits, evidence.CONFIRM_LEVEL)


def test_lack_of_fit_counts_as_one_more_test():
    """It has a tenth of the level, the estimates the rest."""
    assert evidence.p_value(some(0.0, lack_of_fit=1e-5, fits=1)) == pytest.approx(1e-4)
    assert evidence.p_value(some(0.0, lack_of_fit=1e-5)) == 1.0
    assert evidence.p_value(some(4.0, fits=1)) == pytest.approx(evidence.p_value(some(4.0)) / 0.9)


def test_what_does_not_fit_is_not_confirmed():
    assert evidence.confirms(some(0.0, lack_of_fit=0.5, fits=1))
    assert not evidence.confirms(some(0.0, lack_of_fit=1e-5, fits=1))


def test_a_bias_counts_against_both_verdicts():
    far, near = (some(9.0, margin=20.0, bias=np.array([b])) for b in (0.0, 12.0))
    assert evidence.p_value(far) < 1e-10
    assert evidence.p_value(near) == 1.0
    assert evidence.confirms(far)
    assert not evidence.confirms(near)
    bound = some(-5.0, one_sided=True)
    assert evidence.confirms(bound)
    assert not evidence.confirms(replace(bound, bias=np.array([3.0])))


def test_half_the_level_is_for_what_components_have_in_common():
    e = some(np.zeros(4), covariance=np.eye(4), weights=np.ones(4))
    np.testing.assert_allclose(e.shares, [1 / 8] * 4 + [1 / 2])
    shifted = replace(e, estimate=np.full(4, 2.0))
    assert evidence.p_value(shifted) == pytest.approx(2 * 2 * norm.sf(4.0))


def test_plans_confirm_a_true_claim():
    """At the planned distance a true claim is confirmed at least as often as promised."""
    for components in (1, 5):
        margin = evidence.confirmation_distance(components, power=0.99)
        hits = sum(evidence.confirms(some(RNG.normal(size=components), margin=margin)) for _ in range(RUNS))
        assert RUNS - hits <= binom.ppf(1 - 1e-6, RUNS, 0.01)


def test_power_at_the_mde():
    for components in (1, 5):
        shift = np.zeros(components)
        shift[0] = evidence.mde(some(np.zeros(components)), 1e-3, power=0.9)[0]
        hits = sum(evidence.p_value(some(shift + RNG.normal(size=components))) <= 1e-3 for _ in range(RUNS))
        assert RUNS - hits <= binom.ppf(1 - 1e-6, RUNS, 0.1)


def test_samples_needed_scales_with_the_square():
    few, many = (evidence.samples_needed(some(0.0, se=se, margin=1.0)) for se in (1.0, 2.0))
    assert many == pytest.approx(4 * few, rel=1e-3)
    assert evidence.samples_needed(some(0.0, remainder=10.0, margin=10.0)) == -1


@pytest.mark.parametrize("bad", [some(np.nan), some(np.inf), some(1.0, se=0.0), some(0.0, se=np.nan)])
def test_what_cannot_be_tested_is_never_a_pass(bad):
    assert np.isnan(evidence.p_value(bad))
    assert not evidence.confirms(bad)


def test_a_deterministic_agreement_is_a_pass():
    assert evidence.p_value(some(0.0, se=0.0)) == 1.0
    assert evidence.confirms(some(0.0, se=0.0))


# ---- multiplicity -------------------------------------------------------------------------------------


def test_holm_by_hand():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03])), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(holm(np.array([0.01, np.nan, 0.03])), [0.03, np.nan, 0.06])  # which is NaN is no luck
    assert len(holm(np.array([]))) == 0


@given(arrays(float, st.integers(1, 12), elements=st.floats(0, 1)))
def test_holm_lies_between_p_and_bonferroni(p):
    adjusted = holm(p)
    assert (adjusted >= p - 1e-15).all()
    assert (adjusted <= np.minimum(1, len(p) * p) + 1e-12).all()
    assert adjusted.min() == pytest.approx(min(1.0, len(p) * p.min()))


# ---- ladder -------------------------------------------------------------------------------------------

WIDTHS = np.array([32.0, 48.0, 64.0, 96.0, 128.0, 192.0])


def errors(se):
    """Covariances (width, k, k) of independent components with errors se (width, k)."""
    return np.stack([np.diag(row**2) for row in se])


@given(st.floats(-5, 5), st.floats(-50, 50), st.floats(-500, 500))
def test_ladder_recovers_its_own_model(y0, c1, c2):
    y = (y0 + c1 / WIDTHS + c2 / WIDTHS**2)[:, None]
    fitted = ladder.fit(WIDTHS, y, errors(np.full((6, 1), 0.01)), 2)
    assert fitted.intercept[0] == pytest.approx(y0, abs=1e-8)
    assert fitted.slope[0] == pytest.approx(c1, abs=1e-5)
    assert fitted.lack_of_fit > 0.999


def test_ladder_intercepts_have_their_standard_error():
    se = np.geomspace(0.01, 0.03, 6)[:, None]
    truth = 1.0 + 2.0 / WIDTHS[:, None]
    fits = [ladder.fit(WIDTHS, truth + se * RNG.normal(size=(6, 1)), errors(se), 2) for _ in range(4000)]
    z = np.array([(f.intercept[0] - 1) / f.se[0] for f in fits])
    assert abs(z.mean()) < 5 / np.sqrt(len(z))
    assert abs(z.var() - 1) < 5 * np.sqrt(2 / len(z))
    lack = np.array([f.lack_of_fit for f in fits])
    assert abs((lack <= 0.1).mean() - 0.1) < 5 * np.sqrt(0.09 / len(z))


def test_ladder_sees_a_wrong_order():
    y = (1.0 + 400.0 / WIDTHS**2)[:, None]
    assert ladder.fit(WIDTHS, y, errors(np.full((6, 1), 0.005)), 1).lack_of_fit < 1e-6


def test_lack_of_fit_over_components_by_bonferroni():
    y = 1.0 + 0.05 * np.random.default_rng(3).normal(size=(6, 5))
    se = np.full((6, 5), 0.05)
    alone = [ladder.fit(WIDTHS, y[:, i : i + 1], errors(se[:, :1]), 2).lack_of_fit for i in range(5)]
    assert 5 * min(alone) < 1
    assert ladder.fit(WIDTHS, y, errors(se), 2).lack_of_fit == pytest.approx(5 * min(alone))


def test_ladder_needs_enough_widths():
    with pytest.raises(ValueError, match="at least 4 widths"):
        ladder.fit(WIDTHS[:3], np.zeros((3, 1)), errors(np.ones((3, 1))), 2)


def test_allocation_beats_equal_shares():
    cost = WIDTHS**2
    share = ladder.allocation(WIDTHS, np.ones(6), cost, 2)
    assert share.sum() == pytest.approx(1.0)

    def variance_times_work(m):
        design = (WIDTHS.min() / WIDTHS[:, None]) ** np.arange(3) * np.sqrt(m)[:, None]
        return np.linalg.inv(design.T @ design)[0, 0] * (m * cost).sum()

    assert variance_times_work(share) < variance_times_work(np.full(6, 1 / 6))


@pytest.mark.parametrize("sd", [np.ones(6), np.array([1.0, 1.2, 1.1, 1.5, 1.3, 2.0])])
def test_allocation_is_the_best_for_its_weights(sd):
    """Σ a_i² sd_i²/m_i · Σ cost_i m_i is at least (Σ |a_i| sd_i √cost_i)² (Cauchy–Schwarz); a by least squares
    with weights 1/sd², apart from the code."""
    cost = WIDTHS**2
    basis = (WIDTHS.min() / WIDTHS[:, None]) ** np.arange(3) / sd[:, None]
    a = np.linalg.solve(basis.T @ basis, basis.T)[0] / sd
    m = ladder.allocation(WIDTHS, sd, cost, 2)
    assert m.min() > 0.11 * m.mean()  # no width at its least share, where more is given than is best
    least = (np.abs(a) * sd * np.sqrt(cost)).sum() ** 2
    assert (a**2 * sd**2 / m).sum() * (cost * m).sum() == pytest.approx(least, rel=1e-9)
