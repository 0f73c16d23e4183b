"""The explicit sampler: every weight is drawn, and none is stored.

Weights are regenerated from their addresses in each pass, so memory is O(units × columns) and the
backward pass sees the weights of the forward pass. `untied` gives the backward pass weights of its own:
the independence assumption of the mean-field literature, made real so that it can be measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcverify.kernels.primitives import Kernels
from mcverify.random_map.engine import Engine, Map
from mcverify.streams import Role, Site


@dataclass(frozen=True)
class Drawn:
    """What the explicit sampler remembers of a map: its law and its address."""

    map: Map
    site: Site


def _gain(m: Map) -> float:
    """√(sigma_w2 / fan_in)."""
    return math.sqrt(m.sigma_w2 / m.fan_in)


def apply(kernels: Kernels, m: Map, x: NDArray[Any], site: Site) -> tuple[NDArray[Any], Drawn]:
    """W x + b for a fresh (W, b) per replicate. x (replicate or 1, columns, fan_in, or units of a grid)."""
    y = kernels.random_matmul(site, Role.WEIGHT, m.law, m.fan_out, x, m.window)
    return with_bias(kernels, m, y, _gain(m), site), Drawn(m, site)


def with_bias(kernels: Kernels, m: Map, y: NDArray[Any], gain: float, site: Site) -> NDArray[Any]:
    """gain · y + b, in place, for a fresh bias per replicate."""
    if m.sigma_b2 == 0:
        return kernels.affine(y, gain)
    bias = kernels.draw(site, Role.BIAS, "gaussian", 1, m.fan_out, y.dtype)
    return kernels.affine(y, gain, bias, math.sqrt(m.sigma_b2))


def apply_tangent(kernels: Kernels, saved: Drawn, dx: NDArray[Any]) -> NDArray[Any]:
    """W dx with the W of the forward pass; the bias does not move."""
    m = saved.map
    dy = kernels.random_matmul(saved.site, Role.WEIGHT, m.law, m.fan_out, dx, m.window)
    return kernels.affine(dy, _gain(m))


def apply_transpose(kernels: Kernels, saved: Drawn, dy: NDArray[Any]) -> NDArray[Any]:
    """Wᵀ dy with the W of the forward pass."""
    return _transpose(kernels, saved, dy, Role.WEIGHT)


def apply_fresh_transpose(kernels: Kernels, saved: Drawn, dy: NDArray[Any]) -> NDArray[Any]:
    """Wᵀ dy with a W of its own."""
    return _transpose(kernels, saved, dy, Role.BACKWARD_WEIGHT)


def _transpose(kernels: Kernels, saved: Drawn, dy: NDArray[Any], role: Role) -> NDArray[Any]:
    m = saved.map
    dx = kernels.random_matmul_transpose(saved.site, role, m.law, m.fan_in, dy, m.window)
    return kernels.affine(dx, _gain(m))


def engine(kernels: Kernels, dtype: np.dtype[Any], *, tied: bool = True, reason: str = "") -> Engine:
    """The explicit engine over a backend's kernels; tied=False draws fresh weights for the backward pass."""
    transpose = apply_transpose if tied else apply_fresh_transpose
    return Engine("explicit", kernels, apply, apply_tangent, transpose, dtype, reason, tied)
