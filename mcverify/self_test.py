"""The claims turned on themselves: every planted error must be refuted, every equivalent simulation confirmed, and the
smallest error that a claim catches is found by bisection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mcverify.claims.claim import Claim, Mutant, Verdict
from mcverify.claims.experiment import width_cost
from mcverify.claims.plan import Budget
from mcverify.levels import ALPHA
from mcverify.verdict import Report, Result
from mcverify.verification import Event, Listener, run_claims

_LARGEST = 1.0  # relative size of a planted gain at which the search starts
_SMALLEST = 1e-4  # and below which it ends
_DEAREST = 8.0  # times the claim's own engine: beyond it the other one is not tried
_STEPS = 5  # of bisection, in logarithms, after the decade is found


@dataclass(frozen=True)
class Trial:
    """One changed simulation of a claim: what was changed, whether that plants an error, the verdict it must get, and
    its result."""

    name: str
    planted: bool
    expected: Verdict
    result: Result

    @property
    def passed(self) -> bool:
        return self.result.verdict == self.expected


@dataclass(frozen=True)
class Sensitivity:
    """The smallest relative error `of` σ_w², or what else the claim's knob turns, on the simulated side that a claim
    catches: `caught` was refuted, and half a step below it, `missed`, was not. caught is None: no size up to 100% was;
    missed is None: every size was."""

    claim: str
    of: str
    caught: float | None
    missed: float | None


def _other_engine(claim: Claim) -> str:
    return "conditional" if claim.engine == "explicit" else "explicit"


def too_dear(claim: Claim) -> bool:
    """Whether the other engine works more than eight times as much as the claim's own."""
    own, other = (
        sum(width_cost(c, w) for w in claim.widths) for c in (claim, replace(claim, engine=_other_engine(claim)))
    )
    return other > _DEAREST * own


def neighbours(claim: Claim) -> tuple[Mutant, ...]:
    """Equivalent simulations: the claim's own, and the other engine, which samples the same law another way, where it
    is not too dear."""
    other = _other_engine(claim)
    return (*claim.neighbours, *([] if too_dear(claim) else [Mutant(f"the {other} engine", engine=other)]))


def count(claims: Sequence[Claim]) -> int:
    """How many trials the claims have."""
    return sum(len(c.mutants) + len(neighbours(c)) for c in claims)


def self_test(
    claims: Sequence[Claim], *, seed: int = 0, budget: Budget = Budget(), backend: str = "auto",  # noqa: B008
    threads: int | None = None, listener: Listener | None = None,
) -> list[Trial]:  # fmt: skip
    """Every mutant and neighbour of every claim, at the claim's own budget and level: mutants must be refuted, and
    neighbours get the verdict that the claim itself gets.

    An interrupt ends it with the trials judged so far."""
    out: list[Trial] = []
    for claim in claims:
        own: Verdict | None = None
        for mutant in (*claim.mutants, None, *neighbours(claim)):
            name = f"{claim.name}: {'as it is' if mutant is None else mutant.name}"
            tell = _renamed(listener, len(out), count(claims), name)
            report = _run(claim, mutant, len(claims), seed, budget, backend, threads, tell)
            if report.interrupted or not report.results:
                return out
            (result,) = report.results
            if mutant is None:
                own = result.verdict
            else:
                out.append(Trial(mutant.name, own is None, own or "refuted", result))
    return out


def sensitivities(
    claims: Sequence[Claim], *, seed: int = 0, budget: Budget = Budget(), backend: str = "auto",  # noqa: B008
    threads: int | None = None, listener: Listener | None = None,
) -> list[Sensitivity]:  # fmt: skip
    """For each claim with a knob, by bisection of the planted error's size. One seed decides each step, so that the
    size found is a draw whose median is that of 50% power.

    An interrupt ends it with the claims done so far."""
    chosen = [c for c in claims if c.knob is not None]
    out: list[Sensitivity] = []
    for at, claim in enumerate(chosen):
        tell = _renamed(listener, at, len(chosen), f"{claim.name}: smallest error")

        def caught(size: float, claim: Claim = claim, tell: Listener | None = tell) -> bool:
            assert claim.knob is not None
            mutant = Mutant("smallest error", claim.knob(1 + size))  # one name: every size has the same draws
            report = _run(claim, mutant, len(claims), seed, budget, backend, threads, tell)
            if report.interrupted or not report.results:
                raise KeyboardInterrupt
            return report.results[0].verdict == "refuted"

        try:
            out.append(_bisected(claim, caught))
        except KeyboardInterrupt:
            break
    return out


def _bisected(claim: Claim, caught: Callable[[float], bool]) -> Sensitivity:
    high = _LARGEST
    if not caught(high):
        return Sensitivity(claim.name, claim.knob_of, None, high)
    low = high / 10
    while caught(low):
        high, low = low, low / 10
        if low < _SMALLEST:
            return Sensitivity(claim.name, claim.knob_of, high, None)
    for _ in range(_STEPS):
        middle = float(np.sqrt(low * high))
        high, low = (middle, low) if caught(middle) else (high, middle)
    return Sensitivity(claim.name, claim.knob_of, high, low)


def _run(
    claim: Claim, mutant: Mutant | None, claims: int, seed: int, budget: Budget, backend: str, threads: int | None,
    listener: Listener | None,
) -> Report:  # fmt: skip
    return run_claims(
        [claim], seed=seed, alpha=ALPHA / claims, budget=budget, backend=backend, threads=threads, mutant=mutant,
        listener=listener,
    )  # fmt: skip


def _renamed(listener: Listener | None, at: int, total: int, name: str) -> Listener | None:
    """The listener, told of trials instead of claims."""
    if listener is None:
        return None

    def tell(event: Event) -> None:
        listener(replace(event, at=at, claims=total, name=name, run=(at + event.run) / total, so_far=None))

    return tell
