"""Schoenholz, Gilmer, Ganguli & Sohl-Dickstein 2017, Deep information propagation: gradients, order and
chaos, and what dropout does to depth. With the assumption behind the gradient statements, independent
weights for the backward pass, and the depth from which fixed-point statements hold, made measurable."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mcverify.claims import generic, measures, mutations
from mcverify.claims.claim import Claim, FloatArray, Mutant, Rival
from mcverify.claims.poole2016 import (
    CHAOTIC,
    INPUT_DIM,
    ORDERED,
    WIDTHS,
    at_fixed_point,
    correlation_gap,
    decay_rate,
    phase_of,
    tanh_networks,
    with_lengths,
)
from mcverify.inputs import with_gram
from mcverify.layers import chain
from mcverify.network import Network, mlp
from mcverify.random_map import explicit
from mcverify.simulation import observables
from mcverify.simulation.trace import Trace
from mcverify.theory.phase import phase
from mcverify.theory.propagation import propagate

SOURCE = "Schoenholz et al. 2017, arXiv:1611.01232"
CRITICAL = (1.05, 2e-5)  # where the ultra-deep convolutional networks of Xiao et al. 2018 are trained
KEEP = 0.8
DEEPEST = (1.2, 0.01)  # with keep 0.8, χ_c* = 0.759: nearer the bound than most

_LONG = [[6.0, 0.0], [0.0, 6.0]]


# ---- gradients at finite depth ------------------------------------------------------------------------


def _log_chi_at_fixed_point(net: Network, x: FloatArray) -> FloatArray:
    return np.full(len(net.maps) - 1, np.log(phase_of(ORDERED).chi_1))


GRADIENT_NORMS = Claim(
    name="schoenholz2017.gradient_norms",
    source=f"{SOURCE}, eq. 12",
    statement="Going down, gradient norms gain χ^l = σ_w²⟨φ′²⟩ at each layer's own q^l, not q* (tanh, long inputs).",
    mark="limit",
    networks=tanh_networks(ORDERED, 6),
    widths=WIDTHS,
    inputs=with_lengths(_LONG),
    predict=lambda net, x: propagate(net, x).gradient_gains,
    measure=measures.log_gradient_gain,
    test="ladder",
    margin=0.04,
    margin_reason="an eighth of the distance to χ at q* in the second layer, less in the first",
    labels=generic.layer_labels(1, 1),
    rival=Rival("χ at q* in every layer", _log_chi_at_fixed_point),
    mutants=(Mutant("σ_w² off by 5%", mutations.weight_gain(1.05)),
             Mutant("relu in place of tanh", mutations.activation("relu"))),
)  # fmt: skip


def _cross_products(trace: Trace) -> FloatArray:
    """δ^l_a · δ^l_b for a ≠ b under one cotangent, (replicate, L)."""
    return observables.grad_gram(trace)[:, :, 0, 1]


def _cross_gain(net: Network, x: FloatArray) -> FloatArray:
    g = propagate(net, x, "shared").grad_gram[:, 0, 1]
    return np.asarray(np.log(g[:-1] / g[1:]))


GRADIENT_CROSS = Claim(
    name="schoenholz2017.gradient_cross_products",
    source=f"{SOURCE}, §4, extended to two inputs",
    statement="Under one cotangent, δ_a·δ_b gains σ_w² E φ′(u_a)φ′(u_b) a layer (tanh, chaotic).",
    mark="limit",
    networks=tanh_networks(CHAOTIC, 5),
    widths=WIDTHS,
    inputs=at_fixed_point(CHAOTIC, [[1.0, 0.8], [0.8, 1.0]]),
    cotangent="shared",
    predict=_cross_gain,
    measure=_cross_products,
    combine=lambda means: np.log(means[:-1] / means[1:]),
    test="ladder",
    margin=0.06,
    margin_reason="a quarter of the distance to the gain of a single input's norm",
    labels=generic.layer_labels(1, 1),
    rival=Rival("cross products gain as norms do", lambda net, x: propagate(net, x).gradient_gains),
    mutants=(Mutant("σ_w² off by 50%", mutations.weight_gain(1.5)),
             Mutant("relu in place of tanh", mutations.activation("relu"))),
)  # fmt: skip


def _tied_minus_fresh(trace: Trace) -> FloatArray:
    """Per-layer log-gains of ‖δ‖² with the forward weights, less those with fresh backward weights."""
    return _gains_from(trace, tied=True) - _gains_from(trace, tied=False)


def _gains_from(trace: Trace, *, tied: bool, of_output: bool = False) -> FloatArray:
    """Per-layer log-gains of a backward pass of its own, from the trace's cotangent or from δ^L = h^L."""
    plan = trace.plan
    engine = explicit.engine(plan.engine.kernels, plan.engine.dtype, tied=tied)
    below = [replace(record) for record in trace.tape[: plan.net.end]]
    y = below[-1].y
    top = y.reshape(len(y), 1, *y.shape[1:]) if of_output else below[-1].gy
    assert top is not None
    chain.backward(below, engine, top)
    return measures.log_gradient_gain(Trace(plan, trace.site, [*below, *trace.tape[plan.net.end :]]))


