"""Hanin 2018, Which neural net architectures give rise to exploding and vanishing gradients: the law of the Jacobian of
a ReLU network, of its norms and of its entries, at any width; with Hanin & Nica 2020 on the logarithm."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
from scipy.stats import binom

from mcverify.claims import mutations, whole_law
from mcverify.claims.claim import Claim, FloatArray, Mutant, Rival
from mcverify.claims.hanin_rolnick2018_dense.lengths import one_input
from mcverify.claims.hanin_rolnick2018_dense.logarithm import second_order, standardised
from mcverify.network import Network, mlp
from mcverify.simulation.trace import Trace, trace
from mcverify.theory.length_law import LengthLaw, entry_law, gradient_law, tangent_law
from mcverify.theory.length_moments import entry_moments

SOURCE = "Hanin 2018, arXiv:1801.03744"
NICA = "Hanin & Nica 2020, arXiv:1812.05994"
FAN_IN = 4  # of Rademacher weights, whose sums are then 0 with probability 6/16

_COTANGENT = np.array([[1.0, 1.0]])  # one input, two outputs
_GAIN = Mutant("σ_w² off by 5%", mutations.weight_gain(1.05))
_rademacher = mutations.weights("rademacher")
_UNIFORM = Mutant("uniform weights", mutations.weights("uniform"))


def _narrow(width: int) -> Network:
    """Nine hidden layers of width, width + 2 and width + 4 in turn, with a linear output of two units."""
    return mlp(6, [width, width + 2, width + 4] * 3, "relu", 2.0, readout=2)


# ---- norms --------------------------------------------------------------------------------------------


def _log(squares: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore"):
        return np.log(squares)


def _log_pulled_back(trace: Trace) -> FloatArray:
    """log ‖Jᵀu‖²/‖u‖² for the trace's u, (replicate,)."""
    squares, first, top = trace.plan.engine.kernels.squares, trace.gx, trace.maps[-1].gy
    assert first is not None
    assert top is not None
    return _log(squares(first[:, 0])[:, 0] / squares(top[:, 0])[:, 0])


def _log_pushed(t: Trace) -> FloatArray:
    """log ‖J u‖²/‖u‖² for a random direction of its own, (replicate,): the same weights, with a tangent."""
    again = trace(replace(t.plan, tangents=1), t.site.start, t.site.count)
    squares, first, last = again.plan.engine.kernels.squares, again.tape[0].dx, again.maps[-1].dy
    assert first is not None
    assert last is not None
    return _log(squares(last[:, 0])[:, 0] / squares(first[:, 0])[:, 0])


@cache
def _gradient(net: Network) -> LengthLaw:
    return gradient_law(net)


@cache
def _tangent(net: Network) -> LengthLaw:
    return tangent_law(net)


@cache
def _entry(net: Network) -> LengthLaw:
    return entry_law(net)


def _hidden(net: Network) -> float:
    """5 Σ 1/n_j over hidden layers."""
    return float(np.sum(5 / np.array(net.widths[:-1])))


GRADIENT_LAW = Claim(
    name="hanin2018.gradient_law",
    source=f"{SOURCE}, Theorem 1 and its proof; {NICA}, §2",
    statement="For fixed u ‖Jᵀu‖² is a product of independent (2/n_j) χ²_K over hidden layers and of (2/n_0) χ²_{n_0}: "
    "the whole law, dead layers included, in nine layers of 5 to 9 units (ReLU).",
    mark="law",
    networks=_narrow,
    widths=(5,),
    inputs=one_input,
    cotangent=_COTANGENT,
    predict=whole_law.expected(_gradient),
    measure=whole_law.follows(_gradient, _log_pulled_back),
    test="mean",
    margin=whole_law.MARGIN,
    margin_reason=whole_law.MARGIN_REASON,
    labels=whole_law.labels,
    rival=Rival(
        "the input layer has a mask as well",
        lambda net, x: _mean_of_smooth(_gradient(net), gradient_law(_masked_input(net), layer=1)),
    ),
    mutants=(_GAIN, Mutant("orthogonal weights", mutations.weights("orthogonal"))),
)  # fmt: skip


