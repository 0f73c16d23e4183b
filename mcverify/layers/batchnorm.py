"""Batch normalisation: every unit centred and scaled over the batch of columns that it meets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from mcverify.activations import activation
from mcverify.errors import InputError, Unpredictable
from mcverify.expectations import batch, batch_gaussian
from mcverify.layers.grid import checked_size
from mcverify.layers.layer import Batch, Grad, Layer, Signal, State
from mcverify.random_map.engine import Engine
from mcverify.streams import Site
from mcverify.validate import MOST, between, positive, variance

_COLUMNS = -2  # the axis of the statistics

LARGEST_REMAINDER = 0.25
"""First-order share up to which a large-batch limit is given: what it leaves is about its square."""


@dataclass(frozen=True)
class BatchNorm(Layer):
    """y = gain · (h − mean)/√(var + eps) + shift, mean and population variance of each unit over all columns: inputs,
    and positions where `size` is a grid.

    At eps = 0 the mean of a squared gradient needs more than 3 columns, its variance, and with it a standard error,
    more than 5. Raises InputError for a size that is no grid, and parameters out of range."""

    eps: float = 0.0
    gain: float = 1.0
    shift: float = 0.0
    size: tuple[int, ...] = ()

    needs_whole = True

    def __post_init__(self) -> None:
        self._check(variance, "eps")
        self._check(positive, "gain")
        self._check(partial(between, low=-MOST, high=MOST), "shift")
        object.__setattr__(self, "size", checked_size(self.size) if self.size else ())

    @property
    def odd(self) -> bool:
        return self.shift == 0.0

    def shape(self, in_shape: tuple[int, ...]) -> tuple[int, ...]:
        if in_shape[:-1] != self.size:
            raise InputError("size", self.size, f"must match the grid of the {in_shape} that the layer before gives")
        return in_shape

    def propagate(self, state: State) -> State:
        """The covariance of y, h ~ N(0, S) given the layer below: exact where S is not random; and over columns that
        are alike, whatever h is, since Σ_a y_a = 0 and Σ_a y_a² is their number (gain 1, no shift, eps = 0) always.

        The law, "sphere", goes up with it: φ needs more than second moments. Raises InputError for a batch that does
        not vary at eps = 0, Unpredictable for an h that is not Gaussian."""
        self._check_batch(len(state.cov))
        state.needs_gaussian("batch norm")
        if self.eps == 0.0 and batch_gaussian.rank(state.cov) == 0:
            told = "must differ: batch norm divides 0 by 0 at eps = 0"
            raise InputError("x", f"{len(state.cov)} equal columns", told)
        cov = batch.propagate(activation("linear"), state.cov, eps=self.eps, gain=self.gain).value + self.shift**2
        fixed = state.fixed and state.law == "gaussian"
        return replace(
            state, cov=cov, law="sphere", fixed=fixed,
            exact=state.exact & fixed | (state.alike and self.eps == 0.0),
            heuristic=state.heuristic or state.law == "batch_sum",
            batch=Batch(state.cov, self.eps, self.gain, self.shift),
        )  # fmt: skip

    def pull_back(self, state: State, grad: Grad) -> Grad:
        """Of this layer and the φ above it together, as δ at y depends on y: E v⁻¹ (P − yyᵀ/B) D G D (P − yyᵀ/B).

        Exact above the first map for δ that met no other φ′ or normalisation. Raises InputError where the mean does
        not exist."""
        phi = activation("linear") if grad.pending is None else grad.pending
        rank, columns = batch_gaussian.rank(state.cov), len(state.cov)
        if self.eps == 0.0 and rank <= 2:
            told = "batch norm at eps = 0 needs more than 3, that differ: else gradients have no finite mean (B > 3)"
            raise InputError("x", f"{columns} columns", told)
        given = grad.whole(columns)
        found = batch.pull_back(phi, state.cov, given.cov, eps=self.eps, gain=self.gain)
        check_remainder(phi.name, found.remainder)
        exact = bool(state.law == "gaussian" and state.fixed and grad.independent and given.exact.all())
        return replace(
            given, cov=found.value, exact=np.full(found.value.shape, exact and not found.remainder), independent=False,
            pending=None, heuristic=grad.heuristic or found.remainder > 0.0,
        )  # fmt: skip

    def forward(self, engine: Engine, x: Signal, site: Site) -> tuple[Signal, Any]:
        """Statistics in float64, whatever the activations use."""
        self._check_batch(x.shape[-2])
        y, unit, inverse = engine.kernels.standardise(x, _COLUMNS, self.eps, self.gain, self.shift)
        return y, (unit, inverse)

    def tangent(self, engine: Engine, saved: Any, dx: Signal) -> Signal:
        """(gain/std) (P − ŷŷᵀ/B) dx, directions apart: a symmetric matrix for each unit."""
        unit, inverse = saved
        return engine.kernels.standardise_slope(unit, inverse, dx, _COLUMNS, self.gain)

    def backward(self, engine: Engine, saved: Any, dy: Signal) -> Signal:
        return self.tangent(engine, saved, dy)

    def _check_batch(self, columns: int) -> None:
        if columns == 1 and self.eps == 0.0:
            raise InputError("x", "1 column", "must have at least 2: batch norm of one divides 0 by 0 at eps = 0")


def check_remainder(name: str, remainder: float) -> None:
    """Raises Unpredictable where a large-batch limit is no approximation."""
    if remainder > LARGEST_REMAINDER:
        raise Unpredictable(
            f"batch norm, then {name}: the first correction to the large-batch limit is {remainder:.2g} of it, too "
            "much to leave out the next; give more inputs, or equally correlated ones, or a positively homogeneous φ"
        )
