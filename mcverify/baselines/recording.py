"""Baselines recorded: a claim is stored only once its theory check has given the expected verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mcverify.baselines.file import Baseline, write
from mcverify.baselines.measurement import SAMPLES, bin_edges, estimated, facts_of, gram_of, labels_of, measure
from mcverify.claims.claim import Claim, identity
from mcverify.claims.experiment import Estimate, Run, Sizes
from mcverify.claims.plan import LEAST, Budget
from mcverify.errors import InputError
from mcverify.statistics.evidence import confirmation_distance
from mcverify.validate import count, writable
from mcverify.verdict import Report
from mcverify.verification import Listener, run_claims

FloatArray = NDArray[np.float64]

RUNGS = 2  # a ladder's smallest widths: the cheapest, and two of them see a change of its slope


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
    return admit(claims, folder, sizes, {c.name: seed for c in claims}, seed, budget, backend, threads, listener)


def admit(
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
    measured, bad = measure(claim, run, sizes, bin_edges(claim, run, sizes))
    if bad:
        raise InputError("baseline", claim.name, f"{bad} networks gave values that are not finite")
    widths = {w: replace(v, margin=_margin(estimated(claim, v))) for w, v in measured.items()}
    facts = facts_of(claim, run, list(sizes))
    full = claim.combine is not identity
    return Baseline(claim.name, verdict, labels_of(claim), gram_of(claim), facts, widths, full)


def _margin(e: Estimate) -> FloatArray:
    """The difference that two samples of this size exclude, if there is none, with probability 0.9999; (k,), to two
    digits, upwards."""
    reach = confirmation_distance(len(e.value)) * np.sqrt(2 * np.diagonal(e.covariance))
    unit = 10.0 ** (np.floor(np.log10(reach)) - 1)
    return np.array([float(f"{m:.2g}") for m in np.ceil(reach / unit) * unit])
