"""First-order corrections: derivatives against differences, exact laws, published limits, and sampled networks."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

import mcverify as mv
from mcverify.activations import activation
from mcverify.cli import main
from mcverify.correlation import correlation
from mcverify.errors import InputError, Unpredictable
from mcverify.expectations import gaussian, price
from mcverify.inputs import with_gram
from mcverify.theory.corrections import first_order
from mcverify.theory.finite_width import length_variance
from mcverify.theory.propagation import propagate

GRAM = [[1.0, 0.5], [0.5, 0.6]]


def corrected(net, gram=GRAM):
    x = with_gram(gram, net.input_dim)
    p = propagate(net, x)
    return x, p, first_order(net, p)


# ---- derivatives --------------------------------------------------------------------------------------

PHIS = ["tanh", "erf", "gelu", "relu", "leaky_relu(0.2)", "hard_tanh", "selu", "sin", "softplus", "linear", "sign"]


@pytest.mark.parametrize("name", PHIS)
def test_bend_is_the_covariance_maps(name):
    """Slopes and second derivatives against central differences of `gaussian.covariance`, for c > 0 and < 0."""
    phi = activation(name)
    for point in ([1.0, 0.5, 0.7], [0.4, -0.2, 1.1]):
        at, h = np.array(point), 2e-3

        def f(v):
            return float(gaussian.covariance(phi, *v).value)

        slope = [(f(at + h * e) - f(at - h * e)) / (2 * h) for e in np.eye(3)]
        curvature = [
            [(f(at + h * (e + g)) - f(at + h * (e - g)) - f(at - h * (e - g)) + f(at - h * (e + g))) / (4 * h * h)
             for g in np.eye(3)] for e in np.eye(3)
        ]  # fmt: skip
        found = price.bend(phi, *at[:, None])
        np.testing.assert_allclose(found.value, [f(at)], atol=1e-9)
        np.testing.assert_allclose(found.slope[0], slope, atol=2e-5)
        np.testing.assert_allclose(found.curvature[0], curvature, atol=1e-4)


def test_heat_is_the_slope_of_the_variance_map():
    q = np.array([1e-8, 0.02, 0.7, 30.0])
    for name in ("tanh", "relu", "hard_tanh", "gelu"):
        phi = activation(name)
        value, slope, _ = price.heat(price.power_of(phi, 2), q)
        np.testing.assert_allclose(value, gaussian.second_moment(phi, q).value, rtol=1e-9)
        np.testing.assert_allclose(slope, gaussian.second_moment_slope(phi, q).value, rtol=1e-6)
    assert price.heat(price.power_of(activation("sin"), 2), q)[2] == pytest.approx(-2 * np.exp(-2 * q), rel=1e-6)


def test_cross_moments_of_homogeneous_functions():
    """E |u_a|³|u_b| at c = 0 is a product, and E u_a³ u_b = 3 q_aa q_ab."""
    one = np.ones(1)
    assert price.cross_moment(activation("linear"), 2 * one, 0.3 * one, one)[0] == pytest.approx(1.8, rel=1e-9)
    product = (np.sqrt(2 / np.pi) / 2) * np.sqrt(2 / np.pi)
    assert price.cross_moment(activation("relu"), one, 0 * one, one)[0] == pytest.approx(product, rel=1e-6)


# ---- published figures and exact laws -----------------------------------------------------------------


def test_tanh_at_finite_width():
    """tanh (1.8, 0.1) from q^1 = 1: after ten layers of width 32 the mean metric is 0.685716 where the limit is
    0.690846, and over L = 10 layers n (E‖δ^1‖² − limit) = 0.755."""
    _, p, f = corrected(mv.mlp(64, [32] * 11, "tanh", 1.8, 0.1), [[0.5]])
    assert p.q[-1, 0, 0] == pytest.approx(0.690846, abs=1e-6)
    assert p.q[-1, 0, 0] + f.metric.value[-1, 0, 0] == pytest.approx(0.685716, abs=1e-6)
    _, _, f = corrected(mv.mlp(64, [32] * 10, "tanh", 1.8, 0.1), [[0.5]])
    assert 32 * f.grad_norm2.value[0, 0] == pytest.approx(0.755, abs=1e-3)


def test_critical_spreads():
    """nV/q² after l layers: 2l/3 for tanh at (1, 0), deep enough, and 5l for He-ReLU."""
    _, p, f = corrected(mv.mlp(8, [50] * 150, "tanh", 1.0), [[1.0]])
    ratio = 50 * f.metric.variance[-1, 0, 0] / p.q[-1, 0, 0] ** 2
    assert ratio == pytest.approx(2 / 3 * 149, rel=0.02)
    _, p, f = corrected(mv.mlp(8, [50] * 20, "relu", 2.0), [[1.0]])
    np.testing.assert_allclose(50 * f.metric.variance[:, 0, 0] / p.q[:, 0, 0] ** 2, 5 * np.arange(20), rtol=1e-9)


def test_homogeneous_means_do_not_move():
    """ReLU and linear networks, biases and masks included: E q_aa and E‖δ‖² are exact, so shift and remainder are 0."""
    for phi in ("relu", "leaky_relu(0.3)", "linear"):
        _, _, f = corrected(mv.mlp(8, [5, 7, 6], phi, 1.7, 0.2, keep=0.8))
        own = np.arange(2)
        for shift in (f.metric.value[:, own, own], f.metric.remainder[:, own, own], f.length.value, f.grad_norm2.value):
            np.testing.assert_allclose(shift, 0.0, atol=1e-12)


def test_spreads_of_gradients_are_hanins():
    """Var ‖Jᵀu‖² is 5/n a hidden layer and 2/n_L for a random u, in units of the squared mean."""
    widths = [40, 50, 60, 70]
    _, _, f = corrected(mv.mlp(8, widths, "relu", 2.0), [[1.0]])
    expected = [sum(5 / n for n in widths[l:-1]) + 2 / widths[-1] for l in range(4)]
    np.testing.assert_allclose(f.grad_norm2.variance[:, 0], expected, rtol=1e-9)


def test_linear_pairs_follow_wishart_moments():
    """Linear layers: E Ĝ_ab² and E Ĝ_aa Ĝ_bb obey an exact recursion, whose 1/n term is C."""
    n = 10**6
    _, p, f = corrected(mv.mlp(8, [n] * 5, "linear", 1.0))
    square, product = p.q[0, 0, 1] ** 2, p.q[0, 0, 0] * p.q[0, 1, 1]
    for l in range(1, 5):
        square, product = square * (1 + 1 / n) + product / n, product + 2 * square / n
        variance = square - p.q[0, 0, 1] ** 2
        assert f.metric.variance[l, 0, 1] == pytest.approx(variance, rel=1e-4)


def test_lengths_spread_as_finite_width_says():
    """Var M_l by the other recursion for it, with masks, where it is of first order too."""
    net = mv.mlp(8, [40, 50, 60, 50], "tanh", 1.6, 0.2, keep=0.7)
    _, p, f = corrected(net)
    np.testing.assert_allclose(f.length.variance, length_variance(net, p).value, rtol=1e-9)


def test_masks_that_inputs_share():
    # Linear φ at layer 2, exact: E m⁴/ρ⁴ = ρ⁻³ at Ĝ_ab too, whose mean is σ_w² G_ab/ρ; then n h_a h_b is Wishart.
    rho, n, sigma_w2 = 0.6, 24, 1.3
    g = np.array([[1.0, 0.4], [0.4, 0.7]])

    def net(phi, shared):
        return mv.mlp(16, [n] * 4, phi, sigma_w2, keep=rho, shared_masks=shared)

    _, _, f = corrected(net("linear", True), g)
    first = sigma_w2 * g
    both = first[0, 0] * first[1, 1] + 2 * first[0, 1] ** 2
    expected = sigma_w2**2 / n * (both / rho**3 - first[0, 1] ** 2 / rho**2)
    np.testing.assert_allclose(f.metric.variance[1, 0, 1], expected, rtol=1e-9)
    # One input twice meets the masks of one; masks of its own tell it apart from itself.
    for shared in (True, False):
        _, _, f = corrected(net("tanh", shared), np.ones((2, 2)))
        alike = np.allclose(f.metric.variance[:, 0, 1], f.metric.variance[:, 0, 0], rtol=1e-9)
        assert alike is shared


def test_one_input_twice_moves_as_one():
    """Repeated inputs, at a kink too; a mask tells them apart."""
    x = np.ones((2, 8))
    for phi in ("relu", "hard_tanh", "tanh"):
        net = mv.mlp(8, [16] * 4, phi, 1.5, 0.1)
        f = first_order(net, propagate(net, x))
        np.testing.assert_allclose(f.metric.value[:, 0, 1], f.metric.value[:, 0, 0], atol=1e-12)
        np.testing.assert_allclose(f.metric.variance[:, 0, 1], f.metric.variance[:, 0, 0], rtol=1e-9)
    net = mv.mlp(8, [16] * 4, "tanh", 1.5, 0.1, keep=0.5)
    f = first_order(net, propagate(net, x))
    assert f.metric.value[-1, 0, 1] != pytest.approx(f.metric.value[-1, 0, 0], rel=0.01)


# ---- sampled networks ---------------------------------------------------------------------------------


def beyond(net, samples, seed=1):
    """By how many standard errors sampled means lie beyond the remainder, and how far from the limit, the most of each
    variable; explicit weights."""
    x, p, f = corrected(net)
    m = mv.simulate(net, x, samples=samples, rng=seed, engine="explicit", threads=1)
    own = np.arange(2)
    rows = {
        "metric": (m.metric, m.metric_se, p.q, f.metric), "length": (m.length, m.length_se, p.length, f.length),
        "gradient": (m.grad_norm2, m.grad_norm2_se, p.grad_gram[:, own, own], f.grad_norm2),
    }  # fmt: skip
    corrected_, plain = {}, {}
    for name, (mean, se, limit, shift) in rows.items():
        away = mean.values - limit
        unit = np.maximum(se.values, 1e-9)
        corrected_[name] = float(((np.abs(away - shift.value) - shift.remainder - 1e-6) / unit).max())  # float32
        plain[name] = float((np.abs(away) / unit).max())
    return corrected_, plain


@pytest.mark.parametrize(("phi", "sigma_w2", "sigma_b2", "keep"), [("tanh", 3.0, 0.1, 1.0), ("erf", 1.5, 0.05, 0.8)])
def test_corrections_at_width_16(phi, sigma_w2, sigma_b2, keep):
    """Every mean within the remainder, which the limit is far from being."""
    net = mv.mlp(6, [16] * 8, phi, sigma_w2, sigma_b2, keep=keep)
    first_order_, limit = beyond(net, 30_000)
    assert max(first_order_.values()) < 4.5
    assert min(limit.values()) > 5.5


@pytest.mark.slow
@pytest.mark.parametrize("width", [16, 32, 64])
@pytest.mark.parametrize(
    ("phi", "sigma_w2", "sigma_b2", "keep"),
    [("tanh", 1.8, 0.1, 1.0), ("tanh", 1.0, 0.0, 1.0), ("tanh", 3.0, 0.1, 1.0), ("erf", 1.5, 0.05, 1.0),
     ("gelu", 1.8, 0.1, 1.0), ("relu", 1.2, 0.3, 0.9), ("hard_tanh", 1.5, 0.05, 1.0), ("tanh", 1.5, 0.1, 0.8),
     ("sin", 2.0, 0.1, 1.0), ("silu", 2.0, 0.2, 1.0), ("relu", 2.0, 0.0, 1.0)],
)  # fmt: skip
def test_remainders_cover_the_next_order(phi, sigma_w2, sigma_b2, keep, width):
    net = mv.mlp(6, [width] * 8, phi, sigma_w2, sigma_b2, keep=keep)
    assert max(beyond(net, 200_000)[0].values()) < 4.5


def test_spreads_at_width_256():
    """Var q, Var c and Var ‖δ‖² against sampling, to 6%: tanh, with unequal widths and biases. Sampling errs by 1.5%,
    the next order by three (7% and 10% at a quarter of the widths)."""
    net = mv.mlp(6, [256, 320, 288, 256], "tanh", 1.6, 0.1)
    x, _, f = corrected(net)
    m = mv.simulate(net, x, samples=10_000, rng=2, threads=1, replicates=True)
    np.testing.assert_allclose(m.q.values.var(axis=0), f.q_var, rtol=0.06)
    c = correlation(m.metric.values)[:, 1:, 0, 1]
    np.testing.assert_allclose(c.var(axis=0), f.c.variance[1:, 0, 1], rtol=0.06)
    np.testing.assert_allclose(m.grad_norm2.values.var(axis=0), f.grad_norm2.variance, rtol=0.06)


# ---- as a prediction ----------------------------------------------------------------------------------


def test_prediction_to_first_order():
    """order=1 replaces q, c, length and grad_norm2 where they are not exact, with marks and remainders."""
    net = mv.mlp(6, [32] * 4, "tanh", 1.8, 0.1)
    x, _, f = corrected(net)
    limit, first = mv.predict(net, x), mv.predict(net, x, order=1)
    np.testing.assert_allclose(first.q, limit.q + f.metric.value, atol=1e-12)
    assert first.q_mark.values[1, 0, 0] == "exact"
    assert first.q_mark.values[3, 0, 1] == "first order"
    assert first.length_mark.values[3, 0] == first.grad_norm2_mark.values[0, 0] == "first order"
    assert (first.q_remainder.values[2:] > 0).all()
    expected = first.q[3, 0, 1] / np.sqrt(first.q[3, 0, 0] * first.q[3, 1, 1])
    assert float(first.c[3, 0, 1]) == pytest.approx(float(expected), rel=1e-3)
    np.testing.assert_array_equal(first.grad_gram.values[:, [0, 1], [0, 1]], first.grad_norm2)
    relu = mv.predict(mv.mlp(6, [8] * 4, "relu", 2.0), x, order=1)
    assert (relu.length_mark == "exact").all()
    assert float(relu.length_remainder.max()) == 0.0


def test_parallel_inputs_at_a_kink_have_no_correction():
    """c = 1 between different inputs: ReLU's covariance map has no second derivative there."""
    p = mv.predict(mv.mlp(8, [16] * 4, "relu", 2.0), np.array([np.ones(8), 2 * np.ones(8)]), order=1)
    assert np.isnan(p.q.values[2:, 0, 1]).all()
    assert (p.q_mark.values[2:, 0, 1] == "none").all()
    assert np.isfinite(p.q.values[:, [0, 1], [0, 1]]).all()


