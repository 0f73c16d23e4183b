"""What a claim's networks measure, for a baseline: moments, counts in bins fixed beforehand, a digest of every value,
and where the numbers come from."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcverify import results
from mcverify.baselines.file import AtWidth
from mcverify.claims import experiment
from mcverify.claims.claim import Claim, Mutant, identity
from mcverify.claims.experiment import Estimate, Run, Sample, Sizes, estimate, extend
from mcverify.claims.plan import LEAST
from mcverify.errors import InputError
from mcverify.network import describe
from mcverify.simulation.moments import Moments
from mcverify.simulation.simulate import choose_engine

FloatArray = NDArray[np.float64]

SAMPLES = LEAST  # networks of each width
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)  # of the pilot, where bins end: place, spread and both tails
_EDGE_DIGITS = 4  # of a spread: edges may lie anywhere, so let them be short
_CONSTANT = 1e-5  # a relative spread that may be rounding alone, of float32 through some layers
_PHASE = "baseline"

# What must agree for every bit to come back. The processor's name stands for what compilers and dispatchers choose.
SAME = ("seed", "backend", "engine", "dtype", "instructions", "machine", "processor", "libc", "numpy", "scipy", "numba",
        "llvmlite")  # fmt: skip


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


def measure(
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


def bin_edges(claim: Claim, run: Run, sizes: Sizes) -> dict[int, FloatArray]:
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


def estimated(claim: Claim, v: AtWidth) -> Estimate:
    """The claim's components with their errors."""
    moments = Moments(cross=True)
    kept = int(v.counts[0].sum())
    moments.count, moments.mean, moments.squares = kept, v.mean, v.covariance * (kept - 1)
    return estimate(claim, moments)


def gram_of(claim: Claim) -> FloatArray:
    net = claim.networks(max(claim.widths))
    x = claim.inputs(net)
    flat = x.reshape(len(x), -1)
    return np.round(flat @ flat.T / flat.shape[1], 9) + 0.0  # no negative zero


def labels_of(claim: Claim) -> list[str]:
    return claim.labels(claim.networks(max(claim.widths)))


def facts_of(claim: Claim, run: Run, widths: Sequence[int]) -> dict[str, str]:
    """Where numbers come from, as texts."""
    from llvmlite.binding import get_host_cpu_name

    net = claim.networks(max(widths))
    engine, backend = choose_engine(claim.engine, run.backend, experiment.DTYPE, net, len(claim.inputs(net)))
    facts = results.provenance(
        seed=str(run.seed), backend=backend, engine=engine.name, dtype=experiment.DTYPE, processor=get_host_cpu_name(),
        libc=" ".join(platform.libc_ver()), numba=version("numba"), llvmlite=version("llvmlite"),
    )  # fmt: skip
    return {key: str(facts[key]) for key in (*SAME, "mcverify", "python", "platform")}
