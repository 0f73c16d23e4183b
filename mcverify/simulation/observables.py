"""Observables: reductions of a trace to an array whose first axis is the replicate.

Each is a plain function Trace -> (replicate, …) in float64; a claim's own measurement is one more.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcverify.kernels.patches import Window, neighbours
from mcverify.layers.chain import Record
from mcverify.layers.grid import on_first_grid
from mcverify.layers.layer import Layer
from mcverify.layers.residual import Residual
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
        h = trace.plan.engine.kernels.swapped(r.y.reshape(trace.site.count, inputs, -1, r.y.shape[-1]))
        out.append(_each_gram(trace, h) / h.shape[-1])
    return np.stack(on_first_grid(out), axis=1)


def _each_gram(trace: Trace, h: NDArray[Any]) -> FloatArray:
    """(replicate, position, input, units) → (replicate, position, input, input)."""
    flat = h.reshape(-1, *h.shape[2:])
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

    def gram(m: Map | None, layer: Layer, x: NDArray[Any]) -> FloatArray:
        if m is not None and m.window is not None:
            return kernels.patch_gram(kernels.gram(x, x), m.window)
        met = layer.met(kernels, x)
        return kernels.gram(met, met)

    return _met(trace, gram)


def metric_variances(trace: Trace) -> list[FloatArray]:
    """Ĝ^l_aa for every layer, (replicate, column) on the layer's own grid; reduced once for all that ask."""
    kernels, name = trace.plan.engine.kernels, "metric_variances"
    if name not in trace.reduced:
        trace.reduced[name] = _met(trace, lambda _, layer, x: kernels.squares(layer.met(kernels, x)))
    found: list[FloatArray] = trace.reduced[name]
    return found


def metric_lengths(trace: Trace) -> FloatArray:
    """Ĝ^l_aa, the mean over positions, (replicate, layer, input)."""
    return np.stack([_by_input(trace, g).mean(axis=-1) for g in metric_variances(trace)], axis=1)


def mean_correlations(trace: Trace) -> list[FloatArray]:
    """The mean of Ĝ^l_ab/√(Ĝ^l_aa Ĝ^l_bb) over pairs of different columns, (replicate,), for each layer above the first
    that has several.

    With weights w_a = 1/√Ĝ_aa the sum over all pairs is the squared length of one weighted sum of columns: what it
    takes grows with the columns, not with their pairs."""
    net, out = trace.plan.net, []
    for i, record, g in list(zip(net.maps, trace.maps, metric_variances(trace), strict=True))[1:]:
        n = g.shape[-1]
        if n > 1:
            w = 1.0 / np.sqrt(g)
            total = w.sum(axis=-1)
            summed = _expected(net.layers[i], record, partial(_square_of_mean, trace, w / total[:, None]))
            out.append((summed * total**2 - n) / (n * (n - 1)))
    return out


def _square_of_mean(trace: Trace, weights: FloatArray, m: Map | None, layer: Layer, x: NDArray[Any]) -> FloatArray:
    """‖Σ_a w_a x_a‖² of the columns that a map meets, (replicate,); weights (replicate, column) of sum one."""
    kernels = trace.plan.engine.kernels
    if m is None or m.window is None:
        x, met_by = layer.met(kernels, x), weights[:, None]
    else:
        met_by = _weights_of_taps(weights, m.window)
    units = kernels.swapped(x.reshape(*x.shape, 1)).reshape(len(x), x.shape[-1], x.shape[-2])
    sums = kernels.gram(units, kernels.given(met_by.astype(x.dtype)))
    return np.asarray((sums**2).sum(axis=(1, 2)))


def _weights_of_taps(weights: FloatArray, window: Window) -> FloatArray:
    """By how much each tap weighs every column if patches are summed by these weights, (replicate, tap, column)."""
    seen = neighbours(*window)
    grid = weights.reshape(len(weights), -1, len(seen))
    out = np.zeros((len(grid), window.taps, *grid.shape[1:]))
    for tap, there in enumerate(seen.T):
        own = np.flatnonzero(there >= 0)
        out[:, tap, :, there[own]] = grid[..., own].transpose(2, 0, 1)
    return out.reshape(len(grid), window.taps, -1)


# (map, its layer, what the layer takes) -> products of the columns that the map meets.
Product = Callable[[Map | None, Layer, NDArray[Any]], FloatArray]


def _met(trace: Trace, product: Product) -> list[FloatArray]:
    """What is expected of `product` over every map's units, given its last weights' input: (replicate, …) each."""
    out = []
    for i, record in zip(trace.plan.net.maps, trace.maps, strict=True):
        g = _expected(trace.plan.net.layers[i], record, product)
        out.append(np.broadcast_to(g, (trace.site.count, *g.shape[1:])))
    return out


def _expected(layer: Layer, record: Record, product: Product) -> FloatArray:
    """σ_b² + (σ_w²/fan_in) · product of the columns that a map meets; of a block the trunk's and its last map's, which
    are uncorrelated. layer is that of the network that is claimed, record may be of a mutant's."""
    m = layer.random_map
    if m is not None:
        return np.asarray(m.sigma_b2 + m.sigma_w2 / m.fan_in * product(m, layer, record.x))
    assert isinstance(layer, Residual)
    trunk = product(None, layer, record.x) / record.x.shape[-1]
    last = layer.branch[-1]
    if last.random_map is None:  # nothing is known of it from below: what it is itself
        return np.asarray(product(None, layer, record.y) / record.y.shape[-1])
    return np.asarray(trunk + layer.scale**2 * _expected(last, record.saved[-1], product))


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
        delta = r.gy.reshape(trace.site.count, len(trace.plan.x), -1)  # all positions' units of an input
        out.append(gram(delta, delta))
    return np.stack(out, axis=1)


def tangent_gram(trace: Trace) -> FloatArray:
    """(1/n_l) Σ_i dh_it dh_iu for each input, a sum over positions,
    (replicate, layer, input, direction, direction)."""
    kernels = trace.plan.engine.kernels
    out = []
    for r in trace.maps:
        assert r.dy is not None
        replicates, directions = r.dy.shape[:2]
        inputs, units = len(trace.plan.x), r.dy.shape[-1]
        apart = r.dy.reshape(replicates, directions, inputs, -1)
        v = kernels.swapped(apart).reshape(replicates * inputs, directions, -1)
        out.append((kernels.gram(v, v) / units).reshape(replicates, inputs, directions, directions))
    return np.stack(out, axis=1)


def _by_input(trace: Trace, values: FloatArray) -> FloatArray:
    """(replicate, column) as (replicate, input, position)."""
    return values.reshape(len(values), len(trace.plan.x), -1)
