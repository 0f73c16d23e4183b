"""Claims to verdicts: one error budget for the run, planned samples, and confirmation of a refutation.

Each claim runs in three phases with streams of their own. A pilot of fixed size plans the main run; the
main run, a fixed sample, decides; a refutation must be reproduced with fresh addresses, or it is told as
undecided. Which verdict: STATISTICS in docs/verdicts.md.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mcverify import results
from mcverify.claims import experiment
from mcverify.claims.catalogue import select
from mcverify.claims.claim import Claim, Mutant, Verdict
from mcverify.claims.experiment import PILOT, Run
from mcverify.claims.generic import generic_claims
from mcverify.inputs import checked, with_gram
from mcverify.kernels.backends import backend as find_backend
from mcverify.network import Network, describe
from mcverify.network_file import DEFAULT_GRAM, DEFAULT_MARGIN
from mcverify.simulation.simulate import Seed, seed_of
from mcverify.statistics.evidence import Evidence, confirms, mde, p_value, samples_needed
from mcverify.statistics.multiplicity import holm
from mcverify.validate import between, positive

ALPHA = 1e-3  # the chance that a run on a correct program refutes anything, before confirmation
CONFIRMATION_ALPHA = 1e-3
BUDGET = 4e9  # weights a claim may generate in its main run; about two seconds on two cores


@dataclass(frozen=True)
class Result:
    """A claim's verdict with all that stands behind it. Lists run over components."""

    name: str
    verdict: Verdict
    expected: Verdict
    statement: str
    source: str
    mark: str
    labels: list[str]
    estimate: list[float]
    se: list[float]
    prediction: list[float]
    margin: list[float]
    remainder: list[float]
    mde: list[float]
    rival_name: str
    rival: list[float]
    margin_reason: str
    p: float
    p_adjusted: float
    p_confirmation: float | None
    lack_of_fit: float
    samples: dict[int, int]
    samples_for_margin: int
    network: str
    message: str
    seconds: float
    one_sided: bool = False

    @property
    def as_expected(self) -> bool:
        return self.verdict == self.expected

    @property
    def worst(self) -> int | None:
        """The component whose deviation is most against the claim, in margins; an undefined one before any
        other; None where there are no components."""
        gaps = [
            (e - p if self.one_sided else abs(e - p)) / m if m else math.inf
            for e, p, m in zip(self.estimate, self.prediction, self.margin, strict=True)
        ]
        undefined = [g if math.isfinite(g) else math.inf for g in gaps]
        return undefined.index(max(undefined)) if gaps else None


@dataclass(frozen=True)
class Report:
    """A run's results and its provenance."""

    results: list[Result]
    alpha: float
    seed: int
    provenance: dict[str, Any] = field(default_factory=dict)
    sentence: str = ""
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        """0 every verdict as expected · 1 a claim refuted (or a finding not) · 3 undecided or cut short."""
        wrong = [r for r in self.results if not r.as_expected]
        if any(r.verdict != "undecided" for r in wrong):
            return 1
        return 3 if wrong or self.interrupted else 0

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self) | {"exit_code": self.exit_code}


@dataclass
class _Measured:
    """A claim on its way to a verdict."""

    claim: Claim
    sizes: dict[int, int]
    evidence: Evidence
    nonfinite: int
    left_out: int
    seconds: float
    p_confirmation: float | None = None


@dataclass(frozen=True)
class Event:
    """Claim `at` of `claims` is in a phase ("pilot", "main", "confirmation"), of which `share` is done. After
    its main run `so_far` is its result, with the p-value times the number of claims for Holm's."""

    at: int
    claims: int
    name: str
    phase: str
    share: float
    so_far: Result | None = None


Listener = Callable[[Event], None]


def _samples(claims: Sequence[Claim]) -> list[list[int]]:
    """Which claims, by number, are measured together: neighbours of one sample name."""
    groups: list[list[int]] = []
    for at, claim in enumerate(claims):
        if groups and claim.sample and claims[groups[-1][0]].sample == claim.sample:
            groups[-1].append(at)
        else:
            groups.append([at])
    return groups


def _plan(claims: Sequence[Claim], run: Run, budget: float) -> dict[int, int]:
    """From a pilot of the claims' own networks, so that a mutant is judged at its claim's budget. Claims of one
    sample take the largest of their plans."""
    pilots = experiment.gather(claims, run, "pilot", dict.fromkeys(claims[0].widths, PILOT))
    plans = [experiment.plan(c, p, budget * len(claims)) for c, p in zip(claims, pilots, strict=True)]
    return {width: max(plan[width] for plan in plans) for width in claims[0].widths}


