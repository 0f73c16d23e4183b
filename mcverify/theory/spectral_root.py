"""The root of the equations at λ + i0: it starts on the negative axis, where all is real, and is followed along
|λ| = const to the positive one; the upper half-plane holds no branch point in between."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mcverify.errors import Unpredictable
from mcverify.theory.spectral_equations import Equations, Point

FloatArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]

_LEFT_OUT = 1e-8  # probability below the smallest value that is resolved
# Of λ, from the negative axis to the positive one.
_ANGLES = np.concatenate([np.linspace(np.pi, 0.1, 24)[1:], 0.1 * 0.4 ** np.arange(1, 17)])
_FINER = 3  # times that angles are halved where the root was lost
_STEP = 0.25  # in log λ along the negative axis


class NegativeAxis(NamedTuple):
    """The root on the negative axis at points of descending log |λ|."""

    log_size: FloatArray  # (point,)
    root: Point


def negative_axis(equations: Equations, log_edge: float, zeros: float) -> NegativeAxis:
    """From far outside to where all but _LEFT_OUT of the spectrum lies above |λ|: 1 + z is about what lies below."""
    mu = np.array([law.values @ law.probabilities for law in equations.laws])
    size = log_edge + 12.0
    log_m1 = equations.constant + equations.number @ np.log(mu)
    log_z = log_m1 - size
    at = Point(np.array([log_z - np.pi * 1j]), (log_z + np.log(equations.above / mu) - np.pi * 1j)[:, None])
    sizes, found = [], []
    while True:
        at, worst = equations.solve(at, np.array([size + np.pi * 1j]), 50)
        if not worst[0] < 1e-7:
            break
        sizes.append(size)
        found.append(at)
        if 1 - zeros + np.exp(at.log_z[0]).real < _LEFT_OUT:
            break
        size -= _STEP
    if len(found) < 60:
        raise Unpredictable("the equation for the density could not be followed along the negative axis")
    root = Point(np.concatenate([p.log_z for p in found]), np.concatenate([p.log_zeta for p in found], axis=1))
    return NegativeAxis(np.array(sizes), root)


def _on_axis(equations: Equations, start: NegativeAxis, log_size: FloatArray, finer: int = 0) -> Point:
    """The root at λ + i0, log λ = log_size; NaN where it could not be followed."""
    order = start.log_size[::-1]

    def between(v: ComplexArray) -> ComplexArray:
        return np.asarray(np.interp(log_size, order, v[::-1].real) - np.pi * 1j)

    log_zeta = np.array([between(v) for v in start.root.log_zeta]).reshape(-1, len(log_size))
    at = Point(between(start.root.log_z), log_zeta)
    at, _ = equations.solve(at, log_size + np.pi * 1j, 20)
    marks = np.arange(len(_ANGLES) * 2**finer) / 2**finer
    for angle in np.interp(marks, np.arange(len(_ANGLES)), _ANGLES):
        at, _ = equations.solve(at, log_size + angle * 1j, 2)
    at, worst = equations.solve(at, log_size + 0j, 40)
    lost = ~(worst < 1e-7) | (at.log_z.imag > 1e-7) | (at.log_z.imag < -np.pi - 1e-7)
    if lost.any() and finer < _FINER:
        again = _on_axis(equations, start, log_size[lost], finer + 1)
        at.log_z[lost], at.log_zeta[:, lost] = again
    elif lost.any():
        at.log_z[lost] = np.nan
    return at


def mass_rate(equations: Equations, start: NegativeAxis, log_size: FloatArray) -> FloatArray:
    """dP/d log λ = −Im z/π at each log λ."""
    at = _on_axis(equations, start, log_size)
    rate = -np.exp(at.log_z).imag / np.pi
    return np.where(np.isfinite(rate), np.maximum(rate, 0.0), 0.0)
