"""Residual networks of infinite width: Yang & Schoenholz's recursion with its asymptotes, and Taki's initialisation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mcverify.activations import Activation
from mcverify.activations import activation as look_up
from mcverify.errors import Unpredictable
from mcverify.expectations import gaussian
from mcverify.theory.growth import exp
from mcverify.validate import MOST_LAYERS, count, positive, variance

FloatArray = NDArray[np.float64]

LARGEST = 1e150
"""The E z² up to which blocks are followed: squares of it are taken."""
LARGEST_BOUND_STEP = 5.025
"""The root of log(1 + c/2L) = c/4L in c/L: above it (1 + c/2L)^L is less than e^{c/4}."""


@dataclass(frozen=True)
class ResnetTrajectory:
    """Of blocks z^l = z^{l−1} + V φ(W z^{l−1} + b) + a, l = 1 … L.

    p (L + 1,): E z², p^0 first. q (L,): of the pre-activation inside each block. chi (L,): the factor of E‖δ‖² from
    above each block to below it."""

    p: FloatArray
    q: FloatArray
    chi: FloatArray


def resnet_trajectory(
    activation: str | Activation,
    sigma_v2: float,
    sigma_w2: float,
    sigma_b2: float = 0.0,
    sigma_a2: float = 0.0,
    *,
    p0: float = 1.0,
    depth: int,
) -> ResnetTrajectory:
    """p^l = p^{l−1} + σ_v²⟨φ²⟩_q + σ_a², q^l = σ_w² p^{l−1} + σ_b², χ^l = 1 + σ_v²σ_w²⟨φ′²⟩_{q^l} (limit).

    p0: E z² below the first block, σ_in² ‖x‖²/n_0 of `mv.resnet`; a readout multiplies it by its own σ². Source: Yang &
    Schoenholz 2017. Raises InputError for parameters out of range, Unpredictable where E z² leaves that of floats."""
    phi = look_up(activation)
    for name, value in (("sigma_v2", sigma_v2), ("sigma_w2", sigma_w2), ("sigma_b2", sigma_b2), ("sigma_a2", sigma_a2)):
        variance(name, value)
    variance("p0", p0)
    count("depth", depth, most=MOST_LAYERS)
    p, q, chi = np.empty(depth + 1), np.empty(depth), np.empty(depth)
    p[0] = p0
    for l in range(depth):
        q[l] = sigma_w2 * float(p[l]) + sigma_b2
        if not max(p[l], q[l]) <= LARGEST:
            raise Unpredictable(f"E z² leaves the range of floats in block {l + 1}")
        p[l + 1] = float(p[l]) + sigma_v2 * float(gaussian.second_moment(phi, q[l]).value) + sigma_a2
        chi[l] = 1.0 + sigma_v2 * sigma_w2 * float(gaussian.derivative_second_moment(phi, q[l]).value)
    return ResnetTrajectory(p, q, chi)


def tanh_resnet_growth(sigma_v2: float, sigma_w2: float, sigma_a2: float = 0.0) -> tuple[float, float]:
    """(σ_v² + σ_a², κ): tanh networks have p^l ~ (σ_v² + σ_a²) l and gradients that grow as e^{κ√l} (limit, then
    large l), κ = (8/3) σ_v²σ_w/√(2π(σ_v² + σ_a²)), since ⟨sech⁴⟩_q ~ (4/3)/√(2πq).

    Yang & Schoenholz 2017, thms. on tanh. Both are approached as l^{−1/2}. Raises InputError for σ_v², σ_w² that are
    not positive."""
    sigma_v2, sigma_w2 = positive("sigma_v2", sigma_v2), positive("sigma_w2", sigma_w2)
    rise = sigma_v2 + variance("sigma_a2", sigma_a2)
    return rise, 8.0 / 3.0 * sigma_v2 * math.sqrt(sigma_w2) / math.sqrt(2.0 * math.pi * rise)


@dataclass(frozen=True)
class TakiInitialisation:
    """Var w = c/(nL) in L blocks x + W φ(x), and what E x² grows by in all of them, on the way up as on the way down.

    weight_variance: c/(nL). sigma_w2: c/L, as `mv.resnet` takes it. identity: (1 + c/L)^L, exact at every width, below
    identity_bound = e^c. relu: (1 + c/2L)^L, for inputs as often positive as negative, a limit, below relu_bound =
    e^{c/2}. lower_bound: Taki's e^{c/4} for ReLU; None where c/L is above 5.025 and it fails."""

    weight_variance: float
    sigma_w2: float
    identity: float
    identity_bound: float
    relu: float
    relu_bound: float
    lower_bound: float | None


def taki_initialisation(fan_in: int, depth: int, c: float = 1.0) -> TakiInitialisation:
    """Taki's initialisation of `depth` blocks whose map has `fan_in` inputs a unit (Taki 2017, §2, eq. 28).

    fan_in: a dense block's width, taps · channels of a convolution's; sigma_w2 does not depend on it.
    Raises InputError for numbers out of range."""
    fan_in, depth, c = count("fan_in", fan_in), count("depth", depth), positive("c", c)
    step = c / depth
    return TakiInitialisation(
        weight_variance=step / fan_in,
        sigma_w2=step,
        identity=exp(depth * math.log1p(step)),
        identity_bound=exp(c),
        relu=exp(depth * math.log1p(step / 2.0)),
        relu_bound=exp(c / 2.0),
        lower_bound=exp(c / 4.0) if step <= LARGEST_BOUND_STEP else None,
    )
