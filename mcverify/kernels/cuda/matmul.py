"""Random maps on the GPU: weights are made where they are used, and are nowhere kept.

Few columns: a thread makes a block of weights in registers and multiplies it with all of them. Many: a block of
threads makes a tile of weights in shared memory, a matrix of `_ROWS` by a tile of draws, and multiplies it with a tile
of `_COLUMNS` columns, so that a weight is made once for each of those. Sums run in the type of the argument, in an
order that depends on the map's shape alone. Haar matrices are products of reflections, in float64.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from mcverify.errors import InputError
from mcverify.kernels.cuda import draws, layout
from mcverify.kernels.cuda.device import (
    SIMULATED,
    THREADS,
    Device,
    Kernel,
    constant,
    cuda,
    divided,
    empty,
    given,
    kernel,
    place,
    scratch,
)
from mcverify.kernels.cuda.linear import gathered
from mcverify.kernels.patches import Window, neighbours
from mcverify.streams import LANES, Role, Site, tiles_per_row
from mcverify.weights import weight_law

# A tile's sides. 16.6 kB of shared memory each for weights and columns: several blocks to a multiprocessor of an H200,
# whose 64 × 64 × 64 products outweigh the making of 64 × 64 normals.
_ROWS, _COLUMNS = (8, 4) if SIMULATED else (64, 64)
_EACH = 4  # rows and columns of a tile's product that a thread sums
_SIDE = _ROWS // _EACH
_TILED = _SIDE * (_COLUMNS // _EACH)  # threads

FEW = 2 if SIMULATED else 8  # columns up to which weights stay in registers
_SHARE = 2 if SIMULATED else 32  # threads that share a row


# ---- few columns --------------------------------------------------------------------------------------------


def _rows_at_once(columns: int) -> int:
    """Rows whose weights meet one reading of the columns: as many as leave the sums in registers."""
    return max(2, min(4, FEW // columns))


@lru_cache(maxsize=64)
def _few(law: str, wide: bool, columns: int) -> Kernel:
    made, real, each = draws.numbers(law, wide), np.float64 if wide else np.float32, 2 if wide else 4
    rows_at_once = _rows_at_once(columns)
    sums, held = (rows_at_once, columns), THREADS * rows_at_once * columns
    in_block = THREADS // _SHARE * rows_at_once  # rows
    together = in_block * columns

    @kernel("RRnnnnnnwwww", real)
    def few(x, y, x_step, n_out, n_in, tiles, start, blocks, layer, role, k0, k1):
        """x (replicate, columns, n_in) → y (replicate, columns, n_out); `blocks` of threads to a replicate."""
        total = cuda.local.array(sums, real)
        partial = cuda.shared.array(held, real)
        thread = cuda.threadIdx.x
        r, at = divided(cuda.blockIdx.x, blocks)
        row0 = at * in_block + thread // _SHARE * rows_at_once
        for k in range(rows_at_once):
            for c in range(columns):
                total[k, c] = real(0.0)
        for index in range(thread % _SHARE, tiles * 16, _SHARE):
            first = (index >> 4) * (16 * each) + (index & 15)
            for k in range(rows_at_once):
                if row0 + k < n_out:
                    a, b, c_, d = draws.block((row0 + k) * (tiles * 16) + index, start + r, layer, role, k0, k1)
                    w = made(a, b, c_, d)
                    for j in range(each):
                        col = first + 16 * j
                        if col < n_in:
                            for c in range(columns):
                                total[k, c] += w[j] * x[place(r * x_step + c * n_in + col)]
        for k in range(rows_at_once):
            for c in range(columns):
                partial[(k * columns + c) * THREADS + thread] = total[k, c]
        cuda.syncthreads()
        for out in range(thread, together, THREADS):
            row, c = divided(out, columns)
            group, k = row // rows_at_once, row % rows_at_once
            if at * in_block + row < n_out:
                value = real(0.0)
                for lane in range(_SHARE):
                    value += partial[place((k * columns + c) * THREADS + group * _SHARE + lane)]
                y[(r * columns + c) * n_out + at * in_block + row] = value

    return few


@lru_cache(maxsize=64)
def _few_transposed(law: str, wide: bool, columns: int) -> Kernel:
    made, real, each = draws.numbers(law, wide), np.float64 if wide else np.float32, 2 if wide else 4
    sums = (each, columns)

    @kernel("RRnnnnnnwwww", real)
    def few_transposed(d, z, d_step, n, n_out, n_in, tiles, start, layer, role, k0, k1):
        """d (replicate, columns, n_out) → z (replicate, columns, n_in): a thread goes down the rows of four entries."""
        total = cuda.local.array(sums, real)
        for i in range(cuda.grid(1), n, cuda.gridsize(1)):
            r, index = divided(i, tiles * 16)
            for j in range(each):
                for c in range(columns):
                    total[j, c] = real(0.0)
            for row in range(n_out):
                a, b, c_, e = draws.block(row * (tiles * 16) + index, start + r, layer, role, k0, k1)
                w = made(a, b, c_, e)
                for c in range(columns):
                    v = d[place(r * d_step + c * n_out + row)]
                    for j in range(each):
                        total[j, c] += w[j] * v
            first = (index >> 4) * (16 * each) + (index & 15)
            for j in range(each):
                col = first + 16 * j
                if col < n_in:
                    for c in range(columns):
                        z[place((r * columns + c) * n_in + col)] = total[j, c]

    return few_transposed


# ---- many columns -------------------------------------------------------------------------------------------


@lru_cache(maxsize=16)
def _many(law: str, wide: bool) -> Kernel:
    made, real, each = draws.numbers(law, wide), np.float64 if wide else np.float32, 2 if wide else 4
    width = 16 * each
    weights, inputs, sums = (width, _ROWS + 1), (width, _COLUMNS + 1), (_EACH, _EACH)

    @kernel("RIRnnnnnnnnnnwwww", real)
    def many(
        x, seen, y, x_step, columns, n_out, n_in, tiles, positions, taps, start, down, across, layer, role, k0, k1
    ):  # fmt: skip
        """x (replicate, column, units) by its patches, n_in = taps · units, → y (replicate, column, n_out)."""
        w = cuda.shared.array(weights, real)
        v = cuda.shared.array(inputs, real)  # the simulator knows a shared array by its line
        total = cuda.local.array(sums, real)
        thread = cuda.threadIdx.x
        rest, tile_across = divided(cuda.blockIdx.x, across)
        r, tile_down = divided(rest, down)
        row0, column0 = tile_down * _ROWS, tile_across * _COLUMNS
        mine_down, mine_across = thread % _SIDE, thread // _SIDE
        units, _ = divided(n_in, taps)
        for a in range(_EACH):
            for b in range(_EACH):
                total[a, b] = real(0.0)
        for tile in range(tiles):
            for i in range(thread, _ROWS * 16, _TILED):
                row, lane = row0 + i // 16, i % 16
                if row < n_out:
                    p, q, s, t = draws.block((row * tiles + tile) * 16 + lane, start + r, layer, role, k0, k1)
                    drawn = made(p, q, s, t)
                    for j in range(each):
                        w[place(16 * j + lane), place(i // 16)] = drawn[j]
                else:
                    for j in range(each):
                        w[place(16 * j + lane), place(i // 16)] = real(0.0)
            for i in range(thread, width * _COLUMNS, _TILED):
                k, c = i % width, i // width
                col, column, value = tile * width + k, column0 + c, real(0.0)
                if col < n_in and column < columns:
                    tap, unit = divided(col, units)
                    cell, position = divided(column, positions)
                    there = seen[place(position * taps + tap)]
                    if there >= 0:
                        value = x[place(r * x_step + (cell * positions + there) * units + unit)]
                v[place(k), place(c)] = value
            cuda.syncthreads()
            for k in range(width):
                for a in range(_EACH):
                    weight = w[place(k), place(mine_down + a * _SIDE)]
                    for b in range(_EACH):
                        total[a, b] += weight * v[place(k), place(mine_across * _EACH + b)]
            cuda.syncthreads()
        for a in range(_EACH):
            row = row0 + mine_down + a * _SIDE
            for b in range(_EACH):
                column = column0 + mine_across * _EACH + b
                if row < n_out and column < columns:
                    y[place((r * columns + column) * n_out + row)] = total[a, b]

    return many


@lru_cache(maxsize=16)
def _many_transposed(law: str, wide: bool) -> Kernel:
    made, real, each = draws.numbers(law, wide), np.float64 if wide else np.float32, 2 if wide else 4
    width = 16 * each
    entries = width // _SIDE  # of a row that a thread sums
    weights, inputs, sums = (_ROWS, width + 1), (_ROWS, _COLUMNS + 1), (entries, _EACH)

    @kernel("RRnnnnnnnnwwww", real)
    def many_transposed(d, z, d_step, columns, n_out, n_in, tiles, start, down, across, layer, role, k0, k1):
        """d (replicate, column, n_out) → z (replicate, column, n_in), a tile of draws wide."""
        w = cuda.shared.array(weights, real)
        v = cuda.shared.array(inputs, real)  # the simulator knows a shared array by its line
        total = cuda.local.array(sums, real)
        thread = cuda.threadIdx.x
        rest, tile_across = divided(cuda.blockIdx.x, across)
        r, tile = divided(rest, tiles)
        column0, mine_down, mine_across = tile_across * _COLUMNS, thread % _SIDE, thread // _SIDE
        for a in range(entries):
            for b in range(_EACH):
                total[a, b] = real(0.0)
        for step in range(down):
            row0 = step * _ROWS
            for i in range(thread, _ROWS * 16, _TILED):
                row, lane = row0 + i // 16, i % 16
                if row < n_out:
                    p, q, s, t = draws.block((row * tiles + tile) * 16 + lane, start + r, layer, role, k0, k1)
                    drawn = made(p, q, s, t)
                    for j in range(each):
                        w[place(i // 16), place(16 * j + lane)] = drawn[j]
                else:
                    for j in range(each):
                        w[place(i // 16), place(16 * j + lane)] = real(0.0)
            for i in range(thread, _ROWS * _COLUMNS, _TILED):
                k, c = i % _ROWS, i // _ROWS
                row, column, value = row0 + k, column0 + c, real(0.0)
                if row < n_out and column < columns:
                    value = d[place(r * d_step + column * n_out + row)]
                v[place(k), place(c)] = value
            cuda.syncthreads()
            for k in range(_ROWS):
                for a in range(entries):
                    weight = w[place(k), place(mine_down + a * _SIDE)]
                    for b in range(_EACH):
                        total[a, b] += weight * v[place(k), place(mine_across * _EACH + b)]
            cuda.syncthreads()
        for a in range(entries):
            col = tile * width + mine_down + a * _SIDE
            for b in range(_EACH):
                column = column0 + mine_across * _EACH + b
                if col < n_in and column < columns:
                    z[place((r * columns + column) * n_in + col)] = total[a, b]

    return many_transposed


# ---- Haar matrices ------------------------------------------------------------------------------------------

_AT_A_TIME = 16  # columns that a block of threads reflects together


@lru_cache(maxsize=2)
def _reflected(wide: bool) -> Kernel:
    """S x or Sᵀ d of docs/streams.md, S the first k columns of H_0 S_0 H_1 S_1 …, times √m."""
    made, real, each = draws.numbers("gaussian", wide), np.float64 if wide else np.float32, 2 if wide else 4
    width = 16 * each

    @kernel("RRDDnnnnnnnnnwwww", real)
    def reflected(x, y, held, vectors, x_step, columns, n_from, n_to, m, k, tiles, start, blocks, layer, role, k0, k1):
        """held (replicate, column, m), vectors (block, m). n_from < n_to takes S and its reflections from the last
        to the first; n_to ≤ n_from its transpose, which goes the other way; squares are told apart by k < 0."""
        partial = cuda.shared.array(THREADS, np.float64)
        thread, threads = cuda.threadIdx.x, cuda.blockDim.x
        r, at = divided(cuda.blockIdx.x, blocks)
        column0 = at * _AT_A_TIME
        mine = min(_AT_A_TIME, columns - column0)
        back = k < 0
        steps = -k if back else k
        here, v0 = (r * columns + column0) * m, cuda.blockIdx.x * m
        for i in range(thread, mine * m, threads):
            c, u = divided(i, m)
            held[here + i] = np.float64(x[r * x_step + (column0 + c) * n_from + u]) if u < n_from else 0.0
        for step in range(steps):
            i = step if back else steps - 1 - step
            cuda.syncthreads()
            total = 0.0
            for index in range((i // width) * 16 + thread, tiles * 16, threads):
                a, b, c_, d = draws.block(i * (tiles * 16) + index, start + r, layer, role, k0, k1)
                w = made(a, b, c_, d)
                for j in range(each):
                    u = (index >> 4) * width + (index & 15) + 16 * j
                    if i <= u < m:
                        value = np.float64(w[j])
                        vectors[place(v0 + u)] = value
                        total += value * value
            partial[thread] = total
            gathered(partial, thread, threads)
            square = partial[0]
            top = vectors[v0 + i]
            sign = 1.0 if top >= 0.0 else -1.0
            last = i == m - 1  # on one coordinate the uniform point of the sphere is a sign
            grown = top + sign * math.sqrt(square)
            norm = square - top * top + grown * grown  # of the vector with its first entry grown
            turn = sign if last else -sign
            for c in range(mine):
                line = here + c * m
                cuda.syncthreads()
                if not back and thread == 0:
                    held[line + i] *= turn
                cuda.syncthreads()
                along = 0.0
                if not last:
                    for u in range(i + thread, m, threads):
                        along += (grown if u == i else vectors[place(v0 + u)]) * held[place(line + u)]
                partial[thread] = along
                gathered(partial, thread, threads)
                factor = 2.0 * partial[0] / norm
                if not last:
                    for u in range(i + thread, m, threads):
                        held[place(line + u)] -= factor * (grown if u == i else vectors[place(v0 + u)])
                cuda.syncthreads()
                if back and thread == 0:
                    held[line + i] *= turn
        cuda.syncthreads()
        root = math.sqrt(np.float64(m))
        for i in range(thread, mine * n_to, threads):
            c, u = divided(i, n_to)
            y[(r * columns + column0 + c) * n_to + u] = real(root * held[here + c * m + u])

    return reflected


def _haar(site: Site, role: Role, n_out: int, n_in: int, x: Device, transposed: bool) -> Device:
    m, k, count, columns = max(n_out, n_in), min(n_out, n_in), site.count, x.shape[1]
    n_from, n_to = (n_out, n_in) if transposed else (n_in, n_out)
    back = transposed if n_out >= n_in else not transposed  # the matrix is S, or Sᵀ where it is wide
    tiles = tiles_per_row(k, m, x.dtype)
    blocks = -(-columns // _AT_A_TIME)
    y = empty((count, columns, n_to), x.dtype)
    held, vectors = scratch((count, columns, m), (count * blocks, m))
    step = columns * n_from if len(x) == count else 0
    arguments = step, columns, n_from, n_to, m, -k if back else k, tiles, int(site.start), blocks
    there = draws.address(site, role)
    _reflected(x.dtype == np.float64).launch(
        count * blocks, THREADS, x.data, y.data, held, vectors, *arguments, *there
    )
    return y


# ---- the primitives -----------------------------------------------------------------------------------------


def _checked(site: Site, name: str, x: Device) -> None:
    if x.dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise InputError(f"{name}.dtype", str(x.dtype), "must be float32 or float64")
    if x.ndim != 3 or x.shape[0] not in (1, site.count):
        raise InputError(f"{name}.shape", x.shape, f"must be ({site.count} or 1, columns, units)")


def draw(site: Site, role: Role, law: str, rows: int, cols: int, dtype: Any) -> Device:
    """(replicate, rows, cols) draws of unit variance."""
    if weight_law(law).independent:
        return draws.independent(site, role, law, rows, cols, dtype)
    identity = given(np.eye(rows, dtype=dtype)[None])
    return _haar(site, role, rows, cols, identity, transposed=True)


def random_matmul(site: Site, role: Role, law: str, n_out: int, x: Device, window: Window | None = None) -> Device:
    """y[r, c, i] = Σ_j w[r, i, j] x[r, c, j] with w = draw(site, role, law, n_out, n_in); of the patches of x where
    there is a window, which are nowhere kept."""
    _checked(site, "x", x)
    count, columns, units = site.count, x.shape[1], x.shape[2]
    if not weight_law(law).independent:
        return _haar(site, role, n_out, units, x, transposed=False)
    taps = 1 if window is None else window.taps
    n_in, wide, there = taps * units, x.dtype == np.float64, draws.address(site, role)
    tiles, name = tiles_per_row(n_out, n_in, x.dtype), weight_law(law).name
    y = empty((count, columns, n_out), x.dtype)
    step = columns * units if len(x) == count else 0
    if window is None and columns <= FEW:
        blocks = -(-n_out // (THREADS // _SHARE * _rows_at_once(columns)))
        arguments = step, n_out, n_in, tiles, int(site.start), blocks, *there
        _few(name, wide, columns).launch(count * blocks, THREADS, x.data, y.data, *arguments)
        return y
    seen = np.zeros((1, 1), np.int32) if window is None else neighbours(*window)
    down, across = -(-n_out // _ROWS), -(-columns // _COLUMNS)
    arguments = step, columns, n_out, n_in, tiles, *seen.shape, int(site.start), down, across, *there
    _many(name, wide).launch(count * down * across, _TILED, x.data, constant(seen), y.data, *arguments)
    return y


def random_matmul_transpose(
    site: Site, role: Role, law: str, n_in: int, d: Device, window: Window | None = None
) -> Device:
    """z[r, c, j] = Σ_i w[r, i, j] d[r, c, i] with w = draw(site, role, law, n_out, n_in); folded by a window."""
    _checked(site, "d", d)
    count, columns, n_out = site.count, d.shape[1], d.shape[2]
    if not weight_law(law).independent:
        return _haar(site, role, n_out, n_in, d, transposed=True)
    wide, name, there = d.dtype == np.float64, weight_law(law).name, draws.address(site, role)
    tiles = tiles_per_row(n_out, n_in, d.dtype)
    z = empty((count, columns, n_in), d.dtype)
    step = columns * n_out if len(d) == count else 0
    if columns <= FEW:
        n = count * tiles * LANES
        arguments = step, n, n_out, n_in, tiles, int(site.start), *there
        _few_transposed(name, wide, columns).over(n, d.data, z.data, *arguments)
    else:
        down, across = -(-n_out // _ROWS), -(-columns // _COLUMNS)
        arguments = step, columns, n_out, n_in, tiles, int(site.start), down, across, *there
        _many_transposed(name, wide).launch(count * tiles * across, _TILED, d.data, z.data, *arguments)
    return z if window is None else layout.fold(z, window)


def every() -> list[Kernel]:
    """All kernels here, those for few columns at the fewest and at the most."""
    both = [(law, wide) for law in draws.LAWS for wide in (False, True)]
    made = [f(law, wide, columns) for f in (_few, _few_transposed) for law, wide in both for columns in (1, 2, FEW)]
    made += [f(law, wide) for f in (_many, _many_transposed) for law, wide in both]
    return [*made, _reflected(False), _reflected(True)]


