"""The claims that follow for any network: what `verify NET` checks of yours.

Three questions, each with its own kind of truth. Does the sampled map do what its definition says, one
layer at a time (exact at every width)? Does a typical network of your own widths follow the mean-field
limit within the margin, layer by layer? And does the limit hold as all widths grow together?
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mcverify.claims import measures, mutations
from mcverify.claims.claim import Claim, FloatArray, Inputs, Labels, Measure, Mutant, Predict, Test
from mcverify.claims.experiment import LEAST, cost
from mcverify.network import Network
from mcverify.theory.propagation import Prediction, propagate

LADDER = (1, 2, 3, 4, 6, 8, 12, 16)
Read = Callable[[Prediction], FloatArray]
_SOURCE = "the mean-field recursion (Poole et al. 2016; Schoenholz et al. 2017)"


def layer_labels(first: int, drop: int, each: str = "") -> Labels:
    """`layer l` for l = first … L − drop."""
    return lambda net: [f"layer {l}{each}" for l in range(first, len(net.maps) + 1 - drop)]


def _ones(labels: Labels) -> Predict:
    return lambda net, x: np.ones(len(labels(net)))


def step_labels(pairs: Callable[[int], Sequence[str]], inputs: int) -> Labels:
    """Labels of one-step residuals: the layer whose metric is compared."""
    return lambda net: [f"layer {l + 1}{p}" for l, _, _ in measures.one_step_layers(net) for p in pairs(inputs)]


def singles(inputs: int) -> list[str]:
    return [f", input {a + 1}" for a in range(inputs)]


def pairs(inputs: int) -> list[str]:
    return [f", inputs {a + 1} and {b + 1}" for a in range(inputs) for b in range(a + 1, inputs)]


def generic_claims(net: Network, x: FloatArray, margin: float, ladder_cost: float) -> list[Claim]:
    """Claims on this network with these inputs (input, n_0).

    margin: in per-layer gain. ladder_cost: weights that one claim's ladder may generate; widths beyond it
    are left out, and a ladder with fewer than five widths is not asked."""
    claims = [*_exact(net, x, margin), *_own_widths(net, x, margin)]
    factors = ladder_factors(net, ladder_cost)
    if len(factors) >= 5:
        claims += _ladders(net, x, margin, factors)
    return claims


def _fixed(value: FloatArray) -> Inputs:
    return lambda net: value


def _exact(net: Network, x: FloatArray, margin: float) -> list[Claim]:
    inputs = len(x)
    gaussian = all(net.dense(i).weights == "gaussian" for i in net.maps)
    gain = (Mutant("σ_w² off by three margins", mutations.weight_gain(1 + 3 * margin)),)

    def claim(name: str, statement: str, measure: Measure, labels: Labels, test: Test) -> Claim:
        return Claim(
            name=f"network.{name}", source=_SOURCE, statement=statement, mark="exact", networks=lambda _: net,
            widths=(max(net.widths),), inputs=_fixed(x), predict=_ones(labels), measure=measure, test=test,
            margin=margin, margin_reason="the per-layer gain asked for", labels=labels, rival=None, mutants=gain,
            survivors=not gaussian, sample="network.exact",
        )  # fmt: skip

    each = step_labels(singles, inputs)
    both = step_labels(pairs, inputs)

    def maps(net: Network) -> list[str]:
        return [f"layer {l}{a}" for l in range(1, len(net.maps) + 1) for a in singles(inputs)]

    out = [
        claim("map", "Each map's output has the length its weights' variance and biases give, given its input.",
              measures.map_step if gaussian else measures.map_gain, maps, "residual" if gaussian else "mean"),
    ]  # fmt: skip
    if gaussian and measures.one_step_layers(net):
        out.append(claim("one_step_q", "Given a layer's metric, the mean of the next layer's is Q of it.",
                         measures.one_step_variance, each, "residual"))  # fmt: skip
        if inputs > 1:
            statement = "Given a layer's metric, the mean of the next layer's cross terms is C of it."
            out.append(claim("one_step_c", statement, measures.one_step_covariance, both, "residual"))
    return out


def _predicted(read: Callable[[Prediction], FloatArray]) -> Predict:
    return lambda net, x: read(propagate(net, x))


def length_gains(p: Prediction) -> FloatArray:
    """log q^{l+1}/q^l, the mean over inputs, (L − 1,)."""
    q = np.diagonal(p.q, axis1=1, axis2=2)
    return np.asarray(np.log(q[1:] / q[:-1]).mean(axis=1))


def gradient_gains(p: Prediction) -> FloatArray:
    """log of the gradient norm's gain from layer l + 1 to l, the mean over inputs, (L − 1,)."""
    g = np.diagonal(p.grad_gram, axis1=1, axis2=2)
    return np.asarray(np.log(g[:-1] / g[1:]).mean(axis=1))


