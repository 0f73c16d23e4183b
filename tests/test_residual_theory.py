"""The theory of residual networks against enumeration, quadrature by mpmath, and sampled weights."""

from __future__ import annotations

import itertools
import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mcverify as mv
from mcverify.errors import InputError
from mcverify.inputs import with_gram

X = np.array([0.8, -0.3])


def signs(*shape):
    """Every array of that shape with entries ±1."""
    for bits in itertools.product((-1.0, 1.0), repeat=math.prod(shape)):
        yield np.array(bits).reshape(shape)


# ---- known answers by enumeration ---------------------------------------------------------------------------


def test_takis_identity_blocks_by_enumeration_at_width_two():
    """Two blocks x + W x, each W one of 2⁴ matrices of ±σ_w/√2: second moments know the variance alone. Forward, and
    the square of a cotangent pulled back, (1 + c/L)²."""
    c, n, total, pulled = 1.4, 2, 0.0, 0.0
    v = np.array([0.6, 0.8])
    for w, u in itertools.product(signs(n, n), repeat=2):
        a, b = (np.eye(n) + np.sqrt(c / 2 / n) * m for m in (w, u))
        total += ((b @ a @ X) ** 2).sum() / 2**8
        pulled += ((v @ b @ a) ** 2).sum() / 2**8
    known = mv.taki_initialisation(n, 2, c)
    assert known.sigma_w2 == known.weight_variance * n == c / 2
    assert total / (X @ X) == pytest.approx(known.identity, rel=1e-13)
    assert pulled == pytest.approx(known.identity, rel=1e-13)
    p = mv.predict(mv.resnet(2, n, 2, "linear", known.sigma_w2), X[None])
    assert float(p.q[2, 0, 0]) / float(p.q[0, 0, 0]) == pytest.approx(total / (X @ X), rel=1e-13)
    assert float(p.grad_norm2[0, 0]) == pytest.approx(pulled, rel=1e-13)


def test_all_five_variances_by_enumeration_at_width_two():
    """One linear block z + V(W z + b) + a over all 2¹² signs of V, W, b, a, and a readout of one unit."""
    sigma_v2, sigma_w2, sigma_b2, sigma_a2, sigma_out2 = 0.7, 1.3, 0.2, 0.4, 0.9
    total, n = 0.0, 2
    for w, u in itertools.product(signs(n, n), repeat=2):
        for b, a in itertools.product(signs(n), repeat=2):
            h = np.sqrt(sigma_w2 / n) * w @ X + np.sqrt(sigma_b2) * b
            total += ((X + np.sqrt(sigma_v2 / n) * u @ h + np.sqrt(sigma_a2) * a) ** 2).sum() / n / 2**12
    t = mv.resnet_trajectory("linear", sigma_v2, sigma_w2, sigma_b2, sigma_a2, p0=X @ X / n, depth=1)
    assert t.p[1] == pytest.approx(total, rel=1e-12)
    net = mv.resnet(2, n, 1, "linear", sigma_w2, sigma_b2, sigma_v2=sigma_v2, sigma_a2=sigma_a2, readout=1,
                    sigma_out2=sigma_out2)  # fmt: skip
    p = mv.predict(net, X[None])
    np.testing.assert_allclose(p.q[:, 0, 0], [X @ X / n, total, sigma_out2 * total], rtol=1e-12)
    assert (p.q_mark == "exact").all()


def test_a_rectified_module_by_quadrature():
    """E[M′ | x] = M (1 + η²) + 2η x̄ √(M/π) at width three, each unit of W x being N(0, 2M)."""
    x, eta = np.array([0.5, -0.2, 1.1]), 0.3
    m = float(x @ x) / 3

    def unit(i):
        def density(z):
            return (x[i] + eta * mpmath.sqrt(2 * m) * max(z, 0)) ** 2 * mpmath.npdf(z)

        return mpmath.quad(density, [-12, 0, 12])  # fmt: skip

    exact = float(sum(map(unit, range(3)))) / 3
    assert m * (1 + eta**2) + 2 * eta * x.mean() * math.sqrt(m / math.pi) == pytest.approx(exact, rel=1e-12)


# ---- Yang & Schoenholz --------------------------------------------------------------------------------------


@pytest.mark.parametrize("phi", ["tanh", "relu", "erf"])
def test_the_recursion_is_what_predict_says(phi):
    net = mv.resnet(16, 8, 5, phi, 1.4, 0.1, sigma_v2=0.8, sigma_a2=0.3)
    p = mv.predict(net, with_gram([[0.6]], 16))
    t = mv.resnet_trajectory(phi, 0.8, 1.4, 0.1, 0.3, p0=0.6, depth=5)
    np.testing.assert_allclose(p.q[:, 0, 0], t.p, rtol=1e-12)
    g = p.grad_norm2.values[:, 0]
    np.testing.assert_allclose(g[:-1] / g[1:], t.chi, rtol=1e-12)