def _as_dependent_cotangent(net: Network, x: FloatArray) -> FloatArray:
    """With δ^L = h^L the top layer would gain a further E‖WWᵀ…‖: W_ij W_ij terms double the mean square."""
    return np.array([0.0] * (len(net.maps) - 2) + [np.log(2.0)])


TIED_WEIGHTS = Claim(
    name="schoenholz2017.tied_weights",
    source=f"{SOURCE}, §4: the forward and backward weights are taken as independent",
    statement="Gradients with the forward weights and with fresh ones gain the same a layer, as width grows (tanh).",
    mark="limit",
    networks=tanh_networks(CHAOTIC, 5),
    widths=WIDTHS,
    inputs=with_lengths([[1.0, 0.0], [0.0, 1.0]]),
    predict=lambda net, x: np.zeros(len(net.maps) - 1),
    measure=_tied_minus_fresh,
    test="ladder",
    margin=0.04,
    margin_reason="four percent of a layer's gain; the rival is 0.69 away",
    labels=generic.layer_labels(1, 1),
    rival=Rival("tied weights matter at leading order, as for the cotangent δ^L = h^L", _as_dependent_cotangent),
    knob=None,  # a difference of gains: no gain moves it
    mutants=(
        Mutant(
            "the cotangent is the output itself, δ^L = h^L",
            measure=lambda t: _gains_from(t, tied=True, of_output=True) - _gains_from(t, tied=False, of_output=True),
        ),
    ),
)  # fmt: skip


# ---- order, chaos, and the critical point between them ------------------------------------------------


def _sign_claim(name: str, statement: str, point: tuple[float, float], sign: float, mutant: Mutant) -> Claim:
    """The mean log-gain of gradient norms times `sign` is below zero, at width 256."""
    return Claim(
        name=f"schoenholz2017.{name}",
        source=f"{SOURCE}, §4",
        statement=statement,
        mark="bound",
        networks=tanh_networks(point, 8),
        widths=(256,),
        inputs=at_fixed_point(point, [[1.0, 0.5], [0.5, 1.0]]),
        predict=lambda net, x: np.zeros(1),
        measure=lambda trace: sign * measures.log_gradient_gain(trace).mean(axis=1, keepdims=True),
        test="mean",
        one_sided=True,
        margin=0.01,
        margin_reason="a tenth of the gain expected or less: the sign is what is claimed",
        labels=lambda net: ["mean over layers"],
        rival=Rival("the other phase", lambda net, x: np.array([abs(np.log(phase_of(point).chi_1))])),
        mutants=(mutant,),
        knob=mutations.weight_gain if sign > 0 else lambda gain: mutations.weight_gain(1 / gain),  # towards order
    )


VANISH = _sign_claim(
    "gradients_vanish",
    "In the ordered phase (tanh, σ_w² = 1.5, σ_b² = 0.05) gradient norms shrink going down.",
    ORDERED, 1.0, Mutant("σ_w² of the chaotic point", mutations.weight_gain(CHAOTIC[0] / ORDERED[0])),
)  # fmt: skip

EXPLODE = _sign_claim(
    "gradients_explode",
    "In the chaotic phase (tanh, σ_w² = 4, σ_b² = 0.1) gradient norms grow going down.",
    CHAOTIC, -1.0, Mutant("σ_w² of the ordered point", mutations.weight_gain(ORDERED[0] / CHAOTIC[0])),
)  # fmt: skip

