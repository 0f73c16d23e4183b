"""Flatten: all positions of an input become units of one column, so that a dense map may follow a convolution."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mcverify.errors import InputError, Unpredictable
from mcverify.layers.grid import checked_size, over_positions
from mcverify.layers.layer import FloatArray, Grad, Layer, Signal, State
from mcverify.random_map.engine import Engine
from mcverify.streams import Site


@dataclass(frozen=True)
class Flatten(Layer):
    """(*size, channels) → (positions · channels,), channels running fastest. size: the grid, one number per axis.

    Raises InputError for a size that is no grid."""

    size: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", checked_size(self.size))

    @property
    def _positions(self) -> int:
        return math.prod(self.size)

    def shape(self, in_shape: tuple[int, ...]) -> tuple[int, ...]:
        if in_shape[:-1] != self.size:
            raise InputError("size", self.size, f"must match the grid of the {in_shape} that the layer before gives")
        return (math.prod(in_shape),)

    def mean_met(self, values: FloatArray, axes: int = 1) -> FloatArray:
        """The mean over positions, of both columns at the same one with axes=2."""
        if axes == 2:
            return np.asarray(over_positions(values, self._positions).mean(axis=-1))
        return np.asarray(values.reshape(*values.shape[:-1], -1, self._positions).mean(axis=-1))

    def propagate(self, state: State) -> State:
        """S_ab = the mean over positions p of S at (a, p), (b, p): units at different positions are different units.

        They differ in variance too, so that their law is a mixture."""
        same = over_positions(state.exact, self._positions).all(axis=-1)
        return replace(state, cov=self.mean_met(state.cov, 2), exact=np.asarray(same), law="mixture", fixed=False)

    def pull_back(self, state: State, grad: Grad) -> Grad:
        """Each position has its share of units that are alike, and different units no covariance: what a random map
        above gives.

        Raises Unpredictable for a cotangent of given entries."""
        if not grad.exchangeable:
            raise Unpredictable("flatten: a cotangent of given entries is not shared alike by the positions")
        cov, exact = grad.between_inputs()
        everywhere = (self._positions, 1, 1)
        return replace(grad, cov=np.tile(cov / self._positions, everywhere), exact=np.tile(exact, everywhere))

    def forward(self, engine: Engine, x: Signal, site: Site) -> tuple[Signal, Any]:
        return self._flat(x), None

    def tangent(self, engine: Engine, saved: Any, dx: Signal) -> Signal:
        return self._flat(dx)

    def backward(self, engine: Engine, saved: Any, dy: Signal) -> Signal:
        return dy.reshape(*dy.shape[:-2], -1, dy.shape[-1] // self._positions)

    def _flat(self, x: Signal) -> Signal:
        return x.reshape(*x.shape[:-2], -1, self._positions * x.shape[-1])
