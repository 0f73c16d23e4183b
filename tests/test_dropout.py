"""Dropout: masks for each input, and masks that inputs share, against enumeration and sampled networks."""

from __future__ import annotations

import itertools
import tomllib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

import mcverify as mv
from mcverify.errors import InputError
from mcverify.inputs import checked, with_gram
from mcverify.kernels.backends import backend
from mcverify.layers.dropout import Dropout
from mcverify.network import describe
from mcverify.network_file import dumps, parse
from mcverify.random_map import explicit
from mcverify.simulation.trace import Plan, trace
from mcverify.streams import Site, stream_key
from mcverify.theory.diagnosis import diagnose, hidden_layers
from mcverify.theory.propagation import propagate

CPU = backend("cpu")[1]
ENGINE = explicit.engine(CPU, np.dtype(np.float64))
X = np.array([[1.0, -2.0, 0.5], [0.3, 1.0, 1.5]])


# ---- the definition ---------------------------------------------------------------------------------------


@given(st.booleans(), st.integers(1, 3))
def test_a_mask_for_each_column_or_one_for_all(shared, count):
    x = np.random.default_rng(1).normal(size=(count, 5, 40))
    y, saved = Dropout(0.5, shared).forward(ENGINE, x, Site(stream_key(3), 2, 7, count))
    kept = y / x
    assert set(np.unique(kept)) == {0.0, 2.0}
    different = len(np.unique(kept.reshape(-1, 40), axis=0))
    assert different == (count if shared else 5 * count)
    d = np.random.default_rng(2).normal(size=(count, 2, 5, 40))
    for passed in (Dropout(0.5, shared).tangent, Dropout(0.5, shared).backward):
        np.testing.assert_array_equal(passed(ENGINE, saved, d), d * kept[:, None])


def test_shared_masks_differ_between_layers_and_networks():
    net = mv.mlp(3, [64] * 4, "tanh", keep=0.5, shared_masks=True)
    t = trace(Plan(net, X, ENGINE, stream_key(7)), 0, 20)
    masks = [r.saved.reshape(20, 64) for r in t.tape if isinstance(r.layer, Dropout)]
    assert len(np.unique(np.concatenate(masks), axis=0)) == 3 * 20


# ---- theory -----------------------------------------------------------------------------------------------


def enumerated(shared):
    """E h³_a · h³_b / 2 and E δ¹_a · δ¹_b of a linear 3-2-2-2 network with σ_w² = 1.5: a sum over all masks of two
    layers, each with its own paths, E W_ij W_kl being σ_w²/fan_in for the same weight and 0 otherwise."""
    keep, variance = 0.7, (1.5 / 3, 1.5 / 2, 1.5 / 2)
    bits = 4 if shared else 8
    q, g = np.zeros((2, 2)), np.zeros((2, 2))
    for m in itertools.product((0, 1), repeat=bits):
        p = np.prod([keep if b else 1 - keep for b in m])
        masks = np.array(m).reshape(2, 1 if shared else 2, 2) / keep * np.ones((2, 2, 2))  # (layer, input, unit)
        for a, b in itertools.product(range(2), repeat=2):
            through = [masks[l, a] @ masks[l, b] for l in range(2)]
            q[a, b] += p * (X[a] @ X[b]) * np.prod(variance) * np.prod(through)
            # One cotangent for both, of unit norm: 1/2 on each of two units; h¹ → mask → W² → mask → W³.
            g[a, b] += p * variance[1] * variance[2] * np.prod(through)
    return q, g


@pytest.mark.parametrize("shared", [False, True])
def test_linear_networks_are_the_sum_over_all_masks(shared):
    net = mv.mlp(3, [2, 2], "linear", 1.5, keep=0.7, shared_masks=shared, readout=2)
    p = mv.predict(net, X, cotangent="shared")
    q, g = enumerated(shared)
    np.testing.assert_allclose(p.q[2], q, rtol=1e-13)
    np.testing.assert_allclose(p.grad_gram[0], g, rtol=1e-13)
    assert (p.q_mark == "exact").all()
    assert (p.grad_gram_mark == "exact").all()


@pytest.mark.parametrize("phi", ["relu", "tanh", "linear"])
def test_what_is_marked_exact_under_a_shared_mask_is_so_at_small_width(phi):
    """Alive with keep 0.9 and eight units but once in ten million networks."""
    net = mv.mlp(3, [8, 8], phi, 1.5, 0.1, keep=0.9, shared_masks=True, readout=3)
    p = mv.predict(net, X, cotangent="shared")
    m = mv.simulate(net, X, samples=40_000, rng=3, cotangent="shared")
    z = []
    for name in ("q", "length", "grad_gram"):
        at = p[f"{name}_mark"].values == "exact"
        z.append(np.abs((m[name] - p[name]).values / np.maximum(m[f"{name}_se"].values, 1e-9))[at])
    z = np.concatenate(z)
    assert len(z) > 8
    assert z.max() < norm.isf(1e-4 / 2 / len(z))


