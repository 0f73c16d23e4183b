"""Layers one after another: the tape of a sampled run, and the states of a predicted one.

A layer that holds layers of its own (a residual block) calls these on its branch, with the tape as what
it saves; sites are numbered depth first, so an address never depends on what is observed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mcverify.errors import Unpredictable
from mcverify.layers.layer import Grad, Layer, Signal, State
from mcverify.random_map.engine import Engine
from mcverify.streams import Site

_LARGEST = 1e150  # of a state's variances


@dataclass
class Record:
    """One layer's entry on the tape. Cotangents and tangents are filled in by their own passes."""

    layer: Layer
    site: Site
    x: Signal
    y: Signal
    saved: Any
    dx: Signal | None = None  # tangents in
    dy: Signal | None = None  # tangents out
    gx: Signal | None = None  # cotangents in
    gy: Signal | None = None  # cotangents out


def forward(layers: Sequence[Layer], engine: Engine, x: Signal, site: Site) -> list[Record]:
    """The tape of x through freshly drawn layers; the first layer's draws are at `site`."""
    tape = []
    for layer in layers:
        y, saved = layer.forward(engine, x, site)
        tape.append(Record(layer, site, x, y, saved))
        x, site = y, site.above(layer.sites)
    return tape


def tangent(tape: Sequence[Record], engine: Engine, dx: Signal) -> Signal:
    """Push tangents through the sampled layers, noting them on the tape."""
    for record in tape:
        record.dx = dx
        record.dy = dx = record.layer.tangent(engine, record.saved, dx)
    return dx


def backward(tape: Sequence[Record], engine: Engine, gy: Signal) -> Signal:
    """Pull cotangents through the sampled layers, noting them on the tape."""
    for record in reversed(tape):
        record.gy = gy
        record.gx = gy = record.layer.backward(engine, record.saved, gy)
    return gy


def propagate(layers: Sequence[Layer], state: State) -> list[State]:
    """The states at every boundary: before the first layer, and after each."""
    states = [state]
    for i, layer in enumerate(layers, start=1):
        states.append(_up(layer, states[-1], i))
    return states


def _up(layer: Layer, state: State, i: int) -> State:
    """The state above layer i. Raises Unpredictable where its lengths, or their squares, leave the floats' range."""
    above = layer.propagate(state)
    if not above.q.max() <= _LARGEST:
        if np.isnan(above.q).any():
            raise Unpredictable(f"E h² is not a number in layer {i}")
        raise Unpredictable(f"E h² exceeds {_LARGEST:g} in layer {i}, where its square leaves the range of floats")
    return above


class Upwards:
    """The states at every boundary: local ones kept, whole ones kept or found again.

    positions: at every boundary. kept: keep all whole states; otherwise one that is asked for is computed again, with
    those up to the next of √(layers) checkpoints, from the checkpoint below; they are set at the first request.
    read(boundary, state) is called on the way up, when each whole state is there."""

    def __init__(
        self, layers: Sequence[Layer], state: State, positions: Sequence[int], kept: bool,
        read: Callable[[int, State], None],
    ) -> None:  # fmt: skip
        self._layers, self._step = layers, math.isqrt(len(layers)) + 1
        self._whole, self.local = {0: state}, [state.local(positions[0])]
        for i, layer in enumerate(layers, start=1):
            state = _up(layer, state, i)
            if kept:
                self._whole[i] = state
            self.local.append(state.local(positions[i]))
            read(i, state)

    def whole(self, i: int) -> State:
        """The state between all columns at boundary i."""
        if i not in self._whole:
            first = i // self._step * self._step
            if not any(self._whole.keys() - {0}):
                self._run(0, len(self._layers), self._step)
            self._whole = {k: s for k, s in self._whole.items() if k % self._step == 0}
            self._run(first, min(first + self._step - 1, len(self._layers)), 1)
        return self._whole[i]

    def at(self, i: int, above: Grad) -> State:
        """The state at boundary i, local where the gradient above it is and the layer holds no others."""
        return self.local[i] if above.local and not self._layers[i].needs_whole else self.whole(i)

    def _run(self, first: int, last: int, every: int) -> None:
        state = self._whole[first]
        for i in range(first, last):
            state = self._layers[i].propagate(state)
            if (i + 1) % every == 0:
                self._whole[i + 1] = state


def pull_back(layers: Sequence[Layer], states: Sequence[State], grad: Grad) -> list[Grad]:
    """Gradient moments at every boundary, the last one given; states as from `propagate`."""

    def at(i: int, above: Grad) -> State:
        state, inputs = states[i], above.cov.shape[-1]
        return state.local(len(state.cov) // inputs) if above.local and not layers[i].needs_whole else state

    return pull_back_at(layers, at, grad)


def pull_back_at(layers: Sequence[Layer], at: Callable[[int, Grad], State], grad: Grad) -> list[Grad]:
    """Gradient moments at every boundary up to the last of these layers, the last one given.

    at(boundary, gradient above it): the state there, local where the gradient is."""
    grads = [grad]
    for i in range(len(layers) - 1, -1, -1):
        grads.append(layers[i].pull_back(at(i, grads[-1]), grads[-1]))
    return grads[::-1]
