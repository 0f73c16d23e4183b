"""Checks of single numbers, raised as one-line errors before any work starts."""

from __future__ import annotations

import math
from numbers import Integral, Real
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from mcverify.errors import InputError


def _is_real(value: Any) -> bool:
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


def count(field: str, value: Any, *, least: int = 1) -> None:
    """A whole number, at least `least`."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise InputError(field, value, f"must be a whole number, at least {least}")


def variance(field: str, value: Any) -> None:
    """A finite number, not negative."""
    if not _is_real(value) or value < 0:
        raise InputError(field, value, "must be a finite number, at least 0")


def positive(field: str, value: Any) -> None:
    """A finite number above 0."""
    if not _is_real(value) or value <= 0:
        raise InputError(field, value, "must be a finite number above 0")


def between(field: str, value: Any, low: float, high: float, *, open_low: bool = False) -> None:
    """A finite number in [low, high], or in (low, high]."""
    if not _is_real(value) or value > high or value < low or (open_low and value == low):
        raise InputError(field, value, f"must be a number in {'(' if open_low else '['}{low:g}, {high:g}]")


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
