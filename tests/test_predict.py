"""Predictions against tables derived apart from this code (tests/known_answers), and the marks they carry."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mcverify as mv
from mcverify.inputs import with_gram
from mcverify.layers.layer import State
from mcverify.strategies import networks
from mcverify.theory.diagnosis import diagnose
from mcverify.theory.propagation import propagate

GRAM = [[1.0, 0.4], [0.4, 0.5]]


def matrix(pairs):
    return np.array([[float(pairs["aa"]), float(pairs["ab"])], [float(pairs["ab"]), float(pairs["bb"])]])


def with_masks_below_the_readout(phi, sigma_w2, sigma_b2, keep):
    """Seven maps, masks between the first six alone: δ^7 = v makes δ^6 gain σ_w² over a cotangent on x^6."""
    layers = [mv.Dense(4, 4, sigma_w2, sigma_b2), mv.Activation(phi)]
    for _ in range(5):
        layers += [mv.Dropout(keep)] * (keep < 1) + [mv.Dense(4, 4, sigma_w2, sigma_b2), mv.Activation(phi)]
    return mv.Network([*layers, mv.Dense(4, 4, sigma_w2, sigma_b2)])


def test_finite_depth_known_answers(known_answers):
    """q, E φφ and gradient Grams of every tabulated case to 1e-10."""

    def case(r):
        return r["activation"], float(r["sigma_w2"]), float(r["sigma_b2"]), float(r["keep_probability"])

    seen = 0
    for (phi, sigma_w2, sigma_b2, keep), rows in groupby(known_answers("finite_depth"), case):
        net = with_masks_below_the_readout(phi, sigma_w2, sigma_b2, keep)
        x = with_gram(GRAM, 4)
        shared, independent = (propagate(net, x, c) for c in ("shared", "independent"))
        for r in rows:
            l = r["layer"] - 1
            np.testing.assert_allclose(shared.q[l], matrix(r["q"]), rtol=1e-10)
            np.testing.assert_allclose(shared.length[l], np.diag(matrix(r["E_phi_phi"])), rtol=1e-10)
            np.testing.assert_allclose(shared.grad_gram[l], sigma_w2 * matrix(r["grad_gram_shared"]), rtol=1e-10)
            np.testing.assert_allclose(
                independent.grad_gram[l], sigma_w2 * matrix(r["grad_gram_independent"]), rtol=1e-10, atol=1e-15
            )
            seen += 1
    assert seen == 30


def test_depth_to_fixed_point_known_answers(known_answers):
    for r in known_answers("depth_to_fixed_point"):
        sigma_w2, sigma_b2, q_1 = (float(r[k]) for k in ("sigma_w2", "sigma_b2", "q_1"))
        net = mv.mlp(4, [4] * len(r["trajectory"]), r["activation"], sigma_w2, sigma_b2)
        p = mv.predict(net, with_gram([[(q_1 - sigma_b2) / sigma_w2]], 4))
        np.testing.assert_allclose(p.q.values[:, 0, 0], [float(t["q"]) for t in r["trajectory"]], rtol=1e-9)
        np.testing.assert_allclose(p.chi.values[:, 0], [float(t["chi"]) for t in r["trajectory"]], rtol=1e-9)


def test_linear_network_means_are_exact_at_finite_width(known_answers):
    """Path sums by enumeration: E q^l and gradient Grams of linear networks of widths 1 to 3."""
    for r in known_answers("linear_path_sums"):
        if r["kind"] != "linear":
            continue
        n0, *widths = r["widths"]
        net = mv.mlp(n0, widths, "linear", float(r["sigma_w2"]), float(r["sigma_b2"]))
        p = mv.predict(net, np.array(r["inputs"], float), cotangent=np.array(r["cotangents"], float))
        l = r["layer"]
        np.testing.assert_allclose(p.q.sel(layer=l), matrix(r["E_q"]), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(p.grad_gram.sel(layer=l), matrix(r["E_grad_gram"]), rtol=1e-12, atol=1e-12)
        assert (p.q_mark == "exact").all()
        assert (p.grad_gram_mark == "exact").all()


def test_sampled_linear_networks_have_the_enumerated_moments(known_answers):
    """Means and variances of q and gradient Grams at widths 1 to 3, where no limit helps: |z| < 6 each
    (some 100 comparisons of means of 40,000; the worst tail here is a product of three χ²₁)."""

    def case(r):
        return [r.get(k) for k in ("kind", "widths", "sigma_w2", "sigma_b2", "inputs", "cotangents")]

    worst = 0.0
    for _, group in groupby(known_answers("linear_path_sums"), case):
        rows = list(group)
        if rows[0]["kind"] != "linear":
            continue
        first = rows[0]
        n0, *widths = first["widths"]
        net = mv.mlp(n0, widths, "linear", float(first["sigma_w2"]), float(first["sigma_b2"]))
        run = mv.simulate(
            net, np.array(first["inputs"], float), samples=40_000, cotangent=np.array(first["cotangents"], float),
            replicates=True, dtype="float64",
        )  # fmt: skip
        for r in rows:
            for name, mean, var in (("q", "E_q", "var_q"), ("grad_gram", "E_grad_gram", "var_grad_gram")):
                values = run[name].sel(layer=r["layer"]).values
                for a, b, key in ((0, 0, "aa"), (0, 1, "ab"), (1, 1, "bb")):
                    v, m, s2 = values[:, a, b], float(r[mean][key]), float(r[var][key])
                    if s2 == 0:
                        np.testing.assert_allclose(v, m, rtol=1e-12)
                        continue
                    worst = max(worst, abs(v.mean() - m) / np.sqrt(s2 / len(v)))
                    square = (v - m) ** 2
                    worst = max(worst, abs(square.mean() - s2) / (square.std() / np.sqrt(len(v))))
    assert 0 < worst < 6


def test_second_moment_of_he_relu_lengths(known_answers):
    """E M_L² = M_0² Π(1 + 5/n): sampled at small widths, |z| < 5."""
    for r in known_answers("linear_path_sums"):
        if r["kind"] != "relu_he_M2" or max(r["widths"]) > 16:
            continue
        net = mv.mlp(4, r["widths"], "relu", 2.0)
        run = mv.simulate(net, with_gram([[1.0]], 4), samples=20_000, replicates=True)
        m2 = run.length.values[:, -1, 0] ** 2
        product = np.prod([1 + 5 / n for n in r["widths"]])
        assert abs(m2.mean() - product) < 5 * m2.std() / np.sqrt(len(m2))


def stack(*phis):
    """Maps of width 8 without biases, an activation after each."""
    layers = [mv.Dense(4, 8, 2.0), *[mv.Dense(8, 8, 2.0)] * (len(phis) - 1)]
    return mv.Network([v for pair in zip(layers, map(mv.Activation, phis), strict=True) for v in pair])


@pytest.mark.parametrize(
    ("net", "exact_q", "exact_gradient"),
    [
        (mv.mlp(4, [8] * 3, "tanh", 1.5, 0.1), [1, 1, 0], [0, 0, 1]),
        (mv.mlp(4, [8] * 3, "relu", 1.5, 0.1), [1, 1, 1], [1, 1, 1]),
        (mv.mlp(4, [8] * 3, "relu", 2.0, 0.0, "uniform"), [1, 1, 1], [0, 0, 1]),
        (mv.mlp(4, [8] * 3, "tanh", 1.5, 0.1, "uniform"), [1, 0, 0], [0, 0, 1]),
        (mv.mlp(4, [8] * 3, "relu", 2.0, 0.0), [1, 1, 1], [0, 0, 1]),  # a dead layer has no coins above it
        (mv.mlp(4, [8] * 3, "leaky_relu(0.1)", 2.0), [1, 1, 1], [1, 1, 1]),
        (mv.mlp(4, [8] * 3, "leaky_relu(0.1)", 2.0, 0.0, keep=0.5), [1, 1, 1], [0, 0, 1]),
        (stack("tanh", "tanh", "relu", "relu"), [1, 1, 0, 0], [0, 0, 1, 1]),  # what is lost is not found again
        (stack("relu", "leaky_relu(0.1)", "leaky_relu(0.1)", "leaky_relu(0.1)"), [1, 1, 1, 1], [0, 0, 0, 1]),
    ],
)
def test_marks(net, exact_q, exact_gradient):
    p = mv.predict(net, with_gram(GRAM, 4))
    assert [m == "exact" for m in p.q_mark.values[:, 0, 0]] == [bool(e) for e in exact_q]
    assert [m == "exact" for m in p.grad_norm2_mark.values[:, 0]] == [bool(e) for e in exact_gradient]


@pytest.mark.parametrize("keep", [1.0, 0.7])
def test_gradient_norms_gain_chi(keep):
    """E‖δ^l‖² = χ^l E‖δ^{l+1}‖² whatever the widths (Schoenholz et al. 2017, eq. 12; §5 for dropout)."""
    net = mv.mlp(4, [8, 5, 9], "tanh", 1.5, 0.1, keep=keep)
    p = mv.predict(net, with_gram(GRAM, 4))
    norms = p.grad_norm2.values
    np.testing.assert_allclose(norms[:-1] / norms[1:], p.chi.values[:-1], rtol=1e-10)


def test_gradients_in_words():
    """Five maps, four gains: He's ReLU network off by a tenth gains 10% a layer."""
    net = mv.mlp(4, [8] * 5, "relu", 2.2)
    told = " ".join(diagnose(net, propagate(net, with_gram([[1.0]], 4))))
    assert "changes by a factor 1.46, +10.00% per layer on average" in told


