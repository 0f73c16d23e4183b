"""Residual blocks: the definition, the identity block exactly, and what is refused."""

from __future__ import annotations

import tomllib

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

import mcverify as mv
from mcverify.claims.generic import generic_claims
from mcverify.cli import main
from mcverify.errors import InputError, Unpredictable
from mcverify.inputs import checked
from mcverify.kernels.backends import backend
from mcverify.layers import chain
from mcverify.network import describe
from mcverify.network_file import dumps, parse
from mcverify.random_map import explicit
from mcverify.simulation import observables
from mcverify.simulation.simulate import choose_engine
from mcverify.simulation.trace import Plan, trace
from mcverify.streams import Role, Site, stream_key
from mcverify.verification import run_claims

CPU = backend("cpu")[1]
X = np.random.default_rng(5).normal(size=(2, 4))


def blocks(n, phi, number=3, scale=1.0, sigma_w2=0.5, sigma_b2=0.1):
    """A stem, blocks x + scale · W φ(x), and a readout."""
    block = mv.Residual([mv.Activation(phi), mv.Dense(n, n, sigma_w2, sigma_b2)], scale)
    return mv.Network([mv.Dense(4, n, 1.5, 0.2), *[block] * number, mv.Dense(n, 3)])


def worst(p, m, names=("q", "length", "grad_norm2", "grad_gram"), mark="exact"):
    """The largest |z| over entries of that mark, and the bound that chance passes once in ten thousand runs."""
    z = []
    for name in names:
        at = p[f"{name}_mark"].values == mark
        z.append(np.abs((m[name] - p[name]).values / np.maximum(m[f"{name}_se"].values, 1e-6))[at])
    z = np.concatenate(z)
    assert len(z) > 10
    return z.max(), norm.isf(1e-4 / 2 / len(z))


# ---- the definition -------------------------------------------------------------------------------------


@given(st.sampled_from([0.3, 1.0]), st.integers(1, 2))
def test_a_sampled_block_is_the_trunk_and_its_branch(scale, count):
    """Against the weights at the addresses: sites of inner layers follow one another."""
    block = mv.Residual([mv.Dense(4, 5, 1.5, 0.3), mv.Activation("tanh"), mv.Dense(5, 4, 0.7)], scale)
    site, engine = Site(stream_key(7), 4, 10, count), explicit.engine(CPU, np.dtype(np.float64))
    y, saved = block.forward(engine, X[None], site)
    inner, outer = site, site.above(2)  # the activation between them has a site of its own
    w = CPU.draw(inner, Role.WEIGHT, "gaussian", 5, 4, np.float64) * np.sqrt(1.5 / 4)
    b = CPU.draw(inner, Role.BIAS, "gaussian", 1, 5, np.float64) * np.sqrt(0.3)
    v = CPU.draw(outer, Role.WEIGHT, "gaussian", 4, 5, np.float64) * np.sqrt(0.7 / 5)
    h = X @ w.swapaxes(1, 2) + b
    np.testing.assert_allclose(y, X + scale * np.tanh(h) @ v.swapaxes(1, 2), atol=1e-12)

    dx = np.random.default_rng(1).normal(size=(count, 2, 2, 4))
    dy = block.tangent(engine, saved, dx)
    slope = (1 - np.tanh(h) ** 2)[:, None]
    wanted = dx + scale * (slope * (dx @ w.swapaxes(1, 2)[:, None])) @ v.swapaxes(1, 2)[:, None]
    np.testing.assert_allclose(dy, wanted, atol=1e-12)
    d = np.random.default_rng(2).normal(size=(count, 2, 2, 4))
    assert (block.backward(engine, saved, d) * dx).sum() == pytest.approx((d * dy).sum())
    assert block.sites == 3


def test_the_metric_is_the_mean_of_the_sum_given_the_layer_below():
    """‖x‖²/n + scale² Ĝ of the last map: q/Ĝ has mean one at every width."""
    net = blocks(6, "tanh", scale=0.7)
    engine, _ = choose_engine("explicit", "auto", "float64", net, 2)
    t = trace(Plan(net, checked(X, net.input_shape), engine, stream_key(3)), 0, 20_000)
    ratio = np.diagonal(observables.q(t) / observables.metric(t), axis1=2, axis2=3)
    z = (ratio.mean(axis=0) - 1) / (ratio.std(axis=0) / np.sqrt(len(ratio)))
    assert np.abs(z).max() < norm.isf(1e-4 / 2 / z.size)


