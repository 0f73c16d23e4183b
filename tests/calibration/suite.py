"""The catalogue as a whole: its decision layer on null data, real runs with fresh seeds, and the planted errors."""

from __future__ import annotations

import numpy as np

from mcverify import self_test, verification
from mcverify.claims.catalogue import catalogue, select
from mcverify.claims.claim import Claim
from mcverify.claims.experiment import target
from mcverify.levels import ALPHA
from mcverify.statistics import ladder
from mcverify.statistics.evidence import Evidence, p_value
from mcverify.statistics.multiplicity import holm
from mcverify.statistics.watch import Watch, look

from . import samplers
from .rows import ALL, NONE, REPORTED, STATISTICS, FloatArray, Row, at_most_hits
from .samplers import LEAST, SHARES, Rng

DECISIONS = (*STATISTICS, *(f"mcverify/{n}.py" for n in ("levels", "rounds", "verification", "claims/*")))
SPREAD = 6.0  # a margin in standard errors at the planned size, about as plans have it
COMMON = 0.5  # correlation between components


def _covariance(se: FloatArray) -> FloatArray:
    """(…, k, k) of components with errors se (…, k) that correlate by COMMON."""
    k = se.shape[-1]
    return se[..., :, None] * se[..., None, :] * (COMMON + (1 - COMMON) * np.eye(k))


class _NullClaim:
    """A claim's evidence where it is true, look by look: its shape, prediction, remainder and margin are its own, its
    estimates Gaussian, their errors estimated from LEAST networks or more.

    Its truth is the prediction, or at the margin where the margin is what it claims; a ladder has corrections that grow
    as it says, up to the order that it leaves out."""

    def __init__(self, claim: Claim) -> None:
        self.claim, self.said = claim, target(claim)
        self.widths = np.array(claim.widths, dtype=np.float64)
        self.ladder = claim.test == "ladder"
        # A prediction of zero has a margin of its own unit; none is zero.
        self.se = self.said.margin / SPREAD
        self.rungs = self.se[None] * self._rungs()[:, None] if self.ladder else self.se[None]

    def _rungs(self) -> FloatArray:
        """Errors of the rungs for an intercept's of one."""
        share = ladder.allocation(self.widths, np.ones(len(self.widths)), self.widths**2, self.claim.order)
        se = 1 / np.sqrt(share)
        nothing = np.zeros((len(se), 1))
        return se / ladder.fit(self.widths, nothing, (se**2)[:, None, None], self.claim.order).se[0]

    def _truth(self) -> FloatArray:
        """(rung, k)."""
        middle = self.said.prediction + (self.said.margin if self.claim.test == "within" else 0.0)
        if not self.ladder:
            return middle[None]
        # c₁/N is three margins at the narrowest rung, as if width mattered there.
        first = 3 * self.said.margin * self.widths[0]
        powers = range(self.claim.order + 1)
        return middle + sum(first * self.said.growth**j / self.widths[:, None] ** (j + 1) for j in powers)

    def looks(self, rng: Rng, runs: int) -> list[Evidence]:
        """Evidence (run, k) at each look."""
        root = np.linalg.cholesky(_covariance(np.ones(len(self.se))))
        total, before, out = 0.0, 0.0, []
        for share in SHARES:
            noise = rng.standard_normal((runs, *self.rungs.shape)) @ root.T
            total = total + np.sqrt(share - before) * self.rungs * noise
            before = share
            n = int(LEAST * share / SHARES[0])
            guess = samplers.guessed(rng, self.rungs / np.sqrt(share), n, (runs, *self.rungs.shape))
            out.append(self._evidence(self._truth() + total / share, _covariance(guess), n))
        return out

    def _evidence(self, y: FloatArray, covariance: FloatArray, n: int) -> Evidence:
        """As claims/experiment.py makes it."""
        said, fits, bias, lack = self.said, 0, None, 1.0
        value, spread = y[:, 0], covariance[:, 0]
        if self.ladder:
            fitted = ladder.fit(self.widths, y, covariance, self.claim.order)
            value, spread, lack, fits = fitted.intercept, fitted.covariance, fitted.lack_of_fit, 1
            bias = ladder.bias(fitted, self.widths, said.growth, self.claim.order)
        return Evidence(
            value, np.sqrt(np.diagonal(spread, axis1=-2, axis2=-1)), said.prediction, said.remainder, said.margin, n,
            lack, one_sided=self.claim.one_sided, within=self.claim.test == "within", fits=fits, bias=bias,
            covariance=spread, weights=1 / self.se**2,
        )  # fmt: skip


