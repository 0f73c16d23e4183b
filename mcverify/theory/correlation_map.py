"""The normalised correlation map of a fully connected network at a fixed variance, and all its fixed points.

    f(c) = (σ_w² E[φ(u_a) φ(u_b)] + σ_b²)/q,   (u_a, u_b) Gaussian of variance q and correlation c
    f′(c) = σ_w² E[φ′(u_a) φ′(u_b)]           (Poole et al. 2016, eqs. 5–6; Schoenholz et al. 2017, eqs. 4, 7)

With q = Q(q) and keep probability ρ, f(1) = 1 − e, e = (1 − ρ)(1 − σ_b²/q): the diagonal carries 1/ρ, f does
not.

**Which fixed points there are.** In Hermite coefficients a_k of φ(√q z), f is a power series with
coefficients σ_w² a_k²/q (and σ_b²/q added to the first), none negative. So f is convex and increasing on [0,
1] with f(0) ≥ 0, and

* without dropout (e = 0) c = 1 is fixed; there is one more in [0, 1) when f′(1) > 1 and none when f′(1) ≤ 1;
* with dropout (e > 0) there is exactly one in [0, 1), and f′ there is at most ρ;
* on [−1, 0) write f(−x) = E(x) − O(x), even and odd parts. O is convex with O(0) = 0 and O(1) ≤ 1 − E(1), so
  O(x) ≤ x, while f(−x) = −x asks for O(x) = x + E(x). Hence E = 0: φ odd and σ_b = 0. Then −1 (without
  dropout) and 0 are fixed, by symmetry.

The list is complete without a scan; a map that is the identity (linear φ) has every c fixed.

**Near c = 1** the unknown is d = 1 − c, and the equation is divided by d: e/d + R(d) = 1 with R(d) = (f(1) −
f(1 − d))/d = ∫₀¹ f′(1 − s² d) 2s ds. Nothing cancels: R is an average of positive numbers, falling from χ_1
to its value at d. The substitution t = s² takes up the √(1 − c) of kinks and the 1/√(1 − c) of jumps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mcverify.activations import Activation
from mcverify.expectations import gaussian
from mcverify.theory.fixed_points import FixedPoint, stability
from mcverify.theory.roots import refine

Floats = NDArray[np.float64]

_NODES, _FEW_NODES = 24, 8
_SMALL = 0.01
"""Below this distance from c = 1 the integral form of R is used: its nodes then resolve f′ up to q ≈ 10^4 times the
scale of φ, and beyond it subtraction loses less than two digits."""


@dataclass(frozen=True)
class CorrelationMap:
    """c ↦ f(c) at a variance q with q = (σ_w²/ρ)⟨φ²⟩_q + σ_b², which the caller vouches for."""

    activation: Activation
    sigma_w2: float
    sigma_b2: float
    q: float
    keep: float = 1.0

    def __call__(self, c: ArrayLike) -> Floats:
        """f(c), same shape as c."""
        pair = gaussian.covariance(self.activation, self.q, self.q * np.asarray(c, dtype=np.float64), self.q)
        return (self.sigma_w2 * pair.value + self.sigma_b2) / self.q

    def slope(self, c: ArrayLike) -> Floats:
        """f′(c), same shape as c; inf at c = ±1 where φ jumps."""
        at = np.asarray(c, dtype=np.float64)
        smooth = gaussian.derivative_covariance(self.activation, self.q, self.q * at, self.q).value
        return self.sigma_w2 * (smooth + _jump_terms(self.activation, self.q, at))

    @property
    def shortfall(self) -> float:
        """e = 1 − f(1): what independent masks take from two equal inputs."""
        second = float(gaussian.second_moment(self.activation, self.q).value)
        return (1.0 - self.keep) * self.sigma_w2 / self.keep * second / self.q

    def mean_slope(self, d: float, count: int = _NODES) -> float:
        """R(d) = (f(1) − f(1 − d))/d, without cancellation, by Gauss–Legendre quadrature of `count` nodes."""
        nodes, weights = _unit_legendre(count)
        return float(self.slope(1.0 - d * nodes * nodes) @ (2.0 * nodes * weights))

    @cached_property
    def odd_without_bias(self) -> bool:
        """φ odd (where a Gaussian of variance q looks) and σ_b = 0: f is odd."""
        if self.sigma_b2 > 0:
            return False
        u = math.sqrt(self.q) * np.geomspace(1e-3, 8.0, 200)
        up, down = self.activation.phi(u), self.activation.phi(-u)
        return bool(np.all(np.abs(up + down) <= 1e-13 * np.max(np.abs(up))))

    @cached_property
    def inner(self) -> float:
        """The fixed point in [0, 1) (see above; the caller knows that there is one)."""
        if self.odd_without_bias:
            return 0.0
        if float(self(1.0 - _SMALL)) < 1.0 - _SMALL:
            return refine(lambda c: float(self(c)) - c, 0.0, 1.0 - _SMALL) if float(self(0.0)) > 0 else 0.0
        return 1.0 - self._gap()

    def _gap(self) -> float:
        """d = 1 − c of the inner fixed point, where it is small: the root of e/d + R(d) − 1, which falls with d.

        A coarse rule brackets it; 0 where it is below 1e-16, which double precision cannot tell from 0."""
        shortfall = self.shortfall

        def balance(log_d: float, count: int = _NODES) -> float:
            return shortfall / math.exp(log_d) + self.mean_slope(math.exp(log_d), count) - 1.0

        low, high = math.log(1e-16), math.log(2 * _SMALL)
        if balance(low) <= 0:
            return 0.0
        rough = refine(partial(balance, count=_FEW_NODES), low, high, rtol=1e-5)
        if balance(rough - 0.01) > 0 > balance(rough + 0.01):
            low, high = rough - 0.01, rough + 0.01
        return math.exp(refine(balance, low, high))

    def fixed_points(self, chi_1: float, noise: float) -> tuple[FixedPoint, ...]:
        """All fixed points in [−1, 1], increasing.

        chi_1: f′(1) without dropout, known to ± noise; inf where φ jumps. With dropout neither is used."""
        if self.shortfall > 0:
            return (self._at(self.inner),)
        at_one = "half-stable" if abs(chi_1 - 1.0) <= noise else stability(chi_1)
        ends = [FixedPoint(1.0, chi_1, at_one)]
        if self.odd_without_bias:
            ends.insert(0, FixedPoint(-1.0, chi_1, at_one))
        if self.odd_without_bias or chi_1 > 1.0 + noise:
            ends.insert(len(ends) - 1, self._beside_one(chi_1 - 1.0) or self._at(self.inner))
        return tuple(ends)

    def _at(self, c: float) -> FixedPoint:
        return FixedPoint(c, float(self.slope(c)), "stable")

    def _beside_one(self, excess: float) -> FixedPoint | None:
        """The inner fixed point where kinks put it so near to 1 that c no longer resolves it, without dropout.

        Kinks of height Δ_i at k_i make χ_1 − f′(1 − d) → A √d, A = σ_w² Σ Δ_i² p(k_i) √(q/π): u_a and u_b lie on two
        sides of k_i with probability p(k_i) E|u_a − u_b|. Then R = χ_1 − (2/3) A √d = 1. None where 1 − c > 1e-11."""
        rate = self.sigma_w2 * _kink_weight(self.activation, self.q) * math.sqrt(self.q / math.pi)
        if self.odd_without_bias or not math.isfinite(excess) or not 1.5 * excess < math.sqrt(1e-11) * rate:
            return None
        return FixedPoint(1.0 - (1.5 * excess / rate) ** 2, 1.0 - excess / 2.0, "stable")


@lru_cache(maxsize=4)
def _unit_legendre(count: int) -> tuple[Floats, Floats]:
    """Gauss–Legendre nodes and weights on [0, 1]."""
    x, w = np.polynomial.legendre.leggauss(count)
    return (x + 1.0) / 2.0, w / 2.0


def _kink_weight(activation: Activation, q: float) -> float:
    """Σ Δ_i² p(k_i): Δ_i the step of φ′ at its kinks, p the Gaussian density of variance q."""
    kinks = np.array(activation.kinks)
    step = 1e-9 * np.maximum(min(activation.scale, 1.0), np.abs(kinks))
    height = activation.dphi(kinks + step) - activation.dphi(kinks - step)
    height[np.abs(height) < 1e-6] = 0.0  # only φ″ breaks there
    return float(np.sum(height**2 * np.exp(-(kinks**2) / (2 * q)))) / math.sqrt(2 * math.pi * q)


def _jump_terms(activation: Activation, q: float, c: Floats) -> Floats:
    """What the jumps J_i at s_i add to E[φ′(u_a) φ′(u_b)] (Price's theorem with φ′ = ψ + Σ J_i δ(u − s_i)):

    Σ_ij J_i J_j p₂(s_i, s_j; c) + 2 Σ_i J_i p(s_i) E[ψ(u_b) | u_a = s_i], p and p₂ Gaussian densities of
    variance q.
    """
    total = np.zeros(c.shape)
    rest = q * (1.0 - c) * (1.0 + c)
    for place, height in activation.jumps:
        density = math.exp(-place * place / (2 * q)) / math.sqrt(2 * math.pi * q)
        for other, other_height in activation.jumps:
            with np.errstate(divide="ignore", invalid="ignore"):
                across = np.exp(-((other - c * place) ** 2) / (2 * rest)) / np.sqrt(2 * math.pi * rest)
            at_end = math.inf if other == place else 0.0
            total += height * other_height * density * np.where(rest > 0, across, at_end)
        if density > 0:
            total += 2 * height * density * _smooth_given(activation, c * place, rest)
    return total


def _smooth_given(activation: Activation, mean: Floats, variance: Floats) -> Floats:
    """E ψ(u) for u ~ N(mean, variance), ψ the almost-everywhere derivative."""
    out = np.empty(mean.shape)
    for i in np.ndindex(mean.shape):
        shifted = partial(_shifted, activation, float(mean[i]))
        out[i] = gaussian.expect(shifted, variance[i], [kink - float(mean[i]) for kink in activation.kinks]).value
    return out


def _shifted(activation: Activation, mean: float, u: Floats) -> Floats:
    return activation.dphi(u + mean)
