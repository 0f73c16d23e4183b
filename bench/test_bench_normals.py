"""Normals per second and core: each generator into a buffer of its own, the process pinned to one core."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench import own
from bench.correct import check_normals
from bench.machine import one_core
from mcverify import _native

COUNT = 1 << 17  # half a megabyte in float32, so that memory does not decide


def _measure(benchmark: Any, record: Any, who: str, group: str, make: Callable[[], Any], **more: Any) -> None:
    with one_core():
        draw = make()
        more["checked"] = check_normals(draw)
        size = 4 if group == "float32" else 8
        record("normals", group, who, COUNT, "normals/s", needs={"bytes": size * COUNT}, cores=1, **more)
        benchmark(draw)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("path", ["avx512", "avx2", "portable"])
def test_mcverify(path: str, dtype: str, benchmark: Any, record: Any) -> None:
    if path not in _native.paths():
        pytest.skip(f"this machine has no {path}")
    before = _native.path()
    _native.set_path(path)
    try:
        _measure(benchmark, record, f"mcverify, {path}", dtype, lambda: own.normals(COUNT, dtype), own=True)
    finally:
        _native.set_path(before)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["numpy_peer", "torch_peer", "jax_peer"])
def test_peer(name: str, dtype: str, benchmark: Any, record: Any, peer: Any) -> None:
    module = peer(name)
    _measure(benchmark, record, module.NORMALS, dtype, lambda: module.normals(COUNT, dtype))


@pytest.mark.parametrize("generator", ["PHILOX4X32X10", "MCG59"])
def test_mkl(generator: str, benchmark: Any, record: Any, peer: Any) -> None:
    module = peer("mkl_peer")
    _measure(benchmark, record, f"MKL {generator}", "float64", lambda: module.normals(COUNT, generator))
