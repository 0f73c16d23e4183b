"""Inputs: with a prescribed Gram matrix, at random, or real images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mcverify.errors import InputError
from mcverify.validate import LEAST, MOST, count

FloatArray = NDArray[np.float64]


def checked(x: ArrayLike, shape: tuple[int, ...]) -> FloatArray:
    """x, given as (input, n_0) or with positions as (input, channels, *positions), as a float64 array
    (input, *positions, n_0). shape: that of one input, (*positions, n_0).

    Raises InputError where x is not finite or not that shape."""
    wanted = (shape[-1], *shape[:-1])
    told = ", ".join(map(str, ("inputs", *wanted)))
    try:
        if np.iscomplexobj(x):
            raise TypeError
        array = np.asarray(x, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InputError("x", type(x).__name__, f"must be an array of numbers, ({told})") from None
    if array.ndim != len(shape) + 1 or array.shape[0] < 1 or array.shape[1:] != wanted:
        order = "; channels come before positions" if array.shape[1:] == shape != wanted else ""
        allowed = f"must have shape ({told}), at least one input{order}"
        raise InputError("x", f"shape {array.shape}", allowed)
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InputError(f"x{list(where)}", float(array[where]), "must be finite")
    largest = np.abs(array).reshape(len(array), -1).max(axis=1)
    bad = np.flatnonzero((largest != 0) & ((largest < LEAST) | (largest > MOST)))
    if len(bad):
        allowed = f"must have its largest entry from {LEAST:g} to {MOST:g}, or be 0"
        raise InputError(f"x[{bad[0]}]", float(largest[bad[0]]), allowed)
    return np.ascontiguousarray(np.moveaxis(array, 1, -1))


def with_gram(gram: ArrayLike, input_dim: int) -> FloatArray:
    """Inputs x (input, n_0) with x_a · x_b / n_0 = gram[a, b] to rounding.

    The directions are cosines of different frequency, orthonormal on n_0 points: spread over all units and
    of both signs. Raises InputError for a matrix that is not symmetric positive semidefinite, or of rank
    above n_0."""
    count("input_dim", input_dim)
    try:
        g = np.asarray(gram, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InputError("gram", gram, "must be a square matrix of numbers") from None
    if not g.size or g.ndim != 2 or g.shape[0] != g.shape[1] or not np.isfinite(g).all() or not np.allclose(g, g.T):
        raise InputError("gram", g.tolist(), "must be a finite symmetric matrix")
    values, vectors = np.linalg.eigh(g)
    floor = 1e-12 * max(1.0, float(values.max()))
    if values.min() < -floor:
        raise InputError("gram", g.tolist(), f"must be positive semidefinite; it has the eigenvalue {values.min():g}")
    keep = values > floor
    rank = int(keep.sum())
    if rank > input_dim:
        raise InputError("gram", f"rank {rank}", f"must have rank at most input_dim = {input_dim}")
    root = vectors[:, keep] * np.sqrt(values[keep])
    points = np.pi * (np.arange(input_dim) + 0.5) / input_dim
    # Frequencies 1, 2, … of the type-II cosine transform; 0, the constant, comes last.
    frequency = np.roll(np.arange(input_dim), -1)[:rank]
    frame = np.sqrt(np.where(frequency == 0, 1.0, 2.0))[:, None] * np.cos(frequency[:, None] * points)
    return np.asarray(root @ frame)


def digits(inputs: int) -> FloatArray:
    """The first handwritten digits that scikit-learn ships, (input, 64), each scaled to ‖x‖²/n_0 = 1.

    Raises InputError where scikit-learn (extra `mcverify[digits]`) is not installed."""
    count("digits", inputs)
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise InputError(
            "digits", inputs, "needs scikit-learn: pip install scikit-learn (the extra [digits])"
        ) from None
    images: NDArray[Any] = load_digits().data.astype(np.float64)
    if inputs > len(images):
        raise InputError("digits", inputs, f"must be at most {len(images)}, the number of images")
    x = images[:inputs] - images[:inputs].mean(axis=1, keepdims=True)
    return np.asarray(x / np.sqrt((x**2).mean(axis=1, keepdims=True)))


def checked_cotangent(cotangent: str | ArrayLike | None, inputs: int, shape: tuple[int, ...]) -> str | FloatArray:
    """ "independent", "shared", or an array (input, *positions, n_L). shape: that of the output, (*positions, n_L).

    Raises InputError for anything else."""
    allowed = f"must be 'independent', 'shared' or a finite array of shape {(inputs, *shape)}"
    if isinstance(cotangent, str):
        if cotangent not in ("independent", "shared"):
            raise InputError("cotangent", cotangent, allowed)
        return cotangent
    try:
        v = np.asarray(cotangent, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InputError("cotangent", type(cotangent).__name__, allowed) from None
    if v.shape != (inputs, *shape) or not np.isfinite(v).all():
        raise InputError("cotangent", f"array of shape {v.shape}", allowed)
    return v


def default_inputs(shape: tuple[int, ...]) -> FloatArray:
    """Two inputs (2, *positions, n_0) of unit length and correlation ½; one where there is but one dimension."""
    dimensions = math.prod(shape)
    x = with_gram([[1.0, 0.5], [0.5, 1.0]] if dimensions > 1 else [[1.0]], dimensions)
    return x.reshape(-1, *shape)
