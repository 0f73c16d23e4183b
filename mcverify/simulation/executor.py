"""Replicates in chunks over threads; the kernels hold no lock, and the results come back in order."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from mcverify.kernels import memory
from mcverify.network import Network
from mcverify.random_map import choice
from mcverify.threads import available

T = TypeVar("T")
Progress = Callable[[int, int], None]  # (replicates done, replicates in all)

# The tape of one chunk, at most. A chunk must be worth the calls it takes, which hold the interpreter's lock.
_CHUNK_BYTES = {"explicit": 64_000_000, "conditional": 128_000_000}
_LARGEST = {"explicit": 1024, "conditional": 512}
_LARGEST_ON_DEVICE = 1 << 15  # several devices share what is asked for in such pieces
# With explicit weights that is soon the case, and small chunks spread better over threads: in normals drawn, about
# twenty milliseconds of work.
_WORTH = 3e7


def chunk_size(net: Network, copies: int, itemsize: int, engine: str = "explicit", room: int | None = None) -> int:
    """Replicates per chunk: a function of the network, the engine's name and the number of copies of its signals (for
    each input one forward, one backward and one for each tangent) alone; and of `room`, a device's bytes for the tape,
    where it has memory of its own."""
    maps, entries, enough = net.sampled_maps, net.entries, _LARGEST[engine]
    if room is not None:
        entries += sum(p * m.fan_in for m, p in maps if m.window is not None)  # patches, or what is folded back
        return max(1, min(_LARGEST_ON_DEVICE, room // (entries * copies * itemsize)))
    if engine == "explicit":
        half = [copies * p // 2 for _, p in maps]
        work = choice.work(engine, [m for m, _ in maps], [choice.Load(columns, 0, columns) for columns in half])
        enough = min(enough, math.ceil(_WORTH / work))
    else:  # makes patches
        entries += sum(p * (m.fan_in - m.fan_in // m.window.taps) for m, p in maps if m.window is not None)
    return max(1, min(enough, _CHUNK_BYTES[engine] // (entries * copies * itemsize)))


def in_chunks(
    work: Callable[[int, int], T], start: int, total: int, chunk: int, threads: int | None = None
) -> Iterator[tuple[int, T]]:
    """Yield (replicates in the chunk, work(start, count)) in the order of replicates.

    A chunk for which memory does not suffice is done by halves. At most a few chunks wait at a time, so memory does not
    grow with `total`; leaving the iterator early cancels what has not begun."""
    pieces = [(s, min(chunk, start + total - s)) for s in range(start, start + total, chunk)]
    workers = threads or available()
    if workers == 1:
        try:
            for s, n in pieces:
                yield from _fitting(work, s, n)
        finally:
            memory.release()
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[list[tuple[int, T]]]] = deque()
        try:
            for s, n in pieces:
                waiting.append(pool.submit(_fitting, work, s, n))
                if len(waiting) > 2 * workers:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _fitting(work: Callable[[int, int], T], start: int, count: int) -> list[tuple[int, T]]:
    """work(start, count), by halves where memory does not hold it.

    Raises MemoryError where it does not hold one replicate."""
    try:
        return [(count, work(start, count))]
    except MemoryError:
        if count == 1:
            raise
    half = count // 2
    return [*_fitting(work, start, half), *_fitting(work, start + half, count - half)]
