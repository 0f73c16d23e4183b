"""Runs rows on all cores, batch by batch: each batch has a stream of its own, so figures depend on the seed alone."""

from __future__ import annotations

import multiprocessing
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import numpy as np

from .rows import Figure, Row, add_up, merged

Tell = Callable[[Row, float], None]


@cache
def all_rows() -> dict[str, Row]:
    """Every row, by name, in the order of the report."""
    from . import fixed_laws, ladders, levels, planted, power, suite

    parts = (levels, fixed_laws, ladders, power, suite, planted)
    rows = [row for part in parts for row in part.ROWS]
    assert len({r.name for r in rows}) == len(rows)
    return {r.name: r for r in rows}


def batches(row: Row, share: float) -> Iterator[tuple[str, int, int]]:
    """(row, batch's number, its runs)."""
    total = max(1, round(row.runs * share))
    for at, start in enumerate(range(0, total, row.batch)):
        yield row.name, at, min(row.batch, total - start)


def measure(seed: int, name: str, at: int, runs: int) -> tuple[str, dict[str, Figure], float]:
    """(row, figures of one batch, seconds of one core)."""
    began = time.process_time()
    rng = np.random.Generator(np.random.SFC64([seed, zlib.crc32(name.encode()), at]))
    figures = add_up(all_rows()[name].measure(rng, runs))
    return name, figures, time.process_time() - began


def run(rows: Sequence[Row], seed: int, share: float, workers: int, tell: Tell) -> Iterator[tuple[Row, dict, float]]:
    """(row, figures, seconds of one core) as rows end; tell(row, share of it that a batch was)."""
    together = sorted((r for r in rows if not r.alone), key=lambda r: -r.seconds)
    tasks = [b for r in together for b in batches(r, share)]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        results = pool.imap_unordered(_star, [(seed, *t) for t in tasks])
        yield from _collected(together, results, share, tell)
    alone = [r for r in rows if r.alone]
    yield from _collected(alone, (measure(seed, *b) for r in alone for b in batches(r, share)), share, tell)


def _star(task: tuple[int, str, int, int]) -> tuple[str, dict[str, Figure], float]:
    return measure(*task)


def _collected(rows: Sequence[Row], results, share: float, tell: Tell) -> Iterator[tuple[Row, dict, float]]:
    left = {r.name: sum(1 for _ in batches(r, share)) for r in rows}
    number, figures, seconds = dict(left), {}, dict.fromkeys(left, 0.0)
    by_name = {r.name: r for r in rows}
    for name, part, spent in results:
        before = figures.get(name, {})
        figures[name] = {k: merged(before[k], f) if k in before else f for k, f in part.items()}
        seconds[name] += spent
        left[name] -= 1
        tell(by_name[name], 1 / number[name])
        if not left[name]:
            yield by_name[name], figures[name], seconds[name]
