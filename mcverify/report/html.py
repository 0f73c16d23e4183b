"""A run as one web page: what was claimed, what was measured, what follows; and the same as JSON.

The page needs nothing but itself: its style, its plots and its words are in one file.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mcverify.errors import InputError
from mcverify.report import plots
from mcverify.report.figures import measured, number, predicted
from mcverify.report.findings import Finding, counted, findings

if TYPE_CHECKING:
    from mcverify.verdict import Report, Result

VERDICTS = (
    ("confirmed", "the data exclude any deviation larger than the claim's margin"),
    ("refuted", "the data exclude agreement with the claim, and did so again with fresh random networks"),
    ("undecided", "neither could be shown; the claim says why, and how many networks would settle it"),
)
MARKS = {
    "exact": "holds at every width, not only for wide networks",
    "law": "states the whole distribution, not only its mean",
    "first order": "holds up to terms of the order of 1/width squared",
    "limit": "holds as the widths grow without bound; a network of finite width departs from it by about 1/width",
    "bound": "states a limit that is not to be exceeded, not a value",
    "heuristic": "an approximation whose error nobody has bounded",
}
SIGN = {"confirmed": "✓", "refuted": "✗", "undecided": "?"}


@dataclass(frozen=True)
class Fact:
    """A line of a claim's section: what it is, what it says, and whether to set it as code."""

    term: str
    text: str
    code: bool = False


@dataclass(frozen=True)
class Row:
    """A component in words: label, measured ± its standard error, and the numbers it is held against."""

    label: str
    measured: str
    prediction: str
    margin: str
    mde: str
    distance: str


@dataclass(frozen=True)
class Section:
    """A claim as the page shows it. worst: its row of the summary, where it has components."""

    anchor: str
    result: Result
    worst: Row | None
    facts: list[Fact]
    rows: list[Row]
    plot: plots.Plot | None
    networks: str


@dataclass(frozen=True)
class Side:
    """One statement of a finding: whose it is, its claim's section, and the component to hold beside the others', which
    and what its figures are."""

    whose: str
    section: Section
    row: Row | None
    place: str


@dataclass(frozen=True)
class Found:
    """A finding as the page shows it. conditions: what its sides were measured on, each once."""

    about: str
    outcome: str
    reproduced: bool
    sides: list[Side]
    conditions: list[str]


def write(report: Report, directory: Path) -> Path:
    """Write report.html and report.json into a folder, made if need be, and return the page's path.

    In report.json a number that is not finite is null, or `infinity` in words.
    Raises InputError where the folder cannot be written."""
    from mcverify.report.prediction import finite

    page = directory / "report.html"
    data = json.dumps(finite(report.to_dict()), indent=2, ensure_ascii=False)
    text = render(report)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "report.json").write_text(data + "\n", encoding="utf-8")
        page.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError("report", str(directory), f"must be a folder that can be written ({error.strerror})") from None
    return page


