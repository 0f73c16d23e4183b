"""Normalised batches and layers against closed forms, mpmath, harmonics on the sphere, and explicit batches.

Monte Carlo draws h itself and normalises it as the definition says; each of its scores must stay below 5, which a
normal score leaves with probability 6e-7, so that all those of the file together do with less than 1e-3.
"""

from __future__ import annotations

import math

import mpmath as mp
import numpy as np
import pytest
from scipy import special

from mcverify.activations import activation, custom_activation
from mcverify.errors import InputError
from mcverify.expectations import batch_gaussian, gaussian, layer_norm, sphere

SMOOTH = ["linear", "tanh", "erf", "sin", "gelu", "silu", "sigmoid", "softplus"]
KINKED = ["relu", "leaky_relu(0.2)", "elu", "selu", "hard_tanh"]
HOMOGENEOUS = ["linear", "relu", "leaky_relu(-0.5)"]
SCORE = 5.0


def centring(size: int) -> np.ndarray:
    return np.eye(size) - 1.0 / size


def score(samples: np.ndarray, truth) -> float:
    """The largest |z| of sample means over axis 0; what does not vary must be right to rounding."""
    error = samples.std(axis=0, ddof=1) / math.sqrt(len(samples))
    return float(np.max(np.abs(samples.mean(axis=0) - truth) / (error + 1e-12)))


def explicit(name: str, S: np.ndarray, G: np.ndarray, eps: float, count: int, seed: int, gain: float = 1.0):
    """Samples of φφᵀ and of J G Jᵀ, J = ∂x/∂h transposed, unit by unit; h ~ N(0, S)."""
    act, size = activation(name), len(S)
    values, vectors = np.linalg.eigh(S)
    h = np.random.default_rng(seed).standard_normal((count, size)) @ (vectors * np.sqrt(np.maximum(values, 0))).T
    centred = h - h.mean(axis=1, keepdims=True)
    spread = np.sqrt((centred**2).mean(axis=1, keepdims=True) + eps)
    y = centred / spread
    x, slope = act.phi(gain * y), gain * act.dphi(gain * y)
    # dy_a/dh_b, written out from the definition
    dy = (centring(size) - y[:, :, None] * y[:, None, :] / size) / spread[..., None]
    back = np.transpose(dy, (0, 2, 1)) * slope[:, None, :]
    return x[:, :, None] * x[:, None, :], back @ G @ np.transpose(back, (0, 2, 1))


# ------------------------------------------------------------------------------------------- known answers


def test_growth_of_relu_and_linear() -> None:
    assert sphere.gradient_growth("relu", 16).value == pytest.approx(1.589950, abs=5e-7)
    assert sphere.gradient_growth("relu", 32).value == pytest.approx(1.521953, abs=5e-7)
    # 1/B corrections: two sizes extrapolate to what is left at 1/B²
    at = {B: float(sphere.gradient_growth("relu", B).value) for B in (10**5, 2 * 10**5)}
    assert 2 * at[2 * 10**5] - at[10**5] == pytest.approx(math.pi / (math.pi - 1), abs=1e-9)
    for B in (4, 5, 16, 1000):
        assert sphere.gradient_growth("linear", B).value == pytest.approx((B - 2) / (B - 3), rel=1e-14)


def slope_trace(name: str, B: int, gain: float = 1.0) -> float:
    """T = E tr[(P − yyᵀ/B) D P D], P = I − 11ᵀ/B, D = diag g·φ′(g·y): m (B − 1)/E v⁻¹ of the image m·P of P."""
    found = sphere.pull_back(name, B, 1 - 1 / B, -1 / B, variance_across=1.0, gain=gain)
    return float(found.value) * (B - 1) / sphere.inverse_variance(B)


