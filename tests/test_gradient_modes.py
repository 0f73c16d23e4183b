"""How many modes a gradient's positions have, against stored weights of linear networks in numpy."""

from __future__ import annotations

import numpy as np
import pytest

import mcverify as mv
from mcverify.theory.gradient_modes import mode_shares


def sampled(size, kernel, channels, depth, samples):
    """tr A(Γ)² and (tr Γ)² from the top down, (depth − 1, sample) each, by stored weights on a torus."""
    rng = np.random.default_rng(3)
    axes = tuple(range(1, 1 + len(size)))
    delta = rng.normal(size=(samples, *size, channels))
    taps = list(np.ndindex(*kernel))
    out = []
    for _ in range(depth - 1):
        seen = [np.roll(delta, tap, axes) for tap in taps]
        flat = [v.reshape(samples, -1, channels) for v in seen]
        met = sum(v @ np.swapaxes(v, 1, 2) for v in flat) / len(taps)  # A(Γ), whatever the kernel's centre
        out.append(((met**2).sum(axis=(1, 2)), np.trace(met, axis1=1, axis2=2) ** 2))
        w = rng.normal(size=(len(taps), samples, channels, channels)) / np.sqrt(channels * len(taps))
        delta = sum(np.einsum("n...i,nij->n...j", v, u) for v, u in zip(seen, w, strict=True))
    return (np.stack(v) for v in zip(*out, strict=True))


@pytest.mark.parametrize(("size", "kernel", "channels"), [((5,), (3,), 6), ((3, 4), (2, 3), 4)])
def test_shares_are_those_of_stored_weights(size, kernel, channels):
    """Ratios of means over networks, within five standard errors by the delta method; shares that do not grow are
    not."""
    spread, norm = sampled(size, kernel, channels, 5, 6000)
    found = mode_shares(size, kernel, channels, 5)
    ratio = spread.mean(axis=1) / norm.mean(axis=1)
    each = (spread - ratio[:, None] * norm) / norm.mean(axis=1, keepdims=True)
    se = each.std(axis=1) / np.sqrt(each.shape[1])
    assert (np.abs(ratio - found) < 5 * se).all()
    assert np.abs(ratio[-1] - found[0]) > 5 * se[-1]


def test_one_position_is_one_mode_and_infinite_width_white():
    np.testing.assert_allclose(mode_shares((1,), (1,), 16, 4), 1.0, rtol=1e-14)
    np.testing.assert_allclose(mode_shares((6,), (3,), 10**9, 4), 1 / 6, rtol=1e-7)


def test_large_grids_are_refused():
    with pytest.raises(mv.InputError, match="at most 256 positions"):
        mode_shares((32, 32), (3, 3), 64, 4)
