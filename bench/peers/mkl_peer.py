"""Intel's MKL generators through mkl_random: float64 only, by inversion, the fastest of its three methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mkl_random

VERSION = mkl_random.__version__

GENERATORS = ("PHILOX4X32X10", "MCG59")


def normals(count: int, generator: str) -> Callable[[], Any]:
    """A function that returns `count` float64 normals."""
    state = mkl_random.MKLRandomState(1, brng=generator)
    return lambda: state.standard_normal(count, method="ICDF")
