"""Addressed random streams: what names a draw, and the NumPy reference of Philox4x32-10.

Nothing is consumed: a draw is a function of its address, so results do not depend on threads, chunks or
the order of work. The generator is that of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as
easy as 1, 2, 3" (SC 2011); their names are kept. The 128 bits of its counter are the address

    word 0   block index, bits 0..31
    word 1   block index, bits 32..47 | role (8 bits) << 16 | replicate, bits 32..39 << 24
    word 2   layer (32 bits)
    word 3   replicate, bits 0..31

and the key is the 64 bits of `stream_key`, low word first. Every counter is the address of one block and
no two addresses share one. Which block and word hold entry (row, col) of a matrix of draws, and how words
become numbers, is in docs/streams.md and, executable, in kernels/reference.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mcverify.errors import InputError

KEY_BITS = 64
LAYER_BITS = 32
REPLICATE_BITS = 40
ROLE_BITS = 8
BLOCK_BITS = 48

# A row of draws is padded to whole tiles of 16 blocks, so that vector lanes are blocks.
LANES = 16
WORDS_PER_BLOCK = 4

_MULTIPLIER_0 = np.uint64(0xD2511F53)
_MULTIPLIER_1 = np.uint64(0xCD9E8D57)
_WEYL_0 = 0x9E3779B9
_WEYL_1 = 0xBB67AE85
_ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


class Role(IntEnum):
    """What a draw is for; part of its address (8 bits)."""

    WEIGHT = 0
    BIAS = 1
    MASK = 2
    COTANGENT = 3
    TANGENT = 4
    INPUT = 5
    BACKWARD_WEIGHT = 6  # fresh, untied weights for the backward pass
    CONDITIONAL = 7  # outputs sampled without weights: a row for each column a map meets
    CONDITIONAL_TRANSPOSE = 8  # the same for its transpose
    CONDITIONAL_BIAS = 9  # what the transpose draws for the bias, dropped again after conditioning


def _fits(field: str, value: Any, bits: int) -> None:
    if not isinstance(value, (int, np.integer)) or not 0 <= value < 1 << bits:
        raise InputError(field, value, f"must be a whole number from 0 to 2^{bits} - 1")


def _is_count(field: str, value: Any) -> None:
    if not isinstance(value, (int, np.integer)) or value < 0:
        raise InputError(field, value, "must be a whole number, at least 0")


@dataclass(frozen=True)
class Site:
    """Address of one layer's draws in a run of replicates: everything but role and index.

    Raises InputError for a field outside its bits."""

    key: int  # 64 bits, from stream_key(seed, stream, phase)
    layer: int  # 32 bits
    start: int  # first replicate, 40 bits
    count: int  # how many replicates

    def __post_init__(self) -> None:
        _fits("site.key", self.key, KEY_BITS)
        _fits("site.layer", self.layer, LAYER_BITS)
        _fits("site.start", self.start, REPLICATE_BITS)
        _is_count("site.count", self.count)
        end = int(self.start) + int(self.count)
        if end > 1 << REPLICATE_BITS:
            raise InputError("site.start + site.count", end, f"must be at most 2^{REPLICATE_BITS}")

    def above(self, layers: int) -> Site:
        """The same replicates, `layers` further up; only what changes is checked again."""
        site = object.__new__(Site)
        site.__dict__.update(self.__dict__, layer=self.layer + layers)
        _fits("site.layer", site.layer, LAYER_BITS)
        return site


def stream_key(seed: int, stream: str = "", phase: str = "main") -> int:
    """The 64-bit key of a user's seed, a claim or user stream, and a phase (main, confirmation, mutant).

    The first eight bytes, low byte first, of the BLAKE2b hash of the three fields, each preceded by its
    length in eight bytes, so that no two triples are hashed from the same text.

    Raises InputError for a negative or fractional seed."""
    _is_count("seed", seed)
    digest = blake2b(b"mcverify stream 1")
    for field in (str(int(seed)), stream, phase):
        text = field.encode("utf-8", "surrogatepass")
        digest.update(len(text).to_bytes(8, "little"))
        digest.update(text)
    return int.from_bytes(digest.digest()[:8], "little")


def role_number(role: int) -> int:
    """The role as a plain number.

    Raises InputError when it does not fit its 8 bits."""
    _fits("role", role, ROLE_BITS)
    return int(role)


REALS = (np.dtype(np.float32), np.dtype(np.float64))


def draws_per_tile(dtype: Any) -> int:
    """How many draws the 16 blocks of a tile hold: 64 float32 or 32 float64.

    Raises InputError for any other type."""
    wanted = np.dtype(dtype)
    if wanted not in REALS:
        raise InputError("dtype", str(wanted), "must be float32 or float64")
    return LANES * WORDS_PER_BLOCK * 4 // wanted.itemsize


def tiles_per_row(rows: int, cols: int, dtype: Any) -> int:
    """Tiles of one row of a (rows, cols) matrix of draws.

    Raises InputError when the matrix does not fit the 48 bits of the block index."""
    _is_count("rows", rows)
    _is_count("cols", cols)
    tiles = -(-int(cols) // draws_per_tile(dtype))
    if int(rows) * tiles * LANES > 1 << BLOCK_BITS:
        raise InputError("(rows, cols)", (rows, cols), f"its draws must fit 2^{BLOCK_BITS} blocks of 4 words")
    return tiles


def philox(counter: ArrayLike, key: int) -> NDArray[np.uint32]:
    """Philox4x32-10 of counters (..., 4), as (..., 4) words."""
    c0, c1, c2, c3 = np.moveaxis(np.asarray(counter, dtype=np.uint64), -1, 0)
    k0, k1 = int(key) & 0xFFFFFFFF, int(key) >> 32
    for _ in range(_ROUNDS):
        product_0, product_1 = _MULTIPLIER_0 * c0, _MULTIPLIER_1 * c2
        c0, c1, c2, c3 = (
            (product_1 >> _32) ^ c1 ^ np.uint64(k0),
            product_1 & _LOW,
            (product_0 >> _32) ^ c3 ^ np.uint64(k1),
            product_0 & _LOW,
        )
        k0, k1 = (k0 + _WEYL_0) & 0xFFFFFFFF, (k1 + _WEYL_1) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def counters(layer: int, role: int, replicates: ArrayLike, blocks: ArrayLike) -> NDArray[np.uint64]:
    """The counters (..., 4) of an address; replicates and blocks broadcast against one another."""
    replicate = np.asarray(replicates, dtype=np.uint64)
    block = np.asarray(blocks, dtype=np.uint64)
    high = (block >> _32) | np.uint64(role << 16) | ((replicate >> _32) << np.uint64(24))
    words = np.broadcast_arrays(block & _LOW, high, np.uint64(layer), replicate & _LOW)
    return np.stack(words, axis=-1)
