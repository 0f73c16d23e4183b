"""The exact laws of lengths and Jacobians: against closed forms, mpmath, enumeration, and networks drawn here."""

from __future__ import annotations

import itertools
import math

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import betainc, gammaln
from scipy.stats import binom, chi2, kstest

import mcverify as mv
from mcverify.errors import InputError, Unpredictable
from mcverify.inputs import with_gram
from mcverify.theory import layer_factor, log_product
from mcverify.theory.layer_factor import Factor
from mcverify.theory.length_moments import second_moment

# Of a true law's Kolmogorov–Smirnov tests here, with fixed seeds: a wrong factor in one layer is far beyond it.
LEAST_P = 1e-4


def relu(n, layers=1):
    return mv.mlp(3, [n] * layers, "relu", 2.0)


def mixture(n, alive=True):
    """K ≥ 1 and its probabilities, those far below rounding left out."""
    k = np.arange(1, n + 1)
    w = np.exp(binom.logpmf(k, n, 0.5) - (math.log1p(-(0.5**n)) if alive else 0.0))
    return k[w > 1e-25], w[w > 1e-25]


# ---- transforms ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("a", [0.5, 3.0, 23.5, 24.0, 1e3, 5e5])
def test_gamma_ratios(a):
    mp.mp.dps = 40
    s = np.array([0.3, -0.3, 7.0, 0.2j, 30j, 5 + 100j])
    found = np.exp(layer_factor.log_gamma_ratio(a, s))
    exact = [complex(mp.gammaprod([mp.mpf(a) + mp.mpc(v)], [a]) * mp.mpf(a) ** (-mp.mpc(v))) for v in s]
    np.testing.assert_allclose(found, exact, rtol=1e-12)


@pytest.mark.parametrize("n", [2, 7, 40, 300, 10_000])
def test_shares_of_relu(n):
    """E[B^s | K ≥ 1] = Σ_K P(K) Γ(K/2 + s) Γ(n/2)/(Γ(K/2) Γ(n/2 + s)), at real and at imaginary s."""
    mp.mp.dps = 30
    f = Factor(n, 1.0, 1.0, 0.0)
    k, w = mixture(n)
    for s in (0.5, 3.0, 1j, 6j):
        exact = mp.fsum(
            mp.mpf(float(p)) * mp.gammaprod([mp.mpf(int(v)) / 2 + s, mp.mpf(n) / 2], [mp.mpf(int(v)) / 2, n / 2 + s])
            for v, p in zip(k, w, strict=True)
        )
        found = np.exp(layer_factor.shares(f, 6.0).log_moment(np.array([s])))[0]
        assert abs(found - complex(exact)) < 2e-12 * max(abs(complex(exact)), 1e-3)  # binom.pmf has some 1e-13


def test_shares_of_leaky_relu():
    """E A^s given K is low^s ₂F₁(−s, K/2; n/2; 1 − high/low)."""
    mp.mp.dps = 30
    n, low, s = 5, 0.09, mp.mpc(0.3, 4)
    f = Factor(n, 1.0, 1.0, low)
    half, z = mp.mpf(n) / 2, 1 - 1 / mp.mpf(low)
    terms = (mp.binomial(n, k) / mp.mpf(2) ** n * mp.hyp2f1(-s, mp.mpf(k) / 2, half, z) for k in range(n + 1))
    exact = mp.mpf(low) ** s * mp.fsum(terms)
    found = np.exp(layer_factor.shares(f, 5.0).log_moment(np.array([complex(s)])))[0]
    assert abs(found - complex(exact)) < 1e-13


# ---- distributions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 16, 257, 10_000])
def test_one_layer_is_a_mixture_of_gammas(n):
    law = mv.length_law(relu(n), m0=0.7)
    k, w = mixture(n, alive=False)
    at = law.ppf(np.array([1e-6, 0.02, 0.3, 0.7, 0.999]) * (1 - law.dead) + law.dead)
    z = at[:, None] * n / (2 * 0.7)
    # SciPy's own χ² and binomial probabilities hold to 1e-12 at n = 10,000.
    np.testing.assert_allclose(law.cdf(at), 0.5**n + chi2.cdf(z, k) @ w, atol=2e-12)
    np.testing.assert_allclose(law.pdf(at), chi2.pdf(z, k) @ w * n / 1.4, rtol=2e-8)
    assert law.dead == pytest.approx(0.5**n)


