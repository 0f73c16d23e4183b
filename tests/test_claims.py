"""The catalogue: every claim is complete, can be confirmed, and refutes each of its mutants."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

import mcverify as mv
from mcverify import rounds, verification
from mcverify.claims import experiment, measures, mutations, poole2016
from mcverify.claims.catalogue import catalogue, select
from mcverify.claims.claim import Mutant
from mcverify.claims.generic import generic_claims
from mcverify.claims.plan import WORK, Budget, plan
from mcverify.departure import departure
from mcverify.errors import InputError
from mcverify.inputs import with_gram
from mcverify.network_file import parse
from mcverify.self_test import neighbours, self_test, too_dear
from mcverify.simulation.moments import Moments
from mcverify.statistics import evidence
from mcverify.theory.propagation import propagate

CLAIMS = catalogue()
EXAMPLES = Path(__file__).parent.parent / "examples"
GRAM = [[1.0, 0.4], [0.4, 0.5]]


def ids(claims):
    return [c.name for c in claims]


def parts(claim):
    net = claim.networks(max(claim.widths))
    return net, claim.inputs(net)


@pytest.mark.parametrize("claim", CLAIMS, ids=ids(CLAIMS))
def test_claims_are_complete(claim):
    assert claim.source
    assert claim.statement.endswith(".")
    assert claim.margin > 0
    assert claim.margin_reason
    assert claim.rival is not None
    assert claim.mutants
    assert len(claim.widths) >= 5 if claim.test == "ladder" else len(claim.widths) == 1


@pytest.mark.parametrize("claim", CLAIMS, ids=ids(CLAIMS))
def test_margins_are_below_half_the_distance_to_the_rival(claim):
    """In the component that tells them apart best: a confirmation excludes the rival."""
    net, x = parts(claim)
    prediction, rival = (np.atleast_1d(f(net, x)) for f in (claim.predict, claim.rival.predict))
    margin = claim.margin * (np.abs(prediction) if claim.relative else 1.0)
    assert len(prediction) == len(claim.labels(net)) == len(rival)
    assert np.max(np.abs(rival - prediction) / margin) > 2
    if claim.remainder is not None:
        assert (claim.remainder(net, x) < margin / 2).all()


def test_names_are_unique():
    assert len(set(ids(CLAIMS))) == len(CLAIMS)


def _mutants():
    """A claim's first mutant in every run, the others in slow ones: `mcverify verify --self-test` plants all. Of the
    ten claims that figure_1c.survival_claim makes, one of each phase stands for all; thousands of grids of 64
    positions, and thousands of layers, are left to slow runs."""
    large = "xiao2018_cnn.digit_gradients", "xiao2018_cnn.whole_depth", "xiao2018_isometry.ten_thousand_layers"
    for claim in CLAIMS:
        alike = ".survival_" in claim.name and claim.name[-4:] not in ("0.85", "1.35")
        for i, mutant in enumerate(claim.mutants):
            marks = [pytest.mark.slow] * (alike or claim.name in large or i > 0)
            yield pytest.param(claim, mutant, id=f"{claim.name}: {mutant.name}", marks=marks)


@pytest.mark.parametrize(("claim", "mutant"), list(_mutants()))
def test_mutants_are_refuted(claim, mutant):
    """A simulation made wrong is refuted at a fifth of the claim's own budget."""
    report = verification.run_claims([claim], budget=Budget(work=WORK / 5), mutant=mutant)
    assert report.results[0].verdict == "refuted", report.results[0].message
    assert report.exit_code == (0 if claim.expected == "refuted" else 1)


def test_unknown_patterns_are_named():
    with pytest.raises(InputError, match=r"did you mean 'poole2016\.q_map'"):
        select(["pole2016.q_map"])
    assert ids(select(["*q_map"])) == ["poole2016.q_map", "schoenholz2017.dropout_q_map"]


# ---- planning and reporting ---------------------------------------------------------------------------


