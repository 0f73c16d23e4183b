"""The files of known answers: writing one, checking one, and the command line the scripts share.

A table is made of cases, each of which can be computed alone and gives some of its rows. Without options a script
writes its table next to itself; --check recomputes some cases (--all: every one) and compares strings with the file.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from mpmath import mp, mpf

FOLDER = Path(__file__).resolve().parent

Row = dict[str, Any]


def decimal(x: mpf | None, digits: int = 20) -> str | None:
    """x as a decimal string with so many significant digits; None stays None."""
    return None if x is None else mp.nstr(mpf(x), digits)


def exact_decimal(x: float) -> str:
    """Every digit of the double x."""
    exact = Decimal(float(x))
    return format(exact, "f") if abs(x) > 1e-4 or x == 0 else str(exact)


@dataclass(frozen=True)
class Case:
    """Rows that are computed together, and whether a plain --check recomputes them."""

    label: str
    rows: Callable[[], list[Row]]
    quick: bool = False


@dataclass(frozen=True)
class Table:
    """A file of known answers: its name, its own words about itself, and the cases its rows come from.

    source is called once the rows are made, for it may quote how well the cross-checks agreed.
    """

    file: str
    description: str
    source: Callable[[], str]
    format: str
    cases: Sequence[Case]


def _computed(case: Case) -> list[Row]:
    """The rows of one case as they read back from a file, telling the time they took."""
    start = time.perf_counter()
    rows = json.loads(json.dumps(case.rows()))
    print(f"{case.label}: {time.perf_counter() - start:.1f} s", flush=True)
    return rows


def write(table: Table, folder: Path) -> None:
    """Compute every row and write the file into folder."""
    rows = [row for case in table.cases for row in _computed(case)]
    document = {
        "description": table.description,
        "source": table.source(),
        "format": table.format,
        "rows": rows,
    }
    (folder / table.file).write_text(json.dumps(document, indent=1), encoding="utf-8")
    print(f"{folder / table.file}: {len(rows)} rows")


def _difference(row: Row, stored: list[Row]) -> str:
    """How row differs from the stored row that shares most with it."""

    def shared(other: Row) -> int:
        return sum(other.get(key) == value for key, value in row.items())

    nearest = max(stored, key=shared, default={})
    changed = {k: (nearest.get(k), row.get(k)) for k in {**nearest, **row} if nearest.get(k) != row.get(k)}
    same = {k: v for k, v in row.items() if k not in changed and isinstance(v, str | int)}
    return f"{same}\n" + "\n".join(f"  {k}: stored {old!r}, now {new!r}" for k, (old, new) in changed.items())


def check(table: Table, every_row: bool) -> int:
    """Compare the table computed anew (its quick cases, or every one) with the stored file; how many differences."""
    document = json.loads((FOLDER / table.file).read_text(encoding="utf-8"))
    stored = document["rows"]
    made: list[Row] = []
    differences = 0

    def tell(difference: str) -> None:
        nonlocal differences
        differences += 1
        print(f"DIFFERS {difference}", flush=True)

    for case in table.cases:
        if every_row or case.quick:
            rows = _computed(case)
            made += rows
            for row in rows:
                if row not in stored:
                    tell(_difference(row, stored))
    if every_row and not differences and made != stored:
        tell("rows: the file holds rows that are no longer made, or another order of rows")
    for key, words in (("description", table.description), ("format", table.format)):
        if document[key] != words:
            tell(f"{key}: the words of the file are not those of the script")
    print(f"{table.file}: {len(made)} of {len(stored)} rows recomputed, {differences} differences")
    return differences


def main(table: Table) -> None:
    """The command line of one script."""
    parser = argparse.ArgumentParser(description=f"Compute {table.file} and write it, or check the file that is there.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a row recomputed differs")
    parser.add_argument("--all", action="store_true", help="with --check: recompute every row, not a few")
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="FOLDER", help="write here, not next to the script")
    options = parser.parse_args()
    if options.all and not options.check:
        parser.error("--all goes with --check")
    if options.check:
        sys.exit(1 if check(table, options.all) else 0)
    write(table, options.out)
