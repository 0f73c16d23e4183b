"""No weight drawn: the conditional engine, and its algorithm in NumPy and in JAX."""

from __future__ import annotations

from typing import Any

import pytest

from bench import own
from bench.cases import QUICK, VARIANCES, Case
from bench.correct import check

CHECKED = 64


def _record(record: Any, case: Case, who: str, networks: int, **more: Any) -> None:
    needs = {"normals": networks * case.conditional_normals}
    record(
        "conditional", f"{case.activation}, B = {case.inputs}", who, networks, "networks/s", depth=case.depth,
        width=case.width, needs=needs, **more,
    )  # fmt: skip


@pytest.mark.parametrize("activation", VARIANCES)
def test_mcverify(activation: str, benchmark: Any, record: Any) -> None:
    case, networks = Case(activation, 2), 64 if QUICK else 2048
    run = own.runner(case, "conditional")
    found = check(lambda c: own.runner(c, "conditional"), case, CHECKED)
    _record(record, case, "mcverify", networks, own=True, checked=found)
    benchmark.pedantic(run, (networks,), rounds=5, warmup_rounds=1)


@pytest.mark.parametrize("activation", VARIANCES)
def test_simulate(activation: str, benchmark: Any, record: Any) -> None:
    """The public function: q, metric, c, χ, lengths and gradient Grams, each with its standard error."""
    case, networks = Case(activation, 2), 64 if QUICK else 2048
    run = own.simulate(case, "conditional")
    _record(record, case, "mcverify.simulate, all it measures", networks, own=True)
    benchmark.pedantic(run, (networks,), rounds=3, warmup_rounds=1)


@pytest.mark.parametrize("name", ["numpy_peer", "jax_peer"])
@pytest.mark.parametrize("activation", VARIANCES)
def test_peer(activation: str, name: str, benchmark: Any, record: Any, peer: Any) -> None:
    module, case, networks = peer(name), Case(activation, 2), 16 if QUICK else 512
    found = check(module.conditional, case, CHECKED)
    _record(record, case, f"{module.NAME}, the same algorithm", networks, checked=found)
    benchmark.pedantic(module.conditional(case), (networks,), rounds=5, warmup_rounds=1)