def test_a_block_of_tanh_by_mpmath():
    t = mv.resnet_trajectory("tanh", 0.8, 1.4, 0.1, 0.3, p0=2.0, depth=1)
    q = mpmath.mpf(1.4) * 2 + mpmath.mpf(0.1)

    def mean(f):
        return mpmath.quad(lambda z: f(mpmath.sqrt(q) * z) * mpmath.npdf(z), [-12, -2, 0, 2, 12])

    assert t.p[1] == pytest.approx(float(2 + 0.8 * mean(lambda u: mpmath.tanh(u) ** 2) + 0.3), rel=1e-12)
    assert t.chi[0] == pytest.approx(float(1 + 0.8 * 1.4 * mean(lambda u: mpmath.sech(u) ** 4)), rel=1e-12)


def test_tanh_grows_as_its_asymptotes_say():
    """Both are approached as l^{−1/2}: between l and 4l, measured in κ√l or (σ_v² + σ_a²) l, twice as near at 4l."""
    sigma_v2, sigma_w2, sigma_a2 = 0.8, 1.4, 0.3
    rise, kappa = mv.tanh_resnet_growth(sigma_v2, sigma_w2, sigma_a2)
    t = mv.resnet_trajectory("tanh", sigma_v2, sigma_w2, 0.1, sigma_a2, depth=3200)
    log_gain = np.concatenate([[0.0], np.cumsum(np.log(t.chi))])
    off = [
        [(t.p[4 * l] - t.p[l]) / (3 * l * rise) - 1, (log_gain[4 * l] - log_gain[l]) / (kappa * math.sqrt(l)) - 1]
        for l in (200, 800)
    ]
    assert np.abs(off[1]).max() < 0.05
    np.testing.assert_allclose(np.divide(off[0], off[1]), 2.0, rtol=0.25)


def test_rectified_networks_grow_exponentially():
    t = mv.resnet_trajectory("relu", 0.8, 1.4, p0=0.3, depth=20)
    np.testing.assert_allclose(t.p[-1] / t.p[0], (1 + 0.8 * 1.4 / 2) ** 20, rtol=1e-12)
    np.testing.assert_allclose(t.chi, 1 + 0.8 * 1.4 / 2, rtol=1e-12)


# ---- Taki -----------------------------------------------------------------------------------------------------


@given(st.integers(1, 1000), st.integers(1, 500), st.floats(0.01, 2000.0))
def test_takis_bound_is_given_where_it_holds(fan_in, depth, c):
    known = mv.taki_initialisation(fan_in, depth, c)
    assert known.identity <= known.identity_bound * (1 + 1e-12)
    assert known.relu <= known.relu_bound * (1 + 1e-12)
    if known.lower_bound is None:
        assert known.relu < math.exp(min(c / 4, 700.0)) * (1 + 1e-3)
    else:
        assert known.relu >= known.lower_bound * (1 - 1e-3)


def test_takis_fan_in_is_a_block_s_width_or_its_taps_times_channels():
    """What the map draws its weights by, of a dense block and of his experiment's convolution."""
    dense, kernel = mv.resnet(4, 32, 10, "relu", 0.1), mv.Convolution((8, 8), 16, 16, (8, 8), 0.01)
    for m, depth in ((dense.sampled_maps[1][0], 10), (kernel.random_map, 100)):
        known = mv.taki_initialisation(m.fan_in, depth)
        assert (known.sigma_w2, known.weight_variance) == (m.sigma_w2, m.sigma_w2 / m.fan_in)
        assert not mv.depth_limit("float16", m.fan_in, depth).subnormal_weights
    assert kernel.random_map.fan_in == 8 * 8 * 16


def test_what_robustness_means():
    """Twice the variance: e² ≈ 7 at most in a residual network, 2²⁰ in a plain one of 20 layers (Taki 2017, §2.1)."""
    assert mv.taki_initialisation(100, 20, 2.0).identity == pytest.approx(6.7275, abs=1e-4)
    assert mv.taki_initialisation(100, 10**6, 2.0).identity == pytest.approx(math.exp(2), rel=1e-5)
    plain = mv.predict(mv.mlp(4, [4] * 21, "linear", 2.0), np.ones((1, 4)))
    assert float(plain.q[-1, 0, 0] / plain.q[0, 0, 0]) == pytest.approx(2.0**20)


# ---- Hanin & Rolnick ------------------------------------------------------------------------------------------