CRITICAL_POINT = Claim(
    name="schoenholz2017.critical_point",
    source=f"{SOURCE}, fig. 1; the point (1.05, 2e-5) is from Xiao et al. 2018, §3",
    statement="At (1.05, 2e-5) a wide tanh network is critical: gradient norms keep their size, χ_1 = 1 to 4e-6.",
    mark="limit",
    networks=tanh_networks(CRITICAL, 6),
    widths=WIDTHS,
    inputs=at_fixed_point(CRITICAL, [[1.0, 0.5], [0.5, 1.0]]),
    predict=lambda net, x: np.full(len(net.maps) - 1, np.log(phase_of(CRITICAL).chi_1)),
    measure=measures.log_gradient_gain,
    test="ladder",
    margin=0.02,
    margin_reason="less than half the distance to the rival's log 1.05 = 0.049",
    labels=generic.layer_labels(1, 1),
    rival=Rival("σ_w² alone sets the gain, as in a linear network",
                lambda net, x: np.full(len(net.maps) - 1, np.log(CRITICAL[0]))),
    mutants=(Mutant("σ_w² off by 5%", mutations.weight_gain(1.05)),
             Mutant("linear in place of tanh", mutations.activation("linear"))),
)  # fmt: skip


# ---- dropout ------------------------------------------------------------------------------------------


def _dropout_networks(width: int) -> Network:
    return mlp(INPUT_DIM, [width, width + 16] * 3, "tanh", *ORDERED, keep=KEEP)


def _without_one_over_keep(net: Network, x: FloatArray) -> FloatArray:
    """The gain if masks were not compensated: Q without its 1/ρ, over Q."""
    q = np.diagonal(propagate(net, x).q, axis1=1, axis2=2)[1:]
    sigma_b2 = ORDERED[1]
    return np.asarray(((q - sigma_b2) * KEEP + sigma_b2) / q).ravel()


DROPOUT_STEP = Claim(
    name="schoenholz2017.dropout_q_map",
    source=f"{SOURCE}, §5, eq. 19",
    statement="With dropout of keep probability 0.8 the metric's mean is (σ_w²/ρ)⟨φ²⟩ + σ_b², exactly (tanh).",
    mark="exact",
    networks=_dropout_networks,
    widths=(48,),
    inputs=with_lengths([[1.0, 0.3], [0.3, 0.2]]),
    predict=lambda net, x: np.ones(len(measures.one_step_layers(net)) * len(x)),
    measure=measures.flat(measures.one_step_variance),
    test="mean",
    margin=0.01,
    margin_reason="a fifteenth of the distance to masks without 1/ρ",
    labels=generic.each_input(generic.step_labels, 2),
    rival=Rival("no 1/ρ on the diagonal", _without_one_over_keep),
    mutants=(Mutant("masks without 1/ρ", mutations.unscaled_dropout), Mutant("no dropout", mutations.no_dropout)),
)

DROPOUT_CROSS = replace(
    DROPOUT_STEP,
    name="schoenholz2017.dropout_c_map",
    statement="With dropout of keep probability 0.8 and independent masks, cross terms carry no 1/ρ, exactly (erf).",
    networks=lambda width: mlp(INPUT_DIM, [width, width + 16] * 3, "erf", *ORDERED, keep=KEEP),
    predict=lambda net, x: np.zeros(len(measures.one_step_layers(net))),
    measure=measures.flat(measures.one_step_covariance),
    margin=0.01,
    margin_reason="in units of a correlation: a third of the distance to cross terms with 1/ρ or less",
    labels=generic.each_pair(generic.step_labels, 2),
    rival=Rival("1/ρ on cross terms too, as with one mask for all inputs", lambda net, x: _with_one_over_keep(net, x)),
    mutants=(Mutant("masks without 1/ρ", mutations.unscaled_dropout),
             Mutant("σ_w² off by 10%", mutations.weight_gain(1.1))),
)  # fmt: skip


def _without_shared_keep(net: Network, x: FloatArray) -> FloatArray:
    """(C − C/ρ)/√(Q_aa Q_bb) without its bias, (step,)."""
    q = propagate(net, x).q[1:]
    return np.asarray((q[:, 0, 1] - ORDERED[1]) * (KEEP - 1) / np.sqrt(q[:, 0, 0] * q[:, 1, 1]))


DROPOUT_SHARED = replace(
    DROPOUT_CROSS,
    name="schoenholz2017.dropout_shared_mask",
    source=f"{SOURCE}, §5, for one mask in place of one for each input",
    statement="With one mask for all inputs (keep probability 0.8) cross terms carry 1/ρ too, exactly (erf).",
    networks=lambda width: mlp(
        INPUT_DIM, [width, width + 16] * 3, "erf", *ORDERED, keep=KEEP, shared_masks=True
    ),
    rival=Rival("no 1/ρ on cross terms, as with a mask for each input", _without_shared_keep),
    mutants=(Mutant("a mask for each input", mutations.independent_masks),
             Mutant("σ_w² off by 10%", mutations.weight_gain(1.1))),
)  # fmt: skip