def _measure(
    claims: Sequence[Claim], run: Run, phase: str, sizes: dict[int, int], mutant: Mutant | None
) -> list[_Measured]:
    """The claims of one sample, each with its evidence."""
    began = time.perf_counter()
    stream = phase if mutant is None else f"mutant {mutant.name}/{phase}"
    gathered = experiment.gather(claims, run, stream, sizes, mutant)
    seconds = (time.perf_counter() - began) / len(claims)
    out = []
    for claim, values in zip(claims, gathered, strict=True):
        nonfinite = sum(int((~experiment.finite_rows(v)).sum()) for v in values.values())
        left_out = sum(sizes.values()) - sum(len(v) for v in values.values())
        out.append(_Measured(claim, sizes, experiment.evidence(claim, values), nonfinite, left_out, seconds))
    return out


def run_claims(
    claims: Sequence[Claim],
    *,
    seed: int = 0,
    alpha: float = ALPHA,
    budget: float = BUDGET,
    backend: str = "auto",
    threads: int | None = None,
    mutant: Mutant | None = None,
    listener: Listener | None = None,
) -> Report:
    """Verdicts on claims, in their order.

    alpha: the chance of any false refutation in the whole run before confirmation (Holm over the claims);
    budget: generated weights per claim; mutant: applied to the simulated networks of every claim.
    An interrupt (Ctrl-C) ends the run with the claims measured so far.
    """
    measured: list[_Measured] = []

    def tell(at: int, phase: str, share: float, so_far: Result | None = None) -> None:
        if listener is not None:
            listener(Event(at, len(claims), claims[at].name, phase, share, so_far))

    def run(at: int, phase: str) -> Run:
        return Run(seed, backend, threads, lambda done, total: tell(at, phase, done / total))

    interrupted = False
    try:
        for group in _samples(claims):
            together = [claims[at] for at in group]
            sizes = _plan(together, run(group[0], "pilot"), budget)
            for at, m in zip(group, _measure(together, run(group[0], "main"), "main", sizes, mutant), strict=True):
                measured.append(m)
                tell(at, "main", 1.0, _result(m, min(1.0, p_value(m.evidence) * len(claims)), alpha, len(claims)))
        adjusted = holm(np.array([p_value(m.evidence) for m in measured]))
        for at in map(int, np.flatnonzero(adjusted <= alpha)):
            m = measured[at]
            (again,) = _measure([m.claim], run(at, "confirmation"), "confirmation", m.sizes, mutant)
            m.p_confirmation = p_value(again.evidence)
    except KeyboardInterrupt:
        interrupted = True
        adjusted = holm(np.array([p_value(m.evidence) for m in measured]))
    facts = results.provenance(kind="verification", seed=str(seed), alpha=alpha, budget=budget, backend=backend)
    done = [_result(m, float(p), alpha, len(claims)) for m, p in zip(measured, adjusted, strict=True)]
    return Report(done, alpha, seed, facts, interrupted=interrupted)


def self_test(
    claims: Sequence[Claim], *, seed: int = 0, budget: float = BUDGET, backend: str = "auto",
    threads: int | None = None, listener: Listener | None = None,
) -> list[tuple[str, Result]]:  # fmt: skip
    """Every mutant of every claim at the claim's own budget: (mutant, result), each to be refuted."""
    pairs = [(claim, mutant) for claim in claims for mutant in claim.mutants]
    out = []
    for at, (claim, mutant) in enumerate(pairs):

        def tell(event: Event, at: int = at, name: str = f"{claim.name}: {mutant.name}") -> None:
            if listener is not None:
                listener(replace(event, at=at, claims=len(pairs), name=name, so_far=None))

        report = run_claims(
            [claim], seed=seed, budget=budget, backend=backend, threads=threads, mutant=mutant, listener=tell
        )
        if report.interrupted:
            break
        out.append((mutant.name, report.results[0]))
    return out


def verify(
    what: Network | str | Sequence[str] = (),
    x: ArrayLike | None = None,
    *,
    margin: float = DEFAULT_MARGIN,
    rng: Seed = 0,
    alpha: float = ALPHA,
    budget: float = BUDGET,
    backend: str = "auto",
    threads: int | None = None,
    listener: Listener | None = None,
) -> Report:
    """Verify a network with inputs x (input, n_0), or the claims of the catalogue that match a pattern.

    margin: in per-layer gain, for a network. rng: a seed, following SPEC 7. alpha: the chance of any false
    refutation in the whole run, before confirmation. budget: weights generated per claim.
    Without x a network gets two inputs of unit length and correlation ½.
    Raises InputError before any work starts.
    """
    seed = seed_of(rng)
    between("alpha", alpha, 0.0, 0.5, open_low=True)
    positive("budget", budget)
    find_backend(backend)
    if isinstance(what, Network):
        between("margin", margin, 0.0, 1.0, open_low=True)
        points = with_gram(DEFAULT_GRAM, what.input_dim) if x is None else checked(x, what.input_dim)
        claims = generic_claims(what, points, margin, budget)
    else:
        claims = select([what] if isinstance(what, str) else what)
    report = run_claims(
        claims, seed=seed, alpha=alpha, budget=budget, backend=backend, threads=threads, listener=listener
    )
    return replace(report, sentence=departure(report, margin)) if isinstance(what, Network) else report


