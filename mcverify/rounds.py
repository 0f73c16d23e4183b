"""Sampling until decision: rounds over the claims that are still open, each as large as the data say.

Every claim has a pilot that plans its sample; then it is looked at after shares of the planned sample, at the
planned size, and beyond it as far as the budget goes. A claim leaves as soon as it is decided: refuted at any
look; confirmed at any look too, but a claim of the mark exact or law only at its planned size, since it promises more
than its margin. The sizes depend on the pilots and the claims alone. A clock can end the run between two looks;
how far each claim got is then recorded, and the same looks can be replayed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mcverify.claims.claim import Claim, Mutant
from mcverify.claims.experiment import FloatArray, Run, Sample, Tally, Target, evidence, extend, target, width_cost
from mcverify.claims.plan import (
    DEAD_SHARE,
    PILOT,
    Budget,
    expected,
    largest_skewness,
    least_size,
    near_the_margin,
    plan,
    size_at,
)
from mcverify.statistics.evidence import Evidence, tested
from mcverify.statistics.watch import Watch, look


@dataclass
class Course:
    """A claim on its way to a verdict: its number in the run, what it says, the least sizes at which it is
    looked at, its tally, and what its last look saw: the evidence, the sizes, and how many networks were not finite or
    left out."""

    at: int
    claim: Claim
    target: Target
    least: dict[int, int]
    tally: Tally
    watch: Watch
    evidence: Evidence
    sizes: dict[int, int]
    nonfinite: int = 0
    left_out: int = 0
    decided: bool = False
    seconds: float = 0.0

    @property
    def untypical(self) -> bool:
        """Were so many networks left out that the others do not stand for them?"""
        return self.left_out > DEAD_SHARE * sum(self.sizes.values())

    @property
    def measured(self) -> bool:
        """Has it been looked at?"""
        return self.watch.looks > 0


@dataclass
class Group:
    """Claims that share their networks: the courses, the sample, its planned sizes and the least that any look takes,
    what a network of each width costs, the looks taken and their seconds."""

    courses: list[Course]
    sample: Sample
    planned: dict[int, int]
    least: dict[int, int]
    costs: dict[int, float]
    looks: int = 0
    seconds: float = 0.0

    @property
    def measured(self) -> bool:
        """Has every claim been looked at?"""
        return all(c.measured for c in self.courses)

    @property
    def open(self) -> list[Course]:
        """The courses that are not decided."""
        return [c for c in self.courses if not c.decided]

    def size_at(self, look: int) -> dict[int, int]:
        """The sizes at look 0, 1, …"""
        return size_at(self.planned, self.least, look)

    def work(self, sizes: dict[int, int]) -> float:
        """What so many networks of each width cost."""
        return sum(self.costs[w] * n for w, n in sizes.items())


@dataclass(frozen=True)
class Progress:
    """Claims `claims` of one sample are in a phase ("pilot", "main", "confirmation"), of which `share` is done."""

    claims: Sequence[int]
    phase: str
    share: float


Tell = Callable[[Progress], None]
Looked = Callable[[Course], None]


@dataclass(frozen=True)
class Rules:
    """What decides and what ends a run. claim_level: by which Holm's first step rejects; replay: the looks to
    take at each claim, whatever the clock says."""

    claim_level: float
    budget: Budget
    replay: Sequence[int] | None = None
    mutant: Mutant | None = None


def shared_samples(claims: Sequence[Claim]) -> list[list[int]]:
    """Which claims, by number, are measured together: neighbours of one sample name."""
    groups: list[list[int]] = []
    for at, claim in enumerate(claims):
        if groups and claim.sample and claims[groups[-1][0]].sample == claim.sample:
            groups[-1].append(at)
        else:
            groups.append([at])
    return groups


def prepare(claims: Sequence[Claim], numbers: Sequence[int], run: Run, rules: Rules, tell: Tell) -> Group:
    """A group from a pilot of the claims' own networks, so that a mutant is judged at its claim's budget. Claims of
    one sample take the largest of their plans."""
    together = [claims[at] for at in numbers]
    pilot = Sample(together, run, "pilot")
    met: dict[int, dict[str, list[FloatArray]]] = {w: {c.name: [] for c in together} for w in together[0].widths}
    pilot.collect = lambda claim, width, values: met[width][claim.name].append(values)
    extend(pilot, dict.fromkeys(together[0].widths, PILOT), _teller(tell, numbers, "pilot"))
    # Of all the pilot's networks together: chunks of a few dozen would look more skewed than they are.
    targets = [target(c) for c in together]
    near = [near_the_margin(c, t, tally) for c, t, tally in zip(together, targets, pilot.tallies, strict=True)]
    least = [
        {w: least_size(largest_skewness(np.concatenate(each[c.name]), n)) for w, each in met.items()}
        for c, n in zip(together, near, strict=True)
    ]
    plans = [
        plan(c, t, tally, own, rules.budget, len(numbers))
        for c, t, tally, own in zip(together, targets, pilot.tallies, least, strict=True)
    ]
    planned = {w: max(p[w] for p in plans) for w in together[0].widths}
    phase = "main" if rules.mutant is None else f"mutant {rules.mutant.name}/main"
    sample = Sample(together, run, phase, rules.mutant)
    courses = []
    for at, claim, t, own, before, tally in zip(
        numbers, together, targets, least, pilot.tallies, sample.tallies, strict=True
    ):
        e = expected(claim, t, before, planned)
        courses.append(Course(at, claim, t, own, tally, Watch(tested(e)[2], rules.claim_level, e.weights), e, {}))
    smallest = {w: min(own[w] for own in least) for w in planned}
    return Group(courses, sample, planned, smallest, {w: width_cost(together[0], w) for w in planned})


def advance(group: Group, rules: Rules, tell: Tell, looked: Looked) -> None:
    """One look: sample on, and judge the open claims, but those that ask for more networks."""
    began = time.perf_counter()
    numbers = [c.at for c in group.open]
    sizes = group.size_at(group.looks)
    extend(group.sample, sizes, _teller(tell, numbers, "main"))
    seconds = time.perf_counter() - began
    group.seconds += seconds
    group.looks += 1
    for c in group.open:
        c.seconds += seconds / len(numbers)
        if any(sizes[w] < n for w, n in c.least.items()):
            continue
        c.evidence = evidence(c.claim, c.target, c.tally, weights=c.watch.weights)
        c.watch = look(c.watch, c.evidence, planned=sizes == group.planned)
        c.sizes = dict(group.sample.sizes)
        c.nonfinite, c.left_out = c.tally.nonfinite, c.tally.left_out
        c.decided = _decided(c, rules, spent=all(n >= group.planned[w] for w, n in sizes.items()))
        looked(c)
    group.sample.closed = {i for i, c in enumerate(group.courses) if c.decided}


def _decided(c: Course, rules: Rules, *, spent: bool) -> bool:
    """spent: is the planned sample?"""
    if c.nonfinite or c.untypical or not c.evidence.finite:
        return True  # more networks would not help
    if c.watch.p <= rules.claim_level:
        return True
    early = c.claim.mark not in ("exact", "law")
    return bool(c.watch.confirmed) and (early or spent)


def run_rounds(groups: Sequence[Group], rules: Rules, tell: Tell, looked: Looked, deadline: float | None) -> bool:
    """After the first looks, look in turns until every claim is decided or its budget is spent. Returns whether the
    clock cut the run."""
    waiting, cut = list(groups), False
    while waiting:
        for group in list(waiting):
            if not _goes_on(group, rules):
                waiting.remove(group)
            elif deadline is None or rules.replay is not None or not group.measured or _fits(group, deadline):
                advance(group, rules, tell, looked)
            else:
                waiting.remove(group)
                cut = True
    return cut


def _fits(group: Group, deadline: float) -> bool:
    """Will the next look end before the deadline, by what the work so far took?"""
    done, then = group.work(group.sample.sizes), group.work(group.size_at(group.looks))
    return time.monotonic() + group.seconds * (then - done) / done < deadline


def _goes_on(group: Group, rules: Rules) -> bool:
    """Is a claim open, and does the budget pay for the next look?"""
    if not group.open:
        return False
    if rules.replay is not None:
        return group.looks < rules.replay[group.courses[0].at]
    sizes = group.size_at(group.looks)
    if all(n <= group.planned[w] for w, n in sizes.items()):
        return True
    budget = rules.budget
    if budget.samples is not None and sum(sizes.values()) > budget.samples:
        return False
    if budget.seconds is not None:
        return True
    return group.work(sizes) <= budget.work * len(group.courses)


def repeat(c: Course, run: Run, rules: Rules, tell: Tell) -> Evidence:
    """The claim measured again with fresh addresses, on as many networks."""
    phase = "confirmation" if rules.mutant is None else f"mutant {rules.mutant.name}/confirmation"
    again = Sample([c.claim], run, phase, rules.mutant)
    extend(again, c.sizes, _teller(tell, [c.at], "confirmation"))
    return evidence(c.claim, c.target, again.tallies[0], weights=c.watch.weights)


def _teller(tell: Tell, numbers: Sequence[int], phase: str) -> Callable[[int, int], None]:
    return lambda done, total: tell(Progress(numbers, phase, done / total))
