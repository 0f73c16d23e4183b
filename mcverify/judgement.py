"""Verdicts on samples of fixed size: what has been measured already, and cannot be measured again.

Holm over all statements at once; no confirmation with fresh draws, since there are none. The chance that a
call refutes anything true is therefore alpha itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mcverify.claims.claim import Mark, Verdict
from mcverify.levels import ALPHA
from mcverify.statistics.evidence import Evidence, confirms, interval, mde, p_value, samples_needed
from mcverify.statistics.multiplicity import holm
from mcverify.verdict import Result


@dataclass(frozen=True)
class Statement:
    """What is said of the data, with the evidence: estimates of its components (k,), named by labels.

    nonfinite: how many samples had a value that is not finite; they leave the statement undecided."""

    name: str
    statement: str
    source: str
    mark: Mark
    labels: Sequence[str]
    evidence: Evidence
    margin_reason: str
    rival_name: str = ""
    rival: Sequence[float] = field(default_factory=tuple)
    nonfinite: int = 0


def judge(statements: Sequence[Statement], alpha: float = ALPHA, what: str = "") -> list[Result]:
    """A result for each statement. what: the thing that was sampled, in words.

    Guarantee: if all statements are true, the chance that any is refuted is at most alpha (Holm 1979); a
    statement whose truth lies beyond its margin is confirmed with probability at most 1e-3."""
    p = np.array([np.nan if s.nonfinite else p_value(s.evidence) for s in statements])
    adjusted = holm(p)
    return [_result(s, float(a), alpha, len(statements), what) for s, a in zip(statements, adjusted, strict=True)]


def _result(s: Statement, adjusted: float, alpha: float, statements: int, what: str) -> Result:
    e = s.evidence
    verdict, message = _verdict(s, adjusted, alpha)
    return Result(
        name=s.name, verdict=verdict, expected="confirmed", statement=s.statement, source=s.source, mark=s.mark,
        labels=list(s.labels), estimate=e.estimate.tolist(), se=e.se.tolist(), interval=interval(e).tolist(),
        prediction=e.prediction.tolist(), margin=e.margin.tolist(), remainder=e.remainder.tolist(),
        mde=mde(e, alpha / statements).tolist(), rival_name=s.rival_name, rival=list(s.rival),
        margin_reason=s.margin_reason, p=p_value(e), p_adjusted=adjusted, p_confirmation=None,
        lack_of_fit=e.lack_of_fit, samples={0: e.samples}, samples_for_margin=samples_needed(e), network=what,
        message=message, seconds=0.0, one_sided=e.one_sided,
    )  # fmt: skip


def _verdict(s: Statement, adjusted: float, alpha: float) -> tuple[Verdict, str]:
    """The verdict and its reason; refuted is asked first."""
    e = s.evidence
    if s.nonfinite:
        return "undecided", f"{s.nonfinite} samples are not finite, so no mean exists"
    if not e.finite:
        return "undecided", "a statistic has zero or undefined variance, so it cannot be tested"
    if adjusted <= alpha:
        return "refuted", "agreement within what theory promises is excluded"
    if confirms(e):
        return "confirmed", "every deviation beyond the margin is excluded"
    needed = samples_needed(e)
    if needed < 0:
        return "undecided", "the prediction's own remainder exceeds the margin: no sample decides"
    if needed <= e.samples:
        return "undecided", f"neither side of the margin could be excluded with {e.samples:,} samples"
    return "undecided", f"a decision needs about {needed:,} samples instead of {e.samples:,}"
