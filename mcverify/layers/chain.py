"""Layers one after another: the tape of a sampled run, and the states of a predicted one.

A layer that holds layers of its own (a residual block) calls these on its branch, with the tape as what
it saves; sites are numbered depth first, so an address never depends on what is observed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mcverify.layers.layer import Grad, Layer, Signal, State
from mcverify.random_map.engine import Engine
from mcverify.streams import Site


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
    for layer in layers:
        states.append(layer.propagate(states[-1]))
    return states


def pull_back(layers: Sequence[Layer], states: Sequence[State], grad: Grad) -> list[Grad]:
    """Gradient moments at every boundary, the last one given; states as from `propagate`."""
    grads = [grad]
    for layer, state in zip(reversed(layers), reversed(states[:-1]), strict=True):
        grads.append(layer.pull_back(state, grads[-1]))
    return grads[::-1]
