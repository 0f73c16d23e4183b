"""Sampling: the same networks whatever the threads, chunks or backend; exact identities; mergeable moments."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mcverify as mv
from mcverify import results
from mcverify.claims import measures
from mcverify.correlation import mean_correlation
from mcverify.errors import InputError
from mcverify.inputs import with_gram
from mcverify.kernels import cpu, reference
from mcverify.random_map import explicit
from mcverify.simulation import executor, observables
from mcverify.simulation.moments import BLOCK, Moments
from mcverify.simulation.trace import Plan, trace
from mcverify.strategies import networks
from mcverify.streams import Role, stream_key
from mcverify.weights import LAWS

GRAM = [[1.0, 0.4], [0.4, 0.5]]


def a_plan(net, kernels=cpu, dtype="float64", **more):
    x = with_gram(GRAM, net.input_dim)
    return Plan(net, x, explicit.engine(kernels, np.dtype(dtype)), stream_key(7, "test"), **more)


def explicit_weights(plan, start, count):
    """The weight and bias matrices of every map, drawn one by one from their addresses."""
    t = trace(plan, start, count)
    out = []
    for record in t.maps:
        d = record.layer
        w = reference.draw(record.site, Role.WEIGHT, d.weights, d.fan_out, d.fan_in, plan.engine.dtype)
        b = reference.draw(record.site, Role.BIAS, "gaussian", 1, d.fan_out, plan.engine.dtype)[:, 0]
        out.append((w * np.sqrt(d.sigma_w2 / d.fan_in), b * np.sqrt(d.sigma_b2)))
    return t, out


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("kernels", [cpu, reference], ids=["cpu", "reference"])
def test_passes_against_plain_matrix_algebra(law, kernels):
    """Forward, tangent and backward of every replicate by W @ x, W @ dx and Wᵀ @ δ with stored matrices."""
    net = mv.mlp(6, [9, 5, 7], "tanh", 1.5, 0.2, law)
    plan = a_plan(net, kernels, tangents=3)
    t, weights = explicit_weights(plan, 3, 4)
    for r in range(4):
        h, dh = None, None
        x, dx = plan.x, t.tape[0].dx[r]
        slopes = []
        for (w, b), record in zip(weights, t.maps, strict=True):
            h, dh = x @ w[r].T + b[r], dx @ w[r].T
            np.testing.assert_allclose(record.y[r], h, rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(record.dy[r], dh, rtol=1e-12, atol=1e-12)
            slopes.append(1 - np.tanh(h) ** 2)
            x, dx = np.tanh(h), dh * slopes[-1]
        delta = t.maps[-1].gy[r, 0]
        for l in (1, 0):
            delta = (delta @ weights[l + 1][0][r]) * slopes[l]
            np.testing.assert_allclose(t.maps[l].gy[r, 0], delta, rtol=1e-11, atol=1e-13)


@settings(max_examples=25, deadline=None)
@given(
    net=networks(max_width=20).filter(lambda net: net.input_dim > 1),  # two inputs that are not parallel
    cotangent=st.sampled_from(["independent", "shared"]),
    start=st.integers(0, 10**9),
)
def test_tangents_and_cotangents_are_adjoint(net, cotangent, start):
    """Σ v·(J u) = Σ (Jᵀ v)·u, whatever the network."""
    t = trace(a_plan(net, tangents=1, cotangent=cotangent), start, 3)
    up = (t.tape[net.end - 1].dy * t.tape[net.end - 1].gy).sum(axis=(1, 2, 3))
    down = (t.tape[0].dx * t.gx).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(up, down, rtol=1e-9, atol=1e-12)


def test_without_a_cotangent_signals_are_the_same_and_nothing_is_pulled_back():
    net = mv.mlp(5, [8, 8], "tanh", 1.3, 0.1)
    both, forward = trace(a_plan(net), 3, 4), trace(a_plan(net, cotangent=None), 3, 4)
    np.testing.assert_array_equal(both.maps[-1].y, forward.maps[-1].y)
    assert both.maps[0].gy is not None
    assert all(record.gy is None for record in forward.tape)
    with pytest.raises(mv.InputError, match="cotangent"):
        mv.simulate(net, np.eye(2, 5), cotangent=None)


def test_tangents_are_derivatives():
    """Central differences of the sampled network along its tangent."""
    net = mv.mlp(5, [8, 8], "softplus", 1.3, 0.1)
    plan = a_plan(net, tangents=1)
    base = trace(plan, 0, 1)
    u, eps = base.tape[0].dx[0, 0], 1e-5
    up, down = (trace(replace(plan, x=plan.x + s * eps * u), 0, 1).maps[-1].y for s in (1, -1))
    np.testing.assert_allclose((up - down)[0] / (2 * eps), base.maps[-1].dy[0, 0], rtol=1e-7, atol=1e-9)


def test_weight_gradient_norm_identity():
    """‖∂E/∂W‖² for a batch is Σ_ab (δ_a·δ_b)(x_a·x_b), and for one input ‖δ‖²‖x‖²."""
    net = mv.mlp(6, [9, 5], "tanh", 1.5, 0.2)
    t = trace(a_plan(net), 0, 2)
    record = t.maps[1]
    delta, x = record.gy[:, 0], record.x
    by_matrix = (np.einsum("rbi,rbj->rij", delta, x) ** 2).sum(axis=(1, 2))
    by_gram = (observables.grad_gram(t)[:, 1] * cpu.gram(x, x)).sum(axis=(1, 2))
    np.testing.assert_allclose(by_matrix, by_gram, rtol=1e-12)


def a_grid(*taps, **given):
    return mv.Convolution((4, 3), 4, 4, taps, 1.3, 0.2, **given)


@pytest.mark.parametrize("block", [
    [mv.Activation("tanh"), a_grid(3, 2), mv.Activation("relu"), a_grid(2, 3, padding="zeros")],
    [mv.Activation("tanh"), a_grid(3, 3, weights="orthogonal"), a_grid(1, 1, weights="delta_orthogonal")],
    [mv.Residual([mv.Activation("relu"), a_grid(3, 3)], 0.7), mv.Residual([a_grid(2, 2), mv.BatchNorm(size=(4, 3))])],
], ids=["chain", "orthogonal", "blocks"])  # fmt: skip
def test_mean_correlations_are_those_of_all_pairs(block):
    """One weighted sum of columns against the matrix of their products."""
    net = mv.Network([mv.Convolution((4, 3), 2, 4, (3, 3)), *block])
    x = np.random.default_rng(1).normal(size=(3, 4, 3, 2))
    t = trace(Plan(net, x, explicit.engine(cpu, np.dtype("float64")), 7), 0, 5)
    pairs = [mean_correlation(g) for g in observables.metrics(t)[1:]]
    np.testing.assert_allclose(observables.mean_correlations(t), pairs, rtol=0, atol=1e-14)
    np.testing.assert_allclose(measures.correlations(t).T, pairs, rtol=0, atol=1e-14)


def test_observables_by_plain_sums():
    """Every observable from the signals on the tape, at unequal widths."""
    net = mv.mlp(6, [9, 5, 7], "tanh", 1.5, 0.2)
    t = trace(a_plan(net, tangents=2), 0, 3)
    fan_in, units = np.array([6, 9, 5]), np.array([9, 5, 7])
    each = "rci,rdi->rcd"
    for l, r in enumerate(t.maps):
        h, x, delta = r.y, np.broadcast_to(r.x, (3, *r.x.shape[1:])), r.gy[:, 0]
        for measured, by_hand in [
            (observables.q(t), np.einsum(each, h, h) / units[l]),
            (observables.metric(t), 0.2 + 1.5 * np.einsum(each, x, x) / fan_in[l]),
            (observables.length(t), (np.tanh(h) ** 2).mean(axis=-1)),
            (observables.chi(t), 1.5 * ((1 - np.tanh(h) ** 2) ** 2).mean(axis=-1)),
            (observables.grad_gram(t), np.einsum(each, delta, delta)),
            (observables.tangent_gram(t), np.einsum("rdai,reai->rade", r.dy, r.dy) / units[l]),
        ]:
            np.testing.assert_allclose(measured[:, l], by_hand, rtol=1e-12)


@pytest.mark.parametrize(("cotangent", "different"), [("independent", 2), ("shared", 1)])
def test_directions_have_unit_norm_and_are_those_asked_for(cotangent, different):
    """E‖v‖² = 1 for tangents and cotangents, to five standard errors, and no direction stands twice: but for the
    inputs' own cotangents, when they share one."""
    net, count = mv.mlp(6, [9, 8], "tanh", 1.5), 500
    t = trace(a_plan(net, tangents=3, cotangent=cotangent), 0, count)
    for v, rows in ((t.tape[0].dx, 3 * 2 * count), (t.maps[-1].gy, different * count)):
        units = v.shape[-1]
        apart = np.unique(v.reshape(-1, units), axis=0)
        assert len(apart) == rows
        assert abs((apart**2).sum(axis=1).mean() - 1) < 5 * np.sqrt(2 / units / rows)


