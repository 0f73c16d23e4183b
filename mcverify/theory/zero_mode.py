"""Gradients in a circular convolutional network whose signals and gradients are alike at all positions.

So they are for inputs and cotangents that are, and wherever correlations between positions have come to 1; near a
critical point that takes ξ_c layers, more than networks have. For those signals a convolution is the dense map
Σ_β W_β, whose entries have variance σ_w²/c: the width is the number of channels c, whatever the kernel. What follows
is therefore a dense network's, to first order in 1/c, around its fixed point q* = Q(q*).

r_l = ‖δ^l‖²/‖δ^{l+1}‖² is χ(G^l) times a mean over units of φ′² g², g ~ N(0, 1) but in the direction of x^l, where W is
known from the forward pass. With a = (log χ)′, b = (log χ)″ at q*, G^l of mean q* + k and variance V,

    E log r_l = log χ_1 + a k_l + ½ b V_l − ½ s + (R_{l+1} − 1) ρ + O(1/c²),
    s = σ_w⁴(3⟨φ′⁴⟩ − ⟨φ′²⟩²)/(χ_1² c),    ρ = σ_w⁴⟨φ²φ′²⟩/(χ_1 q* c),
    V_{l+1} = Q′² V_l + η,   η = σ_w⁴ Var φ²/c,    k_{l+1} = Q′ k_l + ½ Q″ V_l,    V_1 = k_1 = 0,
    R_l = (ζ + Q′²(R_{l+1} − 1))/χ_1,    ζ = σ_w²⟨z²φ′²⟩,    R_L = 1 for a cotangent independent of the weights

(Roberts, Yaida & Hanin 2022 for V, k and R). Over many layers log r adds up to a variance per layer of
s + 2a C/(1 − Q′) + a² η/(1 − Q′)², C = σ_w⁴ Cov(φ′², φ²)/(χ_1 c): a low length lifts the gains of 1/(1 − Q′) layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mcverify.activations import Activation
from mcverify.activations import activation as look_up
from mcverify.expectations import gaussian
from mcverify.theory.phase import phase
from mcverify.theory.variance_map import checked

Floats = NDArray[np.float64]

_STEP = 1e-3  # relative, of central differences of slopes in q: errors of order 1e-6


@dataclass(frozen=True)
class LogGains:
    """To first order in 1/c. mean: E log r_l from l = 1 to L − 1, of a network that starts at q*. limit: E log r and
    variance: what it adds to the variance of a long sum, per layer, far from both ends."""

    mean: Floats
    limit: float
    variance: float


def log_gains(activation: str | Activation, sigma_w2: float, sigma_b2: float, channels: int, depth: int) -> LogGains:
    """The log gains of the gradient norm at the stable fixed point that q = 1 leads to."""
    act, q_map = look_up(activation), checked(activation, sigma_w2, sigma_b2, 1.0)
    q = phase(act, sigma_w2, sigma_b2).q
    near = q * (1 + _STEP * np.array([-1.0, 0.0, 1.0]))
    slopes = q_map.slope(near)
    steepness = sigma_w2 * gaussian.derivative_second_moment_slope(act, near).value  # χ′
    slope, bend = slopes[1], (slopes[2] - slopes[0]) / (near[2] - near[0])
    chi = float(q_map.gradient_factor(q))
    a = steepness[1] / chi
    b = (steepness[2] - steepness[0]) / (near[2] - near[0]) / chi - a * a
    second, fourth = (float(gaussian.moment(act, q, p).value) for p in (2, 4))
    slope_2, slope_4 = (float(gaussian.moment(act, q, p, 1).value) for p in (2, 4))
    mixed = float(gaussian.expect(lambda u: (act.phi(u) * act.dphi(u)) ** 2, q, act.kinks, scale=act.scale).value)
    zeta = sigma_w2 * float(gaussian.expect(lambda u: (u * act.dphi(u)) ** 2, q, act.kinks, scale=act.scale).value) / q
    gain = sigma_w2**2 / channels
    s, eta = gain * (3 * slope_4 - slope_2**2) / chi**2, gain * (fourth - second**2)
    rho, both = gain * mixed / (chi * q), gain * (mixed - slope_2 * second) / chi
    v, k, r = np.zeros(depth), np.zeros(depth), np.ones(depth)
    for l in range(depth - 1):
        v[l + 1], k[l + 1] = slope**2 * v[l] + eta, slope * k[l] + bend * v[l] / 2
        r[-l - 2] = (zeta + slope**2 * (r[-l - 1] - 1)) / chi
    v_end = eta / (1 - slope**2)
    ends = a * bend * v_end / 2 / (1 - slope) + b * v_end / 2 + ((zeta - chi) / (chi - slope**2)) * rho
    return LogGains(
        mean=np.asarray(np.log(chi) + a * k[:-1] + b * v[:-1] / 2 - s / 2 + (r[1:] - 1) * rho),
        limit=float(np.log(chi) - s / 2 + ends),
        variance=float(s + 2 * a * both / (1 - slope) + a * a * eta / (1 - slope) ** 2),
    )
