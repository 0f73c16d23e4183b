"""What every benchmark here shares: how a result is recorded, and what the report must know of the run."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import mcverify
from bench import machine
from bench.cases import QUICK
from bench.peers import PEERS, find
from mcverify import _native

_run: dict[str, Any] = {"skipped": [], "load_before": machine.load(), "began": time.time()}


@pytest.fixture
def record(benchmark: Any) -> Iterator[Callable[..., None]]:
    """Notes beside a benchmark what the report needs: subject, group, who, work in one call and its unit.

    Called just before the clock starts, so that it can add how many cores the process had from then on: less than
    it could use, where other work took them."""
    began: list[float] = []

    def note(subject: str, group: str, who: str, work: float, unit: str, **more: Any) -> None:
        benchmark.extra_info.update(subject=subject, group=group, who=who, work=work, unit=unit, **more)
        began.extend((time.process_time(), time.perf_counter()))

    yield note
    if began:
        worked, passed = time.process_time() - began[0], time.perf_counter() - began[1]
        benchmark.extra_info["cores_had"] = worked / passed


@pytest.fixture
def peer() -> Callable[[str], Any]:
    """A peer's module; where it is absent, the benchmark is skipped."""

    def get(name: str) -> Any:
        module, why = find(name)
        if module is None:
            pytest.skip(f"{PEERS[name]} is absent: {why}")
        return module

    return get


def pytest_runtest_logreport(report: Any) -> None:
    """Keep what was skipped or failed, for the report."""
    if report.skipped:
        _run["skipped"].append([report.nodeid.split("/")[-1], report.longrepr[2].removeprefix("Skipped: ")])
    elif report.failed:
        _run["skipped"].append([report.nodeid.split("/")[-1], f"FAILED: {report.longrepr.reprcrash.message}"])


def pytest_benchmark_update_json(config: Any, benchmarks: Any, output_json: dict[str, Any]) -> None:
    """Add what is true of the whole run."""
    versions = {"mcverify": mcverify.__version__, "Python": platform.python_version(), "NumPy": np.__version__}
    absent = {}
    for name, title in PEERS.items():
        module, version = find(name)
        if module is None:
            absent[title] = version
        else:
            versions[title] = version
    output_json["run"] = _run | {
        "quick": QUICK,
        "load_after": machine.load(),
        "seconds": time.time() - _run["began"],
        "caches": machine.caches(),
        "paths": _native.paths(),
        "versions": versions,
        "absent": absent,
    }