_TOPICS = {"length": "lengths", "gradient": "gradient norms", "correlation": "correlations"}


def departure(report: Report, margin: float) -> str:
    """One sentence on a network: which layer departs first from the limit at its own widths, if any."""
    broken = [r for r in report.results if r.mark == "exact" and r.verdict == "refuted"]
    if broken:
        return f"The sampled network is not the one described: {broken[0].name} is refuted, {broken[0].message}."
    own = {r.name.split(".")[1]: r for r in report.results if r.name.split(".")[1] in _TOPICS}
    found = []
    for topic, r in own.items():
        if r.verdict == "refuted":
            rows = list(zip(r.labels, r.estimate, r.se, r.prediction, r.margin, strict=True))
            beyond = [(label, e - p) for label, e, se, p, m in rows if abs(e - p) - m > 3 * se]
            if beyond:
                label, gap = beyond[0]
                found.append((int(label.split()[1]), f"{label} ({_TOPICS[topic]} off by {gap:+.2%}{_unit(topic)})"))
    open_topics = [_TOPICS[t] for t, r in own.items() if r.verdict == "undecided"]
    rest = f" Undecided within the budget: {', '.join(open_topics)}." if open_topics else ""
    if found:
        return f"The first layer to depart from the limit by more than {margin:.2%} is {min(found)[1]}.{rest}"
    if len(open_topics) == len(own):
        return f"No departure was found, but nothing was decided either.{rest}"
    told = ", ".join(_TOPICS[t] for t in own if _TOPICS[t] not in open_topics)
    return f"No layer departs from theory by more than {margin:.2%} in {told}.{rest}"


def _unit(topic: str) -> str:
    return "" if topic == "correlation" else " per layer"


def _verdict(m: _Measured, adjusted: float, alpha: float) -> tuple[Verdict, str]:
    """The verdict and, but for where the worst component lies, the reason; refuted is asked first."""
    e = m.evidence
    if m.nonfinite:
        return "undecided", f"{m.nonfinite} replicates gave non-finite values, so no mean exists"
    if not e.finite:
        return "undecided", "a statistic has zero or undefined variance, so it cannot be tested"
    if adjusted <= alpha:
        if m.p_confirmation is not None and m.p_confirmation <= CONFIRMATION_ALPHA:
            bent = "; the ladder does not fit its declared order" if e.lack_of_fit <= alpha else ""
            return "refuted", f"agreement within what the claim promises is excluded{bent}"
        if m.p_confirmation is None:
            return "undecided", "the run was cut short before a refutation could be repeated with fresh addresses"
        return "undecided", "a refutation was not reproduced with fresh addresses"
    if confirms(e):
        return "confirmed", "every deviation beyond the margin is excluded"
    needed = samples_needed(e)
    if needed < 0:
        return "undecided", "the claim's own remainder exceeds its margin: no sample decides"
    if needed <= e.samples:
        return "undecided", "the truth seems to lie near the margin, where neither side can be excluded"
    return "undecided", f"budget spent; the margin needs about {needed:,} replicates instead of {e.samples:,}"


def _result(m: _Measured, adjusted: float, alpha: float, claims: int) -> Result:
    e, claim = m.evidence, m.claim
    net = claim.networks(max(claim.widths))
    rival = [] if claim.rival is None else list(np.atleast_1d(claim.rival.predict(net, claim.inputs(net))))
    verdict, message = _verdict(m, adjusted, alpha)
    if m.left_out:
        message += f"; {m.left_out} of {sum(m.sizes.values()):,} networks had a dead layer and are left out"
    result = Result(
        name=claim.name, verdict=verdict, expected=claim.expected, statement=claim.statement,
        source=claim.source, mark=claim.mark, labels=claim.labels(net), estimate=e.estimate.tolist(),
        se=e.se.tolist(), prediction=e.prediction.tolist(), margin=e.margin.tolist(),
        remainder=e.remainder.tolist(), mde=mde(e, alpha / claims).tolist(),
        rival_name="" if claim.rival is None else claim.rival.name, rival=[float(v) for v in rival],
        margin_reason=claim.margin_reason, p=p_value(e), p_adjusted=adjusted,
        p_confirmation=m.p_confirmation, lack_of_fit=e.lack_of_fit, samples=m.sizes,
        samples_for_margin=samples_needed(e), network=describe(net), message=message, seconds=m.seconds,
        one_sided=e.one_sided,
    )  # fmt: skip
    at = result.worst
    if verdict != "refuted" or at is None:
        return result
    return replace(result, message=f"{result.labels[at]}: {_against(result, at)}; {message}")


def _against(r: Result, at: int) -> str:
    """Measured against predicted, both to the digits that the standard error leaves."""
    digits = max(0, 1 - math.floor(math.log10(r.se[at]))) if r.se[at] > 0 else 6
    return f"{r.estimate[at]:.{digits}f} ± {r.se[at]:.1g} against {r.prediction[at]:.{digits}f}"