def render(report: Report) -> str:
    """The page."""
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("mcverify", "report/templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    sections = [_section(report, i, r) for i, r in enumerate(report.results)]
    counts = [(v, sum(r.verdict == v for r in report.results), meaning) for v, meaning in VERDICTS]
    return environment.get_template("report.html.j2").render(
        report=report, sections=sections, counts=counts, outcome=outcome(report), sign=SIGN, svg=Markup,
        astray=[s for s in sections if not s.result.as_expected], facts=_provenance(report),
        found=[_found(f, sections) for f in findings(report)],
        calm={v: all(r.as_expected for r in report.results if r.verdict == v) for v, _ in VERDICTS},
    )  # fmt: skip


def outcome(report: Report) -> list[str]:
    """What came out: a sentence on the network if there is one, and the counts."""
    count = len(report.results)
    if not count:
        return ["No claim was measured."]
    astray = sum(not r.as_expected for r in report.results)
    expected = f"{astray} not as expected" if astray else "every verdict as expected"
    counts = f"{count} claim{'s' * (count != 1)}: {counted(report)}; {expected}."
    return [report.sentence, counts] if report.sentence else [counts]


def p_text(p: float) -> str:
    """A p-value in words."""
    return "p\u00a0<\u00a01e−300" if 0 <= p < 1e-300 else f"p\u00a0=\u00a0{number(p, 2)}"


def spread(values: Iterable[float], digits: int = 3) -> str:
    """One number where all agree, else the smallest and the largest."""
    known = [v for v in values if math.isfinite(v)]
    if not known:
        return "undefined"
    low, high = number(min(known), digits), number(max(known), digits)
    return low if low == high else f"{low} to {high}"


def distances(r: Result, values: list[float]) -> list[float]:
    """values − prediction in margins, per component; NaN where that is undefined."""
    pairs = zip(values, r.prediction, r.margin, strict=False)
    return [(v - p) / m if m and math.isfinite(v - p) else math.nan for v, p, m in pairs]


def command(report: Report, r: Result) -> str:
    """What to type to see this claim's verdict again."""
    if r.name.startswith("network."):
        typed = str(report.provenance.get("command", "")) or "not recorded"
        return re.sub(r"--seed[ =]random\b", f"--seed {report.seed}", typed)
    from mcverify.claims.plan import Budget
    from mcverify.levels import ALPHA

    if report.provenance.get("cut_by_clock"):
        return "mcverify verify --replay report.json"
    words = ["mcverify", "verify", r.name, "--seed", str(report.seed)]
    if report.alpha != ALPHA:
        words += ["--alpha", f"{report.alpha!r}"]
    standard = str(Budget())
    budget, backend = str(report.provenance.get("budget", standard)), str(report.provenance.get("backend", "auto"))
    if budget != standard:
        words += ["--budget", budget]
    if backend != "auto":
        words += ["--backend", backend]
    return shlex.join(words)


def _section(report: Report, index: int, r: Result) -> Section:
    rows = _rows(r)
    at = r.worst
    return Section(
        anchor=f"claim-{index + 1}", result=r, worst=None if at is None else rows[at], facts=_facts(report, r),
        rows=rows, plot=plots.draw(r), networks=f"{sum(r.samples.values()):,}",
    )  # fmt: skip


def _found(f: Finding, sections: list[Section]) -> Found:
    of = {s.result.name: s for s in sections}
    sides = []
    for whose, r in f.sides:
        section, at = of[r.name], f.component(r)
        row, place = (None, "") if at is None else (section.rows[at], f.place(r, at))
        sides.append(Side(whose, section, row, place))
    return Found(f.about, f.outcome, f.reproduced, sides, list(dict.fromkeys(_conditions(r) for _, r in f.sides)))


def _conditions(r: Result) -> str:
    """The network, and for a ladder the widths that stand for an infinite one."""
    if len(r.samples) < 2:
        return r.network
    return f"{r.network}, at widths from {min(r.samples)} to {max(r.samples)}, carried on to 1/width → 0"


def _rows(r: Result) -> list[Row]:
    columns = zip(r.labels, r.estimate, r.se, r.prediction, r.margin, r.mde, distances(r, r.estimate), strict=True)
    return [
        Row(label, measured(e, se), predicted(p, se), number(m, 3), number(mde, 2), number(d, 2))
        for label, e, se, p, m, mde, d in columns
    ]


def _facts(report: Report, r: Result) -> list[Fact]:
    """Everything about a claim but its numbers."""
    return [
        Fact("Source", r.source),
        Fact("How true", f"{r.mark}: {MARKS.get(r.mark, 'a kind of claim without a description')}."),
        Fact("Network", r.network),
        Fact("Margin", f"{spread(r.margin)}: {r.margin_reason}."),
        Fact("Interval", _interval(r)),
        Fact("Rival", _rival(r)),
        Fact("Evidence", _evidence(report, r)),
        Fact("Networks sampled", _sampled(r)),
        Fact("To repeat it", command(report, r), code=True),
    ]


def _interval(r: Result) -> str:
    """The worst component's confidence limits."""
    if r.worst is None:
        return "nothing was measured"
    low, high = r.interval[r.worst]
    of = f" for {r.labels[r.worst]}" if len(r.labels) > 1 else ""
    return f"{number(low, 6)} to {number(high, 6)}{of}, at 99.9% confidence."


def _rival(r: Result) -> str:
    """The rival's name and its distance where the two theories differ most."""
    if not r.rival_name:
        return "none named"
    away = [abs(d) if math.isfinite(d) else -1.0 for d in distances(r, r.rival)]
    best = max(away, default=-1.0)
    if best < 0:
        return f"{r.rival_name}; how far away is undefined."
    where = f" at {r.labels[away.index(best)]}" if len(away) > 1 else ""
    return f"{r.rival_name}; {number(best, 3)} margins away{where}{', where they differ most' if where else ''}."


def _evidence(report: Report, r: Result) -> str:
    count = len(report.results)
    looks = "" if r.looks == 1 else f", valid at each of {r.looks} looks"
    parts = [f"{p_text(r.p)} for agreement within what the claim promises{looks}"]
    parts.append(f"{p_text(r.p_adjusted)} when adjusted for {count} claim{'s' * (count != 1)} (Holm)")
    if r.p_confirmation is not None:
        parts.append(f"{p_text(r.p_confirmation)} in the confirmation with fresh networks")
    if len(r.samples) > 1:
        parts.append(f"{p_text(r.lack_of_fit)} for the fit in 1/width itself")
    return "; ".join(parts) + "."


def _sampled(r: Result) -> str:
    """Replicates per width; for a ladder, what is made of them."""
    size = "all widths × " if r.name.startswith("network.limit.") else "width "
    told = ", ".join(f"{n:,} at {size}{w}" for w, n in r.samples.items()) or "none"
    if len(r.samples) < 2:
        return f"{told}, in {r.seconds:.1f} s."
    return f"{told}, in {r.seconds:.1f} s. Each estimate is where a fit in powers of 1/width ends as 1/width → 0."


def _provenance(report: Report) -> list[Fact]:
    """How the page came about."""
    names = {"kind": "", "seed": "", "alpha": "", "command": "Command", "machine": "Machine", "platform": "Platform",
             "budget": "Budget", "backend": "Backend", "claims": "", "looks": "", "cut_by_clock": ""}  # fmt: skip
    facts = [
        Fact("Seed", str(report.seed), code=True),
        Fact("Alpha", f"{report.alpha:g}: the chance that the whole run refutes anything true, before confirmation."),
        Fact("Exit code", f"{report.exit_code}{' (interrupted)' if report.interrupted else ''}"),
    ]
    for key, value in report.provenance.items():
        term = names.get(key, f"{key} version" if key in ("mcverify", "numpy", "python") else key)
        if term:
            facts.append(Fact(term, str(value), code=key == "command"))
    return facts
