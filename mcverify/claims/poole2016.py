"""Poole, Lahiri, Raghu, Sohl-Dickstein & Ganguli 2016, Exponential expressivity in deep neural networks
through transient chaos: how lengths and correlations move from layer to layer, and where they end."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from mcverify.claims import generic, measures, mutations
from mcverify.claims.claim import Claim, FloatArray, Inputs, Measure, Mutant, Networks, Predict, Rival
from mcverify.correlation import correlation
from mcverify.inputs import with_gram
from mcverify.network import Network, mlp
from mcverify.simulation import observables
from mcverify.simulation.trace import Trace
from mcverify.theory.phase import Phase, phase
from mcverify.theory.propagation import propagate

Point = tuple[float, float]
Gap = Callable[[FloatArray], FloatArray]  # (…, input, input) -> (…,)
Rate = Callable[[], float]  # computed when it is asked for, so that listing the claims stays quick

SOURCE = "Poole et al. 2016, arXiv:1606.05340"
INPUT_DIM = 64
WIDTHS = (32, 48, 64, 96, 128, 192)
ORDERED = (1.5, 0.05)  # (σ_w², σ_b²) of a tanh network with χ_1 = 0.939, dQ/dq = 0.552
CHAOTIC = (4.0, 0.1)  # and of one with c* well below 1

A_LAYER = "half a percent in one layer's gain is a factor e^{1/2} over a hundred layers"
_GAIN_MUTANT = Mutant("σ_w² off by 1 + 1/n at n = 48", mutations.weight_gain(1 + 1 / 48))


@cache
def phase_of(point: Point) -> Phase:
    """Fixed points of the tanh network at (σ_w², σ_b²)."""
    return phase("tanh", *point)


def tanh_networks(point: Point, depth: int) -> Networks:
    """width -> tanh network of that width and depth."""
    return lambda width: mlp(INPUT_DIM, [width] * depth, "tanh", *point)


def at_fixed_point(point: Point, correlations: list[list[float]]) -> Inputs:
    """Inputs whose first pre-activations have length q* and the given correlations."""
    sigma_w2, sigma_b2 = point

    def inputs(net: Network) -> FloatArray:
        q = phase_of(point).q
        return with_gram((q * np.array(correlations) - sigma_b2) / sigma_w2, net.input_dim)

    return inputs


def with_lengths(gram: list[list[float]]) -> Inputs:
    """Inputs of a given Gram matrix."""
    return lambda net: with_gram(gram, net.input_dim)


# ---- one step, exact at every width ------------------------------------------------------------------


def _q_step_network(width: int) -> Network:
    return mlp(INPUT_DIM, [width, width + 16] * 3, "tanh", *ORDERED)


def _c_step_network(width: int) -> Network:
    return mlp(INPUT_DIM, [width, width + 16] * 3, "erf", 2.0, 0.1)


def _fan_out_gain(net: Network, x: FloatArray) -> FloatArray:
    """The gain of each map's output if weights had variance σ_w²/fan_out."""
    q = np.diagonal(propagate(net, x).q, axis1=1, axis2=2)
    out = []
    for l, _, _ in measures.one_step_layers(net):
        m = net.random_map(net.maps[l])
        out.append((m.sigma_b2 + (q[l] - m.sigma_b2) * m.fan_in / m.fan_out) / q[l])
    return np.concatenate(out)


def _correlation_kept(net: Network, x: FloatArray) -> FloatArray:
    """The residual of each correlation if a layer did not move it, (step·pair,): c^l − c^{l+1}."""
    c = correlation(propagate(net, x).q)
    a, b = np.triu_indices(len(x), 1)
    return np.asarray((c[:-1, a, b] - c[1:, a, b]).ravel())


