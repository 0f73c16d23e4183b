"""Figure 1c at initialisation: 6ξ_c against depth 1003, by the factor of one layer at each fixed point, and by how long
a difference in correlation survives in deep networks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mcverify.claims import mutations
from mcverify.claims.claim import Claim, FloatArray, Inputs, Measure, Mutant, Rival
from mcverify.claims.poole2016 import phase_of
from mcverify.claims.xiao2018_cnn.circles import (
    PAPERS_POINT,
    SOURCE,
    Point,
    blocks,
    displaced,
    homogeneous,
    networks,
    of_gram,
    starting_at,
)
from mcverify.layers.activation import Activation
from mcverify.network import Network, cnn
from mcverify.simulation.trace import Trace
from mcverify.theory.propagation import propagate

FIGURE_1C = (0.85, 0.90, 0.95, 1.05, 1.10, 1.15, 1.20, 1.25, 1.30, 1.35)  # σ_w² at σ_b² = 2e-5
TRAINED = (False, False, False, True, True, True, True, False, False, False)  # to the eye, in the figure
DEPTH_1C = 1003


def _points_1c() -> list[Point]:
    return [(s, PAPERS_POINT[1]) for s in FIGURE_1C]


def _unit_networks(width: int) -> Network:
    """One layer of σ_w² = 1 without biases: its pre-activations have the inputs' own covariance."""
    return cnn((3, 3), [width], "tanh")


def _shares(factors: FloatArray) -> FloatArray:
    """L/(L + 6ξ_c) from χ_c*, L = 1003: a half where L = 6ξ_c."""
    depths = DEPTH_1C * np.abs(np.log(factors)) / 6
    return np.asarray(depths / (1 + depths))


def _survival(trace: Trace) -> FloatArray:
    """σ_w² times the mean of φ′(u_α)φ′(u_α') over channels and pairs of positions, (replicate, point): what a layer
    leaves of a small difference in correlation."""
    kernels, above = trace.plan.engine.kernels, trace.tape[1].layer
    assert isinstance(above, Activation)
    slope = kernels.slope(above.phi, trace.maps[0].y)
    apart = slope.reshape(-1, 3, slope.shape[-1])
    pairs = displaced(kernels.gram(apart, apart), 1).mean(axis=-1) / slope.shape[-1]
    return np.asarray(np.array(FIGURE_1C) * pairs.reshape(-1, len(FIGURE_1C)))


def shares_1c() -> FloatArray:
    """L/(L + 6ξ_c) in theory, for every σ_w² of the figure."""
    return np.array([DEPTH_1C / (DEPTH_1C + 6 * phase_of(p).xi_c) for p in _points_1c()])


SORTED_1C = Claim(
    name="xiao2018_cnn.figure_1c",
    source=f"{SOURCE}, fig. 1c",
    statement="At initialisation 6ξ_c sorts the ten σ_w² of fig. 1c as its training curves do: depth 1003 is below "
    "6ξ_c for 1.05, 1.10, 1.15, 1.20 and above it for 0.85, 0.90, 0.95, 1.25, 1.30, 1.35.",
    mark="exact",
    networks=_unit_networks,
    widths=(128,),
    inputs=lambda net: of_gram([homogeneous(phase_of(p).q, phase_of(p).c, 3) for p in _points_1c()]),
    predict=lambda net, x: shares_1c(),
    measure=_survival,
    combine=_shares,
    test="mean",
    cotangent=None,
    margin=0.025,
    margin_reason="of L/(L + 6ξ_c): three quarters of the least distance from the half that sorts, 0.033 at 1.25",
    labels=lambda net: [f"σ_w² = {s:g}" for s in FIGURE_1C],
    rival=Rival("the scale of gradients, 1/|log χ_1|, for that of correlations", lambda net, x: _shares(
        np.array([phase_of(p).chi_1 for p in _points_1c()]))),
    mutants=(Mutant("σ_w² off by 5%", mutations.weight_gain(1.05)),
             Mutant("erf in place of tanh", mutations.activation("erf"))),
)  # fmt: skip


# ---- deep networks ------------------------------------------------------------------------------------

_APART = 0.2  # two correlations about c*, or below 1


@dataclass(frozen=True)
class Stretch:
    """Over how many layers, and at how many channels, a difference in correlation is followed; and the margin."""

    sigma_w2: float
    depth: int
    channels: int
    margin: float

    @property
    def point(self) -> Point:
        return self.sigma_w2, PAPERS_POINT[1]


STRETCHES = (
    Stretch(0.85, 12, 512, 0.15), Stretch(0.90, 16, 512, 0.15), Stretch(0.95, 20, 512, 0.15),
    Stretch(1.05, 20, 2048, 0.2), Stretch(1.10, 20, 1024, 0.27), Stretch(1.15, 20, 1024, 0.16),
    Stretch(1.20, 20, 3072, 0.052), Stretch(1.25, 20, 6144, 0.03), Stretch(1.30, 20, 1024, 0.09),
    Stretch(1.35, 20, 512, 0.14),
)  # fmt: skip


