"""Patches and their adjoint compiled by numba: kernels/patches.py, one column after another."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mcverify.kernels import memory
from mcverify.kernels.linear_cpu import packed
from mcverify.kernels.patches import Window, neighbours

Array = NDArray[Any]


@njit(cache=True, nogil=True)
def _gather(x: Array, seen: Array, out: Array) -> None:
    """x (grid, position, units) → out (grid, position, tap, units)."""
    for g in range(len(x)):
        for p in range(seen.shape[0]):
            for t in range(seen.shape[1]):
                if seen[p, t] >= 0:
                    out[g, p, t] = x[g, seen[p, t]]
                else:
                    out[g, p, t] = 0


@njit(cache=True, nogil=True)
def _scatter(d: Array, seen: Array, out: Array) -> None:
    """d (grid, position, tap, units) → out (grid, position, units), added."""
    out[:] = 0
    for g in range(len(d)):
        for t in range(seen.shape[1]):
            for p in range(seen.shape[0]):
                if seen[p, t] >= 0:
                    to, part = out[g, seen[p, t]], d[g, p, t]
                    for u in range(len(to)):
                        to[u] += part[u]


def patches(x: Array, window: Window) -> Array:
    """(…, column, units) → (…, column, tap · units), as kernels.patches.patches."""
    seen, units = neighbours(*window), x.shape[-1]
    out = memory.empty((*x.shape[:-1], window.taps * units), x.dtype)
    _gather(packed(x).reshape(-1, len(seen), units), seen, out.reshape(-1, *seen.shape, units))
    return out


def fold(d: Array, window: Window) -> Array:
    """(…, column, tap · units) → (…, column, units), as kernels.patches.fold."""
    seen, units = neighbours(*window), d.shape[-1] // window.taps
    out = memory.empty((*d.shape[:-1], units), d.dtype)
    _scatter(packed(d).reshape(-1, *seen.shape, units), seen, out.reshape(-1, len(seen), units))
    return out


@njit(cache=True, nogil=True)
def _shifted_sums(gram: Array, seen: Array, out: Array) -> None:
    """gram, out (replicate, input, position, input, position)."""
    out[:] = 0
    for r in range(len(gram)):
        for a in range(gram.shape[1]):
            for p in range(seen.shape[0]):
                for b in range(gram.shape[3]):
                    to = out[r, a, p, b]
                    for t in range(seen.shape[1]):
                        if seen[p, t] >= 0:
                            row = gram[r, a, seen[p, t], b]
                            for other in range(seen.shape[0]):
                                if seen[other, t] >= 0:
                                    to[other] += row[seen[other, t]]


def patch_gram(gram: Array, window: Window) -> Array:
    """(…, column, column), as kernels.patches.patch_gram."""
    seen, columns = neighbours(*window), gram.shape[-1]
    apart = (-1, columns // len(seen), len(seen), columns // len(seen), len(seen))
    out = np.empty(gram.shape, gram.dtype)
    _shifted_sums(packed(gram).reshape(apart), seen, out.reshape(apart))
    return out
