"""Conditional sampling on the CPU: kernels/conditional.py compiled, one replicate after another.

Where the Gram matrix determines the root well, Q and V are never formed: Q = A R⁻¹ is carried as the triangle
R, so that each pass over the units is a few dots and one mixture. Elsewhere (`weak`: columns nearly or exactly
dependent, more columns than units) Gram–Schmidt is done on the columns themselves. The choice is made for each
replicate by its own columns. Results overwrite the normals they are made of.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mcverify.kernels.conditional import Root
from mcverify.kernels.linear_cpu import (
    COMPILED,
    add,
    cholesky,
    dots,
    gram_schmidt,
    hidden,
    mix,
    packed,
    scaled_copy,
    solve,
    solve_transposed,
)

Array = NDArray[Any]
FloatArray = NDArray[np.float64]


def _weak_below(dtype: np.dtype[Any]) -> float:
    """The part of a column outside the others, squared and relative, below which its root is not taken from the
    Gram matrix, nor its normals from the image.

    The normal equations lose this number's inverse in float64, the mixture its root's in the signal's type."""
    return 1e-5 if dtype == np.float32 else 1e-3


# ---- roots ----------------------------------------------------------------------------------------------


@njit(**COMPILED)
def _frame(a: Array, gain: float, offset: Array, q: Array, r: Array) -> None:
    """Gram–Schmidt of the columns (gain · a, offset): q (columns, units + 1), r (columns, columns)."""
    for c in range(len(a)):
        scaled_copy(a[c], gain, q[c])
        q[c, a.shape[1]] = offset[c]
    gram_schmidt(q, 0, r)


@njit(**COMPILED)
def _root(a: Array, gain: float, offset: Array, below: float, r: Array, gram: Array) -> bool:
    """The root r of the columns (gain · a, offset); whether it is weak, and had to be taken from the columns."""
    dots(a, a, True, gram)
    weak = hidden(a, gram)
    for i in range(len(a)):
        for j in range(len(a)):
            gram[i, j] = gain * gain * gram[i, j] + offset[i] * offset[j]
    weak = not cholesky(gram, r) > below or weak
    if weak:
        _frame(a, gain, offset, np.empty((len(a), a.shape[1] + 1)), r)
    return weak


@njit(**COMPILED)
def _negative_product(c: Array, m: Array, n: Array, s: Array) -> None:
    """c ← m − n s, s upper triangular."""
    for i in range(c.shape[0]):
        c[i] = m[i]
        for j in range(len(s)):
            add(c[i, j:], s[j, j:], -n[i, j])


# ---- Gaussian maps --------------------------------------------------------------------------------------


@njit(**COMPILED)
def _gaussian_apply(x: Array, z: Array, gain: float, offset: Array, weak_below: float, r: Array, weak: Array) -> None:
    columns = x.shape[1]
    gram, narrow = np.empty((columns, columns)), np.empty((columns, columns), z.dtype)
    nothing, wide_nothing = z[0, :0], np.empty((0, 0))
    for i in range(len(z)):
        at = min(i, len(x) - 1)
        if at == i:
            weak[at] = _root(x[at], gain, offset, weak_below, r[at], gram)
            narrow[:] = r[at]
        if weak[at]:
            mix(wide_nothing, r[at], z[i], r[at])
        else:
            mix(nothing, narrow, z[i], narrow)


def gaussian_apply(x: Array, z: Array, gain: float, offset: FloatArray) -> tuple[Array, Root]:
    """As kernels.conditional.gaussian_apply; overwrites z."""
    columns = x.shape[1]
    root = Root(np.empty((len(x), columns, columns)), np.empty(len(x), bool))
    _gaussian_apply(packed(x), z, gain, offset, _weak_below(z.dtype), root.r, root.weak)
    return z, root


@njit(**COMPILED)
def _gaussian_transpose(
    x: Array, r: Array, weak: Array, y: Array, z: Array, d: Array, g: Array, below: Array, gain: float, offset: Array,
    weak_below: float,
) -> None:  # fmt: skip
    columns, k, units = x.shape[1], d.shape[1], x.shape[2]
    gram, s, flat = np.empty((k, k)), np.empty((k, k)), np.zeros(k)
    m, n, c = np.empty((columns, k)), np.empty((columns, k)), np.empty((columns, k))
    narrow_c, narrow_s = np.empty((columns, k), g.dtype), np.empty((k, k), g.dtype)
    q, own = np.empty((columns, units + 1)), np.empty((columns, columns))
    for i in range(len(g)):
        at = min(i, len(x) - 1)
        _root(d[i], 1.0, flat, weak_below, s, gram)
        if weak[at]:
            if at == i:
                _frame(x[at], gain, offset, q, own)
            dots(z[i], d[i], False, m)
            dots(q, g[i], False, n)
            for a in range(columns):
                for b in range(k):
                    n[a, b] += q[a, units] * below[i, b]
            _negative_product(c, m, n, s)
            c *= gain
            s *= gain
            mix(q, c, g[i], s)
        else:
            dots(y[i], d[i], False, m)
            dots(x[at], g[i], False, n)
            for a in range(columns):
                for b in range(k):
                    n[a, b] = gain * n[a, b] + offset[a] * below[i, b]
            _negative_product(c, m, n, s)
            solve_transposed(r[at], c)
            solve(r[at], c)
            narrow_c[:] = gain * gain * c
            narrow_s[:] = gain * s
            mix(x[at], narrow_c, g[i], narrow_s)