# ---- theory ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["explicit", "conditional"])
def test_identity_blocks_are_exact_at_width_two(engine):
    """q_L = q_0 (1 + scale² σ_w²)^L + what biases add, and gradients by the same factor (Taki 2017, §2)."""
    net = blocks(2, "linear", scale=0.8)
    p = mv.predict(net, X)
    for name in ("q", "length", "grad_norm2", "grad_gram"):
        assert (p[f"{name}_mark"].values == "exact").all()
    gain = 1 + 0.8**2 * 0.5
    q = p.q.values[:4, 0, 0]
    np.testing.assert_allclose(q[1:], q[:-1] * gain + 0.8**2 * 0.1, rtol=1e-13)
    g = p.grad_norm2.values[:4, 0]
    np.testing.assert_allclose(g[:-1], g[1:] * gain, rtol=1e-13)
    z, bound = worst(p, mv.simulate(net, X, samples=20_000, engine=engine, rng=2))
    assert z < bound


@pytest.mark.parametrize("phi", ["relu", "tanh"])
def test_what_is_marked_exact_is_so_at_width_three(phi):
    """Above a block nothing is Gaussian at finite width, not even sign-symmetric: the second one's length is a limit,
    and is measurably off it for ReLU."""
    net = blocks(3, phi, sigma_w2=2.0)
    p, m = mv.predict(net, X), mv.simulate(net, X, samples=40_000, rng=4)
    z, bound = worst(p, m)
    assert z < bound
    assert list(p.length_mark.values[:, 0]) == ["exact", "exact", "limit", "limit", "limit"]
    assert (p.grad_norm2_mark.values[:3] == "limit").all()


def test_a_rectifier_above_a_map_above_a_block_leaves_its_gradient_exact():
    """Rows of the map between are sign-symmetric, so that δ is isotropic given all that lies below."""
    block = mv.Residual([mv.Dense(3, 3, 0.7, 0.1)], 0.8)
    net = mv.Network([mv.Dense(4, 3), block, mv.Dense(3, 3, 1.3, 0.1), mv.Activation("relu"), mv.Dense(3, 2)])
    p = mv.predict(net, X)
    assert (p.grad_norm2_mark.values == "exact").all()
    z, bound = worst(p, mv.simulate(net, X, samples=40_000, rng=7))
    assert z < bound


@pytest.mark.parametrize("phi", ["relu", "tanh"])
def test_the_limit_is_reached_as_width_grows(phi):
    """Within 1/width times a constant of order one, and six standard errors."""
    net = blocks(256, phi, number=4, sigma_w2=1.0)
    p, m = mv.predict(net, X), mv.simulate(net, X, samples=2000, rng=5)
    for name in ("length", "grad_norm2"):
        off = np.abs(m[name] / p[name] - 1)
        assert (off < 20 / 256 + 6 * m[f"{name}_se"] / p[name]).all()
    assert abs(float(m.length[4, 0] / m.length[3, 0]) - 1) > 0.2 or phi == "tanh"


def test_a_block_of_convolutions_between_convolutions():
    size, x = (3, 4), np.random.default_rng(3).normal(size=(2, 2, 3, 4))
    conv = mv.Convolution(size, 3, 3, (3, 2), 0.6, 0.1, padding="zeros")
    stem = mv.Convolution(size, 2, 3, (3, 3), 1.2, 0.1)
    top = [mv.GlobalAveragePool(size), mv.Dense(3, 2)]
    linear = mv.Network([stem, mv.Residual([mv.Activation("linear"), conv, conv], 0.9), *top])
    p = mv.predict(linear, x)
    assert (p.grad_norm2_mark.values == "exact").all()
    z, bound = worst(p, mv.simulate(linear, x, samples=20_000, rng=6), ("gram", "length", "grad_norm2", "grad_gram"))
    assert z < bound


def test_verify_follows_a_residual_network():
    net = blocks(96, "tanh", sigma_w2=0.6)
    claims = generic_claims(net, checked(X, net.input_shape), 0.05, 1e9)
    report = run_claims([c for c in claims if ".limit." not in c.name])
    assert {r.name: r.verdict for r in report.results} == {r.name: "confirmed" for r in report.results}
    followed = ("map", "length", "gradient", "correlation")
    assert {f"network.{name}" for name in followed} <= {r.name for r in report.results}


# ---- what is refused -------------------------------------------------------------------------------------


