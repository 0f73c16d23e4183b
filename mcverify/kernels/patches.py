"""Patches: what a convolution's kernel sees around every position, and the adjoint that folds them back.

A position is a point of a grid of `size`, the last axis running fastest. A kernel of k taps along an axis looks at
the offsets −⌊(k − 1)/2⌋ … ⌊k/2⌋, so that an even one looks one step further to the right. Beyond a border
the grid begins again ("circular") or there is nothing ("zeros").
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Grid = tuple[int, ...]


@lru_cache(maxsize=64)
def neighbours(size: Grid, kernel: Grid, padding: str) -> NDArray[np.intp]:
    """(position, tap): the position that a tap looks at, −1 where there is nothing; taps in the order of the kernel's
    axes, the last running fastest. Read-only."""
    grid = np.indices(size).reshape(len(size), -1)
    taps = np.indices(kernel).reshape(len(kernel), -1)
    start = np.array([(k - 1) // 2 for k in kernel])
    at = grid[:, :, None] + (taps - start[:, None])[:, None, :]
    limits = np.array(size)[:, None, None]
    inside = ((at >= 0) & (at < limits)).all(axis=0)
    flat = np.ravel_multi_index(tuple(at % limits), size)
    out = flat if padding == "circular" else np.where(inside, flat, -1)
    out.setflags(write=False)
    return out


def patches(x: Array, size: Grid, kernel: Grid, padding: str) -> Array:
    """(…, column, units) → (…, column, tap · units): at every position what the taps see, units running fastest.

    A column is an (input, position)."""
    seen = neighbours(size, kernel, padding)
    grid = x.reshape(*x.shape[:-2], -1, seen.shape[0], x.shape[-1])
    out = np.take(grid, seen, axis=-2)  # −1 takes the last position, and is blanked
    out[..., seen < 0, :] = 0
    return out.reshape(*x.shape[:-1], -1)


def shifted(x: Array, size: Grid, axis: int, step: int) -> Array:
    """x(p + step e) on a circular grid, e along an axis: (…, column, units) → the same shape."""
    grid = x.reshape(*x.shape[:-2], -1, *size, x.shape[-1])
    return np.roll(grid, -step, axis=axis - len(size) - 1).reshape(x.shape)


def fold(d: Array, size: Grid, kernel: Grid, padding: str) -> Array:
    """The adjoint of `patches`: (…, column, tap · units) → (…, column, units), each entry added where it was seen."""
    seen = neighbours(size, kernel, padding)
    positions, taps = seen.shape
    units = d.shape[-1] // taps
    parts = d.reshape(*d.shape[:-2], -1, positions, taps, units)
    out = np.zeros((*parts.shape[:-3], positions, units), d.dtype)
    for tap in range(taps):  # a tap sees no position twice, so that plain indexing adds right
        there = seen[:, tap] >= 0
        out[..., seen[there, tap], :] += parts[..., there, tap, :]
    return out.reshape(*d.shape[:-1], units)
