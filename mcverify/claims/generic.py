"""The claims that follow for any network: what `verify NET` checks of yours.

Three questions, each with its own kind of truth. Does the sampled map do what its definition says, one
layer at a time (exact at every width)? Does a typical network of your own widths follow the mean-field
limit within the margin, layer by layer? And does the limit hold as all widths grow together?
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np

from mcverify.batches import check_batches
from mcverify.claims import measures, mutations, wrong_norms
from mcverify.claims.claim import Claim, FloatArray, Labels, Measure, Mutant, Predict
from mcverify.claims.experiment import cost
from mcverify.claims.plan import LEAST
from mcverify.layers.activation import Activation
from mcverify.layers.residual import Residual
from mcverify.network import Network
from mcverify.simulation.trace import Trace
from mcverify.theory.propagation import Prediction, propagate

LADDER = (1, 2, 3, 4, 6, 8, 12, 16)
Read = Callable[[Prediction], FloatArray]
Predicted = Callable[[Network], Prediction]
_GAINS = {"network.length": "the length", "network.gradient": "the gradient norm"}
_SOURCE = "the mean-field recursion (Poole et al. 2016; Schoenholz et al. 2017)"


def layer_labels(first: int, drop: int) -> Labels:
    """`layer l` for l = first … L − drop."""
    return lambda net: [f"layer {l}" for l in range(first, len(net.maps) + 1 - drop)]


def step_labels(net: Network) -> list[str]:
    """The layers whose metric one-step claims compare."""
    return [f"layer {l + 1}" for l, _, _ in measures.one_step_layers(net)]


def each_input(labels: Labels, inputs: int) -> Labels:
    """`layer l, input a` for every label and input."""
    return lambda net: [f"{label}, input {a + 1}" for label in labels(net) for a in range(inputs)]


def each_pair(labels: Labels, inputs: int) -> Labels:
    """`layer l, inputs a and b` for every label and pair."""
    pairs = [(a, b) for a in range(1, inputs + 1) for b in range(a + 1, inputs + 1)]
    return lambda net: [f"{label}, inputs {a} and {b}" for label in labels(net) for a, b in pairs]


def generic_claims(
    net: Network, x: FloatArray, margin: float, ladder_cost: float, margin_in_all: float | None = None
) -> list[Claim]:
    """Claims on this network with these inputs (input, n_0).

    margin: in per-layer gain; margin_in_all: in the logarithm of the gain from the first layer to the last, about
    which nothing is claimed without it. ladder_cost: weights that one claim's ladder may generate; widths beyond it
    are left out, and a ladder with fewer than five widths is not asked. Nor is one for a network whose first
    map has other than Gaussian weights: it has no limit as the hidden widths grow at fixed n_0.
    Raises Unpredictable for a network that theory cannot treat, InputError where gradients have no standard error."""
    check_batches(net, x, errors=True)

    @cache  # all claims on a network read one prediction
    def predicted(net: Network) -> Prediction:
        return propagate(net, x)

    own = _own_widths(net, x, margin, predicted)
    if margin_in_all is not None:
        own += [_in_all(claim, margin_in_all) for claim in own if claim.name in _GAINS]
    claims = [*_exact(net, x, margin), *own]
    factors = ladder_factors(net, len(x), ladder_cost)
    if len(factors) >= 5 and not predicted(net).heuristic:
        claims += _ladders(net, x, margin, factors, predicted)
    return claims


def _constant(value: float, labels: Labels) -> Predict:
    return lambda net, x: np.full(len(labels(net)), value)


def _exact(net: Network, x: FloatArray, margin: float) -> list[Claim]:
    """One step at a time, the mean over inputs in each layer.

    Where weights are drawn anyway and maps alone are asked for, which costs little beside drawing them, the networks
    are those of the claims on the network's own widths."""
    steps = bool(measures.one_step_layers(net)) and all(net.random_map(i).law == "gaussian" for i in net.maps)
    shared = not steps and _draws_weights(net, len(x))

    def claim(name: str, statement: str, measure: Measure, labels: Labels, value: float) -> Claim:
        gain = Mutant("σ_w² off by three margins", mutations.weight_gain(1 + 3 * margin))
        return Claim(
            name=f"network.{name}", source=_SOURCE, statement=statement, mark="exact", networks=lambda _: net,
            widths=(max(net.widths),), inputs=lambda _: x, predict=_constant(value, labels),
            measure=measure, test="mean", margin=margin,
            margin_reason="the per-layer gain asked for", labels=labels, rival=None,
            sample="network.own" if shared else "network.exact", cotangent=None,
            mutants=(_another_activation(net) if value == 0.0 else gain,),
        )  # fmt: skip

    statement = "Each map's output has the length its weights' variance and biases give, given its input."
    out = [claim("map", statement, measures.mean_map_gain, layer_labels(1, 0), 1.0)]
    if steps:
        statement = "Given a layer's metric, the mean of the next layer's is Q of it."
        out.append(claim("one_step_q", statement, measures.one_step_gain, step_labels, 1.0))
        if len(x) > 1 and len(net.input_shape) == 1:
            statement = "Given a layer's metric, the mean of the next layer's cross terms is C of it."
            measure = measures.by_layer(measures.one_step_covariance)
            out.append(claim("one_step_c", statement, measure, step_labels, 0.0))
    return out


