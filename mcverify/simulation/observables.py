"""Observables: reductions of a trace to an array whose first axis is the replicate.

Each is a plain function Trace -> (replicate, …) in float64; a claim's own measurement is one more.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mcverify.simulation.trace import Trace

FloatArray = NDArray[np.float64]


def q(trace: Trace) -> FloatArray:
    """The empirical covariance q^l_ab = (1/n_l) Σ_i h_ia h_ib, (replicate, layer, column, column)."""
    gram = trace.plan.engine.kernels.gram
    return np.stack([gram(r.y, r.y) / r.y.shape[-1] for r in trace.maps], axis=1)


def metric(trace: Trace) -> FloatArray:
    """Ĝ^l_ab = σ_b² + (σ_w²/n_{l−1}) Σ_i x_ia x_ib, the conditional expectation of q^l given the layer
    below, (replicate, layer, column, column); x as the map meets it, by patches for a convolution."""
    gram = trace.plan.engine.kernels.gram
    out = []
    for i, record in zip(trace.plan.net.maps, trace.maps, strict=True):
        m = trace.plan.net.random_map(i)
        x = record.layer.met(record.x)
        g = m.sigma_b2 + m.sigma_w2 / m.fan_in * gram(x, x)
        out.append(np.broadcast_to(g, (trace.site.count, *g.shape[1:])))
    return np.stack(out, axis=1)


def length(trace: Trace) -> FloatArray:
    """M_l = ‖x^l‖²/n_l, the mean over positions, (replicate, layer, input)."""
    squares = trace.plan.engine.kernels.squares
    return np.stack([_by_input(trace, squares(x)).mean(axis=-1) / x.shape[-1] for x in trace.outputs()], axis=1)


def chi(trace: Trace) -> FloatArray:
    """σ_w² (1/n_l) Σ_i φ′(h_i)², the empirical χ^l, the mean over positions, (replicate, layer, input).

    σ_w² is that of the map above, or of the last map itself at the top; dropout divides by keep."""
    net, kernels = trace.plan.net, trace.plan.engine.kernels
    out = []
    for i, gain, phi in net.gains():
        h = trace.tape[i].y
        mean = np.ones(h.shape[:2]) if phi is None else kernels.squares(kernels.slope(phi, h)) / h.shape[-1]
        out.append(gain * _by_input(trace, mean).mean(axis=-1))
    return np.stack(out, axis=1)


def grad_gram(trace: Trace) -> FloatArray:
    """Σ_i δ^l_ia δ^l_ib with δ^l = ∂E/∂h^l, (replicate, layer, input, input): a sum over units and positions."""
    gram = trace.plan.engine.kernels.gram
    out = []
    for r in trace.maps:
        assert r.gy is not None
        delta = r.gy[:, 0].reshape(trace.site.count, len(trace.plan.x), -1)  # all positions' units of an input
        out.append(gram(delta, delta))
    return np.stack(out, axis=1)


def tangent_gram(trace: Trace) -> FloatArray:
    """(1/n_l) Σ_i dh_it dh_iu for each input, a sum over positions,
    (replicate, layer, input, direction, direction)."""
    gram = trace.plan.engine.kernels.gram
    out = []
    for r in trace.maps:
        assert r.dy is not None
        replicates, directions = r.dy.shape[:2]
        inputs, units = len(trace.plan.x), r.dy.shape[-1]
        apart = r.dy.reshape(replicates, directions, inputs, -1)
        v = np.swapaxes(apart, 1, 2).reshape(replicates * inputs, directions, -1)
        out.append((gram(v, v) / units).reshape(replicates, inputs, directions, directions))
    return np.stack(out, axis=1)


def _by_input(trace: Trace, values: FloatArray) -> FloatArray:
    """(replicate, column) as (replicate, input, position)."""
    return values.reshape(len(values), len(trace.plan.x), -1)
