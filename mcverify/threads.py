"""Work spread over threads, for compiled functions and NumPy's on large arrays, which hold no interpreter lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

Item = TypeVar("Item")


def available() -> int:
    """The cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def each(work: Callable[[Item], object], items: Iterable[Item]) -> None:
    """work(item) for every item, in any order; raises what a call raised."""
    todo, workers = list(items), available()
    if workers == 1 or len(todo) < 2:
        for item in todo:
            work(item)
        return
    given = copy_context()  # NumPy's errstate is the caller's
    with ThreadPoolExecutor(min(workers, len(todo))) as pool:
        for _ in pool.map(lambda item: given.copy().run(work, item), todo):
            pass
