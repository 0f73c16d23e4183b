"""Roberts, Yaida & Hanin 2022, The Principles of Deep Learning Theory: what finite widths add to the limit, to first
order in depth/width. Means of narrow networks are held against it directly, its spreads also as width grows."""

from __future__ import annotations

import numpy as np

from mcverify.claims import mutations
from mcverify.claims.claim import Claim, FloatArray, Mutant, Networks, Rival
from mcverify.inputs import with_gram
from mcverify.network import Network, mlp
from mcverify.simulation import observables
from mcverify.simulation.trace import Trace
from mcverify.theory.corrections import FirstOrder, first_order
from mcverify.theory.propagation import Prediction, propagate

SOURCE = "Roberts, Yaida & Hanin 2022, arXiv:2106.10165"
INPUT_DIM = 64
NARROW = (30,)
_ORTHOGONAL = Mutant("orthogonal weights, of the same limit", mutations.weights("orthogonal"))


def _narrow(phi: str, sigma_w2: float, sigma_b2: float, pairs: int) -> Networks:
    """width -> a network whose widths alternate between it and two more."""
    return lambda width: mlp(INPUT_DIM, [width, width + 2] * pairs, phi, sigma_w2, sigma_b2)


def _predicted(net: Network, x: FloatArray) -> tuple[Prediction, FirstOrder]:
    p = propagate(net, x)
    return p, first_order(net, p)


# ---- means of narrow networks -------------------------------------------------------------------------

_UPPER = slice(3, None)  # layers whose mean is taken: neighbours share but part of their fluctuations


def _lengths(trace: Trace) -> FloatArray:
    """Ĝ^l_aa, the mean over l ≥ 4 and inputs, (replicate, 1)."""
    return observables.metric_lengths(trace)[:, _UPPER].mean(axis=(1, 2))[:, None]


def _upper(values: FloatArray) -> FloatArray:
    """The same of (layer, input, input)."""
    return np.array([np.diagonal(values, axis1=1, axis2=2)[_UPPER].mean()])


def _length_first_order(net: Network, x: FloatArray) -> FloatArray:
    p, f = _predicted(net, x)
    return _upper(p.q + f.metric.value)


METRIC = Claim(
    name="roberts2022.length",
    source=f"{SOURCE}, ch. 4: the mean metric to order 1/n",
    statement="At widths 30 and 32 mean lengths lie below the limit by what the first order in 1/width says (tanh).",
    mark="first order",
    networks=_narrow("tanh", 1.8, 0.05, 4),
    widths=NARROW,
    inputs=lambda net: with_gram([[0.5, 0.0], [0.0, 0.5]], net.input_dim),
    predict=_length_first_order,
    remainder=lambda net, x: _upper(_predicted(net, x)[1].metric.remainder),
    measure=_lengths,
    test="mean",
    engine="auto",
    relative=True,
    margin=0.004,
    margin_reason="well below half the distance to the limit",
    labels=lambda net: ["mean of layers from 4"],
    rival=Rival("the limit of infinite width", lambda net, x: _upper(propagate(net, x).q)),
    mutants=(Mutant("σ_w² off by 2%", mutations.weight_gain(1.02)), _ORTHOGONAL),
)


def _cross_terms(trace: Trace) -> FloatArray:
    """Ĝ^L_ab of two inputs, (replicate, 1)."""
    return observables.metric(trace)[:, -1, 0, 1][:, None]


def _last_pair(values: FloatArray) -> FloatArray:
    return np.array([values[-1, 0, 1]])


def _cross_first_order(net: Network, x: FloatArray) -> FloatArray:
    p, f = _predicted(net, x)
    return _last_pair(p.q + f.metric.value)


PAIR = Claim(
    name="roberts2022.pair_covariance",
    source=f"{SOURCE}, ch. 4, for two inputs",
    statement="At widths 24 and 26 the mean cross term of two inputs lies above the limit by what the first order in "
    "1/width says (erf, chaotic).",
    mark="first order",
    networks=_narrow("erf", 3.0, 0.3, 4),
    widths=(24,),
    inputs=lambda net: with_gram([[1.0, 0.5], [0.5, 1.0]], net.input_dim),
    predict=_cross_first_order,
    remainder=lambda net, x: _last_pair(_predicted(net, x)[1].metric.remainder),
    measure=_cross_terms,
    test="mean",
    engine="auto",
    sample="roberts2022.pair",
    relative=True,
    margin=0.022,
    margin_reason="below half the distance to the limit",
    labels=lambda net: ["layer 8"],
    rival=Rival("the limit of infinite width", lambda net, x: _last_pair(propagate(net, x).q)),
    mutants=(Mutant("σ_w² off by 5%", mutations.weight_gain(1.05)), _ORTHOGONAL),
)


# ---- gradients ----------------------------------------------------------------------------------------


def _first_gradient(trace: Trace) -> FloatArray:
    """‖δ^1‖², the mean over inputs with cotangents of their own, in units of the limit's, (replicate, 1)."""
    own = np.diagonal(observables.grad_gram(trace)[:, 0], axis1=1, axis2=2)
    return np.asarray(own.mean(axis=1, keepdims=True) / _gradient_limit(trace.plan.net, trace.plan.x))


