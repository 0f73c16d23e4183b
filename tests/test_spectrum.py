"""The Jacobian's singular values: moments and densities against closed forms and networks made of NumPy alone, and what
is measured by random directions against SVDs."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mcverify as mv
from mcverify.inputs import with_gram
from mcverify.theory.slope_law import slope_law
from mcverify.theory.spectrum import exact_second_moments, inverse, s_transform, times

CRITICAL = (1.05, 2e-5)


def square(width, depth, phi, sigma_w2=1.0, sigma_b2=0.0, weights="gaussian"):
    return mv.mlp(width, [width] * depth, phi, sigma_w2, sigma_b2, weights)


# ---- a network of NumPy's -----------------------------------------------------------------------------


def haar(rng, n):
    q, r = np.linalg.qr(rng.normal(size=(n, n)))
    return q * np.sign(np.diag(r))


def jacobian(rng, widths, phi, dphi, sigma_w2, sigma_b2, weights, x, activated=False):
    """J of one network, weights written out."""
    h, j = x, np.eye(widths[0])
    for l, (fan_in, fan_out) in enumerate(pairwise(widths)):
        if l:
            j, h = dphi(h)[:, None] * j, phi(h)
        w = rng.normal(size=(fan_out, fan_in)) / np.sqrt(fan_in) if weights == "gaussian" else haar(rng, fan_in)
        j = np.sqrt(sigma_w2) * w @ j
        h = np.sqrt(sigma_w2) * w @ h + np.sqrt(sigma_b2) * rng.normal(size=fan_out)
    return dphi(h)[:, None] * j if activated else j


def tanh_slope(h):
    return 1 - np.tanh(h) ** 2


def step(h):
    return (h > 0) * 1.0


def relu(h):
    return np.maximum(h, 0)


def moments_of(s):
    """m_1 … m_K of the law whose S-transform has K coefficients: S(z) z/(1 + z) inverts m_1 z + m_2 z² + …."""
    return inverse(times(s, [(-1) ** k * s[0] / s[0] for k in range(len(s))]))


# ---- moments ------------------------------------------------------------------------------------------


@given(st.lists(st.fractions(-3, 3, max_denominator=9), min_size=1, max_size=6), st.fractions(1, 3, max_denominator=9))
def test_the_s_transform_determines_the_moments(tail, first):
    moments = [first, *tail]
    assert moments_of(s_transform(moments)) == moments


def test_products_of_gaussian_matrices_are_fuss_catalan_exactly():
    """S = 1/(1 + z)^L for L matrices: m_k = C((L + 1)k, k)/(Lk + 1), in fractions."""
    one = [Fraction(1), *[Fraction(0)] * 5]
    for depth in (1, 2, 7):
        s = one
        for _ in range(depth):
            s = times(s, [Fraction((-1) ** k) for k in range(6)])
        assert moments_of(s) == [Fraction(math.comb((depth + 1) * k, k), depth * k + 1) for k in range(1, 7)]
        net = square(8, depth, "linear")
        assert mv.jacobian_moments(net, order=6).moments == pytest.approx([float(m) for m in moments_of(s)], rel=1e-12)


def test_relative_variances_at_the_critical_point():
    """L(μ_2/μ_1² − 1 + 1/L − 1 − s_1 …) of Pennington et al. 2017, with slopes by mpmath."""
    q = mv.phase("tanh", *CRITICAL).q

    def slope_moment(k):
        return float(mpmath.quad(lambda z: mpmath.sech(mpmath.sqrt(q) * z) ** (4 * k) * mpmath.npdf(z), [-10, 0, 10]))

    mu = [slope_moment(k) for k in (1, 2)]
    bend = mu[1] / mu[0] ** 2 - 1
    for weights, own in (("orthogonal", 0), ("gaussian", 1)):
        for activated, slopes in ((False, 9), (True, 10)):
            found = mv.jacobian_moments(square(8, 10, "tanh", *CRITICAL, weights), activated=activated)
            assert found.spread == pytest.approx(slopes * bend + 10 * own, rel=1e-9)
            assert found.gain == pytest.approx(1.05**10 * mu[0] ** slopes, rel=1e-9)


def test_relu_is_no_isometry():
    """At σ_w² = 2 with L slopes the variance is 2L under Gaussian weights, L under orthogonal ones."""
    for depth in (1, 5, 30):
        for weights, factor in (("gaussian", 2), ("orthogonal", 1)):
            found = mv.jacobian_moments(square(8, depth, "relu", 2.0, 0.0, weights), activated=True)
            assert found.moments[:2] == pytest.approx([1.0, 1.0 + factor * depth])


def exact_by_sampling(widths, phi, weights, sigma_w2, samples, rng):
    """(mean, standard error) of tr(JᵀJ)²/n_0 over networks of slopes phi = (negative, positive)."""
    x, values = rng.normal(size=widths[0]), []

    def slope(h):
        return np.where(h > 0, *phi[::-1])

    for _ in range(samples):
        j = jacobian(rng, widths, lambda h: slope(h) * h, slope, sigma_w2, 0.1, weights, x, True)
        k = j.T @ j
        values.append((k**2).sum() / widths[0])
    return np.mean(values), np.std(values) / math.sqrt(samples)


@pytest.mark.parametrize(
    ("widths", "phi", "slopes", "weights"),
    [
        ([4, 6, 5], "leaky_relu(0.5)", (0.5, 1.0), "gaussian"),
        ([4, 4, 4], "leaky_relu(0.3)", (0.3, 1.0), "gaussian"),
        ([4, 4, 4], "relu", (0.0, 1.0), "orthogonal"),
    ],
)
def test_second_moments_are_exact_at_width_three(widths, phi, slopes, weights):
    rng = np.random.default_rng(7)
    mean, error = exact_by_sampling(widths, slopes, weights, 1.5, 6000, rng)
    net = mv.mlp(widths[0], widths[1:], phi, 1.5, 0.1, weights)
    exact = exact_second_moments(net, activated=True)[1]
    assert abs(mean - exact) < 4.5 * error
    assert error < 0.06 * exact
    wide = mv.jacobian_moments(net, activated=True).moments[1]
    assert abs(mean - wide) > 6 * error  # the limit is not that


def test_exact_moments_tend_to_the_limit():
    for weights in ("gaussian", "orthogonal"):
        net = square(10**7, 6, "leaky_relu(0.2)", 1.7, 0.0, weights)
        assert exact_second_moments(net) == pytest.approx(mv.jacobian_moments(net).moments[:2], rel=1e-5)
    n = 10**7
    uneven = mv.mlp(n, [2 * n, n // 2, 3 * n], "leaky_relu(0.2)", 1.7)
    for activated in (False, True):
        exact = exact_second_moments(uneven, activated=activated)
        assert exact == pytest.approx(mv.jacobian_moments(uneven, activated=activated).moments[:2], rel=1e-5)
    linear = exact_second_moments(square(1000, 10, "linear"))
    assert linear == pytest.approx((1.0, 11.0555), rel=1e-5)


@pytest.mark.parametrize("weights", ["gaussian", "orthogonal"])
def test_finite_depth_and_widths_of_all_sizes(weights):
    """tanh, inputs away from q*: four moments against explicit networks; rectangular ones under Gaussian weights."""
    rng = np.random.default_rng(3)
    widths = [200, 300, 150, 250] if weights == "gaussian" else [200] * 4
    x = rng.normal(size=200) * 1.5
    net = mv.mlp(widths[0], widths[1:], "tanh", 1.5, 0.1, weights)
    values = []
    for _ in range(12):
        s = np.linalg.svd(jacobian(rng, widths, np.tanh, tanh_slope, 1.5, 0.1, weights, x, True), compute_uv=False)
        values.append([(s ** (2 * k)).sum() / 200 for k in (1, 2, 3, 4)])
    mean, error = np.mean(values, axis=0), np.std(values, axis=0) / math.sqrt(12)
    found = mv.jacobian_moments(net, x[None], activated=True).moments[0]
    # corrections of finite width are of relative order k² L/n
    assert (np.abs(mean / found - 1) < 5 * error / found + np.arange(1, 5) ** 2 * 3 / 200).all()
    there = mv.jacobian_moments(net, activated=True).moments
    assert abs(there[0] / found[0] - 1) > 0.05  # q* is elsewhere


# ---- densities ----------------------------------------------------------------------------------------


def test_one_gaussian_matrix_is_the_quarter_circle():
    d = mv.jacobian_density(square(8, 1, "linear"))
    s = d.singular_values
    assert d.density == pytest.approx(np.sqrt(4 - s**2) / np.pi, rel=1e-7)
    at = np.linspace(0, 2, 9)
    exact = (at / 2 * np.sqrt(4 - at**2) + 2 * np.arcsin(at / 2)) / np.pi
    assert d.cdf(at) == pytest.approx(exact, abs=2e-5)  # interpolated
    assert d.cdf([-1.0, 3.0]) == pytest.approx([0.0, 1.0], abs=1e-6)


@pytest.mark.parametrize("depth", [2, 10])
def test_gaussian_products_have_fuss_catalans_edge(depth):
    d = mv.jacobian_density(square(8, depth, "linear"))
    assert d.largest**2 == pytest.approx((depth + 1) ** (depth + 1) / depth**depth, rel=1e-9)
    assert abs(d.defect) < 1e-6


def test_two_projections_make_the_arcsine_law():
    """Orthogonal ReLU with two activations at σ_w² = 1: half at 0, λ = s² of the rest arcsine on (0, 1)."""
    d = mv.jacobian_density(square(8, 3, "relu", 1.0, 0.0, "orthogonal"))
    assert d.atoms == ((0.0, 0.5),)
    s = np.linspace(0.05, 0.95, 7)
    assert d.cdf(s) == pytest.approx(0.5 + np.arcsin(s) / np.pi, abs=2e-5)


CASES = [
    ("relu", 2.0, 0.0, 2, "gaussian"),  # a gap between the atom at 0 and the rest
    ("relu", 2.0, 0.0, 8, "orthogonal"),
    ("leaky_relu(0.2)", 1.9, 0.0, 3, "orthogonal"),  # two bands
    ("hard_tanh", *CRITICAL, 10, "orthogonal"),  # atoms at both ends
    ("hard_tanh", 2.0, 0.1, 6, "gaussian"),
    ("erf", 0.8, 2e-5, 3, "orthogonal"),
    ("tanh", *CRITICAL, 10, "orthogonal"),
    ("tanh", 2.0, 0.05, 20, "gaussian"),
]


@pytest.mark.parametrize(("phi", "sigma_w2", "sigma_b2", "depth", "weights"), CASES)
def test_densities_are_normalised_and_have_the_moments(phi, sigma_w2, sigma_b2, depth, weights):
    """Moments by series of S-transforms, densities by following roots: nothing in common but μ_k's law."""
    net = square(8, depth, phi, sigma_w2, sigma_b2, weights)
    d, m = mv.jacobian_density(net), mv.jacobian_moments(net)
    assert abs(d.defect) < 1e-4
    assert d.moments() == pytest.approx(m.moments, rel=2e-4)
    assert (d.density >= 0).all()
    assert (np.diff(d.cumulative) >= 0).all()
    assert d.cdf(d.largest + 1) == pytest.approx(1 - d.defect, abs=1e-9)


