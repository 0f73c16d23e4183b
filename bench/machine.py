"""The machine: what it is, how busy, and how a measurement is kept on one core."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits


def _pin(cores: set[int]) -> None:
    """Every thread of this process, those of the tools' own pools included."""
    for task in os.listdir("/proc/self/task"):
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(task), cores)


@contextmanager
def one_core() -> Iterator[int]:
    """Keep the whole process on one core, and tools to one thread."""
    before = os.sched_getaffinity(0)
    core = max(before)
    torch: Any = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else 0
    _pin({core})
    if torch:
        torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield core
    finally:
        _pin(before)
        if torch:
            torch.set_num_threads(threads)


def load() -> float:
    """How many processes wanted a core, averaged over the last minute."""
    return os.getloadavg()[0]


def caches() -> str:
    """Sizes of the first core's caches."""
    sizes = []
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction":
            sizes.append(f"L{level} {size}")
    return ", ".join(sizes)
