"""The conditional engine as the width grows: seconds and peak memory, each from a process of its own."""

from __future__ import annotations

from typing import Any

import pytest

from bench import own
from bench.cases import QUICK, Case
from bench.memory import peak

WIDTHS = (100, 300, 1000) if QUICK else (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
UNITS = 10**5 if QUICK else 4 * 10**6  # width × networks, so that every width takes about as long


@pytest.mark.parametrize("width", WIDTHS)
def test_width(width: int, benchmark: Any, record: Any) -> None:
    case, networks = Case("tanh", 2, width), max(2, UNITS // width)
    run = own.runner(case, "conditional")
    memory = peak("sampling", "conditional", width, min(networks, 16))
    record(
        "scaling", "tanh, B = 2", f"n = {width:,}", networks, "networks/s", depth=case.depth, width=width,
        needs={"normals": networks * case.conditional_normals}, **memory,
    )  # fmt: skip
    benchmark.pedantic(run, (networks,), rounds=3, warmup_rounds=1)
