"""python -m tests.calibration [ROW…]: measure rows of the calibration suite, and write reports/calibration.md.

ROW: names or patterns like 'ladder/*'; all by default. Other rows keep their stored figures.
--quick     a fiftieth of the runs, to try things out: nothing is written
--stale     only rows that are missing or whose sources have changed
--seed N    0 by default
--list      the rows, with about how long each takes, and leave
Exit status: 0 where every figure is where it must be, 1 otherwise.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from fnmatch import fnmatchcase

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: batches share the cores already

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from . import report
from .rows import Row
from .run import all_rows, run

QUICK = 1 / 50


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.calibration", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("row", nargs="*")
    for flag in ("--quick", "--stale", "--list"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows = chosen(options.row, options.stale)
    if options.list:
        for r in rows:
            print(f"{r.name:36} {r.runs:>9,} runs  about {r.seconds:5.0f} s of one core  {r.says}")
        return 0
    if not rows:
        print("no such row" if options.row else "every row is up to date")
        return int(bool(options.row))
    return measured(rows, options.seed, QUICK if options.quick else 1.0, write=not options.quick)


def chosen(patterns: list[str], stale: bool) -> list[Row]:
    stored = report.read()
    rows = [r for r in all_rows().values() if not patterns or any(fnmatchcase(r.name, p) for p in patterns)]
    return [r for r in rows if not stale or stored.get(r.name, {}).get("sha256") != report.digest(r)]


def measured(rows: list[Row], seed: int, share: float, *, write: bool) -> int:
    """Measure, show and store; rows are stored as they end, so that an interrupt loses little."""
    console, log = Console(stderr=True), Console(width=200)
    stored, bad, began = report.read(), 0, time.time()
    workers = os.cpu_count() or 1
    progress = Progress(TextColumn("{task.description:40}"), BarColumn(30), TextColumn("{task.percentage:3.0f}%"),
                        TimeElapsedColumn(), TextColumn("so far,"), TimeRemainingColumn(60), TextColumn("left"),
                        console=console)  # fmt: skip
    with progress:
        # A row that is alone takes all cores: its seconds count once for each.
        task = progress.add_task("calibration", total=sum(r.seconds for r in rows) * share)

        def tell(row: Row, part: float) -> None:
            progress.update(task, advance=row.seconds * share * part, description=row.name)

        for row, figures, seconds in run(rows, seed, share, workers, tell):
            for name, f in figures.items():
                holds = row.holds(name, f)
                bad += not holds
                mark = "ok  " if holds else "MISS"
                log.print(f"{mark} {row.name}, {name}: {report.number(f)}; target "
                          f"{'outside ' * row.outside}{row.targets[name].text} ({seconds:.1f} s)",
                          highlight=False, markup=False, soft_wrap=True)  # fmt: skip
            if write:
                stored[row.name] = report.entry(row, figures, seconds)
                facts = {"seed": seed, "cpu": platform.processor() or platform.machine(), "cores": workers,
                         "python": platform.python_version()}  # fmt: skip
                report.write({n: stored[n] for n in all_rows() if n in stored}, facts)
    log.print(f"{len(rows)} rows in {time.time() - began:.0f} s; {bad} figures are not where they must be")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