def test_marked_exact_means_exact_at_width_two():
    """Every entry marked exact, at widths where the limit is far off: |z| < 5; and unmarked ones do differ."""
    far = 0.0
    rows = [("relu", "gaussian"), ("leaky_relu(0.3)", "uniform"), ("tanh", "gaussian"), ("linear", "orthogonal")]
    for phi, law in [*rows, ("relu", "biasless"), ("leaky_relu(0.3)", "biasless")]:
        bias, law = (0.0, "gaussian") if law == "biasless" else (0.2, law)
        net = mv.mlp(2, [2, 2, 2], phi, 1.5, bias, law)
        x = with_gram(GRAM, 2)
        p, s = mv.predict(net, x), mv.simulate(net, x, samples=30_000, dtype="float64")
        for name in ("q", "length", "grad_norm2", "chi"):
            z = np.abs(s[name] - p[name]).values / np.maximum(s[f"{name}_se"].values, 1e-9)
            exact = p[f"{name}_mark"].values == "exact"
            assert (z[exact] < 5).all(), (phi, law, name)
            far = max(far, z[~exact].max(initial=0.0))
    assert far > 10


def test_theory_against_simulation_in_the_limit():
    """Width 600: every variable within 3% (the deviation is of order 1/600 a layer; Monte Carlo below 1%)."""
    for phi in ("tanh", "gelu", "sin", "hard_tanh"):
        net = mv.mlp(16, [600] * 3, phi, 1.8, 0.1, keep=0.9)
        x = with_gram([[1.0, 0.7], [0.7, 0.8]], 16)
        p = mv.predict(net, x, cotangent="shared")
        s = mv.simulate(net, x, samples=200, cotangent="shared")
        for name in ("q", "c", "chi", "length", "grad_norm2"):
            np.testing.assert_allclose(s[name], p[name], rtol=0.03, err_msg=f"{phi} {name}")
        np.testing.assert_allclose(s.grad_gram, p.grad_gram, rtol=0.1)


