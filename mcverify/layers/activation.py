"""The activation layer: φ applied to every unit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mcverify import activations
from mcverify.errors import Unpredictable
from mcverify.expectations import batch, matrix
from mcverify.layers.batchnorm import check_remainder
from mcverify.layers.layer import BoolArray, Grad, Layer, Signal, State
from mcverify.random_map.engine import Engine
from mcverify.streams import Site


@dataclass(frozen=True)
class Activation(Layer):
    """x = φ(h). `phi` is a name ("tanh", "leaky_relu(0.2)") or an Activation of mcverify.activations."""

    phi: activations.Activation

    elementwise = True

    def __init__(self, phi: str | activations.Activation) -> None:
        object.__setattr__(self, "phi", activations.activation(phi))

    def shape(self, in_shape: tuple[int, ...]) -> tuple[int, ...]:
        return in_shape

    def propagate(self, state: State) -> State:
        """E φ(u_a) φ(u_b) under N(0, S) (Poole et al. 2016, eqs. 3 and 5).

        Exact where S is the whole law: at the first map, whose Ĝ is not random, and afterwards wherever
        the expectation is linear in S, so that averaging over the random Ĝ changes nothing: the diagonal
        of positively homogeneous φ, and all of a linear one. Of normalised batches see `_of_batch`."""
        dies = self.phi.slopes is not None and 0.0 in self.phi.slopes
        if state.law == "sphere":
            return replace(self._of_batch(state), may_vanish=state.may_vanish or dies)
        self.needs_gaussian(state)
        cov = matrix.values(self.phi, "covariance", state.cov)
        return replace(
            state, cov=cov, law="unknown", fixed=False, exact=state.exact & self._exact(state),
            may_vanish=state.may_vanish or dies,
            heuristic=state.heuristic or (state.law == "batch_sum" and not self._is_linear),
        )  # fmt: skip

    def _of_batch(self, state: State) -> State:
        """E φ(y_a) φ(y_b), y normalised over the batch (Yang et al. 2019): exact above the first map, but for large
        batches taken to their limit, whose remainder no width makes small.

        Raises Unpredictable for a shift, and a batch too small for the limit."""
        assert state.batch is not None
        cov, eps, gain, shift = (getattr(state.batch, name) for name in ("cov", "eps", "gain", "shift"))
        if shift:
            raise Unpredictable(f"batch norm with a shift, then {self.phi.name}: treated at shift 0 alone")
        found = batch.propagate(self.phi, cov, eps=eps, gain=gain)
        check_remainder(self.phi.name, found.remainder)
        limit = found.remainder > 0.0
        return replace(
            state, cov=found.value, law="unknown", fixed=False, exact=state.exact & (state.fixed and not limit),
            heuristic=state.heuristic or limit,
        )  # fmt: skip

    def pull_back(self, state: State, grad: Grad) -> Grad:
        """Elementwise E φ′(u_a) φ′(u_b) (Schoenholz et al. 2017, eq. 10): a limit, but for linear φ; above the first
        map, below a δ that no φ′ has met; and on the diagonal for positively homogeneous φ with independent Gaussian
        weights (Hanin 2018) wherever no layer below can die: at h = 0 the sign of a unit is not a coin. There what
        is zero stays so, too. Above a batch norm φ′ waits for it."""
        if state.law == "sphere":
            return replace(grad, pending=self.phi)
        self.needs_gaussian(state)
        factor = matrix.values(self.phi, "derivative", state.cov)
        linear = np.full(grad.exact.shape, self._is_linear or (self._whole_law(state) and grad.independent))
        coin = self.phi.slopes is not None and state.law == "gaussian" and not state.may_vanish
        homogeneous = (np.eye(grad.cov.shape[-1], dtype=bool) | (grad.cov == 0)) & coin
        return replace(
            grad, cov=grad.cov * factor, exact=grad.exact & (linear | homogeneous),
            independent=grad.independent and self._is_linear,
        )  # fmt: skip

    @property
    def _is_linear(self) -> bool:
        return self.phi.slopes is not None and self.phi.slopes[0] == self.phi.slopes[1]

    def _exact(self, state: State) -> BoolArray:
        if self._whole_law(state):
            return np.ones(state.cov.shape, bool)
        if self._is_linear:
            return np.ones(state.cov.shape, bool)
        coin = self.phi.slopes is not None and state.law not in ("sum", "batch_sum")
        return np.diag(np.full(len(state.cov), coin))

    @staticmethod
    def _whole_law(state: State) -> bool:
        return state.law == "gaussian" and state.fixed

    def needs_gaussian(self, state: State) -> None:
        """Raises Unpredictable for a state whose law is not Gaussian, at least in the limit."""
        state.needs_gaussian(f"activation {self.phi.name}")

    def forward(self, engine: Engine, x: Signal, site: Site) -> tuple[Signal, Any]:
        return engine.kernels.activate(self.phi, x), x

    def tangent(self, engine: Engine, saved: Any, dx: Signal) -> Signal:
        return engine.kernels.slope_times(self.phi, saved, dx)

    def backward(self, engine: Engine, saved: Any, dy: Signal) -> Signal:
        return self.tangent(engine, saved, dy)
