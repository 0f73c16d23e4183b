"""The conditional engine: each map by the sampler that knows its exact law without weights, else by weights."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcverify.kernels.primitives import Kernels
from mcverify.random_map import explicit, gaussian, haar
from mcverify.random_map.engine import Engine, Map
from mcverify.streams import Site

Array = NDArray[Any]


def sampler(m: Map) -> ModuleType:
    """The module that samples a map: gaussian, haar (square orthogonal), or explicit for every other law."""
    if m.law == "gaussian":
        return gaussian
    if m.law == "orthogonal" and m.fan_in == m.fan_out:
        return haar
    return explicit


def _apply(kernels: Kernels, m: Map, x: Array, site: Site) -> tuple[Array, Any]:
    y, saved = sampler(m).apply(kernels, m, x, site)
    return y, saved


def _apply_tangent(kernels: Kernels, saved: Any, dx: Array) -> Array:
    dy: Array = sampler(saved.map).apply_tangent(kernels, saved, dx)
    return dy


def _apply_transpose(kernels: Kernels, saved: Any, dy: Array) -> Array:
    dx: Array = sampler(saved.map).apply_transpose(kernels, saved, dy)
    return dx


def _apply_fresh_transpose(kernels: Kernels, saved: Any, dy: Array) -> Array:
    dx: Array = sampler(saved.map).apply_fresh_transpose(kernels, saved, dy)
    return dx


def engine(kernels: Kernels, dtype: np.dtype[Any], *, tied: bool = True, reason: str = "") -> Engine:
    """The conditional engine over a backend's kernels; tied=False gives the backward pass maps of its own."""
    transpose = _apply_transpose if tied else _apply_fresh_transpose
    return Engine("conditional", kernels, _apply, _apply_tangent, transpose, dtype, reason, tied)