def test_bounds_of_ten_equal_modules():
    """The known 3.185, above which exp(Σ η) = 2.718 is no bound."""
    bounds = mv.length_bounds([0.1] * 10, ratio=1.0)
    assert bounds.upper == pytest.approx((1 + 0.01 + 0.2 / math.sqrt(math.pi)) ** 10, rel=1e-13)
    assert bounds.upper == pytest.approx(3.185, abs=5e-4)
    assert bounds.lower == pytest.approx(1 + 0.1 + 2 / math.sqrt(math.pi), rel=1e-13)
    assert bounds.criterion == pytest.approx(1.0)


@pytest.mark.parametrize("module", ["relu", "linear"])
@pytest.mark.parametrize(("a", "p"), [(0.5, 1.5), (2.0, 1.2), (0.3, 3.0)])
def test_infinitely_many_modules_by_mpmath(module, a, p):
    beta = 2 / mpmath.sqrt(mpmath.pi) if module == "relu" else 0
    gamma = 1 if module == "relu" else mpmath.mpf(0.7)

    def term(l):
        return mpmath.log1p(beta * a * mpmath.power(l, -p) + gamma * a**2 * mpmath.power(l, -2 * p))

    last = 300  # from there on Euler and Maclaurin's formula, its integral over log l
    rest = mpmath.quad(lambda s: term(mpmath.exp(s)) * mpmath.exp(s), [mpmath.log(last), 10, 30, 100, 400])
    ends = term(last) / 2 - mpmath.diff(term, last) / 12
    exact = mpmath.exp(mpmath.fsum(map(term, range(1, last))) + rest + ends)
    bounds = mv.length_bounds(mv.PowerScales(a, p), module, kappa=0.7)
    assert bounds.upper == pytest.approx(float(exact), rel=1e-9)
    assert mv.length_bounds(mv.PowerScales(a, p), module, kappa=0.7, depth=50).upper < bounds.upper


def test_infinitely_many_linear_modules_whose_scales_fall_slowly():
    """Σ log(1 + η²) = Σ_k (−1)^{k+1} a^{2k} ζ(2pk)/k for a below 1."""
    a, p = 0.9, 0.55
    zeta = mpmath.zeta
    exact = mpmath.nsum(lambda k: (-1) ** (k + 1) * mpmath.mpf(a) ** (2 * k) * zeta(2 * p * k) / k, [1, mpmath.inf])
    bounds = mv.length_bounds(mv.PowerScales(a, p), "linear")
    assert math.log(bounds.upper) == pytest.approx(float(exact), rel=1e-10)


def test_a_linear_family_in_closed_form():
    bounds = mv.length_bounds(mv.PowerScales(0.5, 1.0), "linear")
    assert bounds.upper == bounds.lower == pytest.approx(math.sinh(math.pi / 2) / (math.pi / 2), rel=1e-12)


BAD = [
    (lambda: mv.length_bounds(mv.PowerScales(0.5, 1.0)), "scales", "Σ η diverges"),
    (lambda: mv.length_bounds(mv.PowerScales(0.5, 0.5), "linear"), "scales", "Σ η² diverges"),
    (lambda: mv.length_bounds([0.1, -0.1]), "scales", "at least 0"),
    (lambda: mv.length_bounds([]), "scales", "list of finite numbers"),
    (lambda: mv.length_bounds("x"), "scales", "list of finite numbers"),
    (lambda: mv.length_bounds(mv.PowerScales(0.5, 1.0), depth=10**12), "depth", "at most"),
    (lambda: mv.resnet_trajectory("tanh", 1.0, 1.0, depth=10**12), "depth", "at most"),
    (lambda: mv.length_bounds([0.1], depth=2), "depth", "number of scales, 1"),
    (lambda: mv.length_bounds([0.1], "tanh"), "module", "relu, linear"),
    (lambda: mv.length_bounds([0.1], ratio=1.5), "ratio", "[0, 1]"),
    (lambda: mv.PowerScales(0.0, 1.0), "a", "above 0"),
    (lambda: mv.taki_initialisation(4, 0), "depth", "at least 1"),
    (lambda: mv.taki_initialisation(4, 3, -1.0), "c", "above 0"),
    (lambda: mv.resnet_trajectory("tanh", -1.0, 1.0, depth=3), "sigma_v2", "at least 0"),
    (lambda: mv.tanh_resnet_growth(0.0, 1.0), "sigma_v2", "above 0"),
]


@pytest.mark.parametrize(("call", "field", "allowed"), BAD)
def test_bad_input_gets_one_line(call, field, allowed):
    with pytest.raises(InputError) as error:
        call()
    assert error.value.field == field
    assert allowed in str(error.value)
