"""Gradients going down are averaged over the taps, as signals are going up."""

from __future__ import annotations

import math

import numpy as np

from mcverify.claims import mutations
from mcverify.claims.claim import Claim, FloatArray, Mutant, Rival
from mcverify.claims.poole2016 import ORDERED, WIDTHS
from mcverify.claims.xiao2018_cnn.circles import SOURCE, displaced, networks, of_gram, uneven
from mcverify.layers import chain
from mcverify.layers.convolution import Convolution
from mcverify.layers.layer import Grad, State
from mcverify.network import Network
from mcverify.simulation.trace import Trace

_OUT = 4  # output channels where the cotangent is fixed


def _read_out(width: int) -> Network:
    """Three layers on a circle of seven, and a linear one of few channels."""
    base = networks(ORDERED, 3, 7)(width)
    return Network([*base.layers, Convolution((7,), width, _OUT, (3,), *ORDERED)])


def _two_lit() -> FloatArray:
    """The same cotangent at two neighbours, nothing elsewhere; unit norm in all, (1, position, channel)."""
    v = np.zeros((1, 7, _OUT))
    v[:, :2] = 1 / math.sqrt(2 * _OUT)
    return v


def _gradient_profile(g: FloatArray) -> FloatArray:
    """‖δ(α)‖² at every position and the mean of δ(α)·δ(α+1), (…, 8) from (…, 7, 7)."""
    return np.concatenate([displaced(g, 0), 7 * displaced(g, 1).mean(axis=-1, keepdims=True)], axis=-1)


def _blurred(net: Network, x: FloatArray) -> FloatArray:
    states = chain.propagate(net.layers, State.of_inputs(x))
    v = _two_lit()[0]
    down = chain.pull_back(net.layers, states, Grad(v @ v.T, np.ones((7, 7), bool)))
    return _gradient_profile(down[net.maps[1] + 1].cov)


def _measured_profile(trace: Trace) -> FloatArray:
    delta = trace.maps[1].gy
    assert delta is not None
    only = delta.reshape(len(delta), *delta.shape[2:])
    return _gradient_profile(trace.plan.engine.kernels.gram(only, only))


def _evenly(net: Network, x: FloatArray) -> FloatArray:
    """The same total, the same at every position, and neighbours with nothing in common."""
    even = np.full(8, _blurred(net, x)[:7].mean())
    even[7] = 0.0
    return even


GRADIENT_BLUR = Claim(
    name="xiao2018_cnn.gradient_blur",
    source=f"{SOURCE}, §2; Schoenholz et al. 2017, §4, for convolutions",
    statement="Going down, E δ(α)δ(α') is averaged over the taps like Σ, and gains E[φ′φ′] at each pair of positions: "
    "a gradient that enters at two neighbours has spread so two layers below (tanh, uneven inputs).",
    mark="limit",
    networks=_read_out,
    widths=WIDTHS,
    inputs=lambda net: of_gram(uneven(7)),
    cotangent=_two_lit(),
    predict=_blurred,
    measure=_measured_profile,
    test="ladder",
    engine="auto",
    growth=_OUT / max(WIDTHS),  # nothing is averaged over the few outputs, whose number is not a width of the series
    margin=0.03,
    margin_reason="a fifth of the largest share that an even spread would move",
    labels=lambda net: [*(f"layer 2, position {a}" for a in range(1, 8)), "layer 2, neighbours"],
    rival=Rival("gradients spread evenly at once", _evenly),
    mutants=(Mutant("σ_w² off by 50%", mutations.weight_gain(1.5)),
             Mutant("linear in place of tanh", mutations.activation("linear"))),
)  # fmt: skip
