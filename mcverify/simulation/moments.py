"""Mergeable moments: count, mean and sum of squared deviations, accumulated in blocks of fixed size.

Blocks are aligned to the replicate's number, so the result does not depend on how replicates were cut
into chunks, or on the order in which chunks were computed, to the last bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

BLOCK = 256
_WAITING = 1 << 25  # bytes of replicates that may wait for their block: large values have smaller ones


def _block(values: FloatArray) -> int:
    """Replicates in a block, a power of two: a function of one replicate's size alone."""
    size = max(1, values[0].nbytes)
    return max(1, min(BLOCK, 1 << max(0, (_WAITING // size).bit_length() - 1)))


class Moments:
    """Moments of a stream of replicates, fed in the order of their numbers; with cross=True, of vectors (m,) with
    all products between their entries."""

    def __init__(self, *, cross: bool = False) -> None:
        self.count = 0
        self.nonfinite = 0
        self.cross = cross
        self.mean: FloatArray | None = None
        self.squares: FloatArray | None = None  # Σ (v − mean)², elementwise, or Σ (v − mean)(v − mean)ᵀ
        self._pending: list[FloatArray] = []

    def add(self, values: FloatArray) -> None:
        """Add (replicate, …) values."""
        axes = tuple(range(1, values.ndim))
        self.nonfinite += int((~np.isfinite(values)).any(axis=axes).sum())
        self._pending.append(values)
        waiting = sum(len(v) for v in self._pending)
        block = _block(values)
        if waiting < block:
            return
        joined = np.concatenate(self._pending)
        full = waiting - waiting % block
        for i in range(0, full, block):
            self._merge(joined[i : i + block])
        self._pending = [joined[full:]] if waiting > full else []

    def copy(self) -> Moments:
        """A copy that may be finished while this one goes on."""
        twin = Moments(cross=self.cross)
        twin.__dict__.update(self.__dict__, _pending=list(self._pending))
        return twin

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
        squares = self._products(block - mean)
        if self.mean is None or self.squares is None:
            self.count, self.mean, self.squares = n, mean, squares
            return
        total = self.count + n
        delta = mean - self.mean
        self.mean = self.mean + delta * (n / total)
        self.squares = self.squares + squares + self._products(delta[None]) * (self.count * n / total)
        self.count = total

    def _products(self, deviations: FloatArray) -> FloatArray:
        if self.cross:  # not by BLAS, whose sums may depend on the number of threads
            return np.asarray(np.einsum("ri,rj->ij", deviations, deviations))
        return np.asarray((deviations**2).sum(axis=0))

    @property
    def variance(self) -> FloatArray:
        """The unbiased sample variance, or the covariance matrix; NaN for fewer than two replicates."""
        assert self.squares is not None
        return self.squares / (self.count - 1) if self.count > 1 else np.full_like(self.squares, np.nan)

    @property
    def standard_error(self) -> FloatArray:
        """Standard error of the mean."""
        return np.sqrt(self.variance / self.count)
