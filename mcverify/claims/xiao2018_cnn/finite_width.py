"""Log gradients at finite width, at the paper's point: where positions are alike, and where they are a digit's."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcverify.claims import generic, measures, mutations
from mcverify.claims.claim import Claim, FloatArray, Mutant, Rival
from mcverify.claims.poole2016 import phase_of
from mcverify.claims.xiao2018_cnn.circles import PAPERS_POINT, SOURCE, homogeneous, networks, starting_at
from mcverify.layers.activation import Activation
from mcverify.layers.convolution import DELTA
from mcverify.network import Network, cnn
from mcverify.simulation.trace import Trace
from mcverify.theory.gradient_modes import mode_shares
from mcverify.theory.zero_mode import log_gains

_CHANNELS, _STRETCH = 64, 12
_ALIKE = np.ones((1, 3, _CHANNELS)) / math.sqrt(3 * _CHANNELS)


POSITIONS_ALIKE = Claim(
    name="xiao2018_cnn.positions_alike",
    source=f"{SOURCE}, §3 and fig. 1b, beyond its mean field",
    statement="At (1.05, 2e-5) and 64 channels signals that are alike at all positions meet a dense map of width 64, "
    "the sum of the taps: log gradient norms lose some 1/64 a layer at first order though χ_1 = 1.",
    mark="first order",
    networks=networks(PAPERS_POINT, _STRETCH, 3),
    widths=(_CHANNELS,),
    inputs=starting_at(PAPERS_POINT, lambda n: [homogeneous(phase_of(PAPERS_POINT).q, 1.0, n)]),
    cotangent=_ALIKE,
    predict=lambda net, x: log_gains("tanh", *PAPERS_POINT, _CHANNELS, len(net.maps)).mean,
    # The next order of a series in depth/channels, whose first term is of order 1/channels a layer.
    remainder=lambda net, x: np.full(len(net.maps) - 1, len(net.maps) / _CHANNELS**2 / 2),
    measure=measures.log_gradient_gain,
    test="mean",
    engine="auto",
    margin=0.009,
    margin_reason="less than half of the first layers' first-order term",
    labels=generic.layer_labels(1, 1),
    rival=Rival("no finite-width term, log χ_1 = 4e-6",
                lambda net, x: np.full(len(net.maps) - 1, np.log(phase_of(PAPERS_POINT).chi_1))),
    mutants=(Mutant("σ_w² off by 5%", mutations.weight_gain(1.05)),
             Mutant("linear in place of tanh", mutations.activation("linear"))),
)  # fmt: skip


# ---- a digit ------------------------------------------------------------------------------------------

# The first of the handwritten digits that scikit-learn ships (Alpaydin & Kaynak 1998), a zero: grey levels to 16.
_DIGIT = (
    (0, 0, 5, 13, 9, 1, 0, 0),
    (0, 0, 13, 15, 10, 15, 5, 0),
    (0, 3, 15, 2, 0, 11, 8, 0),
    (0, 4, 12, 0, 0, 8, 8, 0),
    (0, 5, 8, 0, 0, 9, 8, 0),
    (0, 4, 11, 0, 1, 12, 7, 0),
    (0, 2, 14, 5, 10, 12, 0, 0),
    (0, 0, 6, 13, 10, 0, 0, 0),
)
_LAYERS = 31


def digit(net: Network) -> FloatArray:
    """The digit about its mean, scaled so that its first pre-activations are of length q*, (1, 8, 8, 1)."""
    sigma_w2, sigma_b2 = PAPERS_POINT
    x = np.array(_DIGIT, float) - np.mean(_DIGIT)
    length = (phase_of(PAPERS_POINT).q - sigma_b2) / sigma_w2
    return np.asarray(x * math.sqrt(length / (x**2).mean()))[None, :, :, None]


def gradient(trace: Trace, l: int) -> NDArray[Any]:
    """δ at the map of that number from 0, (replicate, position, channel)."""
    delta = trace.tape[trace.plan.net.maps[l]].gy
    assert delta is not None
    return delta[:, 0]


def gain(trace: Trace, l: int) -> FloatArray:
    """‖δ‖² at that map, numbered from 0, over its mean given δ of the next and φ′, (replicate,): over σ_w²/c times the
    sum over positions of A(‖δ^{l+1}‖²) Σ_j φ′_j²."""
    net, kernels = trace.plan.net, trace.plan.engine.kernels
    here, above = net.maps[l : l + 2]
    delta, driven = gradient(trace, l), gradient(trace, l + 1)
    phi, layer = trace.tape[here + 1].layer, net.layers[above]
    assert isinstance(phi, Activation)
    slopes = kernels.squares(kernels.slope(phi.phi, trace.tape[here].y))
    met = net.random_map(above).sigma_w2 / delta.shape[-1] * layer.mean_met(kernels.squares(driven))
    return np.asarray(kernels.squares(delta).sum(axis=-1) / (met * slopes).sum(axis=-1))


def _lost(trace: Trace) -> FloatArray:
    """What the logarithm of a gradient norm's gain loses to the gain's own variance, log r − (r − 1), the mean over
    layers, (replicate, 1). What r's mean differs from 1 by is left out of what is decided, with its fluctuation."""
    total = np.zeros(trace.site.count)
    for l in range(_LAYERS - 1):
        r = gain(trace, l)
        total += np.log(r) - (r - 1)
    return total[:, None] / (_LAYERS - 1)


@cache
def _of_digit() -> float:
    return -float(mode_shares((8, 8), (3, 3), _CHANNELS, _LAYERS).mean()) / _CHANNELS


DIGITS = Claim(
    name="xiao2018_cnn.digit_gradients",
    source=f"{SOURCE}, §3 and fig. 1b, beyond its mean field",
    # Thirty layers, as over thousands a few spatial frequencies win, which second moments do not follow.
    statement="At (1.05, 2e-5), on an 8 × 8 digit at 64 channels, a layer's log gradient norm loses ρ/64 to its own "
    "fluctuation, ρ = tr A(Γ)²/(tr Γ)² of the gradient's positions: 1.1/64 at first, 1.8/64 after 30 layers.",
    mark="first order",
    networks=lambda width: cnn((1, 8, 8), [width] * _LAYERS, "tanh", *PAPERS_POINT),
    widths=(_CHANNELS,),
    inputs=digit,
    predict=lambda net, x: np.array([_of_digit()]),
    # φ′ that differ between positions take a thousandth a layer from what ρ gains, and ⟨φ′⁴⟩/⟨φ′²⟩² adds 8q*² = 0.5%;
    # the share of means is not the mean share by the norm's own variance, 30 times 2ρ/64 or 2%.
    remainder=lambda net, x: np.array([0.03 * abs(_of_digit())]),
    measure=_lost,
    test="mean",
    engine="auto",
    margin=0.15,
    relative=True,
    margin_reason="less than half of what ρ gains on the way down",
    labels=lambda net: [f"layers 1 to {_LAYERS - 1}"],
    rival=Rival("64 positions that have nothing in common, ρ = 1/64", lambda net, x: np.array([-1 / 64 / _CHANNELS])),
    mutants=(Mutant("delta-orthogonal kernels", mutations.weights(DELTA)),
             Mutant("zeros beyond a border", mutations.padding("zeros"))),
    knob=None,  # φ′ and A(Γ) as they are sampled set what is measured apart from σ_w²
)  # fmt: skip
