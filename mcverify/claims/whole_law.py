"""A whole law as the means of a few functions: Legendre polynomials of the probability integral transform.

Under the law U = F(value) is uniform, and √(2k + 1) P_k(2U − 1), k = 1 … 6, have mean 0 and variance 1: bounded, so
that their means are Gaussian however heavy the law's tails are. With them P(0), where a layer is dead.
Neyman 1937, "Smooth test for goodness of fit".
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import eval_legendre, roots_hermitenorm

from mcverify.claims.claim import Measure, Predict
from mcverify.network import Network
from mcverify.simulation.trace import Trace
from mcverify.theory.length_law import LengthLaw

FloatArray = NDArray[np.float64]
Law = Callable[[Network], LengthLaw]

ORDERS = np.arange(1, 7)
MARGIN = 0.03
MARGIN_REASON = "in standard deviations of the law's own scale: a median that is off by 1.2%, or quartiles as much"


def smooth(law: LengthLaw, log_value: FloatArray) -> FloatArray:
    """(…,) logarithms → (…, 7): whether dead, and the polynomials, 0 where it is."""
    dead = np.isneginf(log_value)
    alive = (law.cdf_log(np.where(dead, law.log_mean, log_value)) - law.dead) / (1 - law.dead)
    values = np.sqrt(2 * ORDERS + 1) * eval_legendre(ORDERS, 2 * alive[..., None] - 1)
    return np.concatenate([dead[..., None].astype(float), np.where(dead[..., None], 0.0, values)], axis=-1)


def follows(law: Law, log_value: Measure) -> Measure:
    """The measurement of `smooth`; log_value(trace) is (replicate,)."""

    def measure(trace: Trace) -> FloatArray:
        return smooth(law(trace.plan.net), log_value(trace))

    return measure


def expected(law: Law) -> Predict:
    """P(dead), and zeros."""
    return lambda net, x: np.array([law(net).dead, *[0.0] * len(ORDERS)])


def log_normal(law: Law, mean: Callable[[Network], float], variance: Callable[[Network], float]) -> Predict:
    """What the log-normal law of these parameters gives for `smooth`, without dead layers."""

    def predict(net: Network, x: FloatArray) -> FloatArray:
        z, w = roots_hermitenorm(60)
        values = smooth(law(net), mean(net) + np.sqrt(variance(net)) * z)
        return np.asarray(w @ values / w.sum())

    return predict


def labels(net: Network) -> list[str]:
    """The components by name."""
    return ["dead layers", *(f"Legendre {k}" for k in ORDERS)]
