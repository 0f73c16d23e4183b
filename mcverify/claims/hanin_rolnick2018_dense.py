"""Hanin & Rolnick 2018, How to start training: the two failure modes of dense ReLU networks, and the exact laws behind
them at any width."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np

from mcverify.claims import generic, mutations, whole_law
from mcverify.claims.claim import Claim, FloatArray, Mutant, Predict, Rival
from mcverify.inputs import with_gram
from mcverify.network import Network, mlp
from mcverify.simulation import observables
from mcverify.simulation.trace import Trace
from mcverify.theory.length_law import LengthLaw, length_law
from mcverify.theory.length_moments import ratio_moments, variance_across_layers

SOURCE = "Hanin & Rolnick 2018, arXiv:1803.01719"
INPUT_DIM = 8
WIDTHS = (12, 16, 20, 24, 32, 40)  # of a ladder's narrowest layer


def one_input(net: Network) -> FloatArray:
    """One input with ‖x‖²/n_0 = 1, of entries of different size."""
    return with_gram([[1.0]], net.input_dim)


def lengths(trace: Trace) -> FloatArray:
    """M_1 … M_L of the one input, (replicate, L)."""
    return observables.length(trace)[:, :, 0]


def log_lengths(trace: Trace) -> FloatArray:
    """log M_1 … log M_L, −∞ where a layer is dead, (replicate, L)."""
    with np.errstate(divide="ignore"):
        return np.log(lengths(trace))


def ratios(trace: Trace) -> FloatArray:
    """R_l = M_l/M_{l−1}, (replicate, L)."""
    m = lengths(trace)
    return m / np.concatenate([np.ones_like(m[:, :1]), m[:, :-1]], axis=1)


def last_square(trace: Trace) -> FloatArray:
    """M_L², (replicate, 1)."""
    return lengths(trace)[:, -1:] ** 2


def inverse_widths(net: Network) -> float:
    """Σ 1/n over the layers."""
    return float(np.sum(1 / np.array(net.widths)))


def relu(shape: Callable[[int], list[int]], sigma_w2: float = 2.0) -> Callable[[int], Network]:
    """width → a ReLU network of these widths."""
    return lambda width: mlp(INPUT_DIM, shape(width), "relu", sigma_w2)


def tapered(width: int) -> list[int]:
    """Four layers of two widths in turn."""
    return [width, 2 * width, width, 2 * width]


def _product(of_width: Callable[[int], float]) -> Predict:
    return lambda net, x: np.array([np.prod([of_width(n) for n in net.widths])])


_GAIN = Mutant("σ_w² off by 5%", mutations.weight_gain(1.05))
_ORTHOGONAL = Mutant("orthogonal weights", mutations.weights("orthogonal"))


# ---- failure mode 1: the mean -------------------------------------------------------------------------


def _powers(kappa: float) -> Predict:
    return lambda net, x: np.asarray(kappa ** np.arange(1.0, len(net.maps) + 1))


MEAN_LENGTH = Claim(
    name="hanin_rolnick2018.mean_length",
    source=f"{SOURCE}, Theorem 1: failure mode 1",
    statement="With variance κ · 2/fan-in the mean length of a ReLU network is κ^l at layer l, exactly (κ = 0.8).",
    mark="exact",
    networks=relu(tapered, 1.6),
    widths=(48,),
    inputs=one_input,
    predict=_powers(0.8),
    measure=lengths,
    test="mean",
    relative=True,
    margin=0.0125,
    margin_reason="a sixteenth of what a layer loses",
    labels=generic.layer_labels(1, 0),
    rival=Rival("the mean length is kept", lambda net, x: np.ones(len(net.maps))),
    mutants=(_GAIN, Mutant("variance by fan_out", mutations.fan_out_scaling)),
    neighbours=(Mutant("uniform weights", mutations.weights("uniform")),),
)


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
        mutants=(_GAIN,),
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
    rival=Rival("without a floor", _powers(1 / 6)),
    mutants=(Mutant("no bias", mutations.no_bias), Mutant("σ_w² off by 10%", mutations.weight_gain(1.1))),
)


# ---- failure mode 2: the variance ---------------------------------------------------------------------

SECOND_MOMENT = Claim(
    name="hanin_rolnick2018.second_moment",
    source=f"{SOURCE}, Theorem 5, with its constant worked out",
    statement="The second moment of a He-initialised ReLU network's length is Π(1 + 5/n_l), exactly.",
    mark="exact",
    networks=relu(tapered),
    widths=(48,),
    inputs=one_input,
    predict=_product(lambda n: 1 + 5 / n),
    measure=last_square,
    test="mean",
    relative=True,
    margin=0.03,
    margin_reason="a fifth of the distance to the linear network's",
    labels=lambda net: ["E M_L²"],
    rival=Rival("a linear network's, Π(1 + 2/n_l)", _product(lambda n: 1 + 2 / n)),
    mutants=(_GAIN, _ORTHOGONAL),
)

LEAKY_SECOND_MOMENT = replace(
    SECOND_MOMENT,
    name="hanin_rolnick2018.leaky_second_moment",
    statement="With leaky ReLU of slope 0.3 at criticality it is Π(1 + (6(1 + α⁴)/(1 + α²)² − 1)/n_l), exactly.",
    networks=lambda width: mlp(INPUT_DIM, tapered(width), "leaky_relu(0.3)", 2 / 1.09),
    widths=(32,),
    predict=_product(lambda n: 1 + (6 * (1 + 0.3**4) / 1.09**2 - 1) / n),
    margin_reason="two fifths of the distance to ReLU's",
    rival=Rival("ReLU's, Π(1 + 5/n_l)", _product(lambda n: 1 + 5 / n)),
    mutants=(_GAIN, _ORTHOGONAL),
)

ORTHOGONAL_SECOND_MOMENT = replace(
    SECOND_MOMENT,
    name="hanin_rolnick2018.orthogonal_second_moment",
    statement="With Haar orthogonal weights of gain √2 it is Π(1 + 3/(n + 2)), exactly (ReLU).",
    networks=lambda width: mlp(width, [width] * 4, "relu", 2.0, weights="orthogonal"),
    widths=(32,),
    predict=_product(lambda n: 1 + 3 / (n + 2)),
    margin=0.02,
    margin_reason="a ninth of the distance to Gaussian weights'",
    rival=Rival("Gaussian weights', Π(1 + 5/n)", _product(lambda n: 1 + 5 / n)),
    mutants=(_GAIN, Mutant("Gaussian weights", mutations.weights("gaussian"))),
)


def _uniform_ratio(net: Network, x: FloatArray) -> FloatArray:
    return np.array([ratio_moments(x[0], net.widths[0], "relu", 2.0, net.random_map(0).law).second])


UNIFORM_STEP = Claim(
    name="hanin_rolnick2018.weight_kurtosis",
    source=f"{SOURCE}, Theorem 5, where the weights' fourth moment enters",
    statement="The second moment of one layer's ratio is 1 + (5 + 2(μ4 − 3) Σx⁴/(Σx²)²)/n, exactly (uniform weights, "
    "fan-in 2).",
    mark="exact",
    networks=lambda width: mlp(2, [width], "relu", 2.0, weights="uniform"),
    widths=(8,),
    inputs=one_input,
    predict=_uniform_ratio,
    measure=last_square,
    test="mean",
    relative=True,
    margin=0.02,
    margin_reason="a quarter of the distance to what Gaussian weights give",
    labels=lambda net: ["E R²"],
    rival=Rival("the weights' law is forgotten: 1 + 5/n", _product(lambda n: 1 + 5 / n)),
    mutants=(_GAIN, Mutant("Gaussian weights", mutations.weights("gaussian"))),
)


def _layers_and_pairs(trace: Trace) -> FloatArray:
    """R_l² for every layer, then R_l² R_{l+1}² for every two, (replicate, 2L − 1)."""
    r = ratios(trace) ** 2
    return np.concatenate([r, r[:, 1:] * r[:, :-1]], axis=1)


def _layers_and_pairs_of(c: float) -> Predict:
    def predict(net: Network, x: FloatArray) -> FloatArray:
        p = 1 + c / np.array(net.widths)
        return np.concatenate([p, p[1:] * p[:-1]])

    return predict


GROWTH = Claim(
    name="hanin_rolnick2018.growth",
    source=f"{SOURCE}, Theorem 5: failure mode 2",
    statement="Second moments grow by 1 + 5/n_l in every layer, whatever the layers below did: exponentially in "
    "Σ 1/n_l (ReLU, 6 layers).",
    mark="exact",
    networks=relu(lambda width: [width, 2 * width] * 3),
    widths=(48,),
    inputs=one_input,
    predict=_layers_and_pairs_of(5.0),
    measure=_layers_and_pairs,
    test="mean",
    relative=True,
    margin=0.025,
    margin_reason="in factors of one and two layers, which are light-tailed: less than a third of the distance to a "
    "linear network's over two",
    labels=lambda net: [
        *generic.layer_labels(1, 0)(net), *(f"layers {l} and {l + 1}" for l in range(1, len(net.maps)))
    ],
    rival=Rival("a linear network's, 1 + 2/n_l", _layers_and_pairs_of(2.0)),
    mutants=(_GAIN, _ORTHOGONAL),
)  # fmt: skip

ACROSS_LAYERS = Claim(
    name="hanin_rolnick2018.variance_across_layers",
    source=f"{SOURCE}, Corollary 6, with its constants worked out",
    statement="The variance of the lengths of one network's layers has mean (1/d)Σ P_j − (1/d²)Σ P_j (1 + 2(d − j)), "
    "P_j = Π_{i≤j}(1 + 5/n_i), exactly (ReLU).",
    mark="exact",
    networks=relu(tapered),
    widths=(48,),
    inputs=one_input,
    predict=lambda net, x: np.array([variance_across_layers(net)]),
    measure=lambda trace: lengths(trace).var(axis=1, keepdims=True),
    test="mean",
    relative=True,
    margin=0.05,
    margin_reason="a tenth of the distance to layers that vary independently",
    labels=lambda net: ["variance across layers"],
    rival=Rival(
        "layers' lengths vary independently",
        lambda net, x: np.array([np.mean(np.cumprod(1 + 5 / np.array(net.widths)) - 1) * (1 - 1 / len(net.maps))]),
    ),
    mutants=(_ORTHOGONAL, Mutant("σ_w² off by 10%", mutations.weight_gain(1.1))),
)


# ---- Σ 1/n: to first order, and beyond it -------------------------------------------------------------


def _excess_over_first_order(trace: Trace) -> FloatArray:
    return (last_square(trace) - 1) / (5 * inverse_widths(trace.plan.net))


FIRST_ORDER = Claim(
    name="hanin_rolnick2018.first_order",
    source=f"{SOURCE}, Theorem 5",
    statement="To first order in 1/width the variance of M_L is 5 Σ 1/n_l, however that sum is shared by the layers "
    "(ReLU, one layer four times the other).",
    mark="first order",
    networks=relu(lambda width: [width, 4 * width]),
    widths=WIDTHS,
    inputs=one_input,
    predict=lambda net, x: np.ones(1),
    measure=_excess_over_first_order,
    test="ladder",
    order=1,  # a polynomial of degree 1 in 1/width
    growth=0.1,
    margin=0.15,
    margin_reason="a quarter of the distance to a linear network's coefficient 2",
    labels=lambda net: ["variance over 5 Σ 1/n"],
    rival=Rival("a linear network's 2 Σ 1/n_l", lambda net, x: np.array([0.4])),
    mutants=(Mutant("σ_w² off by 5%", mutations.weight_gain(1.05)), _ORTHOGONAL),
)  # fmt: skip


BEYOND_FIRST_ORDER = replace(
    SECOND_MOMENT,
    name="hanin_rolnick2018.beyond_first_order",
    source=f"{SOURCE}, Theorem 5: 'the sum of the reciprocals of layer widths', read as the whole of it",
    statement="Beyond first order the widths' shape counts, −(25/2) Σ 1/n² in the logarithm: layers of 8 and 24 "
    "units have a second moment of 1.964, three equal ones of the same Σ 1/n one of 2.06.",
    networks=relu(lambda width: [width, 3 * width]),
    widths=(8,),
    margin=0.015,
    margin_reason="a third of the distance to equal layers",
    rival=Rival("equal layers of the same Σ 1/n", lambda net, x: np.array([(1 + 5 * inverse_widths(net) / 3) ** 3])),
    mutants=(_GAIN, _ORTHOGONAL),
)

_SHALLOW, _NARROW = 4, 32  # layers and their width, whose Σ 1/n the bounds are at

BOUNDS = Claim(
    name="hanin_rolnick2018.bounds",
    source=f"{SOURCE}, Theorem 5: exponential in Σ 1/n from both sides",
    statement="exp(½ Σ 1/n_l) ≤ E M_L² ≤ exp(5 Σ 1/n_l) (ReLU).",
    mark="bound",
    networks=relu(lambda width: [width] * _SHALLOW),
    widths=(_NARROW,),
    inputs=one_input,
    predict=lambda net, x: np.zeros(2),
    measure=last_square,
    combine=lambda means: np.log(means[0]) * np.array([1.0, -1.0]) + np.array([-5.0, 0.5]) * _SHALLOW / _NARROW,
    test="mean",
    one_sided=True,
    margin=0.02,
    margin_reason="half of the distance to the nearer bound",
    labels=lambda net: ["above the upper bound", "below the lower bound"],
    rival=Rival("lengths do not vary", lambda net, x: np.array([-5.0, 0.5]) * inverse_widths(net)),
    mutants=(
        Mutant("σ_w² off by 10%", mutations.weight_gain(1.1)),
        Mutant("σ_w² short by 20%", mutations.weight_gain(0.8)),
    ),
)


# ---- the whole law ------------------------------------------------------------------------------------


@cache
def _last_length(net: Network) -> LengthLaw:
    return length_law(net)


def _log_last(trace: Trace) -> FloatArray:
    return log_lengths(trace)[:, -1]


LAW = Claim(
    name="hanin_rolnick2018.whole_law",
    source=f"{SOURCE}, proof of Theorem 5; the law is theirs, its distribution function is not in print",
    statement="M_L is a product of independent (2/n_l) χ²_K, K ~ Bin(n_l, ½): the whole law, dead layers included, in "
    "12 layers of 5 to 9 units (ReLU).",
    mark="law",
    networks=relu(lambda width: [width, width + 2, width + 4] * 4),
    widths=(5,),
    inputs=one_input,
    predict=whole_law.expected(_last_length),
    measure=whole_law.follows(_last_length, _log_last),
    test="mean",
    margin=whole_law.MARGIN,
    margin_reason=whole_law.MARGIN_REASON,
    labels=whole_law.labels,
    rival=Rival(
        "log-normal, N(−β/2, β) with β = 5 Σ 1/n",
        whole_law.log_normal(
            _last_length, lambda net: -2.5 * inverse_widths(net), lambda net: 5 * inverse_widths(net)
        ),
    ),
    mutants=(_GAIN, _ORTHOGONAL, Mutant("uniform weights", mutations.weights("uniform"))),
)  # fmt: skip

LEAKY_LAW = replace(
    LAW,
    name="hanin_rolnick2018.leaky_law",
    statement="With leaky ReLU of slope 0.3 the factors are 2(χ²_K + α² χ²_{n−K})/((1 + α²)n): the whole law, in 12 "
    "layers of 5 to 9 units.",
    networks=lambda width: mlp(INPUT_DIM, [width, width + 2, width + 4] * 4, "leaky_relu(0.3)", 2 / 1.09),
)

ORTHOGONAL_LAW = replace(
    LAW,
    name="hanin_rolnick2018.orthogonal_law",
    statement="With Haar orthogonal weights of gain √2 the factors are 2 Beta(K/2, (n − K)/2): the whole law, in 8 "
    "layers of 12 units (ReLU).",
    networks=lambda width: mlp(width, [width] * 8, "relu", 2.0, weights="orthogonal"),
    widths=(12,),
    rival=Rival(
        "log-normal, N(−β/2, β) with β = 3 Σ 1/(n + 2)",
        whole_law.log_normal(_last_length, lambda net: -1.5 * 8 / 14, lambda net: 3 * 8 / 14),
    ),
    mutants=(_GAIN, Mutant("Gaussian weights", mutations.weights("gaussian"))),
)


def standardised(y: FloatArray, beta: float) -> FloatArray:
    """z and z²/2 of z = (y + β/2)/√β, (replicate, 2); half, so that one margin suits both."""
    z = (y + beta / 2) / np.sqrt(beta)
    return np.stack([z, z**2 / 2], axis=1)


def second_order(law: LengthLaw, beta: float) -> FloatArray:
    """How far the means of `standardised` are from 0 and ½ under the exact law of y, (2,)."""
    mean, variance = (law.log_mean + beta / 2) / np.sqrt(beta), law.log_var / beta
    return np.abs([mean, (variance + mean**2 - 1) / 2])


def _beta(net: Network) -> float:
    return 5 * inverse_widths(net)


LOG_MOMENTS = Claim(
    name="hanin_rolnick2018.log_moments",
    source=f"{SOURCE}, proof of Theorem 5; Hanin & Nica 2020, arXiv:1812.05994, Theorem 1, for lengths",
    statement="log M_L has mean −β/2 and variance β = 5 Σ 1/n_l to first order in 1/width (ReLU, widths 96 and 192).",
    mark="first order",
    networks=relu(lambda width: [width, 2 * width]),
    widths=(96,),
    inputs=one_input,
    predict=lambda net, x: np.array([0.0, 0.5]),
    measure=lambda trace: standardised(_log_last(trace), _beta(trace.plan.net)),
    test="mean",
    remainder=lambda net, x: second_order(_last_length(net), _beta(net)),
    margin=0.05,
    margin_reason="in standard deviations: a third of the distance to the rival; the remainder is the second order's",
    labels=lambda net: ["mean", "half the variance"],
    rival=Rival("the logarithm of the mean, 0, is the mean of the logarithm",
                lambda net, x: np.array([np.sqrt(_beta(net)) / 2, 0.5 + _beta(net) / 8])),
    mutants=(_GAIN, _ORTHOGONAL),
)  # fmt: skip

CLAIMS = (
    MEAN_LENGTH, *INITIALISERS, PYTORCH, SECOND_MOMENT, LEAKY_SECOND_MOMENT, ORTHOGONAL_SECOND_MOMENT, UNIFORM_STEP,
    GROWTH, ACROSS_LAYERS, FIRST_ORDER, BEYOND_FIRST_ORDER, BOUNDS, LAW, LEAKY_LAW, ORTHOGONAL_LAW, LOG_MOMENTS,
)  # fmt: skip
