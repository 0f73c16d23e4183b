"""Yang & Schoenholz 2017, Mean field residual networks: on the edge of chaos: blocks z + V φ(W z + b) + a with
variances of their own, and what grows how fast, linearly, as e^{κ√l}, or exponentially."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np

from mcverify.activations import Activation as Phi
from mcverify.claims import blocks, measures, mutations
from mcverify.claims.blocks import block_labels
from mcverify.claims.claim import Claim, FloatArray, Measure, Mutant, Networks, Rival
from mcverify.claims.generic import correlations, layer_labels
from mcverify.claims.poole2016 import INPUT_DIM, WIDTHS, with_lengths
from mcverify.correlation import correlation
from mcverify.expectations import gaussian
from mcverify.layers.activation import Activation
from mcverify.network import Network, resnet
from mcverify.simulation.trace import Trace
from mcverify.theory.propagation import propagate
from mcverify.theory.residual import ResnetTrajectory, resnet_trajectory, tanh_resnet_growth

SOURCE = "Yang & Schoenholz 2017, arXiv:1712.08969"

V2, W2, B2, A2 = 0.8, 1.4, 0.1, 0.3  # σ_v², σ_w², σ_b², σ_a²
_GRAM = [[1.0, 0.3], [0.3, 0.4]]

_GAIN = Mutant("σ_w², σ_v² off by 20%", mutations.weight_gain(1.2))
_NO_BIAS = Mutant("no biases", mutations.no_bias)
_RELU = Mutant("ReLU activations", mutations.activation("relu"))
_LINEAR = Mutant("identity activations", mutations.activation("linear"))


def _networks(phi: str, depth: int, sigma_b2: float = B2, sigma_a2: float = A2) -> Networks:
    """width -> blocks of the variances above, each its own."""
    return lambda width: resnet(INPUT_DIM, width, depth, phi, W2, sigma_b2, sigma_v2=V2, sigma_a2=sigma_a2)


# ---- one block, exact at every width ------------------------------------------------------------------


def _block_terms(trace: Trace) -> list[tuple[FloatArray, FloatArray]]:
    """Of every block: the Gram matrix of z^l over n, and its mean given z^{l−1}, (replicate, input, input) each."""
    kernels, out = trace.plan.engine.kernels, []
    phi = _phi(trace.plan.net)
    for record in trace.maps[1:]:
        below, above = (np.asarray(kernels.gram(v, v)) / v.shape[-1] for v in (record.x, record.y))
        q = W2 * below + B2
        d = np.diagonal(q, axis1=1, axis2=2)
        mean = np.asarray(gaussian.covariance(phi, d[:, :, None], q, d[:, None, :], rtol=1e-7).value)
        out.append((above, below + V2 * mean + A2))
    return out


def _phi(net: Network) -> Phi:
    return next(v.phi for v, _ in net.every_layer if isinstance(v, Activation))


def _one_block(trace: Trace) -> FloatArray:
    """(p^l − E p^l)_ab/√(E p^l_aa E p^l_bb), aa, bb and ab, mean zero exactly, (replicate, block·3)."""
    out = []
    for above, mean in _block_terms(trace):
        unit = np.sqrt(np.diagonal(mean, axis1=1, axis2=2))
        out.append(((above - mean) / (unit[:, :, None] * unit[:, None, :]))[:, [0, 1, 0], [0, 1, 1]])
    return np.concatenate(out, axis=1)


def _without_inner_variances(net: Network, x: FloatArray) -> FloatArray:
    """The same for blocks of σ_w² = 1, σ_b² = 0, at the limit's own covariances."""
    p = propagate(net, x).q
    out = []
    for below, above in pairwise(p):
        d = np.diagonal(below)
        mean = below + V2 * np.asarray(gaussian.covariance(_phi(net), d[:, None], below, d[None]).value) + A2
        unit = np.sqrt(np.diagonal(above))
        out.append(((mean - above) / np.outer(unit, unit))[[0, 1, 0], [0, 1, 1]])
    return np.concatenate(out)


def _pair_labels(net: Network) -> list[str]:
    return [f"{block}, {what}" for block in block_labels(net) for what in ("input 1", "input 2", "inputs 1 and 2")]


