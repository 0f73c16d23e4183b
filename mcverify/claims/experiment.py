"""From a claim to evidence: sample its networks, and reduce what is measured to estimates and errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mcverify.claims.claim import Claim, Mutant
from mcverify.claims.measures import dead
from mcverify.network import Network
from mcverify.random_map import choice
from mcverify.simulation.executor import Progress, chunk_size, in_chunks
from mcverify.simulation.simulate import choose_engine
from mcverify.simulation.trace import Plan, trace
from mcverify.statistics import ladder
from mcverify.statistics.evidence import Evidence, confirmation_distance, decision_room
from mcverify.streams import stream_key

FloatArray = NDArray[np.float64]
Sizes = dict[int, int]  # width -> replicates

DTYPE = "float32"  # of weights and activations; moments are in float64
PILOT = 256
LEAST = 1024  # replicates below which a mean is not yet taken as Gaussian
_ROUNDING = 1e-6  # float32 activations: what their rounding may move a mean of order one or more
_SLACK = 1.3  # the pilot's standard errors are themselves uncertain


@dataclass(frozen=True)
class Run:
    """How to sample: seed, backend, threads, and a call to make as work is done."""

    seed: int
    backend: str = "auto"
    threads: int | None = None
    progress: Progress | None = None


def cost(net: Network, inputs: int, engine: str) -> float:
    """The work of one replicate, forward and backward, in generated weights or their like."""
    maps = [net.dense(i).map for i in net.maps]
    return choice.work(engine, maps, choice.Load(inputs, 0, inputs))


def gather(
    claims: Sequence[Claim], run: Run, phase: str, sizes: Sizes, mutant: Mutant | None = None
) -> list[dict[int, FloatArray]]:
    """Every replicate's measurement, for each claim of one sample: width -> (replicate, …).

    Each width has a stream of its own, so that the estimates of a ladder are independent."""
    lead = claims[0]
    costs = {width: _cost_at(lead, width) for width in sizes}
    total = sum(costs[w] * n for w, n in sizes.items())
    done = 0.0
    out: list[dict[int, FloatArray]] = [{} for _ in claims]
    for width, samples in sizes.items():
        work, net, columns = _work(claims, run, phase, width, mutant)
        parts: list[list[FloatArray]] = []
        deaths: list[NDArray[np.bool_]] = []
        for number, (values, died) in in_chunks(work, 0, samples, chunk_size(net, columns, 4), run.threads):
            parts.append(values)
            deaths.append(died)
            done += number * costs[width]
            if run.progress is not None:
                run.progress(int(done), int(total))
        for claim, kept, pieces in zip(claims, out, zip(*parts, strict=True), strict=True):
            whole = np.concatenate(pieces)
            if claim.survivors:
                alive = ~np.concatenate(deaths)
                whole = whole[alive] if alive.sum() > 1 else whole
            kept[width] = whole
    return out


def _cost_at(claim: Claim, width: int) -> float:
    net = claim.networks(width)
    return cost(net, len(claim.inputs(net)), claim.engine)


def _work(
    claims: Sequence[Claim], run: Run, phase: str, width: int, mutant: Mutant | None
) -> tuple[Callable[[int, int], tuple[list[FloatArray], NDArray[np.bool_]]], Network, int]:
    """(start, count) -> each claim's measurement of those replicates, and which are dead; the network, and its
    columns."""
    lead = claims[0]
    net = lead.networks(width)
    x = lead.inputs(net)
    sampled = None if mutant is None or mutant.network is None else mutant.network(net)
    measures = [c.measure if mutant is None or mutant.measure is None else mutant.measure for c in claims]
    engine, _ = choose_engine(lead.engine, run.backend, DTYPE, net, len(x))
    key = stream_key(run.seed, f"{lead.sample or lead.name}/{width}", phase)
    plan = Plan(net, x, engine, key, lead.cotangent, sampled=sampled)

    def work(start: int, count: int) -> tuple[list[FloatArray], NDArray[np.bool_]]:
        with np.errstate(all="ignore"):  # non-finite replicates are named by the verdict
            t = trace(plan, start, count)
            return [measure(t) for measure in measures], dead(t)

    return work, net, 2 * len(x)


def finite_rows(values: FloatArray) -> NDArray[np.bool_]:
    """Which replicates measured finite values throughout."""
    return np.asarray(np.isfinite(values).reshape(len(values), -1).all(axis=1))


@dataclass(frozen=True)
class Estimate:
    """One width's components with their standard errors, (component,) each, from `samples` replicates."""

    value: FloatArray
    se: FloatArray
    samples: int