def test_two_narrow_layers_by_quadrature():
    """P(R_1 R_2 ≤ m) = ∫ f_1(r) F_2(m/r) dr, from mixtures of gammas; the density has a pole at 0."""
    law = mv.length_law(mv.mlp(3, [2, 3], "relu", 2.0))

    def cdf(n, r):
        k, w = mixture(n, alive=False)
        return float(chi2.cdf(n * r / 2, k) @ w)

    def pdf(n, r):
        k, w = mixture(n, alive=False)
        return float(chi2.pdf(n * r / 2, k) @ w) * n / 2

    for m in (1e-3, 0.2, 1.0, 6.0):
        alive = quad(lambda u, m=m: 2 * u * pdf(2, u * u) * cdf(3, m / (u * u)), 0, 9, epsabs=1e-12)[0]
        assert law.cdf(m) == pytest.approx(law.dead + alive, abs=1e-9)
    assert law.dead == pytest.approx(1 - 0.75 * 0.875)


def test_one_orthogonal_layer():
    """M = 2 B: a mixture of Betas, with an atom at K = n that 200 units make nothing."""
    law = mv.length_law(mv.mlp(200, [200], "relu", 2.0, weights="orthogonal"))
    k, w = mixture(200)
    at = np.array([0.6, 0.8, 1.0, 1.1, 1.3])
    np.testing.assert_allclose(law.cdf(at), betainc(k / 2, (200 - k) / 2, at[:, None] / 2) @ w, atol=1e-10)


@pytest.mark.parametrize(
    "net", [relu(5, 20), mv.mlp(3, [5, 40, 5, 1000] * 5, "leaky_relu(0.2)", 1.5)], ids=["relu", "leaky"]
)
def test_heavy_tails(net):
    """5 Σ 1/n = 20 and 10: samples drawn apart from the inversion, and quantiles that come back."""
    law = mv.length_law(net)
    y = law.rvs_log(40_000, 3)
    assert np.isneginf(y).mean() == pytest.approx(law.dead, abs=5 * math.sqrt(law.dead / 40_000) + 1e-12)
    y = y[np.isfinite(y)]
    assert kstest(y, lambda v: (law.cdf_log(v) - law.dead) / (1 - law.dead)).pvalue > LEAST_P
    for k, power in ((0, y), (1, (y - y.mean()) ** 2)):
        assert abs(power.mean() - law.log_cumulants[k]) < 5 * power.std() / math.sqrt(len(y))
    p = law.dead + (1 - law.dead) * np.array([1e-9, 1e-3, 0.5, 0.999, 1 - 1e-9])
    np.testing.assert_allclose(law.cdf(law.ppf(p)), p, atol=1e-13)


def test_a_million_units():
    """log R has mean −5/2n and variance 5/n to one part in 10⁵, and ten layers are log-normal to O(1/√n)."""
    n = 10**6
    law = mv.length_law(relu(n, 10))
    np.testing.assert_allclose(law.log_cumulants[:2], [-25 / n, 50 / n], rtol=1e-4)
    assert law.moment(2) == pytest.approx((1 + 5 / n) ** 10, rel=1e-13)
    z = (law.ppf_log([0.01, 0.5, 0.99]) - law.log_mean) / math.sqrt(law.log_var)
    np.testing.assert_allclose(z, [-2.3263479, 0, 2.3263479], atol=5e-3)


def test_second_order_of_one_layer():
    """κ_1 = −5/2n − 49/12n² + …, κ_2 = 5/n + 18.5/n² + …, and a direct sum over K at n = 16: 0.42, not 5/n = 0.31."""
    k, w = mixture(16)
    mean, square = (float(mp.fsum(float(p) * f(v) for v, p in zip(k, w, strict=True))) for f in (
        lambda v: mp.psi(0, mp.mpf(int(v)) / 2) - mp.log(8),
        lambda v: (mp.psi(0, mp.mpf(int(v)) / 2) - mp.log(8)) ** 2 + mp.psi(1, mp.mpf(int(v)) / 2),
    ))  # fmt: skip
    law = mv.length_law(relu(16))
    np.testing.assert_allclose(law.log_cumulants[:2], [mean + math.log(2), square - mean**2], rtol=1e-12)
    assert law.log_var == pytest.approx(0.42, abs=0.005)
    wide = mv.length_law(relu(2000))
    assert 2000**2 * (wide.log_mean + 2.5 / 2000) == pytest.approx(-49 / 12, abs=0.01)
    assert 2000**2 * (wide.log_var - 5 / 2000) == pytest.approx(18.5, abs=0.05)


