"""Claims to verdicts: one error budget for the run, planned samples, and confirmation of a refutation.

Each claim runs in three phases with streams of their own. A pilot of fixed size plans the main run; the
main run, a fixed sample, decides; a refutation must be reproduced with fresh addresses, or it is told as
undecided. Which verdict: STATISTICS in docs/verdicts.md.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mcverify import network_file, results
from mcverify.claims import experiment
from mcverify.claims.catalogue import select
from mcverify.claims.claim import Claim, Mutant, Verdict
from mcverify.claims.experiment import PILOT, Run
from mcverify.claims.generic import generic_claims
from mcverify.departure import departure
from mcverify.errors import InputError
from mcverify.inputs import checked, default_inputs
from mcverify.kernels.backends import backend as find_backend
from mcverify.network import Network, describe
from mcverify.network_file import DEFAULT_MARGIN
from mcverify.simulation.simulate import Seed, seed_of
from mcverify.statistics.evidence import Evidence, confirms, mde, p_value, samples_needed
from mcverify.statistics.multiplicity import holm
from mcverify.validate import between, count, positive
from mcverify.verdict import Report, Result

ALPHA = 1e-3  # the chance that a run on a correct program refutes anything, before confirmation
CONFIRMATION_ALPHA = 1e-3
BUDGET = 4e9  # weights a claim may generate in its main run; about two seconds on two cores


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
        adjusted = _adjusted(measured, len(claims))
        for at in map(int, np.flatnonzero(adjusted <= alpha)):
            m = measured[at]
            (again,) = _measure([m.claim], run(at, "confirmation"), "confirmation", m.sizes, mutant)
            m.p_confirmation = p_value(again.evidence)
    except KeyboardInterrupt:
        interrupted = True
        adjusted = _adjusted(measured, len(claims))
    facts = results.provenance(
        kind="verification", seed=str(seed), alpha=alpha, budget=budget, backend=find_backend(backend)[0],
        dtype=experiment.DTYPE,
    )  # fmt: skip
    done = [_result(m, float(p), alpha, len(claims)) for m, p in zip(measured, adjusted, strict=True)]
    return Report(done, alpha, seed, facts, interrupted=interrupted)


def _adjusted(measured: Sequence[_Measured], claims: int) -> NDArray[np.float64]:
    """Holm's p-values over all the run's claims; those not reached count as if they agreed."""
    p = [p_value(m.evidence) for m in measured]
    return holm(np.array(p + [1.0] * (claims - len(p))))[: len(p)]


def self_test(
    claims: Sequence[Claim], *, seed: int = 0, budget: float = BUDGET, backend: str = "auto",
    threads: int | None = None, listener: Listener | None = None,
) -> list[tuple[str, Result]]:  # fmt: skip
    """Every mutant of every claim at the claim's own budget and level: (mutant, result), each to be refuted.

    An interrupt ends it with the mutants judged so far."""
    pairs = [(claim, mutant) for claim in claims for mutant in claim.mutants]
    out = []
    for at, (claim, mutant) in enumerate(pairs):

        def tell(event: Event, at: int = at, name: str = f"{claim.name}: {mutant.name}") -> None:
            if listener is not None:
                listener(replace(event, at=at, claims=len(pairs), name=name, so_far=None))

        report = run_claims(
            [claim], seed=seed, alpha=ALPHA / len(claims), budget=budget, backend=backend, threads=threads,
            mutant=mutant, listener=tell,
        )  # fmt: skip
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
    """Verify a network with inputs x (input, n_0), a network file (a path that ends in .toml), or the claims of
    the catalogue that match a pattern.

    margin: in per-layer gain, for a network. rng: a seed, following SPEC 7. alpha: the chance of any false
    refutation in the whole run, before confirmation. budget: weights generated per claim.
    Without x a network gets two inputs of unit length and correlation ½.
    Raises InputError before any work starts.
    """
    seed = seed_of(rng)
    between("alpha", alpha, 0.0, 0.5, open_low=True)
    positive("budget", budget)
    find_backend(backend)
    if threads is not None:
        count("threads", threads)
    if isinstance(what, str) and what.endswith(".toml"):
        given = network_file.read(what)
        what, x, margin = given.net, given.x if x is None else x, given.margin
    if isinstance(what, Network):
        between("margin", margin, 0.0, 1.0, open_low=True)
        points = default_inputs(what.input_dim) if x is None else checked(x, what.input_dim)
        claims = generic_claims(what, points, margin, budget)
    elif not isinstance(what, str | Sequence) or not all(isinstance(w, str) for w in what):
        raise InputError("what", what, "must be a Network, a claim pattern, or a list of patterns")
    else:
        claims = select([what] if isinstance(what, str) else what)
    report = run_claims(
        claims, seed=seed, alpha=alpha, budget=budget, backend=backend, threads=threads, listener=listener
    )
    if not isinstance(what, Network):
        return report
    gram = np.round(points @ points.T / what.input_dim, 6)
    facts = report.provenance | {"margin": margin, "network": describe(what), "inputs_gram": str(gram.tolist())}
    return replace(report, sentence=departure(report, margin), provenance=facts)


def _verdict(m: _Measured, adjusted: float, alpha: float) -> tuple[Verdict, str]:
    """The verdict and, but for where the worst component lies, the reason; refuted is asked first."""
    e = m.evidence
    if m.nonfinite:
        return "undecided", f"{m.nonfinite} networks gave non-finite values, so no mean exists"
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
        return "undecided", f"neither side of the margin could be excluded with {e.samples:,} networks"
    return "undecided", f"a decision needs about {needed:,} networks instead of {e.samples:,}: raise the budget"


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
