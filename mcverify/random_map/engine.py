"""An engine: the primitives of a backend together with one way to sample random linear maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcverify.kernels.patches import Window
from mcverify.kernels.primitives import Kernels
from mcverify.streams import Site


@dataclass(frozen=True)
class Map:
    """The law of a random affine map x ↦ W x + b.

    W (fan_out, fan_in) has entries of the named unit-variance law scaled to variance
    sigma_w2 / fan_in; b has i.i.d. N(0, sigma_b2) entries. frames: projections in Haar frames of fan_in units
    that the columns pass before they meet W (random_map/orthogonal_kernel.py). With a window x holds positions of a
    grid, the map acts on their patches, fan_in = taps · units, and its transpose is folded back.
    """

    fan_in: int
    fan_out: int
    sigma_w2: float
    sigma_b2: float
    law: str
    frames: int = 0
    window: Window | None = None


@dataclass(frozen=True)
class Engine:
    """How maps are sampled.

    apply(kernels, map, x, site) -> (y, saved), columns (replicate, columns, units);
    apply_tangent(kernels, saved, dx) -> dy, further columns of the same W without the bias;
    apply_transpose(kernels, saved, dy) -> dx, the transpose of the same W.
    dtype is that of activations and weights; moments are always accumulated in float64. reason says in a
    sentence why this engine was taken. tied: the transpose is that of the forward pass, not of a map of its own.
    """

    name: str
    kernels: Kernels
    apply: Callable[[Kernels, Map, NDArray[Any], Site], tuple[NDArray[Any], Any]]
    apply_tangent: Callable[[Kernels, Any, NDArray[Any]], NDArray[Any]]
    apply_transpose: Callable[[Kernels, Any, NDArray[Any]], NDArray[Any]]
    dtype: np.dtype[Any]
    reason: str = ""
    tied: bool = True
