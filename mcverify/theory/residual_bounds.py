"""Hanin & Rolnick 2018: when the mean length of a residual network stays bounded, with explicit constants.

Blocks x + η_l N_l(x), M = ‖x‖²/n. A module that ends in ReLU, N(x) = ReLU(W x) with Var w = 2/n, has

    E[M′ | x] = M (1 + η²) + 2 η x̄ √(M/π)          (exact; x̄ the mean of x's entries)

so that x̄ ≤ √M bounds it from above, and, where x_0 ≥ 0, x̄ ≥ x̄_0 and M ≥ M_0 from below: E M stays bounded if and only
if Σ η_l converges. One that ends in a linear map, with E ‖N(x)‖² = κ ‖x‖², has E M = M_0 Π (1 + κη²) exactly, and its
criterion is Σ η_l².
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import zeta

from mcverify.errors import InputError
from mcverify.theory.growth import exp
from mcverify.validate import between, count, one_of, positive, variance

FloatArray = NDArray[np.float64]

MODULES = ("relu", "linear")
_MOST = 10_000_000  # scales in a list
_TERMS = 100_000  # of an infinite product; the rest by Hurwitz's zeta, to the fourth order in its terms


@dataclass(frozen=True)
class PowerScales:
    """η_l = a l^{−p}, l = 1, 2, …: as many blocks as one likes, or infinitely many."""

    a: float
    p: float

    def __post_init__(self) -> None:
        positive("a", self.a)
        variance("p", self.p)

    def first(self, depth: int) -> FloatArray:
        """η_1 … η_depth."""
        count("depth", depth, most=_MOST)
        return np.asarray(self.a * np.arange(1.0, depth + 1) ** -self.p)


@dataclass(frozen=True)
class LengthBounds:
    """Of E M_L/M_0. upper: never passed, at any width. lower: for ReLU modules where x_0 ≥ 0, never undercut; for
    linear ones both are the value itself. criterion: the sum that decides, Σ η or Σ η²."""

    lower: float
    upper: float
    criterion: float


def length_bounds(
    scales: Sequence[float] | FloatArray | PowerScales, module: str = "relu", *, depth: int | None = None,
    kappa: float = 1.0, ratio: float = 0.0,
) -> LengthBounds:  # fmt: skip
    """Bounds of E M_L/M_0 for blocks x + η_l N_l(x): Π(1 + η² + 2η/√π) from above and 1 + Σ η² + (2r_0/√π) Σ η from
    below for module="relu", Π(1 + κη²) for module="linear" (Hanin & Rolnick 2018, thm. on residual networks).

    scales: η_1 … η_L, or PowerScales, to `depth` or for ever. kappa: of a linear-ending module. ratio: r_0 = x̄_0/√M_0
    in [0, 1], of inputs x_0 ≥ 0. Raises InputError for another module, numbers out of range, and where the sum that
    decides diverges."""
    one_of("module", module, MODULES)
    positive("kappa", kappa)
    between("ratio", ratio, 0.0, 1.0)
    linear, square = (2.0 / math.sqrt(math.pi), 1.0) if module == "relu" else (0.0, kappa)
    power = 1 if module == "relu" else 2
    if not isinstance(scales, PowerScales):
        eta, last = _listed(scales, depth), None
    elif depth is not None:
        eta, last = scales.first(depth), None
    else:
        if power * scales.p <= 1.0:
            raise InputError(
                "scales", f"{scales.a:g} l^-{scales.p:g}",
                f"Σ η{'²' * (power - 1)} diverges, so that no bound holds at every depth: take p above {1 / power:g}, "
                "or say a depth",
            )  # fmt: skip
        eta, last = scales.first(_TERMS), scales
    with np.errstate(over="ignore"):  # inf beyond the largest float
        sums = {k: float((eta**k).sum()) + _rest(last, k) for k in (1, 2) if k >= power}
        log_upper = float(np.log1p(linear * eta + square * eta**2).sum()) + _rest_of_product(last, linear, square)
    upper = exp(log_upper)
    lower = 1.0 + sums[2] + ratio * linear * sums[1] if module == "relu" else upper
    return LengthBounds(lower, upper, sums[power])


def _listed(scales: ArrayLike, depth: int | None) -> FloatArray:
    allowed = "must be a list of finite numbers, at least 0, or PowerScales"
    try:
        eta = np.asarray(scales, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InputError("scales", scales, allowed) from None
    if eta.ndim != 1 or not len(eta) or not np.isfinite(eta).all() or (eta < 0).any():
        raise InputError("scales", scales, allowed)
    if depth is not None:
        count("depth", depth)
        if depth != len(eta):
            raise InputError("depth", depth, f"must be the number of scales, {len(eta)}, or left out")
    return eta


def _rest(scales: PowerScales | None, k: int) -> float:
    """Σ η^k over the terms that are left out."""
    return 0.0 if scales is None else scales.a**k * float(zeta(k * scales.p, _TERMS + 1))


def _rest_of_product(scales: PowerScales | None, linear: float, square: float) -> float:
    """Σ log(1 + βη + γη²) over the terms that are left out, as βη + (γ − β²/2)η² − (βγ − β³/3)η³ − (γ²/2 − β²γ +
    β⁴/4)η⁴ + …."""
    if scales is None:
        return 0.0
    b, g = linear, square
    coefficients = {1: b, 2: g - b**2 / 2, 3: b**3 / 3 - b * g, 4: b**2 * g - g**2 / 2 - b**4 / 4}
    return sum(c * _rest(scales, k) for k, c in coefficients.items() if c)
