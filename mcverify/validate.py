"""Checks of single numbers, raised as one-line errors before any work starts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from mcverify.errors import InputError, nearest

MOST_LAYERS = 100_000
"""Layers, or blocks, that one number may ask for: a slip of the hand, not of memory."""

LEAST, MOST = 1e-50, 1e50
"""Variances and scales lie between: sixth powers of what is beyond leave the range of floats."""


def _is_real(value: Any) -> bool:
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


def count(field: str, value: Any, *, least: int = 1, most: int | None = None) -> int:
    """A whole number that a float holds, at least `least`, and at most `most`; as Python's own, whose products do not
    overflow as those of NumPy's small integers do."""
    if not isinstance(value, Integral) or not _is_real(value) or int(value) < least:
        raise InputError(field, value, f"must be a whole number, at least {least}")
    if most is not None and int(value) > most:
        raise InputError(field, value, f"must be at most {most:,}")
    return int(value)


def one_of(field: str, value: Any, known: Iterable[str]) -> None:
    """One of the names."""
    names = list(known)
    if not isinstance(value, str) or value not in names:
        raise InputError(field, value, f"allowed: {', '.join(names)}{nearest(str(value), names)}")


def variance(field: str, value: Any) -> float:
    """A finite number, not negative: 0, or in [LEAST, MOST]. As Python's own: NumPy's float32 makes all products so."""
    if not _is_real(value) or value < 0:
        raise InputError(field, value, "must be a finite number, at least 0")
    return positive(field, value) if value else 0.0


def positive(field: str, value: Any) -> float:
    """A finite number above 0, in [LEAST, MOST]; as Python's own."""
    if not _is_real(value) or value <= 0:
        raise InputError(field, value, "must be a finite number above 0")
    if not LEAST <= float(value) <= MOST:
        raise InputError(field, value, f"must be from {LEAST:g} to {MOST:g}, where powers of it stay finite")
    return float(value)


def between(field: str, value: Any, low: float, high: float, *, open_low: bool = False) -> float:
    """A finite number in [low, high], or in (low, high]; as Python's own."""
    if not _is_real(value) or not low <= float(value) <= high or (open_low and value == low):
        raise InputError(field, value, f"must be a number in {'(' if open_low else '['}{low:g}, {high:g}]")
    return float(value)


def share(field: str, value: Any) -> float:
    """A number in (0, 1], at least LEAST."""
    return positive(field, between(field, value, 0.0, 1.0, open_low=True))


def flag(field: str, value: Any) -> None:
    """True or False."""
    if not isinstance(value, bool):
        raise InputError(field, value, "must be true or false")


def writable(field: str, folder: str | Path) -> None:
    """A folder that can be written, or made."""
    try:
        there = Path(folder).resolve()
        while not there.exists():
            there = there.parent
        with TemporaryFile(dir=there):  # permissions alone do not tell: a file system may refuse anyone
            pass
    except (OSError, ValueError, RuntimeError):  # a name too long, with a null byte, a loop of links
        raise InputError(field, str(folder), "must be a folder that can be written") from None


def new_file(field: str, path: Path, endings: tuple[str, ...] = ()) -> None:
    """A file of one of the endings (any, if none is given), in a folder that is there and can be written."""
    if endings and path.suffix not in endings:
        raise InputError(field, str(path), f"must end in {', '.join(endings)}")
    if not path.resolve().parent.is_dir():
        raise InputError(field, str(path), "must be in a folder that exists")
    writable(field, path.resolve().parent)
