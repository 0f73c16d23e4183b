"""Conditional sampling on the GPU: kernels/conditional.py, a block of threads to a replicate.

As on the CPU, Q is carried as the triangle R where the Gram matrix determines it well, so that each pass over the units
is a few dots and a mixture; elsewhere (`weak`) Gram–Schmidt is done on the columns themselves, in float64. Haar frames
are always taken by Gram–Schmidt. Small matrices lie in global memory, where they stay in the first cache.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcverify.kernels.conditional import DEPENDENT, Root
from mcverify.kernels.cuda.device import (
    THREADS,
    Device,
    Kernel,
    constant,
    cuda,
    device,
    divided,
    empty,
    kernel,
    place,
    scratch,
)
from mcverify.kernels.cuda.linear import dots, gathered, lanes

_f8 = np.float64
_SAFE = 1e200  # squares between its inverse and this neither under- nor overflow
MOST_FIXED = 4  # columns up to which kernels are made for their number
_NARROW_WEAK, _WIDE_WEAK = 1e-5, 1e-3  # as in kernels/conditional_cpu.py

# ---- for a block of threads: matrices are (array, where it begins) -------------------------------------------


@device
def _cholesky(g, r, at, n, least):
    """r upper triangular with rᵀ r = g, both (n, n) from `at`; least[0] becomes the smallest part of a column outside
    those before it, squared and relative, 0 where the Gram matrix cannot tell."""
    thread, threads = cuda.threadIdx.x, cuda.blockDim.x
    for p in range(thread, n * n, threads):
        i, c = divided(p, n)
        r[at + p] = g[at + p] if c >= i else 0.0
    if thread == 0:
        least[0] = 1.0
    cuda.syncthreads()
    for i in range(n):
        rest, whole = r[at + i * n + i], g[at + i * n + i]
        cuda.syncthreads()
        pivot = math.sqrt(rest) if rest > 0 else (0.0 if rest <= 0 else rest)
        for c in range(i + thread, n, threads):
            value = pivot if c == i else (r[at + i * n + c] / pivot if pivot > 0 else 0.0)
            r[at + i * n + c] = value
        if thread == 0 and whole != 0:
            fraction = rest / whole
            sound = 1 / _SAFE < whole < _SAFE and fraction > 0
            least[0] = min(least[0], fraction) if sound else 0.0
        cuda.syncthreads()
        for c in range(i + 1 + thread, n, threads):
            mine = r[at + i * n + c]
            for j in range(i + 1, c + 1):
                r[at + j * n + c] -= r[at + i * n + j] * mine
        cuda.syncthreads()


@device
def _solve(r, r0, n, b, b0, k, transposed):
    """b (n, k) ← r⁻¹ b, or r⁻ᵀ b: a thread to a column; a zero pivot gives a zero row."""
    cuda.syncthreads()
    for col in range(cuda.threadIdx.x, k, cuda.blockDim.x):
        for step in range(n):
            c = step if transposed else n - 1 - step
            value = b[b0 + c * k + col]
            for done in range(step):
                j = done if transposed else n - 1 - done
                value -= (r[r0 + j * n + c] if transposed else r[r0 + c * n + j]) * b[b0 + j * k + col]
            pivot = r[r0 + c * n + c]
            b[b0 + c * k + col] = value / pivot if pivot != 0 else 0.0
    cuda.syncthreads()


@device
def _hidden(a, a0, g, g0, n, units, found):
    """found[0] ← 1 where a column is so short that its square underflowed to the 0 in the Gram matrix."""
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        found[0] = 0
    cuda.syncthreads()
    for c in range(n):
        if g[g0 + c * n + c] == 0:
            for u in range(cuda.threadIdx.x, units, cuda.blockDim.x):
                if a[a0 + c * units + u] != 0:
                    cuda.atomic.max(found, 0, 1)
    cuda.syncthreads()


@device
def _whole_sum(value, partial):
    """The sum over the block of each thread's value."""
    partial[cuda.threadIdx.x] = value
    gathered(partial, cuda.threadIdx.x, cuda.blockDim.x)
    total = partial[0]
    cuda.syncthreads()
    return total


