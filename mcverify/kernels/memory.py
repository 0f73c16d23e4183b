"""Memory for a chunk's arrays, used again for the next chunk: fresh pages cost more than the numbers in them.

Within `reused()` the kernels' results lie one after another in blocks that belong to the thread. When it ends
they are no longer anybody's, so what is to be kept must be copied out. Outside, `empty` is numpy.empty.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1 << 24
_ALIGNMENT = 64


class _Arena:
    """A thread's blocks, the next free place in them, and whether arrays are taken from there."""

    def __init__(self) -> None:
        self.blocks: list[NDArray[np.uint8]] = []
        self.block = 0
        self.offset = 0
        self.active = False
        self.taken: dict[Any, int] = {}

    def take(self, size: int) -> tuple[NDArray[np.uint8], int]:
        """(block, offset) of that many bytes."""
        while self.block < len(self.blocks):
            block, offset = self.blocks[self.block], self.offset
            if offset + size <= block.size:
                self.offset = offset + -(-size // _ALIGNMENT) * _ALIGNMENT
                return block, offset
            self.block, self.offset = self.block + 1, 0
        self.blocks.append(np.empty(max(size, _BLOCK), np.uint8))
        return self.take(size)


class _Mine(threading.local):
    """Each thread's own arena."""

    def __init__(self) -> None:
        self.arena = _Arena()


_mine = _Mine()


def empty(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """An uninitialised C-contiguous array."""
    arena = _mine.arena
    if not arena.active:
        return np.empty(shape, dtype)
    dtype = np.dtype(dtype)
    block, offset = arena.take(math.prod(shape) * dtype.itemsize)
    return np.ndarray(shape, dtype, block, offset)


@contextmanager
def reused() -> Iterator[None]:
    """Take arrays from the thread's blocks, from their beginning; within another `reused` nothing changes."""
    arena = _mine.arena
    if arena.active:
        yield
        return
    arena.active, arena.block, arena.offset = True, 0, 0
    arena.taken = {}
    try:
        yield
    finally:
        arena.active = False


def taken() -> dict[Any, int] | None:
    """For backends with memory of their own: how many arrays of each kind the thread has taken; None outside `reused`.
    `scratch` sets it back."""
    arena = _mine.arena
    return arena.taken if arena.active else None


@contextmanager
def scratch() -> Iterator[None]:
    """What is taken within is free again afterwards."""
    arena = _mine.arena
    block, offset, taken = arena.block, arena.offset, dict(arena.taken)
    yield
    arena.block, arena.offset, arena.taken = block, offset, taken


def release() -> None:
    """Give the thread's blocks back to the system."""
    arena = _mine.arena
    if not arena.active:
        arena.blocks.clear()
