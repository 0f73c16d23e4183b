"""python -m bench.cuda: the CUDA backend on the GPU of this machine, beside its ceilings and its peers there.

Times are between device events, the fastest of several rounds; PyTorch and CuPy (cuRAND) are timed where they are
installed. Results go to bench/results/DEVICE-DATE-cuda.json and .md. Without a GPU it says so and stops.

--quick   tiny sizes, nothing written: does everything run? (in numba's simulator, too)
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import platform
import re
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import mcverify as mv
from mcverify.inputs import checked
from mcverify.kernels import backends, memory
from mcverify.kernels.cuda import device, draws, matmul
from mcverify.kernels.cuda.device import cuda  # a global, where the simulator looks for it
from mcverify.network import Network
from mcverify.random_map import conditional, explicit
from mcverify.simulation import observables
from mcverify.simulation.trace import Plan, trace
from mcverify.streams import Role, Site

ROUNDS = 5
RESULTS = Path(__file__).parent / "results"


class Sizes(NamedTuple):
    """What is measured: `copy` bytes, `steps` multiply-adds or blocks of normals for each of `threads`, `stored`
    normals; networks of a width and depth, so many at a time for the two engines; a convolution's channels, side and
    layers, so many at a time; so many of PyTorch's networks."""

    copy: int = 1 << 31
    steps: int = 4096
    threads: int = 1 << 19
    stored: int = 1 << 30
    width: int = 1024
    depth: int = 50
    conditional: int = 8192
    explicit: int = 2048
    channels: int = 64
    side: int = 8
    layers: int = 20
    convolutions: int = 256
    peer: int = 256


QUICK = Sizes(1 << 8, 4, 4, 1 << 6, 4, 2, 1, 1, 2, 3, 2, 1, 1)


class Figure(NamedTuple):
    """A rate in units per second."""

    subject: str
    who: str
    rate: float
    unit: str


# ---- the GPU -----------------------------------------------------------------------------------------------


def seconds(run: Callable[[], object]) -> float:
    """The fastest of several rounds, after one that compiles and takes memory."""
    run()
    best = np.inf
    for _ in range(ROUNDS):
        first, last = cuda.event(), cuda.event()
        first.record()
        run()
        last.record()
        last.synchronize()
        best = min(best, first.elapsed_time(last) / 1e3)
    return float(max(best, 1e-9))