@device
def _largest(value, partial):
    thread, step = cuda.threadIdx.x, cuda.blockDim.x // 2
    partial[thread] = value
    cuda.syncthreads()
    while step > 0:
        if thread < step:
            partial[thread] = max(partial[thread], partial[thread + step])
        cuda.syncthreads()
        step //= 2
    total = partial[0]
    cuda.syncthreads()
    return total


@device
def _norm(v, v0, units, partial):
    total = 0.0
    for u in range(cuda.threadIdx.x, units, cuda.blockDim.x):
        value = v[place(v0 + u)]
        total += value * value
    return math.sqrt(_whole_sum(total, partial))


@device
def _gram_schmidt(v, v0, known, k, units, r, r0, partial):
    """Rows `known` and up of v (known + k, units) become orthonormal to all before them, or zero, each cleaned twice;
    r (known + k, k) takes the coefficients: kernels.conditional.orthonormal."""
    thread, threads = cuda.threadIdx.x, cuda.blockDim.x
    for p in range(thread, (known + k) * k, threads):
        r[r0 + p] = 0.0
    cuda.syncthreads()
    for c in range(k):
        i = v0 + (known + c) * units
        whole, scale = _norm(v, i, units, partial), 1.0
        if not 1 / _SAFE < whole * whole < _SAFE:
            top = 0.0
            for u in range(thread, units, threads):
                top = max(top, abs(v[i + u]))
            top = _largest(top, partial)
            scale = top if 0 < top < math.inf else 1.0
            for u in range(thread, units, threads):
                v[i + u] /= scale
            whole = _norm(v, i, units, partial)
        for _ in range(2):
            for j in range(known + c):
                # one after another, each from what the others left (modified Gram–Schmidt)
                along, w = 0.0, v0 + j * units
                for u in range(thread, units, threads):
                    along += v[place(w + u)] * v[place(i + u)]
                along = _whole_sum(along, partial)
                for u in range(thread, units, threads):
                    v[place(i + u)] -= along * v[place(w + u)]
                if thread == 0:
                    r[r0 + j * k + c] += along * scale
        rest = _norm(v, i, units, partial)
        keep = rest > DEPENDENT * whole
        if thread == 0:
            r[r0 + (known + c) * k + c] = (rest if keep else 0.0 * rest) * scale
        for u in range(thread, units, threads):
            v[i + u] = v[i + u] / rest if keep else 0.0
        cuda.syncthreads()


@device
def _frame(a, a0, gain, offset, columns, units, q, q0):
    """q ← the columns (gain · a, offset), (columns, units + 1)."""
    for p in range(cuda.threadIdx.x, columns * (units + 1), cuda.blockDim.x):
        c, u = divided(p, units + 1)
        q[q0 + p] = gain * _f8(a[a0 + c * units + u]) if u < units else offset[c]
    cuda.syncthreads()


@device
def _root(a, a0, gain, offset, n, units, below, count, g, r, at, q, q0, least, found, partial):
    """The root r (n, n) of the columns (gain · a, offset), from `at`; whether it is weak, and q then their frame."""
    dots(a, a0, a, a0, 0, n * n, n, units, count, g, at, partial)
    cuda.syncthreads()
    _hidden(a, a0, g, at, n, units, found)
    for p in range(cuda.threadIdx.x, n * n, cuda.blockDim.x):
        i, j = divided(p, n)
        g[at + p] = gain * gain * g[at + p] + offset[i] * offset[j]
    cuda.syncthreads()
    _cholesky(g, r, at, n, least)
    weak = not least[0] > below or found[0] != 0
    cuda.syncthreads()
    if weak:
        _frame(a, a0, gain, offset, n, units, q, q0)
        _gram_schmidt(q, q0, 0, n, units + 1, r, at, partial)
    return weak


@device
def _mix(x, x0, rows, p, p0, g, g0, n, s, s0, units):
    """In place, g[k] ← Σ_c p[c, k] x[c] + Σ_{j ≤ k} s[j, k] g[j], s upper triangular; a thread to a unit."""
    cuda.syncthreads()
    for u in range(cuda.threadIdx.x, units, cuda.blockDim.x):
        for step in range(n):
            k, total = n - 1 - step, 0.0  # downwards, so that g[j] is still what it was
            for c in range(rows):
                total += p[place(p0 + c * n + k)] * _f8(x[place(x0 + c * units + u)])
            for j in range(k + 1):
                total += s[place(s0 + j * n + k)] * _f8(g[place(g0 + j * units + u)])
            g[place(g0 + k * units + u)] = total


