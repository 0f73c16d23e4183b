"""Hanin & Rolnick 2018, How to start training, on residual networks: blocks x + η N(x), when lengths stay bounded, and
with which constants, for modules that end in ReLU and for those that end in a linear map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mcverify.claims import blocks, mutations
from mcverify.claims.blocks import and_all, block_labels
from mcverify.claims.claim import Claim, FloatArray, Mutant, Networks, Rival
from mcverify.claims.poole2016 import INPUT_DIM, with_lengths
from mcverify.layers.activation import Activation
from mcverify.layers.dense import Dense
from mcverify.layers.residual import Residual
from mcverify.network import Network, resnet
from mcverify.simulation.trace import Trace
from mcverify.theory.residual_bounds import PowerScales, length_bounds

SOURCE = "Hanin & Rolnick 2018, arXiv:1803.01719"

_HE = 2.0
_ONES = np.ones((1, 1))
_GAIN = Mutant("σ_w² off by 20%", mutations.weight_gain(1.2))
_LINEAR = Mutant("linear modules", lambda net: _with_modules(net, "linear"))


def _rectified(scales: Sequence[float]) -> Networks:
    """width -> x + η ReLU(W x), from inputs that are all +1: absolute values of signs."""

    def network(width: int) -> Network:
        module = [Dense(width, width, _HE), Activation("relu")]
        start = [Dense(1, width, weights="rademacher"), Activation("leaky_relu(-1)")]
        return Network([*start, *(Residual(module, eta) for eta in scales)])

    return network


def _with_modules(net: Network, phi: str) -> Network:
    """Another φ in the modules, and the same inputs."""
    return Network([Residual([v.branch[0], Activation(phi)], v.scale) if isinstance(v, Residual) else v
                    for v in net.layers])  # fmt: skip


def _start(net: Network, phi: str) -> Network:
    """Another φ above the first map."""
    first, _, *modules = net.layers
    return Network([first, Activation(phi), *modules])


def _etas(net: Network) -> FloatArray:
    return np.array([v.scale for v in net.layers if isinstance(v, Residual)])


# ---- one module, exact at every width -----------------------------------------------------------------


def _one_module(trace: Trace) -> FloatArray:
    """M′ over M(1 + η²) + 2η x̄ √(M/π), (replicate, block): mean one exactly."""
    host, out = trace.plan.engine.kernels.host, []
    for eta, record in zip(_etas(trace.plan.net), trace.maps[1:], strict=True):
        x, y = (np.asarray(host(v), np.float64)[:, 0] for v in (record.x, record.y))
        m = (x**2).mean(axis=1)
        mean = m * (1 + eta**2) + 2 * eta * x.mean(axis=1) * np.sqrt(m / math.pi)
        out.append((y**2).mean(axis=1) / mean)
    return np.stack(out, axis=1)


def _without_cross_term(net: Network, x: FloatArray) -> FloatArray:
    """What is left without x̄, at inputs that are all alike in the first block: x̄² = M."""
    eta = _etas(net)
    return np.asarray((1 + eta**2) / (1 + eta**2 + 2 * eta / math.sqrt(math.pi)))


ONE_MODULE = Claim(
    name="hanin_rolnick2018.residual_one_module",
    source=f"{SOURCE}, proof on residual networks",
    statement="A module ReLU(W x) of variance 2/n gives E[M′|x] = M (1 + η²) + 2η x̄ √(M/π), exactly, at width 16.",
    mark="exact",
    networks=_rectified([0.5, 0.3, 0.2]),
    widths=(16,),
    inputs=lambda net: _ONES,
    predict=lambda net, x: np.ones(3),
    measure=_one_module,
    test="mean",
    margin=0.01,
    margin_reason="a twentieth of what the product with the trunk adds, or less",
    labels=block_labels,
    rival=Rival("no product with the trunk", _without_cross_term),
    mutants=(_GAIN, _LINEAR),
    neighbours=(Mutant("inputs of both signs", lambda net: _start(net, "linear")),),
)


# ---- bounds, for inputs that are all +1 ---------------------------------------------------------------


def _growth(trace: Trace) -> FloatArray:
    """M_L/M_0, (replicate, 1): absolute values have the length of the signs."""
    m = blocks.lengths(trace)
    return np.asarray(m[:, -1] / m[:, 0])


_TEN = [0.1] * 10
_CONSTANT = "the constant in the bound by Σ η"

BOUND = Claim(
    name="hanin_rolnick2018.residual_bound",
    source=f"{SOURCE}, theorem on residual networks, with its constants",
    statement="With ten modules ReLU(W x) and η = 0.1, E M_L/M_0 is at most Π(1 + η² + 2η/√π) = 3.185.",
    mark="bound",
    networks=_rectified(_TEN),
    widths=(64,),
    inputs=lambda net: _ONES,
    predict=lambda net, x: np.array([length_bounds(_etas(net)).upper]),
    measure=_growth,
    test="mean",
    sample="hanin_rolnick2018.residual",
    one_sided=True,
    margin=0.01,
    margin_reason="a third of its distance from the value, 3.153 in the limit",
    labels=lambda net: ["M_L/M_0"],
    rival=Rival("the triangle inequality's Π(1 + η)²", lambda net, x: np.prod(1 + _etas(net), keepdims=True) ** 2),
    mutants=(_GAIN,),
    finding=_CONSTANT,
)

EXPONENTIAL_OF_THE_SUM = replace(
    BOUND,
    name="hanin_rolnick2018.residual_exponential_of_the_sum",
    source=f"{SOURCE}, theorem on residual networks, its constant read as one",
    statement="With ten modules ReLU(W x) and η = 0.1, E M_L/M_0 is at most exp(Σ η) = 2.718.",
    predict=lambda net, x: np.exp([_etas(net).sum()]),
    rival=Rival("the value in the limit", lambda net, x: _limit(net, 1.0)[-1:]),
    expected="refuted",
)


def _limit(net: Network, mean: float) -> FloatArray:
    """M_l/M_0 as width grows: M′ = M (1 + η²) + 2η x̄ √(M/π), x̄′ = x̄ + η √(M/π), from x̄_0 = mean √M_0, (block,)."""
    m, mu, out = 1.0, mean, []
    for eta in _etas(net):
        root = math.sqrt(m / math.pi)
        m, mu = m * (1 + eta**2) + 2 * eta * mu * root, mu + eta * root
        out.append(m)
    return np.array(out)


LOWER = replace(
    BOUND,
    name="hanin_rolnick2018.residual_lower_bound",
    statement="With ten modules ReLU(W x), η = 0.1 and inputs all +1, E M_L/M_0 is at least 1 + Σ η² + (2/√π) Σ η.",
    predict=lambda net, x: -np.array([length_bounds(_etas(net), ratio=1.0).lower]),
    measure=lambda t: -_growth(t),
    margin=0.1,
    margin_reason="a ninth of its distance from the value",
    labels=lambda net: ["−M_L/M_0"],
    rival=Rival(
        "1 + Σ η², as for modules that end in a linear map", lambda net, x: -1 - (_etas(net) ** 2).sum(keepdims=True)
    ),
    mutants=(Mutant("a quarter of σ_w²", mutations.weight_gain(0.25)),),
    knob=lambda size: mutations.weight_gain(1 / size),  # towards the bound
    finding="",
)

_SUMMABLE, _DIVERGENT = PowerScales(0.5, 1.5), PowerScales(0.5, 1.0)
_DEEP = 48

CONVERGENT = replace(
    BOUND,
    name="hanin_rolnick2018.residual_convergent_sum",
    statement="With η_l = l^{−3/2}/2, whose sum converges, E M_L/M_0 stays below 4.571 however many modules there are; "
    "48 of them do.",
    networks=_rectified(list(_SUMMABLE.first(_DEEP))),
    predict=lambda net, x: np.array([length_bounds(_SUMMABLE).upper]),
    sample="",
    margin=0.2,
    margin_reason="less than half its distance from the value",
    rival=Rival("η_l = 1/(2l), whose sum diverges", lambda net, x: _limit_of(_DIVERGENT)),
    finding="",
    mutants=(Mutant("σ_w² doubled", mutations.weight_gain(2.0)),),
)


def _limit_of(scales: PowerScales) -> FloatArray:
    return _limit(_rectified(list(scales.first(_DEEP)))(2), 1.0)[-1:]


DIVERGENT = replace(
    LOWER,
    name="hanin_rolnick2018.residual_divergent_sum",
    statement="With η_l = 1/(2l), whose sum diverges though that of its squares does not, 48 modules pass any bound by "
    "Σ η² alone: E M_L/M_0 is at least 1 + Σ η² + (2/√π) Σ η.",
    networks=_rectified(list(_DIVERGENT.first(_DEEP))),
    sample="",
    margin_reason="far below its distance from the value",
    rival=Rival("exp(Σ η²) over all l", lambda net, x: -np.exp([length_bounds(_DIVERGENT, "linear").criterion])),
)


# ---- modules that end in a linear map -----------------------------------------------------------------

_V2, _W2 = 1.5, 2.0
_KAPPA = _V2 * _W2 / 2  # E ‖V ReLU(W x)‖² = κ ‖x‖²

LINEAR_END = Claim(
    name="hanin_rolnick2018.residual_linear_end",
    source=f"{SOURCE}, theorem on residual networks, for modules whose last map is linear",
    statement="Modules V ReLU(W x) give E M_L/M_0 = Π(1 + κη²), κ = σ_v²σ_w²/2, exactly, at width 16 "
    "(η_l = l^{−1/2}/2).",
    mark="exact",
    networks=lambda width: resnet(
        INPUT_DIM, width, 6, "relu", _W2, sigma_v2=_V2, scale=list(PowerScales(0.5, 0.5).first(6))
    ),
    widths=(16,),
    inputs=with_lengths([[1.0]]),
    predict=lambda net, x: np.array(
        [*(1 + _KAPPA * _etas(net) ** 2), length_bounds(_etas(net), "linear", kappa=_KAPPA).upper]
    ),
    measure=lambda t: blocks.with_total(blocks.length_gain(t)),
    test="mean",
    relative=True,
    margin=0.02,
    margin_reason="two percent of a gain, a third of the least block's",
    labels=and_all(block_labels),
    rival=Rival(
        "1 + η² + 2η/√π, as for modules that end in ReLU",
        lambda net, x: np.array(
            [*(1 + _etas(net) ** 2 + 2 * _etas(net) / math.sqrt(math.pi)), length_bounds(_etas(net)).upper]
        ),
    ),
    mutants=(_GAIN, Mutant("identity activations", mutations.activation("linear"))),
)

CLAIMS = (
    ONE_MODULE, BOUND, EXPONENTIAL_OF_THE_SUM, LOWER, CONVERGENT, DIVERGENT, LINEAR_END,
)  # fmt: skip