def _masked_input(net: Network) -> Network:
    """The network with a layer of n_0 hidden units below it, whose gradients meet a mask there."""
    widths = net.widths[:-1]
    return mlp(net.input_dim, [net.input_dim, *widths], "relu", 2.0, readout=net.widths[-1])


def _mean_of_smooth(law: LengthLaw, other: LengthLaw) -> FloatArray:
    """What another law gives for the components of `whole_law.smooth`, by its quantiles at 2,000 midpoints."""
    p = other.dead + (1 - other.dead) * (np.arange(2000) + 0.5) / 2000
    alive = whole_law.smooth(law, other.ppf_log(p)).mean(axis=0) * (1 - other.dead)
    return np.asarray(alive + np.array([other.dead, *[0.0] * (len(alive) - 1)]))


TANGENT_LAW = replace(
    GRADIENT_LAW,
    name="hanin2018.tangent_law",
    statement="For fixed u ‖J u‖² is a product of independent (2/n_j) χ²_K over hidden layers and of the output's χ²: "
    "the whole law, in nine layers of 5 to 9 units (ReLU).",
    cotangent="independent",
    predict=whole_law.expected(_tangent),
    measure=whole_law.follows(_tangent, _log_pushed),
    rival=Rival(
        "log-normal, N(log E − β/2, β) with β = 5 Σ 1/n_j + 2/n_d",
        whole_law.log_normal(
            _tangent,
            lambda net: np.log(2 * net.widths[-1] / net.input_dim) - (_hidden(net) + 2 / net.widths[-1]) / 2,
            lambda net: _hidden(net) + 2 / net.widths[-1],
        ),
    ),
    mutants=(_GAIN, _UNIFORM, Mutant("orthogonal weights", mutations.weights("orthogonal"))),
)


def _beta(net: Network) -> float:
    return _hidden(net) + 2 / net.input_dim


def _without_the_input(net: Network, x: FloatArray) -> FloatArray:
    """What variance 5 Σ 1/n_j and half of it as mean give, in units of the whole β."""
    whole, hidden = _beta(net), _hidden(net)
    mean = (whole - hidden) / 2 / np.sqrt(whole)
    return np.array([mean, (hidden / whole + mean**2) / 2])


