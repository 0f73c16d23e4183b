"""Figure 3: gradient norms along the critical line, and their finite-width spread."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from mcverify.claims import mutations
from mcverify.claims.claim import Claim, FloatArray, Mutant, Rival
from mcverify.claims.xiao2018_cnn.circles import SOURCE, Point, of_gram
from mcverify.expectations import gaussian
from mcverify.network import Network, cnn
from mcverify.simulation import observables
from mcverify.simulation.trace import Trace
from mcverify.theory.critical_line import critical_line

LENGTHS_3 = (0.01, 0.1, 0.3, 1.0, 3.0)  # q* of five points of the critical line, σ_b² increasing


@cache
def points_3() -> list[Point]:
    """(σ_w², σ_b²) of the five critical points."""
    line = critical_line("tanh", np.array(LENGTHS_3))
    return [(float(w), float(b)) for w, b in zip(line.sigma_w2, line.sigma_b2, strict=True)]


def _points_labels(net: Network) -> list[str]:
    return [f"σ_w² = {w:.4g}, σ_b² = {b:.2g}" for w, b in points_3()]


def _gains_3(trace: Trace) -> FloatArray:
    """‖δ^1‖²/‖δ^2‖² with each point's σ_w² in place of 1, (replicate, point)."""
    norms = np.diagonal(observables.grad_gram(trace), axis1=-2, axis2=-1)
    return np.asarray(norms[:, 0] / norms[:, 1] * np.array([w for w, _ in points_3()]))


def _spread_3(net: Network, x: FloatArray) -> FloatArray:
    """Channels times the variance of a layer's gain, positions being alike (c* = 1): (1 + 2/n)μ − 1 with
    μ = ⟨φ′⁴⟩/⟨φ′²⟩²."""
    q = np.array(LENGTHS_3)
    mu = gaussian.moment("tanh", q, 4, 1).value / gaussian.moment("tanh", q, 2, 1).value ** 2
    return np.asarray((1 + 2 / net.input_shape[0]) * mu - 1)


FIGURE_3 = Claim(
    name="xiao2018_cnn.figure_3",
    source=f"{SOURCE}, fig. 3 and §3",
    statement="Along the critical line the mean gradient norm is constant from layer to layer: at five points, q* from "
    "0.01 to 3, the gain is 1 (tanh).",
    mark="exact",
    networks=lambda width: cnn((4, 4), [width, width], "tanh"),
    widths=(48,),
    inputs=lambda net: of_gram([q * np.ones((4, 4)) for q in LENGTHS_3]),
    predict=lambda net, x: np.ones(len(LENGTHS_3)),
    measure=_gains_3,
    test="mean",
    sample="xiao2018_cnn.figure_3",
    engine="auto",
    margin=0.015,
    margin_reason="less than half of the distance to the rival at the second point already",
    labels=_points_labels,
    rival=Rival("σ_w² alone sets the gain, as in a linear network",
                lambda net, x: np.array([w for w, _ in points_3()])),
    mutants=(Mutant("σ_w² off by 5%", mutations.weight_gain(1.05)),
             Mutant("linear in place of tanh", mutations.activation("linear"))),
)  # fmt: skip

FIGURE_3_SPREAD = replace(
    FIGURE_3,
    name="xiao2018_cnn.figure_3_spread",
    statement="Its finite-width spread is not constant along the line: channels times the variance of a layer's gain "
    "is (1 + 2/n)⟨φ′⁴⟩/⟨φ′²⟩² − 1, which grows with q* (tanh, n = 4 positions).",
    mark="first order",
    predict=_spread_3,
    # The cotangent's averaged Gram matrix Γ is not quite diagonal: E tr Γ²/(tr Γ)² is 1/n + 0.35/channels here, and the
    # gain's variance has 2μ of it.
    remainder=lambda net, x: (_spread_3(net, x) + 1) / (1 + 2 / net.input_shape[0]) / net.widths[0],
    measure=lambda trace: trace.maps[0].y.shape[-1] * (_gains_3(trace) - 1) ** 2,
    margin=0.25,
    margin_reason="a sixth of what the spread grows by along the line",
    rival=Rival("the spread of a linear network at all five", lambda net, x: np.full(5, 2 / net.input_shape[0])),
    mutants=(Mutant("linear in place of tanh", mutations.activation("linear")),
             Mutant("σ_w² off by 50%", mutations.weight_gain(1.5))),
    knob=None,  # the spread moves with σ_w² only by the saturation of φ
)  # fmt: skip