def gaussian_transpose(
    x: Array, root: Root, y: Array, z: Array | None, d: Array, g: Array, below: Array, gain: float, offset: FloatArray
) -> Array:
    """As kernels.conditional.gaussian_transpose; overwrites g."""
    y = packed(y)
    _gaussian_transpose(
        packed(x),
        root.r,
        root.weak,
        y,
        y if z is None else z,
        packed(d),
        g,
        packed(below),
        gain,
        offset,
        _weak_below(g.dtype),
    )
    return g


# ---- Haar maps ------------------------------------------------------------------------------------------


@njit(**COMPILED)
def _only_new(gram: Array, r: Array) -> None:
    """Zero the rows and columns of columns that added no dimension: they reveal nothing, and take up no room."""
    for c in range(len(r)):
        if r[c, c] == 0:
            gram[c, :] = 0.0
            gram[:, c] = 0.0


@njit(**COMPILED)
def _uniform_frame(z: Array, r: Array, v: Array, known: int, unused: Array) -> None:
    """Rows `known` and up of v: Gram–Schmidt of the draws of columns that added a dimension."""
    for c in range(len(z)):
        v[known + c, :] = 0.0
        if r[c, c] != 0:
            v[known + c, :] = z[c]
    gram_schmidt(v, known, unused)


@njit(**COMPILED)
def _haar_apply(x: Array, z: Array, weak_below: float) -> None:
    columns, units = x.shape[1], x.shape[2]
    gram, r, t, flat = (np.empty((columns, columns)), np.empty((columns, columns)), np.empty((columns, columns)),
                        np.zeros(columns))  # fmt: skip
    narrow, nothing, zero = np.empty((columns, columns), z.dtype), z[0, :0], np.zeros((columns, columns))
    weak = False
    for i in range(len(z)):
        if i < len(x):
            weak = _root(x[i], 1.0, flat, weak_below, r, gram)
        dots(z[i], z[i], True, gram)
        _only_new(gram, r)
        if weak or not cholesky(gram, t) > weak_below:
            v = np.empty((columns, units))
            _uniform_frame(z[i], r, v, 0, t)
            mix(v, r, z[i], zero)
        else:
            s = r.copy()
            solve(t, s)
            narrow[:] = s
            mix(nothing, narrow, z[i], narrow)


def haar_apply(x: Array, z: Array) -> Array:
    """As kernels.conditional.haar_apply; overwrites z."""
    _haar_apply(packed(x), z, _weak_below(z.dtype))
    return z


@njit(**COMPILED)
def _haar_transpose_by_columns(x: Array, z: Array, d: Array, g: Array) -> None:
    """One replicate by Gram–Schmidt on the columns."""
    columns, k, units = len(x), len(d), x.shape[1]
    q, v = np.empty((columns + k, units)), np.empty((columns + k, units))
    r, s, unused = np.empty((columns, columns)), np.empty((columns + k, k)), np.empty((columns + k, k))
    q[:columns] = x
    gram_schmidt(q[:columns], 0, r)
    _uniform_frame(z, r, v[:columns], 0, np.empty((columns, columns)))
    v[columns:] = d
    gram_schmidt(v, columns, s)
    _uniform_frame(g, s[columns:], q, columns, unused)
    mix(q, s, g, np.zeros((k, k)))


@njit(**COMPILED)
def _outside(gram: Array, along: Array, r: Array) -> float:
    """The root r of gram − alongᵀ along, and how well it is determined, as in `cholesky`."""
    k, least = len(gram), 1.0
    for a in range(k):
        whole = gram[a, a]
        for b in range(k):
            for c in range(len(along)):
                gram[a, b] -= along[c, a] * along[c, b]
        if whole != 0:
            least = min(least, gram[a, a] / whole)
    return min(least, cholesky(gram, r))


@njit(**COMPILED)
def _haar_transpose(x: Array, z: Array, d: Array, g: Array, weak_below: float) -> None:
    columns, k = x.shape[1], d.shape[1]
    r, t, gram, flat = (np.empty((columns, columns)), np.empty((columns, columns)), np.empty((columns, columns)),
                        np.zeros(columns))  # fmt: skip
    s, u, cogram = np.empty((k, k)), np.empty((k, k)), np.empty((k, k))
    m, n, c = np.empty((columns, k)), np.empty((columns, k)), np.empty((columns, k))
    narrow_c, narrow_s = np.empty((columns, k), g.dtype), np.empty((k, k), g.dtype)
    weak = False
    for i in range(len(g)):
        at = min(i, len(x) - 1)
        if at == i:
            weak = _root(x[at], 1.0, flat, weak_below, r, gram)
        dots(z[i], z[i], True, gram)
        _only_new(gram, r)
        sound = not weak and cholesky(gram, t) > weak_below
        dots(d[i], d[i], True, cogram)
        if sound and not hidden(d[i], cogram):
            dots(z[i], d[i], False, m)
            solve_transposed(t, m)
            sound = _outside(cogram, m, s) > weak_below
        if sound:
            dots(x[at], g[i], False, n)
            solve_transposed(r, n)
            dots(g[i], g[i], True, cogram)
            _only_new(cogram, s)
            for b in range(k):
                if s[b, b] == 0:
                    n[:, b] = 0.0
            sound = _outside(cogram, n, u) > weak_below
        if not sound:
            _haar_transpose_by_columns(x[at], z[i], d[i], g[i])
            continue
        solve(u, s)
        _negative_product(c, m, n, s)
        solve(r, c)
        narrow_c[:] = c
        narrow_s[:] = s
        mix(x[at], narrow_c, g[i], narrow_s)


def haar_transpose(x: Array, z: Array, d: Array, g: Array) -> Array:
    """As kernels.conditional.haar_transpose; overwrites g."""
    _haar_transpose(packed(x), z, packed(d), g, _weak_below(g.dtype))
    return g
