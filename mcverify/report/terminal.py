"""The run as it happens, and its results, on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from mcverify.levels import ALPHA
from mcverify.report.figures import measured, number, predicted
from mcverify.report.findings import Finding, counted, findings, verdict_words

if TYPE_CHECKING:
    from mcverify.self_test import Sensitivity, Trial
    from mcverify.verdict import Report, Result
    from mcverify.verification import Event

STYLE = {"confirmed": "green", "refuted": "bold red", "undecided": "yellow"}


def style(r: Result) -> str:
    """A refutation that was expected is no alarm."""
    return STYLE["confirmed" if r.as_expected else r.verdict]


def row(r: Result) -> list[str | Text]:
    """claim, mark, verdict, measured, predicted, margin, mde, samples."""
    i = r.worst
    verdict = Text(verdict_words(r), style(r))
    if i is None:
        return [r.name, r.mark, verdict, *["–"] * 5]
    return [
        r.name, r.mark, verdict, measured(r.estimate[i], r.se[i]), predicted(r.prediction[i], r.se[i]),
        number(r.margin[i], 3), number(r.mde[i], 2), f"{sum(r.samples.values()):,}",
    ]  # fmt: skip


COLUMNS = ("claim", "true to", "verdict", "measured", "predicted", "margin", "mde", "networks")


_DROPPED = ("mde", "true to", "networks", "margin", "predicted")  # in this order, where the terminal is narrow


def table(results: Sequence[Result], width: int) -> Table:
    """One row a claim: its component farthest from the prediction. Narrow terminals lose some columns."""
    rows = [row(r) for r in results]
    keep = list(range(len(COLUMNS)))
    for name in _DROPPED:
        needed = sum(max(len(COLUMNS[i]), *(len(str(r[i])) for r in rows), 0) + 2 for i in keep)
        if needed > width:
            keep.remove(COLUMNS.index(name))
    out = Table(box=None, pad_edge=False, header_style="bold")
    for i in keep:
        out.add_column(COLUMNS[i], justify="right" if i > 2 else "left", no_wrap=True, overflow="fold")
    for r in rows:
        out.add_row(*(r[i] for i in keep))
    return out


class LiveRun:
    """A listener of a verification: the claims measured so far, the one at work, and the time left.

    in_turn: what is told of is done one after the other, and none has a result on its way (a self-test's trials).
    alpha: the run's, at which a claim is refuted until fresh networks say so too, or not."""

    def __init__(self, console: Console, *, in_turn: bool = False, alpha: float = ALPHA) -> None:
        self.console, self.in_turn, self.alpha = console, in_turn, alpha
        self.log = Console(stderr=True)
        self.measured: list[Result] = []
        self.name = ""
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=30), TextColumn("{task.percentage:3.0f}%"),
            TimeElapsedColumn(), TextColumn("so far,"), TimeRemainingColumn(), TextColumn("left"),
        )  # fmt: skip
        self.all = self.progress.add_task("claims", total=1.0)
        self.one = self.progress.add_task("", total=1.0)
        self.live = Live(get_renderable=self._view, console=console, refresh_per_second=8, transient=True)

    def _view(self) -> Group:
        """The last rows that fit above the bars."""
        fit = max(0, self.console.height - 6)
        rows = self.measured[-fit:] if fit else []
        return Group(table(rows, self.console.width), self.progress) if rows else Group(self.progress)

    def __enter__(self) -> LiveRun:
        self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def __call__(self, event: Event) -> None:
        if event.so_far is not None:
            again = bool(event.so_far.p_adjusted <= self.alpha)
            self.measured.append(replace(event.so_far, verdict="refuted") if again else event.so_far)
            words = verdict_words(self.measured[-1]) + "; to be measured again with fresh networks" * again
            self._log(f"{len(self.measured)}/{event.claims} {event.name}: {words}")
        if self.in_turn and event.name != self.name:
            self._log(f"{event.at + 1}/{event.claims} {event.name}")
        self.name = event.name
        decided = event.at if self.in_turn else len(self.measured)
        self.progress.update(self.all, description=f"{decided} of {event.claims} decided", completed=event.run)
        self.progress.update(self.one, description=f"{event.name}: {event.phase}", completed=event.share)

    def _log(self, line: str) -> None:
        """A log gets a line a claim, so that it is never silent for long."""
        if not self.console.is_terminal:
            self.log.print(line, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def counting(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar as a call (done, total)."""
    with Progress(
        TextColumn("{task.completed:,.0f} " + what), BarColumn(bar_width=30), TimeElapsedColumn(),
        TextColumn("so far,"), TimeRemainingColumn(), TextColumn("left"), console=console, transient=True,
    ) as progress:  # fmt: skip
        task = progress.add_task("")
        yield lambda done, total: progress.update(task, completed=done, total=total)


def show_self_test(
    trials: Sequence[Trial], found: Sequence[Sensitivity], console: Console, *, planned: int | None = None,
    left_out: int = 0,
) -> None:  # fmt: skip
    """Each planted error and equivalent simulation with its verdict, and the smallest error that each claim catches.

    planned: how many trials there would have been, had the run not been interrupted. left_out: of how many claims the
    other engine was not tried."""
    out = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("claim", "simulated instead", "verdict", "measured", "claimed"):
        out.add_column(name)
    for t in trials:
        cells = row(t.result)
        wrong = "" if t.passed else f" (must be {t.expected})"
        out.add_row(
            t.result.name, t.name, Text(t.result.verdict + wrong, "green" if t.passed else "bold red"), *cells[3:5]
        )
    console.print(out)
    if found:
        console.print("\nSmallest relative error that each claim catches, in the simulation alone:", highlight=False)
        errors = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("claim", "of", "caught", "not caught"):
            errors.add_column(name, justify="left" if name in ("claim", "of") else "right")
        for s in found:
            errors.add_row(
                s.claim,
                s.of,
                "none up to 100%" if s.caught is None else f"{s.caught:.2%}",
                "" if s.caught is None or s.missed is None else f"{s.missed:.2%}",
            )
        console.print(errors)
    console.print()
    for planted, what in ((True, "planted errors refuted"), (False, "equivalent simulations judged as the claim is")):
        kind = [t for t in trials if t.planted == planted]
        if kind:
            console.print(f"{sum(t.passed for t in kind)} of {len(kind)} {what}.", highlight=False)
    if left_out:
        told = f"The other engine was not tried for {left_out} claims, where it works more than eight times as much."
        console.print(told, highlight=False)
    if planned is not None and len(trials) < planned:
        console.print(f"Interrupted: {len(trials)} of {planned} trials were judged, these.", highlight=False)


def show(report: Report, console: Console) -> None:
    """The table, the findings, every other verdict that is not as expected with its reason, and one closing line."""
    if report.results:
        console.print(table(report.results, console.width))
    for f in findings(report):
        _show_finding(f, console)
    for r in report.results:
        if r.told:
            console.print(f"\n{r.name}: {r.told}", highlight=False)
        if not r.as_expected or (r.verdict != "confirmed" and not r.finding):
            console.print(f"\n{r.name}: {verdict_words(r)}: {r.message}", style=style(r), highlight=False)
            console.print(f"  {r.statement}  [{r.source}]", markup=False, highlight=False)
            console.print(f"  network {r.network}; seed {report.seed}", markup=False, highlight=False)
    console.print()
    end = {0: "green", 1: "bold red", 3: "yellow"}[report.exit_code]
    console.print(report.sentence or closing(report), highlight=False, style=end)


def _show_finding(f: Finding, console: Console) -> None:
    """What it is about, and of each statement its words, its figures and its verdict."""
    console.print(f"\nFinding, {f.outcome}: {f.about}", style="bold", highlight=False)
    for side, r in f.sides:
        console.print(f"  {side.capitalize()}: {verdict_words(r)}  ({r.name})", style=style(r), highlight=False)
        console.print(f"    {r.statement}  [{r.source}]", highlight=False)
        i = f.component(r)
        if i is not None:
            found, held = measured(r.estimate[i], r.se[i]), predicted(r.prediction[i], r.se[i])
            console.print(f"    {f.place(r, i)}: measured {found}, predicted {held}", highlight=False)
    networks = dict.fromkeys(r.network for _, r in f.sides)
    console.print(f"  network {'; '.join(networks)}", highlight=False)


def closing(report: Report) -> str:
    """One line that says how the run ended."""
    end = {0: "every verdict as expected", 1: "NOT as expected", 3: "undecided: more samples are needed"}
    cut = " (interrupted: the claims measured so far)" if report.interrupted else ""
    told = counted(report) or "nothing measured"
    return f"{told}; {end[report.exit_code]}{cut}. Seed {report.seed}, alpha {report.alpha:g} for the whole run."