def _two_correlations(point: Point) -> Inputs:
    """Two inputs on three positions, near each other, of lengths q* and correlations on both sides of c*."""
    p = phase_of(point)
    high = min(1.0, p.c + _APART / 2)
    return starting_at(point, lambda n: [homogeneous(p.q, c, n) for c in (high, high - _APART)])


def _difference(cov: FloatArray) -> FloatArray:
    """Between the two inputs' covariances of neighbours, the mean along the circle, (…,)."""
    two = blocks(cov, 2)
    return np.asarray(displaced(two[..., 0, :, :] - two[..., 1, :, :], 1).mean(axis=-1))


def _surviving(point: Point) -> Measure:
    """What the last layer still has of the difference between the inputs, (replicate, 1)."""

    def measure(trace: Trace) -> FloatArray:
        kernels, net = trace.plan.engine.kernels, trace.plan.net
        m, x = net.random_map(net.maps[-1]), trace.tape[net.maps[-1]].x
        assert m.window is not None
        met = _difference(kernels.patch_gram(kernels.gram(x, x), m.window))
        return np.asarray(m.sigma_w2 / m.fan_in / (_APART * phase_of(point).q) * met[:, None])

    return measure


def _share_of_stretch(depth: int, surviving: FloatArray, more: float = 0.0) -> FloatArray:
    """L/(L + 6ξ), L = 1003, by what survives from the first to the last of `depth` layers; more: added to the rate."""
    return _shares(np.exp(np.log(surviving) / (depth - 1) - more))


_OF_THE_CRITICAL_POINT = (
    " (a lower bound alone: ξ_c is 258,000 layers, which correlations have only nearer to c* than networks can show)"
)
_LINEAR = Mutant("linear in place of tanh", mutations.activation("linear"))
_SHORT = Mutant("σ_w² short by 10%", mutations.weight_gain(0.9))


def _sorted_otherwise(s: Stretch) -> Rival:
    """What linear networks do, since signals of q* < 0.2 hardly bend tanh: they are critical at σ_w² = 1, and without
    biases, which are small, they keep correlations as they are. Whichever is on the other side of depth 1003."""
    if TRAINED[FIGURE_1C.index(s.sigma_w2)]:
        return Rival("critical at σ_w² = 1, as linear networks are, with 1/|log σ_w²| for ξ_c",
                     lambda net, x: _shares(np.array([s.sigma_w2])))  # fmt: skip
    return Rival("linear, and without biases that matter: correlations stay, ξ_c = ∞",
                 lambda net, x: _shares(np.ones(1)))  # fmt: skip


def survival_claim(s: Stretch) -> Claim:
    """A difference in correlation over a stretch of layers, and the side of depth 1003 that it puts 6ξ_c on."""
    side = "above" if TRAINED[FIGURE_1C.index(s.sigma_w2)] else "below"
    words = _OF_THE_CRITICAL_POINT if s.point == PAPERS_POINT else ""

    def followed(net: Network, x: FloatArray, more: float = 0.0) -> FloatArray:
        q = propagate(net, x).q
        return _share_of_stretch(s.depth, np.atleast_1d(_difference(q[-1]) / _difference(q[0])), more)

    return Claim(
        name=f"xiao2018_cnn.survival_{s.sigma_w2:.2f}",
        source=f"{SOURCE}, fig. 1c",
        statement=f"At σ_w² = {s.sigma_w2:g} a difference between correlations decays over {s.depth} layers as the "
        f"limit has it, and puts 6ξ_c {side} depth 1003{words}.",
        mark="limit",
        networks=networks(s.point, s.depth, 3),
        widths=(s.channels,),
        inputs=lambda net: _two_correlations(s.point)(net),
        predict=followed,
        # Decays quicken by 1/channels a layer, and no more, at first order near the critical line, where φ = u − u³/3:
        # a correlation that grows by chance lengthens signals, whose lower slopes take 4/3 of it over the next 1/(1 −
        # dQ/dq) layers; signals that are shorter for their fluctuations give back 1/3.
        remainder=lambda net, x: followed(net, x, 1 / s.channels) - followed(net, x),
        measure=_surviving(s.point),
        combine=lambda means: _share_of_stretch(s.depth, means),
        test="mean",
        engine="auto",
        cotangent=None,
        margin=s.margin,
        margin_reason="of L/(L + 6ξ_c): less than the distance from the half that sorts",
        labels=lambda net: ["L/(L + 6ξ_c)"],
        rival=_sorted_otherwise(s),
        # Above 1 a larger σ_w² makes signals longer over so few layers, and that hides what it does to correlations.
        mutants=(_SHORT, _LINEAR) if s.sigma_w2 > 1 else (Mutant("σ_w² off by 10%", mutations.weight_gain(1.1)),),
        knob=(lambda size: mutations.weight_gain(1 / size)) if s.sigma_w2 > 1 else mutations.weight_gain,
    )  # fmt: skip


SURVIVAL = tuple(survival_claim(s) for s in STRETCHES)
