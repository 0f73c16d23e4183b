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
from mcverify.expectations import gaussian, sphere
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
WIDTHS = (48, 64, 96, 128, 192)
BATCH = 8
BLOCKS = 4
COUPLING = Mutant("mean and spread taken as constants by derivatives", wrong_norms.detached)


def alike(batch: int, q: float = 1.0, c: float = 0.0) -> Inputs:
    """`batch` inputs of length q, any two of correlation c."""
    return lambda net: with_gram(q * ((1.0 - c) * np.eye(batch) + c), net.input_dim)


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
        inputs=alike(_STEP_BATCH),
        predict=lambda net, x: _on_the_sphere(phi, _STEP_BATCH),
        measure=_step,
        test="mean",
        margin=0.01,
        margin_reason="a tenth of what the finite batch changes in the gradient",
        labels=lambda net: _STEP_LABELS,
        rival=Rival("normalised units are independent Gaussians, as for B → ∞",
                    lambda net, x: _on_the_sphere(phi, 10**6)),
        knob=wrong_norms.eps_knob,
        knob_of="ε",
        mutants=(
            Mutant("statistics over B − 1", wrong_norms.sample_variance(_STEP_BATCH)),
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


def _linear_growth() -> float:
    return batchnorm_gradient_growth("linear", BATCH)


def _growth(
    name: str, phi: str, statement: str, rival: tuple[str, Callable[[], float]], margin_reason: str,
    mutants: tuple[Mutant, ...], gain: float = 1.0,
) -> Claim:  # fmt: skip
    return Claim(
        name=f"yang2019_batchnorm.{name}",
        source=f"{SOURCE}, §4",
        statement=statement,
        mark="limit",
        networks=_plain(phi, BatchNorm(gain=gain), sigma_w2=1.7),
        widths=WIDTHS,
        inputs=alike(BATCH),
        predict=_constant(lambda: batchnorm_gradient_growth(phi, BATCH, gain=gain)),
        measure=_between,
        test="ladder",
        engine="auto",
        margin=0.04,
        margin_reason=margin_reason,
        labels=lambda net: [f"layer {l}" for l in range(2, BLOCKS)],
        rival=Rival(rival[0], _constant(rival[1])),
        knob=wrong_norms.eps_knob,
        knob_of="ε",
        mutants=mutants,
        neighbours=(Mutant("σ_w² of 0.6 and not 1.7", mutations.weight_gain(0.6 / 1.7)),),
    )


LINEAR = _growth(
    "linear", "linear",
    "Gradients of a linear network with batch norm grow by (B−2)/(B−3) a layer, whatever σ_w²: by 6/5 at B = 8.",
    ("gradients of a linear network keep their length", lambda: 1.0), "a fifth of the growth itself",
    (COUPLING, Mutant("ε = 1", wrong_norms.eps(1.0))),
)  # fmt: skip

RELU = _growth(
    "relu", "relu",
    "Gradients of a ReLU network with batch norm grow by the closed form at finite B, 1.788 a layer at B = 8.",
    ("the limit of large batches, π/(π−1) = 1.467", lambda: math.pi / (math.pi - 1)),
    "a fifth of what the finite batch adds",
    (COUPLING, Mutant("no mean subtracted", wrong_norms.uncentred)),
)  # fmt: skip

TANH = _growth(
    "tanh", "tanh", "Gradients of a tanh network with batch norm explode too, by 1.359 a layer at B = 8.",
    ("as in a linear network", _linear_growth), "a third of what the nonlinearity adds",
    (COUPLING, Mutant("batch norm of gain ½", wrong_norms.square(0.25))),
)  # fmt: skip

ERF = _growth(
    "erf", "erf", "Gradients of an erf network with batch norm explode, by 1.405 a layer at B = 8.",
    ("as in a linear network", _linear_growth), "a quarter of what the nonlinearity adds",
    (COUPLING, Mutant("batch norm of gain ½", wrong_norms.square(0.25))),
)  # fmt: skip

NEAR_LINEAR = _growth(
    "near_linear", "tanh",
    "With a batch norm of gain 0.3 a tanh network is near linear, and its gradients grow by 1.204 a layer at B = 8, "
    "hardly more than the 6/5 of a linear one.",
    ("as at gain 1", lambda: batchnorm_gradient_growth("tanh", BATCH)), "a third of what the gain takes away",
    (COUPLING, Mutant("gain 1", wrong_norms.square(1 / 0.09))),
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
    margin=0.05,
    margin_reason="a tenth of batch norm's growth",
    rival=Rival("as with batch norm", _constant(lambda: batchnorm_gradient_growth("relu", BATCH))),
    knob=None,  # no parameter moves it
    mutants=(
        Mutant("batch norm", lambda net: net.map_layers(lambda _, v: BatchNorm() if isinstance(v, LayerNorm) else v)),
        Mutant("tanh in place of relu", mutations.activation("tanh")),
    ),
)


# ---- large batches ------------------------------------------------------------------------------------

_BATCHES = (16, 20, 24, 32, 48)
_LENGTH, _CORRELATION = 2.0, 0.5  # of the inputs, so that the eigenvalue on 1^⊥ is 1


def _growth_of_means(means: FloatArray) -> FloatArray:
    """The gradient gained on 1^⊥ over the eigenvalue there of the next metric, (1,), from the means of `_step`."""
    own, cross, gradient = means
    return np.array([gradient / (own - cross)])


def _not_centred(net: Network, x: FloatArray) -> FloatArray:
    """⟨φ′²⟩/(⟨φ²⟩ − ⟨φφ⟩) where units are divided by their root mean square: they stay correlated."""
    pair = float(gaussian.covariance("relu", 1.0, _CORRELATION, 1.0).value)
    return np.array([0.5 / _LENGTH / (0.5 - pair)])


RELU_LIMIT = Claim(
    name="yang2019_batchnorm.relu_large_batch",
    source=f"{SOURCE}, §4",
    statement="As the batch grows, the growth of gradients in a ReLU network with batch norm tends to π/(π−1) = 1.467 "
    "(one layer at width 32, where it is exact for every batch: the ladder is in B).",
    mark="limit",
    networks=lambda batch: Network([Dense(batch, 32), BatchNorm(), Activation("relu"), Dense(32, 32)]),
    widths=_BATCHES,
    inputs=lambda net: alike(net.input_dim, _LENGTH, _CORRELATION)(net),
    predict=lambda net, x: np.array([math.pi / (math.pi - 1)]),
    measure=_step,
    combine=_growth_of_means,
    test="ladder",
    margin=0.05,
    margin_reason="a tenth of the growth's distance from 1",
    labels=lambda net: ["growth"],
    rival=Rival("the mean over the batch left in", _not_centred),
    mutants=(
        Mutant("no mean subtracted", wrong_norms.uncentred),
        Mutant("leaky relu of slope 0.3", mutations.activation("leaky_relu(0.3)")),
    ),
)

CLAIMS = [ONE_STEP_RELU, ONE_STEP_TANH, LINEAR, RELU, RELU_LIMIT, TANH, ERF, NEAR_LINEAR, LAYER_NORM]