def _draws_weights(net: Network, inputs: int) -> bool:
    """Whether "auto" is the engine that draws weights."""
    return cost(net, inputs, "auto") == cost(net, inputs, "explicit")


def _reading(read: Read, predicted: Predicted) -> Predict:
    return lambda net, x: read(predicted(net))


def correlations(p: Prediction) -> FloatArray:
    """The mean correlation between different columns at layers 2 … L, (L − 1,), without those of a single column."""
    return p.correlations[1:][p.columns[1:] > 1]


def _correlation_labels(inputs: int) -> Labels:
    return lambda net: [f"layer {l}" for l, p in enumerate(net.positions, start=1) if l > 1 and inputs * p > 1]


def _followed(x: FloatArray, net: Network, predicted: Predicted) -> list[tuple[str, str, Read, Measure, Labels]]:
    """What is followed layer by layer: (name, what it is, prediction, measurement, labels)."""
    if len(net.maps) < 2:
        return []
    rows: list[tuple[str, str, Read, Measure, Labels]] = [
        ("length", "the length's gain from layer to layer", lambda p: p.length_gains, measures.log_length_gain,
         layer_labels(2, 0)),
        ("gradient", "the gradient norm's gain from layer to layer", lambda p: p.gradient_gains,
         measures.log_gradient_gain, layer_labels(1, 1)),
    ]  # fmt: skip
    labels = _correlation_labels(len(x))
    if labels(net):
        what = "the correlation between inputs" if len(net.input_shape) == 1 else "the correlation between positions"
        rows.append(("correlation", what, correlations, measures.correlations, labels))
    p = predicted(net)
    # Where theory gives zero or infinity (a zero input, φ′ = 0) there is no logarithm to follow.
    return [row for row in rows if np.isfinite(row[2](p)).all()]


def _followed_mutant(name: str, net: Network, margin: float) -> Mutant:
    """A wrong simulation that what is followed must show."""
    if name == "correlation" and wrong_norms.are_in(net):
        return _other_correlations(net, margin)
    if name == "correlation":
        return _another_activation(net)
    knob, of = _knob(net)
    return Mutant(f"{of} off by thirty margins", knob(1 + 30 * margin))


def _knob(net: Network) -> tuple[Callable[[float], mutations.Change], str]:
    """σ_w², but where it may move nothing, as a normalisation takes it away again."""
    normalised = wrong_norms.are_in(net)
    return (wrong_norms.square, "the normalised square") if normalised else (mutations.weight_gain, "σ_w²")


def _another_activation(net: Network) -> Mutant:
    """Correlations may not move with σ_w² at all, but they do with φ, and most with a jump."""
    every = [v for v, _ in net.every_layer if isinstance(v, Activation)]
    hidden = every[: len(every) - sum(isinstance(v, Activation) for v in net.layers[net.end :])]
    jumps = bool(hidden) and all(v.phi.jumps for v in hidden)
    other = "linear" if jumps else "sign"
    return Mutant(f"{other} activations", mutations.activation(other))