def test_a_branch_that_is_correlated_with_its_trunk_is_refused():
    net = mv.Network([mv.Dense(4, 6), mv.Residual([mv.Dense(6, 6), mv.Activation("relu")])])
    with pytest.raises(Unpredictable, match="ends in activation, so that it is correlated with the trunk"):
        mv.predict(net, X)
    assert np.isfinite(mv.simulate(net, X, samples=4).length).all()
    after = mv.Network([mv.Dense(4, 6), mv.Activation("relu"), mv.Residual([mv.Dense(6, 6)]), mv.Activation("relu")])
    with pytest.raises(Unpredictable, match="not Gaussian"):  # the trunk is a rectified one
        mv.predict(after, X)


def test_bad_input_gets_one_line():
    with pytest.raises(InputError, match=r"branch: got \(5,\); must give back the shape \(4,\)"):
        mv.Network([mv.Dense(4, 4), mv.Residual([mv.Dense(4, 5)])])
    with pytest.raises(InputError, match=r"branch: .*must hold a random map"):
        mv.Residual([mv.Activation("tanh")])
    with pytest.raises(InputError, match=r"branch\[0\]"):
        mv.Residual(["tanh"])
    with pytest.raises(InputError, match="scale: got 0; must be a finite number above 0"):
        mv.Residual([mv.Dense(4, 4)], 0)


def test_what_is_no_list_of_layers_or_repeats_without_end_gets_one_line():
    for branch in (None, mv.Dense(4, 4), "dense"):
        with pytest.raises(InputError, match=r"branch: .*must be a list of layers"):
            mv.Residual(branch)
    table = {"type": "dense", "fan_in": 4, "fan_out": 4}
    with pytest.raises(InputError, match=r"layer\[0\].repeat: got 1000000000000; must be at most 100,000"):
        parse({"layer": [table | {"repeat": 10**12}]})
    with pytest.raises(InputError, match=r"layer\[0\].type"):
        parse({"layer": [table | {"type": ["dense"]}]})


# ---- as values --------------------------------------------------------------------------------------------


def test_blocks_widen_are_told_and_written():
    net = blocks(6, "tanh", number=2, scale=0.5)
    assert net.scaled(3).widths == [18, 18, 18, 9]
    assert "2 × (x + 0.5 × [(tanh) → (dense 6" in describe(net)
    assert eval(repr(net), vars(mv) | {n: getattr(mv, n) for n in mv.__all__}).layers == net.layers
    assert parse(tomllib.loads(dumps(net))).net.layers == net.layers
    inner = chain.propagate(net.layers[:2], chain.State.of_inputs(checked(X, (4,))))[-1]
    np.testing.assert_allclose(inner.cov, mv.predict(net, X).q[1])


def test_simulate_tells_of_blocks_beside_theory_and_without_it(tmp_path):
    """χ is of chains alone: neither side has it; where theory has no answer the measured means stand alone."""
    assert "chi" not in mv.predict(blocks(6, "tanh"), X)
    assert "chi" not in mv.simulate(blocks(6, "tanh"), X, samples=4)
    refused = mv.Network([mv.Dense(4, 6), mv.Residual([mv.Dense(6, 6), mv.Activation("relu")])])
    for network, told in ((blocks(6, "tanh"), ""), (refused, "Theory has no answer: residual: the branch ends in")):
        path = tmp_path / "net.toml"
        path.write_text(dumps(network))
        run = CliRunner().invoke(main, ["simulate", str(path), "--samples", "16"])
        assert run.exit_code == 0, run.output
        assert told in " ".join(run.output.split())
        assert "16 networks" in run.output


@pytest.mark.parametrize(
    ("branch", "field"),
    [
        ("[[layer.branch]]\ntype='dense'\nfan_in=5\nfan_out=4", "layer[1].branch[0].fan_in"),
        ("[[layer.branch]]\ntype='dense'\nfan_in=4\nfan_out=5", "layer[1].branch"),
        ("[[layer.branch]]\ntype='dense'\nfan_in=4\nfan_out=4\n[[layer.branch]]\ntype='batchnorm'\nsize=[2]",
         "layer[1].branch[1].size"),
        ("[[layer.branch]]\ntype='dense'\nfan_in=4\nfan_out=4\nsigma_w2=-1", "layer[1].branch[0].sigma_w2"),
    ],
)  # fmt: skip
def test_errors_in_a_file_name_the_table_however_deep(branch, field):
    """A block that is repeated stands in one table, the second of the file."""
    text = f"[[layer]]\ntype='dense'\nfan_in=3\nfan_out=4\n[[layer]]\ntype='residual'\nrepeat=3\n{branch}\n"
    with pytest.raises(InputError) as caught:
        parse(tomllib.loads(text))
    assert caught.value.field == field