def test_other_laws_at_the_first_map_are_marked_heuristic():
    """One input entry: h^1 is as uniform as the weights, whatever the hidden widths."""
    net = mv.mlp(1, [512] * 2, "tanh", 4.0, 0.0, "uniform")
    p, s = mv.predict(net, [[1.0]]), mv.simulate(net, [[1.0]], samples=400)
    assert p.q_mark.values[1, 0, 0] == "heuristic"
    assert abs(s.q - p.q).values[1, 0, 0] > 10 * s.q_se.values[1, 0, 0]
    assert mv.predict(mv.mlp(1, [8] * 2, "tanh"), [[1.0]]).q_mark.values[1, 0, 0] == "exact"


def test_theory_refuses_what_it_cannot_treat():
    twice = mv.Network([mv.Dense(4, 4), mv.Activation("tanh"), mv.Activation("tanh")])
    with pytest.raises(mv.Unpredictable, match="put a random map before it"):
        mv.predict(twice, with_gram([[1.0]], 4))


@given(
    networks(
        activations=["tanh", "relu", "erf", "gelu", "sin"], min_depth=4, min_width=2, keep=1.0,
        sigma_w2=mv.strategies.sigma_w2(0.5, 3.0), sigma_b2=mv.strategies.sigma_b2(0.0, 0.5),
    ),
    st.floats(-0.85, 0.85),
)  # fmt: skip
def test_covariances_stay_covariances(net, c):
    """q^l is positive semidefinite and symmetric; equal inputs stay equal; gradients of equal inputs too."""
    x = with_gram([[1.0, c, 1.0], [c, 0.8, c], [1.0, c, 1.0]], net.input_dim)
    p = propagate(net, x, "shared")
    assert np.linalg.eigvalsh(p.q).min() > -1e-9
    np.testing.assert_allclose(p.q, np.swapaxes(p.q, 1, 2), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(p.q[:, 0, 2], p.q[:, 0, 0], rtol=1e-9)
    np.testing.assert_allclose(p.grad_gram[:, 0, 2], p.grad_gram[:, 0, 0], rtol=1e-7)


def test_state_of_inputs():
    x = np.array([[1.0, 2.0], [0.0, -1.0]])
    np.testing.assert_allclose(State.of_inputs(x).cov, [[2.5, -1.0], [-1.0, 0.5]])


def test_a_correlation_that_does_not_exist_is_none_on_both_sides():
    net, x = mv.mlp(3, [8, 8], "relu"), np.zeros((2, 3))
    p, m = mv.predict(net, x), mv.simulate(net, x, samples=4)
    assert np.isnan(p.c).all()
    assert np.isnan(m.c).all()
    assert (p.c_mark == "none").all()