def test_widths_that_differ_leave_directions_out():
    net = mv.mlp(24, [8, 32, 16], "hard_tanh", 1.5, 0.1)
    d, m = mv.jacobian_density(net), mv.jacobian_moments(net)
    alive = slope_law(mv.activation("hard_tanh"), mv.phase("hard_tanh", 1.5, 0.1).q).probabilities[-1]
    assert d.atoms == ((0.0, pytest.approx(1 - 8 * alive / 24)),)
    assert abs(d.defect) < 1e-4
    assert d.moments() == pytest.approx(m.moments, rel=1e-6)


@pytest.mark.parametrize(
    ("phi", "slope", "name", "sigma_w2", "sigma_b2", "weights"),
    [
        (np.tanh, tanh_slope, "tanh", 2.0, 0.05, "orthogonal"),
        (relu, step, "relu", 2.0, 0.0, "gaussian"),
        (lambda h: np.clip(h, -1, 1), lambda h: (np.abs(h) < 1) * 1.0, "hard_tanh", 1.5, 0.1, "orthogonal"),
    ],
)
def test_densities_are_those_of_explicit_networks(phi, slope, name, sigma_w2, sigma_b2, weights):
    """Five layers, 512 units: eigenvalues are rigid, so that one network's distribution function is within about
    log n/n of the limit's, and 0.02 leaves room for a slope law known at the network's own lengths alone."""
    rng, n = np.random.default_rng(11), 512
    q = 1.0 if name == "relu" else mv.phase(name, sigma_w2, sigma_b2).q
    x = rng.normal(size=n)
    x *= np.sqrt((q - sigma_b2) / sigma_w2 * n) / np.linalg.norm(x)
    j = jacobian(rng, [n] * 6, phi, slope, sigma_w2, sigma_b2, weights, x)
    s = np.sort(np.linalg.svd(j, compute_uv=False))
    d = mv.jacobian_density(square(n, 5, name, sigma_w2, sigma_b2, weights), x[None])
    at = np.linspace(0.02, 1.0, 25) * d.largest
    empirical = np.searchsorted(s, at) / n
    assert np.abs(empirical - d.cdf(at)).max() < 0.02
    # five edge fluctuations of n^{-2/3}; where atoms end the spectrum nothing fluctuates
    assert s[-1] == pytest.approx(d.largest, rel=0.08)
    other = "gaussian" if weights == "orthogonal" else "orthogonal"
    wrong = mv.jacobian_density(square(n, 5, name, sigma_w2, sigma_b2, other), x[None])
    assert np.abs(empirical - wrong.cdf(at)).max() > 0.05