def ceilings(s: Sizes) -> Iterator[Figure]:
    """Copy bandwidth, read and written; float32 multiply-adds counted as two."""
    f = np.float32
    there = [cuda.device_array(s.copy // 4, f) for _ in range(2)]
    yield Figure("copy", "ceiling", 2 * s.copy / seconds(lambda: there[1].copy_to_device(there[0])), "B")

    @device.kernel("Rnn", f)
    def products(out, n, steps):  # type: ignore[no-untyped-def]
        for i in range(cuda.grid(1), n, cuda.gridsize(1)):
            a, b, c, d = f(i), f(i + 1), f(i + 2), f(i + 3)
            for _ in range(steps):
                a = a * f(0.999) + f(1e-3)
                b = b * f(0.998) + f(1e-3)
                c = c * f(0.997) + f(1e-3)
                d = d * f(0.996) + f(1e-3)
            out[i] = a + b + c + d

    out = cuda.device_array(s.threads, f)
    spent = seconds(lambda: products.over(s.threads, out, s.threads, s.steps))
    yield Figure("float32", "ceiling", 8.0 * s.threads * s.steps / spent, "flop")


def normals(s: Sizes) -> Iterator[Figure]:
    """Made and used in registers, and made and stored."""
    f, made = np.float32, draws.numbers("gaussian", False)

    @device.kernel("Rnnwwww", f)
    def used(out, n, steps, layer, role, k0, k1):  # type: ignore[no-untyped-def]
        for i in range(cuda.grid(1), n, cuda.gridsize(1)):
            total = f(0.0)
            for step in range(steps):
                p, q, r, t = draws.block(i, step, layer, role, k0, k1)
                a, b, c, d = made(p, q, r, t)
                total += a + b + c + d
            out[i] = total

    out = cuda.device_array(s.threads, f)
    address = draws.address(Site(1, 0, 0, 1), Role.WEIGHT)
    spent = seconds(lambda: used.over(s.threads, out, s.threads, s.steps, *address))
    yield Figure("normals in registers", "mcverify", 4.0 * s.threads * s.steps / spent, "normal")
    rows = max(1, s.stored // 4096)

    def stored() -> None:
        with memory.reused():
            matmul.draw(Site(1, 0, 0, 1), Role.WEIGHT, "gaussian", rows, s.stored // rows, f)

    yield Figure("normals stored", "mcverify", s.stored / seconds(stored), "normal")
    if cupy := _peer("cupy"):
        generator = cupy.random.Generator(cupy.random.Philox4x3210(1))
        spent = seconds(lambda: generator.standard_normal(s.stored, dtype=cupy.float32))
        yield Figure("normals stored", "cuRAND (CuPy, Philox)", s.stored / spent, "normal")
    if torch := _torch():
        held = torch.empty(s.stored, device="cuda")
        yield Figure("normals stored", "PyTorch", s.stored / seconds(held.normal_), "normal")


def networks(s: Sizes) -> Iterator[Figure]:
    """Layers per second, forward and backward, with lengths and gradient norms of every layer."""
    mlp = mv.mlp(s.width, [s.width] * s.depth, "tanh", 1.5, 0.05)
    cnn = mv.cnn((s.channels, s.side, s.side), [s.channels] * s.layers, "tanh", 1.5, 0.05)
    shape = f"{s.width} wide, 2 inputs, {s.depth} layers"
    grid = f"{s.channels} channels, {s.side} x {s.side}, {s.layers} layers"
    for net, told, batches in ((mlp, shape, (s.conditional, s.explicit)), (cnn, grid, (s.convolutions,) * 2)):
        for build, count in zip((conditional.engine, explicit.engine), batches, strict=True):
            run = carried(net, build, count)
            layers = count * len(net.maps)
            yield Figure(told, f"mcverify, {build.__module__.split('.')[-1]}", layers / seconds(run), "layer")
    if torch := _torch():
        yield Figure(shape, "PyTorch, fresh weights", s.peer * s.depth / seconds(_fresh(torch, s)), "layer")


def carried(net: Network, build: Any, count: int) -> Callable[[], None]:
    """A batch of networks, forward and backward, and what is read of it."""
    _, kernels = backends.backend("cuda")
    x = checked(np.random.default_rng(0).standard_normal((2, *_channels_first(net.input_shape))), net.input_shape)
    plan = Plan(net, x, build(kernels, np.dtype(np.float32)), 1)

    def run() -> None:
        with memory.reused():
            t = trace(plan, 0, count)
            observables.length(t)
            observables.grad_gram(t)

    return run


def _channels_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[-1], *shape[:-1])


def _fresh(torch: Any, s: Sizes) -> Callable[[], None]:
    """PyTorch's fastest expression known here: weights of a batch of networks at a time, by its own generator into one
    buffer, batched products; drawn once and kept for the backward pass where memory allows, as autograd would."""
    x = torch.randn(s.peer, 2, s.width, device="cuda")
    gain = (1.5 / s.width) ** 0.5
    w = [torch.empty(s.peer, s.width, s.width, device="cuda") for _ in range(s.depth)]

    def run() -> None:
        y, slopes = x, []
        for weights in w:
            y = torch.tanh(torch.bmm(y, weights.normal_().transpose(1, 2)) * gain)
            slopes.append(1 - y * y)
            (y * y).mean(-1)
        d = torch.randn_like(y)
        for weights, slope in zip(reversed(w), reversed(slopes), strict=True):
            d = torch.bmm(d * slope, weights) * gain
            (d * d).sum(-1)

    return run


def _peer(name: str) -> Any:
    return importlib.import_module(name) if importlib.util.find_spec(name) is not None else None


def _torch() -> Any:
    torch = _peer("torch")
    return torch if torch is not None and torch.cuda.is_available() else None


# ---- the report ---------------------------------------------------------------------------------------------

TARGETS = {
    ("normals in registers", "mcverify"): 150e9,
    ("1024 wide, 2 inputs, 50 layers", "mcverify, conditional"): 2e7,
}


def table(name: str, figures: list[Figure]) -> str:
    """Markdown."""
    lines = [f"# {name}", "", "| subject | who | per second | target |", "|---|---|---|---|"]
    for g in figures:
        target = TARGETS.get((g.subject, g.who))
        told = "" if target is None else f"{target:.3g}: {'met' if g.rate >= target else 'missed'}"
        lines.append(f"| {g.subject} | {g.who} | {g.rate:.4g} {g.unit} | {told} |")
    return "\n".join([*lines, ""])


def main() -> int:
    """Exit status: 0, or 2 where there is no GPU."""
    parser = argparse.ArgumentParser(prog="python -m bench.cuda", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    try:
        backends.backend("cuda")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if device.SIMULATED and not quick:
        print("backend: the simulator has no speed to measure; unset NUMBA_ENABLE_CUDASIM", file=sys.stderr)
        return 2
    name, sizes, figures = device.name(), QUICK if quick else Sizes(), []
    for measure in (ceilings, normals, networks):
        for figure in measure(sizes):
            print(f"{figure.subject:40} {figure.who:28} {figure.rate:.4g} {figure.unit}/s", flush=True)
            figures.append(figure)
    if quick:
        return 0
    day = datetime.date.today().isoformat()
    facts = {
        "device": name, "date": day, "python": platform.python_version(),
        "driver": ".".join(map(str, device.driver_version())),
        **{p: version(p) for p in ("numba", "numba-cuda", "numpy")},
    }  # fmt: skip
    stem = RESULTS / f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}-{day}-cuda"
    stem.with_suffix(".json").write_text(json.dumps({**facts, "figures": [f._asdict() for f in figures]}, indent=1))
    stem.with_suffix(".md").write_text(table(f"{name}, {day}", figures))
    print(stem.with_suffix(".md"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
