"""Observables: reductions of a trace to an array whose first axis is the replicate.

Each is a plain function Trace -> (replicate, …) in float64; a claim's own measurement is one more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcverify.layers.chain import Record
from mcverify.layers.grid import on_first_grid
from mcverify.random_map.engine import Map
from mcverify.simulation.trace import Trace

FloatArray = NDArray[np.float64]


def q(trace: Trace) -> FloatArray:
    """The empirical covariance q^l_ab = (1/n_l) Σ_i h_ia h_ib, (replicate, layer, column, column); NaN at layers of
    another grid than the first."""
    gram = trace.plan.engine.kernels.gram
    return np.stack(on_first_grid([gram(r.y, r.y) / r.y.shape[-1] for r in trace.maps]), axis=1)


def gram(trace: Trace) -> FloatArray:
    """The mean of q^l_ab over equal positions, (replicate, layer, input, input)."""
    inputs, kernel = len(trace.plan.x), trace.plan.engine.kernels.gram
    out = []
    for r in trace.maps:
        whole = r.y.reshape(trace.site.count, inputs, -1)
        out.append(kernel(whole, whole) / whole.shape[-1])
    return np.stack(out, axis=1)


def q_local(trace: Trace) -> FloatArray:
    """q^l_ab at equal positions, (replicate, layer, position, input, input); NaN at layers of another grid than the
    first."""
    inputs, out = len(trace.plan.x), []
    for r in trace.maps:
        h = np.swapaxes(r.y.reshape(trace.site.count, inputs, -1, r.y.shape[-1]), 1, 2)
        out.append(_each_gram(trace, h) / h.shape[-1])
    return np.stack(on_first_grid(out), axis=1)


def _each_gram(trace: Trace, h: NDArray[Any]) -> FloatArray:
    """(replicate, position, input, units) → (replicate, position, input, input)."""
    flat = np.ascontiguousarray(h.reshape(-1, *h.shape[2:]))
    out = trace.plan.engine.kernels.gram(flat, flat)
    return out.reshape(*h.shape[:2], *out.shape[1:])


def metric(trace: Trace) -> FloatArray:
    """Ĝ^l_ab = σ_b² + (σ_w²/n_{l−1}) Σ_i x_ia x_ib, the conditional expectation of q^l given the layer
    below, (replicate, layer, column, column); x as the map meets it, by patches for a convolution. NaN at layers of
    another grid than the first."""
    return np.stack(on_first_grid(metrics(trace)), axis=1)


def metrics(trace: Trace) -> list[FloatArray]:
    """Ĝ^l for every layer, (replicate, column, column) on the layer's own grid."""
    kernels = trace.plan.engine.kernels

    def gram(m: Map, record: Record) -> FloatArray:
        if m.window is not None:
            return kernels.patch_gram(kernels.gram(record.x, record.x), m.window)
        x = record.layer.met(record.x)
        return kernels.gram(x, x)

    return _met(trace, gram)


def metric_variances(trace: Trace) -> list[FloatArray]:
    """Ĝ^l_aa for every layer, (replicate, column) on the layer's own grid."""
    squares = trace.plan.engine.kernels.squares
    return _met(trace, lambda _, record: squares(record.layer.met(record.x)))


def metric_lengths(trace: Trace) -> FloatArray:
    """Ĝ^l_aa, the mean over positions, (replicate, layer, input)."""
    return np.stack([_by_input(trace, g).mean(axis=-1) for g in metric_variances(trace)], axis=1)


def _met(trace: Trace, product: Callable[[Map, Record], FloatArray]) -> list[FloatArray]:
    """σ_b² + (σ_w²/fan_in) · product for every map, of the columns that it meets: (replicate, …) each."""
    out = []
    for i, record in zip(trace.plan.net.maps, trace.maps, strict=True):
        m = trace.plan.net.random_map(i)
        g = m.sigma_b2 + m.sigma_w2 / m.fan_in * product(m, record)
        out.append(np.broadcast_to(g, (trace.site.count, *g.shape[1:])))
    return out


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