LOG_MOMENTS = Claim(
    name="hanin2018.log_moments",
    source=f"{NICA}, Theorem 1",
    statement="log ‖Jᵀu‖²/2 has mean −β/2 and variance β to first order in 1/width, β = 5 Σ 1/n_j + 2/n_0 with the "
    "input layer's own term (ReLU, layers of 96 and 192).",
    mark="first order",
    networks=lambda width: mlp(width // 2, [width, 2 * width], "relu", 2.0, readout=1),
    widths=(96,),
    inputs=one_input,
    cotangent=np.array([[1.0]]),
    predict=lambda net, x: np.array([0.0, 0.5]),
    measure=lambda trace: standardised(_log_pulled_back(trace) - np.log(2), _beta(trace.plan.net)),
    test="mean",
    remainder=lambda net, x: second_order(_halved(net), _beta(net)),
    margin=0.05,
    margin_reason="in standard deviations: a third of the distance to the rival; the remainder is the second order's",
    labels=lambda net: ["mean", "half the variance"],
    rival=Rival("without the input layer's term", _without_the_input),
    mutants=(_GAIN, Mutant("orthogonal weights", mutations.weights("orthogonal"))),
)


def _halved(net: Network) -> LengthLaw:
    """The law of ‖Jᵀu‖²/2."""
    law = _gradient(net)
    return replace(law, log_scale=law.log_scale - np.log(2))


# ---- entries ------------------------------------------------------------------------------------------


def _entries(trace: Trace) -> FloatArray:
    """Z_pq of the one output p, (replicate, n_0)."""
    kernels, gx = trace.plan.engine.kernels, trace.gx
    assert gx is not None
    return kernels.host(gx)[:, 0, 0].astype(np.float64)


def _even_moments(trace: Trace) -> FloatArray:
    """The means over q of Z², Z⁴, Z⁶, over their Gaussian limits 1, 3, 15 times (2/n_0)^k, (replicate, 3)."""
    z = _entries(trace) ** 2 * (trace.plan.net.input_dim / 2)
    return np.stack([(z**k).mean(axis=1) / c for k, c in ((1, 1), (2, 3), (3, 15))], axis=1)


def _over_gaussian(net: Network, moments: tuple[float, float, float]) -> FloatArray:
    unit = 2 / net.input_dim
    return np.array([m / (c * unit**k) for m, k, c in zip(moments, (1, 2, 3), (1, 3, 15), strict=True)])


def _gaussian_moments(net: Network, x: FloatArray) -> FloatArray:
    """1, Π(1 + 5/n_j), Π(1 + 15/n_j + 44/n_j²) over hidden layers."""
    n = np.array(net.widths[:-1])
    return np.array([1.0, np.prod(1 + 5 / n), np.prod(1 + 15 / n + 44 / n**2)])


ENTRIES = Claim(
    name="hanin2018.entry_moments",
    source=f"{SOURCE}, Theorem 1, with its constants worked out",
    statement="A Jacobian's entries have E Z² = 2/n_0, E Z⁴ = 3(2/n_0)² Π(1 + 5/n_j), E Z⁶ = 15(2/n_0)³ Π(1 + 15/n_j + "
    "44/n_j²) over hidden layers, exactly (ReLU).",
    mark="exact",
    networks=lambda width: mlp(16, [width, 2 * width], "relu", 2.0, readout=1),
    widths=(40,),
    inputs=one_input,
    cotangent=np.array([[1.0]]),
    predict=_gaussian_moments,
    measure=_even_moments,
    test="mean",
    relative=True,
    margin=0.04,
    margin_reason="a fifth of the distance to entries of variance 2/n_0 that are Gaussian",
    labels=lambda net: ["E Z²", "E Z⁴", "E Z⁶"],
    rival=Rival("Gaussian entries", lambda net, x: np.ones(3)),
    mutants=(_GAIN, Mutant("linear activations", mutations.activation("linear"))),
)

UNIFORM_ENTRIES = replace(
    ENTRIES,
    name="hanin2018.uniform_entry_moments",
    statement="Uniform weights change a Jacobian's fourth and sixth moments by their kurtosis alone, exactly as path "
    "sums say (ReLU, 4 and 8 units).",
    networks=lambda width: mlp(16, [width, 2 * width], "relu", 2.0, weights="uniform", readout=1),
    widths=(4,),
    predict=lambda net, x: _over_gaussian(net, entry_moments(net)),
    margin=0.06,
    margin_reason="a third of the distance to Gaussian weights' moments or less",
    rival=Rival("Gaussian weights' moments", _gaussian_moments),
    mutants=(_GAIN, Mutant("Gaussian weights", mutations.weights("gaussian"))),
)

ENTRY_LAW = replace(
    GRADIENT_LAW,
    name="hanin2018.entry_law",
    statement="A single entry of the Jacobian is √(product of (2/n_j) χ²_K over hidden layers) times N(0, 2/n_0): the "
    "whole law of Z², in nine layers of 5 to 9 units (ReLU).",
    networks=lambda width: mlp(6, [width, width + 2, width + 4] * 3, "relu", 2.0, readout=1),
    cotangent=np.array([[1.0]]),
    predict=whole_law.expected(_entry),
    measure=whole_law.follows(_entry, lambda trace: _log(_entries(trace)[:, 0] ** 2)),
    rival=Rival(
        "a Gaussian entry: Z² is (2/n_0) χ²_1", lambda net, x: _mean_of_smooth(_entry(net), _gaussian_entry(net))
    ),
    mutants=(_GAIN, Mutant("linear activations", mutations.activation("linear"))),
)


def _gaussian_entry(net: Network) -> LengthLaw:
    """An entry of the network without hidden layers."""
    return entry_law(mlp(net.input_dim, [1], "linear", 2.0))


BOUNDS = Claim(
    name="hanin2018.bounds",
    source=f"{SOURCE}, Theorem 1",
    statement="exp(½ Σ 1/n_j) ≤ E Z⁴/(3(E Z²)²) ≤ exp(6 μ4 Σ 1/n_j) over hidden layers (ReLU, μ4 = 3).",
    mark="bound",
    networks=ENTRIES.networks,
    widths=(40,),
    inputs=one_input,
    cotangent=np.array([[1.0]]),
    predict=lambda net, x: np.zeros(2),
    measure=lambda trace: _even_moments(trace)[:, :2],
    combine=lambda means: np.array([-18.0, 0.5]) * 1.5 / 40 + np.array([1, -1]) * np.log(means[1] / means[0] ** 2),
    test="mean",
    one_sided=True,
    margin=0.009,
    margin_reason="less than half of what the lower bound adds",
    labels=lambda net: ["above the upper bound", "below the lower bound"],
    rival=Rival("Gaussian entries", lambda net, x: np.array([-0.675, 0.01875])),
    knob=None,  # a ratio of moments: no gain moves it
    mutants=(Mutant("Rademacher weights, linear", lambda net: _rademacher(mutations.activation("linear")(net))),),
)


# ---- weights with atoms -------------------------------------------------------------------------------

_ON = (1 - binom.pmf(FAN_IN // 2, FAN_IN, 0.5)) / 2  # P(h > 0) of a sum of four signs


def _rademacher_moments(net: Network, x: FloatArray, on: float) -> FloatArray:
    """Z = Σ_i v_i ξ_i w_i, i = 1 … n, with coins of probability `on` and signs v_i w_i of equal size: E Z^{2k} over the
    Gaussian limits, by E over the number K of coins, of which Z is a walk of K steps."""
    n = net.widths[0]
    k = np.arange(n + 1)
    p = binom.pmf(k, n, on)
    step = 2 / n  # (v_i w_i)² in units of 2/n_0
    walk = np.array([k, 3 * k**2 - 2 * k, 15 * k**3 - 30 * k**2 + 16 * k])
    return np.asarray((walk @ p) * step ** np.array([1, 2, 3]) / np.array([1, 3, 15]))


RADEMACHER = replace(
    ENTRIES,
    name="hanin2018.rademacher_as_published",
    source=f"{SOURCE}, Theorem 1, whose weights have no atoms; without that condition",
    statement="With Rademacher weights too every unit is on with probability ½: E Z² = 2/n_0 (ReLU, fan-in 4).",
    networks=lambda width: mlp(FAN_IN, [width], "relu", 2.0, weights="rademacher", readout=1),
    widths=(32,),
    inputs=lambda net: np.ones((1, net.input_dim)),
    predict=lambda net, x: _rademacher_moments(net, x, 0.5),
    margin=0.05,
    margin_reason="a seventh of the distance to units that are on with probability 5/16",
    rival=Rival("units are on with probability 5/16", lambda net, x: _rademacher_moments(net, x, _ON)),
    mutants=(Mutant("σ_w² up by half", mutations.weight_gain(1.5)),),
    expected="refuted",
    finding="what weights with atoms do to a Jacobian",
)

RADEMACHER_ATOMS = replace(
    RADEMACHER,
    name="hanin2018.rademacher_atoms",
    source=f"{SOURCE}, Theorem 1, mended for weights with atoms",
    statement="At fan-in 4 a sum of signs is 0 with probability 0.375, where ReLU's slope is 0: units are on with "
    "probability 5/16, and E Z² = 0.625 · 2/n_0, exactly.",
    predict=lambda net, x: _rademacher_moments(net, x, _ON),
    margin=0.06,
    margin_reason="a tenth of the distance to fair coins",
    rival=Rival("fair coins", lambda net, x: _rademacher_moments(net, x, 0.5)),
    mutants=(_GAIN, Mutant("uniform weights", mutations.weights("uniform"))),
    expected="confirmed",
)

CLAIMS = (
    GRADIENT_LAW, TANGENT_LAW, LOG_MOMENTS, ENTRIES, UNIFORM_ENTRIES, ENTRY_LAW, BOUNDS, RADEMACHER, RADEMACHER_ATOMS,
)  # fmt: skip