Q_MAP = Claim(
    name="poole2016.q_map",
    source=f"{SOURCE}, eq. 3",
    statement="Given a layer's metric Ĝ, the mean of the next layer's is Q(Ĝ), exactly, at widths 48 and 64 (tanh).",
    mark="exact",
    networks=_q_step_network,
    widths=(48,),
    inputs=with_lengths([[1.0, 0.3], [0.3, 0.2]]),
    predict=lambda net, x: np.ones(len(measures.one_step_layers(net)) * len(x)),
    measure=measures.flat(measures.one_step_variance),
    test="mean",
    margin=0.005,
    margin_reason=A_LAYER,
    labels=generic.each_input(generic.step_labels, 2),
    rival=Rival("weights of variance σ_w²/fan_out", _fan_out_gain),
    mutants=(
        _GAIN_MUTANT,
        Mutant("σ_w²/fan_out for σ_w²/fan_in", mutations.fan_out_scaling),
        Mutant("no bias", mutations.no_bias),
    ),
)

C_MAP = Claim(
    name="poole2016.c_map",
    source=f"{SOURCE}, eq. 5",
    statement="Given a layer's metric Ĝ, the next one's cross terms have mean C(Ĝ), exactly, at widths 48, 64 (erf).",
    mark="exact",
    networks=_c_step_network,
    widths=(48,),
    inputs=with_lengths([[1.0, 0.9, 0.3], [0.9, 1.0, 0.5], [0.3, 0.5, 0.7]]),
    predict=lambda net, x: np.zeros(len(measures.one_step_layers(net)) * 3),
    measure=measures.flat(measures.one_step_covariance),
    test="mean",
    margin=0.005,
    margin_reason="in units of a correlation: a tenth of what one layer moves the smallest one here",
    labels=generic.each_pair(generic.step_labels, 3),
    rival=Rival("a layer keeps correlations", _correlation_kept),
    mutants=(_GAIN_MUTANT, Mutant("no bias", mutations.no_bias)),
)


# ---- trajectories in the limit ------------------------------------------------------------------------


def _later_lengths(trace: Trace) -> FloatArray:
    """Ĝ^l_aa for l = 2 … L, (replicate, l·input)."""
    g = np.diagonal(observables.metric(trace), axis1=-2, axis2=-1)[:, 1:]
    return g.reshape(len(g), -1)


def _predicted_lengths(net: Network, x: FloatArray) -> FloatArray:
    return np.asarray(np.diagonal(propagate(net, x).q, axis1=1, axis2=2)[1:].ravel())


def _length_labels(net: Network) -> list[str]:
    return [f"layer {l}, input {a + 1}" for l in range(2, len(net.maps) + 1) for a in range(2)]


Q_TRAJECTORY = Claim(
    name="poole2016.q_trajectory",
    source=f"{SOURCE}, eq. 3 and fig. 1",
    statement="Lengths follow q^{l+1} = Q(q^l) at finite depth, from long and from short inputs (tanh).",
    mark="limit",
    networks=tanh_networks(ORDERED, 5),
    widths=WIDTHS,
    inputs=with_lengths([[4.0, 0.0], [0.0, 0.05]]),
    predict=_predicted_lengths,
    measure=_later_lengths,
    test="ladder",
    margin=0.03,
    relative=True,
    margin_reason="a tenth of how far lengths still are from q* at layer 3",
    labels=_length_labels,
    rival=Rival("lengths are at q* from the second layer on",
                lambda net, x: np.full(2 * (len(net.maps) - 1), phase_of(ORDERED).q)),
    mutants=(Mutant("σ_w² off by 10%", mutations.weight_gain(1.1)), Mutant("no bias", mutations.no_bias)),
)  # fmt: skip

C_TRAJECTORY = Claim(
    name="poole2016.c_trajectory",
    source=f"{SOURCE}, eq. 5 and fig. 2",
    statement="Correlations follow the C map at finite depth in the chaotic phase (tanh).",
    mark="limit",
    networks=tanh_networks(CHAOTIC, 6),
    widths=WIDTHS,
    inputs=at_fixed_point(CHAOTIC, [[1.0, 0.95], [0.95, 1.0]]),
    predict=lambda net, x: generic.correlations(propagate(net, x)),
    measure=measures.correlations,
    test="ladder",
    margin=0.02,
    margin_reason="a fifth of what one layer moves the correlation at first",
    labels=generic.layer_labels(2, 0),
    rival=Rival("correlations tend to 1, as in the ordered phase", lambda net, x: np.ones(len(net.maps) - 1)),
    mutants=(Mutant("σ_w² of the ordered point", mutations.weight_gain(ORDERED[0] / CHAOTIC[0])),
             Mutant("no bias", mutations.no_bias)),
)  # fmt: skip