def test_relu_as_written_out() -> None:
    for B in (4, 7, 32):
        rho = -1 / (B - 1)
        covariance = (math.sqrt(1 - rho**2) + rho * (math.pi - math.acos(rho))) / (2 * math.pi)
        both = 0.25 + math.asin(rho) / (2 * math.pi)
        contrast = 0.5 - covariance
        trace = B / 2 - 1 + (B / 2 + B * (B - 1) * both) / B**2 - (B - 1) / B * contrast
        assert sphere.contrast("relu", B).value == pytest.approx(contrast, rel=1e-13)
        assert slope_trace("relu", B) == pytest.approx(trace, rel=1e-13)


def test_batch_of_two_is_plus_and_minus_one() -> None:
    for name in SMOOTH + KINKED:
        act, ends = activation(name), np.array([1.0, -1.0])
        found, value, slope = sphere.moments(name, 2), act.phi(ends), act.dphi(ends)
        assert found.phi2.value == pytest.approx((value**2).mean(), rel=1e-14)
        assert found.phi_phi.value == pytest.approx(value.prod(), rel=1e-13, abs=1e-16)
        assert found.turn_turn.value == pytest.approx(-slope.prod(), rel=1e-13, abs=1e-16)


def precise(f, B: int, kinks=()) -> tuple[mp.mpf, mp.mpf]:
    """E f(y_a)², E f(y_a)f(y_b) to some 20 digits, B ≥ 4: Cartesian coordinates t, s rather than angles."""
    with mp.workdps(25):
        R, rho = mp.sqrt(B - 1), mp.mpf(-1) / (B - 1)

        def mean(g, power, points):  # E g(t), density ∝ (1 − t²)^power
            weight = mp.beta(mp.mpf(1) / 2, power + 1)
            return mp.quad(lambda t: g(t) * (1 - t * t) ** power, [-1, *points, 1]) / weight

        half = mp.mpf(1) / 2
        inside = [k / R for k in kinks if abs(k) < R]

        def inner(t):
            across = mp.sqrt((1 - rho**2) * (1 - t * t))
            points = sorted(s for s in ((k / R - rho * t) / across for k in kinks) if abs(s) < 1) if across else []
            return mean(lambda s: f(R * (rho * t + across * s)), half * (B - 5), points)

        own = mean(lambda t: f(R * t) ** 2, half * (B - 4), inside)
        turns = sorted(x for k in kinks for x in {mp.sin(mp.asin(k / R) - mp.acos(rho)), -rho * k / R} if abs(x) < 1)
        cross = mean(lambda t: f(R * t) * inner(t), half * (B - 4), sorted({*inside, *turns}))
        return own, cross


@pytest.mark.parametrize(
    ("name", "f", "slope"),
    [
        ("tanh", mp.tanh, lambda u: mp.sech(u) ** 2),
        ("softplus", lambda u: mp.log1p(mp.exp(u)), lambda u: 1 / (1 + mp.exp(-u))),
    ],
)
def test_against_mpmath(name: str, f, slope) -> None:
    B = 7
    found = sphere.moments(name, B)
    for own, cross, g in [
        (found.phi2, found.phi_phi, f),
        (found.slope2, found.slope_slope, slope),
        (found.turn2, found.turn_turn, lambda u: u * slope(u)),
    ]:
        for got, truth in zip((own, cross), precise(g, B), strict=True):
            assert abs(float(mp.mpf(float(got.value)) - truth)) <= got.error < 1e-13


@pytest.mark.parametrize("name", ["hard_tanh", "elu"])
def test_kinks_against_mpmath_one_dimension(name: str) -> None:
    # one coordinate for B = 5, density ∝ √(1 − t²): the pair is held by harmonics and Monte Carlo
    act, B = activation(name), 5
    found = sphere.moments(name, B).phi2
    kinks = [k / 2 for k in act.kinks]
    with mp.workdps(25):
        phi = {"hard_tanh": lambda u: max(-1, min(1, u)), "elu": lambda u: u if u > 0 else mp.expm1(u)}[name]
        truth = mp.quad(lambda t: phi(2 * t) ** 2 * mp.sqrt(1 - t * t), [-1, *kinks, 1]) * 2 / mp.pi
    assert abs(float(mp.mpf(float(found.value)) - truth)) <= found.error