@given(st.floats(0.01, 30.0), st.sampled_from(["tanh", "erf", "hard_tanh", "gelu", "elu", "leaky_relu(0.3)", "sin"]))
@settings(max_examples=25, deadline=None)
def test_slope_laws_have_the_slopes_moments(q, name):
    from mcverify.expectations import gaussian

    law = slope_law(mv.activation(name), q)
    assert law.probabilities.sum() == pytest.approx(1.0, rel=1e-12)
    for k in (1, 2):
        assert law.probabilities @ law.values**k == pytest.approx(
            float(gaussian.moment(name, q, 2 * k, 1).value), rel=1e-8, abs=1e-14
        )


# ---- what is measured ---------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["explicit", "conditional"])
@pytest.mark.parametrize("weights", ["gaussian", "orthogonal"])
def test_random_directions_give_the_moments_of_all_of_them(engine, weights):
    net, x = square(24, 3, "tanh", 1.5, 0.1, weights), with_gram([[1.0, 0.3], [0.3, 0.5]], 24)
    probed = mv.simulate_jacobian_moments(net, x, 3000, 5, engine, threads=1)
    s = mv.simulate_singular_values(net, x, 600, 6, threads=1).singular_values.values
    assert s.shape == (600, 2, 24)
    for k in range(1, 5):
        each = (s ** (2 * k)).mean(axis=-1)
        error = np.hypot(each.std(axis=0) / np.sqrt(600), probed.moments_se.values[:, k - 1])
        assert (np.abs(each.mean(axis=0) - probed.moments.values[:, k - 1]) < 4.5 * error).all(), k
        assert (error < 0.03 * k * each.mean(axis=0)).all()


