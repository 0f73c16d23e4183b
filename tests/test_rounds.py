"""Sampling until decision: when it stops, what a clock changes and a replay does not, and that budgets are kept."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pytest

import mcverify as mv
from mcverify.claims import experiment, measures, mutations
from mcverify.claims.claim import Mutant
from mcverify.claims.generic import generic_claims
from mcverify.claims.plan import (
    LEAST,
    PILOT,
    WORK,
    Budget,
    largest_skewness,
    least_size,
    near_the_margin,
    parse_budget,
    size_at,
)
from mcverify.errors import InputError
from mcverify.inputs import with_gram
from mcverify.network_file import NetworkFile
from mcverify.report import html, replay
from mcverify.rounds import Rules, prepare
from mcverify.self_test import self_test, sensitivities
from mcverify.simulation.moments import Moments
from mcverify.statistics import ladder
from mcverify.verification import run_claims


def gains(depth=4, margin=0.02, **changes):
    """Each map's gain in a network of width 16: exact, so that only its margin takes many networks."""
    net = mv.mlp(8, [16] * depth, "tanh", 1.5)
    (base,) = (c for c in generic_claims(net, with_gram([[1.0]], 8), margin, 0) if c.name == "network.map")
    return replace(base, **changes)


def gain(factor):
    return Mutant(f"σ_w² times {factor}", mutations.weight_gain(factor))


# ---- when it stops ------------------------------------------------------------------------------------


def test_looks_grow_to_the_planned_size_and_beyond():
    planned, least = {8: 20_000, 16: 9_000}, {8: LEAST, 16: 2000}
    sizes = [size_at(planned, least, look) for look in range(6)]
    assert [s[8] for s in sizes] == [2500, 5000, 10_000, 20_000, 40_000, 80_000]
    assert [s[16] for s in sizes] == [2000, 2250, 4500, 9000, 18_000, 36_000]
    assert [s == planned for s in sizes] == [False, False, False, True, False, False]
    assert [size_at(least, least, look) for look in range(2)] == [least, {8: 2 * LEAST, 16: 4000}]


def test_skewed_networks_are_asked_for_more():
    rng = np.random.default_rng(0)
    assert least_size(largest_skewness(rng.normal(size=(256, 3)))) < 2 * LEAST
    assert least_size(largest_skewness(rng.exponential(size=(10**5, 2)))) == 16_384
    assert largest_skewness(np.array([[1.0, 2.0], [1.0, np.nan], [1.0, 3.0]])) < 1e-9
    assert largest_skewness(np.full((5, 2), np.nan)) == 0.0


def pull(deviation, test="within", **changes):
    """A claim whose pilot saw 256 networks of one value, sd 1 and skewness 2, off by that many margins of 1."""
    claim = gains(depth=1, test=test, margin=1.0, **changes)
    values = np.random.default_rng(0).exponential(size=(256, 1))
    moments = Moments(cross=True)
    moments.add((values - values.mean()) / values.std() + deviation)
    says = experiment.Target(np.zeros(1), np.ones(1), np.zeros(1), 0.0)
    return near_the_margin(claim, says, experiment.Tally({16: moments})).tolist()


def test_skewness_counts_where_a_verdict_turns():
    """Of 1,024 networks the margin is 32 standard errors away: 8.6 of them are 0.27."""
    near = {0.0: False, 0.70: False, 0.76: True, 1.0: True, 1.24: True, 1.30: False}
    assert {d: pull(d)[0] for d in near} == near
    assert pull(0.0, test="mean") == [True]  # an equality may be refuted however wide its margin is
    assert pull(0.0, combine=lambda means: 2 * means) == [True]
    values = np.random.default_rng(0).exponential(size=(10**4, 2)) * [1.0, 0.0]
    assert largest_skewness(values, np.array([False, True])) == 0.0 < largest_skewness(values, np.array([True]))


def test_a_decided_claim_measures_no_more(monkeypatch):
    """An exact claim goes on to its planned size; what was decided at the first look has been measured up to there."""
    counts = {"early": 0, "late": 0}

    def counting(name):
        def measure(trace):
            counts[name] += trace.site.count
            return measures.mean_map_gain(trace)

        return measure

    early = gains(margin=0.5, test="within", mark="limit", measure=counting("early"), name="early")
    first, second = run_claims([early, gains(measure=counting("late"), name="late")], threads=1).results
    assert first.looks == 1 < second.looks
    assert counts["early"] == PILOT + first.samples[16] < counts["late"] == PILOT + second.samples[16]
    assert second.estimate == run_claims([gains(name="late")]).results[0].estimate


def test_a_claim_that_asks_for_many_networks_holds_none_of_its_sample_back():
    """The skewed one is looked at late; a clock that is over cuts no claim off before its first look."""
    quick = gains(margin=0.5, test="within", mark="limit", name="quick")
    skewed = gains(margin=100.0, measure=lambda t: np.exp(2 * measures.mean_map_gain(t)), name="skewed")
    for budget in (Budget(), Budget(seconds=1e-3)):
        first, second = run_claims([quick, skewed], budget=budget).results
        assert first.verdict == "confirmed"
        assert 4 * first.samples[16] <= second.samples[16]


