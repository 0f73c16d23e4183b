"""The table of backends by name."""

from __future__ import annotations

from typing import cast

from mcverify.errors import InputError, nearest
from mcverify.kernels.primitives import Kernels

BACKENDS = ("reference", "cpu")


def backend(name: str = "auto") -> tuple[str, Kernels]:
    """(name, kernels) of a backend; "auto" is the compiled CPU backend.

    Raises InputError for an unknown name."""
    if name == "auto":
        name = "cpu"
    if name == "reference":
        from mcverify.kernels import reference

        return name, cast(Kernels, reference)
    if name == "cpu":
        from mcverify.kernels import cpu

        return name, cast(Kernels, cpu)
    allowed = ", ".join(("auto", *BACKENDS))
    raise InputError("backend", name, f"allowed: {allowed}{nearest(str(name), list(BACKENDS))}")
