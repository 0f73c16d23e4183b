"""Gaussian integrals of piecewise exponential polynomials, Σ coefficient·u^power·e^(rate·u) on intervals.

relu, hard_tanh, elu, selu, sign and their derivatives and powers are of this form, so every one-dimensional
expectation, and E[f(u_b) | u_a], is elementary: Φ, exp and a recursion in the power (completing the square
moves e^(rate·u) into the mean of the Gaussian). Exact to rounding; each result carries the sum of the
magnitudes of its terms, which is what cancellation amplifies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import special

from mcverify.activations import Piece, Term

Floats: TypeAlias = NDArray[np.float64]
Result: TypeAlias = tuple[Floats, Floats]

_SQRT_2PI = math.sqrt(2.0 * math.pi)


def _collect(terms: Sequence[Term]) -> tuple[Term, ...]:
    sums: dict[tuple[int, float], float] = {}
    for coefficient, power, rate in terms:
        sums[power, rate] = sums.get((power, rate), 0.0) + coefficient
    return tuple(Term(c, p, r) for (p, r), c in sums.items() if c != 0.0)


def product(first: Sequence[Piece], second: Sequence[Piece]) -> tuple[Piece, ...]:
    """The product of two functions; pieces that do not overlap are dropped."""
    out = []
    for low, high, terms in first:
        for other_low, other_high, others in second:
            if max(low, other_low) < min(high, other_high):
                both = [
                    Term(a.coefficient * b.coefficient, a.power + b.power, a.rate + b.rate)
                    for a in terms
                    for b in others
                ]
                out.append(Piece(max(low, other_low), min(high, other_high), _collect(both)))
    return tuple(piece for piece in out if piece.terms)


def power(pieces: Sequence[Piece], exponent: int) -> tuple[Piece, ...]:
    """The function raised to a whole power ≥ 1."""
    out = tuple(pieces)
    for _ in range(exponent - 1):
        out = product(out, pieces)
    return out


def differentiate(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """The derivative on the open pieces; jumps at their ends are not in it."""
    out = []
    for low, high, terms in pieces:
        slopes = [Term(t.coefficient * t.rate, t.power, t.rate) for t in terms]
        slopes += [Term(t.coefficient * t.power, t.power - 1, t.rate) for t in terms if t.power]
        out.append(Piece(low, high, _collect(slopes)))
    return tuple(piece for piece in out if piece.terms)


def at(pieces: Sequence[Piece], u: float) -> float:
    """f(u) for one u inside the open pieces."""
    return math.fsum(
        t.coefficient * u**t.power * math.exp(t.rate * u)
        for low, high, terms in pieces
        if low < u < high
        for t in terms
    )


def smoothed(pieces: Sequence[Piece], mean: Floats, sd: Floats) -> Result:
    """(E f(mean + sd·z), Σ of magnitudes), elementwise; sd > 0, equal shapes.

    The rounding error is some 8ε of the second.
    """
    gaussian = _Gaussian(mean, sd)
    value, magnitude = np.zeros(mean.shape), np.zeros(mean.shape)
    for low, high, terms in pieces:
        for rate in {t.rate for t in terms}:
            of_rate = [t for t in terms if t.rate == rate]
            moments = gaussian.partial_moments(low, high, rate, max(t.power for t in of_rate))
            for t in of_rate:
                value += t.coefficient * moments[t.power][0]
                magnitude += abs(t.coefficient) * moments[t.power][1]
    return value, magnitude


class _Gaussian:
    """u ~ N(mean, sd²) elementwise, with the tails it has been asked for: neighbouring pieces share them."""

    def __init__(self, mean: Floats, sd: Floats) -> None:
        self.mean, self.sd = mean, sd
        self._tails: dict[tuple[float, float, float], Result] = {}

    def partial_moments(self, low: float, high: float, rate: float, top: int) -> list[Result]:
        """E[u^p e^(rate·u); low < u < high] and its magnitude, for p = 0 … top."""
        variance = self.sd * self.sd
        tilted = self.mean + rate * variance if rate else self.mean
        out = [self._mass(low, high, rate)]
        ends = [
            (x, sign * variance * self._density(x, rate))
            for x, sign in ((low, -1.0), (high, 1.0))
            if math.isfinite(x) and top
        ]
        for p in range(1, top + 1):
            value, size = tilted * out[p - 1][0], np.abs(tilted) * out[p - 1][1]
            if p > 1:
                value = value + (p - 1) * variance * out[p - 2][0]
                size = size + (p - 1) * variance * out[p - 2][1]
            for x, density in ends:
                if x != 0.0 or p == 1:
                    edge = x ** (p - 1) * density
                    value, size = value - edge, size + np.abs(edge)
            out.append((value, size))
        return out

    def _density(self, x: float, rate: float) -> Floats:
        """e^(rate·x) times the density at x."""
        z = np.clip((x - self.mean) / self.sd, -1e3, 1e3)
        return np.asarray(np.exp(rate * x - 0.5 * z * z) / (_SQRT_2PI * self.sd))

    def _mass(self, low: float, high: float, rate: float) -> Result:
        """E[e^(rate·u); low < u < high] and its magnitude."""
        if math.isinf(low) and math.isinf(high):
            log_mass = rate * self.mean + 0.5 * (rate * self.sd) ** 2
            mass = np.exp(log_mass)
            return mass, mass * (1.0 + np.abs(log_mass))
        if math.isinf(low):
            return self._tail(high, rate, 1.0)
        if math.isinf(high):
            return self._tail(low, rate, -1.0)
        # from the side on which both tails are small, so that a far interval does not cancel
        left = 0.5 * (low + high) < self.mean + rate * self.sd**2
        (b, b_size), (a, a_size) = self._tail(high, rate, 1.0), self._tail(low, rate, 1.0)
        (c, c_size), (d, d_size) = self._tail(low, rate, -1.0), self._tail(high, rate, -1.0)
        return np.where(left, b - a, c - d), np.where(left, b_size + a_size, c_size + d_size)

    def _tail(self, x: float, rate: float, side: float) -> Result:
        if (x, rate, side) not in self._tails:
            self._tails[x, rate, side] = self._new_tail(x, rate, side)
        return self._tails[x, rate, side]

    def _new_tail(self, x: float, rate: float, side: float) -> Result:
        """E[e^(rate·u); u < x] for side +1, u > x for −1, and its magnitude.

        Where x is on the far side of the tilted mean, e^(…)·Φ(−b) is e^(…)·erfcx(b/√2)/2 with the exponents
        combined, so that neither overflows.
        """
        if rate == 0.0:
            mass = np.asarray(special.ndtr(side * (x - self.mean) / self.sd))
            return mass, mass
        b = side * ((x - self.mean) / self.sd - rate * self.sd)
        z = np.clip((x - self.mean) / self.sd, -1e3, 1e3)
        far = b <= 0.0
        exponent = np.where(far, rate * x - 0.5 * z * z, rate * self.mean + 0.5 * (rate * self.sd) ** 2)
        scaled = 0.5 * special.erfcx(np.abs(np.minimum(b, 0.0)) / math.sqrt(2.0))
        # bounded above wherever the integral is; the clip keeps the branch not taken quiet
        mass = np.exp(np.clip(exponent, -750.0, 700.0)) * np.where(far, scaled, special.ndtr(b))
        return mass, mass * (1.0 + np.abs(exponent))
