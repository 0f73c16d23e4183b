"""The one error that bad input raises: a single line naming the field, its value and what is allowed."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any


class InputError(ValueError):
    """Unusable input. Reads `FIELD: got VALUE; ALLOWED`, on one line; the command line exits 2 with it."""

    def __init__(self, field: str, value: Any, allowed: str) -> None:
        self.field = field
        self.value = value
        self.allowed = allowed
        shown = " ".join(repr(value).split())
        super().__init__(f"{field}: got {shown if len(shown) <= 80 else shown[:77] + '...'}; {allowed}")


class Unpredictable(ValueError):
    """A layer met a state that its theory cannot treat; the message says which, why, and what to do."""


def nearest(word: str, known: list[str]) -> str:
    """` (did you mean 'x'?)` for the known word closest to `word`, or nothing when none is close."""
    close = get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
