"""python -m bench.cuda: the CUDA backend on the GPU of this machine, all in one command.

Is it right (conformance, NVIDIA's checkers, verdicts beside the CPU's), and how fast: normals, layers of MLPs and
convolutions by both engines, beside the GPU's ceilings and its peers, PyTorch and CuPy (cuRAND), where they are
installed. Times are between device events, the fastest of several rounds.

What is done is written at once to bench/results/DEVICE-DATE-cuda.json and .md, so that an interruption loses nothing;
rows of an earlier run of that day that are measured again are replaced. Without a GPU it says so and stops.

PART …    only those, in this order: conformance ceilings normals dense convolution verdicts sanitizer catalogue all
--quick   tiny sizes, nothing written: does everything run? (in numba's simulator, too)
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import mcverify as mv
from bench import cuda_checks as checks
from bench import cuda_peers as peers
from bench.cuda_checks import Check
from mcverify.inputs import checked
from mcverify.kernels import backends, memory
from mcverify.kernels.cuda import device, draws, matmul
from mcverify.kernels.cuda.device import cuda  # a global, where the simulator looks for it
from mcverify.network import Network
from mcverify.random_map import conditional, explicit
from mcverify.simulation import executor, observables
from mcverify.simulation.trace import Plan, trace
from mcverify.streams import Role, Site

ROUNDS = 1 if device.SIMULATED else 5
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
    conditional: tuple[int, ...] = (1 << 15, 1 << 13, 1 << 10)
    explicit: int = 2048
    channels: int = 64
    side: int = 8
    layers: int = 20
    convolutions: int = 512
    peer: int = 256


QUICK = Sizes(1 << 8, 4, 4, 1 << 6, 2, 1, (2, 1), 1, 1, 3, 1, 1, 1)


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
    return max(min(map(_timed, [run] * ROUNDS)), 1e-9)


def _timed(run: Callable[[], object]) -> float:
    if device.SIMULATED:  # whose events tell no time
        began = time.perf_counter()
        run()
        return time.perf_counter() - began
    first, last = cuda.event(), cuda.event()
    first.record()
    run()
    last.record()
    last.synchronize()
    return float(first.elapsed_time(last)) / 1e3


def _emptied() -> None:
    """Give back what mcverify holds, so that what comes next has the whole GPU."""
    device.release()
    memory.release()
    if not device.SIMULATED:
        cuda.current_context().memory_manager.deallocations.clear()


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


# ---- normals -----------------------------------------------------------------------------------------------


@device.kernel("Rnnwwww", np.float32)
def used(out, n, steps, layer, role, k0, k1):  # type: ignore[no-untyped-def]
    """Each thread the sum of its 4 · steps normals, made and used in registers."""
    for i in range(cuda.grid(1), n, cuda.gridsize(1)):
        total = np.float32(0.0)
        for step in range(steps):
            p, q, r, t = draws.block(i, step, layer, role, k0, k1)
            a, b, c, d = _GAUSSIAN(p, q, r, t)
            total += a + b + c + d
        out[i] = total


_GAUSSIAN = draws.numbers("gaussian", False)


def normals(s: Sizes) -> Iterator[Figure]:
    """Made and used in registers, and made and stored."""
    out, address = cuda.device_array(s.threads, np.float32), draws.address(Site(1, 0, 0, 1), Role.WEIGHT)
    spent = seconds(lambda: used.over(s.threads, out, s.threads, s.steps, *address))
    z = out.copy_to_host().astype(np.float64) / np.sqrt(4 * s.steps)
    _near("normals in registers", z, 0.0)
    _near("their squares", z * z, 1.0)
    yield Figure("normals in registers", "mcverify", 4.0 * s.threads * s.steps / spent, "normal")
    rows = max(1, s.stored // 4096)

    def stored() -> None:
        with memory.reused():
            matmul.draw(Site(1, 0, 0, 1), Role.WEIGHT, "gaussian", rows, s.stored // rows, np.float32)

    yield Figure("normals stored", "mcverify", s.stored / seconds(stored), "normal")
    _emptied()
    for who, run in peers.normals(s.stored):
        yield Figure("normals stored", who, s.stored / seconds(run), "normal")


def _near(what: str, sample: Any, expected: Any) -> None:
    """Raises AssertionError where a mean is further off than 6 standard errors: a wrong result is no figure."""
    sample = np.asarray(sample, np.float64)
    if len(sample) >= 64:  # fewer have no standard error to speak of, and are for trying out
        off, se = np.abs(sample.mean(0) - expected), sample.std(0) / np.sqrt(len(sample))
        assert (off <= 6 * se + 1e-12).all(), f"{what}: {sample.mean(0)}, not {expected}"


# ---- networks ----------------------------------------------------------------------------------------------


def dense(s: Sizes) -> Iterator[Figure]:
    """Layers of MLPs per second, forward and backward, with lengths and gradient norms of every layer."""
    net = mv.mlp(s.width, [s.width] * s.depth, "tanh", 1.5, 0.05)
    subject = f"{s.width} wide, 2 inputs, {s.depth} layers"
    for i, count in enumerate(s.conditional):
        # the smaller batches show what a launch costs
        yield _layers(subject, conditional.engine, net, count, told=i > 0)
    yield _layers(subject, explicit.engine, net, s.explicit)
    if torch := peers.torch():
        fit = peers.networks_that_fit(torch, s.peer, 4 * s.width**2 * s.depth)
        spent = seconds(peers.dense(torch, fit, s.width, s.depth))
        yield Figure(subject, "PyTorch, fresh weights", fit * s.depth / spent, "layer")
        peers.release(torch)


def convolution(s: Sizes) -> Iterator[Figure]:
    """The same of 3 × 3 convolutions."""
    net = mv.cnn((s.channels, s.side, s.side), [s.channels] * s.layers, "tanh", 1.5, 0.05)
    subject = f"{s.channels} channels, {s.side} x {s.side}, {s.layers} layers"
    for build in (conditional.engine, explicit.engine):
        yield _layers(subject, build, net, s.convolutions)
    if torch := peers.torch():
        each = 4 * s.layers * (9 * s.channels**2 + 8 * s.channels * s.side**2)
        fit = peers.networks_that_fit(torch, s.convolutions, each)
        spent = seconds(peers.convolution(torch, fit, s.channels, s.side, s.layers))
        yield Figure(subject, "PyTorch, fresh weights, grouped", fit * s.layers / spent, "layer")
        peers.release(torch)


def _layers(subject: str, build: Any, net: Network, wanted: int, told: bool = False) -> Figure:
    """By an engine of mcverify, so many networks at a time, or as many as memory holds."""
    _, kernels = backends.backend("cuda")
    engine = build(kernels, np.dtype(np.float32))
    count = min(wanted, executor.chunk_size(net, 4, 4, engine.name, kernels.room()))
    run, expected = carried(net, engine, count)
    _near(f"{subject}: lengths of the first layer", run(), expected)
    rate = count * len(net.maps) / seconds(run)
    _emptied()
    return Figure(subject, f"mcverify, {engine.name}" + (f", {count} at a time" if told else ""), rate, "layer")


def carried(net: Network, engine: Any, count: int) -> tuple[Callable[[], Any], Any]:
    """(a batch of networks, forward and backward, and what is read of it: the run returns the lengths (network, input)
    of the first layer; their exact means)."""
    channels_first = (net.input_shape[-1], *net.input_shape[:-1])
    x = np.random.default_rng(0).standard_normal((2, *channels_first))
    plan = Plan(net, checked(x, net.input_shape), engine, 1)

    def run() -> Any:
        with memory.reused():
            t = trace(plan, 0, count)
            lengths = observables.length(t)
            observables.grad_gram(t)
        return lengths[:, 0]

    return run, _first_lengths(x)


def _first_lengths(x: Any) -> Any:
    """E tanh² at the first layer, exact at any width, of inputs (input, units) or (input, channels, row, column)."""
    squares = np.mean(x**2, axis=1).reshape(2, *x.shape[2:])
    for axis in range(1, squares.ndim):  # what three taps along a circle see
        squares = sum(np.roll(squares, step, axis) for step in (-1, 0, 1)) / 3
    z, weight = np.polynomial.hermite_e.hermegauss(80)
    q = 1.5 * squares[..., None] + 0.05
    each = (weight * np.tanh(np.sqrt(q) * z) ** 2).sum(-1) / np.sqrt(2 * np.pi)
    return each.reshape(2, -1).mean(axis=1)


# ---- all of it ----------------------------------------------------------------------------------------------


def _sanitizer(s: Sizes) -> Iterator[Check]:
    yield from checks.sanitized()


PARTS: dict[str, Callable[[Sizes], Iterator[Figure | Check]]] = {
    "conformance": lambda s: iter([checks.conformance(False, "published" if s is QUICK else "")]),
    "ceilings": ceilings, "normals": normals, "dense": dense, "convolution": convolution,
    "verdicts": lambda s: iter([checks.verdicts()]), "sanitizer": _sanitizer,
    "catalogue": lambda s: iter([checks.catalogue()]), "all": lambda s: iter([checks.conformance(True)]),
}  # fmt: skip
SLOW = ("verdicts", "catalogue", "all")  # not in a quick run

TARGETS = {
    ("normals in registers", "mcverify"): 150e9,
    ("1024 wide, 2 inputs, 50 layers", "mcverify, conditional"): 2e7,
}
TIMES_PYTORCH = 10  # that the faster engine is to be faster


class Report:
    """What was found so far, kept in a file."""

    def __init__(self, stem: Path | None, facts: dict[str, str]) -> None:
        self.stem, self.facts = stem, facts
        self.rows: dict[tuple[str, str], Figure | Check] = {}
        if stem is not None and stem.with_suffix(".json").exists():
            before = json.loads(stem.with_suffix(".json").read_text())
            for row in [*(Figure(**r) for r in before["figures"]), *(Check(**r) for r in before["checks"])]:
                self.rows[_key(row)] = row

    def add(self, row: Figure | Check) -> None:
        """Keep a row, and write all of them."""
        self.rows[_key(row)] = row
        if self.stem is not None:
            figures, found = ([r._asdict() for r in self.rows.values() if isinstance(r, k)] for k in (Figure, Check))
            whole = {**self.facts, "figures": figures, "checks": found}
            self.stem.with_suffix(".json").write_text(json.dumps(whole, indent=1))
            self.stem.with_suffix(".md").write_text(self.text())

    def text(self) -> str:
        """Markdown."""
        figures = [r for r in self.rows.values() if isinstance(r, Figure)]
        lines = [f"# {self.facts['device']}, {self.facts['date']}", ""]
        lines += [", ".join(f"{k} {v}" for k, v in self.facts.items() if k not in ("device", "date")), ""]
        lines += ["| subject | who | per second | target |", "|---|---|---|---|"]
        lines += [f"| {g.subject} | {g.who} | {g.rate:.4g} {g.unit} | {_judged(g, figures)} |" for g in figures]
        lines += ["", "| check | outcome | |", "|---|---|---|"]
        found = [c for c in self.rows.values() if isinstance(c, Check)]
        lines += [f"| {c.what} | {c.outcome} | {c.told.replace('|', '/')} |" for c in found]
        return "\n".join([*lines, ""])


def _key(row: Figure | Check) -> tuple[str, str]:
    return (row.subject, row.who) if isinstance(row, Figure) else ("check", row.what)


def _judged(g: Figure, figures: list[Figure]) -> str:
    """Whether a target is met, and how a figure of PyTorch compares."""
    if g.who.startswith("PyTorch, fresh"):
        best = max((f.rate for f in figures if f.subject == g.subject and "mcverify" in f.who), default=0.0)
        met = "met" if best >= TIMES_PYTORCH * g.rate else "missed"
        return f"mcverify {best / g.rate:.3g} times as fast; {TIMES_PYTORCH}: {met}"
    target = TARGETS.get((g.subject, g.who))
    return "" if target is None else f"{target:.3g}: {'met' if g.rate >= target else 'missed'}"


def facts() -> dict[str, str]:
    """The GPU's and what runs on it."""
    known = {"device": device.name(), "date": datetime.date.today().isoformat(), "python": platform.python_version()}
    if not device.SIMULATED:
        gpu = cuda.get_current_device()
        known["driver"] = ".".join(map(str, device.driver_version()))
        known["multiprocessors"] = str(gpu.MULTIPROCESSOR_COUNT)
        known["compute capability"] = ".".join(map(str, gpu.compute_capability))
    for package in ("mcverify", "numba", "numba-cuda", "numpy", "torch", "cupy-cuda12x", "cupy-cuda13x"):
        try:
            known[package] = version(package)
        except PackageNotFoundError:
            continue
    return known


