"""What storing a residual stream in few bits does: against rounding itself, NumPy's float16, and enumeration."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import ndtr

import mcverify as mv
from mcverify.claims.taki2017_formats import rounded
from mcverify.errors import InputError
from mcverify.theory.number_format import HALF_LOST_LOAD, _numbers, kept_growth, moved_variance


def test_rounding_in_claims_is_that_of_numpys_formats():
    x = np.random.default_rng(3).normal(size=10_000)
    x = x[np.abs(x) > 2.0**-14]  # below are subnormal float16
    np.testing.assert_array_equal(rounded(x, 11), x.astype(np.float16))
    np.testing.assert_array_equal(rounded(x, 24), x.astype(np.float32))
    ties = 1 + np.arange(8) * 2.0**-4
    np.testing.assert_array_equal(rounded(ties, 4), [1, 1, 1.125, 1.25, 1.25, 1.25, 1.375, 1.5])


def test_numbers_of_a_format_are_those_of_numpy():
    """All float16 in [2⁻³, 8), where `finest` is the spacing at 2⁻³."""
    every = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(float)
    every = np.sort(every[(np.abs(every) >= 0.125) & (np.abs(every) < 8)])
    ours = _numbers(11, finest=2.0**-13, largest=8.0)
    np.testing.assert_array_equal(ours[(np.abs(ours) >= 0.125) & (np.abs(ours) < 8)], every)
    steps = np.diff(ours)
    assert steps.min() == 2.0**-13
    assert ours[len(ours) // 2] == 0.0


@pytest.mark.parametrize("load", [0.3, 1.0, 16.0, 64.0])
def test_one_block_by_enumeration(load):
    """Every bfloat16 from which N(0, s²) starts and at which it ends: half a percent is what crossings of binades are
    worth."""
    bits, s = 8, 2.0**-8 / math.sqrt(load)
    grid = _numbers(bits, finest=s / 8, largest=8.0)
    edges = 0.5 * (grid[1:] + grid[:-1])
    share = np.diff(ndtr(edges), prepend=0.0, append=1.0)
    moved = 0.0
    for x, p in zip(grid, share, strict=True):
        near = np.abs(grid - x) < 9 * s + 2.0 ** (math.floor(math.log2(max(abs(x), 1e-3))) - bits + 2)
        ends = grid[near]
        middle = 0.5 * (ends[1:] + ends[:-1])
        moved += p * (np.diff(ndtr((middle - x) / s), prepend=0.0, append=1.0) @ (ends - x) ** 2) / s**2
    assert moved_variance(s, bits) == pytest.approx(moved, rel=5e-3)


@pytest.mark.parametrize("load", [1.0, 64.0])
def test_one_block_in_numpys_own_float16(load):
    rng = np.random.default_rng(1)
    s, n = 2.0**-11 / math.sqrt(load), 400_000
    x = rng.normal(size=n).astype(np.float16)
    moved = (x.astype(float) + s * rng.normal(size=n)).astype(np.float16).astype(float) - x.astype(float)
    ratio = moved**2 / s**2
    wanted = moved_variance(s, 11)
    assert abs(ratio.mean() - wanted) < 4 * ratio.std() / math.sqrt(n) + 5e-3 * wanted


@pytest.mark.parametrize(("bits", "depth", "c"), [(4, 64, 0.25), (3, 60, 1.0)])
def test_a_streams_growth_by_rounding_it(bits, depth, c):
    """A wide stream itself: x ← round(x + N(0, c q/L)), to four standard errors of log q."""
    rng, n = np.random.default_rng(2), 200_000
    x = rounded(rng.normal(size=n), bits)
    for _ in range(depth):
        x = rounded(x + math.sqrt(c / depth * (x**2).mean()) * rng.normal(size=n), bits)
    growth = depth * math.log1p(c / depth)
    kept = kept_growth(bits, depth, c)
    assert abs(math.log((x**2).mean()) - kept * growth) < 4 * math.sqrt(2 * math.exp(c) * (1 + c) / n)
    assert 0.3 < kept < 0.9


def test_the_loss_is_a_function_of_the_load():
    """Of L/(c 4^p): the same for three and four bits, and a half at HALF_LOST_LOAD."""
    for load in (0.3, 1.0, 2.0):
        kept = [kept_growth(bits, round(load * 0.25 * 4**bits), 0.25) for bits in (3, 4)]
        assert abs(kept[0] - kept[1]) < 0.02
        assert abs(kept_growth(4, round(load * 4**4), 1.0) - kept[0]) < 0.07  # what c changes
    assert kept_growth(4, round(HALF_LOST_LOAD * 0.25 * 4**4), 0.25) == pytest.approx(0.5, abs=0.01)
    assert kept_growth(8, 4, 4.0) == pytest.approx(1.0, abs=1e-3)


def test_formats_by_name():
    """Half of the growth is lost after some 88,000 blocks in bfloat16, not below 10¹⁴ in float32."""
    limit = mv.depth_limit("bfloat16", 1024, 100)
    assert limit.load == 100 / 4**8
    assert limit.half_lost_at == pytest.approx(1.35 * 4**8)
    assert limit.moved == pytest.approx(1.0, abs=0.01)
    assert not limit.subnormal_weights
    assert mv.depth_limit("bfloat16", 1024, 64 * 4**8).moved == pytest.approx(0.368, abs=1e-3)
    assert mv.depth_limit("float32", 1024, 10**6).half_lost_at > 1e14
    assert not mv.depth_limit("float16", 2**10, 2**17).subnormal_weights
    assert mv.depth_limit("float16", 2**10, 2**19).subnormal_weights  # √(c/nL) < 2⁻¹⁴ from nL = 2²⁸ c on
    with pytest.raises(InputError, match="did you mean 'float16'"):
        mv.depth_limit("floa16", 4, 4)
    with pytest.raises(InputError, match="format: got"):
        mv.depth_limit(["float16"], 4, 4)
    with pytest.raises(InputError, match="depth: got 1000"):
        mv.depth_limit("float16", 4, 10**400)
    with pytest.raises(InputError, match="take fewer bits"):
        kept_growth(12, 10**6)
