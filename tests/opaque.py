"""A backend whose arrays have a shape and nothing else: what is computed on them outside the primitives fails.

The compiled CPU kernels stand behind it, so that whole catalogues can be held to it.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from mcverify.kernels import cpu, primitives


class Opaque:
    """As kernels.cuda.device.Device: shape, dtype, length, reshape, leading slices, copies; and NumPy by a copy."""

    __slots__ = ("_held",)

    def __init__(self, held: np.ndarray) -> None:
        self._held = held

    shape = property(lambda self: self._held.shape)
    dtype = property(lambda self: self._held.dtype)
    ndim = property(lambda self: self._held.ndim)

    def __len__(self) -> int:
        return len(self._held)

    def reshape(self, *shape: Any) -> Opaque:
        return Opaque(np.ascontiguousarray(self._held).reshape(*shape))

    def __getitem__(self, at: Any) -> Opaque:
        single = at == (slice(None), 0) and self.shape[1] == 1
        assert single or isinstance(at, slice), "only replicates, and a single direction, can be cut out"
        return Opaque(self._held[at])

    def copy(self) -> Opaque:
        return Opaque(self._held.copy())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self._held if dtype is None else self._held.astype(dtype)


_ON_HOST = ("gram", "squares", "patch_gram", "host")


def _bare(v: Any) -> Any:
    if isinstance(v, Opaque):
        return v._held
    if isinstance(v, tuple) and hasattr(v, "_fields"):
        return type(v)(*map(_bare, v))
    return v


def _clothed(v: Any) -> Any:
    if isinstance(v, np.ndarray):
        return Opaque(v)
    if isinstance(v, tuple):
        parts = [_clothed(part) for part in v]
        return type(v)(*parts) if hasattr(v, "_fields") else tuple(parts)
    return v


_TAKES_HOST = {"given": 0, "patch_gram": 0}


def _wrapped(name: str) -> Any:
    function = getattr(cpu, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        for i, v in enumerate(args):
            alone = name in _TAKES_HOST or (name.startswith("gaussian_") and isinstance(v, np.ndarray) and v.ndim == 1)
            assert alone or not isinstance(v, np.ndarray), f"{name} was given a NumPy array, argument {i}"
        out = function(*map(_bare, args), **{k: _bare(v) for k, v in kwargs.items()})
        return out if name in _ON_HOST else _clothed(out)

    return call


NAMES = [name for name in vars(primitives.Kernels) if not name.startswith("_")]
kernels: Any = SimpleNamespace(**{name: _wrapped(name) for name in NAMES})
