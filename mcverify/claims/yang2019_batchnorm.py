"""Yang, Pennington, Rao, Sohl-Dickstein & Schoenholz 2019, A mean field theory of batch normalization: batch norm
itself makes the gradients of plain networks grow exponentially, whatever the weights' variance; least in linear ones.

The batch is permutation-symmetric: inputs of equal length and no correlation. A network of finite width keeps that
only on average, and what is asymmetric decays slowly, by (B−1)/(B+1) a layer in a linear one: few layers, widths far
above B, and a ladder. The first layer's variance is given by the inputs, and the last gradient by the cotangent: the
growth in between is what is claimed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mcverify.claims import mutations, wrong_norms
from mcverify.claims.claim import Claim, FloatArray, Inputs, Mutant, Networks, Rival
from mcverify.expectations import sphere
from mcverify.inputs import with_gram
from mcverify.layers.activation import Activation
from mcverify.layers.batchnorm import BatchNorm
from mcverify.layers.dense import Dense
from mcverify.layers.layer import Layer
from mcverify.layers.layernorm import LayerNorm
from mcverify.network import Network
from mcverify.simulation import observables
from mcverify.simulation.trace import Trace
from mcverify.theory.batchnorm import batchnorm_gradient_growth

SOURCE = "Yang et al. 2019, arXiv:1902.08129"
INPUT_DIM = 64
WIDTHS = (64, 96, 128, 192, 256)
BLOCKS = 4
COUPLING = Mutant("mean and spread taken as constants by derivatives", wrong_norms.detached)


def uncorrelated(batch: int, q: float = 1.0) -> Inputs:
    """`batch` inputs of length q and no correlation."""
    return lambda net: with_gram(q * np.eye(batch), net.input_dim)


def across(trace: Trace) -> FloatArray:
    """Σ_i ‖Pδ_i‖²/(B − 1), P = I − 11ᵀ/B: the squared gradient on 1^⊥, (replicate, layer)."""
    gram = observables.grad_gram(trace)
    own, all_of = np.trace(gram, axis1=-2, axis2=-1), gram.sum(axis=(-2, -1))
    return np.asarray((own - all_of / gram.shape[-1]) / (gram.shape[-1] - 1.0))


def log_growth(trace: Trace) -> FloatArray:
    """log of the gain of `across` from layer l + 1 to l, l = 1 … L − 1, (replicate, L − 1)."""
    squared = across(trace)
    return np.asarray(np.log(squared[:, :-1] / squared[:, 1:]))


def log_norm_growth(trace: Trace) -> FloatArray:
    """log of the gain of the mean of ‖δ_a‖² over the batch, l = 1 … L − 1, (replicate, L − 1)."""
    squared = np.trace(observables.grad_gram(trace), axis1=-2, axis2=-1)
    return np.asarray(np.log(squared[:, :-1] / squared[:, 1:]))


# ---- one layer, exact at every width ------------------------------------------------------------------

_STEP_BATCH, _STEP_WIDTH = 12, 32
_STEP_LABELS = ["length", "covariance of two inputs", "gradient"]


def _step_network(phi: str) -> Networks:
    return lambda width: Network([Dense(INPUT_DIM, width), BatchNorm(), Activation(phi), Dense(width, width)])


def _step(trace: Trace) -> FloatArray:
    """The means of Ĝ²_aa and Ĝ²_ab over the batch, and the mean of ‖δ¹_a‖², (replicate, 3)."""
    metric, B = observables.metric(trace)[:, 1], len(trace.plan.x)
    own = np.trace(metric, axis1=-2, axis2=-1) / B
    cross = (metric.sum(axis=(-2, -1)) - B * own) / (B * (B - 1.0))
    return np.stack([own, cross, across(trace)[:, 0] * (B - 1.0) / B], axis=1)


def _on_the_sphere(phi: str, batch: int) -> FloatArray:
    own, cross = sphere.propagate(phi, batch)
    m = sphere.pull_back(phi, batch, 1.0, 0.0, variance_across=1.0)
    return np.array([own.value, cross.value, m.value * (batch - 1.0) / batch])


def _one_step(phi: str, rounder: str) -> Claim:
    return Claim(
        name=f"yang2019_batchnorm.one_step_{phi}",
        source=f"{SOURCE}, §3",
        statement="A symmetric batch of 12 normalised at the first layer is uniform on a sphere: the next layer's "
        f"metric, and the gradient at the first, are its integrals, exactly, at width {_STEP_WIDTH} ({phi}).",
        mark="exact",
        networks=_step_network(phi),
        widths=(_STEP_WIDTH,),
        inputs=uncorrelated(_STEP_BATCH),
        predict=lambda net, x: _on_the_sphere(phi, _STEP_BATCH),
        measure=_step,
        test="mean",
        margin=0.01,
        margin_reason="a tenth of what the finite batch changes in the gradient",
        labels=lambda net: _STEP_LABELS,
        rival=Rival("normalised units are independent Gaussians, as for B → ∞",
                    lambda net, x: _on_the_sphere(phi, 10**6)),
        knob=wrong_norms.knob,
        mutants=(
            Mutant("statistics over B − 1", wrong_norms.sample_variance(_STEP_BATCH)),
            Mutant("ε = 0.05", wrong_norms.eps(0.05)),
            Mutant(f"{rounder} in place of {phi}", mutations.activation(rounder)),
            Mutant("no mean subtracted", wrong_norms.uncentred),
            COUPLING,
        ),
    )  # fmt: skip


ONE_STEP_RELU = _one_step("relu", "gelu")
ONE_STEP_TANH = _one_step("tanh", "erf")


# ---- growth per layer, in wide networks ---------------------------------------------------------------


def _plain(phi: str, norm: Layer, sigma_w2: float = 1.0) -> Networks:
    def networks(width: int) -> Network:
        block = [norm, Activation(phi), Dense(width, width, sigma_w2)]
        return Network([Dense(INPUT_DIM, width), *block * BLOCKS])

    return networks


def _between(trace: Trace) -> FloatArray:
    """log_growth without the first and the last, (replicate, BLOCKS − 2)."""
    return log_growth(trace)[:, 1:-1]


def _constant(growth: Callable[[], float]) -> Callable[[Network, FloatArray], FloatArray]:
    return lambda net, x: np.full(BLOCKS - 2, math.log(growth()))


def _growth(
    name: str, phi: str, batch: int, statement: str, rival: tuple[str, Callable[[], float]], margin: float,
    margin_reason: str, mutants: tuple[Mutant, ...], gain: float = 1.0,
) -> Claim:  # fmt: skip
    return Claim(
        name=f"yang2019_batchnorm.{name}",
        source=f"{SOURCE}, §4",
        statement=statement,
        mark="limit",
        networks=_plain(phi, BatchNorm(gain=gain), sigma_w2=1.7),
        widths=WIDTHS,
        inputs=uncorrelated(batch),
        predict=_constant(lambda: batchnorm_gradient_growth(phi, batch, gain=gain)),
        measure=_between,
        test="ladder",
        engine="auto",
        margin=margin,
        margin_reason=margin_reason,
        labels=lambda net: [f"layer {l}" for l in range(2, BLOCKS)],
        rival=Rival(rival[0], _constant(rival[1])),
        knob=wrong_norms.knob,
        mutants=mutants,
        neighbours=(Mutant("σ_w² of 0.6 and not 1.7", mutations.weight_gain(0.6 / 1.7)),),
    )


LINEAR = _growth(
    "linear", "linear", 8,
    "Gradients of a linear network with batch norm grow by (B−2)/(B−3) a layer, whatever σ_w²: by 6/5 at B = 8.",
    ("gradients of a linear network keep their length", lambda: 1.0),
    0.03, "a sixth of the growth itself",
    (COUPLING, Mutant("ε = 1", wrong_norms.eps(1.0)), Mutant("relu in place of linear", mutations.activation("relu"))),
)  # fmt: skip

RELU = _growth(
    "relu", "relu", 16,
    "Gradients of a ReLU network with batch norm grow by the closed form at finite B, 1.590 a layer at B = 16.",
    ("the limit of large batches, π/(π−1) = 1.467", lambda: math.pi / (math.pi - 1)),
    0.03, "less than half of what the finite batch adds",
    (COUPLING, Mutant("no mean subtracted", wrong_norms.uncentred),
     Mutant("leaky relu of slope 0.3", mutations.activation("leaky_relu(0.3)"))),
)  # fmt: skip

TANH = _growth(
    "tanh", "tanh", 16,
    "Gradients of a tanh network with batch norm explode too, by 1.246 a layer at B = 16.",
    ("as in a linear network", lambda: batchnorm_gradient_growth("linear", 16)),
    0.03, "a fifth of what the nonlinearity adds",
    (COUPLING, Mutant("batch norm of gain ½", wrong_norms.gain(0.5)),
     Mutant("erf in place of tanh", mutations.activation("erf"))),
)  # fmt: skip

ERF = _growth(
    "erf", "erf", 16,
    "Gradients of an erf network with batch norm explode, by 1.294 a layer at B = 16.",
    ("as in a linear network", lambda: batchnorm_gradient_growth("linear", 16)),
    0.03, "a sixth of what the nonlinearity adds",
    (COUPLING, Mutant("batch norm of gain ½", wrong_norms.gain(0.5))),
)  # fmt: skip

NEAR_LINEAR = _growth(
    "near_linear", "tanh", 16,
    "With a batch norm of gain 0.3 a tanh network is near linear, and its gradients grow by 1.082 a layer at B = 16, "
    "hardly more than the 14/13 of a linear one.",
    ("as at gain 1", lambda: batchnorm_gradient_growth("tanh", 16)),
    0.03, "a fifth of what the gain takes away",
    (COUPLING, Mutant("gain 1", wrong_norms.gain(1 / 0.3)), Mutant("gain 0.75", wrong_norms.gain(2.5))),
    gain=0.3,
)  # fmt: skip


LAYER_NORM = replace(
    RELU,
    name="yang2019_batchnorm.layer_norm",
    source="Ba, Kiros & Hinton 2016; contrast to Yang et al. 2019",
    statement="With layer norm in place of batch norm the gradients of a ReLU network do not grow.",
    networks=_plain("relu", LayerNorm(), 1.7),
    predict=_constant(lambda: 1.0),
    measure=lambda trace: log_norm_growth(trace)[:, 1:-1],
    margin_reason="a tenth of batch norm's growth",
    rival=Rival("as with batch norm", _constant(lambda: batchnorm_gradient_growth("relu", 16))),
    knob=None,  # no parameter moves it
    mutants=(
        Mutant("batch norm", lambda net: net.map_layers(lambda _, v: BatchNorm() if isinstance(v, LayerNorm) else v)),
        Mutant("tanh in place of relu", mutations.activation("tanh")),
    ),
)


# ---- large batches ------------------------------------------------------------------------------------

_BATCHES = (16, 24, 32, 48, 64, 96)


def _growth_of_means(means: FloatArray) -> FloatArray:
    """The gradient gained on 1^⊥ over the eigenvalue there of the next metric, (1,), from the means of `_step`."""
    own, cross, gradient = means
    return np.array([gradient / (own - cross)])


RELU_LIMIT = Claim(
    name="yang2019_batchnorm.relu_large_batch",
    source=f"{SOURCE}, §4",
    statement="As the batch grows, the growth of gradients in a ReLU network with batch norm tends to π/(π−1) = 1.467 "
    "(one layer at width 32, where it is exact for every batch: the ladder is in B).",
    mark="limit",
    networks=lambda batch: Network([Dense(batch, 32), BatchNorm(), Activation("relu"), Dense(32, 32)]),
    widths=_BATCHES,
    inputs=lambda net: with_gram(np.eye(net.input_dim), net.input_dim),
    predict=lambda net, x: np.array([math.pi / (math.pi - 1)]),
    measure=_step,
    combine=_growth_of_means,
    test="ladder",
    margin=0.03,
    margin_reason="less than a tenth of the growth's distance from 1",
    labels=lambda net: ["growth"],
    rival=Rival("⟨φ′²⟩/⟨φ²⟩ = 1: the mean over the batch left in", lambda net, x: np.ones(1)),
    knob=wrong_norms.knob,
    mutants=(
        Mutant("no mean subtracted", wrong_norms.uncentred),
        Mutant("ε = 0.3", wrong_norms.eps(0.3)),
        Mutant("leaky relu of slope 0.3", mutations.activation("leaky_relu(0.3)")),
    ),
)

CLAIMS = [ONE_STEP_RELU, ONE_STEP_TANH, LINEAR, RELU, RELU_LIMIT, TANH, ERF, NEAR_LINEAR, LAYER_NORM]
