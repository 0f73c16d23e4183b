"""The CUDA backend in numba's simulator: tests/test_cuda.py runs this file with NUMBA_ENABLE_CUDASIM=1.

It is what a GPU is held to as well: `python -m pytest tests/cuda_simulated.py` on one. MCVERIFY_CONFORMANCE=all takes
all of the conformance test's combinations, not a pairwise subset.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mcverify as mv
from bench import cuda as bench
from mcverify import Activation, BatchNorm, Convolution, Dense, Dropout, LayerNorm, Network, Residual
from mcverify.claims import experiment
from mcverify.claims.schoenholz2017 import GRADIENT_NORMS
from mcverify.errors import InputError
from mcverify.kernels import backends, cuda, memory, reference
from mcverify.kernels.cuda import device, draws
from mcverify.kernels.cuda.device import cuda as gpu
from mcverify.layers.flatten import Flatten
from mcverify.layers.pooling import GlobalAveragePool
from mcverify.random_map import conditional, explicit
from mcverify.simulation import executor, observables
from mcverify.simulation.trace import Plan, trace
from mcverify.streams import Role, Site
from tests import conformance

# The simulator's threads wait for one another by polling: at five milliseconds a turn that is most of the time.
sys.setswitchinterval(1e-5)


def _shared(self: Any, shape: Any, dtype: Any, alignment: Any = None) -> Any:
    """The simulator's own looks for a line's array and makes one where there is none; two threads that look at once
    got two, and a sum of what was never written."""
    frame = sys._getframe(1)
    return self._allocations.setdefault((frame.f_code.co_filename, frame.f_lineno), np.empty(shape, dtype))


if device.SIMULATED:
    from numba.cuda.simulator import kernelapi

    kernelapi.FakeCUDAShared.array = _shared

EVERYTHING = os.environ.get("MCVERIFY_CONFORMANCE") == "all"
CASES = list(conformance.cases() if EVERYTHING else conformance.pairwise())
KNOWN = json.loads((Path(__file__).parent / "known_answers" / "philox4x32_10.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=conformance.label)
def test_primitives_are_those_of_the_reference(case: conformance.Case) -> None:
    conformance.check(cuda, case)


# ---- words --------------------------------------------------------------------------------------------------


@device.kernel("UUn")
def _blocks(counters, out, n):  # type: ignore[no-untyped-def]
    for i in range(gpu.grid(1), n, gpu.gridsize(1)):
        c = i * 6
        a, b, d, e = draws.philox(
            counters[c], counters[c + 1], counters[c + 2], counters[c + 3], counters[c + 4], counters[c + 5]
        )
        out[4 * i], out[4 * i + 1], out[4 * i + 2], out[4 * i + 3] = a, b, d, e


def test_published_vectors() -> None:
    vectors = KNOWN["published"]["vectors"]
    given = np.array([[int(w, 16) for w in (*v["counter"], *v["key"])] for v in vectors], np.uint32)
    out = cuda.given(np.zeros((len(vectors), 4), np.uint32))
    _blocks.over(len(vectors), cuda.given(given).data, out.data, len(vectors))
    assert cuda.host(out).tolist() == [[int(w, 16) for w in v["words"]] for v in vectors]


def test_addresses_layout_and_uniforms_of_the_known_answers() -> None:
    for v in KNOWN["generated"]["vectors"]:
        if v["rows"] * v["cols"] > 2000 or not v["entries"]:
            continue
        site = Site(int(v["key"], 16), v["layer"], v["replicate"], 1)
        words, uniforms = (
            np.asarray(f(site, v["role"], v["rows"], v["cols"], v["dtype"]))[0] for f in (cuda.words, cuda.uniforms)
        )
        for e in v["entries"]:
            assert int(words[e["row"], e["col"]]) == int(e["word"], 16)
            assert int(uniforms[e["row"], e["col"]].view(words.dtype)) == int(e["uniform_bits"], 16)


# ---- networks -----------------------------------------------------------------------------------------------

SIZE = (2, 2)


def _nets() -> dict[str, tuple[Network, tuple[int, ...]]]:
    """Every kind of layer, each with inputs of that shape."""
    mlp = [Dense(3, 4, 1.5, 0.1), Activation("tanh"), Dropout(0.7), Dense(4, 4, 1.0, 0.1, "orthogonal"),
           LayerNorm(0.1, 1.2, 0.3), Activation("gelu"), Dense(4, 2, 1.5, 0.0, "uniform")]  # fmt: skip
    block = [BatchNorm(0.1), Activation("relu"), Dense(3, 3, 2.0, 0.1)]
    residual = [Dense(3, 3), Residual(block, 0.5), Dropout(0.6, shared=True), Dense(3, 2)]
    conv = [Convolution(SIZE, 2, 3, (2, 2), 1.5, 0.1), BatchNorm(0.1, size=SIZE), Activation("relu"),
            Convolution(SIZE, 3, 3, (1, 2), 1.0, 0.0, "orthogonal"), GlobalAveragePool(SIZE), Dense(3, 2)]  # fmt: skip
    flat = [Convolution(SIZE, 2, 2, (3, 3), 1.5, 0.1, padding="zeros"), Activation("erf"), Flatten(SIZE), Dense(8, 2)]
    return {
        "mlp": (Network(mlp), (2, 3)), "residual": (Network(residual), (3, 3)),
        "convolution": (Network(conv), (2, *SIZE, 2)), "flat": (Network(flat), (2, *SIZE, 2)),
    }  # fmt: skip


NETS = _nets()
# The reference rounds once where the backend rounds at every step; a few layers make that some hundred epsilons.
CLOSE: dict[Any, float] = {np.float32: 2e-4, np.float64: 1e-11}


@pytest.mark.parametrize(("name", "engine", "dtype", "tangents"), [
    ("mlp", "explicit", np.float32, 1), ("mlp", "conditional", np.float64, 0), ("residual", "explicit", np.float64, 1),
    ("residual", "conditional", np.float32, 0), ("convolution", "explicit", np.float64, 0),
    ("flat", "explicit", np.float32, 0),
    *([("convolution", "conditional", np.float32, 1), ("flat", "conditional", np.float64, 1)] if EVERYTHING else []),
])  # fmt: skip
def test_networks_are_those_of_the_reference(name: str, engine: str, dtype: Any, tangents: int) -> None:
    net, shape = NETS[name]
    x = np.random.default_rng(0).standard_normal(shape)
    build = explicit.engine if engine == "explicit" else conditional.engine
    measures = {"q": observables.gram, "length": observables.length, "grad": observables.grad_gram}
    if tangents:
        measures["tangent"] = observables.tangent_gram
    found = []
    for kernels in (cuda, reference):
        plan = Plan(net, x, build(kernels, np.dtype(dtype)), 12345, "shared", tangents)  # type: ignore[arg-type]
        with memory.reused():
            t = trace(plan, 2**32 - 1, 2)
            found.append({name: np.array(measure(t)) for name, measure in measures.items()})
    for measured in measures:
        ours, theirs = (f[measured] for f in found)
        assert np.abs(ours - theirs).max() <= CLOSE[dtype] * max(1.0, float(np.abs(theirs).max())), measured


def test_batches_do_not_matter_and_memory_is_used_again() -> None:
    net, shape = Network([Dense(3, 4, 1.5, 0.1), Activation("tanh"), Dense(4, 2)]), (2, 3)
    x = np.random.default_rng(0).standard_normal(shape)
    plan = Plan(net, x, explicit.engine(cuda, np.dtype(np.float32)), 12345)  # type: ignore[arg-type]

    def work(start: int, count: int) -> np.ndarray:
        with memory.reused():
            return np.array(observables.q(trace(plan, start, count)))

    whole, parts = work(0, 4), np.concatenate([work(0, 1), work(1, 3)])
    assert np.array_equal(whole, parts)
    held = device._pool.held
    work(0, 3)
    assert device._pool.held == held


# ---- when there is too little memory ------------------------------------------------------------------------


class _NoRoom(Exception):
    code = 2


def test_a_batch_that_does_not_fit_is_done_by_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    """No array may hold more than eight numbers: batches of one row of four go in, those of four do not."""
    given = device.cuda.device_array

    def device_array(size: int, dtype: Any) -> Any:
        if size > 8:
            raise _NoRoom
        return given(size, dtype)

    monkeypatch.setattr(device.cuda, "device_array", device_array)
    device.release()

    def work(start: int, count: int) -> np.ndarray:
        return np.array(cuda.host(cuda.uniforms(Site(1, 0, start, count), Role.MASK, 1, 4, np.float32)))

    got = list(executor.in_chunks(work, 0, 5, 4, 1))
    assert [n for n, _ in got] == [2, 2, 1]
    expected = reference.uniforms(Site(1, 0, 0, 5), Role.MASK, 1, 4, np.float32)
    assert np.array_equal(np.concatenate([v for _, v in got]), expected)


def test_one_network_that_does_not_fit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def device_array(size: int, dtype: Any) -> Any:
        raise _NoRoom

    monkeypatch.setattr(device.cuda, "device_array", device_array)
    device.release()
    with pytest.raises(MemoryError, match="on the GPU"):
        list(executor.in_chunks(lambda s, n: cuda.given(np.zeros((n, 3))), 0, 2, 2, 1))


# ---- the rest of the program --------------------------------------------------------------------------------


def test_the_backend_is_there_by_name_alone() -> None:
    if device.SIMULATED:
        assert backends.backend("auto")[0] == "cpu"
    assert backends.backend("cuda") == ("cuda", cuda)
    with pytest.raises(InputError, match="did you mean 'cuda'"):
        backends.backend("cuba")


def test_simulations_and_claims_take_it() -> None:
    net = Network([Dense(2, 3), Activation("relu"), Dense(3, 2)])
    done = [mv.simulate(net, np.eye(2), 4, backend=name, engine="explicit", threads=2) for name in ("cuda", "cpu")]
    assert done[0].attrs["backend"] == "cuda"
    for name in ("length", "grad_norm2"):
        np.testing.assert_allclose(done[0][name], done[1][name], rtol=1e-5)


def test_activations_of_a_users_own_and_whole_replicates_come_to_the_host() -> None:
    a = cuda.given(np.arange(12.0).reshape(3, 4))
    assert np.array_equal(np.sum(a, axis=1), [6.0, 22.0, 38.0])
    assert np.array_equal(cuda.host(a[1:]), np.arange(4.0, 12.0).reshape(2, 4))
    with pytest.raises(TypeError):
        a * 2


@pytest.mark.slow
def test_verdicts_are_those_of_the_cpu() -> None:
    """Of a network's own claim, from the same seed: the same verdict, and estimates to rounding."""
    net = Network([Dense(1, 1, 2.0)])
    ours, theirs = (
        mv.verify(net, np.ones((1, 1)), budget=1280, margin=0.9, threads=1, backend=name) for name in ("cuda", "cpu")
    )
    assert [(r.name, r.verdict) for r in ours.results] == [(r.name, r.verdict) for r in theirs.results]
    assert {r.verdict for r in ours.results} == {"confirmed"}
    for a, b in zip(ours.results, theirs.results, strict=True):
        np.testing.assert_allclose(a.estimate, b.estimate, rtol=1e-5)


