"""The compiled deterministic primitives against the table and plain NumPy: φ, φ′, Gram matrices, memory."""

from __future__ import annotations

import numpy as np
import pytest

from mcverify import activations
from mcverify.kernels import arrays, cpu, memory

GRID = np.concatenate([np.linspace(-30, 30, 60_001), np.geomspace(1e-30, 1e30, 601), -np.geomspace(1e-30, 1e30, 601)])
NAMES = (*activations.names(), "leaky_relu(0.3)", "leaky_relu(-1)", "elu(2)")


@pytest.mark.parametrize("name", NAMES)
def test_activations_are_those_of_the_table(name):
    """float32 against the table in float64, at the same arguments; float64 is the table."""
    phi = activations.activation(name)
    h = GRID.astype(np.float32).reshape(1, 1, -1)
    with np.errstate(all="ignore"):
        value, slope = phi.phi(h.astype(np.float64)), phi.dphi(h.astype(np.float64))
    tame = np.abs(h) < 1e4 if name == "sin" else np.isfinite(h)  # beyond, an argument is not known to a radian
    for mine, table in ((cpu.activate(phi, h), value), (cpu.slope(phi, h), slope)):
        assert mine.dtype == np.float32
        np.testing.assert_allclose(mine[tame], table[tame], rtol=6e-7, atol=3e-7)
    d = np.random.default_rng(0).normal(size=(1, 3, 1, h.size)).astype(np.float32)
    for directions in (d, d[:, :1].copy()):
        pulled = cpu.slope_times(phi, h, directions)
        np.testing.assert_allclose(pulled, directions * cpu.slope(phi, h)[:, None], rtol=3e-7, atol=1e-30)
    wide = h.astype(np.float64)
    assert np.array_equal(cpu.activate(phi, wide), arrays.activate(phi, wide))


@pytest.mark.parametrize("name", NAMES)
def test_not_a_number_stays(name):
    phi = activations.activation(name)
    h = np.full((1, 1, 20), np.nan, np.float32)
    if name != "sign":
        assert np.isnan(cpu.activate(phi, h)).all()
    assert np.isnan(cpu.slope_times(phi, h, h[:, None])).all()


def test_an_activation_that_borrows_a_name_is_its_own():
    phi = activations.custom_activation("tanh", lambda u: 2 * np.asarray(u), lambda u: 2 + 0 * np.asarray(u))
    h = np.ones((1, 1, 5), np.float32)
    assert np.array_equal(cpu.activate(phi, h), 2 * h)
    assert np.array_equal(cpu.slope_times(phi, h, h[:, None]), 2 * h[:, None])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("columns", [1, 2, 3, 5, 8])
def test_gram_matrices(dtype, columns):
    rng = np.random.default_rng(columns)
    a, b = (rng.normal(size=(4, k, 2500)).astype(dtype) for k in (columns, 3))
    for one, two in ((a, a), (a, b), (a[:1], b), (a[:, :, ::2], b[:, :, ::2])):
        scale = np.sqrt(arrays.squares(one))[..., :, None] * np.sqrt(arrays.squares(two))[..., None, :]
        assert np.max(np.abs(cpu.gram(one, two) - arrays.gram(one, two)) / scale) < 1e-14
    np.testing.assert_allclose(cpu.squares(a), arrays.squares(a), rtol=1e-13)


def test_memory_is_used_again():
    with memory.reused():
        first = memory.empty((3, 5), np.float32)
        first[:] = 1
        with memory.scratch():
            memory.empty((7,), np.float64)
        second = memory.empty((1 << 23,), np.float64)  # more than a block
        second[-1] = 1
        address = first.ctypes.data
        assert first.flags.carray
        assert address % 16 == 0
    with memory.reused(), memory.reused():
        again = memory.empty((3, 5), np.float32)
        assert again.ctypes.data == address
        assert not np.shares_memory(again, memory.empty((3, 5), np.float32))
    assert memory.empty((2,), np.float32).base is None
    memory.release()
