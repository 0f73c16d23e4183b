"""Conditional sampling in NumPy: a random map's output from its exact law given its input, no weights.

The specification of kernels/conditional_cpu.py, in float64 throughout and rounded once. Columns are held
as rows, (replicate, columns, units), and broadcast over replicates.

Gaussian. Let W have i.i.d. N(0, 1) entries, A the columns it meets, and A = Q R with Q orthonormal. Then
Z = W Q is i.i.d. N(0, 1) whatever A is, and W A = Z R. Given Z, W = Z Qᵀ + W̃ (I − Q Qᵀ) with W̃ a fresh
copy of W, so for columns δ that W̃ has not met, Wᵀ δ = Q Zᵀ δ + (I − Q Qᵀ) g with g = W̃ᵀ δ: with δ = P S, P
orthonormal, g = G S for i.i.d. N(0, 1) entries G.

Haar. Let O be uniform on the orthogonal group and A = Q R: V = O Q is uniform on the Stiefel manifold, and
O A = V R. Given V, O maps the complement of Q uniformly to that of V, so with δ = V Vᵀ δ + P S, P
orthonormal, Oᵀ δ = Q Vᵀ δ + T S with T = Oᵀ P uniform among the frames orthogonal to Q. A uniform frame is
Gram–Schmidt of Gaussian columns.

Column k has a draw of its own, used or not, so the columns already met do not change when more are added.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
FloatArray = NDArray[np.float64]

# A column whose part outside the others is shorter than this, relative to itself, lies in their span: what
# is dropped is below the rounding of the columns themselves.
DEPENDENT = 1e-13


class Root(NamedTuple):
    """r (replicate or 1, columns, columns), the columns' root; weak (replicate or 1,), where the transpose
    needs the normals again because the image does not determine them well."""

    r: FloatArray
    weak: NDArray[np.bool_]


def orthonormal(a: Array, given: Array | None = None) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Gram–Schmidt by columns, each cleaned twice, which is enough (Giraud et al., Numer. Math. 101, 2005).

    a (replicate, k, units), given (replicate, j, units) orthonormal or zero. Returns q (replicate, k, units),
    r (replicate, k, k) upper triangular, and c (replicate, j, k), with a = r^T q + c^T given, row by row. A
    column in the span of those before it gives a zero row of q and of r: no column is ever perturbed.
    """
    a = np.asarray(a, dtype=np.float64)
    count, k, units = a.shape
    basis = np.zeros((count, 0, units)) if given is None else given
    j = basis.shape[1]
    basis = np.concatenate([basis, np.zeros((count, k, units))], axis=1)
    coefficients = np.zeros((count, j + k, k))
    for i in range(k):
        size = np.abs(a[:, i]).max(axis=-1, initial=0.0)
        scale = np.where((size > 0) & np.isfinite(size), size, 1.0)  # so that no square under- or overflows
        v = a[:, i] / scale[:, None]
        whole = np.linalg.norm(v, axis=-1)
        for _ in range(2):
            along = np.einsum("rbn,rn->rb", basis, v)
            v = v - np.einsum("rbn,rb->rn", basis, along)
            coefficients[:, :, i] += along * scale[:, None]
        rest = np.linalg.norm(v, axis=-1)
        keep = rest > DEPENDENT * whole
        basis[:, j + i] = np.where(keep[:, None], v / np.where(keep, rest, 1.0)[:, None], 0.0)
        coefficients[:, j + i, i] = np.where(keep, rest, 0.0 * rest) * scale  # 0 · NaN is NaN: not hidden
    return basis[:, j:], coefficients[:, j:], coefficients[:, :j]


def _with_bias(x: Array, gain: float, offset: FloatArray) -> FloatArray:
    """A: gain · x, and below it the row of the bias, (replicate, columns, units + 1)."""
    below = np.broadcast_to(offset[:, None], (*x.shape[:2], 1))
    return np.concatenate([gain * x.astype(np.float64), below], axis=-1)


def _times(r: FloatArray, q: FloatArray) -> FloatArray:
    """Columns Q R, held as rows: Rᵀ Q."""
    return np.matmul(r.swapaxes(-1, -2), q)


def _dots(a: FloatArray, b: FloatArray) -> FloatArray:
    """Every column of a with every column of b, (replicate, columns of a, columns of b)."""
    return np.matmul(a, b.swapaxes(-1, -2))


def gaussian_apply(x: Array, z: Array, gain: float, offset: FloatArray) -> tuple[Array, Root]:
    """Columns W x + b of maps with weights N(0, gain²) and biases N(0, 1) times offset.

    x (replicate or 1, columns, n_in), z (replicate, columns, n_out) standard normals, which may be
    overwritten, offset (columns,). Returns y (replicate, columns, n_out), and what `gaussian_transpose`
    wants to know of the root.
    """
    _, r, _ = orthonormal(_with_bias(x, gain, offset))
    return _times(r, z.astype(np.float64)).astype(z.dtype), Root(r, np.ones(len(x), bool))


def gaussian_transpose(
    x: Array, root: Root, y: Array, z: Array | None, d: Array, g: Array, below: Array, gain: float, offset: FloatArray
) -> Array:
    """Columns Wᵀ d of the maps that took x to y.

    x, y, z, gain, offset, root as in `gaussian_apply`, z None where no root is weak; d (replicate, k, n_out);
    g (replicate, k, n_in), which may be overwritten, and below (replicate, k) standard normals: the rows of the
    weights, and of the bias. Returns (replicate, k, n_in).
    """
    assert z is not None
    d64 = d.astype(np.float64)
    q, _, _ = orthonormal(_with_bias(x, gain, offset))
    _, s, _ = orthonormal(d64)
    fresh = _times(s, np.concatenate([g, below[..., None]], axis=-1, dtype=np.float64))
    out = fresh + _times(_dots(z.astype(np.float64), d64) - _dots(q, fresh), q)
    return (gain * out[..., :-1]).astype(d.dtype)


def haar_apply(x: Array, z: Array) -> Array:
    """Columns O x of Haar matrices O. x (replicate or 1, columns, n), z (replicate, columns, n) standard
    normals, which may be overwritten."""
    _, r, _ = orthonormal(x)
    v, _, _ = orthonormal(_where_new(z, r))
    return _times(r, v).astype(z.dtype)


def _where_new(draws: Array, r: FloatArray) -> FloatArray:
    """The draws of columns that added a dimension; the others reveal nothing, and take up no room."""
    return np.where(np.diagonal(r, axis1=1, axis2=2)[..., None] != 0, draws, 0.0)


def haar_transpose(x: Array, z: Array, d: Array, g: Array) -> Array:
    """Columns Oᵀ d of the matrices that met x with draws z. d, g (replicate, k, n), g standard normals."""
    q, r, _ = orthonormal(x)
    v, _, _ = orthonormal(_where_new(z, r))
    _, s, along = orthonormal(d, v)
    t, _, _ = orthonormal(_where_new(g, s), np.broadcast_to(q, v.shape))
    return (_times(along, q) + _times(s, t)).astype(d.dtype)
