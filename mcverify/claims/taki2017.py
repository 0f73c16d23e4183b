"""Taki 2017, Deep residual networks and weight initialization: blocks x + W f(x), the initialisation Var w = c/(nL)
that keeps them bounded, its robustness, and where the bound for ReLU holds."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from scipy.special import ndtr

from mcverify.activations import custom_activation
from mcverify.claims import blocks, mutations
from mcverify.claims.blocks import and_all, block_labels
from mcverify.claims.claim import Claim, FloatArray, Measure, Mutant, Networks, Predict, Rival
from mcverify.claims.poole2016 import INPUT_DIM, WIDTHS, with_lengths
from mcverify.layers.activation import Activation
from mcverify.layers.dense import Dense
from mcverify.layers.residual import Residual
from mcverify.network import Network, mlp, resnet
from mcverify.simulation.trace import Trace
from mcverify.theory.residual import taki_initialisation

SOURCE = "Taki 2017, arXiv:1709.02956"

_UNIT = with_lengths([[1.0]])
_TWO_PERCENT = "two percent of a block's gain, a fifth of what the block adds, and of all blocks' together"
# A block's own correction is of order (c/L)/n, so that a ladder's are a series in c/n, not in L/n.
_GROWTH = 0.25
_GAIN = Mutant("Var w off by 20%", mutations.weight_gain(1.2))
_OTHER_PHI = Mutant("tanh activations", mutations.activation("tanh"))


def _networks(phi: str, depth: int, c: float) -> Networks:
    """width -> blocks of Var w = c/(nL)."""
    return lambda width: resnet(INPUT_DIM, width, depth, phi, taki_initialisation(width, depth, c).sigma_w2)


def _each(gain: float) -> Predict:
    """The same gain in every block, and its power."""
    return lambda net, x: np.array([*[gain] * (len(net.maps) - 1), gain ** (len(net.maps) - 1)])


# ---- identity: exact at every width -------------------------------------------------------------------

_L, _C = 10, 1.0

IDENTITY_FORWARD = Claim(
    name="taki2017.identity_forward",
    source=f"{SOURCE}, §2.1, eqs. 7 and 10",
    statement="Ten identity blocks of Var w = 1/(nL) let lengths grow by 1 + 1/L each, exactly, at width 16.",
    mark="exact",
    networks=_networks("linear", _L, _C),
    widths=(16,),
    inputs=_UNIT,
    predict=_each(1 + _C / _L),
    measure=lambda t: blocks.with_total(blocks.length_gain(t)),
    test="mean",
    relative=True,
    margin=0.02,
    margin_reason=_TWO_PERCENT,
    labels=and_all(block_labels),
    rival=Rival("ReLU's 1 + c/2L", _each(1 + _C / _L / 2)),
    mutants=(_GAIN, Mutant("ReLU activations", mutations.activation("relu"))),
    neighbours=(Mutant("uniform weights", mutations.weights("uniform")),),
)

IDENTITY_BACKWARD = replace(
    IDENTITY_FORWARD,
    name="taki2017.identity_backward",
    source=f"{SOURCE}, §2.2",
    statement="Going down ten identity blocks of Var w = 1/(nL), ‖δ‖² grows by 1 + 1/L each, exactly, at width 16.",
    measure=lambda t: blocks.with_total(blocks.gradient_gain(t)),
)

DOUBLED = replace(
    IDENTITY_FORWARD,
    name="taki2017.doubled_variance",
    source=f"{SOURCE}, §2.1",
    statement="With twice the variance 1/(nL), 20 identity blocks let lengths grow by (1 + 2/L)^L = 6.73, below e².",
    networks=_networks("linear", 20, 2.0),
    predict=_each(1 + 2 / 20),
    margin=0.04,
    margin_reason="four percent of a block's gain, and of all blocks' together: a doubling is 82% away",
    rival=Rival("2 in every layer, as without shortcuts", _each(2.0)),
)

PLAIN_DOUBLED = Claim(
    name="taki2017.doubled_variance_plain",
    source=f"{SOURCE}, §2.1",
    statement="Without shortcuts, twice the variance 1/n lets lengths double in each of 20 linear layers: 2^20 in all.",
    mark="exact",
    networks=lambda width: mlp(INPUT_DIM, [width] * 21, "linear", 2.0),
    widths=(16,),
    inputs=_UNIT,
    predict=lambda net, x: np.full(20, 2.0),
    measure=blocks.length_gain,
    test="mean",
    relative=True,
    margin=0.02,
    margin_reason="two percent of a layer's gain: what residual blocks gain is 45% below",
    labels=lambda net: [f"layer {l}" for l in range(2, 22)],
    rival=Rival("1 + 2/L, as with shortcuts", lambda net, x: np.full(20, 1 + 2 / 20)),
    mutants=(Mutant("Var w off by 5%", mutations.weight_gain(1.05)),),
)

DEPTH_DEPENDENT = replace(
    IDENTITY_FORWARD,
    name="taki2017.variance_depends_on_depth",
    source=f"{SOURCE}, eq. 28; Wang 2019, slides, 'the optimal initialization variances depend on the depth'",
    statement="At 40 blocks Var w = 1/(40 n) gives (1 + 1/40)^40 = 2.69, about e, as 1/(10 n) gives at ten.",
    networks=_networks("linear", 40, _C),
    predict=_each(1 + _C / 40),
    margin=0.03,
    margin_reason="three percent of a block's gain, and of all blocks' together: the rival's is 17 times as large",
    rival=Rival("the variance of ten blocks at any depth: 1.1^40 = 45", _each(1 + _C / _L)),
)


# ---- ReLU: as width grows -----------------------------------------------------------------------------


def _mean_log(gain: Measure) -> Measure:
    """The mean over blocks of the log of a gain, (replicate, 1)."""
    return lambda trace: np.log(gain(trace)).mean(axis=1, keepdims=True)


def _constant(value: float) -> Predict:
    return lambda net, x: np.array([value])


_PER_BLOCK = math.log1p(_C / _L / 2)

RELU_FORWARD = Claim(
    name="taki2017.relu_forward",
    source=f"{SOURCE}, §2.1, whose variance of a rectified Gaussian is half its own",
    statement="Ten ReLU blocks of Var w = 1/(nL) let lengths grow by 1 + 1/2L each, e^{1/2} in all as L grows.",
    mark="limit",
    networks=_networks("relu", _L, _C),
    widths=WIDTHS,
    inputs=_UNIT,
    predict=_constant(_PER_BLOCK),
    measure=_mean_log(blocks.length_gain),
    test="ladder",
    sample="taki2017.relu",
    engine="auto",
    margin=0.008,
    margin_reason="a sixth of a block's gain, and of the distance to identity's",
    labels=lambda net: ["mean over blocks"],
    rival=Rival("identity's 1 + c/L", _constant(math.log1p(_C / _L))),
    mutants=(Mutant("identity activations", mutations.activation("linear")),
             Mutant("Var w off by 50%", mutations.weight_gain(1.5))),
)  # fmt: skip

RELU_BACKWARD = replace(
    RELU_FORWARD,
    name="taki2017.relu_backward",
    source=f"{SOURCE}, §2.2, from eq. 16",
    statement="Going down ten ReLU blocks of Var w = 1/(nL), ‖δ‖² grows by 1 + 1/2L each, as lengths do going up.",
    measure=_mean_log(blocks.gradient_gain),
)


def _log_growth(trace: Trace) -> FloatArray:
    """log ‖z^L‖²/‖z^0‖², (replicate, 1)."""
    return np.log(blocks.length_gain(trace)).sum(axis=1, keepdims=True)


_SIGNS = "ReLU's lower bound needs inputs of both signs"

LOWER_BOUND = replace(
    RELU_FORWARD,
    name="taki2017.lower_bound",
    source=f"{SOURCE}, §2.1: Var w = c/(nL) 'guarantees' Var y ≥ e^{{c/4}} Var x",
    statement="ReLU blocks of Var w = 1/(nL) let lengths grow by e^{1/4} at least, for inputs of both signs.",
    mark="bound",
    predict=_constant(-_C / 4),
    measure=lambda t: -_log_growth(t),
    one_sided=True,
    margin=0.05,
    margin_reason="a fifth of the bound's logarithm, and of its slack",
    labels=lambda net: ["less log growth"],
    rival=Rival("no growth", _constant(0.0)),
    mutants=(Mutant("a tenth of the variance", mutations.weight_gain(0.1)),),
    knob=lambda size: mutations.weight_gain(1 / size),  # towards the bound
    finding=_SIGNS,
)

SLACK = replace(
    RELU_FORWARD,
    name="taki2017.lower_bound_slack",
    source=f"{SOURCE}, §2.1, whose bound e^{{c/4}} is not tight",
    statement="The bound e^{1/4} is passed by a factor (1 + 1/2L)^L e^{−1/4} = 1.27 at ten blocks, e^{1/4} as L grows.",
    predict=_constant(_L * _PER_BLOCK - _C / 4),
    measure=lambda t: _log_growth(t) - _C / 4,
    margin=0.08,
    margin_reason="a third of the slack",
    labels=lambda net: ["log slack"],
    rival=Rival("the bound is met", _constant(0.0)),
)


# Inputs of one sign: signs ±1 of a map from one input, made +1 or −1.
_NEGATIVE = Activation(custom_activation("-|u|", lambda u: -np.abs(u), lambda u: -np.sign(u), kinks=(0.0,)))


def _one_signed(to: Activation, depth: int) -> Networks:
    """width -> ReLU blocks of Var w = 1/(nL) on units that are all +1, or all −1."""

    def network(width: int) -> Network:
        block = Residual([Activation("relu"), Dense(width, width, _C / depth)])
        return Network([Dense(1, width, weights="rademacher"), to, *[block] * depth])

    return network


def _first_activation(net: Network, phi: str) -> Network:
    first, _, *others = net.layers
    return Network([first, Activation(phi), *others])


def _growth_from_ones(net: Network, x: FloatArray) -> FloatArray:
    """log of 1 + v_L, v ← v + (c/L) E ReLU(1 + √v z)²: units N(1, v) of positive inputs, in the limit."""
    v, depth = 0.0, len(net.maps) - 1
    for _ in range(depth):
        ratio = 1 / math.sqrt(v) if v > 0 else math.inf
        density = math.exp(-(ratio**2) / 2) / math.sqrt(2 * math.pi)
        v += _C / depth * ((1 + v) * float(ndtr(ratio)) + math.sqrt(v) * density)
    return np.array([math.log1p(v)])


POSITIVE = Claim(
    name="taki2017.positive_inputs",
    source=f"{SOURCE}, §2.1, for inputs without the symmetry that it takes",
    statement="Inputs that are all +1 grow by 2.60 in 20 ReLU blocks of Var w = 1/(nL), not by 1.64.",
    mark="limit",
    networks=_one_signed(Activation("leaky_relu(-1)"), 20),
    widths=WIDTHS,
    inputs=lambda net: np.ones((1, 1)),
    predict=_growth_from_ones,
    measure=_log_growth,
    test="ladder",
    engine="auto",
    growth=_GROWTH,
    margin=0.08,
    margin_reason="a fifth of the distance to inputs of both signs",
    labels=lambda net: ["log growth"],
    rival=Rival("(1 + c/2L)^L, as for inputs of both signs", lambda net, x: np.array([20 * math.log1p(_C / 40)])),
    mutants=(Mutant("Var w off by 50%", mutations.weight_gain(1.5)),
             Mutant("inputs of both signs", lambda net: _first_activation(net, "linear"))),
)  # fmt: skip

NEGATIVE = replace(
    POSITIVE,
    name="taki2017.lower_bound_any_input",
    source=LOWER_BOUND.source,
    statement="ReLU blocks of Var w = 1/(nL) let lengths grow by e^{1/4} at least, whatever the inputs.",
    mark="bound",
    networks=_one_signed(_NEGATIVE, 20),
    widths=(64,),
    predict=_constant(-_C / 4),
    measure=lambda t: -_log_growth(t),
    test="mean",
    one_sided=True,
    margin=0.05,
    margin_reason="a fifth of the bound's logarithm",
    labels=lambda net: ["less log growth"],
    rival=Rival("no growth: negative units stay as they are", _constant(0.0)),
    mutants=(Mutant("a tenth of the variance", mutations.weight_gain(0.1)),),
    knob=None,  # nothing moves: no unit is ever active
    expected="refuted",
    finding=_SIGNS,
)

HE_IN_THE_BRANCH = replace(
    RELU_FORWARD,
    name="taki2017.he_in_the_branch",
    source=f"{SOURCE}, §2.1 and §4: He's initialisation 'is very unstable'",
    statement="With He's variance 2/n in their branch, ReLU blocks double lengths and gradients each: 2^L.",
    networks=_networks("relu", 6, 12.0),
    predict=lambda net, x: np.full(2, math.log(2)),
    measure=lambda t: np.concatenate([_mean_log(gain)(t) for gain in (blocks.length_gain, blocks.gradient_gain)], 1),
    sample="",
    margin=0.06,
    margin_reason="a tenth of a block's gain",
    labels=lambda net: ["lengths, mean over blocks", "gradients, mean over blocks"],
    rival=Rival("lengths are kept, as without shortcuts", lambda net, x: np.zeros(2)),
    mutants=(Mutant("Var w off by 50%", mutations.weight_gain(1.5)), _OTHER_PHI),
)


CLAIMS = (
    IDENTITY_FORWARD, IDENTITY_BACKWARD, DOUBLED, PLAIN_DOUBLED, DEPTH_DEPENDENT,
    RELU_FORWARD, RELU_BACKWARD, LOWER_BOUND, NEGATIVE, SLACK, POSITIVE, HE_IN_THE_BRANCH,
)  # fmt: skip