def test_a_pilot_in_small_chunks_is_no_more_skewed(monkeypatch):
    """What is asked for goes by all its networks together: the largest of 32 samples' skewness would be far more."""
    least = []
    for chunk in (8, 256):
        monkeypatch.setattr(experiment, "chunk_size", lambda *_, chunk=chunk: chunk)
        least.append(prepare([gains()], [0], experiment.Run(0), Rules(1e-3, Budget()), lambda *_: None).least)
    assert least[0] == least[1]


def test_an_exact_claim_is_confirmed_at_its_planned_size_and_refuted_before():
    true = run_claims([gains()]).results[0]
    assert true.verdict == "confirmed"
    assert true.looks == 4
    wrong = run_claims([gains()], mutant=gain(1.1)).results[0]
    assert wrong.verdict == "refuted"
    assert wrong.looks < 4
    assert sum(wrong.samples.values()) < sum(true.samples.values())


def test_a_claim_that_is_confirmed_beyond_its_planned_size_is_done():
    """Its plan was cut to the budget's work, and the time would last for more looks."""
    result = run_claims([gains(margin=0.02)], budget=Budget(work=3e6, seconds=60.0)).results[0]
    assert result.verdict == "confirmed"
    assert result.seconds < 30


def test_a_limit_stops_as_soon_as_its_margin_is_excluded():
    early = run_claims([gains(mark="limit")]).results[0]
    assert early.verdict == "confirmed"
    assert sum(early.samples.values()) < sum(run_claims([gains()]).results[0].samples.values())


def test_an_error_that_all_layers_share_is_told_as_such():
    """1.2% in each of twelve layers: a mean deviation far beyond its error, where single layers show little."""
    result = run_claims([gains(12, margin=0.05)], mutant=gain(1.012)).results[0]
    assert result.verdict == "refuted"
    assert "all 12 components together" in result.message


# ---- budgets, clocks and replays ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("90s", Budget(seconds=90)),
        ("1.5m", Budget(seconds=90)),
        ("20000", Budget(samples=20_000)),
        ("2e9w", Budget(work=2e9)),
        ("4e9w", Budget()),
        ("20000n,90s", Budget(samples=20_000, seconds=90)),
    ],
)
def test_budgets_are_read_and_written(text, budget):
    assert parse_budget(text) == budget
    assert parse_budget(str(budget)) == budget


@pytest.mark.parametrize("text", ["", "-1", "0s", "nan", "1e999s", "5 apples", "1.2.3s", "s"])
def test_budgets_that_are_none_are_refused(text):
    with pytest.raises(InputError, match="90s"):
        parse_budget(text)
    with pytest.raises(InputError):
        mv.verify("poole2016.q_map", budget=text)


def test_networks_are_limited_but_never_below_what_a_mean_needs():
    result = run_claims([gains(margin=1e-3)], budget=Budget(samples=20_000)).results[0]
    assert result.verdict == "undecided"
    assert "raise the budget" in result.message
    assert 1024 < sum(result.samples.values()) <= 20_000
    least = run_claims([gains(margin=1e-3)], budget=Budget(samples=1)).results[0]
    assert LEAST <= sum(least.samples.values()) < 10_000  # four layers of sixteen units are a little skew


def told(report):
    return [(r.name, r.verdict, r.estimate, r.p, r.samples, r.looks) for r in report.results]


def test_a_clock_cuts_between_looks_and_a_replay_repeats_it(tmp_path):
    """A claim that its margin leaves open goes on until the time is over; however long the replay takes, it stops
    where the first run did."""
    claims = [gains(margin=1e-4), gains(2, name="network.two", sample="two", margin=0.05)]
    began = time.monotonic()
    cut = run_claims(claims, budget=Budget(work=1e6, seconds=1.0))
    assert time.monotonic() - began < 20
    assert cut.provenance["cut_by_clock"]
    assert "time was over" in cut.results[0].message
    assert cut.results[1].verdict == "confirmed"
    html.write(cut, tmp_path)
    again = replay.read(tmp_path / "report.json", None)
    slow = run_claims(claims, seed=again.seed, alpha=again.alpha, budget=again.budget, looks=again.looks)
    assert told(slow) == told(cut)
    assert not slow.provenance["cut_by_clock"]


def test_a_run_without_seconds_knows_no_clock(monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: 1e12)
    assert not run_claims([gains(margin=0.05)]).provenance["cut_by_clock"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1]",
        "[" * 100_000,
        '{"provenance": {"looks": "[1]", "claims": "x"}, "seed": Infinity}',
        '{"provenance": {}}',
        '{"provenance": {"looks": "[1]", "claims": 3}, "seed": 1}',
    ],
)
def test_a_replay_of_something_else_is_refused(tmp_path, text):
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"report\.json of mcverify"):
        replay.read(path, None)


def test_a_replay_of_an_interrupted_run_is_refused(tmp_path):
    def stop(event):
        raise KeyboardInterrupt

    html.write(run_claims([gains(margin=0.05)], listener=stop), tmp_path)
    with pytest.raises(InputError, match="was interrupted"):
        replay.read(tmp_path / "report.json", None)


