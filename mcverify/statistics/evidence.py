"""Evidence on a vector of means, and what it decides at a sample size that was fixed beforehand.

Knows nothing of networks. Estimates are means of many independent, light-tailed replicates (or smooth
functions of such means), so they are taken as Gaussian with the standard error given. For looks as replicates
accrue there is statistics/watch.py.

Estimates may have leading axes, one entry for each of many runs: what is decided then has these axes too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

FloatArray = NDArray[np.float64]

FIT_SHARE = 0.1  # of a level, for goodness of fit: what a ladder is asked is its intercept
CONFIRM_LEVEL = 1e-3  # a truth at ± the margin is confirmed with at most this probability
PLAN_POWER = 0.9999  # a plan confirms a true claim with at least this probability


@dataclass(frozen=True)
class Evidence:
    """Estimates of k components, (k,) each, or (…, k) of many runs.

    estimate, se: the estimate and its standard error; prediction: what is claimed;
    remainder: how far the truth may lie from the prediction by the claim's own account (≥ 0);
    margin: the deviation that matters; samples: replicates behind it; lack_of_fit: p-value of the model
    behind the estimates (1 where there is none). one_sided: only estimates above the prediction refute.
    within: the claim is the margin itself, so only a deviation beyond it refutes. fits: how many goodness-of-fit
    tests lack_of_fit stands for, fixed by the kind of claim.
    bias: how far the estimates' own means may lie from the truth, (k,), where they are extrapolated.
    covariance: of the estimates, (k, k), where it is known: then what all components have in common is tested too,
    as their mean with weights ∝ `weights` (k,), fixed before the data are seen.
    """

    estimate: FloatArray
    se: FloatArray
    prediction: FloatArray
    remainder: FloatArray
    margin: FloatArray
    samples: int
    lack_of_fit: Any = 1.0
    one_sided: bool = False
    within: bool = False
    fits: int = 0
    bias: FloatArray | None = None
    covariance: FloatArray | None = None
    weights: FloatArray | None = None

    @property
    def pooled(self) -> bool:
        """Whether the components' mean is tested beside them."""
        return self.covariance is not None and self.weights is not None and self.components > 1

    @property
    def shares(self) -> FloatArray:
        """The shares of the level that the components have, and their mean where it is tested, (k,) or (k + 1,); what
        they leave belongs to the fit. Fixed before the data are seen."""
        rest = 1.0 - FIT_SHARE * self.fits
        if not self.pooled:
            return np.full(self.components, rest / self.components)
        return np.append(np.full(self.components, rest / (2 * self.components)), rest / 2)

    @property
    def tolerated(self) -> FloatArray:
        """The deviation that does not refute, (k,)."""
        tolerated = self.margin if self.within else self.remainder
        return tolerated if self.bias is None else tolerated + self.bias

    @property
    def room(self) -> FloatArray:
        """The deviation that an estimate must stay below for its truth to lie inside the margin, (k,)."""
        return self.margin if self.bias is None else self.margin - self.bias

    @property
    def components(self) -> int:
        """k."""
        return self.estimate.shape[-1]

    @property
    def deviation(self) -> FloatArray:
        """estimate − prediction."""
        return self.estimate - self.prediction

    def fitting(self, level: float) -> Any:
        """Whether the model behind the estimates fits them at this level."""
        return np.asarray(self.lack_of_fit) > level if self.fits else np.True_

    @property
    def finite(self) -> Any:
        """Whether every estimate is finite and every standard error positive or its deviation zero."""
        known = np.isfinite(self.estimate) & np.isfinite(self.se) & np.isfinite(self.prediction)
        return np.all(known & ((self.se > 0) | (self.deviation == 0)), axis=-1)


def tested(e: Evidence) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(deviation, what of it is tolerated, standard error) of all that is tested: the k components, and after them
    their weighted mean where it is."""
    deviation, tolerated, se = e.deviation, e.tolerated, e.se
    if e.pooled:
        assert e.covariance is not None
        assert e.weights is not None
        w = e.weights / e.weights.sum()
        deviation, tolerated = (np.concatenate([v, (v @ w)[..., None]], axis=-1) for v in (deviation, tolerated))
        se = np.concatenate([se, np.sqrt(e.covariance @ w @ w)[..., None]], axis=-1)
    return deviation, tolerated, se


def p_value(e: Evidence) -> Any:
    """The p-value of the claim as a whole, at fixed sample size.

    Two-sided (or upper) normal test of each component, and of their mean, against prediction ± remainder, combined
    by Bonferroni with the weights `shares`: half for the mean, the rest for the components, and a tenth of all for
    the fit. Valid under any dependence. NaN where `e` is not finite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        deviation, tolerated, se = tested(e)
        excess = (deviation if e.one_sided else np.abs(deviation)) - tolerated
        z = np.where(excess <= 0, 0.0, excess / se)
    tail = ndtr(-z)
    p = np.where(z > 0, tail if e.one_sided else 2 * tail, 1.0)
    smallest = (p / e.shares).min(axis=-1)
    if e.fits:
        smallest = np.fmin(smallest, e.lack_of_fit / FIT_SHARE)
    return np.where(e.finite, np.minimum(1.0, smallest), np.nan)[()]


def confirms(e: Evidence, level: float = CONFIRM_LEVEL) -> Any:
    """Whether the data exclude every deviation beyond the margin, in every component; for a one-sided claim,
    every deviation above its bound.

    An intersection–union test (Berger & Hsu 1996): each component at `level` keeps the whole at `level`. A model that
    does not fit at `level` is no ground for it."""
    reach = float(ndtri(1 - level)) * e.se
    if e.one_sided:
        excluded = e.deviation + reach + (0.0 if e.bias is None else e.bias) <= 0
    else:
        excluded = np.abs(e.deviation) + reach < e.room
    return e.finite & e.fitting(level) & np.all(excluded, axis=-1)


def mde(e: Evidence, alpha: float, power: float = 0.99) -> FloatArray:
    """The smallest deviation of each component that would be refuted at level alpha with this power."""
    tails = 1 if e.one_sided else 2
    quantile = float(ndtri(1 - alpha * e.shares[0] / tails) + ndtri(power))
    return e.tolerated + quantile * e.se


def interval(e: Evidence, level: float = CONFIRM_LEVEL) -> FloatArray:
    """Confidence limits of each component, (k, 2): each misses its truth with probability at most `level`, at a
    sample size that was fixed beforehand."""
    reach = float(ndtri(1 - level / 2)) * e.se
    return np.stack([e.estimate - reach, e.estimate + reach], axis=-1)


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
    return np.asarray(np.maximum(e.room - e.remainder, 1e-3 * e.margin))


def samples_needed(e: Evidence, power: float = PLAN_POWER, level: float = CONFIRM_LEVEL) -> int:
    """The samples at which a true claim would be decided with this power; for a one-sided claim, one
    whose truth lies a margin inside its bound.

    A remainder shifts the truth towards the margin; where it reaches the margin no size suffices (−1). So does a
    bias, as far as it is known now: part of it is the slope's error, which more samples make smaller."""
    if not e.finite or (not e.within and np.any(e.margin <= e.remainder)):
        return -1
    ratio = confirmation_distance(e.components, level, power) * e.se / decision_room(e)
    return int(np.ceil(e.samples * float(np.max(ratio)) ** 2))
