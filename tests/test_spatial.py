"""Spatial modes and borders: against closed forms, dense quadrature, and the covariance propagated in full."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mcverify as mv
from mcverify import network_file
from mcverify.errors import InputError
from mcverify.expectations import gaussian
from mcverify.inputs import checked
from mcverify.layers import chain
from mcverify.layers.activation import Activation
from mcverify.layers.convolution import Convolution
from mcverify.layers.layer import Grad, State
from mcverify.theory.border import border_critical_sigma_w2, border_effect, leading_eigenvalue, truncated_average
from mcverify.theory.critical_line import NoCriticalPoint, critical_sigma_w2
from mcverify.theory.diagnosis import diagnose
from mcverify.theory.propagation import propagate
from mcverify.theory.spatial import mode_eigenvalues, offsets, spatial_modes, tap_energies

POINTS = [("tanh", 4.0, 0.1), ("tanh", 1.5, 0.05), ("erf", 2.5, 0.2), ("relu", 1.5, 0.3), ("hard_tanh", 3.0, 0.1)]
GRIDS = [((6,), (3,)), ((5,), (4,)), ((1,), (1,)), ((4, 3), (3, 2))]


def pushed(cov, phi, sigma_w2, sigma_b2, size, kernel, padding="circular", layers=1):
    """The covariance after so many layers, in full."""
    step = [Activation(phi), Convolution(size, 4, 4, kernel, sigma_w2, sigma_b2, padding=padding)]
    return chain.propagate(step * layers, State(cov, "gaussian", False, np.zeros(cov.shape, bool)))[-1].cov


def change(positions, seed=0):
    a = np.random.default_rng(seed).normal(size=(positions, positions))
    return a + a.T


# ---- taps and eigenvalues -----------------------------------------------------------------------------


def test_tap_energies_and_their_eigenvalues_in_closed_form():
    n, f = 9, np.arange(9)
    for taps, kernel, expected in [
        ("uniform", 3, (1 + 2 * np.cos(2 * np.pi * f / n)) / 3),
        ("uniform", 2, (1 + np.exp(2j * np.pi * f / n)) / 2),  # an even kernel looks to the right
        ("binomial", 5, np.cos(np.pi * f / n) ** 4),
        ("centre", 5, np.ones(n)),
        ([0.0, 0.0, 1.0], 3, np.exp(2j * np.pi * f / n)),
    ]:
        found = mode_eigenvalues(n, tap_energies(1, kernel, taps))
        np.testing.assert_allclose(found, expected, atol=1e-14)
    two = mode_eigenvalues((4, 6), tap_energies(2, (3, 2)))
    one = [mode_eigenvalues(n, tap_energies(1, k)) for n, k in ((4, 3), (6, 2))]
    np.testing.assert_allclose(two, np.multiply.outer(*one), atol=1e-14)
    assert (mode_eigenvalues(4, tap_energies(1, 4))[1:] == 0).all()  # no residue of rounding


@pytest.mark.parametrize(("size", "kernel"), GRIDS)
def test_taps_sit_where_the_layer_has_them(size, kernel):
    layer = Convolution(size, 1, 1, kernel, padding="zeros")
    positions = math.prod(size)
    np.testing.assert_allclose(
        truncated_average(size, tap_energies(len(size), kernel)), layer.mean_met(np.eye(positions)).T, atol=1e-15
    )


# ---- the fixed point and what is near it --------------------------------------------------------------


@pytest.mark.parametrize("point", POINTS, ids=str)
@pytest.mark.parametrize(("size", "kernel"), GRIDS)
def test_the_fixed_point_is_fixed_whatever_the_kernel(point, size, kernel):
    modes = spatial_modes(*point, size, kernel)
    np.testing.assert_allclose(pushed(modes.fixed_point, *point, size, kernel), modes.fixed_point, rtol=1e-11)


@pytest.mark.parametrize("point", [POINTS[0], POINTS[2], ("hard_tanh", 3.0, 0.1)], ids=str)
@pytest.mark.parametrize(("size", "kernel"), GRIDS)
def test_small_changes_move_as_the_modes_say(point, size, kernel):
    """Central differences of two layers in full: their error is of order h² and rounding/h, both below 1e-7. Points
    with c* < 1, where both signs of a change are covariances."""
    modes, h = spatial_modes(*point, size, kernel), 1e-5
    delta = change(math.prod(size))
    up, down = (pushed(modes.fixed_point + s * h * delta, *point, size, kernel, layers=2) for s in (1, -1))
    measured = (up - down) / (2 * h)
    found = modes.linearised(delta, 2)
    np.testing.assert_allclose(found, measured, atol=2e-7 * np.abs(delta).max())
    if len(delta) > 1:  # the planted error: a diagonal that does not feed what is off it
        apart = replace(modes, kappa=0.0)
        assert np.abs(apart.linearised(delta, 2) - measured).max() > 1e-4


def test_other_taps_move_as_their_modes_say():
    """Binomial taps, by a loop over positions."""
    point, n = ("tanh", 4.0, 0.1), 5
    modes, h = spatial_modes(*point, n, 3, taps="binomial"), 1e-5
    delta, v = change(n), np.array([0.25, 0.5, 0.25])

    def pushed_here(cov):
        q = np.diagonal(cov)
        inner = gaussian.covariance("tanh", q[:, None], cov, q[None, :]).value
        out = np.full((n, n), point[2])
        for i, j, b in itertools.product(range(n), range(n), range(3)):
            out[i, j] += point[1] * v[b] * inner[(i + b - 1) % n, (j + b - 1) % n]
        return out

    measured = (pushed_here(modes.fixed_point + h * delta) - pushed_here(modes.fixed_point - h * delta)) / (2 * h)
    np.testing.assert_allclose(modes.linearised(delta), measured, atol=2e-7 * np.abs(delta).max())
    assert np.abs(spatial_modes(*point, n, 3).linearised(delta) - measured).max() > 1e-2


def test_modes_decay_by_their_own_rates():
    """From Σ* and a mode of the lengths alone, for forty layers: lengths by λ_f dQ/dq a layer, and what they have fed
    the correlations by λ_f χ_c*, the slower of the two here."""
    point, n, f = ("tanh", 4.0, 0.1), 8, 1
    modes = spatial_modes(*point, n)
    delta = np.diag(np.cos(2 * np.pi * f * np.arange(n) / n))
    near, far = (modes.linearised(delta, layers) for layers in (39, 40))
    rate = modes.eigenvalues[f].real
    assert far[0, 0] / near[0, 0] == pytest.approx(rate * modes.phase.slope_q, rel=1e-9)
    assert far[0, 1] / near[0, 1] == pytest.approx(rate * modes.phase.chi_c, rel=1e-4)
    assert modes.xi_q[f] == pytest.approx(-1 / math.log(rate * modes.phase.slope_q))
    assert modes.xi_c[0] == pytest.approx(modes.phase.xi_c)


def test_half_a_circle_has_even_modes_alone():
    n = 6
    delta = change(n)
    across = np.array([delta[a, (a + n // 2) % n] for a in range(n)])
    odd = np.abs(np.fft.fft(across)[1::2])
    assert odd.max() < 1e-14
    assert np.abs(np.fft.fft(across)[0::2]).min() > 1e-3


# ---- κ ------------------------------------------------------------------------------------------------


def dense(f, g, q, c, nodes=160):
    """E f(u_a) g(u_b) by a product rule."""
    z, w = np.polynomial.hermite_e.hermegauss(nodes)
    w = w / w.sum()
    a = math.sqrt(q) * z[:, None]
    b = math.sqrt(q) * (c * z[:, None] + math.sqrt(1 - c * c) * z)
    return float(w @ (f(a) * g(b)) @ w)


def test_kappa_of_tanh_by_dense_quadrature():
    """Gauss–Hermite errs below 1e-12 here (160 and 240 nodes agree)."""
    for sigma_w2, sigma_b2 in [(4.0, 0.1), (1.3, 0.01), (1.05, 2e-5)]:
        modes = spatial_modes("tanh", sigma_w2, sigma_b2, 4)
        q, c = modes.phase.q, modes.phase.c
        curved = dense(lambda u: -2 * np.tanh(u) / np.cosh(u) ** 2, np.tanh, q, c, 240)
        assert modes.kappa == pytest.approx(0.5 * sigma_w2 * curved, rel=1e-8, abs=1e-11)


def test_kappa_in_closed_form():
    # erf: E = (2/π) asin(2x/√((1 + 2a)(1 + 2b))); its derivative in a at fixed x.
    modes = spatial_modes("erf", 2.5, 0.2, 4)
    q, x = modes.phase.q, modes.phase.q * modes.phase.c
    ratio = 2 * x / (1 + 2 * q)
    assert modes.kappa == pytest.approx(-2.5 * 2 / math.pi * ratio / math.sqrt(1 - ratio**2) / (1 + 2 * q), rel=1e-10)
    # hard tanh by a difference of the expectation at fixed covariance: no φ″ there.
    modes = spatial_modes("hard_tanh", 3.0, 0.1, 4)
    q, x, h = modes.phase.q, modes.phase.q * modes.phase.c, 1e-4
    up, down = (float(gaussian.covariance("hard_tanh", q + s * h, x, q).value) for s in (1, -1))
    assert modes.kappa == pytest.approx(3.0 * (up - down) / (2 * h), rel=1e-6)
    # c* = 1: dQ/dq = 2κ + χ_1.
    modes = spatial_modes("tanh", 1.5, 0.05, 4)
    assert modes.kappa == pytest.approx((modes.phase.slope_q - modes.phase.chi_1) / 2, rel=1e-9)


# ---- borders ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 8, 31])
def test_the_leading_eigenvalue_of_three_taps(n):
    average = truncated_average(n, tap_energies(1))
    assert leading_eigenvalue(average) == pytest.approx((1 + 2 * math.cos(math.pi / (n + 1))) / 3, rel=1e-13)


def zero_padded(depth, size, sigma_w2, sigma_b2, phi):
    return mv.cnn((1, *size), [8] * depth, phi, sigma_w2, sigma_b2, padding="zeros")


def test_relu_lengths_decay_by_the_leading_eigenvalue():
    """Exact at every width: the recursion itself, ninety layers deep, where the second mode is 1e-9 of the first."""
    net = zero_padded(90, (4, 4), 2.0, 0.0, "relu")
    p = propagate(net, np.ones((1, 4, 4, 1)))
    assert p.covs_exact[-1].diagonal().all()
    border = border_effect("relu", 2.0, 0.0, (4, 4))
    assert p.length[-1, 0] / p.length[-2, 0] == pytest.approx(border.leading, rel=1e-8)
    assert border.leading == pytest.approx(((1 + 2 * math.cos(math.pi / 5)) / 3) ** 2)
    assert border.chi == pytest.approx(border.leading)
    assert border_critical_sigma_w2("relu", 0.0, (4, 4)) == pytest.approx(2 / border.leading)


@pytest.mark.parametrize(("phi", "sigma_w2", "sigma_b2"), [("tanh", 1.5, 0.05), ("tanh", 4.0, 0.1), ("erf", 1.2, 0.1)])
def test_the_profile_and_its_gradients(phi, sigma_w2, sigma_b2):
    """Lengths after 300 layers and the gradient's growth from layer to layer, both by the full covariance."""
    size, kernel = (5,), (3,)
    border = border_effect(phi, sigma_w2, sigma_b2, size)
    cov = pushed(np.eye(5), phi, sigma_w2, sigma_b2, size, kernel, "zeros", layers=300)
    np.testing.assert_allclose(np.diagonal(cov), border.q, rtol=1e-11)
    assert border.edge_to_middle == pytest.approx(border.q[0] / border.q[2])
    layers = [Activation(phi), Convolution(size, 4, 4, kernel, sigma_w2, sigma_b2, padding="zeros")] * 40
    states = chain.propagate(layers, State(cov, "gaussian", False, np.zeros(cov.shape, bool)))
    down = chain.pull_back(layers, states, Grad(np.eye(5), np.zeros((5, 5), bool)))
    totals = [np.trace(g.cov) for g in down[::2]]
    assert totals[0] / totals[1] == pytest.approx(border.chi, rel=1e-8)