# -------------------------------------------------------------------------------------------- one dimension less


def by_harmonics(name: str, B: int, gain: float, top: int = 160) -> tuple[float, float]:
    """(Λ, T) from φ(√(B−1)t) = Σ a_k p_k(t), p_k orthonormal zonal harmonics: degree k has E f(y_a)f(y_b) =
    a_k² p_k(ρ)/p_k(1) and the Laplacian eigenvalue k(k + B − 3)/B. No second integral, no derivative of φ."""
    alpha = 0.5 * (B - 3)  # Gegenbauer parameter, B ≥ 4
    t, w = special.roots_gegenbauer(400, alpha)
    k = np.arange(top)[:, None]
    basis = special.eval_gegenbauer(k, alpha, t)
    size = np.sqrt((basis**2 * w).sum(axis=1) / w.sum())
    a = (basis / size[:, None] * w) @ activation(name).phi(gain * math.sqrt(B - 1) * t) / w.sum()
    k = k[:, 0]
    ratio = special.eval_gegenbauer(k, alpha, -1 / (B - 1)) / special.eval_gegenbauer(k, alpha, 1.0)
    mass = a**2 * (1 - ratio)
    return float(mass.sum()), float((B - 1) * (k * (k + B - 3) / B * mass).sum())


def holds_harmonics(B: int = 8) -> None:
    for name in SMOOTH:
        contrast, trace = by_harmonics(name, B, 0.8)
        # 400 nodes leave some 1e-13 of a sum of squares
        assert float(sphere.contrast(name, B, gain=0.8).value) == pytest.approx(contrast, rel=1e-11)
        assert slope_trace(name, B, gain=0.8) == pytest.approx(trace, rel=1e-11)


@pytest.mark.parametrize("B", [4, 5, 8, 33])
def test_against_harmonics(B: int) -> None:
    holds_harmonics(B)


@pytest.mark.parametrize("B", [2, 3, 4, 5, 6, 16, 33, 300])
@pytest.mark.parametrize("name", HOMOGENEOUS)
def test_closed_against_quadrature(name: str, B: int) -> None:
    closed, found = sphere.moments(name, B, gain=1.7), sphere.moments(name, B, gain=1.7, method="quadrature")
    for a, b in zip(closed, found, strict=True):
        assert abs(a.value - b.value) <= a.error + b.error < 1e-12


@pytest.mark.parametrize("name", [*SMOOTH, *KINKED])
def test_large_batches_are_gaussian(name: str) -> None:
    off = [float(sphere.second_moment(name, B).value - gaussian.second_moment(name, 1.0).value) for B in (1000, 4000)]
    assert abs(off[0]) < 2e-3
    assert off[1] == pytest.approx(off[0] / 4, rel=0.02, abs=1e-14)


@pytest.mark.parametrize("B", [4, 6, 16, 64])
def test_no_activation_beats_the_linear_one(B: int) -> None:
    """Poincaré's inequality on the sphere: growth ≥ (B−2)/(B−3) > 1. Batch norm itself makes gradients explode."""
    linear = (B - 2) / (B - 3)
    for name in [*SMOOTH, *KINKED]:
        for gain in (0.1, 1.0, 3.0):
            found = sphere.gradient_growth(name, B, gain=gain)
            assert found.value >= linear - found.error
            straight = name == "hard_tanh" and gain * math.sqrt(B - 1) < 1  # never reaches its kinks
            if name != "linear" and not straight:
                assert found.value > linear * (1 + 1e-8)


def test_a_small_gain_is_linear() -> None:
    # tanh(gy) = gy − (gy)³/3: only the third harmonic is left, of weight g⁴; at B → ∞ (4/3)g⁴
    for B in (5, 16):
        over = [float(sphere.gradient_growth("tanh", B, gain=g).value) * (B - 3) / (B - 2) - 1 for g in (0.02, 0.04)]
        assert over[1] / over[0] == pytest.approx(16, rel=0.01)
    growth = float(sphere.gradient_growth("tanh", 10**6, gain=0.05).value)
    assert (growth - 1 - 1e-6) / 0.05**4 == pytest.approx(4 / 3, rel=0.02)


