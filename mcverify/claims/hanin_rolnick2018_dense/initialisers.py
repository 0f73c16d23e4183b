"""Which initialisers keep the mean length, by their definitions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mcverify.claims import generic, mutations
from mcverify.claims.claim import Claim, FloatArray, Mutant, Predict, Rival
from mcverify.claims.hanin_rolnick2018_dense.lengths import GAIN, SOURCE, lengths, one_input, ratios, tapered
from mcverify.claims.hanin_rolnick2018_dense.mean_length import powers
from mcverify.network import Network, mlp

Gain = Callable[[int, int], float]
"""(fan_in, fan_out) -> E R of a layer, from the initialiser's definition and not from this package's table."""


def _gains(gain: Gain) -> Predict:
    """The same of every layer."""
    return lambda net, x: np.array([gain(m.fan_in, m.fan_out) for m in map(net.random_map, net.maps)])


def _kept(fan_in: int, fan_out: int) -> float:
    return 1.0


def _halved(fan_in: int, fan_out: int) -> float:
    return 0.5


def _sorted_claim(name: str, rate: str, gain: Gain) -> Claim:
    """The mean of one layer's ratio under a named initialiser, in every layer."""
    return Claim(
        name=f"hanin_rolnick2018.{name}",
        source=f"{SOURCE}, §1: 'many popular initializations fail our criteria'",
        statement=f"Under {name} the mean length of a ReLU network {rate}.",
        mark="exact",
        networks=lambda width: mlp(2 * width, tapered(width), "relu", initialiser=name, name=name),
        widths=(48,),
        inputs=one_input,
        predict=_gains(gain),
        measure=ratios,
        test="mean",
        relative=True,
        margin=0.01,
        margin_reason="a hundredth of a layer's gain, which at 100 layers is a factor e",
        labels=generic.layer_labels(1, 0),
        rival=Rival("it halves in every layer", _gains(_halved))
        if gain is _kept
        else Rival("the mean length is kept", _gains(_kept)),
        mutants=(GAIN,),
    )


INITIALISERS = (
    _sorted_claim("he_uniform", "is kept", _kept),
    _sorted_claim("keras_he_normal", "is kept", _kept),
    _sorted_claim(
        "glorot_uniform", "changes by n_in/(n_in + n_out) a layer: at equal widths it halves",
        lambda fan_in, fan_out: fan_in / (fan_in + fan_out),
    ),
    _sorted_claim("lecun_normal", "halves in every layer", _halved),
    _sorted_claim("jax_lecun_normal", "halves in every layer", _halved),
    _sorted_claim(
        "orthogonal", "halves in every layer that does not widen, and falls to n_in/2n_out in one that does",
        lambda fan_in, fan_out: min(1.0, fan_in / fan_out) / 2,
    ),
)  # fmt: skip


def _pytorch_lengths(net: Network, x: FloatArray) -> FloatArray:
    """E M_l = (E M_{l−1} + 1/n_{l−1})/6."""
    out, m = [], 1.0
    for fan_in in (net.random_map(i).fan_in for i in net.maps):
        m = (m + 1 / fan_in) / 6
        out.append(m)
    return np.array(out)


PYTORCH = Claim(
    name="hanin_rolnick2018.pytorch_linear",
    source=f"{SOURCE}, §1: 'many popular initializations fail our criteria'; torch.nn.Linear.reset_parameters",
    statement="Under PyTorch's default Linear the mean length falls to a sixth a layer until its biases hold it at "
    "1/(5n), and not to 0 (ReLU, n = 48).",
    mark="exact",
    networks=lambda width: mlp(width, [width] * 8, "relu", initialiser="pytorch_linear"),
    widths=(48,),
    inputs=one_input,
    predict=_pytorch_lengths,
    measure=lengths,
    test="mean",
    relative=True,
    margin=0.02,
    margin_reason="a tenth of what a layer loses at most; the floor's rival is a thousandth of it",
    labels=generic.layer_labels(1, 0),
    rival=Rival("without a floor", powers(1 / 6)),
    mutants=(Mutant("no bias", mutations.no_bias), Mutant("σ_w² off by 10%", mutations.weight_gain(1.1))),
)
