"""Claims to verdicts: one error budget for the run, sampling until decision, and confirmation of a refutation.

Each claim runs in phases with streams of their own: a pilot plans; the main run is looked at in rounds until
the claim is decided; a refutation must be reproduced with fresh addresses, or it is told as undecided.
Which verdict, and what it promises: docs/verdicts.md.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mcverify import results
from mcverify.claims import experiment
from mcverify.claims.catalogue import select
from mcverify.claims.claim import Claim, Mutant, Verdict
from mcverify.claims.experiment import Run
from mcverify.claims.generic import generic_claims
from mcverify.claims.plan import Budget, parse_budget
from mcverify.departure import departure
from mcverify.errors import InputError
from mcverify.inputs import checked, default_inputs
from mcverify.kernels.backends import backend as find_backend
from mcverify.levels import ALPHA, CONFIRMATION_ALPHA
from mcverify.network import Network, describe
from mcverify.network_file import DEFAULT_MARGIN
from mcverify.network_file import read as read_network
from mcverify.rounds import Course, Group, Progress, Rules, advance, prepare, repeat, run_rounds, shared_samples
from mcverify.simulation.simulate import Seed, seed_of
from mcverify.statistics.evidence import CONFIRM_LEVEL, p_value, samples_needed, tested
from mcverify.statistics.multiplicity import holm
from mcverify.statistics.watch import watch_interval, watch_mde
from mcverify.validate import between, count, positive
from mcverify.verdict import Report, Result

_FIRST_LOOKS = 0.4  # of a run's time, about, goes into pilots and first looks


@dataclass(frozen=True)
class Event:
    """Claim `at` of `claims` is in a phase ("pilot", "main", "confirmation"), of which `share` is done, and `run` of
    the whole run. When it is decided, or at its end, `so_far` is its result, with its p-value times the number of
    claims for Holm's."""

    at: int
    claims: int
    name: str
    phase: str
    share: float
    run: float
    so_far: Result | None = None


Listener = Callable[[Event], None]


@dataclass
class _Watcher:
    """Turns the rounds' progress into events for a listener."""

    claims: Sequence[Claim]
    alpha: float
    listener: Listener | None
    groups: list[Group] = field(default_factory=list)
    samples: int = 1

    def done(self) -> float:
        """The share of the run that is done, by work."""
        if len(self.groups) < self.samples:
            return _FIRST_LOOKS * len(self.groups) / self.samples
        planned = [g.work(g.planned) for g in self.groups]
        spent = [p if not g.open else min(p, g.work(g.sample.sizes)) for p, g in zip(planned, self.groups, strict=True)]
        return _FIRST_LOOKS + (1 - _FIRST_LOOKS) * sum(spent) / sum(planned)

    def progress(self, p: Progress) -> None:
        self._tell(p.claims[0], p.phase, p.share, None)

    def looked(self, c: Course) -> None:
        if c.decided:
            self.ended(c)

    def ended(self, c: Course) -> None:
        claims = len(self.claims)
        self._tell(c.at, "main", 1.0, _result(c, min(1.0, c.watch.p * claims), None, self.alpha, claims))

    def _tell(self, at: int, phase: str, share: float, so_far: Result | None) -> None:
        if self.listener is not None:
            name = self.claims[at].name
            self.listener(Event(at, len(self.claims), name, phase, share, self.done(), so_far))


def run_claims(
    claims: Sequence[Claim],
    *,
    seed: int = 0,
    alpha: float = ALPHA,
    budget: Budget = Budget(),  # noqa: B008, it is frozen
    backend: str = "auto",
    threads: int | None = None,
    mutant: Mutant | None = None,
    looks: Sequence[int] | None = None,
    listener: Listener | None = None,
) -> Report:
    """Verdicts on claims, in their order.

    alpha: the chance of any false refutation in the whole run before confirmation (Holm over the claims);
    mutant: applied to the simulated networks of every claim; looks: how many an earlier run took at each claim, to be
    taken again whatever the clock says. An interrupt (Ctrl-C) ends the run with the claims measured so far.
    """
    began = time.monotonic()
    rules = Rules(alpha / max(1, len(claims)), budget, looks, mutant)
    run = Run(seed, backend, threads)
    watcher = _Watcher(claims, alpha, listener)
    numbers = shared_samples(claims)
    watcher.samples, groups = len(numbers), watcher.groups
    deadline = None if budget.seconds is None else began + budget.seconds
    interrupted = cut = False
    again: dict[int, float] = {}
    try:
        for together in numbers:
            groups.append(prepare(claims, together, run, rules, watcher.progress))
            advance(groups[-1], rules, watcher.progress, watcher.looked)
        cut = run_rounds(groups, rules, watcher.progress, watcher.looked, deadline)
        for c in _courses(groups):
            if not c.decided:
                watcher.ended(c)
        adjusted = _adjusted(groups, len(claims))
        refuted = [c for c, p in zip(_courses(groups), adjusted, strict=True) if p <= alpha]
        for c in refuted:
            again[c.at] = min(1.0, len(refuted) * p_value(repeat(c, run, rules, watcher.progress)))
    except KeyboardInterrupt:
        interrupted = True
    courses, adjusted = _courses(groups), _adjusted(groups, len(claims))
    facts = results.provenance(
        kind="verification", seed=str(seed), alpha=alpha, backend=find_backend(backend)[0], dtype=experiment.DTYPE,
        budget=str(budget), cut_by_clock=cut, claims=" ".join(c.name for c in claims),
        looks=str([g.looks for g in groups for _ in g.courses]),
    )  # fmt: skip
    done = [
        _result(c, float(p), again.get(c.at), alpha, len(claims), cut=cut)
        for c, p in zip(courses, adjusted, strict=True)
    ]
    return Report(done, alpha, seed, facts, interrupted=interrupted)


