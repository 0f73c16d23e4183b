"""Every weight drawn: forward and gradient norms of every layer, two inputs and 256."""

from __future__ import annotations

from typing import Any

import pytest

from bench import own
from bench.cases import VARIANCES, Case
from bench.correct import check

INPUTS = (2, 256)
WAYS = {"network": "one at a time", "core": "one to a core"}
CHECKED = {2: 16, 256: 4}  # networks


def _record(record: Any, case: Case, who: str, networks: int, **more: Any) -> None:
    needs = {"normals": case.weights, "flops": case.flops, "bytes": case.bytes}
    record(
        "explicit", f"{case.activation}, B = {case.inputs}", who, networks, "networks/s", depth=case.depth,
        width=case.width, needs={name: networks * value for name, value in needs.items()}, **more,
    )  # fmt: skip


@pytest.mark.parametrize("activation", VARIANCES)
@pytest.mark.parametrize("inputs", INPUTS)
def test_mcverify(activation: str, inputs: int, benchmark: Any, record: Any) -> None:
    case, networks = Case(activation, inputs), 16 if inputs == 2 else 4
    found = check(lambda c: own.runner(c, "explicit"), case, CHECKED[inputs])
    _record(record, case, "mcverify", networks, own=True, checked=found)
    benchmark.pedantic(own.runner(case, "explicit"), (networks,), rounds=4, warmup_rounds=1)


@pytest.mark.parametrize("each", WAYS)
@pytest.mark.parametrize("name", ["numpy_peer", "torch_peer", "jax_peer"])
@pytest.mark.parametrize("activation", VARIANCES)
@pytest.mark.parametrize("inputs", INPUTS)
def test_peer(activation: str, inputs: int, name: str, each: str, benchmark: Any, record: Any, peer: Any) -> None:
    module, case, networks = peer(name), Case(activation, inputs), 2
    found = check(lambda c: module.explicit(c, each), case, CHECKED[inputs])
    _record(record, case, f"{module.NAME}, {WAYS[each]}", networks, checked=found)
    benchmark.pedantic(module.explicit(case, each), (networks,), rounds=3, warmup_rounds=1)
