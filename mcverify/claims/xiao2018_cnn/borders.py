"""Order and chaos of convolutions: a circle has the fully connected boundary, zeros beyond a border do not."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from mcverify.claims import generic, measures, mutations
from mcverify.claims.claim import Claim, FloatArray, Mutant, Networks, Rival
from mcverify.claims.poole2016 import WIDTHS, phase_of
from mcverify.claims.xiao2018_cnn.circles import SOURCE, Point, homogeneous, networks, starting_at
from mcverify.network import Network
from mcverify.theory.border import border_effect
from mcverify.theory.critical_line import critical_sigma_w2
from mcverify.theory.propagation import propagate

_BOUNDARY_BIAS = 0.05


@cache
def _boundary() -> Point:
    """Where fully connected tanh networks of this σ_b² are critical."""
    return critical_sigma_w2("tanh", _BOUNDARY_BIAS), _BOUNDARY_BIAS


def _boundary_networks(padding: str) -> Networks:
    return lambda width: networks(_boundary(), 5, 4, padding=padding)(width)


def _boundary_inputs(net: Network) -> FloatArray:
    return starting_at(_boundary(), lambda n: [homogeneous(phase_of(_boundary()).q, 0.5, n)])(net)


def _border_chi(net: Network, x: FloatArray) -> FloatArray:
    chi = border_effect("tanh", *_boundary(), net.input_shape[:-1]).chi
    return np.full(len(net.maps) - 1, np.log(chi))


PHASE_BOUNDARY = Claim(
    name="xiao2018_cnn.phase_boundary",
    source=f"{SOURCE}, §2",
    statement="On the fully connected critical line a circular convolution is critical: the whole gradient's norm "
    "keeps its size, χ_1 = 1 (tanh, σ_b² = 0.05).",
    mark="limit",
    networks=_boundary_networks("circular"),
    widths=WIDTHS,
    inputs=_boundary_inputs,
    predict=lambda net, x: np.zeros(len(net.maps) - 1),
    measure=measures.log_gradient_gain,
    test="ladder",
    engine="auto",
    margin=0.02,
    margin_reason="less than half of what a border of zeros would change on this grid",
    labels=generic.layer_labels(1, 1),
    rival=Rival("positions shift the boundary, as zeros beyond a border do", _border_chi),
    mutants=(Mutant("σ_w² off by 10%", mutations.weight_gain(1.1)),
             Mutant("zeros beyond a border", mutations.padding("zeros"))),
)  # fmt: skip

_ZEROS = "whether the critical point survives zero padding"

ZEROS_AS_PRINTED = replace(
    PHASE_BOUNDARY,
    name="xiao2018_cnn.zero_padding_as_printed",
    source=f"{SOURCE}, §1 and §3: 'also apply to standard zero-padded boundary conditions'",
    statement="With zeros beyond the border of four positions, gradients keep their size at the same critical point.",
    mark="heuristic",
    networks=_boundary_networks("zeros"),
    rival=Rival("the zeros' own recursion", lambda net, x: propagate(net, x).gradient_gains),
    mutants=(Mutant("σ_w² off by a factor of 2", mutations.weight_gain(0.5)),),
    knob=None,
    expected="refuted",
    finding=_ZEROS,
    quantity="log of the gain of squared gradients",
)

ZEROS_MENDED = replace(
    ZEROS_AS_PRINTED,
    name="xiao2018_cnn.zero_padding",
    source=f"{SOURCE}, eq. 5 with A cut off at the border",
    statement="With zeros beyond the border of four positions, gradients shrink at the circle's critical point, by "
    "what the truncated average gives in each layer.",
    mark="limit",
    predict=lambda net, x: propagate(net, x).gradient_gains,
    rival=Rival("the circle's critical point is theirs", lambda net, x: np.zeros(len(net.maps) - 1)),
    mutants=(Mutant("circular", mutations.padding("circular")), Mutant("σ_w² off by 10%", mutations.weight_gain(1.1))),
    knob=mutations.weight_gain,
    expected="confirmed",
)
