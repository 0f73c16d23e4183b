"""Figures as the page and the terminal write them: what is measured to its error, and what is held against it."""

from __future__ import annotations

import math


def number(value: float, digits: int = 4) -> str:
    """A number as the page writes it: rounded to digits, `undefined` where it is not finite."""
    if not math.isfinite(value):
        return "undefined"
    rounded = float(f"{value:.{digits}g}")
    plain = rounded == 0 or 1e-4 <= abs(rounded) < 1e9
    return (f"{rounded:,.12g}" if plain else f"{rounded:.{digits}g}").replace("-", "−")


def measured(value: float, se: float) -> str:
    """`0.9989 ± 0.0015`: to the second digit of the standard error."""
    if not math.isfinite(value) or not math.isfinite(se) or se <= 0:
        return f"{number(value, 6)} ± {number(se, 2)}"
    places = 1 - math.floor(math.log10(se))
    if 0 <= places <= 7 and abs(value) < 1e7:
        return f"{value:.{places}f} ± {se:.{places}f}".replace("-", "−")
    return f"{number(value, 6)} ± {number(se, 2)}"


def predicted(value: float, se: float) -> str:
    """A prediction to one digit more than the estimate beside it, so that rounding hides no deviation."""
    if not (math.isfinite(value) and math.isfinite(se)) or se <= 0:
        return number(value, 6)
    places = 2 - math.floor(math.log10(se))
    if not 0 <= places <= 8 or abs(value) >= 1e7:
        return number(value, 6)
    return number(round(value, places) + 0.0, 12)