def _with_one_over_keep(net: Network, x: FloatArray) -> FloatArray:
    """(C/ρ − C)/√(Q_aa Q_bb) without its bias, (step,)."""
    q = propagate(net, x).q[1:]
    return np.asarray((q[:, 0, 1] - ORDERED[1]) * (1 / KEEP - 1) / np.sqrt(q[:, 0, 0] * q[:, 1, 1]))


def _dropout_inputs(net: Network) -> FloatArray:
    """Three inputs at q* with dropout, two of whose correlations straddle c*."""
    sigma_w2, sigma_b2 = DEEPEST
    p = phase("tanh", *DEEPEST, keep=KEEP)
    c = p.c
    correlations = np.array([[1, c + 0.2, c - 0.3], [c + 0.2, 1, c], [c - 0.3, c, 1]])
    return with_gram((p.q * correlations - sigma_b2) / sigma_w2, net.input_dim)


DROPOUT_BOUND = Claim(
    name="schoenholz2017.dropout_depth",
    source=f"{SOURCE}, §5; the bound ξ_c ≤ 1/|log ρ| holds for any φ",
    statement="Dropout limits depth: a difference in correlation decays at least as fast as ρ a layer (tanh, ρ = 0.8).",
    mark="bound",
    networks=lambda width: mlp(INPUT_DIM, [width] * 4, "tanh", *DEEPEST, keep=KEEP),
    widths=WIDTHS,
    inputs=_dropout_inputs,
    predict=lambda net, x: np.array([np.log(KEEP)]),
    measure=lambda trace: correlation_gap(observables.metric(trace)),
    combine=decay_rate,
    test="ladder",
    one_sided=True,
    margin=0.05,
    margin_reason="a third of the distance to the rate without dropout",
    labels=lambda net: ["rate"],
    rival=Rival("the rate χ_1 of the network without dropout",
                lambda net, x: np.array([np.log(phase_of(DEEPEST).chi_1)])),
    knob=None,  # the bound holds for every σ_w²
    mutants=(Mutant("no dropout", mutations.no_dropout),),
)  # fmt: skip


# ---- the depth from which fixed-point statements hold -------------------------------------------------


def _chi_ratio(net: Network, x: FloatArray) -> FloatArray:
    """χ^l/χ_1 − 1, l = 1 … L."""
    return propagate(net, x).chi[:, 0] / phase_of(ORDERED).chi_1 - 1


def _fixed_point_everywhere(net: Network, x: FloatArray) -> FloatArray:
    return np.zeros(len(net.maps))


DEPTH_TO_FIXED_POINT = Claim(
    name="schoenholz2017.depth_to_fixed_point",
    source=f"{SOURCE}, §4, whose χ_1 is taken at q*; Wang 2019, slides, 'may not work for shallow networks'",
    statement="Fixed-point statements need depth: from q_0 = 6, χ^l is below χ_1 by more than a tenth through layer 3 "
    "and within a tenth from layer 4 on (tanh).",
    mark="limit",
    networks=tanh_networks(ORDERED, 5),
    widths=WIDTHS,
    inputs=with_lengths([[6.0]]),
    predict=_chi_ratio,
    measure=lambda trace: observables.chi(trace)[:, :, 0] / phase_of(ORDERED).chi_1 - 1,
    test="ladder",
    margin=0.01,
    margin_reason="less than half the distance of any layer's χ^l/χ_1 − 1 from the line drawn at −0.1",
    labels=generic.layer_labels(1, 0),
    rival=Rival("χ^l is χ_1 in every layer", _fixed_point_everywhere),
    mutants=(Mutant("σ_w² off by 5%", mutations.weight_gain(1.05)), Mutant("no bias", mutations.no_bias)),
)  # fmt: skip

CLAIMS = (
    GRADIENT_NORMS, GRADIENT_CROSS, TIED_WEIGHTS, VANISH, EXPLODE, CRITICAL_POINT,
    DROPOUT_STEP, DROPOUT_CROSS, DROPOUT_SHARED, DROPOUT_BOUND, DEPTH_TO_FIXED_POINT,
)  # fmt: skip
