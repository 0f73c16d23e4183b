"""Columns, positions and lines on the GPU: patches and their adjoint, pooling, joins, batch statistics."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcverify.kernels import patches as grid
from mcverify.kernels.cuda.device import Device, Kernel, constant, cuda, divided, empty, kernel
from mcverify.kernels.patches import Grid, Window, neighbours

_f8 = np.float64

# ---- kernels ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def _gather(real: Any) -> Kernel:
    @kernel("RIRnnnn", real)
    def gather(x, seen, out, n, positions, taps, units):
        """x (grid, position, units) → out (grid, position, tap, units)."""
        for i in range(cuda.grid(1), n, cuda.gridsize(1)):
            at, unit = divided(i, units)
            cell, tap = divided(at, taps)
            g, p = divided(cell, positions)
            there = seen[p * taps + tap]
            out[i] = x[(g * positions + there) * units + unit] if there >= 0 else real(0.0)

    return gather


@lru_cache(maxsize=2)
def _fold(real: Any) -> Kernel:
    @kernel("RIRnnnn", real)
    def fold(d, seers, out, n, positions, taps, units):
        """d (grid, position, tap, units) → out (grid, position, units): sums over the positions that see one."""
        for i in range(cuda.grid(1), n, cuda.gridsize(1)):
            cell, unit = divided(i, units)
            g, p = divided(cell, positions)
            total = real(0.0)
            for tap in range(taps):
                there = seers[p * taps + tap]
                if there >= 0:
                    total += d[((g * positions + there) * taps + tap) * units + unit]
            out[i] = total

    return fold


@lru_cache(maxsize=2)
def _copy(real: Any) -> Kernel:
    @kernel("RRnnnnnnn", real)
    def copy(x, out, n, length, x_step, x_first, out_step, out_first, x_repeats):
        """`length` numbers of every replicate, from and to their places in it."""
        for i in range(cuda.grid(1), n, cuda.gridsize(1)):
            r, at = divided(i, length)
            there = 0 if x_repeats else r
            out[r * out_step + out_first + at] = x[there * x_step + x_first + at]

    return copy


@lru_cache(maxsize=2)
def _swap(real: Any) -> Kernel:
    @kernel("RRnnnn", real)
    def swap(x, out, n, first, second, units):
        """x (replicate, first, second, units) → out (replicate, second, first, units)."""
        for i in range(cuda.grid(1), n, cuda.gridsize(1)):
            cell, unit = divided(i, units)
            rest, a = divided(cell, first)
            r, b = divided(rest, second)
            out[i] = x[((r * first + a) * second + b) * units + unit]

    return swap


@lru_cache(maxsize=2)
def _pool(real: Any) -> Kernel:
    @kernel("RRnnn", real)
    def pool(x, out, n, positions, units):
        for i in range(cuda.grid(1), n, cuda.gridsize(1)):
            g, unit = divided(i, units)
            total = 0.0
            for p in range(positions):
                total += _f8(x[(g * positions + p) * units + unit])
            out[i] = real(total / _f8(positions))

    return pool


@lru_cache(maxsize=2)
def _spread(real: Any) -> Kernel:
    @kernel("RRnnn", real)
    def spread(d, out, n, positions, units):
        for i in range(cuda.grid(1), n, cuda.gridsize(1)):
            cell, unit = divided(i, units)
            g, _ = divided(cell, positions)
            out[i] = d[g * units + unit] / real(positions)

    return spread


@lru_cache(maxsize=2)
def _standardise(real: Any) -> Kernel:
    @kernel("RRRDnnnnddd", real)
    def standardise(x, y, unit, inverse, lines, length, step, apart, eps, gain, shift):
        """A line of `length` numbers, `step` apart; lines side by side where step > 1, in groups `apart`."""
        for i in range(cuda.grid(1), lines, cuda.gridsize(1)):
            g, at = divided(i, step)
            first, total, squared = g * apart + at, 0.0, 0.0
            for k in range(length):
                total += _f8(x[first + k * step])
            mean = total / _f8(length)
            for k in range(length):
                h = _f8(x[first + k * step]) - mean
                squared += h * h
            over = 1.0 / math.sqrt(squared / _f8(length) + eps)
            for k in range(length):
                h = (_f8(x[first + k * step]) - mean) * over
                unit[first + k * step] = real(h)
                y[first + k * step] = real(gain * h + shift)
            inverse[i] = over

    return standardise


@lru_cache(maxsize=2)
def _standardise_slope(real: Any) -> Kernel:
    @kernel("RDRRnnnnnnd", real)
    def slope(unit, inverse, d, out, lines, length, step, apart, directions, groups, gain):
        """Lines of d as above, `groups` to a replicate and direction; those of unit are one for every direction."""
        for i in range(cuda.grid(1), lines, cuda.gridsize(1)):
            g, at = divided(i, step)
            first = g * apart + at
            whole, inner = divided(g, groups)
            replicate, _ = divided(whole, directions)
            own = replicate * groups + inner
            there, total, along = own * apart + at, 0.0, 0.0
            for k in range(length):
                v = _f8(d[first + k * step])
                total += v
                along += _f8(unit[there + k * step]) * v
            mean, along = total / _f8(length), along / _f8(length)
            scale = gain * inverse[own * step + at]
            for k in range(length):
                u = _f8(unit[there + k * step])
                out[first + k * step] = real((_f8(d[first + k * step]) - mean - u * along) * scale)

    return slope


# ---- positions ----------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _seers(window: Window) -> NDArray[np.int32]:
    """(position, tap): the position whose tap looks here, −1 where there is none; the inverse of `neighbours`."""
    seen = neighbours(*window)
    out = np.full(seen.shape, -1, np.int32)
    for tap in range(seen.shape[1]):
        there = np.flatnonzero(seen[:, tap] >= 0)
        out[seen[there, tap], tap] = there
    return out


def _gathered(x: Device, seen: NDArray[np.int32]) -> Device:
    positions, taps = seen.shape
    units = x.shape[-1]
    out = empty((*x.shape[:-1], taps * units), x.dtype)
    _gather(x.real).over(out.size, x.data, constant(seen), out.data, out.size, positions, taps, units)
    return out


def patches(x: Device, window: Window) -> Device:
    """(…, column, units) → (…, column, tap · units), as kernels.patches.patches."""
    return _gathered(x, neighbours(*window))


def shifted(x: Device, size: Grid, axis: int, step: int) -> Device:
    """x(p + step e) on a circular grid, e along an axis."""
    everywhere = np.arange(math.prod(size), dtype=np.int32)[:, None]
    return _gathered(x, grid.shifted(everywhere, size, axis, step))


def fold(d: Device, window: Window) -> Device:
    """(…, column, tap · units) → (…, column, units), as kernels.patches.fold."""
    seers, units = _seers(window), d.shape[-1] // window.taps
    out = empty((*d.shape[:-1], units), d.dtype)
    _fold(d.real).over(out.size, d.data, constant(seers), out.data, out.size, *seers.shape, units)
    return out


def pool(x: Device, positions: int) -> Device:
    """(…, input · positions, units) → (…, input, units): means over positions, in float64."""
    out = empty((*x.shape[:-2], x.shape[-2] // positions, x.shape[-1]), x.dtype)
    _pool(x.real).over(out.size, x.data, out.data, out.size, positions, x.shape[-1])
    return out


def spread(d: Device, positions: int) -> Device:
    """The adjoint of `pool`: d/positions at every position."""
    out = empty((*d.shape[:-2], d.shape[-2] * positions, d.shape[-1]), d.dtype)
    _spread(d.real).over(out.size, d.data, out.data, out.size, positions, d.shape[-1])
    return out


# ---- columns ------------------------------------------------------------------------------------------------


def join(a: Device, b: Device) -> Device:
    """Columns a and then b, for each replicate of b."""
    units = b.shape[-1]
    out = empty((len(b), a.shape[1] + b.shape[1], units), b.dtype)
    whole, at = out.shape[1] * units, 0
    for v in (a, b):
        length = v.shape[1] * units
        arguments = len(b) * length, length, length, 0, whole, at, int(len(v) < len(b))
        _copy(b.real).over(len(b) * length, v.data, out.data, *arguments)
        at += length
    return out


def columns(a: Device, first: int) -> Device:
    """Columns `first` and up."""
    if first == 0:
        return a
    out = empty((len(a), a.shape[1] - first, *a.shape[2:]), a.dtype)
    units = math.prod(a.shape[2:])
    length = out.shape[1] * units
    arguments = out.size, length, a.shape[1] * units, first * units, length, 0, 0
    _copy(a.real).over(out.size, a.data, out.data, *arguments)
    return out


def swapped(x: Device) -> Device:
    """(replicate, a, b, units) → (replicate, b, a, units)."""
    count, first, second, units = x.shape
    out = empty((count, second, first, units), x.dtype)
    _swap(x.real).over(out.size, x.data, out.data, out.size, first, second, units)
    return out


# ---- statistics ---------------------------------------------------------------------------------------------


def _lines(shape: tuple[int, ...], axis: int) -> tuple[int, int, int, int]:
    """(lines, length, step, apart) along axis −2 (columns) or −1 (units) of (…, columns, units)."""
    cols, units = shape[-2:]
    length, step = (cols, units) if axis == -2 else (units, 1)
    return math.prod(shape) // max(length, 1), length, step, length * step


def standardise(x: Device, axis: int, eps: float, gain: float, shift: float) -> tuple[Device, Device, Device]:
    """(y, ŷ, 1/std) along an axis, as kernels.arrays.standardise."""
    lines, length, step, apart = _lines(x.shape, axis)
    y, unit = empty(x.shape, x.dtype), empty(x.shape, x.dtype)
    kept = (*x.shape[:-2], 1, x.shape[-1]) if axis == -2 else (*x.shape[:-1], 1)
    inverse = empty(kept, np.float64)
    arguments = lines, length, step, apart, float(eps), float(gain), float(shift)
    _standardise(x.real).over(lines, x.data, y.data, unit.data, inverse.data, *arguments)
    return y, unit, inverse


def standardise_slope(unit: Device, inverse: Device, d: Device, axis: int, gain: float) -> Device:
    """Its derivative on d (replicate, direction, column, units), as kernels.arrays.standardise_slope."""
    lines, length, step, apart = _lines(d.shape, axis)
    out, groups = empty(d.shape, d.dtype), d.shape[-2] * d.shape[-1] // apart
    # one ŷ for all replicates is one for all their directions
    shared = d.shape[1] if len(unit) == len(d) else len(d) * d.shape[1]
    arguments = lines, length, step, apart, shared, groups, float(gain)
    _standardise_slope(d.real).over(lines, unit.data, inverse.data, d.data, out.data, *arguments)
    return out


def every() -> list[Kernel]:
    """All kernels here."""
    made = (_gather, _fold, _copy, _swap, _pool, _spread, _standardise, _standardise_slope)
    return [one(real) for one in made for real in (np.float32, np.float64)]
