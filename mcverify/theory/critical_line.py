"""The critical line χ_1 = 1 in the (σ_w², σ_b²) plane, parametrised by the variance q* at which it holds.

    σ_w² = 1/⟨φ′²⟩_q      σ_b² = q − σ_w² ⟨φ²⟩_q      (Poole et al. 2016, fig. 1; Schoenholz 2017, eq. 5)

It is a place where a network can sit only where σ_b² ≥ 0 and q is a *stable* fixed point, |dQ/dq| < 1.

σ_b² is a small difference near q = 0. With β = ⟨φ′⟩_q and ψ = φ − β u, the Hermite coefficients a_k of φ give
q⟨φ′²⟩ − ⟨φ²⟩ = Σ (k − 1) a_k², in which k = 1 does not appear, so that φ may be replaced by ψ:
σ_b² = σ_w² (q⟨ψ′²⟩ − ⟨ψ²⟩), without cancellation for φ close to linear.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple
from warnings import warn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mcverify.activations import Activation
from mcverify.activations import activation as look_up
from mcverify.errors import InputError
from mcverify.expectations import gaussian
from mcverify.theory import roots
from mcverify.validate import variance

Floats = NDArray[np.float64]

_PER_DECADE = 16
_LOWEST, _HIGHEST = 1e-9, 1e9


class NoCriticalPoint(InputError):
    """No stable critical point has this bias variance."""


class SeveralCriticalPoints(UserWarning):
    """The critical line passes this bias variance more than once."""


class CriticalLine(NamedTuple):
    """The line at given q, arrays of q's shape.

    stable: σ_b² ≥ 0 and |slope| < 1; elsewhere no network sits there. slope: dQ/dq. sigma_b2 is negative where no
    bias variance makes q critical; sigma_w2 is inf where φ′ = 0."""

    sigma_w2: Floats
    sigma_b2: Floats
    stable: NDArray[np.bool_]
    slope: Floats


def critical_line(activation: str | Activation, q: ArrayLike) -> CriticalLine:
    """The critical line at fixed points q > 0, any shape.

    Unpacks as (sigma_w2, sigma_b2, stable, slope). Positively homogeneous φ have one critical point for
    every q, which is not an isolated fixed point: stable is False, slope 1. Raises InputError for q not
    finite and positive, and for φ that jumps (no χ_1).
    """
    act = _differentiable(activation)
    at = np.asarray(q, dtype=np.float64)
    if not np.all(np.isfinite(at)) or np.any(at <= 0):
        raise InputError("q", at.tolist(), "must be finite and above 0")
    with np.errstate(divide="ignore", invalid="ignore"):
        sigma_w2 = np.asarray(1.0 / gaussian.derivative_second_moment(act, at).value)
        if act.slopes is not None:
            return CriticalLine(sigma_w2, np.zeros(at.shape), np.zeros(at.shape, bool), np.ones(at.shape))
        sigma_b2 = _bias_variance(act, at)
        slope = np.asarray(sigma_w2 * gaussian.second_moment_slope(act, at).value)
    return CriticalLine(sigma_w2, sigma_b2, (sigma_b2 >= 0) & (np.abs(slope) < 1), slope)


def critical_sigma_w2(activation: str | Activation, sigma_b2: float) -> float:
    """The σ_w² at which a network with this φ and σ_b² is critical, at a stable q*.

    Where the line passes σ_b² more than once, the point of smallest q* is returned, with a SeveralCriticalPoints
    warning that lists them all. At σ_b² = 0 the stable line may begin, in q* = 0, which is reached like a power of
    depth (tanh: 1/φ′(0)² = 1); for positively homogeneous φ every q is fixed there (ReLU: 2). Raises InputError for
    unusable σ_b², NoCriticalPoint (an InputError) where there is none at q* in (1e-9, 1e9).
    """
    act = _differentiable(activation)
    variance("sigma_b2", sigma_b2)
    if act.slopes is not None:
        return _homogeneous(act, float(sigma_b2))
    found = critical_points(act, float(sigma_b2))
    if not found:
        words = f"{act.name} has no stable critical point with this bias (at q* from 1e-9 to 1e9)"
        raise NoCriticalPoint("sigma_b2", sigma_b2, words)
    if len(found) > 1:
        listed = "; ".join(f"sigma_w2 = {w:.10g} at q* = {q:.6g}" for q, w in found)
        words = f"{act.name} is critical at sigma_b2 = {sigma_b2:g} repeatedly: {listed}. The first is given."
        warn(words, SeveralCriticalPoints, stacklevel=2)
    return found[0][1]


def critical_points(activation: str | Activation, sigma_b2: float) -> list[tuple[float, float]]:
    """(q*, σ_w²) of every stable critical point with this σ_b², by increasing q* in (1e-9, 1e9).

    At σ_b² = 0 the list begins with q* = 0 where the stable line begins there. Not for positively
    homogeneous φ."""
    act = _differentiable(activation)
    q = np.geomspace(_LOWEST, _HIGHEST, round(_PER_DECADE * math.log10(_HIGHEST / _LOWEST)) + 1)
    bias, noise = _direct(act, q)
    lost = (np.abs(bias - sigma_b2) <= 10 * noise) & (sigma_b2 > 0)
    bias[lost], noise[lost] = critical_line(act, q[lost]).sigma_b2, 0.0
    known = np.isfinite(bias)
    found = roots.scan(
        lambda x: float(critical_line(act, x).sigma_b2) - sigma_b2,
        q[known],
        bias[known] - sigma_b2,
        noise[known],
    )
    points = [(root.x, critical_line(act, root.x)) for root in found.roots]
    start = _start_of_line(act) if sigma_b2 == 0 else []
    return [*start, *((x, float(at.sigma_w2)) for x, at in points if abs(at.slope) < 1)]


def _differentiable(activation: str | Activation) -> Activation:
    act = look_up(activation)
    if act.jumps:
        raise NoCriticalPoint("activation", act.name, "phi jumps, so there is no chi_1 and no critical line")
    return act


def _homogeneous(act: Activation, sigma_b2: float) -> float:
    assert act.slopes is not None
    if sigma_b2 > 0:
        raise NoCriticalPoint(
            "sigma_b2",
            sigma_b2,
            f"must be 0: with a bias the variance of a critical {act.name} network diverges",
        )
    total = act.slopes[0] ** 2 + act.slopes[1] ** 2
    if total == 0:
        raise NoCriticalPoint("activation", act.name, "phi is 0 everywhere")
    return 2.0 / total


def _start_of_line(act: Activation) -> list[tuple[float, float]]:
    """[(0, σ_w² as q → 0)] if the stable line starts there, from σ_b² = 0."""
    q = np.geomspace(1e-4, 1e-1, 3 * _PER_DECADE + 1)
    line = critical_line(act, q)
    seen = np.flatnonzero(np.abs(line.sigma_b2) > 1e-13 * q)
    through_origin = float(np.abs(act.phi(np.zeros(1)))[0]) == 0.0
    if not through_origin or not len(seen) or not line.stable[seen[0]] or line.sigma_b2[seen[0]] > 0.1 * q[seen[0]]:
        return []
    return [(0.0, 1.0 / float(gaussian.second_moment_slope(act, 0.0).value))]


def _direct(act: Activation, q: Floats) -> tuple[Floats, Floats]:
    """σ_b² = q − ⟨φ²⟩/⟨φ′²⟩ as it stands, and a bound on its error. inf or nan where ⟨φ′²⟩ = 0."""
    phi2, slope2 = gaussian.second_moment(act, q), gaussian.derivative_second_moment(act, q)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = phi2.value / slope2.value
        error = (phi2.error + ratio * slope2.error) / slope2.value + 4 * np.finfo(float).eps * (q + ratio)
    return np.array(q - ratio), np.array(error)


def _bias_variance(act: Activation, q: Floats) -> Floats:
    """σ_b² on the line: directly where that loses nothing, else by way of ψ = φ − ⟨φ′⟩u (top of the file)."""
    out, error = _direct(act, q)
    for i in np.argwhere(error > 1e-14 * np.abs(out)):
        out[tuple(i)] = _without_cancellation(act, float(q[tuple(i)]))
    return out


def _without_cancellation(act: Activation, q: float) -> float:
    psi = _Residual(act, float(gaussian.moment(act, q, 1, 1).value))

    def mean(f: Callable[[Floats], Floats], rtol: float) -> float:
        return float(gaussian.expect(f, q, act.kinks, scale=act.scale, rtol=rtol).value)

    rough = mean(psi.squared, 1e-3)
    rounding = 8 * np.finfo(float).eps * abs(psi.b) * math.sqrt(q / rough) if rough > 0 else 1.0
    rtol = min(max(1e-12, rounding), 1e-3)
    slope2 = mean(psi.slope_squared, rtol)
    return (q * slope2 - mean(psi.squared, rtol)) / (psi.b**2 + slope2)


@dataclass(frozen=True)
class _Residual:
    """ψ = φ − b u, as integrands."""

    activation: Activation
    b: float

    def squared(self, u: Floats) -> Floats:
        return np.asarray((self.activation.phi(u) - self.b * u) ** 2)

    def slope_squared(self, u: Floats) -> Floats:
        return np.asarray((self.activation.dphi(u) - self.b) ** 2)
