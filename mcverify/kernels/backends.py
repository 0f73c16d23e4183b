"""The table of backends by name."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import cast

from mcverify.errors import InputError, nearest
from mcverify.kernels.primitives import Kernels

BACKENDS = ("reference", "cpu", "cuda")


def backend(name: str = "auto") -> tuple[str, Kernels]:
    """(name, kernels) of a backend; "auto" is a GPU where one can be used, and the compiled CPU backend elsewhere.

    Raises InputError for an unknown name, and for "cuda" where it cannot be used."""
    if name == "auto":
        name = "cuda" if _extra() and not _no_gpu() and not _simulated() else "cpu"
    if name == "reference":
        from mcverify.kernels import reference

        return name, cast(Kernels, reference)
    if name == "cpu":
        from mcverify.kernels import cpu

        return name, cast(Kernels, cpu)
    if name == "cuda":
        if why := _no_gpu():
            raise InputError("backend", name, f"{why}; cpu runs everywhere, and auto where there is no GPU")
        from mcverify.kernels import cuda

        return name, cast(Kernels, cuda)
    allowed = ", ".join(("auto", *BACKENDS))
    raise InputError("backend", name, f"allowed: {allowed}{nearest(str(name), list(BACKENDS))}")


def why_cpu(name: str) -> str:
    """A line on why "auto" is the CPU although what GPUs need is installed; empty where it is not, or is used."""
    why = _no_gpu() if name == "auto" and _extra() and not _simulated() else ""
    return f"backend cpu: {why}" if why else ""


def _extra() -> bool:
    """Whether numba-cuda is installed."""
    return find_spec("numba_cuda") is not None


def _simulated() -> bool:
    """Whether numba simulates a GPU (NUMBA_ENABLE_CUDASIM=1)."""
    from numba import config

    return bool(getattr(config, "ENABLE_CUDASIM", 0))


@cache
def _no_gpu() -> str:
    """Why no GPU can be used, in a line; empty where one can."""
    if not _extra() and not _simulated():
        return "numba-cuda is not installed (pip install 'mcverify[cuda]')"
    from mcverify.kernels import cuda

    return cuda.missing()