def _gradient_limit(net: Network, x: FloatArray) -> FloatArray:
    return np.array([np.diagonal(propagate(net, x).grad_gram[0]).mean()])


def _gradient_first_order(net: Network, x: FloatArray) -> FloatArray:
    return 1 + _predicted(net, x)[1].grad_norm2.value[0].mean() / _gradient_limit(net, x)


GRADIENT = Claim(
    name="roberts2022.gradient_norm",
    source=f"derived from the one-step law; {SOURCE}, ch. 8, has its like for the tangent kernel",
    statement="At widths 24 and 26 the mean squared gradient norm of the first layer lies below the limit by what the "
    "first order in 1/width says (sigmoid): tied weights, and Ĝ's fluctuations, count at this order.",
    mark="first order",
    networks=_narrow("sigmoid", 3.0, 0.3, 4),
    widths=(24,),
    inputs=lambda net: with_gram(np.eye(4), net.input_dim),
    predict=_gradient_first_order,
    remainder=lambda net, x: _predicted(net, x)[1].grad_norm2.remainder[0].mean() / _gradient_limit(net, x),
    measure=_first_gradient,
    test="mean",
    engine="auto",
    margin=0.035,
    margin_reason="below half the distance to the limit",
    labels=lambda net: ["layer 1"],
    rival=Rival("the limit of infinite width", lambda net, x: np.ones(1)),
    mutants=(Mutant("σ_w² off by 2%", mutations.weight_gain(1.02)), _ORTHOGONAL),
)


# ---- spreads, as width grows --------------------------------------------------------------------------


def _scaled_moments(trace: Trace) -> FloatArray:
    """Ĝ^L, n Ĝ^L and n (Ĝ^L)² of one input, n the narrowest width, (replicate, 3)."""
    g, n = observables.metric_lengths(trace)[:, -1, 0], min(trace.plan.net.widths)
    return np.stack([g, n * g, n * g**2], axis=1)


def _scaled_variance(means: FloatArray) -> FloatArray:
    """n Var Ĝ/(E Ĝ)², (1,)."""
    g, ng, ng2 = means
    return np.array([ng2 / g**2 - ng / g])


def _scaled_spread(net: Network, x: FloatArray) -> FloatArray:
    """The same to first order: it does not depend on n."""
    p, f = _predicted(net, x)
    return np.array([min(net.widths) * f.metric.variance[-1, 0, 0] / p.q[-1, 0, 0] ** 2])


TANH_SPREAD = Claim(
    name="roberts2022.tanh_spread",
    source=f"{SOURCE}, ch. 5: at the K* = 0 critical point nV/q² grows as 2l/3",
    statement="At (1, 0) the relative variance of tanh lengths, times n/l, tends to 0.61 at l = 7 as width grows, on "
    "its way to 2/3.",
    mark="first order",
    networks=lambda width: mlp(INPUT_DIM, [width] * 8, "tanh", 1.0),
    widths=(48, 64, 80, 96, 128, 160),
    inputs=lambda net: with_gram([[1.0]], net.input_dim),
    predict=lambda net, x: _scaled_spread(net, x) / (len(net.maps) - 1),
    measure=_scaled_moments,
    combine=lambda means: _scaled_variance(means) / 7,
    test="ladder",
    engine="auto",
    margin=0.1,
    margin_reason="less than a tenth of the distance to a linear network's",
    labels=lambda net: ["n Var/l"],
    rival=Rival("lengths spread as in a linear network, 2l/n", lambda net, x: np.array([2.0])),
    knob=None,  # σ_w² moves the spread of tanh networks little
    mutants=(Mutant("relu in place of tanh", mutations.activation("relu")),
             Mutant("linear in place of tanh", mutations.activation("linear"))),
)  # fmt: skip

RELU_SPREAD = Claim(
    name="roberts2022.relu_spread",
    source=f"{SOURCE}, ch. 5: scale-invariant activations; Hanin & Rolnick 2018: Π(1 + 5/n) − 1 has this slope",
    statement="In He-ReLU networks the relative variance of lengths, times n/l, tends to 5 as width grows.",
    mark="first order",
    networks=lambda width: mlp(INPUT_DIM, [width] * 4, "relu", 2.0),
    widths=(48, 64, 80, 96, 128, 160),
    inputs=lambda net: with_gram([[1.0]], net.input_dim),
    predict=lambda net, x: _scaled_spread(net, x) / (len(net.maps) - 1),
    measure=_scaled_moments,
    combine=lambda means: _scaled_variance(means) / 3,
    test="ladder",
    engine="auto",
    margin=0.8,
    margin_reason="less than half the distance to a linear network's",
    labels=lambda net: ["n Var/l"],
    rival=Rival("lengths spread as in a linear network, 2l/n", lambda net, x: np.array([2.0])),
    knob=None,  # a relative variance does not move with σ_w²
    mutants=(Mutant("tanh in place of relu", mutations.activation("tanh")), Mutant(
        "orthogonal weights", mutations.weights("orthogonal"))),
)  # fmt: skip

CLAIMS = (METRIC, PAIR, GRADIENT, TANH_SPREAD, RELU_SPREAD)
