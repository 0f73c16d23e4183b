"""Square Haar maps sampled conditionally; bias and gain stay outside the orthogonal matrix.

Addresses as in random_map/gaussian.py; the algebra is in kernels/conditional.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from mcverify.kernels.primitives import Kernels
from mcverify.random_map.engine import Map
from mcverify.random_map.explicit import with_bias
from mcverify.random_map.gaussian import meet, refuse_late_tangents
from mcverify.streams import Role, Site

Array = NDArray[Any]


@dataclass
class Revealed:
    """What is known of a map: the columns x it met, and the cotangents d it was met by; the images are
    drawn again. x (replicate or 1, columns, n), d (replicate, k, n) or None."""

    map: Map
    site: Site
    x: Array
    d: Array | None = None


def _gain(m: Map) -> float:
    """σ_w."""
    return math.sqrt(m.sigma_w2)


def _normals(kernels: Kernels, saved: Revealed, role: Role, columns: int) -> Array:
    return kernels.draw(saved.site, role, "gaussian", columns, saved.map.fan_in, saved.x.dtype)


def apply(kernels: Kernels, m: Map, x: Array, site: Site) -> tuple[Array, Revealed]:
    """W x + b for a fresh (W, b) per replicate. x (replicate or 1, columns, n)."""
    saved = Revealed(m, site, x)
    y = kernels.haar_apply(x, _normals(kernels, saved, Role.CONDITIONAL, x.shape[1]))
    return with_bias(kernels, m, y, _gain(m), site), saved


def apply_tangent(kernels: Kernels, saved: Revealed, dx: Array) -> Array:
    """W dx with the W that x met; the bias does not move. dx (replicate, columns, n)."""
    refuse_late_tangents(saved.d)
    met = saved.x.shape[1]
    saved.x = x = kernels.join(saved.x, dx)
    y = kernels.haar_apply(x, _normals(kernels, saved, Role.CONDITIONAL, x.shape[1]))
    return kernels.affine(kernels.columns(y, met), _gain(saved.map))


def apply_transpose(kernels: Kernels, saved: Revealed, dy: Array) -> Array:
    """Wᵀ dy with the W that x, the tangents and earlier cotangents met. dy (replicate, columns, n)."""
    known, d = meet(kernels, saved, dy)
    z = _normals(kernels, saved, Role.CONDITIONAL, saved.x.shape[1])
    g = _normals(kernels, saved, Role.CONDITIONAL_TRANSPOSE, d.shape[1])
    dx = kernels.haar_transpose(saved.x, z, d, g)
    return kernels.affine(kernels.columns(dx, known), _gain(saved.map))


def apply_fresh_transpose(kernels: Kernels, saved: Revealed, dy: Array) -> Array:
    """Wᵀ dy with a W of its own, met by nothing before: the transpose of a Haar matrix is a Haar matrix."""
    known, d = meet(kernels, saved, dy)
    dx = kernels.haar_apply(d, _normals(kernels, saved, Role.CONDITIONAL_TRANSPOSE, d.shape[1]))
    return kernels.affine(kernels.columns(dx, known), _gain(saved.map))
