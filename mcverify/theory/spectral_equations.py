"""The equations that the spectrum of a product of free factors solves.

With z = M(1/λ) the S-transforms of theory/free_product.py say

    λ = (1 + z_L)/z_L Π_l 1/(S_{D_l²}(z_l) S_{W_l W_lᵀ}(z_l))       1/S_{D²}(z) = z/((1 + z) ζ),  M_{D²}(ζ) = z

where M_{D²}(ζ) = E d²ζ/(1 − d²ζ) is a sum over the law of the slopes (theory/slope_law.py). No S-transform is inverted:
z and the ζ of each different layer are solved for together, by Newton's method in their logarithms.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from mcverify.errors import Unpredictable
from mcverify.theory.free_product import Factor
from mcverify.theory.slope_law import SlopeLaw, slope_law

FloatArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]

# How often the panels of a smooth φ's law of slopes (theory/slope_law.py) are cut. Between orthogonal maps ζ comes near
# the real line, and resolved must be poles a tenth of a standard deviation off it; Gaussian ones keep it away.
_SPLITS = {True: 2, False: 0}
_CONVERGED = 1e-11


def slopes_of(factor: Factor, splits: int = 0) -> SlopeLaw:
    """The law of a factor's slopes. Raises Unpredictable where all are 0."""
    assert factor.phi is not None
    law = slope_law(factor.phi, factor.q, splits)
    if not law.values.any():
        raise Unpredictable(f"the slopes of {factor.phi.name} are 0: the Jacobian is zero")
    return law


def is_constant(factor: Factor) -> bool:
    """Whether a factor's slopes are all alike."""
    law = slopes_of(factor)
    return law.exact and len(law.values) == 1


class Point(NamedTuple):
    """log z (point,) and the log ζ of each different law (law, point)."""

    log_z: ComplexArray
    log_zeta: ComplexArray


class Equations:
    """log λ as a function of z and ζ, and M_{D²}(ζ) = z for each different law of slopes."""

    def __init__(self, chain: Sequence[Factor]) -> None:
        slopes = [f for f in chain if f.phi is not None]
        varying = [f for f in slopes if not is_constant(f)]
        each = Counter((f.phi, f.q, f.above) for f in varying)
        first = {(f.phi, f.q, f.above): f for f in varying}
        splits = _SPLITS[all(f.orthogonal for f in chain)]
        self.laws = [slopes_of(f, splits) for f in first.values()]
        self.above = np.array([key[2] for key in first])
        self.number = np.array([float(each[key]) for key in first])
        self.gaussian = [f.below for f in chain if not f.orthogonal]
        self.last = chain[-1].above
        gains = [f.sigma_w2 for f in chain] + [slopes_of(f).values[0] for f in slopes if is_constant(f)]
        self.constant = float(np.log(gains).sum())

    def excess(self, at: Point) -> tuple[ComplexArray, ComplexArray]:
        """log λ without the terms in ζ, and its slope in log z."""
        z: ComplexArray = np.exp(at.log_z)
        value: ComplexArray = self.constant + np.log(1 + self.last * z) - np.log(self.last) - at.log_z
        slope: ComplexArray = self.last * z / (1 + self.last * z) - 1
        for r in self.gaussian:
            value, slope = value + np.log(1 + r * z), slope + r * z / (1 + r * z)
        for n, r in zip(self.number.tolist(), self.above.tolist(), strict=True):
            value = value + n * (np.log(r) + at.log_z - np.log(1 + r * z))
            slope = slope + n / (1 + r * z)
        return value, slope

    def generating(self, i: int, log_zeta: ComplexArray) -> tuple[ComplexArray, ComplexArray]:
        """log(M(ζ)/ζ) of law i, whose argument stays within ±π, and the slope of log M in log ζ."""
        law, zeta = self.laws[i], np.exp(log_zeta)[..., None]
        inside = 1 / (1 - law.values * zeta)
        weighted = (law.probabilities * law.values) * inside
        total = weighted.sum(axis=-1)
        rate = (weighted * inside).sum(axis=-1) / total
        return np.asarray(np.log(total), np.complex128), np.asarray(rate, np.complex128)

    def step(self, at: Point, log_lambda: NDArray[Any]) -> tuple[Point, FloatArray]:
        """One step of Newton's, and how far the equations were from holding before it, (point,)."""
        value, slope = self.excess(at)
        off, rate = np.empty_like(at.log_zeta), np.empty_like(at.log_zeta)
        for i, r in enumerate(self.above):
            made, rate[i] = self.generating(i, at.log_zeta[i])
            off[i] = made + at.log_zeta[i] - at.log_z - np.log(r)
        n = self.number[:, None]
        numerator = log_lambda - value + (n * (at.log_zeta - off / rate)).sum(axis=0)
        change = numerator / (slope - (n / rate).sum(axis=0))
        change = change / np.maximum(1.0, np.abs(change))  # beside an edge, where λ(z) is flat
        missing = np.abs(value - (n * at.log_zeta).sum(axis=0) - log_lambda)
        worst = np.maximum(missing, np.abs(off).max(axis=0, initial=0.0))
        return Point(at.log_z + change, at.log_zeta + (change - off) / rate), worst

    def solve(self, at: Point, log_lambda: NDArray[Any], steps: int) -> tuple[Point, FloatArray]:
        """Newton's method to convergence, and what is left, (point,)."""
        for _ in range(steps):
            at, worst = self.step(at, log_lambda)
            if not worst.max() > _CONVERGED:
                break
        return at, worst


def upper_edge(equations: Equations) -> float:
    """log λ_+: the least λ(z) of z > 0, where M(1/λ) ceases to be analytic."""
    tops = np.array([law.values.max() for law in equations.laws])

    def at(log_z: float) -> tuple[float, float]:
        """log λ and its slope in log z."""
        where = Point(np.array([log_z], complex), _real_zeta(equations, tops, log_z)[:, None].astype(complex))
        value, slope = equations.excess(where)
        for i, n in enumerate(equations.number):
            _, rate = equations.generating(i, where.log_zeta[i])
            value, slope = value - n * where.log_zeta[i], slope - n / rate
        return float(value.real[0]), float(slope.real[0])

    low, high = -30.0, 30.0
    if at(high)[1] < -1e-9:
        return at(high)[0]
    return at(brentq(lambda u: at(u)[1] + 1e-12, low, high, xtol=1e-13))[0]


def _real_zeta(equations: Equations, tops: FloatArray, log_z: float) -> FloatArray:
    """log ζ of each law with M(ζ) = z for z > 0, by bisection below the pole at 1/max d²: (law,)."""
    out = []
    for i, (top, r) in enumerate(zip(tops, equations.above, strict=True)):

        def excess(y: float, i: int = i, top: float = top, r: float = r) -> float:
            v = -np.logaddexp(0.0, -y) - np.log(top)  # ζ = 1/((1 + e^{−y}) max d²)
            made, _ = equations.generating(i, np.array([v], complex))
            return float(made.real[0] + v - log_z - np.log(r))

        y = brentq(excess, -60.0, 34.0, xtol=1e-12) if excess(34.0) > 0 else 34.0
        out.append(-np.logaddexp(0.0, -y) - np.log(top))
    return np.array(out)
