"""The phase of a wide fully connected network: its fixed points q* and c*, their slopes and depth scales.

Notation and statements of Poole et al. 2016 (order-to-chaos transition) and Schoenholz et al. 2017 (depth
scales; §5 for dropout). Every number here is a *limit*: width → ∞ first, then depth.
"""

from __future__ import annotations

import math
from dataclasses import replace

from mcverify.activations import Activation
from mcverify.theory.correlation_map import CorrelationMap
from mcverify.theory.critical_line import NoCriticalPoint, critical_line, critical_sigma_w2
from mcverify.theory.fixed_points import FixedPoint, fixed_points, settle
from mcverify.theory.no_fixed_point import continuum, elsewhere
from mcverify.theory.phase_record import Phase, blank, depth_scale
from mcverify.theory.trajectory import depth_to_fixed_point, q_trajectory
from mcverify.theory.variance_map import VarianceMap, checked
from mcverify.validate import between, positive

__all__ = [
    "FixedPoint",
    "NoCriticalPoint",
    "Phase",
    "critical_line",
    "critical_sigma_w2",
    "depth_to_fixed_point",
    "phase",
    "q_trajectory",
]


def phase(
    activation: str | Activation,
    sigma_w2: float,
    sigma_b2: float,
    keep: float = 1.0,
    *,
    q0: float = 1.0,
    critical_tolerance: float = 1e-5,
) -> Phase:
    """The phase of a fully connected network of infinite width.

    activation: a name or an Activation. sigma_w2, sigma_b2: σ_w², σ_b² ≥ 0. keep: dropout's keep probability
    ρ in (0, 1], masks independent over units and inputs. q0 > 0: the variance to start from, which matters
    where there are several fixed points. critical_tolerance: |χ_1 − 1| up to which the phase is called
    critical; the fields keep their own values there, so that ξ_c is huge, not inf, unless χ_1 is 1 to within
    its error.

    With ρ < 1 the name tells vanishing from exploding gradients by χ_1 alone; c* < 1 on both sides, and χ_c
    ≤ ρ. Raises InputError for unusable parameters.
    """
    q_map = checked(activation, sigma_w2, sigma_b2, keep)
    positive("q0", q0)
    between("critical_tolerance", critical_tolerance, 0.0, 1.0)
    if fixed_points(q_map).continuum:
        return continuum(q_map)
    end = settle(q_map, float(q0))
    if end is not None and end.stability == "stable" and 0.0 < end.value < math.inf:
        found = _at_fixed_point(q_map, end, critical_tolerance)
    else:
        found = elsewhere(q_map, end, float(q0))
    return replace(found, message=found.message + _others(q_map, end, float(q0)))


def _at_fixed_point(q_map: VarianceMap, point: FixedPoint, tolerance: float) -> Phase:
    """Everything at a stable q* in (0, ∞)."""
    q, slope = point.value, point.slope
    q_error = float(q_map.error(q)) / abs(1.0 - slope)
    jumps = bool(q_map.activation.jumps) and q_map.sigma_w2 > 0
    chi_1 = math.nan if jumps else float(q_map.gradient_factor(q))
    chi_1_error = math.nan if jumps else q_map.gradient_factor_error(q, q_error)
    c_map = CorrelationMap(q_map.activation, q_map.sigma_w2, q_map.sigma_b2, q, q_map.keep)
    c_points = c_map.fixed_points(math.inf if jumps else chi_1, 0.0 if jumps else chi_1_error)
    reached = _reached(c_points)
    name = "discontinuous" if jumps else _name(chi_1, tolerance)
    words = _words(q_map, name, q, chi_1, reached)
    if chi_1_error > max(tolerance, 1e-9):
        words += f" But χ_1 is known only to within {chi_1_error:.2g}."
    return replace(
        blank(q_map, name, words),
        q=q, c=reached.value, chi_1=chi_1, chi_c=reached.slope, slope_q=slope,
        xi_q=depth_scale(slope), xi_c=_correlation_scale(reached), c_fixed_points=c_points,
        q_error=q_error, chi_1_error=chi_1_error,
    )  # fmt: skip


def _name(chi_1: float, tolerance: float) -> str:
    if abs(chi_1 - 1.0) <= tolerance:
        return "critical"
    return "ordered" if chi_1 < 1.0 else "chaotic"


def _reached(points: tuple[FixedPoint, ...]) -> FixedPoint:
    """The one that correlations between 0 and 1 tend to: the stable one if any, else c = 1."""
    return next((p for p in points if p.stability == "stable" and p.value >= 0.0), points[-1])


def _correlation_scale(point: FixedPoint) -> float:
    """ξ_c, inf where the slope is 1 to within its error."""
    return math.inf if point.stability in ("marginal", "half-stable") else depth_scale(point.slope)


def _words(q_map: VarianceMap, name: str, q: float, chi_1: float, c: FixedPoint) -> str:
    """What the phase means, in one or two sentences."""
    scale = _correlation_scale(c)
    if name == "discontinuous":
        gain = float(q_map.gradient_factor(q))
        return (
            "phi jumps: there is no single χ_1. The correlation map has infinite slope at c = 1, so that near "
            f"inputs part at once, towards c = {c.value:.6g}; gradients, which miss the jump, gain {gain:.6g}."
        )
    words = {
        "ordered": f"Ordered: at q* gradients shrink by χ_1 = {chi_1:.10g} per layer",
        "critical": f"Critical: at q* gradients keep their size, χ_1 = {chi_1:.10f}",
        "chaotic": f"Chaotic: at q* gradients grow by χ_1 = {chi_1:.10g} per layer",
    }[name]
    if q_map.keep < 1.0 and c.value < 1.0:
        limit = -1 / math.log(q_map.keep)
        return (
            f"{words}. Dropout keeps correlations below 1 in every phase: they tend to c = {c.value:.6g} "
            f"over {scale:.4g} layers, at most 1/|log keep| = {limit:.4g}."
        )
    return f"{words}; correlations tend to c = {c.value:.6g} over {scale:.4g} layers."


def _others(q_map: VarianceMap, end: FixedPoint | None, q0: float) -> str:
    """The other fixed points of Q, where there are several to choose from."""
    rest = [p for p in fixed_points(q_map).points if p != end]
    if not [p for p in rest if p.value > 0 and (p.stability != "unstable" or math.isfinite(p.value))]:
        return ""
    shown = ", ".join(f"{p.value:.6g} ({p.stability}, slope {p.slope:.4g})" for p in rest)
    return f" This is where q0 = {q0:.6g} leads; other fixed points of the variance: {shown}."
