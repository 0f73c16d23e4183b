"""Failure mode 1: the mean length is a power of the depth."""

from __future__ import annotations

import numpy as np

from mcverify.claims import generic, mutations
from mcverify.claims.claim import Claim, Mutant, Predict, Rival
from mcverify.claims.hanin_rolnick2018_dense.lengths import GAIN, SOURCE, lengths, one_input, relu, tapered


def powers(kappa: float) -> Predict:
    """κ^l, l = 1 … L."""
    return lambda net, x: np.asarray(kappa ** np.arange(1.0, len(net.maps) + 1))


MEAN_LENGTH = Claim(
    name="hanin_rolnick2018.mean_length",
    source=f"{SOURCE}, Theorem 1: failure mode 1",
    statement="With variance κ · 2/fan-in the mean length of a ReLU network is κ^l at layer l, exactly (κ = 0.8).",
    mark="exact",
    networks=relu(tapered, 1.6),
    widths=(48,),
    inputs=one_input,
    predict=powers(0.8),
    measure=lengths,
    test="mean",
    relative=True,
    margin=0.0125,
    margin_reason="a sixteenth of what a layer loses",
    labels=generic.layer_labels(1, 0),
    rival=Rival("the mean length is kept", lambda net, x: np.ones(len(net.maps))),
    mutants=(GAIN, Mutant("variance by fan_out", mutations.fan_out_scaling)),
    neighbours=(Mutant("uniform weights", mutations.weights("uniform")),),
)
