"""Phases without a stable q* in (0, ∞): what to say when q tends to 0, to ∞ or nowhere, or never moves at all.

Two inputs keep a correlation even so. Where φ is, or comes down to, a positively homogeneous function
without bias, the *normalised* correlation map does not depend on q, and has its own fixed points although q
has none.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from mcverify.activations import Activation
from mcverify.activations import activation as look_up
from mcverify.theory.correlation_map import CorrelationMap
from mcverify.theory.fixed_points import FixedPoint, fixed_points
from mcverify.theory.phase_record import Phase, blank, depth_scale
from mcverify.theory.variance_map import VarianceMap


def continuum(q_map: VarianceMap) -> Phase:
    """Every q is a fixed point: positively homogeneous φ with gain 1 and no bias."""
    words = "Every q > 0 is a fixed point: the variance keeps its initial value, and χ_1 = 1 at each."
    at = blank(q_map, "critical", words)
    tangent = _tangent_at_zero(q_map.activation)
    if tangent is None or not _is_homogeneous(q_map.activation):
        words = "Every q that was tried is a fixed point to within rounding."
        return replace(at, name="marginal", message=words)
    return _with_homogeneous_c(replace(at, chi_1=1.0, slope_q=1.0, xi_q=math.inf), tangent)


def elsewhere(q_map: VarianceMap, end: FixedPoint | None, q0: float) -> Phase:
    """q tends to 0, to ∞, to a point that is not stable, or nowhere."""
    if end is None:
        return blank(q_map, "unsettled", f"From q0 = {q0:.6g} the variance does not settle at any fixed point.")
    if end.value == 0.0:
        return _degenerate(q_map, end)
    if math.isinf(end.value):
        return _divergent(q_map, end)
    name = "unstable" if end.stability == "unstable" else "marginal"
    what = "is" if name == "unstable" else "leads to"
    return blank(q_map, name, f"q0 = {q0:.6g} {what} the {end.stability} fixed point {end.value:.6g}: no stable q*.")


def _from(q_map: VarianceMap) -> str:
    """How to begin a sentence on where q goes: whether another q0 could go elsewhere."""
    others = any(0.0 < p.value < math.inf for p in fixed_points(q_map).points)
    return "From this q0 the variance" if others else "There is no q* > 0: the variance"


def _divergent(q_map: VarianceMap, end: FixedPoint) -> Phase:
    """q → ∞."""
    how = f"by {end.slope:.6g} per layer" if end.slope != 1.0 else "more slowly than geometrically"
    at = blank(q_map, "divergent", f"{_from(q_map)} grows without bound, {how}.")
    at = replace(at, slope_q=end.slope)
    gain = q_map.homogeneous_gain
    return at if gain is None else _with_homogeneous_c(replace(at, chi_1=gain), q_map.activation)


def _degenerate(q_map: VarianceMap, end: FixedPoint) -> Phase:
    """q → 0: φ acts as its tangents at 0, so what remains of the correlation depends on these."""
    how = f"by {end.slope:.6g} per layer"
    if end.stability == "marginal":
        how = "like a power of depth (gradients keep their size in the limit)"
    elif end.slope == 0.0:
        how = "faster than geometrically"
    at = blank(q_map, "degenerate", f"{_from(q_map)} falls to 0, {how}.")
    at = replace(at, slope_q=end.slope, chi_1=end.slope, xi_q=depth_scale(min(end.slope, 1.0)))
    tangent = _tangent_at_zero(q_map.activation)
    if tangent is None or q_map.sigma_w2 == 0.0:
        return replace(at, message=at.message + " The correlation depends on how phi vanishes at 0.")
    return _with_homogeneous_c(at, tangent)


def _is_homogeneous(act: Activation) -> bool:
    """Whether φ(u)/u is one constant above 0 and one below, to rounding: custom φ do not say so themselves."""
    if act.slopes is not None:
        return True
    size = np.geomspace(1e-6, 1e6, 61)
    above, below = act.phi(size) / size, act.phi(-size) / -size
    return bool(np.allclose(above, above[0], rtol=1e-12) and np.allclose(below, below[0], rtol=1e-12))


def _tangent_at_zero(act: Activation) -> Activation | None:
    """φ near 0 as a positively homogeneous activation, up to a factor; None where both slopes vanish."""
    if act.slopes is not None:
        return act
    step = 1e-9 * min(act.scale, 1.0)
    left, right = float(act.phi(-step)) / -step, float(act.phi(step)) / step
    if max(abs(left), abs(right)) < 1e-6:
        return None
    if abs(left - right) <= 1e-6 * max(abs(left), abs(right)):
        return look_up("linear")
    small, large = sorted((left, right), key=abs)  # reflection and scale do not change a normalised map
    return look_up(f"leaky_relu({small / large!r})")


def _with_homogeneous_c(at: Phase, act: Activation) -> Phase:
    """c for φ homogeneous and no bias: the normalised map does not depend on q, fixed or not.

    Linear φ keeps every correlation. Any other has slope 1 at c = 1, approached like l^−2. Dropout multiplies the map
    by ρ, and then there is one fixed point below 1."""
    assert act.slopes is not None
    mean = 0.5 * (act.slopes[0] ** 2 + act.slopes[1] ** 2)
    if mean == 0.0 or at.sigma_w2 == 0.0:
        return at
    c_map = CorrelationMap(act, at.keep / mean, 0.0, 1.0, at.keep)
    if at.keep < 1.0:
        point = c_map.fixed_points(1.0 / at.keep, 0.0)[-1]
        words = f" Correlations tend to c = {point.value:.6g} whatever q does."
        return replace(
            at, c=point.value, chi_c=point.slope, xi_c=depth_scale(point.slope), c_fixed_points=(point,),
            message=at.message + words,
        )  # fmt: skip
    at = replace(at, chi_c=1.0, xi_c=math.inf)
    if act.slopes[0] == act.slopes[1]:
        return replace(at, message=at.message + " Correlations keep a value that depends on the inputs: no single c*.")
    words = " Correlations tend to 1 like depth^-2, not geometrically."
    return replace(at, c=1.0, c_fixed_points=(FixedPoint(1.0, 1.0, "half-stable"),), message=at.message + words)