@pytest.mark.parametrize("looks", [3, "3", [], [0], [-1], [1.5], ["a"], [None], [True]])
def test_looks_are_whole_numbers_one_for_each_claim(looks):
    with pytest.raises(InputError, match="looks"):
        mv.verify("poole2016.q_trajectory", looks=looks)


@pytest.mark.parametrize("budget", [10**400, Budget(samples=1.5), Budget(samples=True)])
def test_a_budget_is_a_number_that_can_be_spent(budget):
    with pytest.raises(InputError, match="budget"):
        mv.verify("poole2016.q_trajectory", budget=budget)


def test_inputs_beside_a_claim_are_not_ignored():
    with pytest.raises(InputError, match="goes with a network"):
        mv.verify("poole2016.q_trajectory", np.ones((1, 4)))


def test_the_margin_of_the_call_goes_before_that_of_the_file(tmp_path):
    path = tmp_path / "net.toml"
    path.write_text("[network]\ninput_dim = 8\nwidths = [16]\nactivation = 'tanh'\n[verify]\nmargin = 0.1\n")
    for options, margin in (({}, 0.1), ({"margin": 0.2}, 0.2)):
        assert mv.verify(str(path), budget="1e6w", **options).provenance["margin"] == margin


def test_a_replay_needs_the_same_network_margin_and_backend(tmp_path):
    x = with_gram([[1.0]], 8)
    same = NetworkFile(mv.mlp(8, [16], "tanh"), x, 0.1)
    html.write(mv.verify(same.net, x, margin=0.1, budget="1e6w"), tmp_path)
    assert replay.read(tmp_path / "report.json", same).what == ()
    assert replay.read(tmp_path / "report.json", same, "cpu").what == ()
    wider = replace(same, net=mv.mlp(8, [17], "tanh"))
    for given, backend in ((wider, "auto"), (None, "auto"), (replace(same, margin=0.2), "auto"), (same, "reference")):
        with pytest.raises(InputError, match="the same to verify") as caught:
            replay.read(tmp_path / "report.json", given, backend)
        assert "\n" not in str(caught.value)
    stored = json.loads((tmp_path / "report.json").read_text())
    assert stored["provenance"]["network"]


# ---- findings, ladders, the self-test -----------------------------------------------------------------


def test_a_finding_is_a_pair_with_both_verdicts_expected():
    source = gains(
        name="network.source", sample="", finding="the gain", expected="refuted",
        predict=lambda net, x: np.full(4, 1.5),
    )  # fmt: skip
    mended = gains(name="network.mended", finding="the gain")
    report = run_claims([source, mended])
    assert [r.verdict for r in report.results] == ["refuted", "confirmed"]
    assert report.exit_code == 0


def test_what_a_ladder_leaves_out_is_bounded():
    """y = 1 + 1/N + 8/N² + 64/N³: to second order the bound for growth 1 is too small, that for growth 7 is
    not; for growth 20 such a ladder says nothing."""
    widths = np.array([16.0, 24.0, 32.0, 48.0, 64.0])
    y = (1 + 1 / widths + 8 / widths**2 + 64 / widths**3)[:, None]
    fitted = ladder.fit(widths, y, np.full((5, 1, 1), 1e-14), 2)
    off = abs(fitted.intercept[0] - 1)
    assert ladder.bias(fitted, widths, 1.0, 2)[0] < off < ladder.bias(fitted, widths, 7.0, 2)[0]
    assert np.isinf(ladder.bias(fitted, widths, 20.0, 2)[0])


def test_a_whole_series_is_bounded():
    """(1/N)/(1 − 4/N): every coefficient grows by 4, and none is left out of the bound."""
    widths = np.array([16.0, 24.0, 32.0, 48.0, 64.0])
    y = (1 + (1 / widths) / (1 - 4 / widths))[:, None]
    fitted = ladder.fit(widths, y, np.full((5, 1, 1), 1e-14), 2)
    off = abs(fitted.intercept[0] - 1)
    assert 0.5 * ladder.bias(fitted, widths, 4.0, 2)[0] < off < ladder.bias(fitted, widths, 4.0, 2)[0]


def test_the_self_test_finds_the_smallest_error_and_judges_neighbours():
    claim = gains(margin=0.05)
    trials = self_test([claim], budget=Budget(work=WORK / 100))
    assert [t.planted for t in trials] == [True, False]
    assert all(t.passed for t in trials)
    (found,) = sensitivities([claim], budget=Budget(work=WORK / 100))
    assert found.missed < found.caught < 0.05
    assert found.caught / found.missed < 1.2


def test_a_claim_that_moves_with_no_gain_says_so():
    (found,) = sensitivities([gains(mark="limit", measure=_unmoved)], budget=Budget(work=1e6))
    assert found.caught is None


def _unmoved(trace):
    """Means of one that no error moves."""
    return 1 + 0.01 * np.random.default_rng(trace.site.start).normal(size=(trace.site.count, 4))