def p_values(rng: Rng, runs: int, claims: list[Claim]) -> tuple[FloatArray, FloatArray]:
    """(claim, run) p-values of all claims as watched to the last look, and at the planned size alone."""
    watched, fixed, planned = [], [], SHARES.index(1.0)
    for claim in claims:
        null = _NullClaim(claim)
        looks = null.looks(rng, runs)
        weights = looks[0].weights
        w = weights / weights.sum()
        se = np.append(null.se, np.sqrt(w @ _covariance(null.se) @ w)) if looks[0].pooled else null.se
        watch = Watch(se, ALPHA / len(claims), weights)
        for at, e in enumerate(looks):
            watch = look(watch, e, planned=at == planned)
        watched.append(watch.p)
        fixed.append(p_value(looks[planned]))
    return np.array(watched), np.array(fixed)


def null_suite(rng: Rng, runs: int):
    """Is any claim of the catalogue red, before confirmation? Claims are looked at to the end, decided or not."""
    claims = [c for c in catalogue() if c.expected == "confirmed"]
    return {
        f"red, {name}": np.array([np.nanmin(holm(column)) <= ALPHA for column in p.T])
        for name, p in zip(("watch", "fixed"), p_values(rng, runs, claims), strict=True)
    }


def real_runs(*patterns: str):
    """Whole runs of the catalogue with fresh seeds: is anything red that should not be, or not as expected?"""

    def measure(rng: Rng, runs: int):
        red, other = [], []
        for _ in range(runs):
            report = verification.verify(patterns, rng=int(rng.integers(2**32)))
            red.append(any(r.verdict == "refuted" != r.expected for r in report.results))
            other.append(report.exit_code != 0)
        return {"red": np.array(red), "exit code other than 0": np.array(other)}

    return measure


def trials(*patterns: str):
    """Every planted error and every equivalent simulation, each at its claim's own budget."""

    def measure(rng: Rng, runs: int):
        done = [t for _ in range(runs) for t in self_test.self_test(select(patterns), seed=int(rng.integers(2**32)))]
        return {
            "mutants refuted": np.array([t.passed for t in done if t.planted]),
            "neighbours confirmed": np.array([t.passed for t in done if not t.planted]),
        }

    return measure


RED = at_most_hits(8, 3000)
REAL_RUNS = 6  # each takes most of a minute; suite/null has the thousands
ROWS = [
    Row("suite/null", "whole suite", "the catalogue's decision layer, each claim's data from a null sampler of its "
        "shape; red at α = 1e-3 before confirmation", 3000, 500, null_suite, {"red, watch": RED, "red, fixed": RED},
        "suite.py", DECISIONS, seconds=2),
    Row("suite/real", "whole suite", "real runs of the catalogue with fresh seeds, after confirmation", REAL_RUNS, 1,
        real_runs(),
        {"red": NONE, "exit code other than 0": REPORTED}, "suite.py", DECISIONS, seconds=1200, alone=True),
    Row("suite/mutants", "mutants", "the self-test of the catalogue with a fresh seed", 1, 1, trials(),
        {"mutants refuted": ALL, "neighbours confirmed": ALL}, "suite.py", (*DECISIONS, "mcverify/self_test.py"),
        seconds=400, alone=True),
]  # fmt: skip
