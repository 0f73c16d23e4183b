"""The CUDA backend without a GPU: in numba's simulator, compiled to PTX, and refused where there is none.

The simulator must be chosen before numba.cuda is imported: tests/cuda_simulated.py runs in a process of its own.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from mcverify import Activation, Dense, Network, cli, cnn, mlp
from mcverify.claims import catalogue, experiment
from mcverify.errors import InputError
from mcverify.kernels import backends, cpu, memory, primitives
from mcverify.random_map import conditional, explicit
from mcverify.simulation import executor, observables
from mcverify.simulation.trace import Plan, trace
from tests import conformance, opaque, unlaunched

ROOT = Path(__file__).parents[1]


def _simulated(**more: str) -> None:
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", **more}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/cuda_simulated.py"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_in_the_simulator() -> None:
    _simulated()


@pytest.mark.slow
def test_in_the_simulator_all_combinations() -> None:
    _simulated(MCVERIFY_CONFORMANCE="all")


def test_the_cpu_conforms_to_the_reference_in_all_combinations() -> None:
    for case in conformance.cases():
        conformance.check(cpu, case)


def test_every_two_levels_meet_in_the_pairwise_cases() -> None:
    chosen = list(conformance.pairwise())
    for name in conformance.FACTORS:
        everything, there = (
            {met for n, case in which if n == name for met in conformance._met(case)}
            for which in (conformance.cases(), chosen)
        )
        assert everything == there


# ---- what is computed on arrays ------------------------------------------------------------------------------


def test_layers_maps_and_measures_compute_by_primitives_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two networks of every claim on arrays without arithmetic, with the very same results: what passes runs on any
    backend. A claim that takes a second and more of one core is left to others of its kind."""
    everything = {"cpu": cpu, "opaque": opaque.kernels}
    monkeypatch.setattr("mcverify.simulation.simulate.find_backend", lambda name: (name, everything[name]))
    for claim in catalogue.select(()):
        if claim.name in ("xiao2018_cnn.whole_depth", "xiao2018_isometry.ten_thousand_layers"):
            continue
        found = []
        for name in everything:
            sample = experiment.Sample([claim], experiment.Run(0, name, 1), "main")
            work, _, _ = experiment._work(sample, [0], min(claim.widths))
            found.append(work(0, 2)[0][0])
        assert np.array_equal(*found, equal_nan=True), claim.name


def test_the_protocol_is_what_backends_supply() -> None:
    for name in opaque.NAMES:
        assert callable(getattr(cpu, name))
    assert set(opaque.NAMES) == {n for n in vars(primitives.Kernels) if not n.startswith("_")}


# ---- compiled ------------------------------------------------------------------------------------------------

compiled = pytest.mark.skipif(importlib.util.find_spec("numba_cuda") is None, reason="needs mcverify[cuda]")


def _kernels() -> list[Any]:
    from mcverify.kernels.cuda import conditional, draws, elementwise, layout, linear, matmul

    return [k for module in (draws, linear, layout, conditional, elementwise, matmul) for k in module.every()]


