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


class _Thread(threading.local):
    """A thread's blocks, the next free place in them, and whether arrays are taken from there."""

    def __init__(self) -> None:
        self.blocks: list[NDArray[np.uint8]] = []
        self.block = 0
        self.offset = 0
        self.active = False


_mine = _Thread()


def empty(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """An uninitialised C-contiguous array."""
    if not _mine.active:
        return np.empty(shape, dtype)
    dtype = np.dtype(dtype)
    size = -(-math.prod(shape) * dtype.itemsize // _ALIGNMENT) * _ALIGNMENT
    while _mine.block < len(_mine.blocks) and _mine.offset + size > len(_mine.blocks[_mine.block]):
        _mine.block, _mine.offset = _mine.block + 1, 0
    if _mine.block == len(_mine.blocks):
        _mine.blocks.append(np.empty(max(size, _BLOCK), np.uint8))
    out: NDArray[Any] = np.ndarray(shape, dtype, _mine.blocks[_mine.block], _mine.offset)
    _mine.offset += size
    return out


@contextmanager
def reused() -> Iterator[None]:
    """Take arrays from the thread's blocks, from their beginning; within another `reused` nothing changes."""
    if _mine.active:
        yield
        return
    _mine.active, _mine.block, _mine.offset = True, 0, 0
    try:
        yield
    finally:
        _mine.active = False


@contextmanager
def scratch() -> Iterator[None]:
    """What is taken within is free again afterwards."""
    block, offset = _mine.block, _mine.offset
    yield
    _mine.block, _mine.offset = block, offset


def release() -> None:
    """Give the thread's blocks back to the system."""
    if not _mine.active:
        _mine.blocks.clear()
