"""Numerical regression: what the claims' networks measured once, kept as baselines, and what they measure now.

`record` stores a claim only once its theory check has given the expected verdict. `compare` samples the same networks
again and judges in one of two tiers. With the seed, sizes, engine, processor and versions of the recording every bit
must come back. Elsewhere, or with another seed, two independent samples are compared, each with its own error: means
and the counts in bins that were fixed beforehand, by Holm over all; and the difference must be held within the
baseline's margin, so that a comparison which could have seen nothing is undecided. See docs/baselines.md.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mcverify import results
from mcverify.baseline_file import AtWidth, Baseline, path_of, read, write
from mcverify.claims import experiment
from mcverify.claims.catalogue import catalogue, select
from mcverify.claims.claim import Claim, Mutant, identity
from mcverify.claims.experiment import Estimate, Run, Sample, Sizes, estimate, extend
from mcverify.claims.plan import LEAST, Budget
from mcverify.errors import InputError
from mcverify.levels import ALPHA
from mcverify.network import describe
from mcverify.simulation.moments import Moments
from mcverify.simulation.simulate import choose_engine
from mcverify.statistics.evidence import Evidence, confirmation_distance, confirms, mde, p_value, samples_needed
from mcverify.statistics.multiplicity import holm
from mcverify.statistics.two_sample import LEAST_EXPECTED, binned, binned_mde
from mcverify.validate import between, count, writable
from mcverify.verdict import Report
from mcverify.verification import Listener, run_claims

FloatArray = NDArray[np.float64]
Verdict = Literal["agrees", "refuted", "undecided"]
Tier = Literal["bits", "statistics"]

SAMPLES = LEAST  # networks of each width
RUNGS = 2  # a ladder's smallest widths: the cheapest, and two of them see a change of its slope
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)  # of the pilot, where bins end: place, spread and both tails
_EDGE_DIGITS = 4  # of a spread: edges may lie anywhere, so let them be short
_CONSTANT = 1e-5  # a relative spread that may be rounding alone, of float32 through some layers
_PHASE = "baseline"

# What must agree for every bit to come back. The processor's name stands for what compilers and dispatchers choose.
SAME = ("seed", "backend", "engine", "dtype", "instructions", "machine", "processor", "libc", "numpy", "scipy", "numba",
        "llvmlite")  # fmt: skip


# ---- what is measured ---------------------------------------------------------------------------------


@dataclass
class _Seen:
    """What a sample's collector keeps of one width: the values' digest, and their counts between edges (m, bins − 1);
    the values themselves where no edges are given."""

    edges: FloatArray | None
    counts: NDArray[np.int64] | None = None
    values: list[FloatArray] = field(default_factory=list)
    digest: Any = field(default_factory=lambda: blake2b(digest_size=16))

    def add(self, claim: Claim, width: int, values: FloatArray) -> None:
        """Add (replicate, m), as a sample's collector."""
        self.digest.update(np.ascontiguousarray(values, dtype="<f8").tobytes())
        if self.edges is None:
            self.values.append(values)
            return
        if values.shape[1] != len(self.edges):
            was = f"measured {len(self.edges)} values at width {width} and now {values.shape[1]}"
            raise InputError("baseline", claim.name, f"{was}: record it again if that is meant")
        bins = self.edges.shape[1] + 1
        rows = zip(self.edges, values.T, strict=True)
        counts = np.stack([np.bincount(np.searchsorted(e, v, side="right"), minlength=bins) for e, v in rows])
        self.counts = counts if self.counts is None else self.counts + counts


def _measure(
    claim: Claim, run: Run, sizes: Sizes, edges: Mapping[int, FloatArray], mutant: Mutant | None = None
) -> tuple[dict[int, AtWidth], int]:
    """So many networks of each width, with their values counted between edges; and how many networks gave values
    that are not finite."""
    done, bad = {}, 0
    for width, samples in sizes.items():
        seen = _Seen(edges[width])
        sample = Sample([claim], run, _PHASE, mutant, collect=seen.add)
        extend(sample, {width: samples})
        (tally,) = sample.tallies
        bad += tally.nonfinite
        m = len(edges[width])
        moments = tally.moments[width].finish()
        mean, covariance = np.full(m, np.nan), np.full((m, m), np.nan)
        if moments.mean is not None:
            mean, covariance = moments.mean, moments.variance
        if claim.combine is identity:
            covariance = np.diag(np.diagonal(covariance))
        counts = np.zeros((m, len(QUANTILES) + 1), np.int64) if seen.counts is None else seen.counts
        net = describe(claim.networks(width))
        done[width] = AtWidth(
            net, samples, tally.left_out, seen.digest.hexdigest(), np.empty(0), mean, covariance, edges[width], counts
        )  # fmt: skip
    return done, bad