def small(test="mean", **changes):
    """A cheap claim: the first layer's length, at width 8."""
    net = mv.mlp(4, [8], "tanh", 1.5)
    (base,) = (c for c in generic_claims(net, with_gram([[1.0]], 4), 0.05, 0) if "map" in c.name)
    return replace(base, **changes)


def test_a_run_is_a_function_of_its_seed():
    first, again, other = (verification.run_claims([small()], seed=s, threads=t) for s, t in ((1, 1), (1, 2), (2, 2)))

    def told(report):
        return [(r.estimate, r.p, r.samples) for r in report.results]

    assert told(first) == told(again)
    assert told(first) != told(other)


def test_plans_scale_with_the_margin_and_obey_the_budget():
    pilot = experiment.Sample([small()], experiment.Run(0), "pilot")
    experiment.extend(pilot, {8: 256})
    sizes = []
    for margin in (0.05, 0.01):
        claim = small(margin=margin)
        sizes.append(plan(claim, experiment.target(claim), pilot.tallies[0], {8: 1024}, Budget())[8])
    assert sizes[1] == pytest.approx(25 * sizes[0], rel=0.05)
    cut = verification.run_claims([small(margin=1e-4)], budget=Budget(work=3e5)).results[0]
    assert cut.verdict == "undecided"
    assert "raise the budget" in cut.message
    assert cut.samples_for_margin > 100 * cut.samples[8]


def test_a_refutation_needs_to_be_reproduced(monkeypatch):
    """A refutation that fresh addresses do not confirm is told as undecided."""
    real = rounds.repeat

    def sober(course, run, rules, tell):
        return real(course, run, replace(rules, mutant=None), tell)

    monkeypatch.setattr(verification, "repeat", sober)
    wrong = Mutant("σ_w² doubled", lambda net: mv.mlp(4, [8], "tanh", 3.0))
    result = verification.run_claims([small()], mutant=wrong).results[0]
    assert result.verdict == "undecided"
    assert "not reproduced" in result.message
    assert result.p_adjusted < 1e-6


def test_non_finite_replicates_are_undecided_not_confirmed():
    result = verification.run_claims([small(measure=lambda t: measures.mean_map_gain(t) * np.nan)]).results[0]
    assert result.verdict == "undecided"
    assert "non-finite" in result.message


def test_an_expected_refutation_is_a_finding():
    wrong = small(expected="refuted", measure=lambda t: measures.mean_map_gain(t) + 0.5)
    report = verification.run_claims([wrong])
    assert report.results[0].verdict == "refuted"
    assert report.exit_code == 0


def test_an_interrupt_keeps_what_was_measured():
    def stop(trace):
        raise KeyboardInterrupt

    late = small(name="network.late", measure=stop, sample="")
    report = verification.run_claims([small(), late], threads=1)
    assert report.interrupted
    assert ids(report.results) == ["network.map"]
    assert report.exit_code == 3


def test_claims_of_one_sample_share_their_networks():
    """Measured together, each gets the evidence that it gets alone from the same sample."""
    one = small()
    pair = verification.run_claims([one, small(name="network.again")]).results
    assert pair[0].estimate == pair[1].estimate
    assert pair[0].estimate == verification.run_claims([one]).results[0].estimate
    apart = verification.run_claims([one, small(name="network.again", sample="other")]).results
    assert apart[0].estimate != apart[1].estimate


def _in_pairs(trace):
    """q of each two units over its mean, (replicate, pair, 1)."""
    q = (np.asarray(trace.maps[0].y, float) ** 2).reshape(trace.site.count, 4, 2).mean(axis=-1)
    return (q / 1.5)[..., None]


