"""Watching evidence accrue: when a claim may be decided before its planned sample is spent, or after.

Half of each level belongs to the looks as replicates accrue, by e-processes in information time, and half
to the one test at the planned size, which is sharper. Their union keeps the whole level, however many looks
there are and whenever one stops. Evidence of many runs (statistics/evidence.py) makes a watch of many.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from mcverify.statistics.evidence import CONFIRM_LEVEL, Evidence, confirms, mde, p_value, tested
from mcverify.statistics.sequential import log_e_normal, normal_boundary, planned_precision, sequential_p

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Watch:
    """What the looks so far add up to.

    se: the standard errors expected at the planned size, of all that is tested (k or k + 1,), from an earlier,
    independent sample. level: that of a refutation, for which the looks are tuned. weights: of the components in
    their mean, fixed by that sample too (see Evidence). e_refute: the highest log e-value against the claim;
    e_inside: against the truth at either margin, (2, k), highest so far; p_planned, confirmed_planned: the
    decisions at the planned size, once it was reached. looks: how many; at_plan: was the last one at that size?"""

    se: FloatArray
    level: float
    weights: FloatArray | None = None
    e_refute: float | FloatArray = -np.inf
    e_inside: FloatArray | None = None
    p_planned: float | FloatArray = 1.0
    confirmed_planned: bool | NDArray[np.bool_] = False
    looks: int = 0
    at_plan: bool = False

    @property
    def p(self) -> Any:
        """The p-value of the claim, valid at every look."""
        by_looks = sequential_p(np.asarray(self.e_refute)[..., None])
        return np.minimum(1.0, 2 * np.minimum(self.p_planned, by_looks))

    @property
    def confirmed(self) -> Any:
        """Whether every deviation beyond the margin is excluded, at CONFIRM_LEVEL."""
        if self.e_inside is None:
            return self.confirmed_planned
        return self.confirmed_planned | np.all(self.e_inside >= np.log(2 / CONFIRM_LEVEL), axis=(0, -1))


def look(watch: Watch, e: Evidence, *, planned: bool) -> Watch:
    """The watch after one more look; planned: is this the look at the planned size?

    What is not finite changes nothing but the number of looks."""
    watch = replace(watch, looks=watch.looks + 1, at_plan=planned)
    known = e.finite
    if not known.any():
        return watch
    with np.errstate(invalid="ignore"):  # of runs that are not finite
        refute, inside = _against(watch, e), _inside(watch, e)
    inside = np.where(known[..., None], inside, -np.inf)
    watch = replace(
        watch,
        e_refute=np.maximum(watch.e_refute, np.where(known, refute, -np.inf)),
        e_inside=inside if watch.e_inside is None else np.maximum(watch.e_inside, inside),
    )
    if planned:
        p = np.where(known, p_value(e), 1.0)
        watch = replace(watch, p_planned=p, confirmed_planned=confirms(e, CONFIRM_LEVEL / 2))
    return watch


def _log_e(excess: FloatArray, se: FloatArray, planned_se: FloatArray, level: float | FloatArray) -> FloatArray:
    """Where the standard error is zero an excess is certain: its size is all that counts."""
    information, expected = 1 / np.maximum(se, 1e-150) ** 2, 1 / np.maximum(planned_se, 1e-150) ** 2
    return log_e_normal(excess, information, planned_precision(expected, level))


def _against(watch: Watch, e: Evidence) -> FloatArray:
    """log of an e-value against the claim: half of it for the components' mean where that is tested, the rest shared
    by the components; half for each side."""
    deviation, tolerated, se = tested(e)
    level = watch.level / 2 * e.shares / (1 if e.one_sided else 2)
    above = _log_e(deviation - tolerated, se, watch.se, level)
    sides = above
    if not e.one_sided:
        below = _log_e(-deviation - tolerated, se, watch.se, level)
        sides = np.logaddexp(above, below) - np.log(2)
    k = e.components
    components = np.logaddexp.reduce(sides[..., :k], axis=-1) - np.log(k)
    return np.asarray(np.logaddexp(components, sides[..., k]) - np.log(2) if e.pooled else components)


def _inside(watch: Watch, e: Evidence) -> FloatArray:
    """log e-values against the truth at or beyond the margin above, and below, (2, …, k); for a bound, against the
    truth above it."""
    k, level = e.components, CONFIRM_LEVEL / 2
    if e.one_sided:
        bias = 0.0 if e.bias is None else e.bias
        above = _log_e(-e.deviation - bias, e.se, watch.se[..., :k], level)
        sides = np.stack([above, np.full_like(above, np.inf)])
    else:
        sides = np.stack(
            [_log_e(s, e.se, watch.se[..., :k], level) for s in (e.room - e.deviation, e.room + e.deviation)]
        )
    return np.where(np.asarray(e.fitting(level))[..., None], sides, -np.inf)


def reach(watch: Watch, e: Evidence, level: float, sides: int) -> FloatArray:
    """How far an estimate must lie beyond zero for `log_e_normal` to reach log sides/level, (k,)."""
    out = []
    for se, planned in zip(e.se, watch.se, strict=False):
        share = float(planned / se) ** 2 if se > 0 else 1.0
        out.append(se * normal_boundary(share, level / sides))
    return np.array(out)


def watch_mde(watch: Watch, e: Evidence, alpha: float, power: float = 0.99) -> FloatArray:
    """The smallest deviation of each component, (k,), that one more such sample would refute at alpha with this power:
    by the test at the planned size if that was the last look, else by the looks alone."""
    if watch.at_plan:
        return mde(e, alpha / 2, power)
    tails = 1 if e.one_sided else 2
    beyond = reach(watch, e, alpha / 2 * float(e.shares[0]), tails)
    return np.asarray(e.tolerated + beyond + float(ndtri(power)) * e.se)


def watch_interval(watch: Watch, e: Evidence) -> FloatArray:
    """Confidence limits of each component, (k, 2), that hold at every look: each misses its truth with probability at
    most CONFIRM_LEVEL, whenever one stops."""
    half = reach(watch, e, CONFIRM_LEVEL, 2)
    return np.stack([e.estimate - half, e.estimate + half], axis=-1)
