"""Baselines compared: the same networks sampled again, all of them judged together by Holm, and what is refuted
recorded again where theory still holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mcverify import results
from mcverify.baselines.file import Baseline, path_of, read
from mcverify.baselines.judging import Comparison, Pair, Tier, bins_p, judged
from mcverify.baselines.measurement import QUANTILES, SAME, estimated, facts_of, gram_of, labels_of, measure
from mcverify.baselines.recording import admit
from mcverify.claims.catalogue import catalogue, select
from mcverify.claims.claim import Claim, Mutant, identity
from mcverify.claims.experiment import Run
from mcverify.claims.plan import LEAST, Budget
from mcverify.errors import InputError
from mcverify.levels import ALPHA
from mcverify.network import describe
from mcverify.statistics.evidence import p_value
from mcverify.statistics.multiplicity import holm
from mcverify.validate import between, count, writable
from mcverify.verification import Listener


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
    pairs: list[Pair] = []
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
    p = np.array([p_value(t.evidence) for t in tests] + [bins_p(t) for t in tests] + [1.0] * 2 * missed)
    adjusted = iter(holm(p)[: 2 * len(tests)].reshape(2, -1).T.tolist())
    level = alpha / max(1, number)
    rows = [judged(q, None if q.tier == "bits" else next(adjusted), alpha, level, ulps) for q in pairs]
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
    done = admit(changed, folder, sizes, seeds, first, budget, backend, threads, listener)
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
    gram = gram_of(claim)
    if gram.shape != b.gram.shape or not np.allclose(gram, b.gram, rtol=1e-6, atol=1e-6):
        raise refuse("was recorded with other inputs")
    if labels_of(claim) != b.labels or b.full != (claim.combine is not identity):
        raise refuse("the claim's components are others now")
    return b


def _pairs(
    claim: Claim, b: Baseline, seed: int | None, samples: int | None, backend: str, threads: int | None,
    mutant: Mutant | None,
) -> list[Pair]:  # fmt: skip
    """Each width's values then and now, with their evidence."""
    run = Run(int(b.recorded["seed"]) if seed is None else seed, backend, threads)
    sizes = {w: v.samples if samples is None else samples for w, v in b.widths.items()}
    facts = facts_of(claim, run, list(sizes))
    repeats = all(facts[key] == b.recorded.get(key) for key in SAME)
    measured, bad = measure(claim, run, sizes, {w: v.edges for w, v in b.widths.items()}, mutant)
    out = []
    for width, then in b.widths.items():
        now = measured[width]
        tier: Tier = "bits" if repeats and now.samples == then.samples else "statistics"
        estimates = estimated(claim, then), estimated(claim, now)
        out.append(Pair(claim, width, tier, then, now, estimates, facts["dtype"], bad))
    return out
