"""What is integrated: a power of φ or φ′, with everything the quadratures need to know of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mcverify.activations import Activation, Function, Piece
from mcverify.errors import InputError
from mcverify.expectations import pieces as piecewise

Floats: TypeAlias = NDArray[np.float64]

EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Integrand:
    """f(u) with the points where it is not smooth, the length it varies over, and its pieces where
    elementary.
    """

    name: str
    function: Function
    kinks: tuple[float, ...] = ()
    scale: float = 1.0
    pieces: tuple[Piece, ...] = ()

    def __call__(self, u: Floats) -> Floats:
        """f(u) in float64, same shape. Raises InputError where f is not finite."""
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            values = np.asarray(self.function(u), dtype=np.float64)
        if not np.isfinite(values).all():
            where = float(u[~np.isfinite(values)].flat[0])
            raise InputError(self.name, float("nan"), f"must be finite; at u = {where:.6g} it is not")
        return values

    @property
    def breaks_only_at_zero(self) -> bool:
        """Whether a grid with an edge at 0 resolves it at every variance alike."""
        return all(kink == 0.0 for kink in self.kinks)


@lru_cache(maxsize=512)
def power_of(act: Activation, power: int, derivative: int = 0) -> Integrand:
    """φ^power, or φ′^power for derivative=1; the jumps of φ are no part of φ′."""
    base = act.dphi if derivative else act.phi
    name = ("dphi" if derivative else "phi") if power == 1 else f"{'dphi' if derivative else 'phi'}**{power}"
    parts = piecewise.differentiate(act.pieces) if derivative else act.pieces
    function: Function = base if power == 1 else lambda u: base(u) ** power
    return Integrand(name, function, act.kinks, act.scale, piecewise.power(parts, power))