def test_a_law_ignores_the_order_of_layers_and_scales():
    a, b = (mv.length_law(mv.mlp(3, w, "relu", 2.0)) for w in ([4, 9, 20], [20, 4, 9]))
    np.testing.assert_allclose(a.cdf([0.1, 1.0, 3.0]), b.cdf([0.1, 1.0, 3.0]), atol=1e-13)
    scaled = mv.length_law(mv.mlp(3, [4, 9, 20], "relu", 1.0), m0=8.0)
    np.testing.assert_allclose(a.ppf([0.3, 0.9]), scaled.ppf([0.3, 0.9]), rtol=1e-12)


# ---- moments -------------------------------------------------------------------------------------------


def test_he_relu_second_moment():
    law = mv.length_law(relu(50, 10))
    assert law.moment(2) == pytest.approx(2.5937424601, abs=1e-10)
    assert (law.mean, law.moment(0), law.mark) == (pytest.approx(1.0, abs=1e-12), 1.0, "law")


@pytest.mark.parametrize("order", [0.5, 1, 3, 7.5, 60])
def test_moments_of_any_order(order):
    """Σ_K Bin Γ(K/2 + s)/Γ(K/2) (4/n)^s in logarithms."""
    k = np.arange(1, 21)
    logs = binom.logpmf(k, 20, 0.5) + gammaln(k / 2 + order) - gammaln(k / 2) + order * math.log(4 / 20)
    assert mv.length_law(relu(20, 3)).log_moment(order) == pytest.approx(3 * np.logaddexp.reduce(logs), abs=1e-9)


@settings(max_examples=30)
@given(
    n=st.integers(1, 60), alpha=st.sampled_from([0.0, 0.1, 0.5, 1.0]), more=st.sampled_from([math.inf, 0, 5]),
    gain=st.floats(0.5, 3),
)  # fmt: skip
def test_first_two_moments_in_closed_form(n, alpha, more, gain):
    f = Factor(n, gain, 1.0, alpha**2, n + more)
    for order, exact in ((1, f.mean), (2, second_moment(f))):
        assert log_product.log_moment([f], order) + f.log_survival == pytest.approx(math.log(exact), abs=1e-11)


def test_published_second_moments():
    """THE forms: leaky ReLU 1 + (6(1 + α⁴)/(1 + α²)² − 1)/n, orthogonal 1 + 3/(n + 2)."""
    leaky = mv.length_law(mv.mlp(3, [11], "leaky_relu(0.3)", 2 / 1.09)).moment(2)
    assert leaky == pytest.approx(1 + (6 * (1 + 0.3**4) / 1.09**2 - 1) / 11, rel=1e-12)
    orthogonal = mv.length_law(mv.mlp(11, [11], "relu", 2.0, weights="orthogonal")).moment(2)
    assert orthogonal == pytest.approx(1 + 3 / 13, rel=1e-12)


def test_variance_across_layers():
    """Against the sum over pairs of layers of E M_i M_j, written out, and against samples of the factors."""
    widths = [5, 7, 9, 6]
    net = mv.mlp(3, widths, "relu", 2.0)
    p = np.cumprod([1 + 5 / n for n in widths])
    exact = p.mean() - sum(p[i] * (1 + 2 * (3 - i)) for i in range(4)) / 16
    assert mv.variance_across_layers(net, 1.5) == pytest.approx(1.5**2 * exact, rel=1e-13)
    m = mv.simulate(mv.mlp(4, [40, 30], "relu", 1.6), with_gram([[1.0]], 4), samples=20_000, replicates=True)
    inside = m.length.values[:, :, 0].var(axis=1)
    there = mv.variance_across_layers(mv.mlp(4, [40, 30], "relu", 1.6))
    assert abs(inside.mean() - there) < 5 * inside.std() / math.sqrt(20_000)


