"""What claims on residual networks measure: lengths and gradients above and below every block."""

from __future__ import annotations

import numpy as np

from mcverify.claims.claim import FloatArray, Labels
from mcverify.network import Network
from mcverify.simulation import observables
from mcverify.simulation.trace import Trace


def block_labels(net: Network) -> list[str]:
    """`block l`, l = 1 … L, of a network whose first map is followed by blocks alone."""
    return [f"block {l}" for l in range(1, len(net.maps))]


def and_all(labels: Labels) -> Labels:
    """The labels, and one for all of them together."""
    return lambda net: [*labels(net), "all blocks"]


def lengths(trace: Trace) -> FloatArray:
    """‖h^l‖²/n_l of every map and block, (replicate, layer, input)."""
    squares = trace.plan.engine.kernels.squares
    return np.stack([squares(r.y) / r.y.shape[-1] for r in trace.maps], axis=1)


def length_gain(trace: Trace) -> FloatArray:
    """‖z^l‖²/‖z^{l−1}‖² of every block, the mean over inputs, (replicate, block)."""
    q = lengths(trace)
    return np.asarray((q[:, 1:] / q[:, :-1]).mean(axis=-1))


def gradient_gain(trace: Trace) -> FloatArray:
    """‖δ‖² below every block over that above it, the mean over inputs, (replicate, block)."""
    g = np.diagonal(observables.grad_gram(trace), axis1=-2, axis2=-1)
    return np.asarray((g[:, :-1] / g[:, 1:]).mean(axis=-1))


def with_total(gains: FloatArray) -> FloatArray:
    """Each block's gain, and that of all of them, (replicate, block + 1)."""
    return np.concatenate([gains, gains.prod(axis=1, keepdims=True)], axis=1)