def _edges(claim: Claim, run: Run, sizes: Sizes) -> dict[int, FloatArray]:
    """Bins from a pilot on a stream of its own, so that they know neither sample, (m, bins − 1) for each width."""
    out = {}
    for width in sizes:
        seen = _Seen(None)
        sample = Sample([claim], run, f"{_PHASE}/pilot", collect=seen.add)
        extend(sample, {width: SAMPLES})
        out[width] = np.array([_cuts(v) for v in np.concatenate(seen.values).T])
    return out


def _cuts(values: FloatArray) -> FloatArray:
    """Where the bins of one value (replicate,) end, (bins − 1,). Half a digit off the round numbers, where a law may
    have an atom; and around a value that does not vary wide enough for another platform's rounding."""
    cuts = np.quantile(values, QUANTILES)
    middle, spread = float(cuts[len(cuts) // 2]), float(cuts[-1] - cuts[0])
    if spread <= _CONSTANT * max(1.0, abs(middle)):
        reach = 10 * _CONSTANT * max(1.0, abs(middle))
        cuts = middle + reach * np.where(np.array(QUANTILES) < 0.5, -1.0, 1.0)
        spread = reach
    decimals = _EDGE_DIGITS - 1 - math.floor(math.log10(spread))
    return np.round(np.round(cuts, decimals - 1) + 0.5 * 10.0 ** (1 - decimals), decimals)


def _estimate(claim: Claim, v: AtWidth) -> Estimate:
    """The claim's components with their errors."""
    moments = Moments(cross=True)
    kept = int(v.counts[0].sum())
    moments.count, moments.mean, moments.squares = kept, v.mean, v.covariance * (kept - 1)
    return estimate(claim, moments)


def _gram(claim: Claim) -> FloatArray:
    net = claim.networks(max(claim.widths))
    x = claim.inputs(net)
    return np.round(x @ x.T / net.input_dim, 9) + 0.0  # no negative zero


def _labels(claim: Claim) -> list[str]:
    return claim.labels(claim.networks(max(claim.widths)))


def _facts(claim: Claim, run: Run, widths: Sequence[int]) -> dict[str, str]:
    """Where numbers come from, as texts."""
    from llvmlite.binding import get_host_cpu_name

    net = claim.networks(max(widths))
    engine, backend = choose_engine(claim.engine, run.backend, experiment.DTYPE, net, len(claim.inputs(net)))
    facts = results.provenance(
        seed=str(run.seed), backend=backend, engine=engine.name, dtype=experiment.DTYPE, processor=get_host_cpu_name(),
        libc=" ".join(platform.libc_ver()), numba=version("numba"), llvmlite=version("llvmlite"),
    )  # fmt: skip
    return {key: str(facts[key]) for key in (*SAME, "mcverify", "python", "platform")}


# ---- record -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recorded:
    """report: of the theory checks; written: the claims stored; refused: those whose verdict was not the expected
    one, with the reason."""

    report: Report
    written: list[str]
    refused: dict[str, str]

    @property
    def exit_code(self) -> int:
        """0 all stored · 1 theory refuted, or a finding not · 3 undecided."""
        return self.report.exit_code or (3 if self.refused else 0)


def record(
    claims: Sequence[Claim], folder: str | Path, *, samples: int = SAMPLES, seed: int = 0,
    budget: Budget = Budget(), backend: str = "auto", threads: int | None = None,  # noqa: B008, it is frozen
    listener: Listener | None = None,
) -> Recorded:  # fmt: skip
    """Check the claims against theory, and store a baseline in `folder` of each whose verdict is the expected one.

    samples: networks of each width, at least 1,024, of a ladder's two smallest widths; budget: of the theory checks.
    Raises InputError before any work starts for a folder that cannot be written."""
    writable("folder", folder)
    count("samples", samples, least=LEAST)
    sizes = {c.name: dict.fromkeys(sorted(c.widths)[:RUNGS], samples) for c in claims}
    return _admit(claims, folder, sizes, {c.name: seed for c in claims}, seed, budget, backend, threads, listener)


def _admit(
    claims: Sequence[Claim], folder: str | Path, sizes: Mapping[str, Sizes], seeds: Mapping[str, int], seed: int,
    budget: Budget, backend: str, threads: int | None, listener: Listener | None,
) -> Recorded:  # fmt: skip
    """Theory first; what passes is sampled with its own seed and sizes, and stored. An interrupt of the sampling ends
    it with the claims stored so far."""
    report = run_claims(claims, seed=seed, budget=budget, backend=backend, threads=threads, listener=listener)
    found = {r.name: r for r in report.results}
    written, refused = [], {}
    stopped = False
    for claim in claims:
        result = found.get(claim.name)
        if result is None:
            refused[claim.name] = "the run was interrupted before its theory check"
        elif not result.as_expected:
            told = f"{result.verdict} (expected {result.expected}): {result.message}"
            refused[claim.name] = f"its theory check does not hold: {told}"
        elif not stopped:
            try:
                run = Run(seeds[claim.name], backend, threads)
                write(_baseline(claim, run, sizes[claim.name], result.verdict), folder)
                written.append(claim.name)
            except KeyboardInterrupt:
                stopped = True
        if stopped and claim.name not in refused:
            refused[claim.name] = "the run was interrupted before its networks were sampled"
    return Recorded(report, written, refused)


def _baseline(claim: Claim, run: Run, sizes: Sizes, verdict: str) -> Baseline:
    measured, bad = _measure(claim, run, sizes, _edges(claim, run, sizes))
    if bad:
        raise InputError("baseline", claim.name, f"{bad} networks gave values that are not finite")
    widths = {w: replace(v, margin=_margin(_estimate(claim, v))) for w, v in measured.items()}
    facts = _facts(claim, run, list(sizes))
    full = claim.combine is not identity
    return Baseline(claim.name, verdict, _labels(claim), _gram(claim), facts, widths, full)


def _margin(e: Estimate) -> FloatArray:
    """The difference that two samples of this size exclude, if there is none, with probability 0.9999; (k,), to two
    digits, upwards."""
    reach = confirmation_distance(len(e.value)) * np.sqrt(2 * np.diagonal(e.covariance))
    unit = 10.0 ** (np.floor(np.log10(reach)) - 1)
    return np.array([float(f"{m:.2g}") for m in np.ceil(reach / unit) * unit])


# ---- compare ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """A claim's networks of one width, now against its baseline; lists run over components.

    tier: "bits" or "statistics"; mde: the difference that this comparison would have refuted, and bins_mde the same
    for the shares of the bins, as √Σ (p − p₀)²/p; p_means, p_bins: by Holm over the whole comparison; ulps: of
    the sampled dtype, by how many the moments moved (None where bits were not asked for)."""

    claim: str
    width: int
    tier: Tier
    verdict: Verdict
    message: str
    labels: list[str]
    baseline: list[float]
    baseline_se: list[float]
    now: list[float]
    now_se: list[float]
    margin: list[float]
    mde: list[float]
    bins_mde: float
    samples: list[int]
    p_means: float
    p_bins: float
    ulps: float | None

    @property
    def differences(self) -> list[float]:
        """Of each component, in standard errors of both samples together."""
        rows = zip(self.now, self.baseline, self.now_se, self.baseline_se, strict=True)
        return [(n - b) / float(np.hypot(s, t)) for n, b, s, t in rows]


@dataclass(frozen=True)
class Comparisons:
    """All comparisons of a run. updated: claims whose baseline was rewritten; refused: those whose was not, since
    theory does not hold, with the reason; interrupted: some claims were not reached."""

    rows: list[Comparison]
    alpha: float
    provenance: dict[str, Any]
    updated: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        """0 everything agrees, or was rewritten · 1 refuted · 3 undecided or cut short."""
        verdicts = {r.verdict for r in self.rows if r.claim not in self.updated}
        return 1 if "refuted" in verdicts else 3 if "undecided" in verdicts or self.interrupted else 0

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        rows = [asdict(r) | {"differences": r.differences} for r in self.rows]
        return asdict(self) | {"rows": rows, "exit_code": self.exit_code}


@dataclass(frozen=True)
class _Pair:
    """One width of a claim on its way to a verdict: what was measured then and now, with the estimates, and how many
    networks gave values now that are not finite."""

    claim: Claim
    width: int
    tier: Tier
    then: AtWidth
    now: AtWidth
    estimates: tuple[Estimate, Estimate]
    dtype: str
    bad: int

    @property
    def evidence(self) -> Evidence:
        """That the means have not moved, with the errors of both."""
        then, now = self.estimates
        se = np.sqrt(np.diagonal(then.covariance) + np.diagonal(now.covariance))
        zero = np.zeros(len(se))
        return Evidence(now.value - then.value, se, zero, zero, self.then.margin, then.samples + now.samples)

    @property
    def bins(self) -> int:
        """How many rows of counts are compared: a number fixed by the claim."""
        return len(self.then.counts) + int(self.claim.survivors)


def stored_claims(folder: str | Path) -> list[Claim]:
    """The catalogue's claims whose baselines are in a folder. Raises InputError where there are none, and for a file
    that belongs to no claim."""
    names = sorted(p.stem for p in Path(folder).glob("*.toml"))
    if not names:
        raise InputError("folder", str(folder), "holds no baselines: record them with `mcverify baseline record`")
    known = {c.name for c in catalogue()}
    for name in names:
        if name not in known:
            raise InputError("baseline", str(path_of(folder, name)), "belongs to no claim of the catalogue")
    return select(names)


def compare(
    claims: Sequence[Claim], folder: str | Path, *, seed: int | None = None, samples: int | None = None,
    alpha: float = ALPHA, ulps: float = 0.0, backend: str = "auto", threads: int | None = None,
    mutant: Mutant | None = None, progress: Callable[[int, int], None] | None = None,
) -> Comparisons:  # fmt: skip
    """Sample the claims' networks again and compare them with the baselines in `folder`.

    seed, samples: the baseline's own, or others; alpha: the chance that anything is refuted where nothing changed;
    ulps: what may move where the recording can be repeated, in units of the sampled dtype at a value's own scale;
    mutant: applied to the simulated networks of every claim; progress(claims done, claims).

    An interrupt ends it with the claims compared so far; the others count in Holm as if they agreed.

    Guarantee: in the statistical tier with a seed other than the baseline's, nothing that is unchanged is refuted
    with probability 1 − alpha over both samples (Holm 1979); a component that changed by its margin or more agrees
    with probability at most 1e-3. With the baseline's own seed on another platform the draws are nearly the same, so
    that false refutations are rarer still. Raises InputError for a baseline that cannot be used, before any work."""
    between("alpha", alpha, 0.0, 0.5, open_low=True)
    if not 0 <= ulps < float("inf"):
        raise InputError("ulps", ulps, "must be a finite number, at least 0")
    if samples is not None:
        count("samples", samples, least=LEAST)
    stored = [_matching(claim, read(path_of(folder, claim.name))) for claim in claims]
    pairs: list[_Pair] = []
    missed = 0
    try:
        for done, (claim, baseline) in enumerate(zip(claims, stored, strict=True)):
            if progress is not None:
                progress(done, len(claims))
            pairs += _pairs(claim, baseline, seed, samples, backend, threads, mutant)
    except KeyboardInterrupt:
        if not pairs:
            raise
        missed = sum(len(b.widths) for b in stored[done:])
    tests = [p for p in pairs if p.tier == "statistics"]
    number = 2 * (len(tests) + missed)
    p = np.array([p_value(t.evidence) for t in tests] + [_bins_p(t) for t in tests] + [1.0] * 2 * missed)
    adjusted = iter(holm(p)[: 2 * len(tests)].reshape(2, -1).T.tolist())
    level = alpha / max(1, number)
    rows = [_judged(q, None if q.tier == "bits" else next(adjusted), alpha, level, ulps) for q in pairs]
    facts = results.provenance(
        kind="comparison", seed="the baselines' own" if seed is None else str(seed), alpha=alpha, ulps=ulps,
        folder=str(folder), tests=number,
    )  # fmt: skip
    return Comparisons(rows, alpha, facts, interrupted=missed > 0)


def update(
    compared: Comparisons, claims: Sequence[Claim], folder: str | Path, *, budget: Budget = Budget(),  # noqa: B008
    backend: str = "auto", threads: int | None = None, listener: Listener | None = None,
) -> Comparisons:  # fmt: skip
    """Record the refuted claims again with their own seeds and sizes, as far as theory still holds for them."""
    writable("folder", folder)
    names = {r.claim for r in compared.rows if r.verdict == "refuted"}
    changed = [c for c in claims if c.name in names]
    if not changed:
        return compared
    before = {c.name: read(path_of(folder, c.name)) for c in changed}
    sizes = {name: {w: v.samples for w, v in b.widths.items()} for name, b in before.items()}
    seeds = {name: int(b.recorded["seed"]) for name, b in before.items()}
    first = next(iter(seeds.values()))
    done = _admit(changed, folder, sizes, seeds, first, budget, backend, threads, listener)
    return replace(compared, updated=done.written, refused=done.refused)


def _matching(claim: Claim, b: Baseline) -> Baseline:
    """The baseline, if it is of this claim and its present networks and inputs."""

    def refuse(what: str) -> InputError:
        return InputError("baseline", claim.name, f"{what}: record it again if that is meant")

    if b.claim != claim.name:
        raise refuse(f"its file holds the baseline of {b.claim}")
    if not b.widths or not set(b.widths) <= set(claim.widths):
        raise refuse(f"was recorded at widths {sorted(b.widths)}, which the claim does not have")
    for width, v in b.widths.items():
        net = describe(claim.networks(width))
        if v.network != net:
            raise refuse(f"was recorded of another network, {v.network} instead of {net}")
        m, k = len(v.mean), len(b.labels)
        shapes = v.covariance.shape, v.edges.shape, v.counts.shape, v.margin.shape
        if shapes != ((m, m), (m, len(QUANTILES)), (m, len(QUANTILES) + 1), (k,)):
            raise refuse(f"its arrays do not fit one another: {shapes}")
    gram = _gram(claim)
    if gram.shape != b.gram.shape or not np.allclose(gram, b.gram, rtol=1e-6, atol=1e-6):
        raise refuse("was recorded with other inputs")
    if _labels(claim) != b.labels or b.full != (claim.combine is not identity):
        raise refuse("the claim's components are others now")
    return b


def _pairs(
    claim: Claim, b: Baseline, seed: int | None, samples: int | None, backend: str, threads: int | None,
    mutant: Mutant | None,
) -> list[_Pair]:  # fmt: skip
    """Each width's values then and now, with their evidence."""
    run = Run(int(b.recorded["seed"]) if seed is None else seed, backend, threads)
    sizes = {w: v.samples if samples is None else samples for w, v in b.widths.items()}
    facts = _facts(claim, run, list(sizes))
    repeats = all(facts[key] == b.recorded.get(key) for key in SAME)
    measured, bad = _measure(claim, run, sizes, {w: v.edges for w, v in b.widths.items()}, mutant)
    out = []
    for width, then in b.widths.items():
        now = measured[width]
        tier: Tier = "bits" if repeats and now.samples == then.samples else "statistics"
        estimates = _estimate(claim, then), _estimate(claim, now)
        out.append(_Pair(claim, width, tier, then, now, estimates, facts["dtype"], bad))
    return out


# ---- verdicts -----------------------------------------------------------------------------------------


def _judged(q: _Pair, adjusted: list[float] | None, alpha: float, level: float, ulps: float) -> Comparison:
    """adjusted: Holm's p-values of means and of bins, in the statistical tier; level: of one test, for the mde."""
    e, (then, now) = q.evidence, q.estimates
    moved = None if adjusted is not None else _ulps(q)
    p_means, p_bins = (1.0, 1.0) if adjusted is None else adjusted
    if q.bad:
        verdict: tuple[Verdict, str] = "undecided", f"{q.bad} networks gave values that are not finite"
    elif moved is not None:
        verdict = _bits_verdict(q, moved, ulps)
    else:
        verdict = _statistical_verdict(e, p_means, p_bins, alpha)
    shares = np.diff([0.0, *QUANTILES, 1.0])
    return Comparison(
        claim=q.claim.name, width=q.width, tier=q.tier, verdict=verdict[0], message=verdict[1],
        labels=_labels(q.claim), baseline=then.value.tolist(),
        baseline_se=np.sqrt(np.diagonal(then.covariance)).tolist(), now=now.value.tolist(),
        now_se=np.sqrt(np.diagonal(now.covariance)).tolist(), margin=q.then.margin.tolist(),
        mde=mde(e, level).tolist(), bins_mde=binned_mde(q.then.samples, q.now.samples, shares, level / q.bins),
        samples=[q.then.samples, q.now.samples], p_means=p_means, p_bins=p_bins, ulps=moved,
    )  # fmt: skip


def _bits_verdict(q: _Pair, moved: float, ulps: float) -> tuple[Verdict, str]:
    if q.then.digest == q.now.digest and moved == 0 and np.array_equal(q.then.counts, q.now.counts):
        return "agrees", "bit for bit"
    if moved == 0 and not ulps:
        return "refuted", "the moments are the same bits, but not every network is"
    if moved <= ulps:
        return "agrees", f"within {moved:.2g} ulps of {q.dtype}; {ulps:g} were allowed"
    return "refuted", f"same seed, processor and versions, but moved by {moved:.3g} ulps of {q.dtype}"


def _statistical_verdict(e: Evidence, p_means: float, p_bins: float, alpha: float) -> tuple[Verdict, str]:
    """Refuted is asked first."""
    refuted = [what for what, p in (("means", p_means), ("distributions", p_bins)) if p <= alpha]
    if refuted:
        return "refuted", f"{' and '.join(refuted)} differ, p = {min(p_means, p_bins):.1g} after Holm"
    if not e.finite:
        return "undecided", "a mean has zero or undefined variance, so it cannot be compared"
    if confirms(e):
        return "agrees", "every difference beyond the margin is excluded"
    needed = samples_needed(e)
    if needed > e.samples:
        return "undecided", f"the margin needs about {needed:,} networks, then and now together, not {e.samples:,}"
    return "undecided", "neither side of the margin could be excluded"


def _ulps(q: _Pair) -> float:
    """By how much means and standard deviations moved, at the most, in units of the sampled dtype at their scale."""
    then, now = (np.sqrt(np.diagonal(v.covariance)) for v in (q.then, q.now))
    scale = np.maximum(np.abs(q.then.mean), then) * float(np.finfo(q.dtype).eps)
    distance = np.maximum(np.abs(q.now.mean - q.then.mean), np.abs(now - then))
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.max(np.where(distance == 0, 0.0, distance / scale)))


def _bins_p(q: _Pair) -> float:
    """p-value that then and now every value fell into the bins with the same probabilities, and that as many networks
    were left out; by Bonferroni over the claim's rows."""
    tables = [np.stack(rows) for rows in zip(q.then.counts, q.now.counts, strict=True)]
    if q.claim.survivors:
        tables.append(np.array([[v.left_out, v.samples - v.left_out] for v in (q.then, q.now)]))
    return min(1.0, q.bins * min(_same_shares(table) for table in tables))


def _same_shares(table: NDArray[np.int64]) -> float:
    """Two rows of counts (2, bin), neighbouring bins joined until each expects enough in both rows. What is joined
    goes by the sums of both rows, which say nothing about whether they differ."""
    least = LEAST_EXPECTED * table.sum() / max(1, table.sum(axis=1).min())
    joined, open_bin = [], np.zeros(2, np.int64)
    for column in table.T:
        open_bin = open_bin + column
        if open_bin.sum() >= least:
            joined.append(open_bin)
            open_bin = np.zeros(2, np.int64)
    if joined:
        joined[-1] = joined[-1] + open_bin
    if len(joined) < 2:
        return 1.0  # all in one bin, then and now
    return binned(*np.transpose(joined))
