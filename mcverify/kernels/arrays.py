"""The deterministic primitives in NumPy: shared by the reference and the CPU backend, the specification of others."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcverify.activations import Activation
from mcverify.threads import available

Array = NDArray[Any]

# ---- to the backend and back ----------------------------------------------------------------------------


def given(a: Array) -> Array:
    """A NumPy array as the backend holds it."""
    return np.ascontiguousarray(a)


def host(a: Array) -> Array:
    """What the backend holds as a NumPy array."""
    return a


def room() -> int | None:
    """Bytes that a batch's tape may take; None where caches say how large a batch should be."""
    return None


def workers(threads: int | None) -> int:
    """How many threads carry batches, of as many as are asked for; None is all that there are."""
    return threads or available()


# ---- elementwise ----------------------------------------------------------------------------------------


def activate(phi: Activation, h: Array) -> Array:
    """φ(h)."""
    return np.asarray(phi.phi(h))


def slope(phi: Activation, h: Array) -> Array:
    """φ′(h)."""
    return np.asarray(phi.dphi(h))


def slope_times(phi: Activation, h: Array, d: Array) -> Array:
    """φ′(h) d, one h for every direction of d (replicate, direction, …)."""
    return d * slope(phi, h)[:, None]


def multiply(a: Array, b: Array) -> Array:
    """a · b, broadcasting."""
    return a * b


def add(a: Array, b: Array, scale: float) -> Array:
    """a + scale · b, of one shape."""
    return np.asarray(a + a.dtype.type(scale) * b)


def affine(y: Array, gain: float, b: Array | None = None, scale: float = 0.0) -> Array:
    """y ← gain · y + scale · b, in place; y (replicate, columns, units), b (replicate, 1, units)."""
    y *= y.dtype.type(gain)
    if b is not None:
        y += b * y.dtype.type(scale)
    return y


def masked(u: Array, keep: float) -> Array:
    """1/keep where a uniform is below keep, 0 elsewhere."""
    mask = (u < keep).astype(u.dtype)
    mask *= u.dtype.type(1.0 / keep)
    return mask


# ---- columns and positions ------------------------------------------------------------------------------


def join(a: Array, b: Array) -> Array:
    """Columns a and then b, for each replicate of b."""
    return np.concatenate([np.broadcast_to(a, (len(b), *a.shape[1:])), b], axis=1)


def columns(a: Array, first: int) -> Array:
    """Columns `first` and up."""
    return a[:, first:]


def swapped(x: Array) -> Array:
    """(replicate, a, b, units) → (replicate, b, a, units)."""
    return np.ascontiguousarray(np.swapaxes(x, 1, 2))


def pool(x: Array, positions: int) -> Array:
    """(…, input · positions, units) → (…, input, units): means over positions, in float64: a thousand positions are
    many for float32."""
    grid = x.reshape(*x.shape[:-2], -1, positions, x.shape[-1])
    return np.asarray(grid.mean(axis=-2, dtype=np.float64)).astype(x.dtype)


def spread(d: Array, positions: int) -> Array:
    """The adjoint of `pool`: d/positions at every position."""
    return np.repeat(d / d.dtype.type(positions), positions, axis=-2)


# ---- statistics -----------------------------------------------------------------------------------------


def standardise(
    x: Array, axis: int, eps: float, gain: float, shift: float
) -> tuple[Array, Array, NDArray[np.float64]]:
    """(y, ŷ, 1/std) along an axis, −2 (columns) or −1 (units): ŷ = (x − mean)/√(var + eps), var that of the population,
    y = gain · ŷ + shift. Statistics in float64, whatever the type of x; 1/std keeps the axis."""
    h = x.astype(np.float64)
    h -= h.mean(axis=axis, keepdims=True)
    inverse = 1.0 / np.sqrt((h**2).mean(axis=axis, keepdims=True) + eps)
    h *= inverse
    return (gain * h + shift).astype(x.dtype), h.astype(x.dtype), inverse


def standardise_slope(
    unit: Array, inverse: NDArray[np.float64], d: Array, axis: int, gain: float
) -> Array:
    """(gain/std) (I − 11ᵀ/n − ŷŷᵀ/n) d along the axis, directions of d (replicate, direction, column, units) apart: a
    symmetric matrix."""
    unit, inverse = unit[:, None], inverse[:, None]
    out = d - d.mean(axis=axis, keepdims=True, dtype=np.float64)
    out -= unit * (unit * d).mean(axis=axis, keepdims=True, dtype=np.float64)
    out *= gain * inverse
    return np.asarray(out).astype(d.dtype)


def gram(a: Array, b: Array) -> NDArray[np.float64]:
    """(replicate, columns, columns): Σ_i a_i b_i, accumulated in float64."""
    wide_a = a.astype(np.float64, copy=False)
    wide_b = wide_a if b is a else b.astype(np.float64, copy=False)
    return np.matmul(wide_a, wide_b.swapaxes(-1, -2))


def squares(a: Array) -> NDArray[np.float64]:
    """(replicate, columns): Σ_i a_i², accumulated in float64."""
    return np.einsum("rci,rci->rc", a, a, dtype=np.float64)