def test_stretches_count_as_replicates_and_whole_networks_are_told():
    """Four rows of a network: as many networks as those rows take, and the moments of one row for each network."""
    apart = small(measure=_in_pairs, stretches=4, told=lambda rows: f"{len(rows)} rows, mean {rows.mean():.6f}")
    whole = small(measure=lambda t: _in_pairs(t).mean(axis=1))
    by_rows, at_once, by_networks = (experiment.Sample([c], experiment.Run(5), "main") for c in (apart, apart, whole))
    for rows in (10, 30, 64):
        experiment.extend(by_rows, {8: rows})
    experiment.extend(at_once, {8: 64})
    experiment.extend(by_networks, {8: 16})
    rows, once, networks = (s.tallies[0].moments[8].finish() for s in (by_rows, at_once, by_networks))
    assert by_rows.sizes == at_once.sizes == {8: 64}
    assert (rows.count, rows.mean) == (once.count, once.mean) == (64, pytest.approx(networks.mean, rel=1e-12))
    result = verification.run_claims([apart]).results[0]
    alone = verification.run_claims([whole]).results[0]
    assert result.verdict == alone.verdict == "confirmed"
    assert result.samples[8] == pytest.approx(alone.samples[8], rel=0.3)  # planned for as precise a mean
    assert result.told == f"{4 * result.samples[8]} rows, mean {result.estimate[0]:.6f}"
    assert alone.told == ""
    assert experiment.width_cost(apart, 8) == experiment.width_cost(whole, 8) / 4


def test_survivors_leave_out_dead_layers_and_nothing_else():
    """At width 4 a ReLU layer dies one time in sixteen for an input; an overflow is no death."""
    net = mv.mlp(4, [4] * 3, "relu", 2.0)
    (claim,) = (c for c in generic_claims(net, with_gram(GRAM, 4), 0.5, 0) if c.name == "network.length")
    result = verification.run_claims([claim]).results[0]
    assert "had a dead layer and are left out" in result.message
    spoilt = replace(claim, measure=lambda t: np.where(np.arange(t.site.count)[:, None] % 2, claim.measure(t), np.nan))
    result = verification.run_claims([spoilt]).results[0]
    assert result.verdict == "undecided"
    assert "non-finite" in result.message


@pytest.mark.parametrize("width", [4, 32])
def test_null_evidence_keeps_its_level_from_samples_to_p(width):
    """Deep, narrow ReLU chains by their exact law, through estimate and p_value: at most a share α of false
    refutations at α = 0.01 (binomial limit at 1e-6), and some."""
    rng = np.random.default_rng(width)
    claim = small(predict=lambda net, x: np.ones(16), margin=0.5)
    target = experiment.target(claim)
    runs, hits = 1500, 0
    for _ in range(runs):
        ratios = rng.chisquare(width, (256, 16)) / width
        moments = Moments(cross=True)
        moments.add(ratios)
        tally = experiment.Tally({8: moments})
        hits += evidence.p_value(experiment.evidence(claim, target, tally, weights=np.ones(16))) <= 0.01
    assert 0 < hits <= binom.ppf(1 - 1e-6, runs, 0.01 if width > 4 else 0.02)  # 256 χ²₄ means are a little skew


# ---- a user's own network -----------------------------------------------------------------------------


def test_a_sound_wide_network_is_confirmed():
    report = mv.verify(
        mv.mlp(16, [128] * 3, "erf", 1.2, 0.1), with_gram(GRAM, 16), margin=0.05, budget=Budget(work=2e9)
    )
    assert report.exit_code == 0, [(r.name, r.verdict, r.message) for r in report.results]
    assert report.sentence.startswith("No layer departs")


def test_a_narrow_relu_network_departs_and_the_layer_is_named():
    """E log R = −5/(2n) − 4.1/n² a layer: about −19% at width 16, so the first layer to show is named."""
    report = mv.verify(
        mv.mlp(16, [64, 64, 16, 64], "relu", 2.0), with_gram(GRAM, 16), margin=0.06, budget=Budget(work=1e9)
    )
    assert report.exit_code == 1
    assert "layer 4" in report.sentence or "layer 3" in report.sentence
    exact = [r for r in report.results if r.mark == "exact"]
    assert all(r.verdict == "confirmed" for r in exact)