def test_what_has_no_corrections_says_so():
    x = np.ones((1, 8))
    for net, reason in (
        (mv.mlp(8, [8] * 3, "tanh", weights="uniform"), "uniform"),
        (mv.mlp(8, [8] * 3, "tanh", weights="orthogonal"), "orthogonal"),
        (mv.Network([mv.Dense(8, 8), mv.LayerNorm(), mv.Activation("tanh"), mv.Dense(8, 8)]), "layernorm"),
        (mv.Network([mv.Dense(8, 8), mv.Residual([mv.Activation("tanh"), mv.Dense(8, 8)])]), "residual"),
    ):
        with pytest.raises(Unpredictable, match=reason):
            mv.predict(net, x, order=1)
    with pytest.raises(Unpredictable, match="convolution"):
        mv.predict(mv.cnn((1, 8), [4, 4], "tanh"), np.ones((1, 1, 8)), order=1)
    with pytest.raises(InputError, match="order"):
        mv.predict(mv.mlp(8, [8], "tanh"), x, order=2)


def test_first_order_on_the_command_line():
    shown = CliRunner().invoke(main, ["predict", "examples/tanh_critical.toml", "--order", "1"])
    assert shown.exit_code == 0
    assert "To first order in 1/width" in shown.output
    told = CliRunner().invoke(main, ["predict", "examples/tanh_critical.toml", "--order", "1", "--json"])
    data = json.loads(told.output)
    assert data["variables"]["q_remainder"]["dims"] == ["layer", "input", "input_2"]
    assert data["attrs"]["order"] == 1


@pytest.mark.filterwarnings("error")
def test_lengths_beyond_the_floats_range_are_told_without_warnings():
    p = mv.predict(mv.mlp(4, [4] * 9, "relu", 1e-50), np.eye(4)[:2], order=1)
    assert np.isfinite(p.c.values[:3, 0, 1]).all()
    assert np.isnan(p.c.values[3:, 0, 1]).all()
