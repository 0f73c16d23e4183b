"""Baselines on the terminal: what was recorded, and what moved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mcverify.baselines import Comparison, Comparisons, Recorded
from mcverify.report.terminal import STYLE

_STYLE = STYLE | {"agrees": "green"}
COLUMNS = ("claim", "width", "component", "baseline", "now", "difference", "mde", "verdict")


def rows(c: Comparison) -> list[list[str | Text]]:
    """The component that moved most, by its standard errors; all of them where the verdict is not that they agree."""
    moved = [abs(d) for d in c.differences]
    worst = [max(range(len(moved)), key=moved.__getitem__)]
    shown = worst if c.verdict == "agrees" else range(len(moved))
    return [
        [
            c.claim, str(c.width), c.labels[i], f"{c.baseline[i]:.6g} ± {c.baseline_se[i]:.1g}",
            f"{c.now[i]:.6g} ± {c.now_se[i]:.1g}", f"{c.differences[i]:+.2f} se", f"{c.mde[i]:.2g}",
            Text(c.verdict + (" (bits)" if c.tier == "bits" else ""), _STYLE[c.verdict]),
        ]
        for i in shown
    ]  # fmt: skip


def table(comparisons: Sequence[Comparison]) -> Table:
    """Baseline against now, with the difference in standard errors of both and what would have been refuted."""
    out = Table(box=None, pad_edge=False, header_style="bold")
    for name in COLUMNS:
        text = name in ("claim", "component", "verdict")
        least = {"claim": 28, "component": 14}.get(name)  # these two fold, but not into a pile of letters
        justify: Literal["left", "right"] = "left" if text else "right"
        out.add_column(name, justify=justify, no_wrap=least is None, overflow="fold", min_width=least)
    for c in comparisons:
        for cells in rows(c):
            out.add_row(*cells)
    return out


def show(found: Comparisons, console: Console) -> None:
    """The diff, the reason of every verdict but agreement, what was rewritten, and one closing line."""
    console.print(table(found.rows))
    console.print()
    for c in found.rows:
        if c.verdict != "agrees":
            line = f"{c.claim} at width {c.width}: {c.verdict}: {c.message}"
            console.print(line, style=_STYLE[c.verdict], highlight=False, soft_wrap=True)
    if found.updated:
        console.print(f"Recorded again: {', '.join(found.updated)}", highlight=False, soft_wrap=True)
    _show_refused(found.refused, console)
    console.print(closing(found), highlight=False, soft_wrap=True)


def closing(found: Comparisons) -> str:
    """One line that says how the comparison ended, and what it could have missed."""
    counts = {v: sum(c.verdict == v for c in found.rows) for v in ("agrees", "refuted", "undecided")}
    told = ", ".join(f"{n} {'agree' if v == 'agrees' else v}" for v, n in counts.items() if n) or "nothing compared"
    if found.interrupted:
        told += " (interrupted: the claims compared so far)"
    statistical = [c for c in found.rows if c.tier == "statistics"]
    if not statistical:
        return f"{told}, of {len(found.rows)} widths; by the bits of the recording."
    bins = max(c.bins_mde for c in statistical)
    return (
        f"{told}, of {len(found.rows)} widths; {len(statistical)} by statistics, alpha {found.alpha:g} for all. "
        f"Means that moved by less than the mde, and distributions by less than {bins:.2g} (√Σ (p − p₀)²/p over "
        "bins), may have been missed."
    )


def show_recorded(done: Recorded, folder: Path, console: Console) -> None:
    """What was stored, and what was refused and why."""
    _show_refused(done.refused, console)
    console.print(f"Recorded in {folder}: {len(done.written)} of {len(done.written) + len(done.refused)} claims.",
                  highlight=False, soft_wrap=True)  # fmt: skip


def _show_refused(refused: dict[str, str], console: Console) -> None:
    for name, reason in refused.items():
        line = f"{name}: not recorded: {reason}"
        console.print(line, style="bold red", highlight=False, soft_wrap=True)
