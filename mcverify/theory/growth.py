"""Powers of a growth per layer, which no float may hold."""

from __future__ import annotations

import math


def exp(y: float) -> float:
    """e^y, ∞ beyond the largest float."""
    try:
        return math.exp(y)
    except OverflowError:
        return math.inf
