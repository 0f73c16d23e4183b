"""Failure mode 2 layer by layer: how second moments grow, and how lengths differ within one network."""

from __future__ import annotations

import numpy as np

from mcverify.claims import generic, mutations
from mcverify.claims.claim import Claim, FloatArray, Mutant, Predict, Rival
from mcverify.claims.hanin_rolnick2018_dense.lengths import (
    GAIN,
    ORTHOGONAL,
    SOURCE,
    lengths,
    one_input,
    ratios,
    relu,
    tapered,
)
from mcverify.network import Network
from mcverify.simulation.trace import Trace
from mcverify.theory.length_moments import variance_across_layers


def _layers_and_pairs(trace: Trace) -> FloatArray:
    """R_l² for every layer, then R_l² R_{l+1}² for every two, (replicate, 2L − 1)."""
    r = ratios(trace) ** 2
    return np.concatenate([r, r[:, 1:] * r[:, :-1]], axis=1)


def _layers_and_pairs_of(c: float) -> Predict:
    def predict(net: Network, x: FloatArray) -> FloatArray:
        p = 1 + c / np.array(net.widths)
        return np.concatenate([p, p[1:] * p[:-1]])

    return predict


GROWTH = Claim(
    name="hanin_rolnick2018.growth",
    source=f"{SOURCE}, Theorem 5: failure mode 2",
    statement="Second moments grow by 1 + 5/n_l in every layer, whatever the layers below did: exponentially in "
    "Σ 1/n_l (ReLU, 6 layers).",
    mark="exact",
    networks=relu(lambda width: [width, 2 * width] * 3),
    widths=(48,),
    inputs=one_input,
    predict=_layers_and_pairs_of(5.0),
    measure=_layers_and_pairs,
    test="mean",
    relative=True,
    margin=0.025,
    margin_reason="in factors of one and two layers, which are light-tailed: less than a third of the distance to a "
    "linear network's over two",
    labels=lambda net: [
        *generic.layer_labels(1, 0)(net), *(f"layers {l} and {l + 1}" for l in range(1, len(net.maps)))
    ],
    rival=Rival("a linear network's, 1 + 2/n_l", _layers_and_pairs_of(2.0)),
    mutants=(GAIN, ORTHOGONAL),
)  # fmt: skip

ACROSS_LAYERS = Claim(
    name="hanin_rolnick2018.variance_across_layers",
    source=f"{SOURCE}, Corollary 6, with its constants worked out",
    statement="The variance of the lengths of one network's layers has mean (1/d)Σ P_j − (1/d²)Σ P_j (1 + 2(d − j)), "
    "P_j = Π_{i≤j}(1 + 5/n_i), exactly (ReLU).",
    mark="exact",
    networks=relu(tapered),
    widths=(48,),
    inputs=one_input,
    predict=lambda net, x: np.array([variance_across_layers(net)]),
    measure=lambda trace: lengths(trace).var(axis=1, keepdims=True),
    test="mean",
    relative=True,
    margin=0.05,
    margin_reason="a tenth of the distance to layers that vary independently",
    labels=lambda net: ["variance across layers"],
    rival=Rival(
        "layers' lengths vary independently",
        lambda net, x: np.array([np.mean(np.cumprod(1 + 5 / np.array(net.widths)) - 1) * (1 - 1 / len(net.maps))]),
    ),
    mutants=(ORTHOGONAL, Mutant("σ_w² off by 10%", mutations.weight_gain(1.1))),
)
