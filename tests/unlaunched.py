"""numba-cuda up to the launch, on a machine without a driver: what is compiled and linked for a GPU, how its arguments
are typed, converted and counted; nothing runs, and arrays hold nothing.

It reaches into numba-cuda, so it is for the tests alone.
"""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mcverify.kernels.cuda import device


def compiled_for(cc: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a GPU of that compute capability to be there when device functions are compiled."""
    from numba.cuda import codegen, dispatcher

    arch = (*cc, "a" if cc >= (9, 0) else "")  # as numba-cuda names it
    monkeypatch.setattr(dispatcher, "get_current_device", lambda: SimpleNamespace(compute_capability=cc))
    monkeypatch.setattr(codegen.CUDACodeLibrary, "_ensure_cc", lambda self, given: given or arch)


def linked(kernel: device.Kernel) -> bytes:
    """The machine code, made as it is when a kernel is first launched: optimised again while it is linked."""
    from numba.cuda import dispatcher

    made = dispatcher._Kernel(kernel.function, kernel.signature.args, lto=True, opt=True)
    return bytes(made._codelibrary.get_cubin().code)


class _Memory:
    """Of a single number, whatever an array says it holds."""

    def __init__(self, dtype: Any) -> None:
        self.held = np.empty(1, dtype)
        self.device_pointer_value = self.held.ctypes.data
        self.device_ctypes_pointer = ctypes.c_void_p(self.held.ctypes.data)


def unlaunched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Replace the driver: (kernel's name, grid, block, number of arguments) of every launch to come."""
    from numba.cuda import codegen, dispatcher
    from numba.cuda.cudadrv import devicearray

    class Array(devicearray.DeviceNDArray):  # type: ignore[misc]
        def copy_to_device(self, given: Any, stream: int = 0) -> None:
            assert (given.size, given.dtype) == (self.size, self.dtype)

        def copy_to_host(self, *_: Any) -> Any:
            return np.zeros(self.size, self.dtype)

        def __getitem__(self, at: slice) -> Any:
            return array(len(range(*at.indices(self.size))), self.dtype)

    def array(size: int, dtype: Any) -> Any:
        dtype = np.dtype(dtype)
        return Array((size,), (dtype.itemsize,), dtype, gpu_data=_Memory(dtype))

    launched: list[tuple[Any, ...]] = []

    def launch(stream: Any, config: Any, kernel: Any, *arguments: Any) -> None:
        launched.append((kernel, config.grid, config.block, len(arguments)))

    monkeypatch.setattr(dispatcher, "launch", launch)
    monkeypatch.setattr(dispatcher, "LaunchConfig", lambda **given: SimpleNamespace(**given))
    monkeypatch.setattr(dispatcher.driver, "_to_core_stream", lambda stream: stream)
    monkeypatch.setattr(dispatcher._Kernel, "bind", lambda self: None)
    monkeypatch.setattr(
        codegen.CUDACodeLibrary, "get_cufunc", lambda self: SimpleNamespace(kernel=self._entry_name, module=None)
    )
    there = SimpleNamespace(
        jit=device.cuda.jit, device_array=array, to_device=lambda a: array(a.size, a.dtype), gpus=[0],
        select_device=lambda gpu: None,
    )  # fmt: skip
    monkeypatch.setattr(device, "cuda", there)
    monkeypatch.setattr(device, "_pool", device._Pool())
    device._constant.cache_clear()
    return launched