def correlations(p: Prediction) -> FloatArray:
    """The mean correlation between different inputs at layers 2 … L, (L − 1,)."""
    q = np.diagonal(p.q, axis1=1, axis2=2)
    c = p.q / np.sqrt(q[:, :, None] * q[:, None, :])
    a, b = np.triu_indices(q.shape[1], 1)
    return np.asarray(c[1:, a, b].mean(axis=1))


# What is followed layer by layer: (name, what it is, prediction, measurement, labels).
_FOLLOWED = (
    ("length", "the length's gain from layer to layer", length_gains, measures.log_length_gain, layer_labels(2, 0)),
    ("gradient", "the gradient norm's gain from layer to layer", gradient_gains, measures.log_gradient_gain,
     layer_labels(1, 1)),
    ("correlation", "the correlation between inputs", correlations, measures.correlation, layer_labels(2, 0)),
)  # fmt: skip


def _followed(x: FloatArray, net: Network) -> list[tuple[str, str, Read, Measure, Labels]]:
    deep, several = len(net.maps) > 1, len(x) > 1
    return [row for row in _FOLLOWED if deep and (several or row[0] != "correlation")]


def _followed_mutant(name: str, net: Network, margin: float) -> Mutant:
    """A wrong simulation that what is followed must show. Correlations may not move with σ_w² at all, so
    they get another activation."""
    if name != "correlation":
        return Mutant("σ_w² off by thirty margins", mutations.weight_gain(1 + 30 * margin))
    linear = all(phi is None or phi.name == "linear" for _, _, phi in net.gains())
    other = "relu" if linear else "linear"
    return Mutant(f"{other} activations", mutations.activation(other))


def _own_widths(net: Network, x: FloatArray, margin: float) -> list[Claim]:
    return [
        Claim(
            name=f"network.{name}", source=_SOURCE, mark="limit",
            statement=f"In a typical network of these widths {what} is within the margin of the limit's.",
            networks=lambda _: net, widths=(max(net.widths),), inputs=_fixed(x), predict=_predicted(read),
            measure=measure, test="within", survivors=True, sample="network.own",
            margin=margin, margin_reason="the per-layer gain asked for",
            labels=labels, rival=None, mutants=(_followed_mutant(name, net, margin),),
        )
        for name, what, read, measure, labels in _followed(x, net)
    ]  # fmt: skip


def ladder_factors(net: Network, budget: float) -> tuple[int, ...]:
    """By which factors a ladder may widen the network: what the budget pays for, and no narrower than the
    extrapolation's order allows. Corrections go like depth/width, so that a width of four times the depth
    leaves (1/4)³ to third order, which the intercept sees a hundred times smaller still."""
    least = max(32, 4 * len(net.maps)) / min(net.widths)
    return tuple(f for f in LADDER if f >= least and cost(net.scaled(f)) * LEAST <= budget)


def _ladders(net: Network, x: FloatArray, margin: float, factors: tuple[int, ...]) -> list[Claim]:
    return [
        Claim(
            name=f"network.limit.{name}", source=_SOURCE, mark="limit",
            statement=f"As all widths grow together, {what} tends to the limit's.",
            networks=net.scaled, widths=factors, inputs=_fixed(x), predict=_predicted(read), measure=measure,
            test="ladder", sample="network.limit", margin=4 * margin,
            margin_reason="four times the per-layer gain asked for: extrapolation costs precision",
            labels=labels, rival=None, mutants=(_followed_mutant(name, net, margin),),
        )
        for name, what, read, measure, labels in _followed(x, net)
    ]  # fmt: skip
