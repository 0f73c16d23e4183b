"""The spread of lengths between networks, against tables made apart and against sampling."""

from __future__ import annotations

import numpy as np
import pytest

import mcverify as mv
from mcverify.inputs import with_gram


def test_he_relu_second_moments(known_answers):
    """E M_L² = M_0² Π(1 + 5/n), 2.5937424601 at n = 50, L = 10; exact, and marked so."""
    for r in known_answers("linear_path_sums"):
        if r["kind"] == "relu_he_M2":
            p = mv.predict(mv.mlp(4, r["widths"], "relu", 2.0), with_gram([[1.0]], 4))
            product = np.prod([1 + 5 / n for n in r["widths"]])
            assert p.length_var.values[-1, 0] + 1 == pytest.approx(product, rel=1e-12)
            assert (p.length_var_mark == "exact").all()
    ten = mv.predict(mv.mlp(4, [50] * 10, "relu", 2.0), with_gram([[1.0]], 4))
    assert ten.length_var.values[-1, 0] + 1 == pytest.approx(2.5937424601, abs=1e-10)


def test_first_layer_law(known_answers):
    for r in known_answers("linear_path_sums"):
        if r["kind"] == "first_layer_law":
            net = mv.mlp(4, [r["n_1"]], r["activation"], float(r["sigma_w2"]), float(r["sigma_b2"]))
            p = mv.predict(net, with_gram([[float(r["M_0"])]], 4))
            assert p.length_var.values[0, 0] == pytest.approx(float(r["var_M_1"]), rel=1e-10)
            assert p.length_var_mark.values[0, 0] == "exact"


@pytest.mark.parametrize(("phi", "mean", "second"), [("linear", 1.0, 3.0), ("relu", 0.5, 1.5)])
def test_masks_at_width_one(phi, mean, second):
    """One unit a layer and no bias: M_L is a product of squares, E M_L = (σ_w² mean)^L/ρ^{L−1} and
    E M_L² = (σ_w⁴ second)^L/ρ^{3(L−1)}, a mask m/ρ having second moment 1/ρ and fourth 1/ρ³."""
    sigma_w2, keep, L = 1.5, 0.8, np.arange(1, 6)
    net = mv.mlp(1, [1] * 5, phi, sigma_w2, keep=keep)
    p = mv.predict(net, [[1.0]])
    length = (sigma_w2 * mean) ** L / keep ** (L - 1)
    square = (sigma_w2**2 * second) ** L / keep ** (3.0 * (L - 1))
    np.testing.assert_allclose(p.length.values[:, 0], length, rtol=1e-12)
    np.testing.assert_allclose(p.length_var.values[:, 0], square - length**2, rtol=1e-12)


def z_of_variances(net, samples):
    """Sampled less predicted variance of lengths in standard errors, (layer, input), and the marks."""
    x = with_gram([[1.0, 0.3], [0.3, 0.6]], net.input_dim)
    p, s = mv.predict(net, x), mv.simulate(net, x, samples=samples, replicates=True)
    square = (s.length.values - s.length.values.mean(axis=0)) ** 2
    z = (square.mean(axis=0) - p.length_var.values) / (square.std(axis=0) / np.sqrt(samples))
    return z, p.length_var_mark.values


def test_exact_marks_hold_at_small_width():
    """Homogeneous φ with biases and dropout at width 8: |z| < 5, with 20,000 networks."""
    for phi in ("relu", "leaky_relu(0.3)"):
        z, mark = z_of_variances(mv.mlp(6, [8, 6, 8], phi, 1.5, 0.2, keep=0.8), 20_000)
        assert (mark == "exact").all()
        assert np.abs(z).max() < 5


def test_first_order_holds_at_width_200_and_not_at_3():
    z, mark = z_of_variances(mv.mlp(6, [200] * 4, "tanh", 1.5, 0.1), 4000)
    assert mark[0, 0] == "exact"
    assert mark[3, 0] == "first order"
    assert np.abs(z).max() < 5
    z, _ = z_of_variances(mv.mlp(6, [3] * 6, "hard_tanh", 3.0), 20_000)
    assert np.abs(z[0]).max() < 5
    assert np.abs(z[5]).max() > 5


def test_orthogonal_weights_are_refused_not_guessed():
    p = mv.predict(mv.mlp(8, [8] * 2, "tanh", 1.0, weights="orthogonal"), with_gram([[1.0]], 8))
    assert np.isnan(p.length_var).all()
    assert (p.length_var_mark == "none").all()
