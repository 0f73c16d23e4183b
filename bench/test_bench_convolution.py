"""Convolutions with every weight drawn: forward and gradient norms of every layer, small and large grids, few and many
channels."""

from __future__ import annotations

from typing import Any

import pytest

from bench import own
from bench.cases import QUICK, Convolution
from bench.correct import check

SIZES = ((4, 16),) if QUICK else ((8, 64), (16, 64), (8, 256), (16, 256))  # side, channels
WAYS = {"network": "one at a time", "core": "one to a core", "grouped": "eight at a time to a core"}
CHECKED = 32  # networks


def _case(side: int, channels: int) -> Convolution:
    return Convolution("tanh", 2, channels, side=side)


def _networks(case: Convolution) -> int:
    """About as much work for every case: 256 networks of the smallest, so many that it hardly matters which core
    carries the last chunk."""
    return 16 if QUICK else max(2, 256 * 128 * 64**2 // (case.columns * case.width**2))


def _record(record: Any, case: Convolution, who: str, networks: int, needs: dict[str, float], **more: Any) -> None:
    record(
        "convolution", f"{case.side} × {case.side}, {case.width} channels", who, networks, "networks/s",
        depth=case.depth, width=case.width, needs={name: networks * value for name, value in needs.items()}, **more,
    )  # fmt: skip


def _explicit(case: Convolution) -> dict[str, float]:
    return {"normals": case.weights, "flops": case.flops, "bytes": case.bytes}


def _checked(make: Any, case: Convolution) -> str:
    """On a grid of 4 × 4: what is wrong there is wrong everywhere, and theory knows a few columns quickly."""
    return check(make, Convolution(case.activation, case.inputs, case.width, side=4), CHECKED)


@pytest.mark.parametrize("engine", ["explicit", "conditional"])
@pytest.mark.parametrize(("side", "channels"), SIZES)
def test_mcverify(side: int, channels: int, engine: str, benchmark: Any, record: Any) -> None:
    case = _case(side, channels)
    if engine == "conditional" and case.columns > 128:
        pytest.skip(f"{case.columns} columns: far slower than explicit weights, and not what auto takes")
    networks = _networks(case)
    found = _checked(lambda c: own.runner(c, engine), case)
    needs = _explicit(case) if engine == "explicit" else {"normals": case.conditional_normals}
    _record(record, case, f"mcverify, {engine}", networks, needs, own=True, checked=found)
    benchmark.pedantic(own.runner(case, engine), (networks,), rounds=4, warmup_rounds=1)


@pytest.mark.parametrize("each", WAYS)
@pytest.mark.parametrize("name", ["torch_peer", "jax_peer"])
@pytest.mark.parametrize(("side", "channels"), SIZES)
def test_peer(side: int, channels: int, name: str, each: str, benchmark: Any, record: Any, peer: Any) -> None:
    module, case = peer(name), _case(side, channels)
    networks = max(16 if each == "grouped" else 2, _networks(case) // 2)
    found = _checked(lambda c: module.convolution(c, each), case)
    _record(record, case, f"{module.NAME}, {WAYS[each]}", networks, _explicit(case), checked=found)
    benchmark.pedantic(module.convolution(case, each), (networks,), rounds=3, warmup_rounds=1)
