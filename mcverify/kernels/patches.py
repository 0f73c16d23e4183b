"""Patches: what a convolution's kernel sees around every position, and the adjoint that folds them back.

A position is a point of a grid of `size`, the last axis running fastest. A kernel of k taps along an axis looks at
the offsets −⌊(k − 1)/2⌋ … ⌊k/2⌋, so that an even one looks one step further to the right. Beyond a border
the grid begins again ("circular") or there is nothing ("zeros").
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Grid = tuple[int, ...]


class Window(NamedTuple):
    """What a convolution's kernel sees: `patches(x, *window)`."""

    size: Grid
    kernel: Grid
    padding: str

    @property
    def taps(self) -> int:
        """How many positions the kernel looks at."""
        return math.prod(self.kernel)


@lru_cache(maxsize=64)
def neighbours(size: Grid, kernel: Grid, padding: str) -> NDArray[np.int32]:
    """(position, tap): the position that a tap looks at, −1 where there is nothing; taps in the order of the kernel's
    axes, the last running fastest. Read-only."""
    grid = np.indices(size).reshape(len(size), -1)
    taps = np.indices(kernel).reshape(len(kernel), -1)
    start = np.array([(k - 1) // 2 for k in kernel])
    at = grid[:, :, None] + (taps - start[:, None])[:, None, :]
    limits = np.array(size)[:, None, None]
    inside = ((at >= 0) & (at < limits)).all(axis=0)
    flat = np.ravel_multi_index(tuple(at % limits), size)
    out = (flat if padding == "circular" else np.where(inside, flat, -1)).astype(np.int32)
    out.setflags(write=False)
    return out


def patches(x: Array, window: Window) -> Array:
    """(…, column, units) → (…, column, tap · units): at every position what the taps see, units running fastest.

    A column is an (input, position)."""
    seen = neighbours(*window)
    grid = x.reshape(*x.shape[:-2], -1, seen.shape[0], x.shape[-1])
    out = np.take(grid, seen, axis=-2)  # −1 takes the last position, and is blanked
    out[..., seen < 0, :] = 0
    return out.reshape(*x.shape[:-1], -1)


def shifted(x: Array, size: Grid, axis: int, step: int) -> Array:
    """x(p + step e) on a circular grid, e along an axis: (…, column, units) → the same shape."""
    grid = x.reshape(*x.shape[:-2], -1, *size, x.shape[-1])
    return np.roll(grid, -step, axis=axis - len(size) - 1).reshape(x.shape)


def fold(d: Array, window: Window) -> Array:
    """The adjoint of `patches`: (…, column, tap · units) → (…, column, units), each entry added where it was seen."""
    seen = neighbours(*window)
    positions, taps = seen.shape
    units = d.shape[-1] // taps
    parts = d.reshape(*d.shape[:-2], -1, positions, taps, units)
    out = np.zeros((*parts.shape[:-3], positions, units), d.dtype)
    for tap in range(taps):  # a tap sees no position twice, so that plain indexing adds right
        there = seen[:, tap] >= 0
        out[..., seen[there, tap], :] += parts[..., there, tap, :]
    return out.reshape(*d.shape[:-1], units)


def patch_gram(gram: Array, window: Window) -> Array:
    """Inner products of patches from those of positions, (…, column, column): Σ_β gram[p + β, p′ + β]."""
    seen = neighbours(*window)
    inputs = gram.shape[-1] // len(seen)
    first = len(seen) * np.arange(inputs)[:, None]
    out = np.zeros_like(gram)
    for there in seen.T:
        at, inside = (first + there).ravel(), np.tile(there >= 0, inputs)  # −1 is blanked
        out += gram[..., at[:, None], at] * (inside[:, None] & inside)
    return out