def estimate(claim: Claim, values: FloatArray) -> Estimate:
    """The combined means of one width's replicates, with errors by the delta method."""
    n = len(values)
    with np.errstate(all="ignore"):
        means = values.mean(axis=0)
        covariance = np.atleast_2d(np.cov(values, rowvar=False)) / n
        jacobian = _jacobian(claim.combine, means, np.sqrt(np.diagonal(covariance)))
        se = np.sqrt(np.einsum("im,mn,in->i", jacobian, covariance, jacobian))
        value = claim.combine(means)
        return Estimate(value, np.hypot(se, _ROUNDING * np.maximum(1.0, np.abs(value))), n)


def _jacobian(f: Callable[[FloatArray], FloatArray], at: FloatArray, step: FloatArray) -> FloatArray:
    """Central differences over a tenth of a standard error: f is smooth on that scale or the delta method
    would not hold. (component, m)."""
    columns = []
    for i, h in enumerate(np.maximum(0.1 * step, 1e-12 * np.abs(at) + 1e-300)):
        shift = np.zeros_like(at)
        shift[i] = h
        columns.append((f(at + shift) - f(at - shift)) / (2 * h))
    return np.stack(columns, axis=1)


def evidence(claim: Claim, values: dict[int, FloatArray]) -> Evidence:
    """Estimates against the prediction."""
    net = claim.networks(max(claim.widths))
    x = claim.inputs(net)
    prediction = np.atleast_1d(claim.predict(net, x))
    estimates = {w: estimate(claim, v) for w, v in values.items()}
    samples = sum(e.samples for e in estimates.values())
    lack = 1.0
    if claim.test == "ladder":
        y, se = (np.array([getattr(e, f) for e in estimates.values()]) for f in ("value", "se"))
        fitted = ladder.fit(np.array(list(estimates), float), y, se, claim.order)
        value, error, lack = fitted.intercept, fitted.se, fitted.lack_of_fit
    else:
        (only,) = estimates.values()
        value, error = only.value, only.se
    margin = np.full(len(prediction), claim.margin) * (np.abs(prediction) if claim.relative else 1.0)
    remainder = np.zeros(len(prediction)) if claim.remainder is None else claim.remainder(net, x)
    return Evidence(
        value, error, prediction, remainder, margin, samples, lack,
        one_sided=claim.one_sided, within=claim.test == "within", fits=int(claim.test == "ladder"),
    )  # fmt: skip


def plan(claim: Claim, pilot: dict[int, FloatArray], budget: float) -> Sizes:
    """How many replicates of each width confirm a true claim, within `budget` generated weights.

    A function of the pilot and the claim alone. The pilot is not used again, so that the main run is a
    fixed-size sample."""
    e = evidence(claim, pilot)
    if not e.finite:
        return dict.fromkeys(pilot, LEAST)  # enough to say what is wrong
    room = decision_room(e)
    ratio = float(np.max(confirmation_distance(e.components) * e.se / room))
    costs = np.array([_cost_at(claim, w) for w in pilot])
    share = np.ones(1)
    if claim.test == "ladder":
        widths = np.array(list(pilot), float)
        sd = np.array([np.max(estimate(claim, v).se) * np.sqrt(len(v)) for v in pilot.values()])
        share = ladder.allocation(widths, np.maximum(sd, 1e-6 * sd.max() + 1e-300), costs, claim.order)
        ratio = _ladder_ratio(claim, pilot, share, e, room)
    factor = _SLACK * ratio**2 * (1 if claim.test == "ladder" else PILOT)
    wanted = np.maximum(factor * share, LEAST)
    scale = min(1.0, budget / float((wanted * costs).sum()))
    return {w: max(LEAST, int(np.ceil(n * scale))) for w, n in zip(pilot, wanted, strict=True)}


def _ladder_ratio(
    claim: Claim, pilot: dict[int, FloatArray], share: FloatArray, e: Evidence, room: FloatArray
) -> float:
    """Standard error of the intercept for one replicate in all, shared as given, over what is allowed."""
    widths = np.array(list(pilot), float)
    design = (widths.min() / widths[:, None]) ** np.arange(claim.order + 1)
    sd = np.stack([estimate(claim, v).se * np.sqrt(len(v)) for v in pilot.values()])
    worst = 0.0
    for i in range(e.components):
        # One unit for a component's spreads: their sizes may be anything, their ratios decide.
        unit = float(sd[:, i].max()) or 1.0
        weighted = design * (np.sqrt(share) / np.maximum(sd[:, i] / unit, 1e-6))[:, None]
        se = unit * float(np.sqrt(np.linalg.inv(weighted.T @ weighted)[0, 0]))
        worst = max(worst, confirmation_distance(e.components) * se / float(room[i]))
    return worst
