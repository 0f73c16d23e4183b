"""The GPU as the rest of the backend sees it: flat arrays, memory that is used again, and kernels of declared types.

The one file that imports numba.cuda. Under NUMBA_ENABLE_CUDASIM=1, set before the first import, everything runs in
Python threads: slow, and with sizes of tiles and blocks to match.
"""

from __future__ import annotations

import importlib
import itertools
import math
import threading
import warnings
from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numba import config, types
from numpy.typing import NDArray

from mcverify.kernels import memory

SIMULATED = bool(getattr(config, "ENABLE_CUDASIM", 0))


def _loaded() -> Any:
    """numba.cuda, also with NumPy 2.5, which came after numba-cuda 0.30.4: timedeltas without a unit are deprecated
    there, and row_stack, which numba-cuda names beside vstack, is gone."""
    name = "row_stack"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        gone = not SIMULATED and not hasattr(np, name)
        if gone:
            setattr(np, name, np.vstack)
        try:
            loaded = importlib.import_module("numba.cuda")
            if gone:  # what it makes of NumPy's functions, else read when the first kernel is compiled
                importlib.import_module("numba.cuda.cudaimpl")
        finally:
            if gone:
                delattr(np, name)
    return loaded


cuda = _loaded()

THREADS = 2 if SIMULATED else 128  # of a block
_BLOCKS = 2 if SIMULATED else 1 << 14  # of a launch whose threads go on until all is done

# Small networks and last batches are few threads, rightly.
config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # type: ignore[attr-defined]

OLDEST_DRIVER = (12, 0)  # the CUDA version that a driver must know
_OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY
_SHARE = 0.3  # of the free memory, for a batch's tape: beside it are draws, scratch and what backward passes need