def _ptx(kernel: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """Device functions are compiled for the GPU at hand: without a driver it is stated."""
    from mcverify.kernels.cuda.device import cuda

    unlaunched.compiled_for((9, 0), monkeypatch)
    ptx, _ = cuda.compile_ptx(kernel.function, kernel.signature, cc=(9, 0))
    assert ".target sm_90" in ptx
    assert ".entry" in ptx
    return str(ptx)


@compiled
def test_kernels_compile_for_cc_9_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each once in either type; of those made for every law or activation, one."""
    seen: dict[Any, Any] = {}
    for kernel in _kernels():
        seen.setdefault((kernel.function.__qualname__, kernel.letters, kernel.real), kernel)
    for kernel in seen.values():
        _ptx(kernel, monkeypatch)


@compiled
@pytest.mark.slow
def test_every_kernel_compiles_for_cc_9_0(monkeypatch: pytest.MonkeyPatch) -> None:
    for kernel in _kernels():
        _ptx(kernel, monkeypatch)


@compiled
def test_normals_of_32_bits_take_no_arithmetic_of_64(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of those costs as much as a normal; and arrays of sums lie in registers."""
    from mcverify.kernels.cuda import draws, matmul

    for kernel in (draws._fill("gaussian", False), matmul._few_transposed("gaussian", False, 2)):
        ptx = _ptx(kernel, monkeypatch)
        assert ".f64" not in ptx.split(".entry")[1].split("{", 1)[1]
        assert ".local" not in ptx


@compiled
def test_kernels_link_as_they_do_when_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    """For GPUs of three generations."""
    from mcverify.kernels.cuda import draws

    for cc in ((8, 0), (9, 0), (10, 0)):
        with monkeypatch.context() as there:
            unlaunched.compiled_for(cc, there)
            assert unlaunched.linked(draws._fill("gaussian", False))[:4] == b"\x7fELF"


def _launches(engine: Any, networks: int, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Of a batch of networks, forward and backward and what is read of it, handed to numba's own dispatcher."""
    from mcverify.kernels import cuda

    x = np.random.default_rng(0).standard_normal((2, 5))
    net = Network([Dense(5, 5, 1.5, 0.1), Activation("tanh"), Dense(5, 5, 1.5, 0.1), Activation("tanh")])
    with monkeypatch.context() as there:
        unlaunched.compiled_for((9, 0), there)
        launched = unlaunched.unlaunched(there)
        with memory.reused():
            t = trace(Plan(net, x, engine(cuda, np.dtype(np.float32)), 1), 0, networks)
            observables.length(t)
            observables.grad_gram(t)
    return launched


@compiled
def test_a_launch_takes_a_whole_batch_of_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many launches for one network as for a thousand, and what is handed over is what the kernels declare."""
    one, many = (_launches(explicit.engine, n, monkeypatch) for n in (1, 1000))
    assert len(one) == len(many) <= 10 * 2
    assert [(name, given) for name, _, _, given in one] == [(name, given) for name, _, _, given in many]
    assert max(grid[0] for _, grid, *_ in many) >= 1000


@compiled
@pytest.mark.slow
def test_a_launch_takes_a_whole_batch_of_conditional_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    one, many = (_launches(conditional.engine, n, monkeypatch) for n in (1, 1000))
    assert len(one) == len(many) <= 10 * 2


# ---- the benchmark -------------------------------------------------------------------------------------------


def test_what_the_benchmark_holds_its_networks_to_is_right() -> None:
    """The exact lengths of the first layer, met by the CPU."""
    from bench import cuda as bench

    for net, networks in ((mlp(16, [16], "tanh", 1.5, 0.05), 40_000), (cnn((4, 4, 4), [4], "tanh", 1.5, 0.05), 400)):
        run, expected = bench.carried(net, conditional.engine(cpu, np.dtype(np.float32)), networks)
        bench._near("lengths", run(), expected)


# ---- without a GPU -------------------------------------------------------------------------------------------


@pytest.fixture
def none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that was prepared for a GPU, and has none."""
    monkeypatch.setattr(backends, "_extra", lambda: True)
    monkeypatch.setattr(backends, "_no_gpu", lambda: "no NVIDIA GPU was found")


def test_cuda_is_refused_in_a_line_and_auto_goes_on(none: None) -> None:
    with pytest.raises(InputError, match="no NVIDIA GPU was found; cpu runs everywhere") as told:
        backends.backend("cuda")
    assert "\n" not in str(told.value)
    assert backends.backend("auto")[0] == "cpu"
    assert backends.why_cpu("auto") == "backend cpu: no NVIDIA GPU was found"
    assert not backends.why_cpu("cpu")


def test_the_command_line_says_why_and_goes_on(none: None, tmp_path: Path) -> None:
    (tmp_path / "net.toml").write_text((ROOT / "examples" / "tanh_critical.toml").read_text())
    arguments = ["simulate", str(tmp_path / "net.toml"), "--samples", "2", "--threads", "1"]
    done = CliRunner().invoke(cli.main, [*arguments, "--backend", "auto"])
    assert done.exit_code == 0, done.output
    assert "backend cpu: no NVIDIA GPU was found" in done.stderr
    assert "no NVIDIA GPU" not in CliRunner().invoke(cli.main, arguments).stderr  # no terminal, and nobody asked
    refused = CliRunner().invoke(cli.main, [*arguments, "--backend", "cuda"])
    assert refused.exit_code == 2
    assert "no NVIDIA GPU was found; cpu runs everywhere" in refused.stderr


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_extra", lambda: False)
    backends._no_gpu.cache_clear()
    with pytest.raises(InputError, match=r"pip install 'mcverify\[cuda\]'"):
        backends.backend("cuda")
    assert not backends.why_cpu("auto")
    backends._no_gpu.cache_clear()


@compiled
def test_drivers_that_are_missing_or_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    from mcverify.kernels.cuda import device

    class One(list[int]):
        lst = (0,)

    monkeypatch.setattr(device, "cuda", SimpleNamespace(gpus=One([0])))
    monkeypatch.setattr(device, "driver_version", lambda: (11, 4))
    assert device.missing() == "the NVIDIA driver is too old: it knows CUDA 11.4, and 12.0 is needed"
    monkeypatch.setattr(device, "driver_version", lambda: (12, 4))
    assert device.missing() == ""
    monkeypatch.setattr(device, "cuda", SimpleNamespace())
    assert "no NVIDIA GPU or driver was found" in device.missing()


# ---- batches -------------------------------------------------------------------------------------------------


def test_a_batch_is_as_large_as_memory_allows() -> None:
    net = Network([Dense(100, 100), Dense(100, 100)])
    sizes = [executor.chunk_size(net, 4, 4, "explicit", room) for room in (1, 10_000_000, 20_000_000, 1 << 60)]
    assert sizes[0] == 1
    assert sizes[2] // sizes[1] == 2
    assert sizes[3] == executor._LARGEST_ON_DEVICE


def test_halves_keep_the_order_of_replicates() -> None:
    def work(start: int, count: int) -> list[int]:
        if count > 3:
            raise MemoryError
        return list(range(start, start + count))

    for threads in (1, 2):
        got = list(executor.in_chunks(work, 5, 20, 8, threads))
        assert [r for _, part in got for r in part] == list(range(5, 25))
        assert all(n == len(part) for n, part in got)
    with pytest.raises(MemoryError):
        list(executor.in_chunks(lambda s, n: (_ for _ in ()).throw(MemoryError()), 0, 4, 4, 1))
