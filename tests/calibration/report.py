"""The stored figures: reports/calibration.json, the same to be read in reports/calibration.md, and what is wrong
with them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from .rows import CONFIDENCE, Figure, Row

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "reports"
COMMON = ("tests/calibration/rows.py", "tests/calibration/samplers.py")


def sources(row: Row) -> list[str]:
    """The files that a row's figures depend on, from the repository's root."""
    globs = (*row.covers, f"tests/calibration/{row.module}", *COMMON)
    return sorted({str(f.relative_to(ROOT)) for g in globs for f in ROOT.glob(g)})


def digest(row: Row) -> str:
    """SHA-256 over the names and contents of these files."""
    out = hashlib.sha256()
    for name in sources(row):
        out.update(f"{name}\0".encode() + (ROOT / name).read_bytes() + b"\0")
    return out.hexdigest()


def entry(row: Row, figures: Mapping[str, Figure], seconds: float) -> dict:
    """What is stored of a row."""
    return {
        "of": row.of, "says": row.says, "runs": row.runs, "seconds": round(seconds, 1), "sha256": digest(row),
        "outside": row.outside,
        "figures": {
            name: asdict(f) | {"value": f.value, "low": f.limits[0], "high": f.limits[1],
                               "target": row.targets[name].text, "holds": row.holds(name, f)}
            for name, f in figures.items()
        },
    }  # fmt: skip


def read(folder: Path = FOLDER) -> dict:
    """Stored rows by name; none where there is no report."""
    path = folder / "calibration.json"
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else {}


def figure(stored: Mapping) -> Figure:
    return Figure(stored["n"], stored["total"], stored["squares"])


def faults(rows: Sequence[Row], stored: Mapping) -> list[str]:
    """What is wrong with stored figures: missing, stale, of another number of runs, or not where they must be."""
    out = [f"{name}: is no row any more" for name in stored if name not in {r.name for r in rows}]
    for row in rows:
        if row.name not in stored:
            if not row.alone:  # a row that runs the whole program for minutes may be left out, and is then not claimed
                out.append(f"{row.name}: was never measured")
            continue
        kept = stored[row.name]
        if kept["sha256"] != digest(row):
            out.append(f"{row.name}: stale, its sources have changed")
        if kept["runs"] != row.runs or set(kept["figures"]) != set(row.targets):
            out.append(f"{row.name}: measured something else")
            continue
        for name, f in kept["figures"].items():
            if not row.holds(name, figure(f)):
                must = "must miss" if row.outside else "misses"
                out.append(f"{row.name}, {name}: {number(figure(f))} {must} its target {row.targets[name].text}")
    return out


def number(f: Figure) -> str:
    """Value and limits, and the hits of a share."""
    low, high = f.limits
    hits = f", {f.total:,.0f} of {f.n:,}" if f.total == f.squares else ""
    return f"{f.value:.4g} [{low:.4g}, {high:.4g}]{hits}"


def write(rows: Mapping[str, dict], facts: Mapping[str, object], folder: Path = FOLDER) -> list[Path]:
    """Write both files; returns their paths."""
    folder.mkdir(exist_ok=True)
    as_json, as_text = folder / "calibration.json", folder / "calibration.md"
    as_json.write_text(json.dumps({**facts, "rows": dict(rows)}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    as_text.write_text(_text(rows, facts), encoding="utf-8")
    return [as_json, as_text]


def _text(rows: Mapping[str, dict], facts: Mapping[str, object]) -> str:
    lines = [
        "# Calibration", "",
        "Measured by `make calibrate` on data whose law is known; written by tests/calibration/report.py, not by hand.",
        f"Brackets are limits of {CONFIDENCE:.1%} confidence (Clopper–Pearson for shares). Rows whose decisions are",
        "made wrong on purpose (planted errors) must miss their targets. `make test` fails if a figure is not where it",
        "must be, or if the sources that it covers have changed since (SHA-256).", "",
        *[f"- {k}: {v}" for k, v in facts.items()],
    ]  # fmt: skip
    for of in dict.fromkeys(r["of"] for r in rows.values()):
        lines += ["", f"## {of}", "", "| row | what | figure | measured | target | holds | sources |",
                  "|---|---|---|---|---|---|---|"]  # fmt: skip
        for name, r in rows.items():
            if r["of"] != of:
                continue
            for label, f in r["figures"].items():
                target = ("outside " if r["outside"] else "") + f["target"]
                lines.append(
                    f"| {name} | {r['says']} | {label} | {number(figure(f))} | {target} "
                    f"| {'yes' if f['holds'] else '**no**'} | {r['sha256'][:12]} |"
                )
    return "\n".join(lines) + "\n"
