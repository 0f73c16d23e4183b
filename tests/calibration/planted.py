"""Decisions made wrong on purpose: the rows that measure them must see it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

import numpy as np

from mcverify.statistics import evidence, watch
from mcverify.statistics.evidence import Evidence

from . import levels, power, samplers
from .rows import Row, level
from .samplers import Rng

Patch = Iterator[None]


@contextmanager
def alpha_doubled() -> Patch:
    """Half of every tail is forgotten."""
    with mock.patch.object(evidence, "ndtr", lambda z: 0.5 * _ndtr(z)):
        yield


@contextmanager
def errors_understated() -> Patch:
    """Every standard error is ten percent too small."""
    right = evidence.tested

    def tested(e: Evidence):
        deviation, tolerated, se = right(e)
        return deviation, tolerated, 0.9 * se

    with mock.patch.object(evidence, "tested", tested), mock.patch.object(watch, "tested", tested):
        yield


@contextmanager
def bonferroni_forgotten() -> Patch:
    """The smallest of many p-values, as it is."""
    with mock.patch.object(Evidence, "shares", property(lambda e: np.ones(e.components + int(e.pooled)))):
        yield


@contextmanager
def peeking() -> Patch:
    """The test at the planned size, asked at every look."""
    right = watch.look

    def look(w: watch.Watch, e: Evidence, *, planned: bool) -> watch.Watch:
        del planned
        after = right(w, e, planned=True)
        return replace(after, p_planned=np.minimum(w.p_planned, after.p_planned))

    with mock.patch.object(samplers, "look", look):
        yield


@contextmanager
def margin_forgets_errors() -> Patch:
    """Confirmed at a level of one percent instead of one in a thousand."""
    with mock.patch.object(evidence, "ndtri", lambda p: _ndtri(1 - 10 * (1 - p))):
        yield


_ndtr, _ndtri = evidence.ndtr, evidence.ndtri


def under(patch, measure):
    """The same measure while a decision is wrong."""

    def patched(rng: Rng, runs: int):
        with patch():
            return measure(rng, runs)

    return patched


def _only(figure: str, measure):
    return lambda rng, runs: {figure: measure(rng, runs)[figure]}


def planted(name: str, patch, figure: str, row: Row) -> Row:
    """The row with one figure, which must miss its target."""
    return replace(
        row, name=f"planted/{name}", of="planted errors", says=f"{patch.__doc__.rstrip('.')}, in {row.name}: {figure}",
        runs=100_000, batch=20_000, measure=_only(figure, under(patch, row.measure)),
        targets={figure: row.targets[figure]}, covers=(*row.covers, f"tests/calibration/{row.module}"),
        module="planted.py", seconds=0.5, outside=True,
    )  # fmt: skip


_rows = {row.name: row for row in (*levels.ROWS, *power.ROWS)}
_WATCH, _FIXED = "watch, 0.01", "fixed, 0.01"

ROWS = [
    planted("alpha", alpha_doubled, _FIXED, _rows["level/gaussian/one"]),
    planted("errors", errors_understated, _FIXED, _rows["level/gaussian/one"]),
    planted("errors-in-the-tail", errors_understated, "fixed, 0.0001", _rows["level/gaussian/one"]),
    planted("bonferroni", bonferroni_forgotten, _FIXED, _rows["level/gaussian/eight"]),
    planted("peeking", peeking, _WATCH, _rows["level/gaussian/one"]),
    planted("margin", margin_forgets_errors, "fixed", _rows["margin/one"]),
    Row("planted/dead", "planted errors", "A test that never fires", 100_000, 20_000,
        lambda rng, runs: {_FIXED: np.zeros(runs)}, {_FIXED: level()}, "planted.py", outside=True),
]  # fmt: skip