def test_equal_inputs_stay_equal_under_a_shared_mask_alone():
    same = np.stack([X[0], X[0]])
    for shared in (False, True):
        c = mv.predict(mv.mlp(3, [64] * 6, "tanh", 1.5, 0.05, keep=0.8, shared_masks=shared), same).c[-1, 0, 1]
        assert (abs(float(c) - 1) < 1e-12) is shared


def test_a_shared_mask_is_a_larger_sigma_w2():
    """All moments are those of σ_w²/ρ without dropout, the first map and its bias apart."""
    a = propagate(mv.mlp(3, [8] * 5, "erf", 1.5, 0.1, keep=0.8, shared_masks=True), X, "shared")
    layers = mv.mlp(3, [8] * 5, "erf", 1.5 / 0.8, 0.1).layers
    b = propagate(mv.Network([mv.Dense(3, 8, 1.5, 0.1), *layers[1:]]), X, "shared")
    np.testing.assert_allclose(a.q, b.q, rtol=1e-13)
    np.testing.assert_allclose(a.grad_gram, b.grad_gram, rtol=1e-13)
    net = mv.mlp(3, [8] * 5, "erf", 1.5, 0.1, keep=0.8, shared_masks=True)
    assert hidden_layers(net) == [(net.layers[1].phi, 1.5 / 0.8, 0.1, 1.0)]
    assert not any("instead of" in line for line in diagnose(net, propagate(net, checked(X, (3,)))))


@pytest.mark.parametrize("shared", [False, True])
def test_channels_masked_on_a_circle(shared):
    """The stationary form against the whole one; what is exact, against sampled networks."""
    conv = [mv.Convolution((4,), a, 3, (3,), 1.4, 0.1) for a in (2, 3)]
    net = mv.Network([conv[0], mv.Activation("relu"), mv.Dropout(0.8, shared), conv[1]])
    angle = np.arange(4) * np.pi / 2
    x = np.array([1.0, 0.6])[:, None, None] * np.stack([np.cos(angle), np.sin(angle)])  # covariances cos(d π/2)/2
    cov = np.outer([1.0, 0.6], [1.0, 0.6])[:, :, None] * np.cos(angle) / 2
    p, s = mv.predict(net, x), mv.predict_stationary(net, cov)
    displaced = s.q_displaced.values  # (layer, input, input_2, displacement)
    for d in range(4):
        np.testing.assert_allclose(p.q.values[:, :, 0, :, d], displaced[..., d], rtol=1e-12)
    np.testing.assert_allclose(p.grad_gram, s.grad_gram, rtol=1e-12)
    m = mv.simulate(net, x, samples=20_000, rng=5)
    z = ((m.q - p.q) / m.q_se).values[:, :, :1]
    assert np.abs(z).max() < norm.isf(1e-4 / 2 / z.size)


# ---- as values, and what is refused -----------------------------------------------------------------------


def test_shared_masks_are_told_and_written():
    net = mv.mlp(3, [4, 4], "tanh", keep=0.8, shared_masks=True)
    assert "dropout keep 0.8 shared" in describe(net)
    assert "shared_masks=True" in repr(net)
    assert eval(repr(net), vars(mv) | {"mlp": mv.mlp}) == net
    assert "shared = true" in dumps(net)
    assert parse(tomllib.loads(dumps(net))).net.layers == net.layers
    table = {"input_dim": 3, "widths": [4, 4], "activation": "tanh", "keep": 0.8, "shared_masks": True}
    assert parse({"network": table}).net.layers == net.layers


@pytest.mark.parametrize("value", [1, "yes", None])
def test_shared_is_true_or_false(value):
    with pytest.raises(InputError, match=r"shared: got .*; must be true or false"):
        mv.Dropout(0.5, value)


def test_verify_takes_cross_terms_with_their_own_masks():
    net = mv.mlp(16, [24, 24, 24], "erf", 1.5, 0.1, keep=0.7, shared_masks=True)
    report = mv.verify(net, with_gram([[1.0, 0.5], [0.5, 1.0]], 16), margin=0.05, rng=1)
    step = {r.name: r.verdict for r in report.results}
    assert step["network.one_step_c"] == step["network.one_step_q"] == "confirmed"