# ------------------------------------------------------------------------------------------- explicit batches


def holds_explicitly(name: str, B: int, eps: float, seed: int) -> None:
    # κ moves every input alike; gradients of B = 4, 5 have no variance, so that their means have no score
    lam, gain, own, cross = 0.6, 1.3, 1.0, 0.25
    S, G = lam * np.eye(B) + 0.4, np.full((B, B), cross) + (own - cross) * np.eye(B)
    forward, back = explicit(name, S, G, eps, 60_000, seed, gain)
    square, product = sphere.propagate(name, B, variance_across=lam, eps=eps, gain=gain)
    off = (forward.sum(axis=(1, 2)) - np.trace(forward, axis1=1, axis2=2)) / (B * (B - 1))
    assert score(np.trace(forward, axis1=1, axis2=2) / B, square.value) < SCORE
    assert score(off, product.value) < SCORE
    if B > 5 or eps:
        m = sphere.pull_back(name, B, own, cross, variance_across=lam, eps=eps, gain=gain)
        assert m.error < (1e-3 if name == "hard_tanh" else 1e-9) * abs(m.value)  # kinks that leave: the docstring
        assert score(back, m.value * centring(B)) < SCORE


@pytest.mark.parametrize("eps", [0.0, 0.2])
@pytest.mark.parametrize(("name", "B"), [("tanh", 2), ("hard_tanh", 3), ("elu", 4), ("relu", 7), ("gelu", 12)])
def test_against_explicit_batches(name: str, B: int, eps: float) -> None:
    holds_explicitly(name, B, eps, seed=100 + B)


def test_growth_is_two_layers_of_the_definition() -> None:
    # forward: h of variance Λ across; backward: m for G = P, own = 1 − 1/B and cross = −1/B
    for name, B in (("tanh", 9), ("relu", 6), ("hard_tanh", 20)):
        across = float(sphere.contrast(name, B).value)
        m = sphere.pull_back(name, B, 1 - 1 / B, -1 / B, variance_across=across)
        assert sphere.gradient_growth(name, B).value == pytest.approx(float(m.value), rel=1e-12)


@pytest.mark.parametrize("B", [8, 12, 40])
def test_inverse_variance(B: int) -> None:
    v = np.random.default_rng(B).chisquare(B - 1, 10**6) / B
    assert score(1 / v, sphere.inverse_variance(B)) < SCORE
    if B > 9:  # else v⁻² has no variance
        assert score(v**-2.0, sphere.inverse_variance(B, 2)) < SCORE


# --------------------------------------------------------------------------------------- any batch covariance