def test_no_mask_stands_twice():
    """Masks of different layers, inputs and replicates: 64 fair coins each, so that none equals another."""
    net = mv.mlp(8, [64] * 4, "tanh", keep=0.5)
    t = trace(a_plan(net), 0, 20)
    masks = [r.saved for r in t.tape if isinstance(r.layer, mv.Dropout)]
    apart = np.unique(np.concatenate(masks, axis=1).reshape(-1, 64), axis=0)
    assert len(apart) == 3 * 2 * 20
    assert set(np.unique(apart)) == {0.0, 2.0}


def test_backends_sample_the_same_networks():
    """One layer agrees to float32 rounding; integers and uniforms are tested bit for bit elsewhere."""
    net = mv.mlp(40, [50, 30], "tanh", 1.5, 0.1)
    a, b = (trace(a_plan(net, k, "float32"), 5, 4) for k in (cpu, reference))
    np.testing.assert_allclose(a.maps[0].y, b.maps[0].y, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(observables.grad_gram(a), observables.grad_gram(b), rtol=2e-4, atol=1e-5)


def test_addresses_decide_and_nothing_else(monkeypatch):
    """Bit for bit: any threads, any chunking, any order."""
    net, x = mv.mlp(8, [12] * 3, "relu", 2.0, 0.1), with_gram(GRAM, 8)
    runs = [mv.simulate(net, x, samples=700, threads=t) for t in (1, 2, 3)]
    for size in (1, 7, 256):
        monkeypatch.setattr("mcverify.simulation.simulate.chunk_size", lambda *a, size=size: size)
        runs.append(mv.simulate(net, x, samples=700, threads=2))
    for run in runs[1:]:
        assert run.equals(runs[0])


def test_other_seeds_give_other_networks():
    net, x = mv.mlp(8, [12], "relu", 2.0), with_gram(GRAM, 8)
    one, two, same = (mv.simulate(net, x, samples=4, rng=r).q.values for r in (0, 1, np.int64(0)))
    assert not np.any(one[0] == two[0])
    assert np.array_equal(one, same)
    generator = mv.simulate(net, x, samples=4, rng=np.random.default_rng(3))
    assert generator.equals(mv.simulate(net, x, samples=4, rng=np.random.default_rng(3)))


def test_replicates_are_those_that_the_means_are_of():
    net, x = mv.mlp(8, [12, 6], "tanh", 1.5), with_gram(GRAM, 8)
    means, every = (mv.simulate(net, x, samples=50, tangents=2, replicates=r) for r in (False, True))
    for name in ("q", "metric", "chi", "length", "grad_norm2", "grad_gram", "tangent_gram"):
        assert every[name].dims[0] == "replicate"
        np.testing.assert_allclose(every[name].mean("replicate"), means[name], rtol=1e-12)
        se = every[name].std("replicate", ddof=1) / np.sqrt(50)
        np.testing.assert_allclose(se, means[f"{name}_se"], rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(every.length.var("replicate", ddof=1), means.length_var, rtol=1e-9)


def test_correlation_error_by_the_jackknife():
    net, x = mv.mlp(8, [12, 6], "tanh", 1.5), with_gram(GRAM, 8)
    means, every = (mv.simulate(net, x, samples=400, replicates=r) for r in (False, True))
    q = every.q.values
    left_out = (q.sum(axis=0) - q) / (len(q) - 1)
    c = left_out[:, :, 0, 1] / np.sqrt(left_out[:, :, 0, 0] * left_out[:, :, 1, 1])
    jackknife = np.sqrt((len(q) - 1) * c.var(axis=0))
    np.testing.assert_allclose(means.c_se.values[:, 0, 1], jackknife, rtol=0.05)


@pytest.mark.parametrize("engine", ["explicit", "conditional"])
def test_fresh_backward_weights_are_other_weights(engine):
    net, x = mv.mlp(8, [12, 6], "tanh", 1.5), with_gram(GRAM, 8)
    tied, fresh = (mv.simulate(net, x, 20, engine=engine, tied=t, replicates=True) for t in (True, False))
    assert np.array_equal(tied.q, fresh.q)
    assert not np.any(tied.grad_norm2[:, 0] == fresh.grad_norm2[:, 0])


def test_results_are_stored_and_read_back(tmp_path):
    net, x = mv.mlp(8, [12], "relu", 2.0), with_gram(GRAM, 8)
    run = mv.simulate(net, x, samples=4, rng=2**63 + 5)
    results.save(run, tmp_path / "r.nc")
    back = results.load(tmp_path / "r.nc")
    assert back.identical(run)
    assert back.attrs["seed"] == str(2**63 + 5)
    (tmp_path / "bad.nc").write_text("no")
    with pytest.raises(InputError, match="stored by mcverify"):
        results.load(tmp_path / "bad.nc")


def test_non_finite_replicates_are_counted():
    """sigma_w2 so large that float32 overflows: said, not averaged away."""
    net, x = mv.mlp(8, [12] * 3, "linear", 1e30), with_gram(GRAM, 8)
    run = mv.simulate(net, x, samples=8)
    assert run.attrs["nonfinite"] == 8
    assert not np.isfinite(run.q.values[-1]).any()


def test_large_values_wait_in_small_blocks_which_chunks_do_not_change():
    """What waits is bounded; a block is a function of one replicate's size, so that cuts still change nothing."""
    values = np.random.default_rng(0).normal(size=(13, 1 << 20))  # eight megabytes a replicate: blocks of four
    every, single = Moments(), Moments()
    every.add(values)
    for value in values:
        single.add(value[None])
        assert sum(map(len, single._pending)) < 4
    for one, other in ((every.finish().mean, single.finish().mean), (every.variance, single.variance)):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(every.variance, values.var(axis=0, ddof=1), rtol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 2 * BLOCK), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_moments_do_not_depend_on_the_cut(cuts, random):
    values = np.random.default_rng(random.getrandbits(32)).normal(3, 2, (sum(cuts), 2))
    whole, pieces = Moments(), Moments()
    whole.add(values)
    at = 0
    for n in cuts:
        pieces.add(values[at : at + n])
        at += n
    whole.finish()
    pieces.finish()
    assert np.array_equal(whole.mean, pieces.mean)
    assert np.array_equal(whole.squares, pieces.squares)
    np.testing.assert_allclose(whole.mean, values.mean(axis=0))
    if len(values) > 1:
        np.testing.assert_allclose(whole.variance, values.var(axis=0, ddof=1))


@given(st.integers(0, 50), st.integers(1, 60), st.integers(1, 20), st.integers(1, 4))
def test_chunks_cover_every_replicate_in_order(start, total, chunk, threads):
    seen = []
    for n, (s, count) in executor.in_chunks(lambda s, c: (s, c), start, total, chunk, threads):
        assert n == count
        seen += range(s, s + count)
    assert seen == list(range(start, start + total))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"samples": 1}, "samples"),
        ({"samples": 2.5}, "samples"),
        ({"rng": -1}, "rng"),
        ({"rng": "zero"}, "rng"),
        ({"engine": "fast"}, "engine"),
        ({"backend": "gpu"}, "backend"),
        ({"dtype": "float16"}, "dtype"),
        ({"threads": 0}, "threads"),
        ({"cotangent": "both"}, "cotangent"),
        ({"cotangent": np.ones((2, 3))}, "cotangent"),
        ({"tangents": -1}, "tangents"),
    ],
)
def test_bad_options_start_nothing(options, field):
    with pytest.raises(InputError) as caught:
        mv.simulate(mv.mlp(8, [12], "relu"), with_gram(GRAM, 8), **options)
    assert caught.value.field == field
