"""The random primitives in plain NumPy: slow, obvious, and the specification of every other backend.

Sections of docs/streams.md are implemented here in order: layout, uniforms, laws, random maps. Whatever
has a transcendental function in it is computed in float64 and rounded once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfinv

from mcverify.errors import InputError
from mcverify.kernels.arrays import (
    activate,
    add,
    affine,
    columns,
    given,
    gram,
    host,
    join,
    masked,
    multiply,
    pool,
    room,
    slope,
    slope_times,
    spread,
    squares,
    standardise,
    standardise_slope,
    swapped,
    workers,
)
from mcverify.kernels.conditional import gaussian_apply, gaussian_transpose, haar_apply, haar_transpose
from mcverify.kernels.patches import Window, fold, patch_gram, patches, shifted
from mcverify.streams import LANES, Role, Site, counters, philox, role_number, tiles_per_row
from mcverify.weights import TRUNCATED_VARIANCE, weight_law

__all__ = [
    "activate",
    "add",
    "affine",
    "columns",
    "draw",
    "fold",
    "gaussian_apply",
    "gaussian_transpose",
    "given",
    "gram",
    "haar_apply",
    "haar_transpose",
    "host",
    "join",
    "mask",
    "multiply",
    "patch_gram",
    "patches",
    "pool",
    "random_matmul",
    "random_matmul_transpose",
    "room",
    "shifted",
    "slope",
    "slope_times",
    "spread",
    "squares",
    "standardise",
    "standardise_slope",
    "swapped",
    "uniforms",
    "words",
    "workers",
]

Array = NDArray[Any]

_ERF_SQRT_2 = 0.9544997361036415856  # probability that a standard normal lies within ±2


# ---- layout -------------------------------------------------------------------------------------------


def _tiles(site: Site, role: Role, rows: int, cols: int, dtype: Any) -> Array:
    """The words of whole tiles, (replicate, rows, tiles, words per lane, lane).

    Words are 32-bit for float32; for float64 words (2j, 2j + 1) of a block make its j-th 64-bit word."""
    tiles = tiles_per_row(rows, cols, dtype)
    blocks = np.arange(rows * tiles * LANES, dtype=np.uint64).reshape(rows, tiles, LANES)
    replicates = np.arange(site.start, site.start + site.count, dtype=np.uint64)
    address = counters(site.layer, role_number(role), replicates[:, None, None, None], blocks)
    word = philox(address, site.key)
    if np.dtype(dtype) == np.float64:
        low, high = word[..., 0::2].astype(np.uint64), word[..., 1::2].astype(np.uint64)
        word = low | (high << np.uint64(32))
    return np.moveaxis(word, -1, -2)


def _matrix(tiles: Array, cols: int) -> Array:
    """(replicate, rows, cols) from whole tiles, the padding of each row dropped."""
    count, rows, _, _, _ = tiles.shape
    width = int(np.prod(tiles.shape[2:]))
    return np.ascontiguousarray(tiles.reshape(count, rows, width)[..., :cols])


def words(site: Site, role: Role, rows: int, cols: int, dtype: Any) -> Array:
    """(replicate, rows, cols): the word behind each draw, uint32 for float32 and uint64 for float64."""
    return _matrix(_tiles(site, role, rows, cols, dtype), cols)


# ---- uniforms -----------------------------------------------------------------------------------------


def _unit(word: Array) -> Array:
    """A word as a uniform in (0, 1): (w + ½) 2^-32 as float32, or (w>>11 + ½) 2^-53 as float64.

    In float32 the word is rounded to float32 first and the sum with 2^-33 second, each to nearest even."""
    if word.dtype == np.uint32:
        return word.astype(np.float32) * np.float32(2.0**-32) + np.float32(2.0**-33)
    return ((word >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def _signed_unit(word: Array) -> Array:
    """The same word as a uniform in (-1, 1), with the relative precision of the type near 0."""
    if word.dtype == np.uint32:
        centred = (word ^ np.uint32(1 << 31)).view(np.int32).astype(np.float32)
        return centred * np.float32(2.0**-31) + np.float32(2.0**-32)
    return ((word >> np.uint64(11)).astype(np.float64) - 2.0**52 + 0.5) * 2.0**-52


def uniforms(site: Site, role: Role, rows: int, cols: int, dtype: Any) -> Array:
    """(replicate, rows, cols) uniforms in (0, 1): never 0; 1 when the last value rounds up to it."""
    return _unit(words(site, role, rows, cols, dtype))


def mask(site: Site, role: Role, keep: float, rows: int, cols: int, dtype: Any) -> Array:
    """(replicate, rows, cols): 1/keep where the uniform is below keep, 0 elsewhere."""
    return masked(uniforms(site, role, rows, cols, dtype), keep)


# ---- laws of unit variance ------------------------------------------------------------------------------


def _angle(word: Array) -> tuple[Array, Array]:
    """The angle 2π (w + ½) / 2^bits as (quadrant, remainder in quarter turns, in [-½, ½]), both exact.

    A 64-bit word gives its top 54 bits to the angle."""
    if word.dtype == np.uint32:
        turned = word.astype(np.uint64) + np.uint64(1 << 29)
        bits = np.uint64(30)
    else:
        turned = (word >> np.uint64(10)) + np.uint64(1 << 51)
        bits = np.uint64(52)
    quadrant = ((turned >> bits) & np.uint64(3)).astype(np.intp)
    size = 2.0 ** float(bits)
    remainder = (turned & np.uint64((1 << int(bits)) - 1)).astype(np.float64) - size / 2
    return quadrant, (remainder + 0.5) / size


def _gaussian(tiles: Array) -> Array:
    """Box–Muller: of each pair of words in a lane, the first is the radius and the second the angle."""
    u = _unit(tiles[..., 0::2, :]).astype(np.float64)
    radius = np.sqrt(-2.0 * np.log(u))
    quadrant, remainder = _angle(tiles[..., 1::2, :])
    c, s = np.cos(0.5 * np.pi * remainder), np.sin(0.5 * np.pi * remainder)
    normals = np.empty(tiles.shape)
    normals[..., 0::2, :] = radius * np.choose(quadrant, [c, -s, -c, s])
    normals[..., 1::2, :] = radius * np.choose(quadrant, [s, c, -s, -c])
    return normals


def _uniform(word: Array) -> Array:
    v = _signed_unit(word)
    return np.asarray(v * v.dtype.type(np.sqrt(3.0)))


def _truncated_normal(word: Array) -> Array:
    """By the inverse of its distribution function: √2 erf⁻¹(v erf √2), divided by its standard deviation."""
    v = _signed_unit(word).astype(np.float64)
    return np.asarray(np.sqrt(2.0 / TRUNCATED_VARIANCE) * erfinv(v * _ERF_SQRT_2))


def _rademacher(word: Array) -> Array:
    """+1 where the top bit of the word is set, −1 elsewhere."""
    return np.where(word >> word.dtype.type(8 * word.dtype.itemsize - 1), 1.0, -1.0)


_LAWS = {"uniform": _uniform, "truncated_normal": _truncated_normal, "rademacher": _rademacher}


def draw(site: Site, role: Role, law: str, rows: int, cols: int, dtype: Any) -> Array:
    """(replicate, rows, cols) draws of unit variance; "orthogonal" gives whole matrices (see `_haar`)."""
    name = weight_law(law).name
    if name == "orthogonal":
        return _haar(site, role, rows, cols, dtype).astype(dtype)
    tiles = _tiles(site, role, rows, cols, dtype)
    numbers = _gaussian(tiles) if name == "gaussian" else _LAWS[name](tiles)
    return _matrix(numbers, cols).astype(dtype)


# ---- Haar matrices --------------------------------------------------------------------------------------


def _haar(site: Site, role: Role, rows: int, cols: int, dtype: Any) -> Array:
    """√m times the first columns of a Haar matrix on O(m), m = max(rows, cols); transposed when rows < cols.

    Stewart's construction (SIAM J. Numer. Anal. 17, 1980). Let g_k be independent Gaussian vectors on the
    coordinates k..m−1. The reflection H_k takes g_k to ∓‖g_k‖ e_k; with D_k the sign that makes the first
    column of H_k D_k equal to g_k / ‖g_k‖, uniform on the sphere, Q = H_0 D_0 H_1 D_1 ... is exactly Haar.
    """
    m, k = max(rows, cols), min(rows, cols)
    gaussian = draw(site, role, "gaussian", k, m, dtype).astype(np.float64)
    q = np.zeros((site.count, m, k))
    q[:, np.arange(k), np.arange(k)] = 1.0
    for r in range(site.count):
        for i in reversed(range(k)):
            v = gaussian[r, i, i:]
            sign = 1.0 if v[0] >= 0.0 else -1.0
            if i == m - 1:
                q[r, i, :] *= sign  # on one coordinate the uniform point of the sphere is a sign
                continue
            v[0] += sign * np.linalg.norm(v)
            q[r, i, :] *= -sign
            below = q[r, i:, :]
            below -= np.outer(v, (v @ below) * (2.0 / (v @ v)))
    q *= np.sqrt(m)
    return q if rows >= cols else q.swapaxes(1, 2)


# ---- random maps ----------------------------------------------------------------------------------------


def _columns(site: Site, name: str, x: Array) -> Array:
    """The argument of a random map, checked.

    Raises InputError for another shape than (site.count or 1, columns, units) or another type."""
    x = np.asarray(x)
    if x.dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise InputError(f"{name}.dtype", str(x.dtype), "must be float32 or float64")
    if x.ndim != 3 or x.shape[0] not in (1, site.count):
        raise InputError(f"{name}.shape", x.shape, f"must be ({site.count} or 1, columns, units)")
    return x


def random_matmul(site: Site, role: Role, law: str, n_out: int, x: Array, window: Window | None = None) -> Array:
    """y[r, c, i] = Σ_j w[r, i, j] x[r, c, j] with w = draw(site, role, law, n_out, n_in); of the patches of x where
    there is a window."""
    x = _columns(site, "x", x)
    if window is not None:
        x = patches(x, window)
    w = draw(site, role, law, n_out, x.shape[2], x.dtype).astype(np.float64)
    return np.asarray(x.astype(np.float64) @ w.swapaxes(1, 2), dtype=x.dtype)


def random_matmul_transpose(
    site: Site, role: Role, law: str, n_in: int, d: Array, window: Window | None = None
) -> Array:
    """z[r, c, j] = Σ_i w[r, i, j] d[r, c, i] with w = draw(site, role, law, n_out, n_in); folded by a window."""
    d = _columns(site, "d", d)
    w = draw(site, role, law, d.shape[2], n_in, d.dtype).astype(np.float64)
    z = np.asarray(d.astype(np.float64) @ w, dtype=d.dtype)
    return z if window is None else fold(z, window)