@device
def _mix_frames(q, q0, rows, pitch, p, p0, out, o0, n, units):
    """out[k] ← Σ_c p[c, k] q[c], rows of q `pitch` apart."""
    cuda.syncthreads()
    for u in range(cuda.threadIdx.x, units, cuda.blockDim.x):
        for k in range(n):
            total = 0.0
            for c in range(rows):
                total += p[place(p0 + c * n + k)] * q[place(q0 + c * pitch + u)]
            out[place(o0 + k * units + u)] = total


@device
def _negative_product(c, m, n, at, s, s0, columns, k):
    """c ← m − n s, all (columns, k), s (k, k) upper triangular."""
    cuda.syncthreads()
    for p in range(cuda.threadIdx.x, columns * k, cuda.blockDim.x):
        i, b = divided(p, k)
        total = m[at + p]
        for j in range(b + 1):
            total -= n[at + i * k + j] * s[s0 + j * k + b]
        c[at + p] = total
    cuda.syncthreads()


def _fixed(columns: int) -> int:
    """The number that a kernel is made for: what lies in registers for few columns is looked up for many."""
    return columns if columns <= MOST_FIXED else 0


# ---- kernels ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=16)
def _gaussian(real: Any, fixed: int) -> Kernel:
    """`fixed` columns, or any number of them where that is 0."""
    below = _NARROW_WEAK if real is np.float32 else _WIDE_WEAK

    @kernel("RRDDDDBnnnnndn", real)
    def gaussian(x, z, offset, g, r, q, weak, roots, x_step, columns, n_in, n_out, gain, count):
        """x (roots, columns, n_in), z (replicate, columns, n_out) in place; g and r (replicate, columns, columns),
        q (replicate, columns, n_in + 1), weak (replicate)."""
        partial = cuda.shared.array(THREADS, np.float64)
        least = cuda.shared.array(1, np.float64)
        found = cuda.shared.array(1, np.int32)
        i, columns = cuda.blockIdx.x, fixed if fixed > 0 else columns
        at, q0 = i * columns * columns, i * columns * (n_in + 1)
        is_weak = _root(
            x, i * x_step, gain, offset, columns, n_in, below, count, g, r, at, q, q0, least, found, partial
        )
        if cuda.threadIdx.x == 0 and i < roots:
            weak[i] = is_weak
        _mix(x, 0, 0, r, at, z, i * columns * n_out, columns, r, at, n_out)

    return gaussian