@pytest.mark.parametrize(("fan_in", "units"), [(3, 2), (4, 1)])
def test_one_step_moments_by_enumeration(fan_in, units):
    """All Rademacher matrices, with the zeros that fan-in 4 meets: E R and E R² as sums over signs."""
    x = np.array([1.0, 1.0, -1.0, 1.0])[:fan_in]
    signs = np.array(list(itertools.product([-1, 1], repeat=fan_in * units))).reshape(-1, units, fan_in)
    h = signs @ x * math.sqrt(2.0 / fan_in)
    r = (np.maximum(h, 0) ** 2).mean(axis=1) / (x @ x / fan_in)
    found = mv.ratio_moments(x, units, "relu", 2.0, "rademacher")
    assert (found.mean, found.second) == (pytest.approx(r.mean()), pytest.approx((r**2).mean()))


def test_one_step_moments_of_gaussian_weights_are_the_laws():
    law = mv.length_law(mv.mlp(3, [7], "leaky_relu(0.2)", 1.5))
    one = mv.ratio_moments([1, 2, 3], 7, "leaky_relu(0.2)", 1.5)
    assert (one.mean, one.second) == (pytest.approx(law.moment(1)), pytest.approx(law.moment(2)))


# ---- against networks ----------------------------------------------------------------------------------


def jacobians(rng, n0, widths, phi_slopes, sigma_w2, replicates):
    """J = W_L D_{L−1} … D_1 W_1 of explicit networks with a linear top, (replicate, n_L, n_0), in plain NumPy."""
    low, high = phi_slopes
    x = np.broadcast_to(rng.standard_normal(n0), (replicates, n0))
    j = np.broadcast_to(np.eye(n0), (replicates, n0, n0))
    for fan_in, n in zip([n0, *widths], widths, strict=False):
        w = rng.standard_normal((replicates, n, fan_in)) * math.sqrt(sigma_w2 / fan_in)
        h = np.einsum("rij,rj->ri", w, x)
        j = w @ j
        top, slope = j, np.where(h > 0, high, low)
        x, j = slope * h, slope[:, :, None] * j
    return top


@pytest.mark.parametrize(
    ("phi", "slopes", "sigma_w2"), [("relu", (0.0, 1.0), 2.0), ("leaky_relu(0.3)", (0.3, 1.0), 1.5)]
)
def test_laws_of_the_jacobian(phi, slopes, sigma_w2):
    """‖J u‖² for a direction that x leans to, ‖Jᵀu‖², and an entry: narrow, unequal layers drawn here."""
    n0, widths = 3, [4, 6, 5, 2]
    j = jacobians(np.random.default_rng(5), n0, widths, slopes, sigma_w2, 20_000)
    net = mv.mlp(n0, widths[:-1], phi, sigma_w2, readout=widths[-1])
    u, v = np.array([0.6, 0.0, 0.8]), np.array([0.8, -0.6])
    for law, values in (
        (mv.tangent_law(net), ((j @ u) ** 2).sum(axis=1)),
        (mv.gradient_law(net), ((v @ j) ** 2).sum(axis=1)),
        (mv.entry_law(net), j[:, 1, 2] ** 2),
    ):
        alive = values[values > 0]
        assert len(alive) / 20_000 == pytest.approx(1 - law.dead, abs=0.012)
        assert kstest(alive, lambda y, law=law: (law.cdf(y) - law.dead) / (1 - law.dead)).pvalue > LEAST_P, law.what
        assert abs(alive.sum() / 20_000 - law.mean) < 5 * values.std() / math.sqrt(20_000)


def test_fourth_moment_of_an_entry():
    """3 (2/n_0)² Π (1 + 5/n_j) over hidden layers, every layer at 2/fan-in."""
    net = mv.mlp(7, [10, 20, 30], "relu", 2.0, readout=4)
    law = mv.entry_law(net)
    assert law.mean == pytest.approx(2 / 7, rel=1e-12)
    assert law.moment(2) == pytest.approx(3 * (2 / 7) ** 2 * 1.5 * 1.25 * (1 + 5 / 30), rel=1e-12)


