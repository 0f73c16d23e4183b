"""Measurements that claims share: each takes a trace to an array whose first axis is the replicate."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mcverify.activations import Activation as Phi
from mcverify.claims.claim import Measure
from mcverify.correlation import mean_correlation
from mcverify.expectations import gaussian
from mcverify.layers.dropout import Dropout
from mcverify.layers.pooling import GlobalAveragePool
from mcverify.network import Network
from mcverify.simulation import observables
from mcverify.simulation.trace import Trace

FloatArray = NDArray[np.float64]

# Expectations at every replicate's own metric. Their error is a bias: it must be far below the standard error
# of the mean residual, which no affordable run brings under 1e-5 of the prediction.
_RTOL = 1e-7
_FEW_COLUMNS = 32  # up to which all pairs' products cost less than what the sum over columns needs


def one_step_layers(net: Network) -> list[tuple[int, Phi, float]]:
    """(l, φ, ρ) for every map l ≥ 1 whose output reaches map l + 1 through φ alone, or φ and dropout, position by
    position: the square of a mean over positions is no function of the variances."""
    if not net.is_chain:
        return []
    steps = []
    gains = net.gains()
    for l, (here, _, phi) in enumerate(gains[:-1], start=1):
        between = net.layers[here + 1 : gains[l][0]]
        keep = math.prod(getattr(layer, "keep", 1.0) for layer in between)
        if phi is not None and not any(isinstance(layer, GlobalAveragePool) for layer in between):
            steps.append((l, phi, keep))
    return steps


def one_step_variance(trace: Trace) -> FloatArray:
    """Ĝ^{l+1}_aa over σ_w² ⟨φ²⟩/ρ + σ_b² at Ĝ^l, (replicate, step, input): mean one exactly.

    Given x^{l−1}, the units of h^l are i.i.d. N(0, Ĝ^l) for Gaussian weights. A ratio for each replicate, not
    of the means: it is an average over units whatever Ĝ^l is, where Ĝ^l itself is heavy-tailed in depth."""
    return np.stack(_one_step_ratios(trace), axis=1)


def one_step_gain(trace: Trace) -> FloatArray:
    """The mean of one_step_variance over the columns of each layer, whatever their grids, (replicate, step)."""
    return np.stack([ratio.mean(axis=-1) for ratio in _one_step_ratios(trace)], axis=1)


def _one_step_ratios(trace: Trace) -> list[FloatArray]:
    g = observables.metric_variances(trace)
    after = [g[l] for l, _, _ in one_step_layers(trace.plan.net)]
    return [_ratio(a, mapped) for a, mapped in zip(after, _mapped_variances(trace, g), strict=True)]


def one_step_covariance(trace: Trace) -> FloatArray:
    """(Ĝ^{l+1}_ab − C(Ĝ^l)_ab)/√(Q_aa Q_bb) for a < b, (replicate, step, pair): mean zero exactly, as above, and
    in units of a correlation."""
    net, g = trace.plan.net, observables.metric(trace)
    a, b = np.triu_indices(len(trace.plan.x), 1)
    scale = np.sqrt(np.stack(_mapped_variances(trace, observables.metric_variances(trace)), axis=1))
    out = []
    for step, (l, phi, _) in enumerate(one_step_layers(net)):
        m = net.random_map(net.maps[l])
        product = gaussian.covariance(phi, g[:, l - 1, a, a], g[:, l - 1, a, b], g[:, l - 1, b, b], rtol=_RTOL).value
        residual = g[:, l, a, b] - (m.sigma_w2 * product / _shared_keep(net, l) + m.sigma_b2)
        unit = scale[:, step, a] * scale[:, step, b]
        out.append(np.where(unit == 0, 0.0, residual / unit))
    return np.stack(out, axis=1)


def one_step_residual(trace: Trace) -> FloatArray:
    """(Ĝ^{l+1} − σ_w² A⋆E[φφ] − σ_b²)_ab/√(Q_aa Q_bb) at Ĝ^l for every pair of columns,
    (replicate, step, column, column): mean zero exactly, as above. Without dropout."""
    net, g = trace.plan.net, observables.metric(trace)
    out = []
    for l, phi, _ in one_step_layers(net):
        m, q = net.random_map(net.maps[l]), np.diagonal(g[:, l - 1], axis1=-2, axis2=-1)
        product = gaussian.covariance(phi, q[:, :, None], g[:, l - 1], q[:, None, :], rtol=_RTOL).value
        mapped = m.sigma_w2 * net.layers[net.maps[l]].mean_met(product, 2) + m.sigma_b2
        root = np.sqrt(np.diagonal(mapped, axis1=-2, axis2=-1))
        out.append((g[:, l] - mapped) / (root[:, :, None] * root[:, None, :]))
    return np.stack(out, axis=1)


def _shared_keep(net: Network, l: int) -> float:
    """By what masks that inputs share divide their cross terms, between maps l and l + 1."""
    masks = [v for v in net.layers[net.maps[l - 1] : net.maps[l]] if isinstance(v, Dropout)]
    return math.prod(v.keep for v in masks if v.shared)


def _mapped_variances(trace: Trace, g: list[FloatArray]) -> list[FloatArray]:
    """Q(Ĝ^l_aa) for every step, (replicate, column) each, from Ĝ's diagonals."""
    net = trace.plan.net
    out = []
    for l, phi, keep in one_step_layers(net):
        here, above = net.maps[l - 1], net.maps[l]
        second = np.asarray(gaussian.second_moment(phi, g[l - 1], rtol=_RTOL).value)
        for layer in net.layers[here + 1 : above + 1]:
            second = layer.mean_met(second)
        m = net.random_map(above)
        out.append(m.sigma_w2 * second / keep + m.sigma_b2)
    return out


