"""The residual block: x + scale · branch(x), the branch being layers of any kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mcverify.errors import InputError, Unpredictable
from mcverify.layers import chain
from mcverify.layers.layer import GAUSSIAN, Grad, Law, Layer, Signal, State
from mcverify.random_map.engine import Engine
from mcverify.streams import Site
from mcverify.validate import positive


@dataclass(frozen=True)
class Residual(Layer):
    """y = x + scale · branch(x); branch: layers in order, which give back the shape they take.

    An activation may stand first in the branch (before its map), or after the block, as a layer of its own.
    Raises InputError for a branch that is empty or holds no random map."""

    branch: tuple[Layer, ...]
    scale: float = 1.0

    needs_whole = True

    def __init__(self, branch: Sequence[Layer], scale: float = 1.0) -> None:
        if not isinstance(branch, Sequence) or isinstance(branch, str):
            raise InputError("branch", branch, "must be a list of layers")
        object.__setattr__(self, "branch", tuple(branch))
        object.__setattr__(self, "scale", positive("scale", scale))
        for i, layer in enumerate(self.branch):
            if not isinstance(layer, Layer):
                raise InputError(f"branch[{i}]", layer, "must be a layer, such as Dense or Activation")
        if not any(layer.inner or layer.random_map is not None for layer in self.branch):
            kinds = [type(layer).__name__ for layer in self.branch]
            raise InputError("branch", kinds, "must hold a random map: Dense or Convolution")

    @property
    def sites(self) -> int:
        """The branch's, in its order."""
        return sum(layer.sites for layer in self.branch)

    @property
    def inner(self) -> tuple[Layer, ...]:
        return self.branch

    def with_inner(self, layers: Sequence[Layer]) -> Residual:
        return Residual(layers, self.scale)

    @property
    def _last(self) -> Layer:
        """The last layer that is neither a mask nor a normalisation, whose mean is zero where its input is odd in
        fresh weights."""
        return next(v for v in reversed(self.branch) if not v.odd)

    def widened(self, factor: int, *, first: bool) -> Residual:
        return Residual([layer.widened(factor, first=False) for layer in self.branch], self.scale)

    def shape(self, in_shape: tuple[int, ...]) -> tuple[int, ...]:
        shape = in_shape
        for layer in self.branch:
            shape = layer.shape(shape)
        if shape != in_shape:
            raise InputError("branch", shape, f"must give back the shape {in_shape} that the block takes")
        return shape

    def propagate(self, state: State) -> State:
        """S + scale² S_branch (Yang & Schoenholz 2017, eq. 6; Taki 2017, §2): the branch's last weights are fresh, of
        mean zero, so that it is uncorrelated with the trunk, exactly. The sum of Gaussians is one only as width grows;
        with a normalised batch in it, as the batch grows.

        Raises Unpredictable for a branch that ends in anything but a map, or masks and normalisations on one: it is
        correlated with its trunk."""
        if self._last.random_map is None:
            raise Unpredictable(
                f"residual: the branch ends in {type(self._last).__name__.lower()}, so that it is correlated with the "
                "trunk; end it with a random map, or put the activation after the block (length_bounds treats "
                "modules ReLU(W x))"
            )
        out = chain.propagate(self.branch, _taken(state))[-1]
        return State(
            cov=state.cov + self.scale**2 * out.cov, law=_law_of_sum(state.law, out.law), fixed=False,
            exact=state.exact & out.exact, may_vanish=state.may_vanish and out.may_vanish, heuristic=out.heuristic,
            alike=state.alike and out.alike,
        )  # fmt: skip

    def pull_back(self, state: State, grad: Grad) -> Grad:
        """G + scale² times what the branch pulls back. The cross terms are E δᵀJδ, J the branch's: where E δδᵀ is exact
        it is a multiple of the identity whatever lies below, and E tr J = 0 by the branch's last weights."""
        states = chain.propagate(self.branch, _taken(state))
        scaled = replace(grad, cov=self.scale**2 * grad.cov)
        below = chain.pull_back(self.branch, states, scaled)[0]
        trunk = grad if below.local else grad.whole(len(state.cov))
        return Grad(
            trunk.cov + below.cov, trunk.exact & below.exact,
            exchangeable=grad.exchangeable and below.exchangeable, independent=below.independent,
            heuristic=grad.heuristic or below.heuristic,
        )  # fmt: skip

    def forward(self, engine: Engine, x: Signal, site: Site) -> tuple[Signal, Any]:
        tape = chain.forward(self.branch, engine, x, site)
        return engine.kernels.add(x, tape[-1].y, self.scale), tape

    def tangent(self, engine: Engine, saved: Any, dx: Signal) -> Signal:
        return engine.kernels.add(dx, chain.tangent(saved, engine, dx), self.scale)

    def backward(self, engine: Engine, saved: Any, dy: Signal) -> Signal:
        return engine.kernels.add(dy, chain.backward(saved, engine, dy), self.scale)


def _taken(state: State) -> State:
    """What the branch takes: of normalised batches their second moments alone, as φ′ waits for the batch norm below it
    and cannot beside a trunk."""
    return replace(state, law="unknown") if state.law == "sphere" else state


def _law_of_sum(trunk: Law, branch: Law) -> Law:
    if trunk in GAUSSIAN and branch in GAUSSIAN:
        return "sum"
    limits = {*GAUSSIAN, "batch_sum"}
    return "batch_sum" if trunk in limits and branch in {*limits, "sphere"} else "unknown"
