"""The dense layer: one random affine map on the units of each input."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from mcverify.errors import InputError
from mcverify.layers.layer import Grad, Law, Layer, Signal, State
from mcverify.random_map.engine import Engine, Map
from mcverify.streams import Site
from mcverify.validate import count, variance
from mcverify.weights import weight_law


@dataclass(frozen=True)
class Dense(Layer):
    """h = W x + b, W (fan_out, fan_in) of entry variance sigma_w2 / fan_in, b of variance sigma_b2."""

    fan_in: int
    fan_out: int
    sigma_w2: float = 1.0
    sigma_b2: float = 0.0
    weights: str = "gaussian"

    def __post_init__(self) -> None:
        self._check(count, "fan_in", "fan_out")
        self._check(variance, "sigma_w2", "sigma_b2")
        weight_law(self.weights)

    @property
    def in_shape(self) -> tuple[int, ...]:
        return (self.fan_in,)

    @property
    def random_map(self) -> Map:
        return Map(self.fan_in, self.fan_out, self.sigma_w2, self.sigma_b2, self.weights)

    def widened(self, factor: int, *, first: bool) -> Dense:
        return replace(self, fan_in=self.fan_in * (1 if first else factor), fan_out=self.fan_out * factor)

    def shape(self, in_shape: tuple[int, ...]) -> tuple[int, ...]:
        if in_shape != (self.fan_in,):
            raise InputError("fan_in", self.fan_in, f"must match the {in_shape} that the layer before gives")
        return (self.fan_out,)

    def propagate(self, state: State) -> State:
        """σ_w² S + σ_b² (Poole et al. 2016, eq. 3): an affine map, exact wherever S is.

        Given the layer below, Gaussian weights make the units i.i.d. Gaussian at every width."""
        cov = self.sigma_w2 * state.cov + self.sigma_b2
        law: Law = "gaussian" if self.weights == "gaussian" else "symmetric"
        from_input = state.law == "input"
        return replace(
            state, cov=cov, law=law, fixed=from_input, may_vanish=state.may_vanish and self.sigma_b2 == 0,
            heuristic=state.heuristic or (from_input and law == "symmetric"),
            alike=state.alike and not (from_input and law == "symmetric"),
        )  # fmt: skip

    def pull_back(self, state: State, grad: Grad) -> Grad:
        """E Σ_j (Wᵀδ)_ja (Wᵀδ)_jb = σ_w² E Σ_i δ_ia δ_ib for δ independent of W."""
        return replace(grad, cov=self.sigma_w2 * grad.cov, exchangeable=True)

    def forward(self, engine: Engine, x: Signal, site: Site) -> tuple[Signal, Any]:
        return engine.apply(engine.kernels, self.random_map, x, site)

    def tangent(self, engine: Engine, saved: Any, dx: Signal) -> Signal:
        return _columns(engine.apply_tangent, engine, saved, dx)

    def backward(self, engine: Engine, saved: Any, dy: Signal) -> Signal:
        return _columns(engine.apply_transpose, engine, saved, dy)


def _columns(apply: Any, engine: Engine, saved: Any, v: Signal) -> Signal:
    """Apply a map to (replicate, direction, input, units) as columns: all directions see one W."""
    flat = v.reshape(v.shape[0], -1, v.shape[-1])
    out: Signal = apply(engine.kernels, saved, flat)
    return out.reshape(*v.shape[:-1], out.shape[-1])
