"""One width of a claim, now against then: bit for bit, or as two independent samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mcverify.baselines.file import AtWidth
from mcverify.baselines.measurement import QUANTILES, labels_of
from mcverify.claims.claim import Claim
from mcverify.claims.experiment import Estimate
from mcverify.statistics.evidence import Evidence, confirms, mde, samples_needed
from mcverify.statistics.two_sample import LEAST_EXPECTED, binned, binned_mde

Verdict = Literal["agrees", "refuted", "undecided"]
Tier = Literal["bits", "statistics"]


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
class Pair:
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


def judged(q: Pair, adjusted: list[float] | None, alpha: float, level: float, ulps: float) -> Comparison:
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
        labels=labels_of(q.claim), baseline=then.value.tolist(),
        baseline_se=np.sqrt(np.diagonal(then.covariance)).tolist(), now=now.value.tolist(),
        now_se=np.sqrt(np.diagonal(now.covariance)).tolist(), margin=q.then.margin.tolist(),
        mde=mde(e, level).tolist(), bins_mde=binned_mde(q.then.samples, q.now.samples, shares, level / q.bins),
        samples=[q.then.samples, q.now.samples], p_means=p_means, p_bins=p_bins, ulps=moved,
    )  # fmt: skip


def _bits_verdict(q: Pair, moved: float, ulps: float) -> tuple[Verdict, str]:
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


def _ulps(q: Pair) -> float:
    """By how much means and standard deviations moved, at the most, in units of the sampled dtype at their scale."""
    then, now = (np.sqrt(np.diagonal(v.covariance)) for v in (q.then, q.now))
    scale = np.maximum(np.abs(q.then.mean), then) * float(np.finfo(q.dtype).eps)
    distance = np.maximum(np.abs(q.now.mean - q.then.mean), np.abs(now - then))
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.max(np.where(distance == 0, 0.0, distance / scale)))


def bins_p(q: Pair) -> float:
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