def _other_correlations(net: Network, margin: float) -> Mutant:
    """Beside a normalisation correlations may move with the activation, its size or its centring alone."""
    other = _another_activation(net)

    def change(net: Network) -> Network:
        assert other.network is not None
        return wrong_norms.uncentred(wrong_norms.square(1 + 30 * margin)(other.network(net)))

    return Mutant(f"{other.name}, the normalised square off by thirty margins, no mean subtracted", change)


def _own_widths(net: Network, x: FloatArray, margin: float, predicted: Predicted) -> list[Claim]:
    engine = "explicit" if _draws_weights(net, len(x)) else "auto"
    return [
        Claim(
            name=f"network.{name}", source=_SOURCE, mark="limit",
            statement=f"In a typical network of these widths {what} is within the margin of the limit's.",
            networks=lambda _: net, widths=(max(net.widths),), inputs=lambda _: x, predict=_reading(read, predicted),
            measure=measure, test="within", survivors=True, sample="network.own", engine=engine,
            margin=margin, margin_reason="the per-layer gain asked for",
            labels=labels, rival=None, mutants=(_followed_mutant(name, net, margin),),
            knob=_knob(net)[0], knob_of=_knob(net)[1],
        )
        for name, what, read, measure, labels in _followed(x, net, predicted)
    ]  # fmt: skip


def _in_all(claim: Claim, margin: float) -> Claim:
    """The claim on per-layer gains as one on their product, which many layers may take far though none shows it."""
    what = f"{_GAINS[claim.name]}'s gain from the first layer to the last"

    def predict(net: Network, x: FloatArray) -> FloatArray:
        return np.sum(claim.predict(net, x), keepdims=True)

    def measure(trace: Trace) -> FloatArray:
        return claim.measure(trace).sum(axis=1, keepdims=True)

    return replace(
        claim, name=f"{claim.name}_in_all", predict=predict, measure=measure, mutants=(_mutant_in_all(claim, margin),),
        statement=f"In a typical network of these widths the logarithm of {what} is within the margin of the limit's.",
        margin=margin, margin_reason="in the logarithm of the gain in all, as asked for",
        labels=lambda net: [f"layers 1 to {len(net.maps)}"],
    )  # fmt: skip


def _mutant_in_all(claim: Claim, margin: float) -> Mutant:
    """What moves the gain in all by some six margins: blocks that add too much, or one map that is too small, as a
    gain that all maps have may be none from the first to the last. The last one has no share in lengths, which are read
    by the claim's own variances from what is below it."""
    net = claim.networks(max(claim.widths))
    if any(isinstance(v, Residual) for v in net.layers):
        return Mutant("what blocks add off by twelve margins", mutations.branch_gain(1 + 12 * margin))
    if wrong_norms.are_in(net):
        return claim.mutants[0]
    at = -2 if claim.name == "network.length" else -1
    return Mutant("σ_w² of one map short by six margins", mutations.one_gain(at, math.exp(-6 * margin)))


def ladder_factors(net: Network, inputs: int, budget: float) -> tuple[int, ...]:
    """By which factors a ladder may widen the network: what the budget pays for, and no narrower than the
    extrapolation's order allows. Corrections go like depth/width, so that a width of four times the depth
    leaves (1/4)³ to third order, which the intercept sees a hundred times smaller still."""
    least = max(32, 4 * len(net.maps)) / min(net.widths)
    return tuple(f for f in LADDER if f >= least and cost(net.scaled(f), inputs, "auto") * LEAST <= budget)


def _ladders(
    net: Network, x: FloatArray, margin: float, factors: tuple[int, ...], predicted: Predicted
) -> list[Claim]:  # fmt: skip
    return [
        Claim(
            name=f"network.limit.{name}", source=_SOURCE, mark="limit",
            statement=f"As all widths grow together, {what} tends to the limit's.",
            networks=net.scaled, widths=factors, inputs=lambda _: x, predict=_reading(read, predicted), measure=measure,
            test="ladder", sample="network.limit", engine="auto", margin=4 * margin,
            margin_reason="four times the per-layer gain asked for: extrapolation costs precision",
            labels=labels, rival=None, mutants=(_followed_mutant(name, net, margin),),
            knob=_knob(net)[0], knob_of=_knob(net)[1],
        )
        for name, what, read, measure, labels in _followed(x, net, predicted)
    ]  # fmt: skip