def test_moments_of_an_entry():
    """Gaussian: the law's own and the closed forms. Uniform: every coin and a Gauss rule of every weight, 2 → 2 → 1."""
    net = mv.mlp(7, [10, 20, 30], "leaky_relu(0.3)", 1.7, readout=4)
    law = mv.entry_law(net)
    np.testing.assert_allclose(mv.entry_moments(net), [law.moment(k) for k in (1, 2, 3)], rtol=1e-12)
    third = math.prod(1 + 15 / n + 44 / n**2 for n in (10, 20))
    assert mv.entry_moments(mv.mlp(7, [10, 20], "relu", 2.0, readout=4))[2] == pytest.approx(15 * (2 / 7) ** 3 * third)
    nodes, w = np.polynomial.legendre.leggauss(4)  # exact to degree 7
    z = nodes * math.sqrt(3 * 2.0 / 2)
    values, weights = [], []
    for at in itertools.product(range(4), repeat=4):  # Z = Σ_i v_i ξ_i w_i
        for coins in itertools.product([0, 1], repeat=2):
            values.append(sum(z[at[i]] * coins[i] * z[at[i + 2]] for i in range(2)))
            weights.append(math.prod(w[list(at)] / 2) / 4)
    exact = [float(np.dot(weights, np.array(values) ** k)) for k in (2, 4, 6)]
    found = mv.entry_moments(mv.mlp(2, [2], "relu", 2.0, weights="uniform", readout=1))
    np.testing.assert_allclose(found, exact, rtol=1e-12)
    for weights_ in ("rademacher", "orthogonal"):
        with pytest.raises(Unpredictable, match=f"{weights_} weights"):
            mv.entry_moments(mv.mlp(2, [2], "relu", 2.0, weights=weights_))


@pytest.mark.parametrize(
    "net",
    [
        mv.mlp(6, [8, 6, 8], "relu", 2.0, readout=3),
        mv.mlp(12, [12, 16, 16, 12, 20, 20], "leaky_relu(0.5)", 2.0, weights="orthogonal"),
        mv.mlp(30, [24, 30, 24], "relu", 2.0, weights="orthogonal"),
    ],
    ids=["gaussian", "tall and wide orthogonal leaky", "wide orthogonal"],
)
def test_lengths_of_simulated_networks(net):
    law = mv.length_law(net, m0=0.7)
    s = mv.simulate(net, with_gram([[0.7]], net.input_dim), samples=6000, replicates=True)
    m = s.length.values[:, -1, 0]
    alive = m[m > 0]
    assert len(alive) / 6000 == pytest.approx(1 - law.dead, abs=0.01)
    assert kstest(alive, lambda v: (law.cdf(v) - law.dead) / (1 - law.dead)).pvalue > LEAST_P


def test_gradients_within_the_network_and_dead_layers_below():
    net = mv.mlp(5, [2, 3, 6], "relu", 2.0, readout=2)
    law = mv.gradient_law(net, layer=2)
    assert law.dead == pytest.approx(1 - 0.75 * 0.875 * (1 - 2.0**-6))
    assert np.isneginf(law.rvs_log(20_000, 1)).mean() == pytest.approx(law.dead, abs=0.02)
    assert law.mean == pytest.approx(0.75, rel=1e-12)  # the network below is alive, or the gradient is 0


def test_ratios_between_layers():
    net = mv.mlp(3, [4, 9, 20], "relu", 2.0)
    whole, upper = mv.length_law(net), mv.length_law(net, below=1)
    assert upper.moment(2) == pytest.approx((1 + 5 / 9) * 1.25, rel=1e-12)
    assert whole.log_mean == pytest.approx(upper.log_mean + mv.length_law(net, layer=1).log_mean)


@settings(max_examples=20)
@given(widths=st.lists(st.integers(1, 400), min_size=1, max_size=6), p=st.floats(1e-6, 1 - 1e-6))
def test_quantiles_come_back(widths, p):
    law = mv.length_law(mv.mlp(2, widths, "relu", 2.0))
    assert law.cdf(law.ppf(p)) == pytest.approx(max(p, law.dead), abs=1e-11)


# ---- what is refused -----------------------------------------------------------------------------------