def test_measured_moments_are_the_exact_ones():
    net = mv.mlp(12, [8, 16, 10], "relu", 1.8, 0.1)
    found = mv.simulate_jacobian_moments(net, with_gram([[1.0]], 12), 20_000, activated=True, threads=1)
    exact = exact_second_moments(net, activated=True)
    off = (found.moments.values[0, :2] - exact) / found.moments_se.values[0, :2]
    assert (np.abs(off) < 4.5).all()
    assert (found.moments_se.values[0, :2] < 0.03 * np.array(exact)).all()


def test_results_do_not_depend_on_threads():
    net, x = square(16, 2, "relu", 2.0), with_gram([[1.0]], 16)
    one, two = (mv.simulate_jacobian_moments(net, x, 700, 1, threads=t).moments.values for t in (1, 2))
    assert (one == two).all()


def test_orthogonal_linear_networks_have_one_singular_value():
    net = square(16, 4, "linear", 1.3, 0.0, "orthogonal")
    s = mv.simulate_singular_values(net, with_gram([[1.0]], 16), 3, threads=1).singular_values.values
    assert s == pytest.approx(1.3**2, rel=1e-5)
    assert mv.jacobian_density(net).atoms == (pytest.approx((1.3**2, 1.0)),)
    probed = mv.simulate_jacobian_moments(net, with_gram([[1.0]], 16), 3000, threads=1)
    exact, found = 1.3 ** (4 * np.arange(1, 5)), probed.moments.values[0]
    assert found[:2] == pytest.approx(exact[:2], rel=1e-5)  # of an isometry nothing is left to chance
    assert (np.abs(found - exact)[2:] < 4.5 * probed.moments_se.values[0, 2:]).all()


