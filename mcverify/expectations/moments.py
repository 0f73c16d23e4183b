"""Closed one-dimensional moments ⟨φ^k⟩_q, ⟨φ′^k⟩_q and the slopes of the second moments in q.

Each function takes q > 0 (flat) and returns (value, sum of magnitudes of its terms). Sources as in
`closed_forms`; piecewise exponential-polynomial φ by `pieces`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mcverify.activations import Activation
from mcverify.expectations import pieces as piecewise
from mcverify.expectations.integrand import power_of

Floats: TypeAlias = NDArray[np.float64]
Result: TypeAlias = tuple[Floats, Floats]
Closed: TypeAlias = Callable[[Floats], Result]

_TWO_PI = 2.0 * math.pi


def closed_moment(act: Activation, power: int, derivative: int) -> Closed | None:
    """⟨φ^power⟩ (or ⟨φ′^power⟩ for derivative=1) as a function of q, or None."""
    if act.slopes is not None:
        return _homogeneous(act.slopes, power, derivative)
    if act.kernel == "erf" and derivative:
        return lambda q: _exact((4.0 / math.pi) ** (0.5 * power) / np.sqrt(1.0 + 2.0 * power * q))
    if power == 2 and (act.kernel, derivative) in _SECOND:
        return _SECOND[act.kernel, derivative]
    if act.pieces:
        parts = power_of(act, power, derivative).pieces
        return lambda q: piecewise.smoothed(parts, np.zeros_like(q), np.sqrt(q))
    return None


def closed_slope(act: Activation, derivative: int) -> Closed | None:
    """d⟨φ²⟩/dq (or d⟨φ′²⟩/dq) as a function of q, or None."""
    if act.slopes is not None:
        negative, positive = act.slopes
        half = 0.0 if derivative else 0.5 * (negative**2 + positive**2)
        return lambda q: _exact(np.full(q.shape, half))
    return _SLOPES.get((act.kernel, derivative))


def _exact(value: Floats) -> Result:
    return value, np.abs(value)


def _homogeneous(slopes: tuple[float, float], power: int, derivative: int) -> Closed:
    negative, positive = slopes
    if derivative:
        mean = 0.5 * (negative**power + positive**power)
        return lambda q: _exact(np.full(q.shape, mean))
    absolute = 2.0 ** (0.5 * power) * math.gamma(0.5 * (power + 1)) / math.sqrt(math.pi)  # E|z|^power
    mean = 0.5 * (positive**power + (-negative) ** power) * absolute
    return lambda q: _exact(mean * q ** (power // 2) * (np.sqrt(q) if power % 2 else 1.0))


def _gelu_parts(q: Floats) -> tuple[Floats, Floats]:
    """E of the squared normal density, and E Φ²."""
    return 1.0 / (_TWO_PI * np.sqrt(1.0 + 2.0 * q)), np.arctan2(np.sqrt(1.0 + 2.0 * q), -q) / _TWO_PI


def _gelu_second(q: Floats) -> Result:
    density, both = _gelu_parts(q)
    return _exact(q * (2.0 * q / (1.0 + q) * density + both))


def _gelu_derivative(q: Floats) -> Result:
    density, both = _gelu_parts(q)
    return _exact(both + q * density * (2.0 / (1.0 + q) + 1.0 / (1.0 + 2.0 * q)))


def _gelu_slope(q: Floats) -> Result:
    density, both = _gelu_parts(q)
    one, two = 1.0 + q, 1.0 + 2.0 * q
    terms = (
        both,
        density * (4.0 * q + 2.0 * q * q) / one**2,
        density * q / one,
        -2.0 * density * q * q / (one * two),
    )
    return sum(terms[1:], terms[0]), sum((np.abs(t) for t in terms[1:]), terms[0])


def _gelu_derivative_slope(q: Floats) -> Result:
    density, _ = _gelu_parts(q)
    one, two = 1.0 + q, 1.0 + 2.0 * q
    gain = density / one + density * one / two * (2.0 / one + 1.0 / two)
    loss = 2.0 * q * density * (1.0 / one**2 + 1.0 / two**2)
    return gain - loss, gain + loss


_SECOND: dict[tuple[str, int], Closed] = {
    ("erf", 0): lambda q: _exact(2.0 / math.pi * np.arctan2(2.0 * q, np.sqrt(1.0 + 4.0 * q))),
    ("sin", 0): lambda q: _exact(-0.5 * np.expm1(-2.0 * q)),
    ("sin", 1): lambda q: _exact(0.5 * (1.0 + np.exp(-2.0 * q))),
    ("gelu", 0): _gelu_second,
    ("gelu", 1): _gelu_derivative,
}

_SLOPES: dict[tuple[str, int], Closed] = {
    ("erf", 0): lambda q: _exact(4.0 / math.pi / ((1.0 + 2.0 * q) * np.sqrt(1.0 + 4.0 * q))),
    ("erf", 1): lambda q: _exact(-8.0 / math.pi / (1.0 + 4.0 * q) ** 1.5),
    ("sin", 0): lambda q: _exact(np.exp(-2.0 * q)),
    ("sin", 1): lambda q: _exact(-np.exp(-2.0 * q)),
    ("gelu", 0): _gelu_slope,
    ("gelu", 1): _gelu_derivative_slope,
    ("sign", 0): lambda q: _exact(np.zeros_like(q)),
    ("sign", 1): lambda q: _exact(np.zeros_like(q)),
}
