"""Layer normalisation in the wide limit: what dividing by the spread over units does to second moments.

Per input, y = (h − m)/√(v + ε), m and v the mean and population variance over the n units (Ba, Kiros & Hinton 2016).
As n → ∞ both become numbers: m_a → μ_a, v_a → S_aa − μ_a², so that

    E y_a y_b = (S_ab − μ_a μ_b)/√((v_a + ε)(v_b + ε)),      E Σ_i δ_ia δ_ib at h = G_ab/√((v_a + ε)(v_b + ε))

S the second moments (1/n)Σ h_a h_b (B, B), μ the unit means (B,), G the moments of δ at y, summed over units. Gaussian
h has μ = 0, given the layer below; the image of a nonlinearity has not (relu: μ = √(q/2π)), and S does not tell it.

The gradient holds where δ is uncorrelated between units, given y, as below a random map: the Jacobian
(I − 11ᵀ/n − yyᵀ/n)/√v takes two of its n directions away, and φ′ in between changes nothing in the limit. A cotangent
with a part common to all units, or along y, loses that part entirely: outside these functions.

Limits, errors O(1/n). At ε = 0 the diagonal of y is exactly 1. For n i.i.d. Gaussian units, ε = 0 and δ isotropic over
units, the gradient's factor is exact times (n−2)/(n−3): (n−2)/n directions survive, and E q/v = n/(n−3).
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mcverify.errors import InputError
from mcverify.validate import variance

Floats: TypeAlias = NDArray[np.float64]


def propagate(S: ArrayLike, mean: ArrayLike = 0.0, *, eps: float = 0.0) -> Floats:
    """E y_a y_b, (B, B), from S (B, B) and the unit means, (B,) or one number for all. Exact as n → ∞."""
    centred, spread = _moments(S, mean, eps)
    return np.asarray(centred / (spread[:, None] * spread))


def pull_back(S: ArrayLike, G: ArrayLike, mean: ArrayLike = 0.0, *, eps: float = 0.0) -> Floats:
    """The moments of the gradient at h, (B, B), from those at y. Exact as n → ∞ for δ uncorrelated between units."""
    _, spread = _moments(S, mean, eps)
    given = np.asarray(G, dtype=np.float64)
    if given.shape != (spread.size, spread.size):
        raise InputError("G", given.shape, f"must have the shape of S, {(spread.size,) * 2}")
    return np.asarray(given / (spread[:, None] * spread))


def _moments(S: ArrayLike, mean: ArrayLike, eps: float) -> tuple[Floats, Floats]:
    """S − μμᵀ, and √(v + ε)."""
    variance("eps", eps)
    given, mu = np.asarray(S, dtype=np.float64), np.asarray(mean, dtype=np.float64)
    if given.ndim != 2 or given.shape[0] != given.shape[1] or not np.isfinite(given).all():
        raise InputError("S", given.shape, "must be a square matrix of finite numbers")
    if mu.shape not in ((), given.shape[:1]) or not np.isfinite(mu).all():
        raise InputError("mean", mu.shape, f"must be a finite number, or {len(given)} of them")
    mu = np.broadcast_to(mu, given.shape[:1])
    centred = given - mu[:, None] * mu
    over_units = np.diagonal(centred)
    if (over_units < -1e-9 * np.abs(np.diagonal(given))).any():
        raise InputError("mean", float(np.abs(mu).max()), "must satisfy mean² ≤ S on the diagonal")
    over_units = np.maximum(over_units, 0.0)
    if eps == 0.0 and not over_units.all():
        raise InputError("S", 0.0, "must vary over units: at eps = 0 layer norm divides 0 by 0")
    return centred, np.sqrt(over_units + eps)
