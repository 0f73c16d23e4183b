"""Dropout: x̃ = x · m / ρ, m ~ Bernoulli(ρ), with a mask for each input and unit, or one that all inputs share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mcverify.layers.layer import FloatArray, Grad, Layer, Signal, State
from mcverify.random_map.engine import Engine
from mcverify.streams import Role, Site
from mcverify.validate import flag, share


@dataclass(frozen=True)
class Dropout(Layer):
    """Keeps units with probability `keep`; both passes carry the same mask.

    shared=False: each unit of each input, at each position, has a mask of its own. shared=True: each unit, or channel,
    has one for all inputs and all positions, so that a network that is sampled is a thinned one."""

    keep: float
    shared: bool = False

    elementwise = True

    @property
    def odd(self) -> bool:
        return True

    def __post_init__(self) -> None:
        self._check(share, "keep")
        flag("shared", self.shared)

    def shape(self, in_shape: tuple[int, ...]) -> tuple[int, ...]:
        return in_shape

    def propagate(self, state: State) -> State:
        """The diagonal gains 1/ρ = E m²/ρ², cross terms E m_a m_b/ρ²: nothing for independent masks (Schoenholz et al.
        2017, §5), 1/ρ for a shared one. Exact wherever S is.

        A masked signal is neither Gaussian nor the input."""
        return replace(
            state, cov=self._gain(state.cov), law="unknown", fixed=False,
            may_vanish=state.may_vanish or self.keep < 1.0,
        )  # fmt: skip

    def pull_back(self, state: State, grad: Grad) -> Grad:
        return replace(grad, cov=self._gain(grad.cov))

    def _gain(self, cov: FloatArray) -> FloatArray:
        if self.shared:
            return cov / self.keep
        out, diagonal = cov.copy(), np.arange(cov.shape[-1])
        out[..., diagonal, diagonal] *= 1.0 / self.keep
        return out

    def forward(self, engine: Engine, x: Signal, site: Site) -> tuple[Signal, Any]:
        if self.keep == 1.0:  # a float32 uniform may be 1, so u < 1 would still drop a unit now and then
            return x, None
        rows = 1 if self.shared else x.shape[1]
        mask = engine.kernels.mask(site, Role.MASK, self.keep, rows, x.shape[2], x.dtype)
        return engine.kernels.multiply(x, mask), mask

    def tangent(self, engine: Engine, saved: Any, dx: Signal) -> Signal:
        if saved is None:
            return dx
        return engine.kernels.multiply(dx, saved.reshape(len(saved), 1, *saved.shape[1:]))

    def backward(self, engine: Engine, saved: Any, dy: Signal) -> Signal:
        return self.tangent(engine, saved, dy)
