"""What the machine can do at most: normals, float32 products, copies. Every figure is put beside its floor.

A floor is the time that the work would take if one resource were all: numbers to generate ÷ the measured rate of
normals, operations ÷ the measured rate of a float32 product, bytes ÷ the measured bandwidth of a copy. The largest
of them is a computation's floor. The rates are benchmarks of their own in the same run (test_bench_floors.py); of
several products the fastest counts: NumPy's OpenBLAS does not know every processor, and then has half the speed.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench import own

CORES = 2
# Normals are drawn into a buffer that stays in the second-level cache.
NORMALS = 1 << 16
CALLS = 64
SIDE = 2000
COPY_BYTES = 1 << 28


def normals_everywhere() -> tuple[Callable[[], Any], float]:
    """(function, normals in one call): float32, every core at once, the fastest instruction set."""
    pool = ThreadPoolExecutor(CORES)

    def some(_: int) -> None:
        draw = own.normals(NORMALS, "float32")
        for _ in range(CALLS):
            draw()

    return lambda: list(pool.map(some, range(CORES))), float(CORES * CALLS * NORMALS)


def copy() -> tuple[Callable[[], Any], float]:
    """(function, bytes in one call, those read and those written): a copy beyond the caches, every core."""
    source = np.ones((CORES, COPY_BYTES // (4 * CORES)), np.float32)
    target = np.zeros_like(source)
    pool = ThreadPoolExecutor(CORES)
    return lambda: list(pool.map(np.copyto, target, source)), 2.0 * COPY_BYTES


@dataclass(frozen=True)
class Floor:
    """Seconds that each resource alone would need."""

    seconds: dict[str, float]

    @property
    def largest(self) -> str:
        """The resource that binds."""
        return max(self.seconds, key=lambda name: self.seconds[name])

    @property
    def total(self) -> float:
        """The floor: the largest of them."""
        return self.seconds[self.largest]


def floor(needs: dict[str, float], rates: dict[str, float]) -> Floor:
    """The floor of work that needs so many normals, flops and bytes, at the measured rates."""
    return Floor({name: amount / rates[name] for name, amount in needs.items()})
