"""Moments of lengths in closed form: one layer's ratio for any symmetric weight law, and the variance across layers.

Source: Hanin & Rolnick 2018, "How to start training", Theorem 5 and Corollary 6, with the constants worked out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mcverify.errors import InputError, Unpredictable
from mcverify.network import Network
from mcverify.theory.layer_factor import Factor
from mcverify.theory.length_law import plain_steps, slopes_of, steps_up
from mcverify.validate import count, positive
from mcverify.weights import TRUNCATED_SIXTH, weight_law


@dataclass(frozen=True)
class RatioMoments:
    """E R and E R² of one layer's R = M_l/M_{l−1} given its input; "exact"."""

    mean: float
    second: float
    mark: str = "exact"


def ratio_moments(
    x: ArrayLike, width: int, activation: str = "relu", sigma_w2: float = 2.0, weights: str = "gaussian"
) -> RatioMoments:
    """Of R = (‖φ(W x)‖²/width)/(‖x‖²/fan_in) at a fixed x (fan_in,), for independent symmetric weights.

    Which slope a unit has is a fair coin apart from h², so E R = σ_w² (p² + m²)/2 for every law, and E R² knows of
    the law by its kurtosis μ4 and of x by Σx⁴/(Σx²)² alone: for ReLU at σ_w² = 2,
    E R² = 1 + (5 + 2(μ4 − 3) Σx⁴/(Σx²)²)/width.
    Raises InputError for an x that is zero or no vector, and for numbers out of range; Unpredictable for φ of other
    than two slopes."""
    width, sigma_w2 = count("width", width), positive("sigma_w2", sigma_w2)
    law, (below, above) = weight_law(weights), slopes_of(activation)
    if not law.independent:
        raise Unpredictable(f"{weights} weights are not independent; ask length_law")
    allowed = "must be one vector (fan_in,), finite and not zero"
    try:
        v = np.asarray(x, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InputError("x", x, allowed) from None
    if v.ndim != 1 or not np.isfinite(v).all() or not v.any():
        raise InputError("x", f"shape {v.shape}", allowed)
    v = v / np.abs(v).max()
    concentration = float((v**4).sum() / (v**2).sum() ** 2)
    mean = sigma_w2 * 0.5 * (below**2 + above**2)
    fourth = sigma_w2 * sigma_w2 * 0.5 * (below**4 + above**4) * (3 + (law.kurtosis - 3) * concentration)
    return RatioMoments(mean, mean * mean * (1 - 1 / width) + fourth / width)


def variance_across_layers(net: Network, m0: float = 1.0) -> float:
    """E[(1/L) Σ M_l² − ((1/L) Σ M_l)²], l = 1 … L: how lengths differ between the layers of one network; "exact".

    In terms of E M_j M_k = E M_j² Π_{j<i≤k} E R_i for j < k. Scope and errors as for `length_law`."""
    m0, factors = positive("m0", m0), steps_up(net)
    depth = len(factors)
    second, cross = 1.0, 0.0  # E M_k² and Σ_{0<j<k} E M_j M_k at M_0 = 1
    squares, products = 0.0, 0.0
    for k, f in enumerate(factors):
        cross = (cross + (second if k else 0.0)) * f.mean
        second *= second_moment(f)
        squares, products = squares + second, products + cross
    if not math.isfinite(squares + products):  # no float holds E M²
        return math.inf
    return m0 * m0 * (squares / depth - (squares + 2 * products) / depth**2)


def second_moment(f: Factor) -> float:
    """E R² = gain² E G² E (low + (high − low) B)², B of mean ½."""
    n, big = f.units, f.ambient
    # E B² = E K(K + 2)/(n(n + 2)), and E K(K + 2) = n(n + 5)/4 for K ~ Bin(n, ½).
    square_of_b = (n + 5) / (4 * (n + 2))
    spread = f.high - f.low
    g = (n + 2) / n * (1.0 if math.isinf(big) else big / (big + 2))
    return f.gain * f.gain * g * (f.low**2 + f.low * spread + spread**2 * square_of_b)


# E w⁶/(E w²)³ of the symmetric laws without atoms.
_SIXTH = {"gaussian": 15.0, "uniform": 27 / 7, "truncated_normal": TRUNCATED_SIXTH}


def entry_moments(net: Network) -> tuple[float, float, float]:
    """E Z², E Z⁴, E Z⁶ of a single entry Z of J = ∂h^L/∂x^0, for independent symmetric weights without atoms; "exact".

    Down from e_p, a vector a with Σa², Σa⁴, Σa⁶ meets weights of its own, and then fair coins: given a the entries of
    Wᵀa are i.i.d. with moments of which κ_4 = μ4 − 3 and κ_6 = μ6 − 15 μ4 + 30 make what is not Gaussian. For Gaussian
    weights E Z⁴ = 3 (2/n_0)² Π(1 + 5/n_j) and E Z⁶ = 15 (2/n_0)³ Π(1 + 15/n_j + 44/n_j²) at σ_w² = 2.
    Source: Hanin 2018, Theorem 1, whose bounds these lie in.
    Raises Unpredictable as `length_law` does, and for discrete weights: where h = 0 no coin is fair."""
    steps = plain_steps(net)
    second, fourth, sixth = 1.0, np.ones(2), np.ones(3)  # of a: Σa²; (Σa²)², Σa⁴; (Σa²)³, Σa⁴Σa², Σa⁶
    doubled = 0  # how often a² has been halved, so that no moment leaves the floats' range on the way
    for j in range(len(steps) - 1, -1, -1):
        m = steps[j][0]
        v, k4, k6 = m.sigma_w2 / m.fan_in, *_excess(m.law)
        m2, m4 = v * second, v**2 * (3 * fourth[0] + k4 * fourth[1])
        m222, m42 = v**3 * sixth[0], v**3 * (3 * sixth[0] + k4 * sixth[1])
        m6 = v**3 * (15 * sixth[0] + 15 * k4 * sixth[1] + k6 * sixth[2])
        if j == 0:
            return _scaled(m2, doubled), _scaled(m4, 2 * doubled), _scaled(m6, 3 * doubled)
        n, (below, above) = m.fan_in, steps[j - 1][1]
        c2, c4, c6 = (0.5 * (below**k + above**k) for k in (2, 4, 6))
        pair, triple = n * (n - 1), n * (n - 1) * (n - 2)
        second = n * c2 * m2
        fourth = np.array([n * c4 * m4 + pair * c2**2 * v**2 * fourth[0], n * c4 * m4])
        sixth = np.array([
            n * c6 * m6 + 3 * pair * c4 * c2 * m42 + triple * c2**3 * m222, n * c6 * m6 + pair * c4 * c2 * m42,
            n * c6 * m6,
        ])  # fmt: skip
        exponent = math.frexp(second)[1]
        doubled, second = doubled + exponent, math.ldexp(second, -exponent)
        fourth, sixth = np.ldexp(fourth, -2 * exponent), np.ldexp(sixth, -3 * exponent)
    raise AssertionError("a network has a map")


def _scaled(moment: float, exponent: int) -> float:
    """moment · 2^exponent, ∞ where no float holds it."""
    try:
        return math.ldexp(float(moment), exponent)
    except OverflowError:
        return math.inf


def _excess(law: str) -> tuple[float, float]:
    """κ_4 and κ_6 of the law of unit variance."""
    mu4, mu6 = weight_law(law).kurtosis, _SIXTH[law]
    return mu4 - 3, mu6 - 15 * mu4 + 30