def mean_map_gain(trace: Trace) -> FloatArray:
    """The mean of q^l_aa / Ĝ^l_aa over the columns of each layer, whatever their grids, (replicate, layer): one on
    average given the layer below, for every weight law here."""
    return np.stack([ratio.mean(axis=-1) for ratio in _map_ratios(trace)], axis=1)


def _map_ratios(trace: Trace) -> list[FloatArray]:
    squares = trace.plan.engine.kernels.squares
    q = [squares(r.y) / r.y.shape[-1] for r in trace.maps]
    return [_ratio(a, b) for a, b in zip(q, observables.metric_variances(trace), strict=True)]


def _ratio(value: FloatArray, mean: FloatArray) -> FloatArray:
    """value/mean, and 1 where both are zero below a dead layer: its mean there, so that no mean is moved."""
    return np.where((mean == 0) & (value == 0), 1.0, value / mean)


def flat(measure: Measure) -> Measure:
    """All layers and inputs of a measurement as components, (replicate, layer·input)."""
    return lambda trace: measure(trace).reshape(trace.site.count, -1)


def by_layer(measure: Measure) -> Measure:
    """The mean over inputs or pairs of a measurement, (replicate, layer)."""
    return lambda trace: measure(trace).mean(axis=-1)


def log_length_gain(trace: Trace) -> FloatArray:
    """log Ĝ^{l+1}_aa/Ĝ^l_aa, Ĝ the mean over positions, l = 1 … L − 1, the mean over inputs, (replicate, L − 1)."""
    g = observables.metric_lengths(trace)
    return np.log(g[:, 1:] / g[:, :-1]).mean(axis=-1)


def correlations(trace: Trace) -> FloatArray:
    """The mean correlation of Ĝ^l between different columns, l = 2 … L (the first is not random), (replicate, L − 1);
    without the layers of a single column."""
    columns = [len(trace.plan.x) * p for p in trace.plan.net.positions]
    if max(columns) > _FEW_COLUMNS:
        return np.stack(observables.mean_correlations(trace), axis=1)
    return np.stack([mean_correlation(g) for g in observables.metrics(trace)[1:] if g.shape[-1] > 1], axis=1)


def metric_diagonal(trace: Trace) -> FloatArray:
    """Ĝ^L_aa of the last layer, (replicate, input)."""
    return np.diagonal(observables.metric(trace)[:, -1], axis1=-2, axis2=-1)


def log_gradient_gain(trace: Trace) -> FloatArray:
    """log ‖δ^l_a‖²/‖δ^{l+1}_a‖², l = 1 … L − 1, the mean over inputs, (replicate, L − 1).

    Per-layer log-ratios are light-tailed where the product over layers is not."""
    norms = np.diagonal(observables.grad_gram(trace), axis1=-2, axis2=-1)
    return np.log(norms[:, :-1] / norms[:, 1:]).mean(axis=-1)


def dead(trace: Trace) -> NDArray[np.bool_]:
    """Which networks have a layer that is zero for some input, (replicate,): its logarithms do not exist."""
    return np.asarray((observables.length(trace) == 0).any(axis=(1, 2)))
