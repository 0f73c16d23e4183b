"""The three rates that floors are made of, on every core at once."""

from __future__ import annotations

from typing import Any

import pytest

from bench import floors

RATES = {
    "normals": (floors.normals_everywhere, "normals/s"),
    "flops": (floors.product, "flop/s"),
    "bytes": (floors.copy, "byte/s"),
}


@pytest.mark.parametrize("name", RATES)
def test_floor(name: str, benchmark: Any, record: Any) -> None:
    make, unit = RATES[name]
    run, work = make()
    record("floors", "every core", name, work, unit)
    benchmark.pedantic(run, rounds=15, warmup_rounds=2)
