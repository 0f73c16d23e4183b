"""The deterministic primitives in NumPy: shared by the reference and the CPU backend."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcverify.activations import Activation


def activate(phi: Activation, h: NDArray[Any]) -> NDArray[Any]:
    """φ(h)."""
    return np.asarray(phi.phi(h))


def slope(phi: Activation, h: NDArray[Any]) -> NDArray[Any]:
    """φ′(h)."""
    return np.asarray(phi.dphi(h))


def slope_times(phi: Activation, h: NDArray[Any], d: NDArray[Any]) -> NDArray[Any]:
    """φ′(h) d, one h for every direction of d (replicate, direction, …)."""
    return d * slope(phi, h)[:, None]


def multiply(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """a · b, broadcasting."""
    return a * b


def gram(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """(replicate, columns, columns): Σ_i a_i b_i, accumulated in float64."""
    wide_a = a.astype(np.float64, copy=False)
    wide_b = wide_a if b is a else b.astype(np.float64, copy=False)
    return np.matmul(wide_a, wide_b.swapaxes(-1, -2))


def squares(a: NDArray[Any]) -> NDArray[np.float64]:
    """(replicate, columns): Σ_i a_i², accumulated in float64."""
    return np.einsum("rci,rci->rc", a, a, dtype=np.float64)
