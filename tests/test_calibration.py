"""The calibration suite itself: the stored figures are where they must be and not stale; planted errors are seen; its
samplers have the laws that they claim, and runs taken together are decided as runs taken alone."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from calibration import fixed_laws, ladders, planted, report, samplers, suite
from calibration.rows import Figure, add_up, at_most_hits, level, merged
from calibration.run import all_rows, batches, measure
from scipy.stats import binomtest

from mcverify.claims import plan
from mcverify.statistics import laws, sequential, two_sample
from mcverify.statistics.evidence import Evidence, confirms, p_value
from mcverify.statistics.ladder import bias, fit
from mcverify.statistics.watch import Watch, look

ROWS = all_rows()


def test_every_stored_figure_is_fresh_and_where_it_must_be():
    """If this fails: `make calibrate` measures again; a figure outside its target is a defect, not a nuisance."""
    found = report.faults(list(ROWS.values()), report.read())
    assert not found, "\n".join(found)


# ---- the report can fail --------------------------------------------------------------------------------


def stored(rows, hits=100):
    """What a report of these rows holds, with so many hits of a million in every figure."""
    return {r.name: report.entry(r, {f: Figure(10**6, hits, hits) for f in r.targets}, 1.0) for r in rows}


def some_row(**changes):
    return replace(ROWS["planted/dead"], name="some", outside=False, **changes)


def test_a_report_is_found_faulty():
    row = some_row(targets={"hits": at_most_hits(129, 10**6)})
    kept = stored([row])
    assert report.faults([row], kept) == []
    assert "never measured" in report.faults([row], {})[0]
    assert "no row any more" in report.faults([], kept)[0]
    assert "misses its target" in report.faults([row], stored([row], 130))[0]
    assert "must miss" in report.faults([replace(row, outside=True)], kept)[0]
    assert "something else" in report.faults([replace(row, runs=7)], kept)[0]


def test_a_changed_source_makes_figures_stale(tmp_path, monkeypatch):
    row = some_row(covers=("mcverify/a.py",))
    for name in ("mcverify/a.py", "mcverify/b.py", *report.COMMON, f"tests/calibration/{row.module}"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("as measured")
    monkeypatch.setattr(report, "ROOT", tmp_path)
    kept = stored([row], 10_000)
    (tmp_path / "mcverify/b.py").write_text("changed")
    assert report.faults([row], kept) == []
    (tmp_path / "mcverify/a.py").write_text("changed")
    assert "stale" in report.faults([row], kept)[0]


def test_rows_cover_what_decides():
    for row in ROWS.values():
        assert "mcverify/statistics/evidence.py" in report.sources(row)
        own = "laws" if row.module == "fixed_laws.py" else "watch"
        assert f"mcverify/statistics/{own}.py" in report.sources(row)
        assert f"tests/calibration/{row.module}" in report.sources(row)
    assert {"mcverify/rounds.py", "mcverify/claims/plan.py"} <= set(report.sources(ROWS["suite/null"]))


def test_a_report_can_be_read_again(tmp_path):
    row = some_row()
    paths = report.write(stored([row], 10_000), {"seed": 0}, tmp_path)
    assert report.faults([row], report.read(tmp_path)) == []
    assert "| some |" in paths[1].read_text()
    json.loads(paths[0].read_text())


# ---- figures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hits", [0, 3, 50, 100])
def test_limits_are_clopper_and_pearsons(hits):
    exact = binomtest(hits, 100).proportion_ci(0.999, "exact")
    assert Figure(100, hits, hits).limits == pytest.approx((exact.low, exact.high))


def test_targets_have_two_sides():
    right = level(0.01, exact=True)
    assert right.met(Figure(100_000, 1_000, 1_000))
    assert not right.met(Figure(100_000, 0, 0))
    assert not right.met(Figure(100_000, 1_200, 1_200))  # no exact test has this
    assert level(0.01).met(Figure(100_000, 1_150, 1_150))
    assert not level(0.01).met(Figure(100_000, 1_250, 1_250))


def test_batches_add_up_to_the_runs():
    row = ROWS["level/gaussian/one"]
    assert sum(runs for _, _, runs in batches(row, 1.0)) == row.runs
    parts = [add_up({"x": np.arange(5.0)}), add_up({"x": np.array([7.0, np.nan])})]
    assert merged(parts[0]["x"], parts[1]["x"]) == Figure(6, 17.0, 79.0)


def test_a_batch_is_repeated_by_its_seed():
    assert measure(3, "margin/one", 1, 500)[1] == measure(3, "margin/one", 1, 500)[1]
    assert measure(3, "margin/one", 1, 500)[1] != measure(4, "margin/one", 1, 500)[1]


# ---- planted errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", planted.ROWS, ids=lambda r: r.name)
def test_a_planted_error_falls_outside(row):
    for name, figure in add_up(row.measure(np.random.default_rng(20261123), row.runs)).items():
        assert not row.targets[name].met(figure)


# ---- samplers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [4, 16, 64])
def test_ratios_have_their_moments(width):
    rng = np.random.default_rng(20261124)
    x = samplers.relu_ratios(rng, width, (400_000,)) - 1
    sums = samplers.relu_sums(rng, width, np.full(400_000, 3)) - 3
    for y, n in ((x, 1), (sums, 3)):
        assert abs(y.mean()) < 5 * np.sqrt(5 * n / width / y.size)
        assert y.var() == pytest.approx(5 * n / width, rel=0.03)
    slope = np.array([-0.2, -0.05, 0.03]) * width
    empirical = [np.log(np.mean(np.exp(s * x))) for s in slope]
    np.testing.assert_allclose(samplers.relu_cumulant(width)(slope), empirical, rtol=0.05)


@pytest.mark.parametrize("width", [16, 64])
def test_the_bernstein_bound_holds_for_relu(width):
    slope = np.linspace(-0.24, 0.24, 97) * width
    bound = sequential.sub_exponential_cumulant(5 / width, 4 / width)(slope)
    assert (samplers.relu_cumulant(width)(slope) <= bound + 1e-12).all()


def test_the_program_takes_as_many_networks():
    assert samplers.LEAST == plan.LEAST
    assert samplers.SHARES[: len(plan._SHARES)] == plan._SHARES


def test_moments_are_those_of_numpy():
    draws = np.random.default_rng(5).normal(size=(3, 40, 2))
    for n, (mean, covariance) in zip((10, 40), samplers._accrued(draws, (10, 40)), strict=True):
        np.testing.assert_allclose(mean, draws[:, :n].mean(axis=1))
        for run in range(3):
            np.testing.assert_allclose(covariance[run], np.cov(draws[run, :n].T) / n)


# ---- many runs at once are decided as each alone --------------------------------------------------------


def alone(e: Evidence, run: int) -> Evidence:
    """One run of many."""
    many = ("estimate", "se", "covariance", "lack_of_fit", "bias")
    here = {f: getattr(e, f) for f in many if getattr(e, f) is not None}
    return replace(e, **{f: v[run] if np.ndim(v) else v for f, v in here.items()})


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("kind", ["components", "ladder"])
def test_runs_together_are_decided_as_alone(kind, one_sided, within):
    rng, runs, more = np.random.default_rng(6), 20, {"one_sided": one_sided, "within": within}
    if kind == "ladder":
        looks = [ladders.drawn(rng, runs, 2, 0.3, 6.0, 8.0, margin=np.full(2, 2.0), **more) for _ in range(3)]
    else:
        paths = samplers.brownian(rng, runs, 3, (0.5, 1.0, 2.0))
        looks = [samplers.gaussian(x + 2, 0.7, margin=np.full(3, 1.5), **more) for x in paths]
    k = looks[0].components
    start = Watch(np.full(k + 1, 0.8), 0.01, looks[0].weights)
    together, single = start, [start] * runs
    for at, e in enumerate(looks):
        together = look(together, e, planned=at == 1)
        single = [look(w, alone(e, run), planned=at == 1) for run, w in enumerate(single)]
        np.testing.assert_allclose(p_value(e), [p_value(alone(e, run)) for run in range(runs)], rtol=1e-9)
        np.testing.assert_array_equal(confirms(e), [confirms(alone(e, run)) for run in range(runs)])
    np.testing.assert_allclose(together.p, [w.p for w in single], rtol=1e-9)
    np.testing.assert_array_equal(together.confirmed, [w.confirmed for w in single])
    assert np.mean(together.p < 1) > 0


def test_ladders_together_are_fitted_as_alone():
    rng = np.random.default_rng(7)
    y = rng.normal(size=(4, 6, 2))
    covariance = rng.uniform(0.5, 2, (4, 6, 2, 1)) * np.eye(2)
    together = fit(ladders.WIDTHS, y, covariance, 2)
    for run in range(4):
        single = fit(ladders.WIDTHS, y[run], covariance[run], 2)
        for name in ("intercept", "covariance", "slope", "slope_se", "response", "slope_response", "lack_of_fit"):
            np.testing.assert_allclose(getattr(together, name)[run], getattr(single, name), rtol=1e-9)
        np.testing.assert_allclose(
            bias(together, ladders.WIDTHS, 2.0, 2)[run], bias(single, ladders.WIDTHS, 2.0, 2), rtol=1e-9
        )


def test_a_run_that_is_not_finite_decides_nothing_for_itself_alone():
    e = samplers.gaussian(np.array([[9.0], [np.nan], [0.0]]))
    watch = look(Watch(np.ones(1), 0.01), e, planned=True)
    assert watch.p[0] < 1e-10
    assert watch.p[1] == 1.0
    np.testing.assert_array_equal(np.isnan(p_value(e)), [False, True, False])
    assert not confirms(e)[1]
    assert not watch.confirmed[1]


# ---- laws: no small p-value is overlooked ---------------------------------------------------------------


def test_laws_are_asked_wherever_a_p_value_is_small():
    rng = np.random.default_rng(8)
    u = rng.random((1_500, fixed_laws.SAMPLES)) ** rng.uniform(0.93, 1.07, (1_500, 1))
    asked = fixed_laws.law_asked(u)
    tests = [laws.law_test(v) for v in u]
    small = np.array([min(t.ks, t.variance, t.bins, t.p) <= 0.01 for t in tests])
    assert small.sum() > 50
    assert asked[small].all()
    assert asked.mean() < 0.9


def test_pairs_are_asked_wherever_a_p_value_is_small():
    rng = np.random.default_rng(9)
    a, b = rng.standard_normal((2, 1_000, fixed_laws.SAMPLES))
    b = b * rng.uniform(0.9, 1.1, (1_000, 1)) + rng.uniform(-0.15, 0.15, (1_000, 1))
    asked = fixed_laws.pair_asked(a, b)
    p = [min(two_sample.same_law(x, y, fixed_laws.EDGES), two_sample.ks(x, y)) for x, y in zip(a, b, strict=True)]
    small = np.array(p) <= 0.01
    assert small.sum() > 50
    assert asked[small].all()
    assert asked.mean() < 0.9


# ---- real runs, small ------------------------------------------------------------------------------------


def test_real_runs_and_trials_are_counted():
    rng = np.random.default_rng(10)
    out = suite.real_runs("poole2016.q_map")(rng, 1)
    assert not out["red"].any()
    out = suite.trials("poole2016.q_map")(rng, 1)
    assert out["mutants refuted"].all()
    assert len(out["mutants refuted"]) == 3
    assert len(out["neighbours confirmed"]) == 1


def test_the_command_writes_nothing_when_quick(monkeypatch, capsys):
    from calibration import __main__ as command

    monkeypatch.setattr(report, "write", lambda *_: pytest.fail("a quick figure was stored"))
    monkeypatch.setattr(sys, "argv", ["calibration", "--quick", "planted/dead"])
    assert command.main() == 0
    assert "ok   planted/dead" in capsys.readouterr().out