@pytest.mark.parametrize("law", ["uniform", "rademacher", "truncated_normal", "orthogonal"])
def test_other_weight_laws_get_the_claims_that_hold_for_them(law):
    net = mv.mlp(16, [64] * 3, "tanh", 1.2, 0.1, law)
    names = ids(generic_claims(net, with_gram(GRAM, 16), 0.05, 1e7))
    assert "network.map" in names
    assert "network.one_step_q" not in names  # exact for Gaussian weights alone
    report = mv.verify(net, with_gram(GRAM, 16), margin=0.05, budget=Budget(work=1e9))
    assert report.results[0].verdict == "confirmed"


def test_generic_claims_see_a_wrong_sampler():
    """Every generic claim refutes its own mutant."""
    net = mv.mlp(16, [64] * 3, "tanh", 1.5, 0.1)
    for claim in generic_claims(net, with_gram(GRAM, 16), 0.02, 1e7):
        for mutant in claim.mutants:
            assert verification.run_claims([claim], mutant=mutant).results[0].verdict == "refuted", claim.name


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_self_test_passes_on_shallow_networks_too(depth):
    net = mv.mlp(16, [48] * depth, "tanh", 1.5, 0.1)
    claims = generic_claims(net, with_gram(GRAM, 16), 0.03, 0)
    for trial in self_test(claims, budget=Budget(work=1e9)):
        assert trial.passed, (depth, trial.name, trial.result.name, trial.result.message)


@pytest.mark.parametrize(
    ("net", "x"),
    [
        (mv.mlp(4, [8, 8], "relu", 2.0), np.array([[0.0] * 4, [1.0] * 4])),  # a zero input
        (mv.mlp(4, [8, 8], "tanh", 0.0), with_gram(GRAM, 4)),  # everything is zero
        (mv.mlp(4, [16] * 3, "sign", 1.0), with_gram(GRAM, 4)),  # no gradients
        (mv.mlp(4, [16] * 2, "tanh", 1e12), with_gram(GRAM, 4)),  # nothing fluctuates
        (mv.mlp(4, [16] * 2, "tanh"), with_gram([[1e-30, 0], [0, 1e30]], 4)),
    ],
    ids=["zero input", "zero weights", "sign", "saturated", "scales"],
)
def test_degenerate_networks_get_a_sentence_and_no_false_verdict(net, x):
    report = mv.verify(net, x, budget=Budget(work=1e8))
    assert report.sentence
    assert all(r.verdict != "refuted" for r in report.results if r.mark == "exact" or ".limit." in r.name)


def test_one_layer_object_may_stand_twice():
    layer = mv.Dense(16, 16, 1.5, 0.1)
    net = mv.Network([layer, mv.Activation("tanh")] * 3)
    assert net.scaled(2).widths == [32] * 3
    assert [v.sigma_w2 for v in mutations.weight_gain(2.0)(net).layers[::2]] == [3.0] * 3


@pytest.mark.parametrize("between", [["tanh", "relu"], [0.5, "tanh"], ["tanh", 0.5, "tanh"]])
def test_what_theory_cannot_treat_is_refused_before_sampling(between):
    middle = [mv.Dropout(v) if isinstance(v, float) else mv.Activation(v) for v in between]
    net = mv.Network([mv.Dense(16, 16), *middle, mv.Dense(16, 16)])
    with pytest.raises(mv.Unpredictable, match="random map"):
        mv.verify(net)
    assert "chi" not in mv.simulate(net, with_gram(GRAM, 16), samples=4)