@lru_cache(maxsize=64)
def _gaussian_transposed(real: Any, fixed: int, fixed_k: int) -> Kernel:
    """For `fixed` columns and `fixed_k` cotangents, or any number of them where that is 0."""
    below_weak = _NARROW_WEAK if real is np.float32 else _WIDE_WEAK

    @kernel("RDBRRRRRDDDDDDDDDDnnnnnndnn", real)
    def transposed(
        x, r, weak, y, z, d, g, below, offset, flat, cogram, s, m, n, c, own, q, p, x_step, r_step, columns, k, n_in,
        n_out, gain, of_in, of_out,
    ):  # fmt: skip
        """Scratch: cogram, s (replicate, k, k); m, n, c (replicate, columns, k); own (replicate, columns, columns);
        q (replicate, columns, n_in + 1), p (replicate, k, n_out + 1)."""
        partial = cuda.shared.array(THREADS, np.float64)
        least = cuda.shared.array(1, np.float64)
        found = cuda.shared.array(1, np.int32)
        i, thread, threads = cuda.blockIdx.x, cuda.threadIdx.x, cuda.blockDim.x
        columns, k = fixed if fixed > 0 else columns, fixed_k if fixed_k > 0 else k
        s0, at, x0, y0 = i * k * k, i * columns * k, i * x_step, i * columns * n_out
        d0, g0, q0, p0 = i * k * n_out, i * k * n_in, i * columns * (n_in + 1), i * k * (n_out + 1)
        _root(d, d0, 1.0, flat, k, n_out, below_weak, of_out, cogram, s, s0, p, p0, least, found, partial)
        is_weak = weak[i if r_step > 0 else 0]
        if is_weak:
            _frame(x, x0, gain, offset, columns, n_in, q, q0)
            _gram_schmidt(q, q0, 0, columns, n_in + 1, own, i * columns * columns, partial)
            dots(z, y0, d, d0, 0, columns * k, k, n_out, of_out, m, at, partial)
            for e in range(columns):  # a row of the frame is one number longer
                dots(q, q0 + e * (n_in + 1), g, g0, 0, k, k, n_in, of_in, n, at + e * k, partial)
            cuda.syncthreads()
            for e in range(thread, columns * k, threads):
                a, b = divided(e, k)
                n[at + e] += q[q0 + a * (n_in + 1) + n_in] * _f8(below[i * k + b])
        else:
            dots(y, y0, d, d0, 0, columns * k, k, n_out, of_out, m, at, partial)
            dots(x, x0, g, g0, 0, columns * k, k, n_in, of_in, n, at, partial)
            cuda.syncthreads()
            for e in range(thread, columns * k, threads):
                a, b = divided(e, k)
                n[at + e] = gain * n[at + e] + offset[a] * _f8(below[i * k + b])
        _negative_product(c, m, n, at, s, s0, columns, k)
        if not is_weak:
            _solve(r, i * r_step, columns, c, at, k, True)
            _solve(r, i * r_step, columns, c, at, k, False)
        scale = gain if is_weak else gain * gain
        for e in range(thread, columns * k, threads):
            c[at + e] *= scale
        for e in range(thread, k * k, threads):
            s[s0 + e] *= gain
        cuda.syncthreads()
        if is_weak:
            for u in range(thread, n_in, threads):
                for step in range(k):
                    b, total = k - 1 - step, 0.0
                    for a in range(columns):
                        total += c[place(at + a * k + b)] * q[place(q0 + a * (n_in + 1) + u)]
                    for j in range(b + 1):
                        total += s[place(s0 + j * k + b)] * _f8(g[place(g0 + j * n_in + u)])
                    g[place(g0 + b * n_in + u)] = total
        else:
            _mix(x, x0, columns, c, at, g, g0, k, s, s0, n_in)

    return transposed


@device
def _where_new(z, z0, r, r0, n, units, v, v0):
    """v ← the draws of columns that added a dimension; the others reveal nothing, and take up no room."""
    cuda.syncthreads()
    for p in range(cuda.threadIdx.x, n * units, cuda.blockDim.x):
        c, _ = divided(p, units)
        v[v0 + p] = _f8(z[z0 + p]) if r[r0 + c * n + c] != 0 else 0.0
    cuda.syncthreads()


@device
def _loaded(a, a0, size, v, v0):
    cuda.syncthreads()
    for p in range(cuda.threadIdx.x, size, cuda.blockDim.x):
        v[v0 + p] = _f8(a[a0 + p])
    cuda.syncthreads()


@lru_cache(maxsize=2)
def _haar(real: Any) -> Kernel:
    @kernel("RRDDDDnnn", real)
    def haar(x, z, q, v, r, t, x_step, columns, units):
        """z (replicate, columns, units) in place; q, v of its shape, r, t (replicate, columns, columns)."""
        partial = cuda.shared.array(THREADS, np.float64)
        i = cuda.blockIdx.x
        z0, at = i * columns * units, i * columns * columns
        _loaded(x, i * x_step, columns * units, q, z0)
        _gram_schmidt(q, z0, 0, columns, units, r, at, partial)
        _where_new(z, z0, r, at, columns, units, v, z0)
        _gram_schmidt(v, z0, 0, columns, units, t, at, partial)
        _mix_frames(v, z0, columns, units, r, at, z, z0, columns, units)

    return haar


