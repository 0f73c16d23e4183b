"""Layer normalisation: every column centred and scaled over its units."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from mcverify.errors import InputError, Unpredictable
from mcverify.expectations import layer_norm
from mcverify.layers.layer import Grad, Layer, Signal, State
from mcverify.random_map.engine import Engine
from mcverify.streams import Site
from mcverify.validate import MOST, between, positive, variance

_UNITS = -1  # the axis of the statistics


@dataclass(frozen=True)
class LayerNorm(Layer):
    """y = gain · (h − mean)/√(var + eps) + shift, mean and population variance of each column over its units, every
    position by itself.

    Raises InputError for parameters out of range."""

    eps: float = 0.0
    gain: float = 1.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        self._check(variance, "eps")
        self._check(positive, "gain")
        self._check(partial(between, low=-MOST, high=MOST), "shift")

    @property
    def odd(self) -> bool:
        return self.shift == 0.0

    def shape(self, in_shape: tuple[int, ...]) -> tuple[int, ...]:
        if in_shape[-1] < 2 and self.eps == 0.0:
            raise InputError("units", in_shape[-1], "must be at least 2: layer norm of one divides 0 by 0 at eps = 0")
        return in_shape

    def propagate(self, state: State) -> State:
        """S_ab/√((S_aa + ε)(S_bb + ε)), a limit; at eps = 0 the diagonal is exactly gain² + shift².

        Raises Unpredictable for the image of a nonlinearity, whose mean over units S does not tell."""
        state.needs_gaussian("layer norm")
        cov = self.gain**2 * layer_norm.propagate(state.cov, eps=self.eps) + self.shift**2
        law = "unknown" if self.shift else "batch_sum" if state.law == "batch_sum" else "sum"
        exact = np.eye(len(cov), dtype=bool) & (self.eps == 0.0)
        return replace(state, cov=cov, law=law, fixed=False, exact=exact)  # type: ignore[arg-type]

    def pull_back(self, state: State, grad: Grad) -> Grad:
        """gain² G_ab/√((S_aa + ε)(S_bb + ε)), a limit for units alike and uncorrelated.

        Raises Unpredictable for a cotangent of given entries: its part common to all units would be lost."""
        if not grad.exchangeable:
            raise Unpredictable("layer norm: of a cotangent of given entries the part common to all units is lost")
        states, given = (v if v.ndim == 3 else v[None] for v in (state.cov, grad.cov))
        pairs = zip(states, given, strict=True)
        cov = self.gain**2 * np.stack([layer_norm.pull_back(s, g, eps=self.eps) for s, g in pairs])
        return replace(
            grad, cov=cov.reshape(grad.cov.shape), exact=np.zeros(grad.cov.shape, bool), independent=False
        )  # fmt: skip

    def forward(self, engine: Engine, x: Signal, site: Site) -> tuple[Signal, Any]:
        """Statistics in float64, whatever the activations use."""
        y, unit, inverse = engine.kernels.standardise(x, _UNITS, self.eps, self.gain, self.shift)
        return y, (unit, inverse)

    def tangent(self, engine: Engine, saved: Any, dx: Signal) -> Signal:
        """(gain/std) (I − 11ᵀ/n − ŷŷᵀ/n) dx: a symmetric matrix for each column."""
        unit, inverse = saved
        return engine.kernels.standardise_slope(unit, inverse, dx, _UNITS, self.gain)

    def backward(self, engine: Engine, saved: Any, dy: Signal) -> Signal:
        return self.tangent(engine, saved, dy)
