"""Grids of positions, as layers with positions share them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcverify.errors import InputError
from mcverify.validate import count


def axes(field: str, given: Any) -> tuple[int, ...]:
    """One number per axis, from a list of them or a single one. Raises InputError naming the field."""
    out = tuple(given) if isinstance(given, list | tuple) else (given,)
    return tuple(count(field, axis) for axis in out)


def checked_size(given: Any) -> tuple[int, ...]:
    """A grid of one or two axes. Raises InputError for anything else."""
    size = axes("size", given)
    if not 1 <= len(size) <= 2:
        raise InputError("size", size, "must have one or two axes")
    return size


def over_positions(values: NDArray[Any], positions: int) -> NDArray[Any]:
    """(column, column), a column being an (input, position), at equal positions: (input, input, position)."""
    inputs = len(values) // positions
    return np.diagonal(values.reshape(inputs, positions, inputs, positions), axis1=1, axis2=3)


def on_first_grid(values: Sequence[NDArray[Any]], blank: Any = np.nan) -> list[NDArray[Any]]:
    """Arrays of layers (…, column, column), blank for layers of another grid than the first."""
    like = values[0]
    return [v if v.shape == like.shape else np.full_like(like, blank) for v in values]