@lru_cache(maxsize=2)
def _haar_transposed(real: Any) -> Kernel:
    @kernel("RRRRDDDDDnnnn", real)
    def haar_transposed(x, z, d, g, q, v, r, s, t, x_step, columns, k, units):
        """g (replicate, k, units) in place; q, v (replicate, columns + k, units), r (replicate, columns, columns),
        s, t (replicate, columns + k, max(columns, k))."""
        partial = cuda.shared.array(THREADS, np.float64)
        i, both = cuda.blockIdx.x, columns + k
        v0, g0, at, s0 = i * both * units, i * k * units, i * columns * columns, i * both * max(columns, k)
        own = columns * units
        _loaded(x, i * x_step, own, q, v0)
        _gram_schmidt(q, v0, 0, columns, units, r, at, partial)
        _where_new(z, i * own, r, at, columns, units, v, v0)
        _gram_schmidt(v, v0, 0, columns, units, t, s0, partial)
        _loaded(d, g0, k * units, v, v0 + own)
        _gram_schmidt(v, v0, columns, k, units, s, s0, partial)
        _where_new(g, g0, s, s0 + columns * k, k, units, q, v0 + own)
        _gram_schmidt(q, v0, columns, k, units, t, s0, partial)
        _mix_frames(q, v0, both, units, s, s0, g, g0, k, units)

    return haar_transposed


# ---- the primitives -----------------------------------------------------------------------------------------


def gaussian_apply(x: Device, z: Device, gain: float, offset: NDArray[np.float64]) -> tuple[Device, Root]:
    """As kernels.conditional.gaussian_apply; overwrites z."""
    (count, columns, n_out), n_in = z.shape, x.shape[2]
    r, weak = empty((count, columns, columns), np.float64), empty((len(x),), np.bool_)
    g, q = scratch(r.shape, (count, columns, n_in + 1))
    step = columns * n_in if len(x) == count else 0
    arguments = len(x), step, columns, n_in, n_out, float(gain), lanes(n_in)
    _gaussian(x.real, _fixed(columns)).launch(
        count, THREADS, x.data, z.data, constant(offset), g, r.data, q, weak.data, *arguments
    )
    return z, Root(r, weak)  # type: ignore[arg-type]


def gaussian_transpose(
    x: Device, root: Root, y: Device, z: Device | None, d: Device, g: Device, below: Device, gain: float,
    offset: NDArray[np.float64],
) -> Device:  # fmt: skip
    """As kernels.conditional.gaussian_transpose; overwrites g."""
    (count, k, n_out), (columns, n_in) = d.shape, x.shape[1:]
    square, mixed = [(count, k, k)] * 2, [(count, columns, k)] * 3
    frames = [(count, columns, columns), (count, columns, n_in + 1), (count, k, n_out + 1)]
    steps = (columns * n_in, columns * columns) if len(x) == count else (0, 0)
    _gaussian_transposed(x.real, _fixed(columns), _fixed(k)).launch(
        count, THREADS, x.data, root.r.data, root.weak.data, y.data, (y if z is None else z).data, d.data, g.data,
        below.data, constant(offset), constant(np.zeros(k)), *scratch(*square, *mixed, *frames), *steps, columns, k,
        n_in, n_out, float(gain), lanes(n_in), lanes(n_out),
    )  # fmt: skip
    return g


def haar_apply(x: Device, z: Device) -> Device:
    """As kernels.conditional.haar_apply; overwrites z."""
    count, columns, units = z.shape
    kept = scratch(z.shape, z.shape, (count, columns, columns), (count, columns, columns))
    step = columns * units if len(x) == count else 0
    _haar(x.real).launch(count, THREADS, x.data, z.data, *kept, step, columns, units)
    return z


def haar_transpose(x: Device, z: Device, d: Device, g: Device) -> Device:
    """As kernels.conditional.haar_transpose; overwrites g."""
    (count, k, units), columns = d.shape, x.shape[1]
    both, wide = columns + k, max(columns, k)
    frames, small = [(count, both, units)] * 2, [(count, columns, columns), (count, both, wide), (count, both, wide)]
    step = columns * units if len(x) == count else 0
    _haar_transposed(x.real).launch(
        count, THREADS, x.data, z.data, d.data, g.data, *scratch(*frames, *small), step, columns, k, units
    )
    return g


def every() -> list[Kernel]:
    """All kernels here."""
    reals, numbers = (np.float32, np.float64), (0, 1, 2, MOST_FIXED)
    made = [_gaussian(real, n) for real in reals for n in numbers]
    made += [_gaussian_transposed(real, n, n) for real in reals for n in numbers]
    return made + [one(real) for one in (_haar, _haar_transposed) for real in reals]