def _courses(groups: Sequence[Group]) -> list[Course]:
    """Those that were looked at."""
    return [c for g in groups for c in g.courses if c.measured]


def _adjusted(groups: Sequence[Group], claims: int) -> NDArray[np.float64]:
    """Holm's p-values over all the run's claims; those not reached count as if they agreed."""
    p = [c.watch.p if c.evidence.finite and not c.nonfinite and not c.untypical else np.nan for c in _courses(groups)]
    return holm(np.array(p + [1.0] * (claims - len(p))))[: len(p)]


def verify(
    what: Network | str | Sequence[str] = (),
    x: ArrayLike | None = None,
    *,
    margin: float | None = None,
    margin_in_all: float | None = None,
    rng: Seed = 0,
    alpha: float = ALPHA,
    budget: Budget | float | str | None = None,
    backend: str = "auto",
    threads: int | None = None,
    looks: Sequence[int] | None = None,
    listener: Listener | None = None,
) -> Report:
    """Verify a network with inputs x (input, n_0), a network file (a path that ends in .toml), or the claims of
    the catalogue that match a pattern.

    margin: in per-layer gain, for a network; by default the file's, or 0.005. margin_in_all: in the logarithm of the
    gain from the first layer to the last, by default the file's; without one nothing is claimed about it. rng: a seed,
    following SPEC 7. alpha: the chance of any false refutation in the whole run, before confirmation. budget: seconds
    for the run, or as on the command line ("90s", or "20000" networks for each claim); by default 4e9 generated weights
    per claim, so that nothing depends on a clock. looks: for each claim how many looks to take, from the provenance of
    a report whose run was cut by the clock: it is repeated to the bit.
    Without x a network gets two inputs of unit length and correlation ½.
    Raises InputError before any work starts.
    """
    seed = seed_of(rng)
    between("alpha", alpha, 0.0, 0.5, open_low=True)
    spend = checked_budget(budget)
    find_backend(backend)
    if threads is not None:
        count("threads", threads)
    if isinstance(what, str) and what.endswith(".toml"):
        given = read_network(what)
        what, x, margin = given.net, given.x if x is None else x, given.margin if margin is None else margin
        margin_in_all = given.margin_in_all if margin_in_all is None else margin_in_all
    margin = DEFAULT_MARGIN if margin is None else margin
    if isinstance(what, Network):
        between("margin", margin, 0.0, 1.0, open_low=True)
        if margin_in_all is not None:
            positive("margin_in_all", margin_in_all)
        points = default_inputs(what.input_shape) if x is None else checked(x, what.input_shape)
        claims = generic_claims(what, points, margin, spend.work, margin_in_all)
    elif not isinstance(what, str | Sequence) or not all(isinstance(w, str) for w in what):
        raise InputError("what", what, "must be a Network, a claim pattern, or a list of patterns")
    elif x is not None:
        raise InputError("x", "an array", "goes with a network; the catalogue's claims have inputs of their own")
    else:
        claims = select([what] if isinstance(what, str) else what)
    if looks is not None:
        if not isinstance(looks, Sequence) or isinstance(looks, str) or len(looks) != len(claims):
            raise InputError("looks", looks, f"must hold one number for each of the {len(claims)} claims")
        for number in looks:
            count("looks", number)
    report = run_claims(
        claims, seed=seed, alpha=alpha, budget=spend, backend=backend, threads=threads, looks=looks, listener=listener
    )
    if not isinstance(what, Network):
        return report
    flat = points.reshape(len(points), -1)
    gram = np.round(flat @ flat.T / flat.shape[1], 6)
    facts = report.provenance | {"margin": margin, "network": describe(what), "inputs_gram": str(gram.tolist())}
    if margin_in_all is not None:
        facts["margin_in_all"] = margin_in_all
    return replace(report, sentence=departure(report, margin), provenance=facts)