ONE_BLOCK = Claim(
    name="yang_schoenholz2017.one_block",
    source=f"{SOURCE}, recursion of the full residual network",
    statement="Given z, a block's output has second moments E zz + σ_v² E φφ + σ_a², E φφ at σ_w² E zz + σ_b², "
    "exactly, at width 32 (erf).",
    mark="exact",
    networks=_networks("erf", 3),
    widths=(32,),
    inputs=with_lengths(_GRAM),
    predict=lambda net, x: np.zeros(3 * (len(net.maps) - 1)),
    measure=_one_block,
    test="mean",
    margin=0.02,
    margin_reason="in units of a length or correlation: a tenth of what a block adds, or less",
    labels=_pair_labels,
    rival=Rival("σ_w² = 1 and σ_b² = 0 inside the block", _without_inner_variances),
    mutants=(_GAIN, _NO_BIAS),
)


# ---- the recursion, as width grows --------------------------------------------------------------------


def _trajectory(net: Network, x: FloatArray) -> ResnetTrajectory:
    """The first input's."""
    p0 = float((x[0] ** 2).mean())
    return resnet_trajectory(_phi(net), V2, W2, B2, A2, p0=p0, depth=len(net.maps) - 1)


def _log_gain(gain: Measure) -> Measure:
    return lambda trace: np.log(gain(trace))


LENGTHS = Claim(
    name="yang_schoenholz2017.lengths",
    source=f"{SOURCE}, recursion of the length",
    statement="p^l = p^{l−1} + σ_v²⟨φ²⟩_q + σ_a² with q = σ_w² p^{l−1} + σ_b², block by block (tanh, five blocks).",
    mark="limit",
    networks=_networks("tanh", 5),
    widths=WIDTHS,
    inputs=with_lengths([[0.6]]),
    predict=lambda net, x: np.diff(np.log(_trajectory(net, x).p)),
    measure=_log_gain(blocks.length_gain),
    test="ladder",
    sample="yang_schoenholz2017.recursion",
    engine="auto",
    margin=0.03,
    margin_reason="a fifth of a block's gain in the last block, a twentieth in the first",
    labels=block_labels,
    rival=Rival("no σ_b², σ_a²", lambda net, x: _unbiased_gains(net, x)),
    knob=mutations.branch_gain,  # σ_w² moves the trunk too, which lengths forget
    mutants=(Mutant("σ_v² and σ_a² off by 20%", mutations.branch_gain(1.2)), _RELU),
)


def _unbiased_gains(net: Network, x: FloatArray) -> FloatArray:
    p0 = float((x[0] ** 2).mean())
    return np.diff(np.log(resnet_trajectory(_phi(net), V2, W2, p0=p0, depth=len(net.maps) - 1).p))


GRADIENTS = replace(
    LENGTHS,
    name="yang_schoenholz2017.gradients",
    source=f"{SOURCE}, recursion of the gradient",
    statement="Going down, ‖δ‖² gains χ^l = 1 + σ_v²σ_w²⟨φ′²⟩_q in each block (tanh, five blocks).",
    predict=lambda net, x: np.log(_trajectory(net, x).chi),
    measure=_log_gain(blocks.gradient_gain),
    margin_reason="a sixth of a block's gain in the last block, a tenth in the first",
    rival=Rival("σ_v²σ_w²⟨φ′²⟩ alone, as without shortcuts", lambda net, x: np.log(_trajectory(net, x).chi - 1)),
)


def _kept(net: Network, x: FloatArray) -> FloatArray:
    """Correlations that no block moves."""
    return np.full(len(net.maps) - 1, correlation(propagate(net, x).q)[0, 0, 1])


CORRELATIONS = replace(
    LENGTHS,
    name="yang_schoenholz2017.correlations",
    source=f"{SOURCE}, recursion of the covariance",
    statement="Correlations follow the recursion of E zz block by block, towards 1 (tanh, five blocks).",
    inputs=with_lengths(_GRAM),
    predict=lambda net, x: correlations(propagate(net, x)),
    measure=measures.correlations,
    sample="",
    margin=0.03,
    margin_reason="a seventh of what the blocks move, or less",
    labels=layer_labels(2, 0),
    rival=Rival("correlations stay", _kept),
    mutants=(_LINEAR, _NO_BIAS),
)


# ---- what grows how fast ------------------------------------------------------------------------------

_FROM = 400  # blocks: inputs are as long as that many would have made them, where asymptotes hold to a few percent
_BLOCKS = 6
_RISE, _KAPPA = tanh_resnet_growth(V2, W2, A2)


def _depths() -> FloatArray:
    """The l at which each block stands, (block,)."""
    return np.arange(_FROM, _FROM + _BLOCKS, dtype=float)


