"""A row of the calibration suite: what is measured, how often, and which figures it must reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv, ndtri

FloatArray = np.ndarray
Measure = Callable[[np.random.Generator, int], Mapping[str, FloatArray]]

CONFIDENCE = 0.999  # of both limits together
STATISTICS = tuple(f"mcverify/statistics/{n}.py" for n in ("evidence", "ladder", "multiplicity", "sequential", "watch"))
LAWS = tuple(f"mcverify/statistics/{n}.py" for n in ("evidence", "laws", "two_sample"))


@dataclass(frozen=True)
class Figure:
    """A mean over n runs, of zeros and ones or of numbers: their sum and sum of squares."""

    n: int
    total: float
    squares: float

    @property
    def value(self) -> float:
        return self.total / self.n

    @property
    def limits(self) -> tuple[float, float]:
        """Clopper–Pearson limits (1934) of a share; of other means, normal ones."""
        tail = (1 - CONFIDENCE) / 2
        if self.total == self.squares:
            hits, n = self.total, self.n
            low = betaincinv(hits, n - hits + 1, tail) if hits else 0.0
            high = betaincinv(hits + 1, n - hits, 1 - tail) if hits < n else 1.0
            return float(low), float(high)
        sd = np.sqrt(max(0.0, self.squares / self.n - self.value**2))
        reach = float(ndtri(1 - tail) * sd / np.sqrt(self.n))
        return self.value - reach, self.value + reach


@dataclass(frozen=True)
class Target:
    """What a figure must reach, in words and as a test."""

    text: str
    met: Callable[[Figure], bool]


@dataclass(frozen=True)
class Row:
    """name: by which it is asked for. of: its line in the table of promises. says: what is measured.

    measure(rng, runs) -> for each figure the outcome of every run, (runs,). targets: by figure. runs: how many;
    batch: how many at a time. covers: the sources, as globs from the repository's root, that the figures depend on;
    module: the file of the row itself. seconds: of one core, about, for all runs. outside: the decision is made wrong
    on purpose, and every figure must miss its target. alone: it uses all cores itself."""

    name: str
    of: str
    says: str
    runs: int
    batch: int
    measure: Measure
    targets: Mapping[str, Target]
    module: str
    covers: tuple[str, ...] = STATISTICS
    seconds: float = 1.0
    outside: bool = False
    alone: bool = False

    def holds(self, figure: str, measured: Figure) -> bool:
        """Is a figure where it must be?"""
        return self.targets[figure].met(measured) != self.outside


def add_up(outcomes: Mapping[str, FloatArray]) -> dict[str, Figure]:
    """Figures from the outcomes of runs; NaN stands for a run that has none."""
    out = {}
    for name, values in outcomes.items():
        x = np.asarray(values, dtype=np.float64)
        x = x[~np.isnan(x)]
        out[name] = Figure(len(x), float(x.sum()), float((x**2).sum()))
    return out


def merged(a: Figure, b: Figure) -> Figure:
    return Figure(a.n + b.n, a.total + b.total, a.squares + b.squares)


# ---- targets ------------------------------------------------------------------------------------------


def level(alpha: float = 0.01, most: float = 0.013, *, exact: bool = False) -> Target:
    """False refutations at alpha: at most `most`, and some; of an exact test, no more than alpha."""
    text = f"{alpha:g}: upper limit ≤ {most:g}, lower limit > 0" + (f" and ≤ {alpha:g}" if exact else "")

    def met(f: Figure) -> bool:
        low, high = f.limits
        return high <= most and low > 0 and (low <= alpha or not exact)

    return Target(text, met)


def at_most_hits(hits: int, runs: int) -> Target:
    """No more than so many hits; of more or fewer runs, in proportion."""
    return Target(f"≤ {hits} of {runs:,}", lambda f: f.total <= hits * f.n / runs)


def at_most(most: float) -> Target:
    return Target(f"≤ {most:g}", lambda f: f.value <= most)


def surely_at_most(most: float) -> Target:
    return Target(f"upper limit ≤ {most:g}", lambda f: f.limits[1] <= most)


def at_least(least: float) -> Target:
    """Shown to be at least so much."""
    return Target(f"lower limit ≥ {least:g}", lambda f: f.limits[0] >= least)


def not_below(least: float) -> Target:
    """Not shown to be below what is promised exactly, and that to a tenth of the misses allowed."""
    slack = 1.1 * (1 - least)
    text = f"≥ {least:g} (upper limit ≥ {least:g}, lower limit ≥ {1 - slack:g})"
    return Target(text, lambda f: f.limits[1] >= least and f.limits[0] >= 1 - slack)


def margin(rate: float = 1e-3, most: float = 2e-3) -> Target:
    """Truths at the margin that are confirmed: at most `rate`, as far as the runs can tell, and surely not `most`."""
    text = f"≤ {rate:.1%} (lower limit ≤ {rate:.1%}, upper limit ≤ {most:.1%})"
    return Target(text, lambda f: f.limits[0] <= rate and f.limits[1] <= most)


ALPHA, TAIL = 0.01, 1e-4  # of false refutations, and in the tail
MILLION = 1_000_000


def both(name: str, p: Callable[[float], FloatArray] | FloatArray) -> dict[str, FloatArray]:
    """Hits of a p-value at both levels; one that is tuned to its level is a function of it."""
    at = p if callable(p) else lambda _: p
    return {f"{name}, {ALPHA:g}": at(ALPHA) <= ALPHA, f"{name}, {TAIL:g}": at(TAIL) <= TAIL}


def targets(*names: str, exact: bool = False) -> dict[str, Target]:
    out = {}
    for name in names:
        out |= {f"{name}, {ALPHA:g}": level(ALPHA, exact=exact), f"{name}, {TAIL:g}": at_most_hits(129, MILLION)}
    return out


REPORTED = Target("reported beside", lambda f: True)
ALL = Target("all", lambda f: f.total == f.n)
NONE = Target("none", lambda f: f.total == 0)