def _told(row: Figure | Check) -> str:
    if isinstance(row, Figure):
        return f"{row.subject:36} {row.who:38} {row.rate:.4g} {row.unit}/s"
    return f"{row.what}: {row.outcome} ({row.told[-600:]})"


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0, 1 where a check failed or a part could not be done, or 2 where there is no GPU."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.cuda", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=" ".join(PARTS))
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args(arguments)
    if unknown := [p for p in asked.parts if p not in PARTS]:
        parser.error(f"no part {unknown[0]}; there are {', '.join(PARTS)}")
    try:
        backends.backend("cuda")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if device.SIMULATED and not asked.quick:
        print("backend: the simulator has no speed to measure; unset NUMBA_ENABLE_CUDASIM", file=sys.stderr)
        return 2
    known = facts()
    file = re.sub(r"[^a-z0-9]+", "-", known["device"].lower()).strip("-") + f"-{known['date']}-cuda"
    report = Report(None if asked.quick else RESULTS / file, known)
    return _run(asked.parts, QUICK if asked.quick else Sizes(), report)


def _run(parts: list[str], sizes: Sizes, report: Report) -> int:
    """Part after part; one that breaks is told, and the next begins."""
    began, failed = time.perf_counter(), False
    for name in [p for p in PARTS if p in parts or (not parts and (sizes is not QUICK or p not in SLOW))]:
        try:
            for row in PARTS[name](sizes):
                print(f"[{time.perf_counter() - began:6.1f} s] {_told(row)}", flush=True)
                report.add(row)
                failed |= isinstance(row, Check) and row.outcome == "failed"
        except Exception as error:
            failed = True
            print(f"[{time.perf_counter() - began:6.1f} s] {name}: {type(error).__name__}: {error}", flush=True)
            report.add(Check(f"part {name}", "failed", f"{type(error).__name__}: {error}"[:300]))
    if report.stem is not None:
        print(report.stem.with_suffix(".md"))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
