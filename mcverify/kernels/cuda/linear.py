"""Dots in float64 by whole blocks of threads, Grams and squares over replicates.

A dot is shared by a group of threads whose number depends on its length alone, so that columns or replicates added
change no bit of the others.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcverify.kernels.cuda.device import THREADS, Device, Kernel, cuda, device, divided, host, kernel, place, scratch

_f8 = np.float64
_PAIRS = 1024  # dots that one block makes


def lanes(units: int) -> int:
    """How many threads share a dot: a power of two."""
    return min(1 << max(0, (max(units, 1) // 8).bit_length() - 1), 32, THREADS)


@device
def gathered(partial, lane, count):
    """partial[thread] of the first of every `count` threads takes the sum of theirs; for the whole block."""
    thread, step = cuda.threadIdx.x, count // 2
    cuda.syncthreads()
    while step > 0:
        if lane < step:
            partial[place(thread)] += partial[place(thread + step)]
        cuda.syncthreads()
        step //= 2


@device
def dots(a, a0, b, b0, first, last, cols, units, count, out, o0, partial):
    """out[o0 + p] = Σ_u a[i, u] b[j, u] for p = i · cols + j from first up to last; a and b begin at a0 and b0."""
    thread = cuda.threadIdx.x
    group, lane = thread // count, thread % count
    groups = cuda.blockDim.x // count
    base = first
    while base < last:
        p, total = base + group, 0.0
        if p < last:
            i, j = divided(p, cols)
            u, end, ahead = a0 + i * units + lane, a0 + (i + 1) * units, b0 + j * units - a0 - i * units
            while u + 3 * count < end:  # a range would count; four at a time, for as many loads under way
                for _ in range(4):
                    total += _f8(a[place(u)]) * _f8(b[place(u + ahead)])
                    u += count
            while u < end:
                total += _f8(a[place(u)]) * _f8(b[place(u + ahead)])
                u += count
        partial[thread] = total
        gathered(partial, lane, count)
        if lane == 0 and p < last:
            out[o0 + p] = partial[thread]
        cuda.syncthreads()
        base += groups


@lru_cache(maxsize=4)
def _grams(real: Any) -> Kernel:
    @kernel("RRDnnnnnnnn", real)
    def grams(a, b, out, a_step, b_step, rows, cols, units, count, chunks, per):
        partial = cuda.shared.array(THREADS, np.float64)
        r, chunk = divided(cuda.blockIdx.x, chunks)
        first, last = chunk * per, min((chunk + 1) * per, rows * cols)
        dots(a, r * a_step, b, r * b_step, first, last, cols, units, count, out, r * rows * cols, partial)

    return grams


@lru_cache(maxsize=4)
def _squares(real: Any) -> Kernel:
    @kernel("RDnnn", real)
    def squared(a, out, rows, units, count):
        partial = cuda.shared.array(THREADS, np.float64)
        thread = cuda.threadIdx.x
        lane, row, total = thread % count, cuda.blockIdx.x * (cuda.blockDim.x // count) + thread // count, 0.0
        if row < rows:
            u = row * units + lane
            while u < (row + 1) * units:
                value = _f8(a[place(u)])
                total += value * value
                u += count
        partial[thread] = total
        gathered(partial, lane, count)
        if lane == 0 and row < rows:
            out[row] = partial[thread]

    return squared


def gram(a: Device, b: Device) -> NDArray[np.float64]:
    """(replicate, columns, columns): Σ_i a_i b_i in float64, on the host. a, b (replicate or 1, columns, units)."""
    count, (rows, units), cols = max(len(a), len(b)), a.shape[1:], b.shape[1]
    shape, chunks = (count, rows, cols), -(-rows * cols // _PAIRS)
    (out,) = scratch(shape)
    steps = [0 if len(v) < count else v.shape[1] * units for v in (a, b)]
    arguments = a.data, b.data, out, *steps, rows, cols, units, lanes(units), chunks, _PAIRS
    _grams(a.real).launch(count * chunks, THREADS, *arguments)
    return host(Device(out, shape, np.dtype(np.float64)))


def squares(a: Device) -> NDArray[np.float64]:
    """(replicate, columns): Σ_i a_i² in float64, on the host."""
    rows, units = a.shape[0] * a.shape[1], a.shape[2]
    (out,), share = scratch(a.shape[:2]), lanes(a.shape[2])
    _squares(a.real).launch(-(-rows * share // THREADS), THREADS, a.data, out, rows, units, share)
    return host(Device(out, a.shape[:2], np.dtype(np.float64)))


def every() -> list[Kernel]:
    """All kernels here."""
    return [made(real) for made in (_grams, _squares) for real in (np.float32, np.float64)]
