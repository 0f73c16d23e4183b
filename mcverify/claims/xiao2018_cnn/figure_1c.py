"""Figure 1c at initialisation: which depths correlations survive."""

from __future__ import annotations

import numpy as np

from mcverify.claims import mutations
from mcverify.claims.claim import Claim, FloatArray, Mutant, Rival
from mcverify.claims.poole2016 import phase_of
from mcverify.claims.xiao2018_cnn.circles import PAPERS_POINT, SOURCE, Point, displaced, homogeneous, of_gram
from mcverify.layers.activation import Activation
from mcverify.network import Network, cnn
from mcverify.simulation.trace import Trace

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
    margin=0.025,
    margin_reason="of L/(L + 6ξ_c): three quarters of the least distance from the half that sorts, 0.033 at 1.25",
    labels=lambda net: [f"σ_w² = {s:g}" for s in FIGURE_1C],
    rival=Rival("the scale of gradients, 1/|log χ_1|, for that of correlations", lambda net, x: _shares(
        np.array([phase_of(p).chi_1 for p in _points_1c()]))),
    mutants=(Mutant("σ_w² off by 5%", mutations.weight_gain(1.05)),
             Mutant("erf in place of tanh", mutations.activation("erf"))),
)  # fmt: skip
