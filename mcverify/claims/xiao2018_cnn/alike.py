"""Gradients at finite width where positions are alike."""

from __future__ import annotations

import math

import numpy as np

from mcverify.claims import generic, measures, mutations
from mcverify.claims.claim import Claim, Mutant, Rival
from mcverify.claims.poole2016 import phase_of
from mcverify.claims.xiao2018_cnn.circles import PAPERS_POINT, SOURCE, homogeneous, networks, starting_at
from mcverify.theory.zero_mode import log_gains

_CHANNELS, _STRETCH = 64, 12
_ALIKE = np.ones((1, 3, _CHANNELS)) / math.sqrt(3 * _CHANNELS)


POSITIONS_ALIKE = Claim(
    name="xiao2018_cnn.positions_alike",
    source=f"{SOURCE}, §3 and fig. 1b, beyond its mean field",
    # Over 1,503 layers that would be a mean of −24 with a standard deviation of 10. The paper's network on digits is
    # far from it: correlations between positions take 258,000 layers to c*, and a norm summed over 64 positions that
    # are not alike fluctuates less. 48 such networks gave log gains of mean −1.6, variance 3.5 and quantiles (10%,
    # 50%, 90%) −4.1, −1.3, 0.5 for independent cotangents; −3.8, 4.7, −6.7, −3.5, −1.3 for one cotangent everywhere.
    statement="At (1.05, 2e-5) and 64 channels signals that are alike at all positions meet a dense map of width 64, "
    "the sum of the taps: log gradient norms lose some 1/64 a layer at first order though χ_1 = 1.",
    mark="first order",
    networks=networks(PAPERS_POINT, _STRETCH, 3),
    widths=(_CHANNELS,),
    inputs=starting_at(PAPERS_POINT, lambda n: [homogeneous(phase_of(PAPERS_POINT).q, 1.0, n)]),
    cotangent=_ALIKE,
    predict=lambda net, x: log_gains("tanh", *PAPERS_POINT, _CHANNELS, len(net.maps)).mean,
    # The next order of a series in depth/channels, whose first term is of order 1/channels a layer.
    remainder=lambda net, x: np.full(len(net.maps) - 1, len(net.maps) / _CHANNELS**2 / 2),
    measure=measures.log_gradient_gain,
    test="mean",
    engine="auto",
    margin=0.009,
    margin_reason="less than half of the first layers' first-order term",
    labels=generic.layer_labels(1, 1),
    rival=Rival("no finite-width term, log χ_1 = 4e-6",
                lambda net, x: np.full(len(net.maps) - 1, np.log(phase_of(PAPERS_POINT).chi_1))),
    mutants=(Mutant("σ_w² off by 5%", mutations.weight_gain(1.05)),
             Mutant("linear in place of tanh", mutations.activation("linear"))),
)  # fmt: skip
