"""Evidence on a vector of means, and what it decides.

Knows nothing of networks. Estimates are means of many independent, light-tailed replicates (or smooth
functions of such means), so they are taken as Gaussian with the standard error given; the caller
sees to it that a plan fixes the number of replicates before they are looked at. Deciding at a fixed size
is what makes these p-values valid; none of this may be asked again as replicates accrue.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

FloatArray = NDArray[np.float64]

CONFIRM_LEVEL = 1e-3  # a truth at ± the margin is confirmed with at most this probability
PLAN_POWER = 0.9999  # a plan confirms a true claim with at least this probability


@dataclass(frozen=True)
class Evidence:
    """Estimates of k components, (k,) each.

    estimate, se: the estimate and its standard error; prediction: what is claimed;
    remainder: how far the truth may lie from the prediction by the claim's own account (≥ 0);
    margin: the deviation that matters; samples: replicates behind it; lack_of_fit: p-value of the model
    behind the estimates (1 where there is none). one_sided: only estimates above the prediction refute.
    within: the claim is the margin itself, so only a deviation beyond it refutes. fits: how many goodness-of-fit
    tests lack_of_fit stands for, fixed by the kind of claim.
    """

    estimate: FloatArray
    se: FloatArray
    prediction: FloatArray
    remainder: FloatArray
    margin: FloatArray
    samples: int
    lack_of_fit: float = 1.0
    one_sided: bool = False
    within: bool = False
    fits: int = 0

    @property
    def tests(self) -> int:
        """What Bonferroni divides by: a number fixed before the data are seen."""
        return self.components + self.fits

    @property
    def tolerated(self) -> FloatArray:
        """The deviation that does not refute, (k,)."""
        return self.margin if self.within else self.remainder

    @property
    def components(self) -> int:
        """k."""
        return len(self.estimate)

    @property
    def deviation(self) -> FloatArray:
        """estimate − prediction."""
        return self.estimate - self.prediction

    @property
    def finite(self) -> bool:
        """Whether every estimate is finite and every standard error positive or its deviation zero."""
        known = np.isfinite(self.estimate) & np.isfinite(self.se) & np.isfinite(self.prediction)
        return bool(np.all(known & ((self.se > 0) | (self.deviation == 0))))


def p_value(e: Evidence) -> float:
    """The p-value of the claim as a whole, at fixed sample size.

    Two-sided (or upper) normal test of each component against prediction ± remainder, combined by
    Bonferroni over components; lack of fit counts as one more component. Valid under any dependence.
    """
    if not e.finite:
        return float("nan")
    excess = (e.deviation if e.one_sided else np.abs(e.deviation)) - e.tolerated
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(excess <= 0, 0.0, excess / e.se)
    tail = ndtr(-z)
    p = np.where(z > 0, tail if e.one_sided else 2 * tail, 1.0)
    smallest = min(float(p.min()), e.lack_of_fit if e.fits else 1.0)
    return min(1.0, e.tests * smallest)


def confirms(e: Evidence, level: float = CONFIRM_LEVEL) -> bool:
    """Whether the data exclude every deviation beyond the margin, in every component; for a one-sided claim,
    every deviation above its bound.

    An intersection–union test (Berger & Hsu 1996): each component at `level` keeps the whole at `level`."""
    if not e.finite:
        return False
    reach = float(ndtri(1 - level)) * e.se
    if e.one_sided:
        return bool(np.all(e.deviation + reach <= 0))
    return bool(np.all(np.abs(e.deviation) + reach < e.margin))


def mde(e: Evidence, alpha: float, power: float = 0.99) -> FloatArray:
    """The smallest deviation of each component that would be refuted at level alpha with this power."""
    tails = 1 if e.one_sided else 2
    quantile = float(ndtri(1 - alpha / (tails * e.tests)) + ndtri(power))
    return e.tolerated + quantile * e.se


def confirmation_distance(components: int, level: float = CONFIRM_LEVEL, power: float = PLAN_POWER) -> float:
    """How many standard errors a margin must span for a true claim of k components to be confirmed with
    this power: each component may miss on either side."""
    return float(ndtri(1 - level) + ndtri(1 - (1 - power) / (2 * components)))


def decision_room(e: Evidence) -> FloatArray:
    """How far each component's truth is expected to lie from where the decision turns, (k,), in its own unit.

    A true claim lies within its remainder of the prediction. A claim that is the margin itself may lie anywhere:
    there the present estimate stands in, no nearer to the margin than an eighth of it, since what lies closer
    than that is not worth sixty-four times the networks."""
    if e.within:
        return np.maximum(np.abs(e.margin - np.abs(e.deviation)), e.margin / 8)
    return np.asarray(np.maximum(e.margin - e.remainder, 1e-3 * e.margin))


def samples_needed(e: Evidence, power: float = PLAN_POWER) -> int:
    """The samples at which a true claim would be decided with this power; for a one-sided claim, one
    whose truth lies a margin inside its bound.

    A remainder shifts the truth towards the margin; where it reaches the margin no size suffices (−1)."""
    if not e.finite or (not e.within and np.any(e.margin <= e.remainder)):
        return -1
    ratio = confirmation_distance(e.components, power=power) * e.se / decision_room(e)
    return int(np.ceil(e.samples * float(np.max(ratio)) ** 2))