def test_delta_orthogonal_convolutions_have_the_dense_spectrum_at_every_pixel():
    """Each position's own Jacobian is a block of the whole; equal lengths give equal laws."""
    x = np.broadcast_to(with_gram([[0.5]], 8)[0], (1, 2, 3, 8)).copy()
    x = np.moveaxis(x, -1, 1)
    net = mv.cnn((8, 2, 3), [8] * 3, "tanh", 1.5, 0.1, "delta_orthogonal", kernel_size=1)
    found = mv.simulate_singular_values(net, x, 300, threads=1).singular_values.values
    assert found.shape == (300, 1, 6, 8)
    assert np.repeat(found[:, :, :1], 6, axis=2) == pytest.approx(found, abs=1e-4)  # the same input everywhere
    dense = mv.simulate_singular_values(
        square(8, 3, "tanh", 1.5, 0.1, "orthogonal"), with_gram([[0.5]], 8), 600, 2, threads=1
    ).singular_values.values
    for k in (1, 2):
        a, b = ((v[:, 0, ..., :] ** (2 * k)).reshape(len(v), -1).mean(axis=1) for v in (found, dense))
        assert abs(a.mean() - b.mean()) < 4.5 * math.hypot(a.std() / len(a) ** 0.5, b.std() / len(b) ** 0.5)
    predicted = mv.jacobian_moments(net, x).moments
    assert predicted.shape == (1, 2, 3, 4)
    assert predicted == pytest.approx(np.broadcast_to(predicted[:, :1, :1], predicted.shape), rel=1e-9)


def test_jacobians_of_kernels_that_meet_positions_are_whole():
    """All positions together, against central differences of the sampled network itself."""
    from mcverify.random_map import explicit
    from mcverify.simulation import simulate as simulation
    from mcverify.simulation.spectrum import jacobians
    from mcverify.simulation.trace import Plan, trace

    net = mv.cnn((2, 4), [3, 3], "tanh", 1.5, 0.1)
    x, rng = np.zeros((1, 4, 2)), np.random.default_rng(0)
    x[:] = rng.normal(size=x.shape)
    engine = explicit.engine(simulation.choose_engine("explicit", "auto", "float64")[0].kernels, np.dtype("float64"))
    j = jacobians(Plan(net, x, engine, 9), 0, 2)
    assert j.shape == (2, 1, 8, 12)
    for i in range(8):
        ends = []
        for sign in (1e-5, -1e-5):
            moved = x.copy()
            moved.reshape(-1)[i] += sign
            ends.append(trace(Plan(net, moved, engine, 9), 0, 2).maps[-1].y.reshape(2, -1))
        assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(j[:, 0, i], abs=1e-8)


# ---- what is refused ----------------------------------------------------------------------------------


def test_what_cannot_be_answered_is_refused():
    with pytest.raises(mv.Unpredictable, match="layer 2 is a batchnorm layer"):
        mv.jacobian_moments(mv.Network([mv.Dense(4, 4), mv.BatchNorm(), mv.Activation("relu")]))
    with pytest.raises(mv.Unpredictable, match="slopes of sign are 0"):
        mv.jacobian_moments(square(4, 2, "sign"), with_gram([[1.0]], 4))
    with pytest.raises(mv.InputError, match="no activation follows"):
        mv.jacobian_moments(mv.mlp(4, [4], "relu", readout=4), activated=True)
    with pytest.raises(mv.InputError, match="x: got None; must be given"):
        mv.jacobian_moments(
            mv.Network([mv.Dense(4, 4, 1.5), mv.Activation("tanh"), mv.Dense(4, 4, 2.0), mv.Activation("tanh")])
        )
    with pytest.raises(mv.Unpredictable, match="one smooth activation"):
        mv.jacobian_density(square(4, 2, "tanh", 1.5, 0.1, "orthogonal"))
    with pytest.raises(mv.Unpredictable, match="not square"):
        mv.jacobian_density(mv.mlp(4, [8, 4], "tanh", 1.5, 0.1, "orthogonal"))
    with pytest.raises(mv.InputError, match="one input"):
        mv.jacobian_density(square(4, 2, "tanh"), with_gram(np.eye(2), 4))
    with pytest.raises(mv.InputError, match="order"):
        mv.jacobian_moments(square(4, 2, "tanh"), order=0)
    with pytest.raises(mv.Unpredictable, match="not positively homogeneous"):
        exact_second_moments(square(4, 2, "tanh"))
    with pytest.raises(mv.Unpredictable, match="uniform weights"):
        exact_second_moments(square(4, 2, "relu", weights="uniform"))
    with pytest.raises(mv.InputError, match="batch norm"):
        mv.simulate_jacobian_moments(
            mv.Network([mv.Dense(4, 4), mv.BatchNorm(), mv.Activation("relu")]), with_gram(np.eye(4), 4)
        )
    with pytest.raises(mv.InputError, match="probes"):
        mv.simulate_jacobian_moments(square(4, 2, "tanh"), with_gram([[1.0]], 4), probes=1)
