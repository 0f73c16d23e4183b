"""One chunk of replicates carried through a network: forward, tangent and backward, kept on a tape."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mcverify.inputs import checked_cotangent
from mcverify.layers import chain
from mcverify.layers.chain import Record
from mcverify.network import Network
from mcverify.random_map.engine import Engine
from mcverify.streams import Role, Site

FloatArray = NDArray[np.float64]
Cotangent = Literal["independent", "shared"] | FloatArray | None

# The site of the output cotangent: the highest layer number, so that it never meets a layer's own.
COTANGENT_SITE = 2**32 - 1


@dataclass(frozen=True)
class Plan:
    """What to sample: the network, inputs x (input, *positions, n_0), an engine, a stream key, and the directions.

    cotangent: "independent" (one Gaussian v_a of unit expected norm per input), "shared" (one for all), an array
    (input, *positions, n_L), or None where nothing is pulled back and the tape has no gradients. tangents: how many
    random input directions (of independent entries and unit expected norm), independent between inputs. sampled: the
    network that is really sampled, where it is not `net` but a mutant of it, layer for layer; what is measured is read
    by the parameters of `net`.
    """

    net: Network
    x: FloatArray
    engine: Engine
    key: int
    cotangent: Cotangent = "independent"
    tangents: int = 0
    sampled: Network | None = None

    def __post_init__(self) -> None:
        if self.cotangent is not None:
            checked_cotangent(self.cotangent, len(self.x), self.net.shapes[self.net.end])


@dataclass(frozen=True)
class Trace:
    """A sampled chunk: the plan, which replicates, and the tape with every signal, and gradients above the input; and,
    by name, what was reduced from it already, for measurements that share it."""

    plan: Plan
    site: Site
    tape: list[Record]
    reduced: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def maps(self) -> list[Record]:
        """The records of the maps, h^1 … h^L, blocks among them."""
        return [self.tape[i] for i in self.plan.net.maps]

    @cached_property
    def gx(self) -> NDArray[Any]:
        """∂E/∂x, (replicate, 1, column, n_0): pulled through the first layer where it is asked for, and once."""
        first = self.tape[0]
        assert first.gy is not None
        return first.layer.backward(self.plan.engine, first.saved, first.gy)

    def outputs(self) -> list[NDArray[Any]]:
        """x^1 … x^L: what the last activation above each map gives, or h^l where there is none."""
        return [self.tape[boundary - 1].y for boundary in self.plan.net.outputs]


def trace(plan: Plan, start: int, count: int) -> Trace:
    """Replicates start … start + count − 1; a function of their addresses alone."""
    site = Site(plan.key, 0, start, count)
    dtype = plan.engine.dtype
    layers = (plan.sampled or plan.net).layers
    columns = plan.x.reshape(-1, plan.x.shape[-1]).astype(dtype)
    tape = chain.forward(layers, plan.engine, plan.engine.kernels.given(columns[None]), site)
    if plan.tangents:
        chain.tangent(tape, plan.engine, _tangents(plan, site))
    if plan.cotangent is not None:
        tape[0].gy = chain.backward(tape[1 : plan.net.end], plan.engine, _cotangents(plan, site, plan.cotangent))
    return Trace(plan, site, tape)


def _tangents(plan: Plan, site: Site) -> NDArray[Any]:
    """(replicate, direction, column, n_0)."""
    columns, n0, kernels = plan.x[..., 0].size, plan.x.shape[-1], plan.engine.kernels
    draws = kernels.draw(site, Role.TANGENT, "gaussian", plan.tangents * columns, n0, plan.engine.dtype)
    return kernels.affine(draws, 1.0 / np.sqrt(plan.x[0].size)).reshape(-1, plan.tangents, columns, n0)


def _cotangents(plan: Plan, site: Site, cotangent: str | FloatArray) -> NDArray[Any]:
    """(replicate, 1, column, n_L)."""
    inputs, shape = len(plan.x), plan.net.shapes[plan.net.end]
    positions, width = math.prod(shape[:-1]), shape[-1]
    dtype, kernels = plan.engine.dtype, plan.engine.kernels
    if not isinstance(cotangent, str):
        v = np.asarray(cotangent, dtype=dtype).reshape(-1, width)
        return kernels.given(np.broadcast_to(v, (site.count, 1, *v.shape)).copy())
    rows = positions * (inputs if cotangent == "independent" else 1)
    there = Site(site.key, COTANGENT_SITE, site.start, site.count)
    draws = kernels.draw(there, Role.COTANGENT, "gaussian", rows, width, dtype)
    each = np.full((1, inputs * positions // rows, 1, 1), 1.0 / np.sqrt(positions * width), dtype)
    everyone = kernels.multiply(kernels.given(each), draws.reshape(site.count, 1, rows, width))
    return everyone.reshape(site.count, 1, inputs * positions, width)