def test_mutations_change_only_what_they_say():
    net = mv.mlp(8, [16, 4], "tanh", 1.5, 0.1, keep=0.5)
    assert [mutations.weight_gain(2.0)(net).random_map(i).sigma_w2 for i in net.maps] == [3.0, 3.0]
    assert [mutations.fan_out_scaling(net).random_map(i).sigma_w2 for i in net.maps] == [0.75, 6.0]
    assert [mutations.no_bias(net).random_map(i).sigma_b2 for i in net.maps] == [0.0, 0.0]
    conv = mv.cnn((2, 5), [3, 4], "tanh", 1.5, 0.1)
    assert [mutations.weight_gain(2.0)(conv).random_map(i).sigma_w2 for i in conv.maps] == [3.0, 3.0]
    assert [mutations.fan_out_scaling(conv).random_map(i).sigma_w2 for i in conv.maps] == [3.0, 3.375]
    assert [mutations.no_bias(conv).random_map(i).sigma_b2 for i in conv.maps] == [0.0, 0.0]
    assert mutations.weights("uniform")(conv).layers[0].weights == "uniform"
    assert {v.padding for v in mutations.padding("zeros")(conv).layers[::2]} == {"zeros"}
    assert mutations.no_dropout(net).layers[2].keep == 1.0
    shared = mv.mlp(8, [16, 4], "tanh", keep=0.5, shared_masks=True)
    assert mutations.independent_masks(shared).layers[2] == mv.Dropout(0.5)
    block = mv.resnet(8, 16, 1, "tanh", scale=0.5).layers[1]
    assert mutations.branch_gain(4.0)(mv.Network([mv.Dense(8, 16), block])).layers[1] == mv.Residual(block.branch, 1.0)
    assert [mutations.unscaled_dropout(net).random_map(i).sigma_w2 for i in net.maps] == [1.5, 0.375]


def test_layers_that_count_at_a_fixed_point():
    """The growth of poole2016.c_fixed_point's corrections: Σ χ_c*^j over its layers, bounded, and not by twice."""
    claim, depth = poole2016.C_FIXED_POINT, 16
    chi_c = poole2016.phase_of(poole2016.CHAOTIC).chi_c
    counting = sum(chi_c**j for j in range(depth))
    assert len(claim.networks(16).maps) == depth
    assert counting <= claim.growth * depth < 1.5 * counting


@pytest.mark.slow
def test_corrections_at_a_fixed_point_grow_no_faster():
    """|c₂| ≤ g|c₁| and |c₃| ≤ g²|c₁|, g = 8, of correlations at layer 16 by NumPy alone: given Ĝ the units of a layer
    are independent Gaussian triples. Three standard errors of fits to seven widths."""
    claim, rng, depth, batch = poole2016.C_FIXED_POINT, np.random.default_rng(5), 16, 20_000
    sigma_w2, sigma_b2 = poole2016.CHAOTIC
    net = claim.networks(16)
    q = propagate(net, claim.inputs(net)).q
    limit = q[-1, 0, 1:] / np.sqrt(q[-1, 0, 0] * np.diagonal(q[-1])[1:])
    widths, mean, se = np.array([10, 12, 16, 20, 28, 40, 64]), [], []
    for n, batches in zip(widths, (20, 20, 15, 12, 9, 6, 4), strict=True):
        c = []
        for _ in range(batches):
            g = np.broadcast_to(q[0].astype(np.float32), (batch, 3, 3))
            for _ in range(depth - 1):
                root = np.linalg.cholesky(g + 1e-6 * np.eye(3, dtype=np.float32))
                x = np.tanh(root @ rng.standard_normal((batch, 3, n), dtype=np.float32))
                g = sigma_w2 * (x @ x.swapaxes(1, 2)) / n + sigma_b2
            c.append(g[:, 0, 1:] / np.sqrt(g[:, 0, :1] * np.diagonal(g, axis1=1, axis2=2)[:, 1:]))
        each = np.concatenate(c).astype(np.float64)
        mean.append(each.mean(axis=0) - limit)
        se.append(each.std(axis=0) / np.sqrt(len(each)))
    bound = claim.growth * depth
    for y, error in zip(np.array(mean).T, np.array(se).T, strict=True):
        powers = widths[:, None] ** -np.arange(1.0, 4) / error[:, None]
        spread = np.linalg.inv(powers.T @ powers)
        c = spread @ powers.T @ (y / error)
        off = 3 * np.sqrt(np.diagonal(spread))
        assert abs(c[1]) - off[1] <= bound * abs(c[0])
        assert abs(c[2]) - off[2] <= bound**2 * abs(c[0])


