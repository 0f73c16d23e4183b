"""Log gains of gradients where only the mean over positions is left, against networks sampled in numpy."""

from __future__ import annotations

import numpy as np
import pytest

import mcverify as mv
from mcverify.theory.zero_mode import log_gains


def sampled(sigma_w2, sigma_b2, channels, depth, samples, *, taps=1):
    """log ‖δ^l‖²/‖δ^{l+1}‖², (sample, depth − 1), by stored weights: on a circle of `taps` equal positions, under as
    many taps, from q* and from one cotangent at all positions; the sum over taps is carried."""
    rng = np.random.default_rng(5)
    q = mv.phase("tanh", sigma_w2, sigma_b2).q
    x, scale = np.ones((samples, channels)), np.sqrt(sigma_w2 / channels / taps)
    maps, slopes = [], []
    for l in range(depth):
        w = (rng.normal(size=(samples, taps, channels, channels)) * scale).sum(axis=1)
        if l == 0:  # the first layer's q is given
            h = np.sqrt(q) * rng.normal(size=x.shape)
        else:
            h = np.einsum("rij,rj->ri", w, x) + np.sqrt(sigma_b2) * rng.normal(size=x.shape)
        x = np.tanh(h)
        maps.append(w)
        slopes.append(1 - x * x)
    delta, out = np.ones_like(x), []
    for l in range(depth - 1, 0, -1):
        below = slopes[l - 1] * np.einsum("rij,ri->rj", maps[l], delta)
        out.append(np.log((below**2).sum(axis=1) / (delta**2).sum(axis=1)))
        delta = below
    return np.stack(out[::-1], axis=1)


@pytest.mark.parametrize("taps", [1, 3])
def test_first_order_means_are_those_of_stored_weights(taps):
    """Within five standard errors, and half of depth/channels² for the order left out; no finite-width term is not."""
    channels, depth, point = 32, 7, (1.5, 0.05)
    r = sampled(*point, channels, depth, 4000 if taps == 1 else 1500, taps=taps)
    mean, se = r.mean(axis=0), r.std(axis=0) / np.sqrt(len(r))
    found = log_gains("tanh", *point, channels, depth).mean
    assert (np.abs(mean - found) < 5 * se + depth / channels**2 / 2).all()
    bare = np.log(mv.phase("tanh", *point).chi_1)
    assert (np.abs(mean - bare) > 5 * se + depth / channels**2 / 2).any()


def test_long_stretches_end_at_the_limit():
    gains = log_gains("tanh", 1.05, 2e-5, 64, 1503)
    assert gains.mean[700] == pytest.approx(gains.limit, rel=1e-10)
    assert gains.mean.sum() == pytest.approx(-24.45, abs=0.01)
    # Two chi-squared logarithms a layer, of forward and of backward, less what saturation takes: below 4/64.
    assert 3.5 / 64 < gains.variance < 4 / 64


def test_the_variance_of_a_long_sum_at_first_order():
    """Sums over 40 layers: 3.6/channels a layer at first order, of which the layers by themselves make 2.7. The sample
    variance is within four of its own standard errors, a fifth; what ends and the next order add is less."""
    point, channels, depth, samples = (1.5, 0.05), 48, 41, 800
    total = sampled(*point, channels, depth, samples).sum(axis=1)
    gains = log_gains("tanh", *point, channels, depth)
    tolerance = 4 * np.sqrt(2 / samples)
    assert total.var() / (depth - 1) == pytest.approx(gains.variance, rel=tolerance)
