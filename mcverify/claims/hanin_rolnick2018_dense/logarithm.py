"""The mean and the variance of the last length's logarithm, to first order in 1/width."""

from __future__ import annotations

import numpy as np

from mcverify.claims.claim import Claim, FloatArray, Rival
from mcverify.claims.hanin_rolnick2018_dense.law import last_length, log_last
from mcverify.claims.hanin_rolnick2018_dense.lengths import (
    GAIN,
    ORTHOGONAL,
    SOURCE,
    inverse_widths,
    one_input,
    relu,
)
from mcverify.network import Network
from mcverify.theory.length_law import LengthLaw


def standardised(y: FloatArray, beta: float) -> FloatArray:
    """z and z²/2 of z = (y + β/2)/√β, (replicate, 2); half, so that one margin suits both."""
    z = (y + beta / 2) / np.sqrt(beta)
    return np.stack([z, z**2 / 2], axis=1)


def second_order(law: LengthLaw, beta: float) -> FloatArray:
    """How far the means of `standardised` are from 0 and ½ under the exact law of y, (2,)."""
    mean, variance = (law.log_mean + beta / 2) / np.sqrt(beta), law.log_var / beta
    return np.abs([mean, (variance + mean**2 - 1) / 2])


def _beta(net: Network) -> float:
    return 5 * inverse_widths(net)


LOG_MOMENTS = Claim(
    name="hanin_rolnick2018.log_moments",
    source=f"{SOURCE}, proof of Theorem 5; Hanin & Nica 2020, arXiv:1812.05994, Theorem 1, for lengths",
    statement="log M_L has mean −β/2 and variance β = 5 Σ 1/n_l to first order in 1/width (ReLU, widths 96 and 192).",
    mark="first order",
    networks=relu(lambda width: [width, 2 * width]),
    widths=(96,),
    inputs=one_input,
    predict=lambda net, x: np.array([0.0, 0.5]),
    measure=lambda trace: standardised(log_last(trace), _beta(trace.plan.net)),
    test="mean",
    remainder=lambda net, x: second_order(last_length(net), _beta(net)),
    margin=0.05,
    margin_reason="in standard deviations: a third of the distance to the rival; the remainder is the second order's",
    labels=lambda net: ["mean", "half the variance"],
    rival=Rival("the logarithm of the mean, 0, is the mean of the logarithm",
                lambda net, x: np.array([np.sqrt(_beta(net)) / 2, 0.5 + _beta(net) / 8])),
    mutants=(GAIN, ORTHOGONAL),
)  # fmt: skip
