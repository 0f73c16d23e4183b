"""From a claim to evidence: sample its networks, and reduce what is measured to estimates and errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mcverify.claims.claim import Claim, Mutant
from mcverify.claims.measures import dead
from mcverify.kernels import memory
from mcverify.network import Network
from mcverify.random_map import choice
from mcverify.simulation.executor import Progress, chunk_size, in_chunks
from mcverify.simulation.moments import Moments
from mcverify.simulation.simulate import choose_engine
from mcverify.simulation.trace import Plan, trace
from mcverify.statistics import ladder
from mcverify.statistics.evidence import Evidence
from mcverify.streams import stream_key

FloatArray = NDArray[np.float64]
Sizes = dict[int, int]  # width -> replicates, or stretches of them where those are counted

DTYPE = "float32"  # of weights and activations; moments are in float64
_ROUNDING = 1e-6  # float32 activations: what their rounding may move a mean of order one or more


@dataclass(frozen=True)
class Run:
    """How to sample: seed, backend, threads."""

    seed: int
    backend: str = "auto"
    threads: int | None = None


# ---- sampling -----------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What one claim has measured so far: moments for each width, how many replicates were not finite, how many were
    left out for a dead layer, and every value of a claim that tells of them."""

    moments: dict[int, Moments]
    nonfinite: int = 0
    left_out: int = 0
    values: list[FloatArray] = field(default_factory=list)


@dataclass
class Sample:
    """Networks that some claims share, as far as they are sampled, with a tally for each claim.

    Each width has a stream of its own, so that the estimates of a ladder are independent. collect: told of every
    measurement that a tally counts, as (claim, width, values (replicate, m)), in the order of replicates. closed: which
    of the claims, by number, measure no more."""

    claims: Sequence[Claim]
    run: Run
    phase: str
    mutant: Mutant | None = None
    collect: Callable[[Claim, int, FloatArray], None] | None = None
    sizes: Sizes = field(default_factory=dict)
    tallies: list[Tally] = field(default_factory=list)
    closed: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.sizes = dict.fromkeys(self.claims[0].widths, 0)
        self.tallies = [Tally({w: Moments(cross=True) for w in c.widths}) for c in self.claims]


def extend(sample: Sample, to: Sizes, progress: Progress | None = None) -> None:
    """Sample on, until each width has the number of replicates given: of stretches, up to whole networks."""
    stretches = sample.claims[0].stretches
    missing = {w: n - sample.sizes[w] for w, n in to.items() if n > sample.sizes[w]}
    measured = _measured(sample)
    costs = {w: width_cost(sample.claims[0], w) for w in missing}
    total, done = sum(costs[w] * n for w, n in missing.items()), 0.0
    for width, number in missing.items():
        work, chunk, workers = _work(sample, measured, width)
        start, networks = sample.sizes[width] // stretches, -(-number // stretches)
        for count, (values, died) in in_chunks(work, start, networks, chunk, workers):
            for i, measurement in zip(measured, values, strict=True):
                counted = _add(sample.claims[i], sample.tallies[i], width, measurement, died)
                if sample.collect is not None:
                    sample.collect(sample.claims[i], width, counted)
            done += count * stretches * costs[width]
            if progress is not None:
                progress(int(done), int(total))
        sample.sizes[width] += networks * stretches


def _measured(sample: Sample) -> list[int]:
    """The claims, by number, that measure."""
    return [i for i in range(len(sample.claims)) if i not in sample.closed]


def _add(claim: Claim, tally: Tally, width: int, values: FloatArray, died: NDArray[np.bool_]) -> FloatArray:
    """Count values (replicate, m) into the tally; those of them that it took."""
    if claim.survivors:
        tally.left_out += int(died.sum())
        values = values[~died]
    finite = np.isfinite(values).all(axis=1)
    tally.nonfinite += int((~finite).sum())
    if finite.any():
        tally.moments[width].add(values[finite])
    if claim.told is not None:
        tally.values.append(values)
    return values[finite]


def cost(net: Network, inputs: int, engine: str) -> float:
    """The work of one replicate, forward and backward, in generated weights or their like."""
    maps = net.sampled_maps
    return choice.work(engine, [m for m, _ in maps], [choice.Load(inputs * p, 0, inputs * p) for _, p in maps])


def width_cost(claim: Claim, width: int) -> float:
    """The work of one of the claim's replicates of that width, or of one of their stretches."""
    net = claim.networks(width)
    return cost(net, len(claim.inputs(net)), claim.engine) / claim.stretches


Measured = tuple[list[FloatArray], NDArray[np.bool_]]  # of each claim that measures, and which replicates are dead