# ---- fixed points and their stability -----------------------------------------------------------------


def _third_order_fixed_point(net: Network, x: FloatArray) -> FloatArray:
    """q* of tanh u ≈ u − u³/3, whose ⟨φ²⟩ is q − 2q²: 2σ_w² q² + (1 − σ_w²) q − σ_b² = 0."""
    sigma_w2, sigma_b2 = ORDERED
    q = (sigma_w2 - 1 + np.sqrt((sigma_w2 - 1) ** 2 + 8 * sigma_w2 * sigma_b2)) / (4 * sigma_w2)
    return np.full(len(x), q)


Q_FIXED_POINT = Claim(
    name="poole2016.q_fixed_point",
    source=f"{SOURCE}, eq. 4",
    statement="Long and short inputs alike end at the stable fixed point q* of Q (tanh, 12 layers).",
    mark="limit",
    networks=tanh_networks(ORDERED, 12),
    widths=WIDTHS,
    inputs=with_lengths([[4.0, 0.0], [0.0, 0.05]]),
    predict=lambda net, x: np.full(len(x), phase_of(ORDERED).q),
    remainder=lambda net, x: np.abs(np.diagonal(propagate(net, x).q[-1]) - phase_of(ORDERED).q),
    measure=measures.metric_diagonal,
    test="ladder",
    margin=0.04,
    relative=True,
    margin_reason="a tenth of the distance to the fixed point of the expanded map",
    labels=lambda net: ["from above", "from below"],
    rival=Rival("q* of tanh expanded to third order", _third_order_fixed_point),
    mutants=(Mutant("σ_w² off by 10%", mutations.weight_gain(1.1)), Mutant("no bias", mutations.no_bias)),
)  # fmt: skip

C_FIXED_POINT = Claim(
    name="poole2016.c_fixed_point",
    source=f"{SOURCE}, §2.2 and fig. 2",
    statement="In the chaotic phase more and less correlated inputs end at the same c* < 1 (tanh, 16 layers).",
    mark="limit",
    networks=tanh_networks(CHAOTIC, 16),
    widths=WIDTHS,
    inputs=at_fixed_point(CHAOTIC, [[1.0, 0.5, 0.1], [0.5, 1.0, 0.3], [0.1, 0.3, 1.0]]),
    predict=lambda net, x: np.full(2, phase_of(CHAOTIC).c),
    remainder=lambda net, x: np.abs(_last_correlations(propagate(net, x).q[-1][None])[0] - phase_of(CHAOTIC).c),
    measure=lambda trace: _last_correlations(observables.metric(trace)[:, -1]),
    test="ladder",
    margin=0.08,
    margin_reason="a ninth of the distance to c* = 1",
    # What a layer errs by, of order 1/width, reaches the last one shrunk by χ_c* in each layer between, so that of
    # sixteen layers Σ χ_c*^j = 6.5 count, in no power of 1/width more than 0.5 · 16 = 8. Networks by NumPy alone,
    # 1.7 million of widths 10 … 64, have c₂/c₁ = 6.9 ± 1.1 and 3.5 ± 1.4, c₃/c₁ = −39 ± 8 and −7 ± 10 (bound: 64).
    growth=0.5,
    labels=lambda net: ["from above", "from below"],
    rival=Rival("every correlation ends at 1", lambda net, x: np.ones(2)),
    mutants=(Mutant("σ_w² of the ordered point", mutations.weight_gain(ORDERED[0] / CHAOTIC[0])),
             Mutant("σ_w² off by 30%", mutations.weight_gain(1.3))),
)  # fmt: skip


def _last_correlations(g: FloatArray) -> FloatArray:
    """c_01 and c_02 of (replicate, input, input), (replicate, 2)."""
    return correlation(g)[:, 0, 1:]


# ---- depth scales, from rates of decay ----------------------------------------------------------------


def decay_rate(means: FloatArray) -> FloatArray:
    """The log decay per layer from the first to the last, (1,)."""
    return np.atleast_1d(np.log(np.abs(means[-1] / means[0])) / (len(means) - 1))


