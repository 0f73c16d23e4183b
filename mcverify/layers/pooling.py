"""Global average pooling: the mean of every channel over all positions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mcverify.errors import InputError
from mcverify.layers.grid import checked_size
from mcverify.layers.layer import Grad, Law, Layer, Signal, State
from mcverify.random_map.engine import Engine
from mcverify.streams import Site


@dataclass(frozen=True)
class GlobalAveragePool(Layer):
    """(*size, channels) → (channels,). size: the grid, one number per axis.

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
        return (in_shape[-1],)

    def propagate(self, state: State) -> State:
        """S_ab = the mean of S over all pairs of positions: linear, so exact where all of them are; a law that is
        Gaussian stays so; normalised batches are none any more."""
        inputs = len(state.cov) // self._positions
        pairs = (inputs, self._positions, inputs, self._positions)
        cov, exact = state.cov.reshape(pairs).mean(axis=(1, 3)), np.asarray(state.exact.reshape(pairs).all(axis=(1, 3)))
        law: Law = "unknown" if state.law == "sphere" else state.law
        return replace(state, cov=cov, exact=exact, law=law)

    def pull_back(self, state: State, grad: Grad) -> Grad:
        """Every position sees δ/positions, all the same one."""
        everywhere = np.ones((self._positions, self._positions))
        cov, exact = grad.between_inputs()
        cov = np.asarray(np.kron(cov, everywhere / self._positions**2), np.float64)
        return replace(grad, cov=cov, exact=np.kron(exact, everywhere) > 0)

    def forward(self, engine: Engine, x: Signal, site: Site) -> tuple[Signal, Any]:
        return engine.kernels.pool(x, self._positions), None

    def tangent(self, engine: Engine, saved: Any, dx: Signal) -> Signal:
        return engine.kernels.pool(dx, self._positions)

    def backward(self, engine: Engine, saved: Any, dy: Signal) -> Signal:
        return engine.kernels.spread(dy, self._positions)