def test_the_benchmark_runs_part_by_part_and_keeps_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All that it measures, at tiny sizes; a part that breaks loses nothing of the others, nor does a second run."""

    def broken(sizes: Any) -> Any:
        yield bench.Check("half of it", "passed", "")
        raise MemoryError("no room")

    stem = tmp_path / "gpu"
    monkeypatch.setitem(bench.PARTS, "sanitizer", broken)
    parts = ["ceilings", "normals", "dense", "convolution", "sanitizer"]
    assert bench._run(parts, bench.QUICK, bench.Report(stem, bench.facts())) == 1
    assert bench._run(["ceilings"], bench.QUICK, bench.Report(stem, bench.facts())) == 0
    kept = json.loads(stem.with_suffix(".json").read_text())
    who = {(f["subject"], f["who"]) for f in kept["figures"]}
    assert {name for _, name in who} >= {"ceiling", "mcverify", "mcverify, conditional", "mcverify, explicit"}
    assert len(kept["figures"]) == len(who) == 9
    assert all(f["rate"] > 0 for f in kept["figures"])
    assert {c["what"]: c["outcome"] for c in kept["checks"]} == {"half of it": "passed", "part sanitizer": "failed"}
    assert "no room" in stem.with_suffix(".md").read_text()
    assert "no room" in capsys.readouterr().out


def test_wrong_numbers_are_no_figures() -> None:
    sample = np.random.default_rng(0).standard_normal((100, 2))
    bench._near("right", sample, 0.0)
    with pytest.raises(AssertionError, match="wrong"):
        bench._near("wrong", sample + 1.0, 0.0)


@pytest.mark.slow
@pytest.mark.skipif(device.SIMULATED, reason="thousands of networks: for a GPU")
def test_trajectories_have_the_law_of_the_cpu() -> None:
    """Other seeds, so that the samples are independent: 6 standard errors, 1e-7 for all entries together."""
    claim = GRADIENT_NORMS
    width = max(claim.widths)
    both = []
    for name, seed in (("cuda", 1), ("cpu", 2)):
        sample = experiment.Sample([claim], experiment.Run(seed, name), "main")
        experiment.extend(sample, {width: 20_000})
        both.append(experiment.estimate(claim, sample.tallies[0].moments[width]))
    gap = np.abs(both[0].value - both[1].value)
    assert (gap < 6 * np.sqrt(np.diagonal(both[0].covariance) + np.diagonal(both[1].covariance))).all()
