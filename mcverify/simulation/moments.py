"""Mergeable moments: count, mean and sum of squared deviations, accumulated in blocks of fixed size.

Blocks are aligned to the replicate's number, so the result does not depend on how replicates were cut
into chunks, or on the order in which chunks were computed, to the last bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

BLOCK = 256


class Moments:
    """Moments of a stream of replicates, fed in the order of their numbers."""

    def __init__(self) -> None:
        self.count = 0
        self.nonfinite = 0
        self.mean: FloatArray | None = None
        self.squares: FloatArray | None = None  # Σ (v − mean)², elementwise
        self._pending: list[FloatArray] = []

    def add(self, values: FloatArray) -> None:
        """Add (replicate, …) values."""
        axes = tuple(range(1, values.ndim))
        self.nonfinite += int((~np.isfinite(values)).any(axis=axes).sum())
        self._pending.append(values)
        waiting = sum(len(v) for v in self._pending)
        if waiting < BLOCK:
            return
        joined = np.concatenate(self._pending)
        full = waiting - waiting % BLOCK
        for i in range(0, full, BLOCK):
            self._merge(joined[i : i + BLOCK])
        self._pending = [joined[full:]] if waiting > full else []

    def finish(self) -> Moments:
        """Merge the last, partial block."""
        if self._pending:
            self._merge(np.concatenate(self._pending))
            self._pending = []
        return self

    def _merge(self, block: FloatArray) -> None:
        """Pairwise update (Chan, Golub & LeVeque 1983)."""
        n = len(block)
        mean = block.mean(axis=0)
        squares = ((block - mean) ** 2).sum(axis=0)
        if self.mean is None or self.squares is None:
            self.count, self.mean, self.squares = n, mean, squares
            return
        total = self.count + n
        delta = mean - self.mean
        self.mean = self.mean + delta * (n / total)
        self.squares = self.squares + squares + delta**2 * (self.count * n / total)
        self.count = total

    @property
    def variance(self) -> FloatArray:
        """The unbiased sample variance; NaN for fewer than two replicates."""
        assert self.squares is not None
        return self.squares / (self.count - 1) if self.count > 1 else np.full_like(self.squares, np.nan)

    @property
    def standard_error(self) -> FloatArray:
        """Standard error of the mean."""
        return np.sqrt(self.variance / self.count)