def uneven(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x, g = rng.standard_normal((size, size - 2)), rng.standard_normal((size, 3))
    return x @ x.T / size + 0.2 * np.eye(size) + 0.5, g @ g.T + 0.3


@pytest.mark.parametrize("eps", [0.0, 0.15])
@pytest.mark.parametrize("B", [4, 5, 16])
@pytest.mark.parametrize("name", HOMOGENEOUS)
def test_symmetric_covariances_reduce_to_the_sphere(name: str, B: int, eps: float) -> None:
    S, G = 0.7 * np.eye(B) + 0.4, np.eye(B) + 0.3
    forward, back = batch_gaussian.propagate(name, S, eps=eps), batch_gaussian.pull_back(name, S, G, eps=eps)
    own, cross = sphere.propagate(name, B, variance_across=0.7, eps=eps)
    m = sphere.pull_back(name, B, 1.3, 0.3, variance_across=0.7, eps=eps)
    truth = np.full((B, B), cross.value) + (own.value - cross.value) * np.eye(B)
    assert np.all(np.abs(forward.value - truth) <= forward.error + own.error + cross.error)
    assert np.all(np.abs(back.value - m.value * centring(B)) <= back.error + m.error)
    assert forward.error.max() < 1e-9
    assert back.error.max() < 1e-9 * m.value


def holds_any_covariance(name: str, eps: float, seed: int = 17) -> None:
    S, G = uneven(8, seed)
    forward, back = explicit(name, S, G, eps, 150_000, seed)
    assert score(forward, batch_gaussian.propagate(name, S, eps=eps).value) < SCORE
    assert score(back, batch_gaussian.pull_back(name, S, G, eps=eps).value) < SCORE


@pytest.mark.parametrize("eps", [0.0, 0.15])
@pytest.mark.parametrize("name", HOMOGENEOUS)
def test_any_covariance_against_explicit_batches(name: str, eps: float) -> None:
    holds_any_covariance(name, eps)


def test_two_variances_against_mpmath() -> None:
    # B = 3, C of rank 2 with variances p, q along orthonormal u, v: y = √3(u cos α + v sin α), with density
    # ∝ 1/(cos²α/p + sin²α/q): one integral over the circle
    u, v = np.array([1, -1, 0]) / math.sqrt(2), np.array([1, 1, -2]) / math.sqrt(6)
    p, q = 2.0, 0.3
    found = batch_gaussian.propagate("relu", p * np.outer(u, u) + q * np.outer(v, v) + 1.0)
    for a, b in ((0, 0), (0, 1), (1, 2)):
        kinks = sorted(float((math.atan2(-u[i], v[i]) + k * math.pi) % (2 * math.pi)) for i in (a, b) for k in (0, 1))
        with mp.workdps(25):

            def density(x):
                return 1 / (mp.cos(x) ** 2 / p + mp.sin(x) ** 2 / q)

            def relu(x, i):
                return max(mp.sqrt(3) * (u[i] * mp.cos(x) + v[i] * mp.sin(x)), mp.mpf(0))

            edges = [0, *kinks, 2 * mp.pi]
            top = mp.quad(lambda x, a=a, b=b: relu(x, a) * relu(x, b) * density(x), edges)
            truth = float(top / mp.quad(density, edges))
        assert abs(found.value[a, b] - truth) <= found.error[a, b] + 1e-15


def test_what_must_hold_for_any_covariance() -> None:
    S, G = uneven(8, 5)
    assert np.trace(batch_gaussian.propagate("linear", S).value) == pytest.approx(8, rel=1e-10)  # Σ y² = B
    both = [batch_gaussian.propagate("relu", c * S + s).value for c, s in ((1.0, 0.0), (30.0, 4.0))]
    assert np.allclose(*both, rtol=0, atol=1e-9)  # neither scale nor a shift of all inputs matters at ε = 0
    back = batch_gaussian.pull_back("relu", S, G).value
    assert np.abs(back.sum(axis=0)).max() < 1e-12  # δ is orthogonal to 1
    assert np.linalg.eigvalsh(back).min() > -1e-12
    linear = batch_gaussian.pull_back("linear", S, np.eye(8)).value  # tr (P − yyᵀ/B)/v = (B − 2) E 1/v
    h = np.random.default_rng(2).multivariate_normal(np.zeros(8), S, 400_000)
    assert score(6 / h.var(axis=1), np.trace(linear)) < SCORE


def test_repeated_inputs() -> None:
    x = np.random.default_rng(4).standard_normal((6, 9))
    S = np.vstack([x, x[:1]]) @ np.vstack([x, x[:1]]).T / 9
    assert batch_gaussian.rank(S) == 5
    found = batch_gaussian.propagate("relu", S)
    assert np.allclose(found.value[0], found.value[6], rtol=0, atol=1e-12)
    assert np.all(np.isfinite(batch_gaussian.pull_back("relu", S, np.eye(7)).value))


# ---------------------------------------------------------------------------------------- a large batch, any φ


def spread_out(B: int) -> np.ndarray:
    wave = np.cos(np.arange(B))
    return np.diag(np.linspace(0.3, 1.7, B)) + 0.2 * np.outer(wave, wave) / math.sqrt(B)


@pytest.mark.parametrize("eps", [0.0, 0.2])
def test_remainder_of_the_limit_against_the_exact_relu(eps: float) -> None:
    first, second, totals = [], [], []
    for B in (32, 64, 128):
        S, G = spread_out(B), np.eye(B) + 0.3
        exact, found = batch_gaussian.propagate("relu", S, eps=eps).value, batch_gaussian.limit("relu", S, eps=eps)
        first.append(np.abs(exact - found.value).max())
        second.append(np.abs(exact - found.value - found.correction).max())
        total = np.trace(batch_gaussian.pull_back("relu", S, G, eps=eps).value)
        back, more = batch_gaussian.limit_pull_back("relu", S, G, eps=eps)
        totals.append(abs(total / (np.trace(back.value) + more) - 1))
    for sizes, order in ((first, 1), (second, 2), (totals, 2)):
        for near, far in zip(sizes[1:], sizes[:-1], strict=True):
            assert math.log2(far / near) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize("name", ["tanh", "gelu", "hard_tanh", "elu"])
def test_remainder_of_the_limit_against_the_sphere(name: str) -> None:
    left = []
    for B in (32, 64):
        S, G = 0.7 * np.eye(B) + 0.4, np.eye(B) + 0.2
        found, (own, cross) = batch_gaussian.limit(name, S), sphere.propagate(name, B)
        truth = np.full((B, B), cross.value) + (own.value - cross.value) * np.eye(B)
        back, more = batch_gaussian.limit_pull_back(name, S, G)
        total = sphere.pull_back(name, B, 1.2, 0.2, variance_across=0.7).value * (B - 1)
        off = np.abs(truth - found.value - found.correction).max()
        assert off < 0.2 * np.abs(truth - found.value).max()
        left.append((off, abs(total / (np.trace(back.value) + more) - 1)))
    for far, near in zip(*left, strict=True):
        assert math.log2(far / near) == pytest.approx(2, abs=0.3)


# ----------------------------------------------------------------------------------------- layer normalisation


def layer_normalised(n: int, mean: np.ndarray, root: np.ndarray, eps: float, count: int, seed: int):
    """Samples, one per layer of n units, of (1/n)Σ y_a y_b and of Σ δ_a δ_b at h, δ at y standard normal."""
    rng = np.random.default_rng(seed)
    h = mean[:, None] + np.einsum("ab,rbn->ran", root, rng.standard_normal((count, len(root), n)))
    y = (h - h.mean(axis=-1, keepdims=True)) / np.sqrt(h.var(axis=-1, keepdims=True) + eps)
    delta = rng.standard_normal((count, 1, n)) + 0.5 * rng.standard_normal(y.shape)
    along = (delta * y).mean(axis=-1, keepdims=True)
    down = (delta - delta.mean(axis=-1, keepdims=True) - along * y) / np.sqrt(h.var(axis=-1, keepdims=True) + eps)
    return y @ y.transpose(0, 2, 1) / n, down @ down.transpose(0, 2, 1) / n


@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_layer_norm_in_the_wide_limit(eps: float) -> None:
    root, mean = np.array([[1.0, 0.0], [0.6, 0.5]]), np.array([0.8, -0.3])
    S, G = root @ root.T + np.outer(mean, mean), np.ones((2, 2)) + 0.25 * np.eye(2)
    off = []
    for n in (50, 200):
        forward, back = layer_normalised(n, mean, root, eps, 20_000, n)
        truth = layer_norm.propagate(S, mean, eps=eps), layer_norm.pull_back(S, G, mean, eps=eps)
        off.append([np.abs(s.mean(axis=0) - t).max() for s, t in zip((forward, back), truth, strict=True)])
        noise = max(float(s.std(axis=0).max()) for s in (forward, back)) / math.sqrt(20_000)
        assert max(off[-1]) < 5.0 / n + SCORE * noise  # some units of 1/n: relatively 3/n and less
    assert np.abs(layer_norm.propagate(S, 0.0) - layer_norm.propagate(S, mean)).max() > 0.3  # the mean matters


def test_layer_norm_at_finite_width() -> None:
    _, back = layer_normalised(10, np.zeros(1), np.array([[1.5]]), 0.0, 200_000, 1)
    truth = layer_norm.pull_back(np.array([[2.25]]), np.array([[1.25]]))[0, 0] * 8 / 7  # (n − 2)/(n − 3)
    assert score(back[:, 0, 0], truth) < SCORE
    assert np.diagonal(layer_norm.propagate(np.array([[2.0, 0.5], [0.5, 3.0]]))) == pytest.approx(1.0)


# -------------------------------------------------------------------------------------------------- bad input


def refused(match: str, call, *given, **more) -> None:
    with pytest.raises(InputError, match=match) as told:
        call(*given, **more)
    assert "\n" not in str(told.value)


def test_bad_input_gets_one_clear_line() -> None:
    refused("must be above 3: else gradients have no finite mean", sphere.gradient_growth, "relu", 3)
    refused("must be above 5: else gradients have no finite variance", sphere.inverse_variance, 5, 2)
    refused("at least 2", sphere.moments, "relu", 1)
    refused("gain", sphere.moments, "relu", 4, gain=0.0)
    refused("variance_across", sphere.propagate, "relu", 4, variance_across=0.0)
    refused("no closed form", sphere.moments, "tanh", 4, method="closed")
    flat = custom_activation("flat", lambda u: np.ones_like(u), np.zeros_like)
    refused("must tell inputs apart", sphere.gradient_growth, flat, 6)
    refused("positively homogeneous", batch_gaussian.propagate, "tanh", np.eye(4))
    refused("divides 0 by 0", batch_gaussian.propagate, "relu", np.ones((4, 4)))
    refused("rank above 2", batch_gaussian.pull_back, "relu", np.eye(3), np.eye(3))
    refused("shape of S", batch_gaussian.pull_back, "relu", np.eye(5), np.eye(4))
    refused("symmetric", batch_gaussian.propagate, "relu", np.triu(np.ones((3, 3))))
    refused("negative eigenvalue", batch_gaussian.propagate, "relu", np.diag([1.0, -1.0, 1.0]))
    refused("divides 0 by 0", layer_norm.propagate, np.ones((2, 2)), 1.0)
    refused("mean² ≤ S", layer_norm.propagate, np.ones((2, 2)), 2.0)


# --------------------------------------------------------------------------------------------- planted errors


def wrong_rule(power, *rest, rule=sphere._rule):
    return rule(power + 1, *rest)  # the sphere of one dimension more: the mean was not taken out


def wrong_trace(found, batch, gain, own, cross, radial=1.0, trace=sphere._trace):
    return trace(found, batch, gain, own, cross, 0.0)  # the spread was not differentiated


@pytest.mark.parametrize(
    ("module", "name", "planted", "check"),
    [
        (sphere, "_rule", wrong_rule, lambda: holds_harmonics()),
        (sphere._Batch, "rho", 0.0, lambda: holds_harmonics()),
        (sphere, "_trace", wrong_trace, lambda: holds_harmonics()),
        (sphere, "_damped", lambda *_: False, lambda: holds_explicitly("relu", 7, 0.2, seed=107)),
        (batch_gaussian, "_bends", np.zeros_like, lambda: holds_any_covariance("relu", 0.0)),
        (batch_gaussian, "_bends", np.zeros_like, lambda: holds_any_covariance("leaky_relu(-0.5)", 0.15)),
    ],
)  # fmt: skip
def test_planted_errors_are_caught(monkeypatch, module, name: str, planted, check) -> None:
    sphere._quadrature.cache_clear()
    monkeypatch.setattr(module, name, planted)
    with pytest.raises(AssertionError):
        check()
    sphere._quadrature.cache_clear()
