"""The mean over a kernel's taps of a large covariance, both positions moving together: compiled, rows over threads."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mcverify import threads
from mcverify.kernels.patches import Grid, neighbours

Array = NDArray[Any]

_ROWS = 128


def mean(cov: Array, size: Grid, kernel: Grid, padding: str, scale: float, shift: float) -> Array:
    """shift + scale · the mean over taps of cov at (p + β, p′ + β), a tap beyond the border adding nothing."""
    seen = neighbours(size, kernel, padding)
    runs, first = _runs(seen)
    out = np.empty(cov.shape)

    def some(start: int) -> None:
        _mean(cov, seen, runs, first, scale, shift, start, min(start + _ROWS, len(cov)), out)

    threads.each(some, range(0, len(cov), _ROWS))
    return out


def _runs(seen: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(to, from, length) of positions that a tap moves together, and where each tap's runs begin."""
    runs, first = [], [0]
    for there in seen.T:
        at = np.flatnonzero(there >= 0)
        cuts = np.flatnonzero((np.diff(at) != 1) | (np.diff(there[at]) != 1)) + 1
        runs += [(run[0], there[run[0]], len(run)) for run in np.split(at, cuts) if len(run)]
        first.append(len(runs))
    return np.array(runs, np.intp).reshape(-1, 3), np.array(first, np.intp)


@njit(cache=True, nogil=True, error_model="numpy")
def _mean(
    cov: Array, seen: Array, runs: Array, first: Array, scale: float, shift: float, start: int, stop: int, out: Array
) -> None:
    positions, taps = seen.shape
    for r in range(start, stop):
        base, row = r // positions * positions, out[r]
        row[:] = 0.0
        for tap in range(taps):
            there = seen[r - base, tap]
            if there < 0:
                continue
            seen_row = cov[base + there]
            for k in range(first[tap], first[tap + 1]):
                to, origin, length = runs[k]
                for column in range(0, len(row), positions):
                    here = row[column + to : column + to + length]
                    other = seen_row[column + origin : column + origin + length]
                    for i in range(length):
                        here[i] += other[i]
        for i in range(len(row)):
            row[i] = scale * (row[i] / taps) + shift