def test_the_gain_in_all_is_decided_where_no_single_layer_shows_it():
    """A tenth more variance in each of thirty linear layers: e^2.9 in all, and within a fifth in every one."""
    net, claimed = (mv.mlp(64, [64] * 30, "linear", sigma_w2) for sigma_w2 in (1.1, 1.0))
    assert "in_all" not in " ".join(ids(generic_claims(claimed, with_gram([[1.0]], 64), 0.2, 0)))
    claims = generic_claims(claimed, with_gram([[1.0]], 64), 0.2, 0, margin_in_all=1.5)
    claims = [c for c in claims if c.name.startswith(("network.length", "network.gradient"))]
    assert [(c.name, c.labels(claimed)) for c in claims[2:]] == [
        (f"network.{what}_in_all", ["layers 1 to 30"]) for what in ("length", "gradient")
    ]
    np.testing.assert_allclose([c.predict(claimed, c.inputs(claimed)) for c in claims[2:]], 0.0, atol=1e-12)
    assert [r.verdict for r in verification.run_claims(claims, budget=Budget(work=1e9)).results] == ["confirmed"] * 4
    wrong = verification.run_claims(claims, mutant=Mutant("", lambda _: net), budget=Budget(work=1e9))
    assert [r.verdict for r in wrong.results] == ["confirmed"] * 2 + ["refuted"] * 2
    told = departure(wrong, 0.2)
    assert told.startswith("No single layer departs by more than 20.00%, but all of them together: lengths by a factor")


@pytest.mark.parametrize(
    "net",
    [mv.mlp(32, [32] * 3, "relu", 2.0), mv.mlp(64, [64] * 12, "tanh", 4.0, 0.1), mv.resnet(32, 32, 4, "relu", 1.0)],
    ids=["relu", "chaotic tanh", "blocks"],
)
def test_the_planted_error_in_all_is_seen(net):
    """Whatever the margin of single layers is. A gain that all maps of a plain network have is none from first to
    last."""
    claims = generic_claims(net, with_gram([[1.0]], net.input_dim), 0.005, 0, margin_in_all=0.5)
    claims = [c for c in claims if c.name.endswith("_in_all")]
    assert len(claims) == 2
    for claim in claims:
        (mutant,) = claim.mutants
        (wrong,) = verification.run_claims([claim], mutant=mutant, budget=Budget(work=1e9)).results
        assert wrong.verdict == "refuted", claim.name


def test_a_self_test_leaves_out_an_engine_that_is_too_dear():
    wide = small(engine="auto", networks=lambda width: mv.mlp(width, [2048] * 4, "tanh"))
    assert too_dear(wide)
    assert [m.engine for m in neighbours(wide)] == []
    narrow = small(engine="auto")
    assert [m.engine for m in neighbours(narrow)] == ["explicit"]


def test_a_margin_in_all_must_be_positive():
    with pytest.raises(InputError, match="margin_in_all"):
        mv.verify(mv.mlp(4, [4] * 2, "tanh"), margin_in_all=0.0)


@pytest.mark.parametrize("blocks", [3, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["taki_100_blocks", "taki_100_blocks_he", "taki_100_blocks_bn"])
def test_takis_networks_are_verified(name, blocks):
    """His experiment's, and in the gate their first blocks."""
    text = (EXAMPLES / f"{name}.toml").read_text(encoding="utf-8")
    assert text.count("repeat = 100") == 1
    file = parse(tomllib.loads(text.replace("repeat = 100", f"repeat = {blocks}")), name)
    report = mv.verify(file.net, file.x, margin=file.margin, margin_in_all=file.margin_in_all)
    assert [r.message for r in report.results if r.verdict != "confirmed"] == []
    assert {"network.map", "network.correlation", "network.gradient_in_all"} < set(ids(report.results))