def _work(sample: Sample, measured: Sequence[int], width: int) -> tuple[Callable[[int, int], Measured], int, int]:
    """(start, count) -> what is measured of those replicates; the chunk; how many threads carry chunks."""
    claims, mutant = sample.claims, sample.mutant or Mutant("")
    lead = claims[0]
    net = lead.networks(width)
    x = lead.inputs(net)
    sampled = None if mutant.network is None else mutant.network(net)
    measures = [mutant.measure or claims[i].measure for i in measured]
    engine, _ = choose_engine(mutant.engine or lead.engine, sample.run.backend, DTYPE, net, len(x))
    key = stream_key(sample.run.seed, f"{lead.sample or lead.name}/{width}", sample.phase)
    cotangents = [claims[i].cotangent for i in measured]
    cotangent = next((c for c in cotangents if c is not None), None)  # none is pulled back for nobody
    plan = Plan(net, x, engine, key, cotangent, sampled=sampled)

    def work(start: int, count: int) -> Measured:
        with np.errstate(all="ignore"), memory.reused():  # non-finite replicates are named by the verdict
            t = trace(plan, start, count)
            rows = count * lead.stretches
            died = np.repeat(dead(t), lead.stretches)
            return [np.array(measure(t)).reshape(rows, -1) for measure in measures], died

    room, workers = engine.kernels.room(), engine.kernels.workers(sample.run.threads)
    return work, chunk_size(net, 2 * len(x), engine.dtype.itemsize, engine.name, room), workers


# ---- evidence -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """What a claim says, in numbers: (component,) each, and how fast a ladder's coefficients may grow."""

    prediction: FloatArray
    margin: FloatArray
    remainder: FloatArray
    growth: float


def target(claim: Claim) -> Target:
    """The claim's prediction at its largest width, with what surrounds it."""
    width = max(claim.widths)
    net = claim.networks(width)
    x = claim.inputs(net)
    prediction = np.atleast_1d(claim.predict(net, x))
    return Target(
        prediction=prediction,
        margin=np.full(len(prediction), claim.margin) * (np.abs(prediction) if claim.relative else 1.0),
        remainder=np.zeros(len(prediction)) if claim.remainder is None else claim.remainder(net, x),
        # Corrections are a series in depth/width; a ladder's rungs may be factors of the network's own widths.
        growth=claim.growth * len(net.maps) * width / min(net.widths),
    )


@dataclass(frozen=True)
class Estimate:
    """One width's components (component,) with their covariance, from `samples` replicates."""

    value: FloatArray
    covariance: FloatArray
    samples: int

    @property
    def sd(self) -> FloatArray:
        """Standard deviations of one replicate, (component,)."""
        return np.sqrt(np.diagonal(self.covariance) * self.samples)


def estimate(claim: Claim, moments: Moments, samples: int | None = None) -> Estimate:
    """The combined means of one width, with errors by the delta method; samples: as if there were so many."""
    moments = moments.copy().finish()
    if moments.mean is None:
        nothing = np.full(len(claim.labels(claim.networks(max(claim.widths)))), np.nan)
        return Estimate(nothing, np.diag(nothing), 0)
    n = moments.count if samples is None else samples
    with np.errstate(all="ignore"):
        covariance = moments.variance / n
        jacobian = _jacobian(claim.combine, moments.mean, np.sqrt(np.diagonal(covariance)))
        value = claim.combine(moments.mean)
        rounding = np.diag((_ROUNDING * np.maximum(1.0, np.abs(value))) ** 2)
        half = np.einsum("im,mn->in", jacobian, covariance)
        return Estimate(value, np.einsum("in,jn->ij", half, jacobian) + rounding, n)


def _jacobian(f: Callable[[FloatArray], FloatArray], at: FloatArray, step: FloatArray) -> FloatArray:
    """Central differences over a tenth of a standard error: f is smooth on that scale or the delta method
    would not hold. (component, m)."""
    columns = []
    for i, h in enumerate(np.maximum(0.1 * step, 1e-12 * np.abs(at) + 1e-300)):
        shift = np.zeros_like(at)
        shift[i] = h
        columns.append((f(at + shift) - f(at - shift)) / (2 * h))
    return np.stack(columns, axis=1)


def evidence(
    claim: Claim, target: Target, tally: Tally, *, weights: FloatArray | None = None, sizes: Sizes | None = None
) -> Evidence:
    """Estimates against the prediction. weights: of the components in their mean (see Evidence); sizes: as if there
    were so many replicates of each width."""
    estimates = {w: estimate(claim, m, None if sizes is None else sizes[w]) for w, m in tally.moments.items()}
    bias, lack = None, 1.0
    if claim.test == "ladder":
        y = np.stack([e.value for e in estimates.values()])
        covariances = np.stack([e.covariance for e in estimates.values()])
        widths = np.array(list(estimates), float)
        fitted = ladder.fit(widths, y, covariances, claim.order)
        value, covariance, lack = fitted.intercept, fitted.covariance, fitted.lack_of_fit
        bias = ladder.bias(fitted, widths, target.growth, claim.order)
    else:
        (only,) = estimates.values()
        value, covariance = only.value, only.covariance
    with np.errstate(invalid="ignore"):
        se = np.sqrt(np.diagonal(covariance))
    return Evidence(
        value, se, target.prediction, target.remainder, target.margin, sum(e.samples for e in estimates.values()), lack,
        one_sided=claim.one_sided, within=claim.test == "within", fits=int(claim.test == "ladder"),
        bias=bias, covariance=covariance, weights=weights,
    )  # fmt: skip
