"""Expectations over a permutation-symmetric batch after batch normalisation: points on a sphere.

Per unit, y = (h − mean)/√(variance + ε) over B inputs, the variance the population's. Where h is Gaussian and all
inputs are alike, h ~ N(0, λI + κ11ᵀ), and ε = 0, y is √B times a uniform point of the unit sphere of 1^⊥, of dimension
B − 1, whatever λ and κ (Yang, Pennington, Rao, Sohl-Dickstein & Schoenholz 2019, arXiv:1902.08129):

    y_a = √(B−1) sin θ                                density of θ on ±π/2 ∝ cos^(B−3) θ        B ≥ 3
    y_b = √(B−1) (ρ sin θ + √(1−ρ²) cos θ sin ψ)      density of ψ on ±π/2 ∝ cos^(B−4) ψ        B ≥ 4

ρ = −1/(B−1). At B = 3, ψ = ±π/2; at B = 2, y = ±(1, −1). In these angles the weights are entire, so composite
Gauss–Legendre rules with edges at the kinks of φ converge geometrically at every B. Positively homogeneous φ are
closed: the radius of a Gaussian and its direction are independent, so that E φ(y_a)φ(y_b) and E φ′(y_a)φ′(y_b) are
those of a Gaussian pair of unit variances and correlation ρ.

Every function takes B ≥ 2 unless it says otherwise, and `gain` g, the scale inside φ(g·y). Where B counts columns,
(input, position), all columns must be alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import special

from mcverify.activations import Activation, activation
from mcverify.errors import InputError
from mcverify.expectations import gaussian
from mcverify.expectations.gaussian import Expectation, Method
from mcverify.expectations.integrand import EPS, Integrand
from mcverify.expectations.quadrature import DISTRUST, LOOSE, STRICT, accuracy, graded_edges, levels_between, nodes
from mcverify.validate import count, positive, variance

Floats: TypeAlias = NDArray[np.float64]

_HALF_PI = 0.5 * math.pi
_BLOCK = 1 << 19  # array elements per evaluation
_SPLITS = 4
_REACH = 10.0
"""Angles are cut at this many standard deviations 1/√power, where cos^power < e^−50."""
_SINGULAR = {STRICT: 2.0**-40, LOOSE: 2.0**-20}
"""Finest panel where the inner integral may go like the square root of the distance: it leaves the power 3/2 of it."""
_RADII = 0.125
"""Step in log r² of the trapezoidal rule over the radius."""
_STEEPEST = 1e12
"""The largest gain: φ(g·y) is then what it tends to, to rounding, and panels are as fine as floats tell apart."""


class Moments(NamedTuple):
    """Six expectations over the sphere, (value, error) each, u = g·y: of φ(u), φ′(u) and y·φ′(u), each once squared
    and once as a product over two different inputs."""

    phi2: Expectation
    phi_phi: Expectation
    slope2: Expectation
    slope_slope: Expectation
    turn2: Expectation
    turn_turn: Expectation


# ------------------------------------------------------------------------------------------ expectations


def moments(
    act: str | Activation, batch: int, *, gain: float = 1.0, rtol: float = 1e-12, method: Method = "auto"
) -> Moments:
    """The six moments of which everything here is made. φ′ is what the table says: its jumps are no part of it.

    `method`: "closed" for positively homogeneous φ alone; "quadrature" uses no closed form; "auto" either."""
    row = activation(act)
    _check(batch, gain, rtol)
    if method != "quadrature" and row.slopes is not None:
        return _homogeneous(row, batch, gain)
    if method == "closed":
        raise InputError("method", method, f"{row.name} has no closed form on the sphere")
    return _quadrature(row, int(batch), float(gain), rtol)


def second_moment(
    act: str | Activation, batch: int, *, gain: float = 1.0, rtol: float = 1e-12, method: Method = "auto"
) -> Expectation:
    """E φ(g·y_a)²."""
    return moments(act, batch, gain=gain, rtol=rtol, method=method).phi2


def covariance(
    act: str | Activation, batch: int, *, gain: float = 1.0, rtol: float = 1e-12, method: Method = "auto"
) -> Expectation:
    """E φ(g·y_a)φ(g·y_b) for a ≠ b."""
    return moments(act, batch, gain=gain, rtol=rtol, method=method).phi_phi


def contrast(
    act: str | Activation, batch: int, *, gain: float = 1.0, rtol: float = 1e-12, method: Method = "auto"
) -> Expectation:
    """Λ = E φ(g·y_a)² − E φ(g·y_a)φ(g·y_b): the eigenvalue of E φφᵀ on 1^⊥, ½E(φ_a − φ_b)².

    0 only where φ cannot tell the inputs apart: constant φ, and even φ at B = 2."""
    return _difference(moments(act, batch, gain=gain, rtol=rtol, method=method))


# ----------------------------------------------------------------------------------------------- gradients


def gradient_growth(
    act: str | Activation, batch: int, *, gain: float = 1.0, rtol: float = 1e-12, method: Method = "auto"
) -> Expectation:
    """Growth per layer of E‖∂E/∂h‖² going down a plain network of maps, BN and φ(g·y): [B/(Λ(B−3))]·T/(B−1).

    A limit in the width, at ε = 0, for a symmetric batch; no matter what σ_w² and σ_b². B > 3. Never less than its
    value for linear φ, (B−2)/(B−3), which tanh(g·y) reaches as g → 0: like 1 + (4/3)g⁴ times it at B → ∞. relu has
    π/(π−1) at B → ∞. As B → ∞ it is ⟨φ′²⟩/(⟨φ²⟩ − ⟨φ⟩²) under N(0, 1)."""
    inverse = inverse_variance(batch)
    found = moments(act, batch, gain=gain, rtol=rtol, method=method)
    across, trace = _difference(found), _trace(found, batch, gain, (batch - 1.0) / batch, -1.0 / batch)
    if across.value <= across.error:
        told = f"must tell inputs apart at batch {batch} and gain {gain:g}"
        raise InputError("activation", activation(act).name, told)
    value = inverse * trace.value / (across.value * (batch - 1.0))
    relative = trace.error / np.maximum(np.abs(trace.value), 1e-300) + across.error / across.value
    return Expectation(value, np.abs(value) * (relative + 8 * EPS))


def inverse_variance(batch: int, order: int = 1) -> float:
    """E v^−order, v the batch's population variance, where h has variance 1 on 1^⊥: B/(B−3) for order 1 and
    B²/((B−3)(B−5)) for order 2. Exact. Raises InputError unless B > 2·order + 1: the mean of a squared gradient needs
    B > 3, and its variance, so that sample means have a standard error, B > 5."""
    if order not in (1, 2):
        raise InputError("order", order, "allowed: 1 or 2")
    count("batch", batch, least=2)
    if batch <= 2 * order + 1:
        what = "mean" if order == 1 else "variance"
        raise InputError("batch", batch, f"must be above {2 * order + 1}: else gradients have no finite {what}")
    return batch / (batch - 3.0) if order == 1 else batch**2 / ((batch - 3.0) * (batch - 5.0))


# ------------------------------------------------------------------------------ signal and gradient of a layer


def propagate(
    act: str | Activation,
    batch: int,
    *,
    variance_across: float = 1.0,
    eps: float = 0.0,
    gain: float = 1.0,
    rtol: float = 1e-12,
) -> tuple[Expectation, Expectation]:
    """(E φ(g·y_a)², E φ(g·y_a)φ(g·y_b)) for h ~ N(0, λI + κ11ᵀ), any κ; λ = variance_across.

    λ matters with ε > 0 alone: then y shrinks by √(v/(v+ε)), v = λχ²_{B−1}/B, and the moments are averaged over it: a
    hundred times the work. Kinks away from 0 (hard_tanh) leave the batch's range as v falls, and the average converges
    slowly at small B then, as the error says: 1e-4 at B = 4 and ε = λ/3, 1e-10 from B = 8 on, or at ε = λ·1e-5."""
    _check(batch, gain, rtol)
    if not _damped(variance_across, eps):
        found = moments(act, batch, gain=gain, rtol=rtol)
        return found.phi2, found.phi_phi

    def at(shrink: float, v: float) -> list[Expectation]:
        found = moments(act, batch, gain=gain * shrink, rtol=rtol)
        return [found.phi2, found.phi_phi]

    own, cross = _over_radius(at, batch, variance_across, eps)
    return own, cross


def pull_back(
    act: str | Activation,
    batch: int,
    own: float,
    cross: float,
    *,
    variance_across: float,
    eps: float = 0.0,
    gain: float = 1.0,
    rtol: float = 1e-12,
) -> Expectation:
    """The m for which E Σ_i δ_ia δ_ib at h is m·P, given that at x = φ(g·BN(h)) it is `own` for a = b and `cross` for
    a ≠ b, δ independent of h there.

        m = E[v⁻¹ tr((P − yyᵀ/B)² D G D)]/(B−1),  h ~ N(0, λI + κ11ᵀ), λ = variance_across, v the variance plus ε

    B > 3, but any B where ε > 0. The image is that of the whole layer: δ at y depends on y, so that it cannot be
    found from its moments there."""
    _check(batch, gain, rtol)
    if not _damped(variance_across, eps):
        found = moments(act, batch, gain=gain, rtol=rtol)
        trace, scale = _trace(found, batch, gain, own, cross), inverse_variance(batch) / variance_across / (batch - 1.0)
        return Expectation(trace.value * scale, trace.error * abs(scale))

    def at(shrink: float, v: float) -> list[Expectation]:
        found = moments(act, batch, gain=gain * shrink, rtol=rtol)
        # (P − s²ωωᵀ)² = P − s²(2 − s²)ωωᵀ, ω = y/(s√B) the point of the unit sphere
        trace = _trace(found, batch, gain, own, cross, radial=shrink**2 * (2.0 - shrink**2))
        return [Expectation(trace.value / (v + eps), trace.error / (v + eps))]

    (out,) = _over_radius(at, batch, variance_across, eps)
    return Expectation(out.value / (batch - 1.0), out.error / (batch - 1.0))


def _trace(found: Moments, batch: int, gain: float, own: float, cross: float, radial: float = 1.0) -> Expectation:
    """E tr[(P − radial·ωωᵀ) D G D], ω = y/√B, G = own on the diagonal and cross off it, D = diag g·φ′."""
    terms = [
        (own * (batch - 1.0), found.slope2), (-own * radial, found.turn2),
        (-cross * (batch - 1.0), found.slope_slope), (-cross * (batch - 1.0) * radial, found.turn_turn),
    ]  # fmt: skip
    value = sum((c * e.value for c, e in terms), np.zeros(()))
    error = sum((abs(c) * (e.error + EPS * np.abs(e.value)) for c, e in terms), np.zeros(()))
    return Expectation(gain**2 * value, gain**2 * error)


def _difference(found: Moments) -> Expectation:
    return Expectation(found.phi2.value - found.phi_phi.value, found.phi2.error + found.phi_phi.error)


# ---------------------------------------------------------------------------------------- the radius, for ε > 0


def _damped(variance_across: float, eps: float) -> bool:
    positive("variance_across", variance_across)
    variance("eps", eps)
    return eps > 0.0


def _over_radius(
    at: Callable[[float, float], list[Expectation]], batch: int, variance_across: float, eps: float
) -> list[Expectation]:
    """E of at(√(v/(v+ε)), v) over v = λχ²_{B−1}/B, by the trapezoidal rule in log v: the integrand is analytic about
    the real line there, so that it converges like e^(−c/step); every second node gives the error."""
    half = 0.5 * (batch - 1.0)
    centre, width = math.log(half), 1.0 / math.sqrt(half)
    # the density of log χ²/2 falls like e^(half·x) to the left and double exponentially to the right
    low, high = centre - 40.0 / half - 9.0 * width, centre + math.log1p(9.0 * width + 40.0 / half)
    step = _RADII * min(1.0, 2.0 * width)
    x = np.arange(low, high, step)
    weight = np.exp(half * x - np.exp(x) - special.gammaln(half))
    weight, x = weight[weight > 1e-18 * weight.max()], x[weight > 1e-18 * weight.max()]
    v = 2.0 * variance_across * np.exp(x) / batch
    found = [at(math.sqrt(s), each) for s, each in zip(v / (v + eps), v, strict=True)]
    out = []
    for column in zip(*found, strict=True):
        value, error = (np.array([float(e[i]) for e in column]) for i in (0, 1))
        fine, coarse = (value[::k] @ weight[::k] / weight[::k].sum() for k in (1, 2))
        out.append(Expectation(fine, abs(fine - coarse) + error @ weight / weight.sum() + 1e-15 * np.abs(value).max()))
    return out


# -------------------------------------------------------------------------------------------- closed forms


def _homogeneous(row: Activation, batch: int, gain: float) -> Moments:
    rho = -1.0 / (batch - 1.0)
    across = gaussian.covariance(row, 1.0, rho, 1.0, method="closed")
    slopes = gaussian.derivative_covariance(row, 1.0, rho, 1.0, method="closed")
    own = gaussian.second_moment(row, 1.0, method="closed")
    slope = gaussian.derivative_second_moment(row, 1.0, method="closed")

    def times(e: Expectation, factor: float) -> Expectation:
        return Expectation(factor * e.value, factor * e.error)

    return Moments(times(own, gain**2), times(across, gain**2), slope, slopes, own, across)


# ---------------------------------------------------------------------------------------------- quadrature


class _Batch(NamedTuple):
    """The integrand and its geometry: u_a = radius·sin θ, u_b = radius·sin θ cos γ + radius·sin γ cos θ sin ψ."""

    row: Activation
    size: int
    gain: float
    singular: float

    @property
    def radius(self) -> float:
        return self.gain * math.sqrt(self.size - 1.0)

    @property
    def rho(self) -> float:
        return -1.0 / (self.size - 1.0)

    @property
    def rest(self) -> float:
        """sin γ = √(1 − ρ²), without cancellation."""
        return math.sqrt(self.size * (self.size - 2.0)) / (self.size - 1.0)

    @property
    def points(self) -> Floats:
        """Where φ bends: 0 and its kinks."""
        return np.array([0.0, *(k for k in self.row.kinks if k != 0.0)])

    def values(self, u: Floats) -> Floats:
        """φ(u), φ′(u), y·φ′(u): (3, *u.shape)."""
        slope = Integrand("dphi", self.row.dphi)(u)
        return np.stack([Integrand("phi", self.row.phi)(u), slope, u / self.gain * slope])


@lru_cache(maxsize=512)
def _quadrature(row: Activation, size: int, gain: float, rtol: float) -> Moments:
    """Rules of two orders on the same panels, the panels cut in half until the target is met or the last split."""
    rules = accuracy(rtol)
    batch = _Batch(row, size, gain, _SINGULAR[rules])
    value, error = np.zeros((3, 2)), np.full((3, 2), np.inf)
    for split in range(_SPLITS):
        fine, coarse = (_moments_at(batch, order, split) for order in (rules.fine, rules.coarse))
        scale = fine[:, :1]  # E f² bounds E f_a f_b
        spread = DISTRUST * np.abs(fine - coarse) + 32 * EPS * scale
        value, error = np.where(spread < error, fine, value), np.minimum(spread, error)
        if np.all(error <= max(rtol, 64 * EPS) * scale):
            break
    flat = zip(value.reshape(-1, 1), error.reshape(-1, 1), strict=True)
    return Moments(*(Expectation(v.reshape(()), e.reshape(())) for v, e in flat))


def _moments_at(batch: _Batch, order: int, split: int) -> Floats:
    """(3, 2): E f(y_a)² and E f(y_a)f(y_b) for the three f, on one rule."""
    theta, weight = (a[0] for a in _outer(batch, order, split))
    here = batch.values(batch.radius * np.sin(theta))
    there = np.empty_like(here)
    step = max(1, _BLOCK // (order * 2**split * 64 * batch.points.size))
    for start in range(0, theta.size, step):
        rows = slice(start, start + step)
        there[:, rows] = _inner_means(batch, theta[rows], order, split)
    return np.stack([here * here @ weight, here * there @ weight], axis=1)


def _inner_means(batch: _Batch, theta: Floats, order: int, split: int) -> Floats:
    """E[f(y_b) | y_a] for the three f, (3, M), at M angles θ."""
    centre, reach = batch.radius * batch.rho * np.sin(theta), batch.radius * batch.rest * np.cos(theta)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        sines = (batch.points - centre[:, None]) / reach[:, None]
        bends = np.arcsin(np.clip(np.nan_to_num(sines), -1.0, 1.0))
        finest = np.broadcast_to((batch.row.scale / np.abs(reach))[:, None], bends.shape)
    psi, weight = _rule(batch.size - 4, bends, finest, order, split)
    return np.asarray((batch.values(centre[:, None] + reach[:, None] * np.sin(psi)) * weight).sum(axis=-1))


def _outer(batch: _Batch, order: int, split: int) -> tuple[Floats, Floats]:
    """Nodes and weights for θ, (1, N): edges where y_a crosses a point of φ, and where that point enters or leaves the
    range of y_b, θ = κ ∓ γ with radius·sin κ the point."""
    points = batch.points[np.abs(batch.points) < batch.radius]
    crossing = np.arcsin(points / batch.radius)
    gamma = math.acos(batch.rho)
    turns = np.concatenate([crossing - gamma, crossing + gamma, math.pi - crossing - gamma, math.pi - crossing + gamma])
    turns = np.remainder(turns + math.pi, 2.0 * math.pi) - math.pi
    broken = np.tile(np.isin(points, batch.row.kinks), 4)
    smooth = batch.row.scale / batch.radius
    # there the inner integral goes like whole powers and, at even B, half powers of the distance from (B−3)/2 on:
    # harmless at large B
    sharp = np.where(broken & (batch.size < 32) & (batch.size % 2 == 0), batch.singular, smooth)
    inside = np.abs(turns) < _HALF_PI
    bends = np.concatenate([[0.0], crossing, turns[inside]])
    finest = np.concatenate([[smooth], np.full(crossing.shape, smooth), sharp[inside]])
    return _rule(batch.size - 3, bends[None], finest[None], order, split)


def _rule(power: int, bends: Floats, finest: Floats, order: int, split: int) -> tuple[Floats, Floats]:
    """Nodes and weights (…, N) for the density ∝ cos^power on ±π/2, row by row, panels graded towards `bends` (M, C)
    down to `finest`; all as angles. Power −1 is the two ends, each with weight ½; −2, of no dimension, is 0 alone."""
    rows = bends.shape[0]
    if power < 0:
        ends = np.array([-_HALF_PI, _HALF_PI]) if power == -1 else np.zeros(1)
        return np.broadcast_to(ends, (rows, ends.size)), np.full((rows, ends.size), 1.0 / ends.size)
    per_radian = math.sqrt(max(power, 1.0))
    reach = min(_REACH, _HALF_PI * per_radian)
    steps = np.minimum(finest * per_radian, 4.0 * reach)
    levels = levels_between(float(steps.min()), 2.0 * reach)
    z, w = nodes(graded_edges(bends * per_radian, steps, levels, reach, split), order)
    angle = z / per_radian
    weight = w * np.exp(0.5 * power * np.log1p(-np.minimum(np.sin(angle) ** 2, 1.0 - 1e-16)))
    return angle, weight / weight.sum(axis=-1, keepdims=True)


def _check(batch: int, gain: float, rtol: float) -> None:
    count("batch", batch, least=2)
    positive("gain", gain)
    if gain > _STEEPEST:
        raise InputError("gain", gain, f"must be at most {_STEEPEST:g}: beyond it φ(gain·y) cannot be integrated")
    if not 0.0 < rtol < 1.0:
        raise InputError("rtol", rtol, "must be between 0 and 1")
