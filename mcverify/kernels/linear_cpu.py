"""Small dense algebra compiled by numba: dots, mixtures, triangular solves, roots, for one replicate.

Columns are rows of (columns, units) arrays, units contiguous. Sums are in float64, in an order that depends
on the shapes alone. Compiled functions are cached next to this file, and numba sees a change only in the file
of the function that is called: after changing a helper, touch the files that call it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mcverify.kernels.conditional import DEPENDENT

Array = NDArray[Any]

# Sums may be reordered, or they would not vectorise; NaN and infinity keep their meaning.
COMPILED: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"reassoc", "contract", "nsz"},
}

_TILE = 1024  # units handled at a time, so that a tile of every column stays in the first cache
_SAFE = 1e200  # squares between its inverse and this neither under- nor overflow


@njit(**COMPILED)
def _dots_2x2(a_i: Array, a_k: Array, b_j: Array, b_l: Array) -> Any:
    """Two columns with two columns."""
    ij, il, kj, kl = 0.0, 0.0, 0.0, 0.0
    for u in range(len(a_i)):
        ai, ak, bj, bl = np.float64(a_i[u]), np.float64(a_k[u]), np.float64(b_j[u]), np.float64(b_l[u])
        ij += ai * bj
        il += ai * bl
        kj += ak * bj
        kl += ak * bl
    return ij, il, kj, kl


@njit(**COMPILED)
def dots(a: Array, b: Array, symmetric: bool, out: Array) -> None:
    """out[i, j] = Σ_u a[i, u] b[j, u] over the units of b; symmetric: a is b, and half of the work."""
    rows, cols, units = a.shape[0], b.shape[0], b.shape[1]
    out[:rows, :cols] = 0.0
    for start in range(0, units, _TILE):
        stop = min(start + _TILE, units)
        for i in range(0, rows, 2):
            k = min(i + 1, rows - 1)
            for j in range(i if symmetric else 0, cols, 2):
                l = min(j + 1, cols - 1)
                ij, il, kj, kl = _dots_2x2(a[i, start:stop], a[k, start:stop], b[j, start:stop], b[l, start:stop])
                out[i, j] += ij
                if l > j:
                    out[i, l] += il
                if k > i:
                    out[k, j] += kj
                    if l > j:
                        out[k, l] += kl
    if symmetric:
        for i in range(rows):
            for j in range(i):
                out[i, j] = out[j, i]


@njit(**COMPILED)
def _scale(t: Array, s: Any) -> None:
    for u in range(len(t)):
        t[u] *= s


@njit(**COMPILED)
def scaled_copy(a: Array, p: Any, t: Array) -> None:
    """t ← p a, over the units of a."""
    for u in range(len(a)):
        t[u] = p * a[u]


@njit(**COMPILED)
def add(t: Array, a: Array, p: Any) -> None:
    """t ← t + p a."""
    for u in range(len(t)):
        t[u] += p * a[u]


@njit(**COMPILED)
def _add_two(t: Array, a: Array, p: Any, b: Array, q: Any) -> None:
    for u in range(len(t)):
        t[u] += p * a[u] + q * b[u]


@njit(**COMPILED)
def _add_rows(t: Array, a: Array, rows: int, p: Array, k: int, start: int) -> None:
    """t ← t + Σ_i p[i, k] a[i] over the first `rows` rows of a, its units counted from start."""
    stop = start + len(t)
    for i in range(0, rows - 1, 2):
        _add_two(t, a[i, start:stop], p[i, k], a[i + 1, start:stop], p[i + 1, k])
    if rows % 2 == 1:
        add(t, a[rows - 1, start:stop], p[rows - 1, k])


@njit(**COMPILED)
def _triangle(t: Array, w: Array, t_t: Any, t_w: Any, w_w: Any) -> None:
    """(t, w) ← (t_t t, t_w t + w_w w)."""
    for u in range(len(t)):
        old = t[u]
        t[u] = t_t * old
        w[u] = t_w * old + w_w * w[u]


@njit(**COMPILED)
def _pair_add_two(t: Array, w: Array, a: Array, b: Array, a_t: Any, b_t: Any, a_w: Any, b_w: Any) -> None:
    """(t, w) ← (t, w) + (a_t a + b_t b, a_w a + b_w b)."""
    for u in range(len(t)):
        a_u, b_u = a[u], b[u]
        t[u] += a_t * a_u + b_t * b_u
        w[u] += a_w * a_u + b_w * b_u


@njit(**COMPILED)
def _pair_add_rows(t: Array, w: Array, a: Array, rows: int, p: Array, k: int, start: int) -> None:
    """`_add_rows` to t for column k and to w for column k + 1: every row is read once."""
    stop = start + len(t)
    for i in range(0, rows - 1, 2):
        first, second = a[i, start:stop], a[i + 1, start:stop]
        _pair_add_two(t, w, first, second, p[i, k], p[i + 1, k], p[i, k + 1], p[i + 1, k + 1])
    if rows % 2 == 1:
        add(t, a[rows - 1, start:stop], p[rows - 1, k])
        add(w, a[rows - 1, start:stop], p[rows - 1, k + 1])


@njit(**COMPILED)
def mix(x: Array, p: Array, g: Array, s: Array) -> None:
    """In place, g[k] ← Σ_c p[c, k] x[c] + Σ_{j ≤ k} s[j, k] g[j]; s upper triangular; x may have no rows."""
    units = g.shape[1]
    for start in range(0, units, _TILE):
        stop = min(start + _TILE, units)
        k = len(g)
        while k >= 2:  # downwards, so that g[j] is still what it was
            k -= 2
            t, w = g[k, start:stop], g[k + 1, start:stop]
            _triangle(t, w, s[k, k], s[k, k + 1], s[k + 1, k + 1])
            _pair_add_rows(t, w, g, k, s, k, start)
            _pair_add_rows(t, w, x, len(x), p, k, start)
        if k == 1:
            _scale(g[0, start:stop], s[0, 0])
            _add_rows(g[0, start:stop], x, len(x), p, 0, start)


@njit(**COMPILED)
def cholesky(gram: Array, r: Array) -> float:
    """The upper triangular r with rᵀ r = gram; a zero row and column of gram gives a zero row and column.

    Returns the smallest part of a column that lies outside those before it, squared and relative to the
    column: 0 where the Gram matrix cannot tell, or is not finite."""
    least, n = 1.0, len(gram)
    for i in range(n):
        for c in range(n):
            r[i, c] = gram[i, c] if c >= i else 0.0
    for i in range(n):  # row by row: what row i explains is taken from all below it
        rest, whole = r[i, i], gram[i, i]
        r[i, i] = np.sqrt(max(rest, 0.0))
        for c in range(i + 1, n):
            r[i, c] = r[i, c] / r[i, i] if r[i, i] > 0 else 0.0
        for j in range(i + 1, n):
            add(r[j, j:], r[i, j:], -r[i, j])
        if whole != 0:
            fraction = rest / whole
            least = min(least, fraction) if 1 / _SAFE < whole < _SAFE and fraction > 0 else 0.0
    return least


@njit(**COMPILED)
def solve(r: Array, b: Array) -> None:
    """In place, b ← r⁻¹ b for upper triangular r; a zero pivot gives a zero row."""
    for c in range(len(r) - 1, -1, -1):
        for j in range(c + 1, len(r)):
            factor = r[c, j]
            for k in range(b.shape[1]):
                b[c, k] -= factor * b[j, k]
        for k in range(b.shape[1]):
            b[c, k] = b[c, k] / r[c, c] if r[c, c] != 0 else 0.0


@njit(**COMPILED)
def solve_transposed(r: Array, b: Array) -> None:
    """In place, b ← r⁻ᵀ b for upper triangular r; a zero pivot gives a zero row."""
    for c in range(len(r)):
        for j in range(c):
            factor = r[j, c]
            for k in range(b.shape[1]):
                b[c, k] -= factor * b[j, k]
        for k in range(b.shape[1]):
            b[c, k] = b[c, k] / r[c, c] if r[c, c] != 0 else 0.0


@njit(**COMPILED)
def hidden(a: Array, gram: Array) -> bool:
    """Whether a column is so short that its square underflowed to the 0 in the Gram matrix."""
    for c in range(len(a)):
        if gram[c, c] == 0:
            for u in range(a.shape[1]):
                if a[c, u] != 0:
                    return True
    return False


@njit(**COMPILED)
def _norm(v: Array) -> float:
    total = 0.0
    for u in range(len(v)):
        total += v[u] * v[u]
    return np.sqrt(total)


@njit(**COMPILED)
def _scaled_down(v: Array) -> float:
    """Divide v, whose squares under- or overflow, by its largest entry, which is returned; 1 where that is
    0 or not finite."""
    top = 0.0
    for u in range(len(v)):
        top = max(top, abs(v[u]))
    scale = top if 0 < top < np.inf else 1.0
    for u in range(len(v)):
        v[u] /= scale
    return scale


@njit(**COMPILED)
def gram_schmidt(v: Array, known: int, r: Array) -> None:
    """Rows `known` and up of v become orthonormal to all before them, or zero: kernels.conditional.orthonormal.

    v (known + k, units) float64 with its first rows orthonormal or zero; r (known + k, k) float64 takes the
    coefficients, so that rᵀ v is what v was."""
    along = np.empty((len(v), 1))
    for c in range(len(v) - known):
        i = known + c
        whole, scale = _norm(v[i]), 1.0
        if not 1 / _SAFE < whole * whole < _SAFE:
            scale = _scaled_down(v[i])
            whole = _norm(v[i])
        r[:, c] = 0.0
        for _ in range(2):
            dots(v[:i], v[i : i + 1], False, along)
            for j in range(i):
                r[j, c] += along[j, 0] * scale
                along[j, 0] = -along[j, 0]
            _add_rows(v[i], v, i, along, 0, 0)
        rest = _norm(v[i])
        keep = rest > DEPENDENT * whole
        r[i, c] = (rest if keep else 0.0 * rest) * scale
        if keep:
            _scale(v[i], 1.0 / rest)
        else:
            v[i, :] = 0.0


# ---- over replicates --------------------------------------------------------------------------------------


@njit(**COMPILED)
def _grams(a: Array, b: Array, symmetric: bool, out: Array) -> None:
    for r in range(len(out)):
        dots(a[min(r, len(a) - 1)], b[min(r, len(b) - 1)], symmetric, out[r])


def gram(a: Array, b: Array) -> NDArray[np.float64]:
    """(replicate, columns, columns): Σ_i a_i b_i in float64. a, b (replicate or 1, columns, units)."""
    out = np.empty((max(len(a), len(b)), a.shape[1], b.shape[1]))
    _grams(packed(a), packed(b), a is b, out)
    return out


@njit(**COMPILED)
def _squares(a: Array, out: Array) -> None:
    for r in range(a.shape[0]):
        for c in range(a.shape[1]):
            total = 0.0
            column = a[r, c]
            for u in range(len(column)):
                total += np.float64(column[u]) * np.float64(column[u])
            out[r, c] = total


def squares(a: Array) -> NDArray[np.float64]:
    """(replicate, columns): Σ_i a_i² in float64."""
    out = np.empty(a.shape[:2])
    _squares(packed(a), out)
    return out


def packed(a: Array) -> Array:
    """The same numbers, contiguous and writeable: functions are compiled once for each type and layout."""
    return a if a.flags.carray else np.array(a, order="C")
