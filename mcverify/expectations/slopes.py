"""How Gaussian second moments move with the variance: d⟨φ²⟩/dq and d⟨φ′²⟩/dq.

⟨f⟩_q solves the heat equation, d⟨f⟩/dq = ½⟨f″⟩ with f″ in the sense of distributions: a jump [f′] of the
slope at k adds ½[f′]·p(k) and a jump [f] adds ½[f]·(k/q)·p(k), p the N(0, q) density. This is ⟨(z² −
1)f⟩/2q integrated by parts, without its cancellation at small q.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mcverify.activations import Activation, Function, Piece
from mcverify.expectations import pieces as piecewise
from mcverify.expectations.integrand import EPS, Integrand
from mcverify.expectations.quadrature import Weight, integrate

Floats: TypeAlias = NDArray[np.float64]

_SIDE = 1e-15
"""Distance at which one-sided limits at a kink are read off."""


class _Step(NamedTuple):
    """Jumps of f and of f′ at a point."""

    at: float
    jump: float
    bend: float


def slope(act: Activation, derivative: int, q: Floats, rtol: float, elementary: bool) -> tuple[Floats, Floats]:
    """d⟨φ²⟩/dq, or d⟨φ′²⟩/dq for derivative=1, and its error, for each q ≥ 0 of a flat array.

    At q = 0 the limit from above, which is ±inf where a kink at 0 makes it so; for φ² it is the limit of the
    difference quotient: sign has ⟨φ²⟩ = 1 but φ(0)² = 0, so +inf.
    """
    value, error = np.zeros(q.shape), np.full(q.shape, np.inf)
    # ⟨φ′² + φφ″⟩ cancels at large q, where ⟨zφφ′⟩/√q does not; at small q the reverse
    far = (q >= 1.0) & (derivative == 0)
    for part, row in (((q > 0.0) & ~far, act), (far, replace(act, d2phi=None))):
        if part.any():
            value[part], error[part] = _inside(row, derivative, q[part], rtol, elementary)
    divides = derivative == 1 or act.d2phi is None  # by √q: see _bulk
    analytic = 0.0 not in act.kinks
    near = (q < 1e-3 * _near_zero(act)) if divides and analytic else (q == 0.0)
    if near.any():
        if divides and (analytic or not act.pieces):
            got, spread = _extrapolate(act, derivative, q[near], rtol)
        else:
            got, spread = _limit_at_zero(act, derivative, q[near])
        better = spread < error[near]
        value[np.flatnonzero(near)[better]] = got[better]
        error[np.flatnonzero(near)[better]] = spread[better]
    return value, error


def _inside(act: Activation, derivative: int, q: Floats, rtol: float, elementary: bool) -> tuple[Floats, Floats]:
    """The slope at q > 0: the smooth part and what the kinks add."""
    value, error, steps = _bulk(act, derivative, q, rtol, elementary)
    for kink, jump, bend in steps:
        density = np.exp(-0.5 * kink * kink / q) / np.sqrt(2.0 * math.pi * q)
        term = 0.5 * density * (bend + jump * kink / q)
        value, error = value + term, error + 8 * EPS * np.abs(term) * (1.0 + kink * kink / q)
    return value, error


def _bulk(
    act: Activation, derivative: int, q: Floats, rtol: float, elementary: bool
) -> tuple[Floats, Floats, list[_Step]]:
    """½⟨f″⟩ away from kinks where φ″ is known, else integrated by parts once or twice; and the steps still
    to add.
    """
    phi, dphi, d2phi = act.phi, act.dphi, act.d2phi
    if act.pieces and elementary:
        value, magnitude = piecewise.smoothed(_curvature_pieces(act, derivative), np.zeros_like(q), np.sqrt(q))
        return value, 8 * EPS * magnitude, _steps(act, derivative)
    if d2phi is None and derivative == 1:
        value, error = _integral(act, lambda u: dphi(u) ** 2, q, rtol, lambda z: z * z - 1.0)
        return value / (2.0 * q), error / (2.0 * q), []
    if d2phi is None:
        value, error = _integral(act, lambda u: phi(u) * dphi(u), q, rtol, lambda z: z)
    elif derivative == 1:
        value, error = _integral(act, lambda u: dphi(u) * d2phi(u), q, rtol, lambda z: z)
    else:
        value, error = _integral(act, lambda u: dphi(u) ** 2 + phi(u) * d2phi(u), q, rtol, None)
        return value, error, _steps(act, derivative)
    steps = [_Step(at, jump, 0.0) for at, jump, _ in _steps(act, derivative)]
    return value / np.sqrt(q), error / np.sqrt(q), steps


def _integral(
    act: Activation, function: Function, q: Floats, rtol: float, weight: Weight | None
) -> tuple[Floats, Floats]:
    return integrate(Integrand("slope of " + act.name, function, act.kinks, act.scale), q, rtol, weight)


def _curvature_pieces(act: Activation, derivative: int) -> tuple[Piece, ...]:
    """½f″, piece by piece."""
    base = piecewise.differentiate(act.pieces) if derivative else act.pieces
    first = piecewise.product(base, piecewise.differentiate(base))  # ½f′
    return piecewise.differentiate(first)


def _steps(act: Activation, derivative: int) -> list[_Step]:
    """Jumps of f and f′ at the kinks of φ, f = φ² or φ′². The bend of φ′² needs φ″ and is 0 without."""

    def sides(function: Function, at: float) -> tuple[float, float]:
        gap = _SIDE * max(1.0, abs(at))
        below, above = function(np.array([at - gap, at + gap]))
        return float(below), float(above)

    out = []
    for kink in act.kinks:
        values, first = sides(act.phi, kink), sides(act.dphi, kink)
        second = sides(act.d2phi, kink) if act.d2phi is not None else (0.0, 0.0)
        low, high = (first, second) if derivative else (values, first)
        out.append(
            _Step(
                kink,
                _settled(low[1] ** 2 - low[0] ** 2, low),
                _settled(2.0 * (low[1] * high[1] - low[0] * high[0]), (*low, *high)),
            )
        )
    return out


def _settled(difference: float, operands: tuple[float, ...]) -> float:
    """`difference`, or 0 where it is no more than what reading the sides off at a distance leaves."""
    return 0.0 if abs(difference) <= 1e-13 * (1.0 + max(map(abs, operands)) ** 2) else difference


def _limit_at_zero(act: Activation, derivative: int, q: Floats) -> tuple[Floats, Floats]:
    """The limit q → 0, for each q, from one-sided values at 0; for φ² with φ″ known, or with pieces."""
    sides = np.array([-_SIDE, _SIDE])
    rise = 0.0 if derivative else float(np.mean(act.phi(sides) ** 2) - act.phi(np.zeros(1))[0] ** 2)
    bend = sum(step.bend for step in _steps(act, derivative) if step.at == 0.0)
    if abs(rise) > 1e-13 or bend:
        limit = math.copysign(math.inf, rise if abs(rise) > 1e-13 else bend)
        return np.full(q.shape, limit), np.zeros(q.shape)
    if act.pieces:
        limit = float(np.mean([piecewise.at(_curvature_pieces(act, derivative), u) for u in sides]))
    else:
        curvature = np.zeros(2) if act.d2phi is None else act.d2phi(sides)
        limit = float(np.mean(act.dphi(sides) ** 2 + act.phi(sides) * curvature))
    return np.full(q.shape, limit), np.full(q.shape, 4e-15 * (1.0 + abs(limit)))


def _extrapolate(act: Activation, derivative: int, q: Floats, rtol: float) -> tuple[Floats, Floats]:
    """Quadratic extrapolation to small q of a slope smooth there; the error is a part of its last term."""
    h = _near_zero(act)
    (first, second, third), errors = _inside(act, derivative, h * np.array([1.0, 2.0, 4.0]), rtol, True)
    x = q / h
    line = first + (second - first) * (x - 1.0)
    bend = ((third - second) / 2.0 - (second - first)) / 3.0
    value = line + bend * (x - 1.0) * (x - 2.0)
    return value, 0.05 * np.abs(value - line) + 8.0 * errors.max()


def _near_zero(act: Activation) -> float:
    """A variance at which φ is all but quadratic: a percent of its length scale and well below its kinks."""
    return (0.01 * min(1.0, act.scale, *(0.5 * abs(k) for k in act.kinks if k != 0.0), 1.0)) ** 2