def checked_budget(budget: Budget | float | str | None) -> Budget:
    """A number is seconds, a text as on the command line. Raises InputError for what is not positive."""
    if isinstance(budget, str):
        return parse_budget(budget)
    if isinstance(budget, Budget):
        for name, fits in (("work", positive), ("samples", count), ("seconds", positive)):
            if getattr(budget, name) is not None:
                fits(f"budget.{name}", getattr(budget, name))
        return budget
    if budget is None:
        return Budget()
    positive("budget", budget)
    return Budget(seconds=float(budget))


def _verdict(c: Course, adjusted: float, again: float | None, alpha: float, cut: bool) -> tuple[Verdict, str]:
    """The verdict and, but for where the worst component lies, the reason; refuted is asked first."""
    e = c.evidence
    if c.nonfinite:
        return "undecided", f"{-(-c.nonfinite // c.claim.stretches)} networks gave non-finite values, so no mean exists"
    if c.untypical:
        return "undecided", "so many networks are dead that the others are not typical"
    if not e.finite:
        return "undecided", "a statistic has zero or undefined variance, so it cannot be tested"
    if adjusted <= alpha:
        if again is not None and again <= CONFIRMATION_ALPHA:
            bent = "; the ladder does not fit its declared order" if e.lack_of_fit <= alpha else ""
            return "refuted", f"agreement within what the claim promises is excluded{bent}"
        if again is None:
            return "undecided", "the run was cut short before a refutation could be repeated with fresh addresses"
        return "undecided", "a refutation was not reproduced with fresh addresses"
    if c.watch.confirmed:
        return "confirmed", "every deviation beyond the margin is excluded"
    needed, had = _needed(c), e.samples // c.claim.stretches
    if needed < 0:
        return "undecided", "the claim's own remainder exceeds its margin: no sample decides"
    ended = "; the run's time was over" if cut else ""
    if needed <= had:
        return "undecided", f"neither side of the margin could be excluded with {had:,} networks{ended}"
    return "undecided", f"a decision needs about {needed:,} networks instead of {had:,}: raise the budget{ended}"


def _needed(c: Course) -> int:
    """The networks that decide; −1 where none do."""
    needed = samples_needed(c.evidence, level=CONFIRM_LEVEL / 2)
    return needed if needed < 0 else -(-needed // c.claim.stretches)


def _result(
    c: Course, adjusted: float, again: float | None, alpha: float, claims: int, *, cut: bool = False
) -> Result:  # fmt: skip
    e, claim = c.evidence, c.claim
    net = claim.networks(max(claim.widths))
    rival = [] if claim.rival is None else list(np.atleast_1d(claim.rival.predict(net, claim.inputs(net))))
    verdict, message = _verdict(c, adjusted, again, alpha, cut)
    if c.left_out:
        message += f"; {c.left_out:,} of {sum(c.sizes.values()):,} networks had a dead layer and are left out"
    result = Result(
        name=claim.name, verdict=verdict, expected=claim.expected, statement=claim.statement,
        source=claim.source, mark=claim.mark, labels=claim.labels(net), estimate=e.estimate.tolist(),
        se=e.se.tolist(), interval=watch_interval(c.watch, e).tolist(),
        prediction=e.prediction.tolist(), margin=e.margin.tolist(),
        remainder=e.remainder.tolist(), mde=watch_mde(c.watch, e, alpha / claims).tolist(),
        rival_name="" if claim.rival is None else claim.rival.name, rival=[float(v) for v in rival],
        margin_reason=claim.margin_reason, p=c.watch.p, p_adjusted=adjusted,
        p_confirmation=again, lack_of_fit=e.lack_of_fit, samples={w: n // claim.stretches for w, n in c.sizes.items()},
        samples_for_margin=_needed(c), network=describe(net), message=message,
        seconds=c.seconds, one_sided=e.one_sided, looks=c.watch.looks, finding=claim.finding,
        quantity=claim.quantity,
        told="" if claim.told is None or not c.tally.values else claim.told(np.concatenate(c.tally.values)),
    )  # fmt: skip
    at = result.worst
    if verdict != "refuted" or at is None:
        return result
    where = _in_common(c) or f"{result.labels[at]}: {_against(result, at)}"
    return replace(result, message=f"{where}; {message}")


def _in_common(c: Course) -> str:
    """What the components have in common, where it speaks louder than any of them."""
    deviation, tolerated, se = tested(c.evidence)
    z = (np.abs(deviation) - tolerated) / se
    if not c.evidence.pooled or z[-1] < z[:-1].max():
        return ""
    return f"all {len(z) - 1} components together: off by {deviation[-1]:.2g} ± {se[-1]:.1g} in their mean"


def _against(r: Result, at: int) -> str:
    """Measured against predicted, both to the digits that the standard error leaves."""
    digits = max(0, 1 - math.floor(math.log10(r.se[at]))) if r.se[at] > 0 else 6
    return f"{r.estimate[at]:.{digits}f} ± {r.se[at]:.1g} against {r.prediction[at]:.{digits}f}"