def length_gap(g: FloatArray) -> FloatArray:
    """q_aa − q_bb of the first two inputs."""
    return g[..., 0, 0] - g[..., 1, 1]


def correlation_gap(g: FloatArray) -> FloatArray:
    """c_01 − c_02: how far two pairs of inputs still differ, (…,) from (…, input, input)."""
    c = correlation(g)
    return np.asarray(c[..., 0, 1] - c[..., 0, 2])


def _decay(gap: Gap, rate: Rate) -> tuple[Predict, Predict, Measure]:
    """(predict, remainder, measure) of a gap's log decay per layer against a rate at the fixed point; the
    remainder is what finite distance from the fixed point leaves, by the recursion."""

    def predict(net: Network, x: FloatArray) -> FloatArray:
        return np.array([rate()])

    def remainder(net: Network, x: FloatArray) -> FloatArray:
        return np.abs(decay_rate(gap(propagate(net, x).q)) - rate())

    def measure(trace: Trace) -> FloatArray:
        return gap(observables.metric(trace))

    return predict, remainder, measure


def _rate_claim(
    name: str, statement: str, point: Point, inputs: Inputs, gap: Gap, rate: Rate, rival: str, rival_rate: Rate,
    mutants: tuple[Mutant, ...],
) -> Claim:  # fmt: skip
    predict, remainder, measure = _decay(gap, rate)
    return Claim(
        name=f"poole2016.{name}",
        source=f"{SOURCE}, §2; Schoenholz et al. 2017, eqs. 7 and 9",
        statement=statement,
        mark="limit",
        networks=tanh_networks(point, 5),
        widths=WIDTHS,
        inputs=inputs,
        predict=predict,
        remainder=remainder,
        measure=measure,
        combine=decay_rate,
        test="ladder",
        margin=0.05,
        margin_reason="less than a fifth of the distance to the rival's rate",
        labels=lambda net: ["rate"],
        rival=Rival(rival, lambda net, x: np.array([rival_rate()])),
        mutants=mutants,
    )


def _near_q(net: Network) -> FloatArray:
    """Two parallel inputs whose lengths straddle q* closely at the first layer."""
    sigma_w2, sigma_b2 = ORDERED
    lengths = np.sqrt((phase_of(ORDERED).q * np.array([1.1, 0.9]) - sigma_b2) / sigma_w2)
    return with_gram(np.outer(lengths, lengths), net.input_dim)


def _near_c(net: Network) -> FloatArray:
    """Three inputs of length q*, two of whose correlations straddle c*."""
    c = phase_of(CHAOTIC).c
    return at_fixed_point(CHAOTIC, [[1, c + 0.2, c - 0.2], [c + 0.2, 1, c], [c - 0.2, c, 1]])(net)


XI_Q = _rate_claim(
    "xi_q",
    "A difference in length decays by dQ/dq at q* a layer, so that ξ_q = −1/log|dQ/dq| (tanh).",
    ORDERED, _near_q, length_gap, lambda: float(np.log(phase_of(ORDERED).slope_q)),
    "at the rate χ_1 of correlations", lambda: float(np.log(phase_of(ORDERED).chi_1)),
    (Mutant("relu in place of tanh", mutations.activation("relu")),
     Mutant("linear in place of tanh", mutations.activation("linear"))),
)  # fmt: skip

XI_C = _rate_claim(
    "xi_c",
    "In the chaotic phase a difference in correlation decays by χ_c* a layer, so that ξ_c = −1/log χ_c* (tanh).",
    CHAOTIC, _near_c, correlation_gap, lambda: float(np.log(phase_of(CHAOTIC).chi_c)),
    "at the rate |dQ/dq| of lengths", lambda: float(np.log(abs(phase_of(CHAOTIC).slope_q))),
    (Mutant("relu in place of tanh", mutations.activation("relu")),
     Mutant("linear in place of tanh", mutations.activation("linear"))),
)  # fmt: skip

CLAIMS = (Q_MAP, C_MAP, Q_TRAJECTORY, C_TRAJECTORY, Q_FIXED_POINT, C_FIXED_POINT, XI_Q, XI_C)
