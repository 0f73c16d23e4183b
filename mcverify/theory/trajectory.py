"""The variance layer by layer, and the depth from which fixed-point statements hold."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mcverify.activations import Activation
from mcverify.errors import InputError
from mcverify.theory.fixed_points import settle
from mcverify.theory.variance_map import VarianceMap, checked
from mcverify.validate import count, positive

Floats = NDArray[np.float64]

_SAMPLES = 33


def q_trajectory(
    activation: str | Activation,
    sigma_w2: float,
    sigma_b2: float,
    q1: ArrayLike,
    depth: int,
    keep: float = 1.0,
) -> Floats:
    """q^1 … q^depth, (depth, *shape of q1): the limit of infinite width from first-layer variances q1 ≥ 0.

    q^1 = σ_w² ‖x‖²/n_0 + σ_b² for an input x (σ_w²/ρ if the input is masked too). Raises InputError for
    unusable parameters.
    """
    q_map = checked(activation, sigma_w2, sigma_b2, keep)
    count("depth", depth)
    start = np.asarray(q1, dtype=np.float64)
    if not np.all(np.isfinite(start)) or np.any(start < 0):
        raise InputError("q1", start.tolist(), "must be finite and at least 0")
    out = np.full((depth, *start.shape), start)
    for layer in range(1, depth):
        out[layer] = q_map(out[layer - 1])
    return out


def depth_to_fixed_point(
    activation: str | Activation,
    sigma_w2: float,
    sigma_b2: float,
    q1: float,
    margin: float,
    keep: float = 1.0,
    *,
    max_depth: int = 100_000,
) -> int:
    """The first layer l from which |χ^l/χ_1 − 1| < margin holds for good, χ^l the gradient factor at q^l.

    q1 > 0: variance of the first layer. "For good" is shown, not watched: at l the whole stretch that q can
    still visit is sampled. Positively homogeneous φ: 1, at any q. Raises InputError for unusable parameters,
    where q1 leads to no stable q*, where χ_1 = 0 or φ jumps, and where max_depth layers do not suffice.
    """
    q_map = checked(activation, sigma_w2, sigma_b2, keep)
    positive("q1", q1)
    positive("margin", margin)
    count("max_depth", max_depth)
    if q_map.activation.jumps:
        raise InputError("activation", q_map.activation.name, "phi jumps: there is no chi_1 to compare with")
    if q_map.homogeneous_gain is not None:
        return 1
    end = settle(q_map, q1)
    if end is None or end.stability != "stable" or not 0.0 < end.value < math.inf:
        raise InputError("q1", q1, f"leads to no stable q* at sigma_w2 = {sigma_w2:g}, sigma_b2 = {sigma_b2:g}")
    return _depth(q_map, end.value, float(q1), margin, max_depth)


def _depth(q_map: VarianceMap, q_star: float, q1: float, margin: float, max_depth: int) -> int:
    chi_1 = float(q_map.gradient_factor(q_star))
    if chi_1 == 0.0:
        raise InputError("sigma_w2", q_map.sigma_w2, "the gradient factor is 0 at q*: no ratio to it")
    q, first = q1, 1
    for layer in range(1, max_depth + 1):
        if abs(float(q_map.gradient_factor(q)) / chi_1 - 1.0) >= margin:
            first = layer + 1
        elif _stays(q_map, q, q_star, chi_1, margin):
            return first
        q = float(q_map(q))
    raise InputError("max_depth", max_depth, f"chi is not within {margin:g} of chi_1 for good by then")


def _stays(q_map: VarianceMap, q: float, q_star: float, chi_1: float, margin: float) -> bool:
    """Whether every later χ is within the margin, given that this one is.

    Where Q increases between q and q* the sequence stays between them; where |dQ/dq| < 1 on the mirrored
    stretch around q* it stays in that. On whichever applies, χ must be within the margin throughout."""
    far = np.linspace(q_star, q, _SAMPLES)
    if np.all(q_map.slope(far) >= 0.0):
        reachable = far
    else:
        away = abs(q - q_star)
        reachable = np.linspace(max(q_star - away, 0.0), q_star + away, 2 * _SAMPLES)
        if np.any(np.abs(q_map.slope(reachable)) >= 1.0):
            return False
    return bool(np.all(np.abs(q_map.gradient_factor(reachable) / chi_1 - 1.0) < margin))