def test_the_critical_point_moves_up():
    circle = critical_sigma_w2("tanh", 2e-5)
    with_zeros = border_critical_sigma_w2("tanh", 2e-5, (8, 8))
    assert border_effect("tanh", with_zeros, 2e-5, (8, 8)).chi == pytest.approx(1.0, abs=1e-9)
    assert border_effect("tanh", circle, 2e-5, (8, 8)).chi < 0.97
    assert circle < with_zeros
    # Without biases the line begins where the origin loses its hold, at 1/(φ′(0)² λ_1).
    assert border_critical_sigma_w2("tanh", 0.0, 8) == pytest.approx(3 / (1 + 2 * math.cos(math.pi / 9)))
    # A border that no tap crosses changes nothing.
    assert border_critical_sigma_w2("tanh", 2e-5, 8, taps="centre") == pytest.approx(circle, rel=1e-9)
    with pytest.raises(NoCriticalPoint):
        border_critical_sigma_w2("softplus", 0.1, 8)


def test_a_profile_that_vanishes_is_nan():
    border = border_effect("tanh", 1.02, 0.0, 4)  # 1.02 λ_1 < 1
    assert np.isnan(border.q).all()
    assert math.isnan(border.chi)


# ---- refusals and words -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"size": 0}, "size"),
        ({"size": (4, 4, 4)}, "size"),
        ({"kernel": 0}, "kernel"),
        ({"kernel": (3, 3)}, "kernel"),
        ({"taps": "binomail"}, "taps"),
        ({"taps": [1.0, -1.0]}, "taps"),
        ({"taps": [[1.0]]}, "taps"),
        ({"sigma_w2": -1.0}, "sigma_w2"),
    ],
)
@pytest.mark.parametrize("function", [spatial_modes, border_effect])
def test_bad_arguments_are_refused_in_one_line(function, changes, field):
    given = {"activation": "tanh", "sigma_w2": 1.5, "sigma_b2": 0.05, "size": 4} | changes
    with pytest.raises(InputError) as caught:
        function(**given)
    assert caught.value.field == field
    assert "\n" not in str(caught.value)


