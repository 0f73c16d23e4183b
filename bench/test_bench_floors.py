"""The rates that floors are made of, on every core at once."""

from __future__ import annotations

from typing import Any

import pytest

from bench import floors


@pytest.mark.parametrize("name", ["numpy_peer", "torch_peer", "jax_peer"])
def test_flops(name: str, benchmark: Any, record: Any, peer: Any) -> None:
    module = peer(name)
    run, side = module.product(floors.SIDE), floors.SIDE
    record("floors", "flops", f"float32 product {side} × {side}, {module.NAME}", 2.0 * side**3, "flop/s")
    benchmark.pedantic(run, rounds=15, warmup_rounds=2)


def test_normals(benchmark: Any, record: Any) -> None:
    run, work = floors.normals_everywhere()
    record("floors", "normals", "normals, float32, the fastest path, in cache", work, "normals/s")
    benchmark.pedantic(run, rounds=15, warmup_rounds=2)


def test_bytes(benchmark: Any, record: Any) -> None:
    run, work = floors.copy()
    record("floors", "bytes", "copy of 256 MiB, bytes read and written", work, "byte/s")
    benchmark.pedantic(run, rounds=15, warmup_rounds=2)
