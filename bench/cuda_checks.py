"""Is what the GPU computes right? The conformance test, NVIDIA's memory checker, and verdicts beside the CPU's.

Each runs in a process of its own, with a limit of time, and says in a line what came of it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
_PYTEST = [sys.executable, "-m", "pytest", "-q", "-rfE", "--tb=line", "-o", "addopts=", "-p", "no:cacheprovider"]
_TESTS = "tests/cuda_simulated.py"
# Every layer in networks of a few units: all kinds of kernels, in a time that a checker's slowness allows.
_SMALL = "networks_are or published"
CLAIMS = ("poole2016.*", "schoenholz2017.gradient_norms", "xiao2018_cnn.one_step", "taki2017.relu_*")


class Check(NamedTuple):
    """What was checked and what came of it: "passed", "failed" or "not run", and the last line said, or lines."""

    what: str
    outcome: str
    told: str


def _done(what: str, command: list[str], seconds: float, **environment: str) -> tuple[Check, str]:
    """(what came of a command, all it printed)."""
    try:
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return Check(what, "not run", f"stopped after {seconds:.0f} s"), ""
    said = (done.stdout + done.stderr).strip()
    lines = [line.strip() for line in said.splitlines() if line.strip()] or [""]
    # of a failure the end, which names what failed: it may be the only run that a GPU could be had for
    told = lines[-1] if not done.returncode else "; ".join(lines[-40:])[-4000:]
    return Check(what, "failed" if done.returncode else "passed", told), said


def conformance(everything: bool, chosen: str = "", seconds: float = 300) -> Check:
    """tests/cuda_simulated.py on the GPU (or in the simulator, where this process has one)."""
    what = "conformance, " + ("all combinations" if everything else chosen or "pairwise")
    extra = ["-m", "" if everything else "not slow"]
    command = [*_PYTEST, *extra, *(["-k", chosen] if chosen else []), _TESTS]
    return _done(what, command, seconds, MCVERIFY_CONFORMANCE="all" if everything else "")[0]


def sanitized(seconds: float = 150) -> Iterator[Check]:
    """compute-sanitizer's memcheck and racecheck on small networks of every layer."""
    tool = shutil.which("compute-sanitizer")
    # what the driver answers to numba's questions about it is no error of a kernel's
    for name, more in (("memcheck", ["--report-api-errors", "no"]), ("racecheck", [])):
        if tool is None:
            yield Check(f"compute-sanitizer {name}", "not run", "compute-sanitizer is not installed")
            continue
        command = [tool, "--tool", name, *more, "--error-exitcode", "9", *_PYTEST, "-k", _SMALL, _TESTS]
        check, said = _done(f"compute-sanitizer {name}", command, seconds)
        summary = [line for line in said.splitlines() if "ERROR SUMMARY" in line or "RACECHECK SUMMARY" in line]
        yield check._replace(told=" ".join([check.told, *summary[-1:]]))


def verdicts(claims: tuple[str, ...] = CLAIMS, seconds: float = 120) -> Check:
    """`mcverify verify --backend cuda` beside `--backend cpu`, other seeds, so that the samples are independent."""
    found, what = {}, "verdicts beside the CPU's"
    for seed, backend in enumerate(("cuda", "cpu")):
        check, found[backend] = _verified(what, claims, seconds, "--backend", backend, "--seed", str(seed))
        if not found[backend]:
            return check._replace(outcome="failed" if check.outcome == "passed" else check.outcome)
    same = found["cuda"] == found["cpu"]
    return Check(what, "passed" if same else "failed", json.dumps(found["cuda"] if same else found))


def catalogue(seconds: float = 300) -> Check:
    """The whole catalogue on the GPU, and how long it takes."""
    began = time.perf_counter()
    check, found = _verified("the whole catalogue", (), seconds, "--backend", "cuda")
    return check._replace(told=f"{len(found)} claims in {time.perf_counter() - began:.1f} s; {check.told[:100]}")


def _verified(what: str, claims: tuple[str, ...], seconds: float, *options: str) -> tuple[Check, dict[str, str]]:
    """(what came of it, the verdict of every claim)."""
    with tempfile.TemporaryDirectory() as report:
        command = [sys.executable, "-m", "mcverify", "verify", *claims, *options, "--json", "--report", report]
        check, said = _done(what, command, seconds)
    if "{" not in said:
        return check, {}
    told, _ = json.JSONDecoder().raw_decode(said[said.index("{") :])
    return check, {r["name"]: r["verdict"] for r in told["results"]}
