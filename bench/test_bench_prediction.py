"""Theory of a large grid: 32 × 32 positions of two inputs, 100 layers; seconds, and memory of a process of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench import own
from bench.cases import PREDICTED, QUICK
from bench.memory import peak

SIDE, DEPTH = (4, 5) if QUICK else (32, 100)


@pytest.mark.parametrize("activation", PREDICTED)
def test_predict(activation: str, benchmark: Any, record: Any) -> None:
    run = own.prediction(activation, SIDE, DEPTH)
    memory = peak("prediction", activation, SIDE, DEPTH)
    record("prediction", f"{SIDE} × {SIDE}, {DEPTH} layers", activation, 1, "predictions/s", own=True, **memory)
    found = benchmark.pedantic(run, rounds=1, warmup_rounds=0)
    assert np.isfinite(found.length.values).all()
    assert found.sizes["layer"] == DEPTH
