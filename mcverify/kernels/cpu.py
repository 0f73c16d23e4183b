"""The random primitives on the CPU: the same as kernels/reference.py, by the compiled extension.

Single-threaded and without the GIL: callers thread over replicates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcverify import _native
from mcverify.errors import InputError
from mcverify.kernels import memory
from mcverify.kernels.arrays import (
    add,
    columns,
    given,
    host,
    join,
    masked,
    multiply,
    pool,
    room,
    spread,
    standardise,
    standardise_slope,
    swapped,
    workers,
)
from mcverify.kernels.conditional_cpu import gaussian_apply, gaussian_transpose, haar_apply, haar_transpose
from mcverify.kernels.elementwise_cpu import activate, affine, slope, slope_times
from mcverify.kernels.linear_cpu import gram, squares
from mcverify.kernels.patches import Window, neighbours, shifted
from mcverify.kernels.patches_cpu import fold, patch_gram, patches
from mcverify.streams import REALS, Role, Site, role_number, tiles_per_row
from mcverify.weights import weight_law

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

# What the extension calls uniforms and words (src_ext/mcverify.h).
_UNIT, _WORDS = 5, 6


def _fill(site: Site, role: Role, what: int, rows: int, cols: int, dtype: Any) -> Array:
    tiles_per_row(rows, cols, dtype)  # refuses another type and too many draws
    out = memory.empty((site.count, rows, cols), dtype)
    _native.draw(site.key, site.layer, role_number(role), site.start, what, 0, out)
    return out


def words(site: Site, role: Role, rows: int, cols: int, dtype: Any) -> Array:
    """(replicate, rows, cols): the word behind each draw, uint32 for float32 and uint64 for float64."""
    bits = np.uint32 if np.dtype(dtype) == np.float32 else np.uint64
    return _fill(site, role, _WORDS, rows, cols, dtype).view(bits)


def uniforms(site: Site, role: Role, rows: int, cols: int, dtype: Any) -> Array:
    """(replicate, rows, cols) uniforms in (0, 1): never 0; 1 when the last value rounds up to it."""
    return _fill(site, role, _UNIT, rows, cols, dtype)


def mask(site: Site, role: Role, keep: float, rows: int, cols: int, dtype: Any) -> Array:
    """(replicate, rows, cols): 1/keep where the uniform is below keep, 0 elsewhere."""
    return masked(uniforms(site, role, rows, cols, dtype), keep)


def draw(site: Site, role: Role, law: str, rows: int, cols: int, dtype: Any) -> Array:
    """(replicate, rows, cols) draws of unit variance."""
    row = weight_law(law)
    if not row.independent:
        tiles_per_row(rows, cols, dtype)
        identity = np.eye(cols, dtype=dtype)[None]
        return np.ascontiguousarray(random_matmul(site, role, law, rows, identity).swapaxes(1, 2))
    return _fill(site, role, row.code, rows, cols, dtype)


def _map(
    site: Site, role: Role, law: str, n_to: int, name: str, x: Array, window: Window | None, transposed: bool
) -> Array:
    x = np.ascontiguousarray(x)
    if x.dtype not in REALS:
        raise InputError(f"{name}.dtype", str(x.dtype), "must be float32 or float64")
    if x.ndim != 3 or x.shape[0] not in (1, site.count):
        raise InputError(f"{name}.shape", x.shape, f"must be ({site.count} or 1, columns, units)")
    taps, seen = (1, None) if window is None else (window.taps, neighbours(*window))
    n_out, n_in = (x.shape[2], n_to) if transposed else (n_to, taps * x.shape[2])
    row = weight_law(law)
    if row.independent:
        tiles_per_row(n_out, n_in, x.dtype)
    elif window is not None:
        raise InputError("weights", law, "must be a law of independent entries for maps on patches")
    else:  # the smaller side counts the Gaussian vectors, the larger is their length
        tiles_per_row(min(n_out, n_in), max(n_out, n_in), x.dtype)
    y = memory.empty((site.count, x.shape[1], n_to // taps if transposed else n_to), x.dtype)
    _native.random_matmul(site.key, site.layer, role_number(role), site.start, row.code, x, y, transposed, seen)
    return y


def random_matmul(site: Site, role: Role, law: str, n_out: int, x: Array, window: Window | None = None) -> Array:
    """y[r, c, i] = Σ_j w[r, i, j] x[r, c, j] with w = draw(site, role, law, n_out, n_in); of the patches of x where
    there is a window, which are nowhere kept."""
    return _map(site, role, law, n_out, "x", x, window, transposed=False)


def random_matmul_transpose(
    site: Site, role: Role, law: str, n_in: int, d: Array, window: Window | None = None
) -> Array:
    """z[r, c, j] = Σ_i w[r, i, j] d[r, c, i] with w = draw(site, role, law, n_out, n_in); folded by a window."""
    return _map(site, role, law, n_in, "d", d, window, transposed=True)
