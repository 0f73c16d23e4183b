"""mcverify behind the same interface as its peers, doing the same work."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mcverify as mv
from bench.cases import PREDICTED, Array, Case, Convolution, Runner
from mcverify import _native
from mcverify.errors import InputError
from mcverify.inputs import checked
from mcverify.network import Network
from mcverify.random_map.engine import Engine
from mcverify.simulation.observables import length
from mcverify.simulation.simulate import choose_engine, sample
from mcverify.simulation.trace import Plan, Trace
from mcverify.streams import stream_key

THREADS = 2


def normals(count: int, dtype: str) -> Callable[[], Any]:
    """A function that fills `count` normals in place, on the instruction set in use; fresh ones in each call."""
    out, replicate = np.empty((1, 1, count), dtype), itertools.count()

    def fill() -> Array:
        _native.draw(1, 0, 0, next(replicate), 0, 0, out)
        return out

    return fill


def network(case: Case) -> Network:
    """The case as a network."""
    if isinstance(case, Convolution):
        shape = (case.width, case.side, case.side)
        return mv.cnn(shape, [case.width] * case.depth, case.activation, case.sigma_w2, case.sigma_b2)
    return mv.mlp(case.width, [case.width] * case.depth, case.activation, case.sigma_w2, case.sigma_b2)


def engine(name: str) -> Engine:
    """An engine by name; where there is none yet, the benchmark that asked is skipped."""
    try:
        return choose_engine(name, "auto", "float32")[0]
    except InputError as error:
        pytest.skip(f"mcverify has no {name} engine here: {error}")


def grad_norm2(trace: Trace) -> Array:
    """‖∂E/∂h^l‖², (replicate, layer, input): the norms alone, as the peers compute them."""
    squares = trace.plan.engine.kernels.squares
    by_input = (trace.site.count, len(trace.plan.x), -1)
    return np.stack([squares(r.gy.reshape(by_input)) for r in trace.maps if r.gy is not None], axis=1)


def runner(case: Case, engine_name: str) -> Runner:
    """The peers' work, by the sampler that `simulate` and `verify` use."""
    net = network(case)
    plan = Plan(net, checked(case.x.astype(np.float64), net.input_shape), engine(engine_name), stream_key(0, "bench"))
    measures = {"length": length, "grad_norm2": grad_norm2}
    done = 0

    def run(networks: int) -> tuple[Array, Array]:
        nonlocal done
        _, kept = sample(plan, measures, done, networks, THREADS, keep=True)
        done += networks
        return np.concatenate(kept["length"]), np.concatenate(kept["grad_norm2"])

    return run


def simulate(case: Case, engine_name: str) -> Callable[[int], Any]:
    """The public function, with all that it measures: networks → Dataset."""
    engine(engine_name)
    net, x = network(case), case.x.astype(np.float64)
    return lambda networks: mv.simulate(net, x, samples=networks, rng=0, engine=engine_name, threads=THREADS)


def prediction(activation: str, side: int, depth: int) -> Callable[[], Any]:
    """`predict` for two inputs of three channels on a grid, and 256 channels in every layer."""
    net = mv.cnn((3, side, side), [256] * depth, activation, *PREDICTED[activation])
    x = np.random.default_rng(7).standard_normal((2, 3, side, side))
    return lambda: mv.predict(net, x)
