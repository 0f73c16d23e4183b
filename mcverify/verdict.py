"""What a verification returns: results with all that stands behind them, and their report."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from mcverify.claims.claim import Verdict


@dataclass(frozen=True)
class Result:
    """A claim's verdict with all that stands behind it. Lists run over components; `interval` holds confidence limits
    of level 99.9% for each, and `samples` how many of each width (0 where there are no widths). told: what the sample
    shows besides."""

    name: str
    verdict: Verdict
    expected: Verdict
    statement: str
    source: str
    mark: str
    labels: list[str]
    estimate: list[float]
    se: list[float]
    interval: list[list[float]]
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
    looks: int = 1
    finding: str = ""
    quantity: str = ""
    told: str = ""

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
