"""What is known of a phase: the record that `phase` returns, and the depth scale of a slope."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mcverify.theory.fixed_points import FixedPoint, fixed_points
from mcverify.theory.variance_map import VarianceMap

_NAN = math.nan


@dataclass(frozen=True)
class Phase:
    """Where (φ, σ_w², σ_b², ρ) stands. nan wherever theory gives no single number; `message` says why.

    name:
        "ordered" (χ_1 < 1), "critical" (|χ_1 − 1| within `critical_tolerance`), "chaotic" (χ_1 > 1): at a stable
        q* in (0, ∞). "critical" also where every q is fixed and χ_1 = 1.
        "discontinuous": φ jumps, near inputs part at an infinite rate, and the gradient factor misses the jump.
        "degenerate": q → 0. "divergent": q → ∞. "marginal", "unstable": q0 leads to, or is, a fixed point that is
        not stable. "unsettled": q0 leads to none.
    q, q_error: the stable variance fixed point q* that q0 leads to, and a bound on its numerical error.
    c: the correlation that two different inputs tend to, c* reached from below 1.
    chi_1, chi_1_error: the gradient factor (σ_w²/ρ)⟨φ′²⟩ at q*, and a bound on its numerical error. Where there is
        no q*, its limit along the sequence if that is known; nan where φ jumps.
    chi_c: slope of the normalised correlation map at c; at q* it is σ_w² E[φ′(u_a) φ′(u_b)], without 1/ρ.
    slope_q: dQ/dq at q*, or at the 0 or ∞ that q tends to.
    xi_q, xi_c: depth scales −1/log|slope|, in layers; inf at slope 1, 0 at slope 0.
    q_fixed_points: all of them in [0, ∞], increasing. c_fixed_points: all of them in [−1, 1] at q*.
    """

    activation: str
    sigma_w2: float
    sigma_b2: float
    keep: float
    name: str
    q: float
    c: float
    chi_1: float
    chi_c: float
    slope_q: float
    xi_q: float
    xi_c: float
    q_fixed_points: tuple[FixedPoint, ...]
    c_fixed_points: tuple[FixedPoint, ...]
    message: str
    q_error: float = _NAN
    chi_1_error: float = _NAN


def blank(q_map: VarianceMap, name: str, message: str) -> Phase:
    """A Phase that knows its parameters and the fixed points of Q, and nothing else."""
    return Phase(
        activation=q_map.activation.name, sigma_w2=q_map.sigma_w2, sigma_b2=q_map.sigma_b2, keep=q_map.keep,
        name=name, q=_NAN, c=_NAN, chi_1=_NAN, chi_c=_NAN, slope_q=_NAN, xi_q=_NAN, xi_c=_NAN,
        q_fixed_points=fixed_points(q_map).points, c_fixed_points=(), message=message,
    )  # fmt: skip


def depth_scale(slope: float) -> float:
    """ξ = −1/log|slope| layers: inf at ±1, 0 at 0, nan where perturbations grow (Schoenholz et al. 2017,
    eqs. 8, 9).
    """
    size = abs(slope)
    if math.isnan(size) or size > 1.0:
        return _NAN
    return math.inf if size == 1.0 else 0.0 if size == 0.0 else -1.0 / math.log(size)
