"""Findings: what a source says and the data refute, beside the mended statement that they confirm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mcverify.verdict import Report, Result


@dataclass(frozen=True)
class Finding:
    """What it is about; the source's statements, expected refuted; the mended ones, expected confirmed.

    A run of a few claims may hold one side of it alone."""

    about: str
    source: tuple[Result, ...]
    mended: tuple[Result, ...]

    @property
    def reproduced(self) -> bool:
        """Whether both sides were measured, and every verdict is the expected one."""
        return bool(self.source and self.mended) and all(r.as_expected for r in (*self.source, *self.mended))

    @property
    def outcome(self) -> str:
        """`reproduced`, or what is missing, in words."""
        if not (self.source and self.mended):
            return f"half of it: only {'the source’s statement' if self.source else 'the mended statement'} was run"
        return "reproduced" if self.reproduced else "not reproduced"

    @property
    def sides(self) -> list[tuple[str, Result]]:
        """(`as the source has it` or `mended`, the result), the source's first."""
        return [*(("as the source has it", r) for r in self.source), *(("mended", r) for r in self.mended)]

    @staticmethod
    def place(r: Result, i: int) -> str:
        """Component i in words: which, and what its figures are."""
        return f"{r.labels[i]}, {r.quantity}" if r.quantity else r.labels[i]

    def component(self, r: Result) -> int | None:
        """Which component of r to show: where the source's statement is farthest off, so that the sides can be held
        against each other; r's own worst where it has no such component, None where it has none at all."""
        for s in self.source:
            if s.worst is not None and s.labels[s.worst] in r.labels:
                return r.labels.index(s.labels[s.worst])
        return r.worst


def findings(report: Report) -> list[Finding]:
    """The findings that a run's claims belong to, in the order of the claims."""
    together: dict[str, list[Result]] = {}
    for r in report.results:
        if r.finding:
            together.setdefault(r.finding, []).append(r)
    return [
        Finding(
            about,
            tuple(r for r in both if r.expected == "refuted"),
            tuple(r for r in both if r.expected != "refuted"),
        )
        for about, both in together.items()
    ]


def verdict_words(r: Result) -> str:
    """The verdict, and whether it is the expected one where that is not plain."""
    if not r.as_expected:
        return f"{r.verdict} (expected {r.expected})"
    return r.verdict if r.verdict == "confirmed" else f"{r.verdict}, as expected"


def counted(report: Report) -> str:
    """`24 confirmed, 1 refuted as expected (1 finding reproduced), 1 refuted`: how many of each."""
    as_expected = sum(r.as_expected and r.verdict == "refuted" for r in report.results)
    found = sum(f.reproduced for f in findings(report))
    astray = {v: sum(r.verdict == v for r in report.results) for v in ("refuted", "undecided")}
    astray["refuted"] -= as_expected
    told = {
        "confirmed": sum(r.verdict == "confirmed" for r in report.results),
        "refuted as expected" + (f" ({found} finding{'s' * (found != 1)} reproduced)" if found else ""): as_expected,
        **astray,
    }
    return ", ".join(f"{n} {words}" for words, n in told.items() if n)