def words(net):
    x = checked(np.ones((1, net.input_dim, *net.input_shape[:-1])), net.input_shape)
    return " ".join(diagnose(net, propagate(net, x)))


def test_the_diagnosis_tells_of_modes_and_of_borders():
    circle = words(mv.cnn((1, 8, 8), [8] * 3, "tanh", 1.05, 2e-5))
    modes = spatial_modes("tanh", 1.05, 2e-5, (8, 8))
    assert f"slowest at frequency (0, 1) over {modes.xi_c[0, 1]:.3g} layers" in circle
    assert f"fastest at (3, 3) over {modes.xi_c[3, 3]:.3g} layers" in circle
    zeros = words(mv.cnn((1, 8, 8), [8] * 3, "tanh", 1.05, 2e-5, padding="zeros"))
    assert "χ = 0.965984" in zeros
    assert "the critical σ_w² at σ_b² = 2e-05 is 1.14126, not 1.04991" in zeros
    assert "not mix positions" in words(mv.cnn((1, 8), [8] * 3, "tanh", 1.05, 2e-5, kernel_size=1))
    assert "not mix positions" in words(mv.cnn((1, 8), [8] * 3, "tanh", 1.05, 2e-5, "delta_orthogonal"))
    assert "positions" not in words(mv.mlp(8, [8] * 3, "tanh", 1.05, 2e-5))