class Device:
    """An array on the GPU: contiguous, `data` flat. It has no arithmetic; NumPy functions take a copy on the host."""

    __slots__ = ("data", "dtype", "shape")

    def __init__(self, data: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.data, self.shape, self.dtype = data, shape, dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def real(self) -> Any:
        """The type of its numbers, as kernels are made for it."""
        return self.dtype.type

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def reshape(self, *shape: Any) -> Device:
        """The same numbers; one length may be −1."""
        wanted = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], tuple) else shape
        if -1 in wanted:
            known = math.prod(n for n in wanted if n != -1)
            wanted = tuple(self.size // known if n == -1 else n for n in wanted)
        if math.prod(wanted) != self.size:
            raise ValueError(f"cannot reshape {self.shape} into {wanted}")
        return Device(self.data, wanted, self.dtype)

    def __getitem__(self, at: Any) -> Device:
        """Some replicates, [i:j]; [:, 0] where there is a single direction. In place."""
        if at == (slice(None), 0) and self.shape[1] == 1:
            return self.reshape(self.shape[0], *self.shape[2:])
        if not isinstance(at, slice):
            raise IndexError(f"{at}: on a GPU only replicates, and a single direction, can be cut out")
        start, stop, step = at.indices(len(self))
        if step != 1:
            raise IndexError("replicates one after another")
        of_one = math.prod(self.shape[1:])
        return Device(self.data[start * of_one : stop * of_one], (stop - start, *self.shape[1:]), self.dtype)

    def copy(self) -> Device:
        """A copy in memory of its own."""
        data = _allocated(self.size, self.dtype)
        data.copy_to_device(self.data if self.data.size == self.size else self.data[: self.size])
        return Device(data, self.shape, self.dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        there = host(self)
        return there if dtype is None else there.astype(dtype, copy=False)


# ---- memory -------------------------------------------------------------------------------------------------


class _Pool(threading.local):
    """A thread's arrays by length and type, which kernels/memory.py counts as they are taken, and its GPU."""

    turn = itertools.count()

    def __init__(self) -> None:
        self.arrays: dict[tuple[int, np.dtype[Any]], list[Any]] = {}
        self.scratch: list[Any] = []  # float64; one launch's after another's
        self.gpu: int | None = None

    def placed(self) -> int:
        """The thread's GPU, its own from the first call on: threads take them in turn."""
        if self.gpu is None:
            self.gpu = 0 if SIMULATED else next(_Pool.turn) % len(cuda.gpus)
            if not SIMULATED:
                cuda.select_device(self.gpu)
        return self.gpu

    def take(self, size: int, dtype: np.dtype[Any]) -> Any:
        self.placed()
        taken = memory.taken()
        if taken is None:
            return _allocated(size, dtype)
        key = (size, dtype)
        at = taken.get(key, 0)
        if at == len(self.arrays.get(key, ())):
            new = _allocated(size, dtype)  # may forget others
            self.arrays.setdefault(key, []).append(new)
        taken[key] = at + 1
        return self.arrays[key][at]

    @property
    def held(self) -> int:
        """Bytes."""
        kept = sum(len(v) * size * dtype.itemsize for (size, dtype), v in self.arrays.items())
        return kept + sum(8 * v.size for v in self.scratch)


_pool = _Pool()


def release() -> None:
    """Give the thread's arrays back."""
    _pool.arrays, _pool.scratch = {}, []


def _allocated(size: int, dtype: np.dtype[Any]) -> Any:
    """Raises MemoryError where there is no room: the batch is then tried again by halves."""
    for make_room in (_forget_others, release):
        try:
            return cuda.device_array(max(size, 1), dtype)
        except Exception as error:  # numba's own class is another one in the simulator
            if getattr(error, "code", None) != _OUT_OF_MEMORY:
                raise
        make_room()
    raise MemoryError(f"no room for {size * dtype.itemsize} bytes on the GPU")


def _forget_others() -> None:
    """Give back what this batch has not taken: other networks' arrays."""
    taken = memory.taken() or {}
    _pool.arrays = {key: held[: taken[key]] for key, held in _pool.arrays.items() if taken.get(key)}
    _pool.scratch = []


def empty(shape: tuple[int, ...], dtype: Any) -> Device:
    """An uninitialised array."""
    dtype = np.dtype(dtype)
    return Device(_pool.take(math.prod(shape), dtype), shape, dtype)


def scratch(*shapes: tuple[int, ...]) -> list[Any]:
    """Flat float64 arrays of those sizes at least, for one launch: the next one that asks is given the same."""
    _pool.placed()
    sizes, held = [math.prod(shape) for shape in shapes], _pool.scratch
    for i, size in enumerate(sizes):
        if i == len(held):
            held.append(_allocated(size, np.dtype(np.float64)))
        elif held[i].size < size:
            held[i] = _allocated(size, np.dtype(np.float64))
    return held[: len(sizes)]


def given(a: NDArray[Any]) -> Device:
    """A NumPy array as the backend holds it."""
    out = empty(a.shape, a.dtype)
    if a.size:
        out.data.copy_to_device(np.ascontiguousarray(a).reshape(-1))
    return out


def host(a: Any) -> NDArray[Any]:
    """What the backend holds as a NumPy array: the one way back."""
    if not isinstance(a, Device):
        return np.asarray(a)
    there = a.data if a.data.size == a.size else a.data[: a.size]
    return np.asarray(there.copy_to_host()).reshape(a.shape)


@lru_cache(maxsize=512)
def _constant(held: bytes, dtype: str, gpu: int) -> Any:
    return cuda.to_device(np.frombuffer(held, dtype).copy())


def constant(a: NDArray[Any]) -> Any:
    """A small table, flat, sent once to the GPU of this thread."""
    a = np.ascontiguousarray(a)
    return _constant(a.tobytes(), a.dtype.str, _pool.placed())


# ---- kernels ------------------------------------------------------------------------------------------------

# What a letter of a signature stands for; R is the type of the signal.
_SCALARS = {"n": types.int64, "w": types.uint32, "d": types.float64}
_ARRAYS = {"D": types.float64, "I": types.int32, "U": types.uint32, "L": types.uint64, "B": types.boolean}


class Kernel:
    """A function for the GPU with its types declared, letter by letter; compiled when it is first launched."""

    def __init__(self, function: Callable[..., None], letters: str, real: Any) -> None:
        self.function, self.letters, self.real = function, letters, np.dtype(real)

    @property
    def signature(self) -> Any:
        """numba's."""
        reals = {"R": getattr(types, self.real.name)}
        arguments = [_SCALARS[c] if c in _SCALARS else ({**_ARRAYS, **reals})[c][::1] for c in self.letters]
        return types.void(*arguments)

    @cached_property
    def _compiled(self) -> Any:
        return cuda.jit(self.function) if SIMULATED else cuda.jit(self.signature)(self.function)

    def launch(self, blocks: int, threads: int, *arguments: Any) -> None:
        """On a grid of that many blocks."""
        if SIMULATED:
            self._check(arguments)
        if blocks > 0:
            self._compiled[blocks, threads](*arguments)

    def over(self, size: int, *arguments: Any) -> None:
        """On as many threads as there are entries, or as a grid holds.

        Raises MemoryError where entries could not be counted in 32 bits, for a smaller batch."""
        if size >= 1 << 32:
            raise MemoryError(f"{size} entries are too many for one launch")
        self.launch(min(-(-size // THREADS), _BLOCKS), THREADS, *arguments)

    def _check(self, arguments: tuple[Any, ...]) -> None:
        """The simulator takes anything: hold arguments to the signature."""
        assert len(arguments) == len(self.letters), (self.function.__name__, len(arguments), self.letters)
        for letter, a in zip(self.letters, arguments, strict=True):
            if letter in _SCALARS:
                kind = {"n": int, "w": np.uint32, "d": float}[letter]
                assert isinstance(a, kind), (self.function.__name__, letter, type(a))
            else:
                wanted = self.real if letter == "R" else np.dtype(_ARRAYS[letter].name.replace("boolean", "bool"))
                assert a.dtype == wanted, (self.function.__name__, letter, a.dtype)
                assert len(a.shape) == 1, (self.function.__name__, a.shape)


def kernel(letters: str, real: Any = np.float64) -> Callable[[Callable[..., None]], Kernel]:
    """Declare a kernel."""
    return lambda function: Kernel(function, letters, real)


device = cuda.jit(device=True)

# Around an index in loops that matter: of one that has a sign every access asks whether it counts from the end, which
# is seven instructions.
place = np.uint64


@device
def divided(i, n):
    """(i // n, i % n) of what fits 32 bits: a division of 64 is a subroutine."""
    q = np.int64(np.uint32(i) // np.uint32(n))
    return q, i - q * n


# ---- what there is ------------------------------------------------------------------------------------------


def missing() -> str:
    """Why no GPU can be used, in a line; empty where one can."""
    if SIMULATED:
        return ""
    try:
        cuda.gpus.lst  # noqa: B018  (initialises the driver)
    except Exception as error:
        return "no NVIDIA GPU or driver was found (" + " ".join(str(error).split())[:120] + ")"
    if not len(cuda.gpus):
        return "no NVIDIA GPU was found"
    known = driver_version()
    if known < OLDEST_DRIVER:
        told, wanted = (".".join(map(str, v)) for v in (known, OLDEST_DRIVER))
        return f"the NVIDIA driver is too old: it knows CUDA {told}, and {wanted} is needed"
    return ""


def driver_version() -> tuple[int, int]:
    """The newest CUDA that the driver knows."""
    major, minor = cuda.cudadrv.driver.driver.get_version()
    return int(major), int(minor)


def name() -> str:
    """The GPU's."""
    if SIMULATED:
        return "simulator"
    told = cuda.get_current_device().name
    return told.decode() if isinstance(told, bytes) else str(told)


def room() -> int | None:
    """Bytes that a batch's tape may take, of what is free."""
    if SIMULATED:
        return 1 << 24
    _pool.placed()
    free, _ = cuda.current_context().get_memory_info()
    return int(_SHARE * (free + _pool.held))


def workers(threads: int | None) -> int:
    """A thread for each GPU; replicates go to them by their addresses, so that results do not depend on how many."""
    return 1 if SIMULATED else len(cuda.gpus)
