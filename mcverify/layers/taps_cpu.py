"""The weighted sum over a kernel's taps of a large covariance, both positions moving together: compiled, rows over
threads."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mcverify import threads

Array = NDArray[Any]

_ROWS = 128


def weighted_sum(cov: Array, seen: NDArray[np.intp], weights: Array, shift: float) -> Array:
    """shift + Σ over taps of weight · cov at (p + β, p′ + β). seen (position, tap): where each tap looks, −1 beyond a
    border, where it adds nothing."""
    runs, first = _runs(seen)
    out = np.empty(cov.shape)

    def some(start: int) -> None:
        _sum(cov, seen, runs, first, weights, shift, start, min(start + _ROWS, len(cov)), out)

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
def _sum(
    cov: Array, seen: Array, runs: Array, first: Array, weights: Array, shift: float, start: int, stop: int, out: Array
) -> None:
    positions, taps = seen.shape
    for r in range(start, stop):
        base, row = r // positions * positions, out[r]
        row[:] = shift
        for tap in range(taps):
            there = seen[r - base, tap]
            if there < 0:
                continue
            weight, seen_row = weights[tap], cov[base + there]
            for k in range(first[tap], first[tap + 1]):
                to, origin, length = runs[k]
                for column in range(0, len(row), positions):
                    here = row[column + to : column + to + length]
                    other = seen_row[column + origin : column + origin + length]
                    for i in range(length):
                        here[i] += weight * other[i]