def test_the_paper_s_network_is_at_hand():
    given = network_file.read(Path(__file__).parent.parent / "examples" / "xiao2018_1503.toml")
    assert len(given.net.maps) == 1503
    assert given.net.input_shape == (8, 8, 1)
    assert min(given.net.widths) >= 64
    assert mv.spatial_modes("tanh", 1.05, 2e-5, (8, 8)).phase.name == "critical"
    assert list(offsets(3)) == [-1, 0, 1]


def test_what_a_circle_or_a_matrix_cannot_hold_is_refused():
    with pytest.raises(InputError, match=r"kernel: got \(7,\); must not be wider than the circle"):
        mv.spatial_modes("tanh", 1.5, 0.1, 4, 7)
    for refused in (mv.border_effect, lambda phi, w, b, size: mv.border_critical_sigma_w2(phi, b, size)):
        with pytest.raises(InputError, match=r"size: got \(64, 64\); must have at most 1,600 positions"):
            refused("tanh", 1.5, 0.1, (64, 64))
    wide = mv.cnn((1, 48, 48), [4, 4], "relu", 2.0, padding="zeros")
    x = np.random.default_rng(0).normal(size=(1, 1, 48, 48))
    words = diagnose(wide, propagate(wide, checked(x, wide.input_shape)))
    assert any("not computed on so large a grid" in told for told in words)
