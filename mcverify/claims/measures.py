"""Measurements that claims share: each takes a trace to (replicate, m) values, or to residual triples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mcverify.activations import Activation as Phi
from mcverify.expectations import gaussian
from mcverify.network import Network
from mcverify.simulation import observables
from mcverify.simulation.trace import Trace

FloatArray = NDArray[np.float64]

# Expectations at every replicate's own metric. Their error is a bias: it must be far below the standard error
# of the mean residual, which no affordable run brings under 1e-5 of the prediction.
_RTOL = 1e-7


def one_step_layers(net: Network) -> list[tuple[int, Phi, float]]:
    """(l, φ, ρ) for every map l ≥ 1 whose output reaches map l + 1 through φ alone, or φ and dropout."""
    steps = []
    gains = net.gains()
    for l, (here, _, phi) in enumerate(gains[:-1], start=1):
        keep = 1.0
        for layer in net.layers[here + 1 : gains[l][0]]:
            keep *= getattr(layer, "keep", 1.0)
        if phi is not None:
            steps.append((l, phi, keep))
    return steps


def _residual(residual: FloatArray, mapped: FloatArray) -> FloatArray:
    """Residual triples, (…, 3). The variance by theory, (σ_w⁴/n) Var φ_a φ_b, would cost a further quadrature
    a replicate; the squared residual stands in, whose mean it is."""
    return np.stack([residual, residual**2, mapped], axis=-1)


def one_step_variance(trace: Trace) -> FloatArray:
    """Residuals Ĝ^{l+1}_aa − (σ_w² ⟨φ²⟩/ρ + σ_b²) at Ĝ^l, (replicate, l·input, 3).

    Given x^{l−1}, the units of h^l are i.i.d. N(0, Ĝ^l) for Gaussian weights, so each has mean zero exactly."""
    net, g = trace.plan.net, observables.metric(trace)
    out = []
    for l, phi, keep in one_step_layers(net):
        dense = net.dense(net.maps[l])
        q, after = (np.diagonal(g[:, i], axis1=-2, axis2=-1) for i in (l - 1, l))
        mapped = dense.sigma_w2 * gaussian.second_moment(phi, q, rtol=_RTOL).value / keep + dense.sigma_b2
        out.append(_residual(after - mapped, mapped))
    return np.concatenate(out, axis=1)


def one_step_covariance(trace: Trace) -> FloatArray:
    """Residuals Ĝ^{l+1}_ab − (σ_w² E φ_a φ_b + σ_b²) for a < b, (replicate, l·pair, 3): mean zero exactly."""
    net, g = trace.plan.net, observables.metric(trace)
    a, b = np.triu_indices(len(trace.plan.x), 1)
    out = []
    for l, phi, _ in one_step_layers(net):
        dense = net.dense(net.maps[l])
        product = gaussian.covariance(phi, g[:, l - 1, a, a], g[:, l - 1, a, b], g[:, l - 1, b, b], rtol=_RTOL).value
        mapped = dense.sigma_w2 * product + dense.sigma_b2
        out.append(_residual(g[:, l, a, b] - mapped, mapped))
    return np.concatenate(out, axis=1)


def map_step(trace: Trace) -> FloatArray:
    """q^l_aa against Ĝ^l_aa, (replicate, l·input, 3): the map itself, for Gaussian weights.

    Given the layer below, n_l q^l_aa / Ĝ^l_aa is χ² with n_l degrees of freedom: variance 2 Ĝ²/n_l."""
    g = np.diagonal(observables.metric(trace), axis1=-2, axis2=-1)
    q = np.diagonal(observables.q(trace), axis1=-2, axis2=-1)
    widths = np.array(trace.plan.net.widths)[:, None]
    triple = np.stack([q - g, 2 * g**2 / widths, g], axis=-1)
    return triple.reshape(len(g), -1, 3)


def map_gain(trace: Trace) -> FloatArray:
    """q^l_aa / Ĝ^l_aa, (replicate, l·input): mean one given the layer below, for every weight law here."""
    g = np.diagonal(observables.metric(trace), axis1=-2, axis2=-1)
    q = np.diagonal(observables.q(trace), axis1=-2, axis2=-1)
    return (q / g).reshape(len(g), -1)


def log_length_gain(trace: Trace) -> FloatArray:
    """log Ĝ^{l+1}_aa/Ĝ^l_aa, l = 1 … L − 1, the mean over inputs, (replicate, L − 1)."""
    g = np.diagonal(observables.metric(trace), axis1=-2, axis2=-1)
    return np.log(g[:, 1:] / g[:, :-1]).mean(axis=-1)


def correlation(trace: Trace) -> FloatArray:
    """Ĝ^l_ab/√(Ĝ^l_aa Ĝ^l_bb), l = 2 … L, the mean over pairs of different inputs, (replicate, L − 1).

    The first is not random."""
    g = observables.metric(trace)[:, 1:]
    d = np.sqrt(np.diagonal(g, axis1=-2, axis2=-1))
    a, b = np.triu_indices(g.shape[-1], 1)
    return (g[..., a, b] / (d[..., a] * d[..., b])).mean(axis=-1)


def metric_diagonal(trace: Trace) -> FloatArray:
    """Ĝ^l_aa of the last layer, (replicate, input)."""
    return np.diagonal(observables.metric(trace)[:, -1], axis1=-2, axis2=-1)


def log_gradient_gain(trace: Trace) -> FloatArray:
    """log ‖δ^l_a‖²/‖δ^{l+1}_a‖², l = 1 … L − 1, the mean over inputs, (replicate, L − 1).

    Per-layer log-ratios are light-tailed where the product over layers is not."""
    norms = np.diagonal(observables.grad_gram(trace), axis1=-2, axis2=-1)
    return np.log(norms[:, :-1] / norms[:, 1:]).mean(axis=-1)
