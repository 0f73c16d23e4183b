"""The weighted sum over a kernel's taps of a large covariance, both positions moving together: compiled, rows over
threads.

The rows that some positions see are first copied with their grids widened by what lies beyond the borders, so that
each tap looks at one distance from every column; nor are copies a power of two apart, for the cache's sake.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mcverify import threads
from mcverify.kernels.patches import Window, neighbours

Array = NDArray[Any]
Indices = NDArray[np.intp]

_ROWS = 128
_COMPILED: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"contract"}}


def weighted_sum(cov: Array, window: Window, weights: Array, shift: float) -> Array:
    """shift + Σ over taps of weight · cov at (p + β, p′ + β), the shape of cov; weights (tap,), of which those that
    are 0 are left out. Beyond a border of zeros a tap adds nothing."""
    used = np.flatnonzero(weights)
    seen, weights = neighbours(*window)[:, used], weights[used]
    down, across, distances = _widened(window)
    out = np.empty(cov.shape)

    def some(start: int, first: int) -> None:
        rows = seen[first : first + _ROWS]
        held = np.unique(rows[rows >= 0])
        among = np.where(rows >= 0, np.searchsorted(held, rows), -1)
        of_input, here = cov[start : start + len(seen)], out[start + first : start + first + len(rows)]
        _sum(of_input, held, among, weights, shift, window.size[-1], down, across, distances[used], here)

    chunks = itertools.product(range(0, len(cov), len(seen)), range(0, len(seen), _ROWS))
    threads.each(lambda chunk: some(*chunk), chunks)
    return out


def _widened(window: Window) -> tuple[Indices, Indices, Indices]:
    """Which row, and which column, of the grid stands at each of a grid widened by what a kernel sees beyond its
    borders, −1 for nothing; and how far from the first each tap looks in it, (tap,)."""
    plane = ((1, *window.size)[-2:], (1, *window.kernel)[-2:])
    down, across = (
        at % n if window.padding == "circular" else np.where((at >= 0) & (at < n), at, -1)
        for at, n in ((np.arange(n + k - 1) - (k - 1) // 2, n) for n, k in zip(*plane, strict=True))
    )
    height, width = plane[1]
    return down, across, (np.arange(height)[:, None] * len(across) + np.arange(width)).ravel()


@njit(**_COMPILED)
def _copy(a: Array, out: Array) -> None:
    for i in range(len(out)):
        out[i] = a[i]


@njit(**_COMPILED)
def _widen(row: Array, down: Array, across: Array, side: int, out: Array) -> None:
    """A grid of rows of `side` entries, widened."""
    wide, left = len(across), (len(across) - side) // 2
    for y in range(len(down)):
        to, first = out[y * wide :], down[y] * side
        if first < 0:
            to[:wide] = 0.0
            continue
        _copy(row[first:], to[left : left + side])
        for x in range(left):
            to[x] = row[first + across[x]] if across[x] >= 0 else 0.0
        for x in range(left + side, wide):
            to[x] = row[first + across[x]] if across[x] >= 0 else 0.0


@njit(**_COMPILED)
def _add_three(out: Array, a: Array, b: Array, c: Array, p: float, q: float, r: float) -> None:
    for i in range(len(out)):
        out[i] += p * a[i] + q * b[i] + r * c[i]


@njit(**_COMPILED)
def _add(out: Array, a: Array, p: float) -> None:
    for i in range(len(out)):
        out[i] += p * a[i]


@njit(**_COMPILED)
def _sum(
    cov: Array, held: Array, among: Array, weights: Array, shift: float, side: int, down: Array, across: Array,
    distances: Array, out: Array,
) -> None:  # fmt: skip
    """Some rows of one input. cov (position, column), held: the positions that these rows see, among (row, tap): which
    of those, or −1; out (row, column)."""
    positions, wide, taps = len(cov), len(across), among.shape[1]
    rows, total = np.empty((len(held), len(down) * wide)), np.empty((positions // side - 1) * wide + side)
    for column in range(0, cov.shape[1], positions):
        for k in range(len(held)):
            _widen(cov[held[k], column : column + positions], down, across, side, rows[k])
        for r in range(len(out)):
            total[:] = shift
            tap = 0
            while tap < taps:
                a = among[r, tap]
                if a >= 0 and tap + 2 < taps and among[r, tap + 1] >= 0 and among[r, tap + 2] >= 0:
                    b, c = among[r, tap + 1], among[r, tap + 2]
                    _add_three(
                        total, rows[a, distances[tap] :], rows[b, distances[tap + 1] :], rows[c, distances[tap + 2] :],
                        weights[tap], weights[tap + 1], weights[tap + 2],
                    )  # fmt: skip
                    tap += 3
                    continue
                if a >= 0:
                    _add(total, rows[a, distances[tap] :], weights[tap])
                tap += 1
            for y in range(positions // side):
                _copy(total[y * wide :], out[r, column + y * side : column + (y + 1) * side])