def test_ends_of_the_scale():
    law = mv.length_law(relu(4, 2))
    assert law.cdf([-1.0, 0.0, np.inf]).tolist() == [0.0, law.dead, 1.0]
    assert law.ppf([0.0, law.dead, 1.0]).tolist() == [0.0, 0.0, np.inf]
    assert law.pdf([-1.0, 0.0]).tolist() == [0.0, 0.0]
    assert np.isnan(law.cdf(np.nan))
    deep = mv.length_law(mv.mlp(3, [50] * 2000, "relu", 6.0))
    assert deep.mean == math.inf
    assert deep.log_moment(1) == pytest.approx(2000 * math.log(3), rel=1e-9)


@pytest.mark.parametrize(
    ("net", "why"),
    [
        (mv.mlp(3, [4], "relu", 2.0, 0.1), r"σ_b² = 0\.1.*length_var"),
        (mv.mlp(3, [4], "tanh", 2.0), "tanh has none.*length_var"),
        (mv.mlp(3, [4], "relu", 2.0, weights="rademacher"), "rademacher weights put atoms.*ratio_moments"),
        (mv.mlp(3, [4], "relu", 2.0, weights="uniform"), "uniform.*ratio_moments"),
        (mv.mlp(3, [4, 4], "relu", 2.0, keep=0.5), "not of dropout.*length_var"),
        (mv.cnn((3, 8), [4], "relu", 2.0), "not of convolution"),
        (mv.mlp(3, [4], "relu", 0.0), "every length 0"),
    ],
)
def test_outside_the_scope(net, why):
    for law in (mv.length_law, mv.tangent_law, mv.gradient_law, mv.entry_law, mv.variance_across_layers):
        with pytest.raises(Unpredictable, match=why):
            law(net)


def test_what_no_float_holds_is_infinite():
    """M_l up to 50^300."""
    net = mv.mlp(3, [5] * 300, "relu", 100.0)
    assert mv.variance_across_layers(net) == np.inf
    assert mv.length_law(net).mean == np.inf
    assert mv.variance_across_layers(mv.mlp(3, [5] * 9, "relu", 1e50)) == np.inf


def test_bad_arguments():
    net = relu(4, 3)
    for arguments, field in (
        ({"layer": 0}, "layer"), ({"layer": 4}, "layer"), ({"below": 3}, "below"), ({"m0": 0.0}, "m0"),
        ({"m0": 2.0, "below": 1}, "m0"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=field):
            mv.length_law(net, **arguments)
    with pytest.raises(InputError, match="layer"):
        mv.gradient_law(net, layer=3)
    law = mv.length_law(net)
    for bad in (-1, 1e300, float("nan"), True):
        with pytest.raises(InputError, match="order"):
            law.moment(bad)
    assert law.moment(np.int64(1)) == law.mean
    assert law.rvs(np.int64(2), 0).shape == (2,)
    for bad in (-1, 2.5, "x", None, (2, -1)):
        with pytest.raises(InputError, match="size"):
            law.rvs(bad)
    with pytest.raises(InputError, match="random_state"):
        law.rvs(2, "x")
    for bad in (0, "x", None):
        with pytest.raises(InputError, match="width"):
            mv.ratio_moments([1.0], bad)
    with pytest.raises(InputError, match="x: got"):
        mv.ratio_moments("x", 3)
    with pytest.raises(InputError, match="p: got"):
        law.ppf(1.5)
    with pytest.raises(InputError, match="x: got"):
        mv.ratio_moments([0.0, 0.0], 3)
    with pytest.raises(InputError, match="width"):
        mv.ratio_moments([1.0], 0)
    with pytest.raises(Unpredictable, match="tanh"):
        mv.ratio_moments([1.0], 3, "tanh")


def test_laws_without_a_density():
    narrow = mv.length_law(mv.mlp(4, [4, 4], "relu", 2.0, weights="orthogonal"))
    with pytest.raises(Unpredictable, match="moments or samples"):
        narrow.cdf(1.0)
    assert narrow.moment(2) == pytest.approx(1.5**2)
    with pytest.raises(Unpredictable, match="not random"):
        mv.length_law(mv.mlp(4, [4], "linear", 2.0, weights="orthogonal")).cdf(1.0)
    with pytest.raises(Unpredictable, match="tangent_law"):
        mv.gradient_law(mv.mlp(4, [4], "relu", 2.0, weights="orthogonal"))
