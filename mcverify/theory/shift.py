"""How far finite widths move a mean, and what is left open."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

# How many times a product of first-order terms the next order may be. It is an estimate: at widths of 16, 32 and 64,
# sampled means keep to it (tests/test_corrections.py::test_remainders_cover_the_next_order).
SAFETY = 3.0


@dataclass(frozen=True)
class Shift:
    """E y − (limit of y) to first order in 1/width; `remainder`, the size of what the next order may add, zero where
    nothing moves at any width; `variance` of y over networks, to first order."""

    value: FloatArray
    remainder: FloatArray
    variance: FloatArray


@dataclass(frozen=True)
class Lengths:
    """Of every Ĝ^l_aa, (layer, input): its variance, the shift of its mean, a bound on the parts of that shift, in
    which nothing cancels, and the small parameter of the expansion: the largest relative variance so far."""

    v: FloatArray
    k: FloatArray
    bound: FloatArray
    small: FloatArray