def _added(trace: Trace) -> FloatArray:
    """The mean over blocks of ‖z^l − z^{l−1}‖²/n: what a block adds to the length, up to the product with the trunk,
    whose mean is zero, (replicate, 1)."""
    squares = trace.plan.engine.kernels.squares
    each = [squares(record.saved[-1].y)[:, 0] / record.y.shape[-1] for record in trace.maps[1:]]
    return np.asarray(np.mean(each, axis=0))[:, None]


def _next_order(net: Network, x: FloatArray) -> FloatArray:
    """What 1 − ⟨tanh²⟩ ~ 2/√(2πq) leaves of the rise."""
    q = W2 * _RISE * _depths()
    return np.array([V2 * (2 / np.sqrt(2 * math.pi * q)).mean()])


TANH_LENGTH = Claim(
    name="yang_schoenholz2017.tanh_length",
    source=f"{SOURCE}, theorems on tanh: p^l = Θ(l)",
    statement="In tanh networks every block adds σ_v² + σ_a² to the length, so that it grows linearly (from inputs as "
    "long as 400 blocks make them).",
    mark="limit",
    networks=_networks("tanh", _BLOCKS),
    widths=WIDTHS,
    inputs=with_lengths([[_FROM * _RISE]]),
    predict=lambda net, x: np.array([_RISE]),
    measure=_added,
    test="ladder",
    sample="yang_schoenholz2017.tanh",
    engine="auto",
    remainder=_next_order,
    margin=0.08,
    margin_reason="seven percent of the rise; the asymptote is 0.03 away yet",
    labels=lambda net: ["added by a block"],
    rival=Rival("in proportion to the length, as for ReLU", lambda net, x: np.array([V2 * W2 / 2 * _FROM * _RISE])),
    mutants=(_GAIN, Mutant("no biases", mutations.no_bias)),
)

TANH_GRADIENT = replace(
    TANH_LENGTH,
    name="yang_schoenholz2017.tanh_gradient",
    source=f"{SOURCE}, theorems on tanh: log χ = Θ(√l)",
    statement="Going down a tanh network ‖δ‖² grows as e^{κ√l}: by 1 + κ/(2√l) in block l, "
    "κ = (8/3) σ_v²σ_w/√(2π(σ_v² + σ_a²)), at l = 400.",
    predict=lambda net, x: np.array([(_KAPPA / 2 / np.sqrt(_depths())).mean()]),
    measure=lambda t: blocks.gradient_gain(t).mean(axis=1, keepdims=True) - 1,
    remainder=None,
    relative=True,
    margin=0.1,
    margin_reason="a tenth of a gain of 2.7%: half of what is left when l is 20% off",
    labels=lambda net: ["gain less 1, mean over blocks"],
    rival=Rival(
        "the same in every block, as in the first",
        lambda net, x: np.array([resnet_trajectory("tanh", V2, W2, B2, A2, p0=_RISE, depth=1).chi[0] - 1]),
    ),
    mutants=(Mutant("σ_w², σ_v² off by 40%", mutations.weight_gain(1.4)), _LINEAR),
)

_RELU_GAIN = math.log1p(V2 * W2 / 2)

RELU_EXPONENTIAL = replace(
    TANH_LENGTH,
    name="yang_schoenholz2017.relu_exponential",
    source=f"{SOURCE}, theorems on ReLU",
    statement="In ReLU networks without biases lengths and gradients grow exponentially: by 1 + σ_v²σ_w²/2 in every "
    "block, however long the input.",
    networks=_networks("relu", _BLOCKS, 0.0, 0.0),
    predict=lambda net, x: np.full(2, _RELU_GAIN),
    measure=lambda t: np.log(np.stack([blocks.length_gain(t), blocks.gradient_gain(t)], axis=1)).mean(axis=2),
    sample="",
    remainder=None,
    margin=0.05,
    margin_reason="an eighth of a block's gain",
    labels=lambda net: ["lengths, mean over blocks", "gradients, mean over blocks"],
    rival=Rival("tanh's, which vanish as l grows", lambda net, x: np.array([1 / _FROM, _KAPPA / 2 / math.sqrt(_FROM)])),
    mutants=(_GAIN, Mutant("tanh activations", mutations.activation("tanh"))),
)

CLAIMS = (ONE_BLOCK, LENGTHS, GRADIENTS, CORRELATIONS, TANH_LENGTH, TANH_GRADIENT, RELU_EXPONENTIAL)
