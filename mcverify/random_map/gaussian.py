"""Gaussian maps sampled conditionally: outputs from their exact law given what was revealed, no weights.

The algebra is in kernels/conditional.py; here are the addresses. Column k that a map meets, inputs first and
tangents after them, takes row k of one matrix of normals, and cotangent column k row k of another. A matrix
with fewer rows is the beginning of one with more, so a later call repeats what an earlier one revealed and
adds its own columns: however the columns are divided among calls, one W was met by all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcverify.kernels import memory
from mcverify.kernels.conditional import Root
from mcverify.kernels.primitives import Kernels
from mcverify.random_map.engine import Map
from mcverify.streams import Role, Site

Array = NDArray[Any]
FloatArray = NDArray[np.float64]


@dataclass
class Revealed:
    """What is known of a map: the columns x it met, the images y, and the cotangents d it was met by.

    x (replicate or 1, columns, fan_in), y (replicate, columns, fan_out), d (replicate, k, fan_out) or None;
    offset (columns,) is the bias's standard deviation, 0 for tangents; root is that of the columns. Nothing is
    copied: x, y and d are the tape's.
    """

    map: Map
    site: Site
    x: Array
    y: Array
    offset: FloatArray
    root: Root
    d: Array | None = None


def _gain(m: Map) -> float:
    return float(np.sqrt(m.sigma_w2 / m.fan_in))


def apply(kernels: Kernels, m: Map, x: Array, site: Site) -> tuple[Array, Revealed]:
    """W x + b for a fresh (W, b) per replicate. x (replicate or 1, columns, fan_in)."""
    x = _met(kernels, m, x)
    offset = np.full(x.shape[1], np.sqrt(m.sigma_b2))
    z = kernels.draw(site, Role.CONDITIONAL, "gaussian", x.shape[1], m.fan_out, x.dtype)
    y, root = kernels.gaussian_apply(x, z, _gain(m), offset)
    return y, Revealed(m, site, x, y, offset, root)


def apply_tangent(kernels: Kernels, saved: Revealed, dx: Array) -> Array:
    """W dx with the W that x met; the bias does not move. dx (replicate, columns, fan_in)."""
    refuse_late_tangents(saved.d)
    m, met = saved.map, saved.x.shape[1]
    x = kernels.join(saved.x, _met(kernels, m, dx))
    offset = np.concatenate([saved.offset, np.zeros(dx.shape[1])])
    z = kernels.draw(saved.site, Role.CONDITIONAL, "gaussian", x.shape[1], m.fan_out, x.dtype)
    y, saved.root = kernels.gaussian_apply(x, z, _gain(m), offset)
    saved.x, saved.y, saved.offset = x, y, offset
    return kernels.columns(y, met)


def apply_transpose(kernels: Kernels, saved: Revealed, dy: Array) -> Array:
    """Wᵀ dy with the W that x, the tangents and earlier cotangents met. dy (replicate, columns, fan_out)."""
    m, site = saved.map, saved.site
    known, d = meet(kernels, saved, dy)
    columns, k = saved.x.shape[1], d.shape[1]
    g = kernels.draw(site, Role.CONDITIONAL_TRANSPOSE, "gaussian", k, m.fan_in, d.dtype)
    if m.sigma_b2 > 0:
        below = kernels.draw(site, Role.CONDITIONAL_BIAS, "gaussian", 1, k, d.dtype).reshape(len(g), k)
    else:
        below = kernels.given(np.zeros((len(g), k), d.dtype))
    given = saved.x, saved.root, saved.y
    if not kernels.host(saved.root.weak).any():
        dx = kernels.gaussian_transpose(*given, None, d, g, below, _gain(m), saved.offset)
    else:
        with memory.scratch():  # the result lies in g
            z = kernels.draw(site, Role.CONDITIONAL, "gaussian", columns, m.fan_out, d.dtype)
            dx = kernels.gaussian_transpose(*given, z, d, g, below, _gain(m), saved.offset)
    return _folded(kernels, m, kernels.columns(dx, known))


def apply_fresh_transpose(kernels: Kernels, saved: Revealed, dy: Array) -> Array:
    """Wᵀ dy with a W of its own, met by nothing before: columns of a map from fan_out to fan_in."""
    m = saved.map
    known, d = meet(kernels, saved, dy)
    z = kernels.draw(saved.site, Role.CONDITIONAL_TRANSPOSE, "gaussian", d.shape[1], m.fan_in, d.dtype)
    dx, _ = kernels.gaussian_apply(d, z, _gain(m), np.zeros(d.shape[1]))
    return _folded(kernels, m, kernels.columns(dx, known))


def _met(kernels: Kernels, m: Map, x: Array) -> Array:
    """The columns that the matrix meets: patches where the map has a window."""
    return x if m.window is None else kernels.patches(x, m.window)


def _folded(kernels: Kernels, m: Map, dx: Array) -> Array:
    """The adjoint of `_met`."""
    return dx if m.window is None else kernels.fold(dx, m.window)


def meet(kernels: Kernels, saved: Any, dy: Array) -> tuple[int, Array]:
    """Note the cotangents dy: how many columns came before them, and all of them together."""
    known = 0 if saved.d is None else saved.d.shape[1]
    saved.d = dy if saved.d is None else kernels.join(saved.d, dy)
    return known, saved.d


def refuse_late_tangents(d: Array | None) -> None:
    """Raises RuntimeError where cotangents came first: what they reveal of W is not carried to tangents."""
    if d is not None:
        raise RuntimeError("tangents must be applied before cotangents: the conditional sampler keeps that order")
