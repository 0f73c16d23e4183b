"""The command line. Each command imports what it needs when it runs, so that --help is quick.

Exit codes: 0 every verdict as expected · 1 something refuted · 2 unusable input · 3 undecided.
"""

from __future__ import annotations

import errno
import json
import sys
from contextlib import ExitStack
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mcverify import __version__
from mcverify.errors import InputError, Unpredictable
from mcverify.levels import ALPHA

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcverify.claims.claim import Claim
    from mcverify.network_file import NetworkFile
    from mcverify.theory.phase_record import Phase


class _Group(click.Group):
    """Turns unusable input, and output that cannot be written, into one line and exit code 2, and an interrupt into
    exit code 130."""

    def invoke(self, ctx: click.Context) -> Any:
        if isinstance(sys.stdout, TextIOWrapper):  # a terminal without σ shows ?, and keeps the verdict
            sys.stdout.reconfigure(errors="replace")
        try:
            return super().invoke(ctx)
        except InputError as error:
            click.echo(f"mcverify: {error}", err=True)
            sys.exit(2)
        except Unpredictable as error:
            click.echo(f"mcverify: cannot predict: {error}", err=True)
            sys.exit(2)
        except (KeyboardInterrupt, click.Abort):
            click.echo("mcverify: interrupted before anything was measured", err=True)
            sys.exit(130)
        except BrokenPipeError:
            sys.stderr.close()
            sys.exit(141)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG):
                raise
            click.echo(f"mcverify: the output cannot be written: {error.strerror}", err=True)
            sys.exit(2)


def _console(stderr: bool = False) -> Any:
    """The terminal, or a page wide enough for every column where the output is a file or a pipe."""
    from rich.console import Console

    class Plain(Console):
        """Names may hold brackets, which are no markup; and who stops reading has refuted nothing."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    console = Plain(stderr=stderr, markup=False)
    return console if console.is_terminal else Plain(stderr=stderr, width=140, markup=False)


def _seed(_: click.Context, __: click.Parameter, value: str) -> int:
    """An int, or `random`, which is printed with the result."""
    if value == "random":
        import secrets

        return secrets.randbits(63)
    if not (value.isascii() and value.isdigit()) or len(value) > 20 or int(value) >= 2**64:
        raise InputError("--seed", value, "must be a whole number from 0 to 2**64 - 1, or 'random'")
    return int(value)


seed_option = click.option("--seed", default="0", callback=_seed, metavar="N|random", help="Seed of every draw [0].")
def _backend(ctx: click.Context, option: click.Parameter, value: str) -> str:
    """The name; a line on stderr where auto has to do without a GPU that it was prepared for. It is for people, and for
    who asked: a program that reads stderr and never spoke of a backend is spared it."""
    from mcverify.kernels.backends import why_cpu

    asked = ctx.get_parameter_source(str(option.name)) is click.core.ParameterSource.COMMANDLINE
    if (asked or sys.stderr.isatty()) and (why := why_cpu(value)):
        click.echo(why, err=True)
    return value


backend_option = click.option("--backend", default="auto", callback=_backend, help="auto, cpu, cuda or reference.")
threads_option = click.option("--threads", type=click.IntRange(1), help="Threads [all cores].")
plot_option = click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.svg|png|pdf",
                           help="Draw it, layer by layer.")  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Does a wide random neural network behave as theory says, and how sure are we?"""


@main.command()
@click.argument("what", nargs=-1, metavar="[NET.toml | CLAIM-PATTERN ...]")
@seed_option
@click.option("--alpha", type=float, default=ALPHA, show_default=True,
              help="Chance that the whole run refutes anything true, before confirmation.")  # fmt: skip
@click.option("--budget", metavar="90s|20000", default=None,
              help="Seconds for the run (90s, 2m), or networks for each claim [about 2 s a claim].")  # fmt: skip
@backend_option
@threads_option
@click.option("--report", "directory", type=click.Path(file_okay=False, path_type=Path), default="mcverify-report",
              show_default=True, help="Folder for report.html.")  # fmt: skip
@click.option("--self-test", "self_test", is_flag=True,
              help="Plant errors instead: every one must be refuted, every equivalent simulation confirmed; "
                   "and find the smallest error that each claim catches.")  # fmt: skip
@click.option("--replay", type=click.Path(dir_okay=False, path_type=Path), metavar="REPORT.json",
              help="Repeat a run to the bit, also one that the clock cut.")  # fmt: skip
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.xml",
              help="Write the verdicts as JUnit XML too, a test case a claim.")  # fmt: skip
@json_option
def verify(
    what: tuple[str, ...], seed: int, alpha: float, budget: str | None, backend: str, threads: int | None,
    directory: Path, self_test: bool, replay: Path | None, junit: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Verify the whole catalogue, the claims that match a pattern, or your own network."""
    if self_test:
        for name, given_too in (("--json", as_json), ("--junit", junit)):
            if given_too:
                raise InputError(name, given_too, "does not go with --self-test")
        _self_test(what, seed, budget, backend, threads)
    from mcverify.claims.plan import Budget, parse_budget
    from mcverify.report import html, prediction, terminal
    from mcverify.report.junit import write as write_junit
    from mcverify.validate import new_file, writable
    from mcverify.verification import verify as run

    writable("--report", directory)  # refused before the run, not after it
    if junit is not None:
        new_file("--junit", junit, (".xml",))
    console = _console(stderr=as_json)
    given = _network_file(what)
    spend, looks = Budget() if budget is None else parse_budget(budget), None
    if replay is not None:
        from mcverify.report.replay import read

        again = read(replay, given, backend)
        what, seed, alpha, spend, looks = again.what or what, again.seed, again.alpha, again.budget, again.looks
    with terminal.LiveRun(console, alpha=alpha) as live:
        report = run(
            what if given is None else given.net,
            None if given is None else given.x,
            margin=None if given is None else given.margin,
            margin_in_all=None if given is None else given.margin_in_all,
            rng=seed, alpha=alpha, budget=spend, backend=backend, threads=threads, looks=looks, listener=live,
        )  # fmt: skip
        page = html.write(report, directory) if report.results else "none, since nothing was measured"
        if junit is not None:
            write_junit(report, junit)
    if as_json:
        click.echo(json.dumps(prediction.finite(report.to_dict()), indent=2))
    else:
        terminal.show(report, console)
        console.print(f"Report: {page}", highlight=False, soft_wrap=True)
    sys.exit(report.exit_code)


def _self_test(what: tuple[str, ...], seed: int, budget: str | None, backend: str, threads: int | None) -> None:
    """Exit 0 when every verdict is the expected one, 1 when one is not, 3 when the run was cut short."""
    from mcverify.claims.plan import Budget, parse_budget
    from mcverify.report import terminal
    from mcverify.self_test import count, self_test, sensitivities, too_dear

    spend = Budget() if budget is None else parse_budget(budget)
    if spend.seconds is not None:
        raise InputError("--budget", budget, "with --self-test must be networks for each claim, not seconds")
    claims = _claims(what, spend.work)
    console = _console()
    with terminal.LiveRun(console, in_turn=True) as live:
        done = self_test(claims, seed=seed, budget=spend, backend=backend, threads=threads, listener=live)
        complete = len(done) == count(claims)
        found = (
            sensitivities(claims, seed=seed, budget=spend, backend=backend, threads=threads, listener=live)
            if complete
            else []
        )
    terminal.show_self_test(done, found, console, planned=count(claims), left_out=sum(map(too_dear, claims)))
    if not all(t.passed for t in done):
        sys.exit(1)
    sys.exit(0 if complete else 3)


def _network_file(what: tuple[str, ...]) -> NetworkFile | None:
    """The network file that was named, if it was a file and not claims."""
    from mcverify.network_file import read

    files = [w for w in what if w.endswith(".toml")]
    if files and len(what) > 1:
        raise InputError("verify", " ".join(what), "takes one NET.toml, or claim patterns, not both")
    return read(files[0]) if files else None


def _claims(what: tuple[str, ...], work: float) -> list[Claim]:
    """The catalogue's claims, or those that follow for a network file; work: that one claim's ladder may cost."""
    from mcverify.claims.catalogue import select
    from mcverify.claims.generic import generic_claims
    from mcverify.inputs import checked

    given = _network_file(what)
    if given is None:
        return select(what)
    x = checked(given.x, given.net.input_shape)
    return generic_claims(given.net, x, given.margin, work, given.margin_in_all)


@main.command()
@click.argument("net", metavar="NET.toml")
@click.option("--order", type=click.IntRange(0, 1), default=0, show_default=True,
              help="1: with what these widths add to the limit, to first order in 1/width.")  # fmt: skip
@plot_option
@json_option
def predict(net: str, order: int, plot: Path | None, as_json: bool) -> None:
    """What theory says of your network, in words and numbers."""
    from mcverify.network_file import read
    from mcverify.report import first_order, pictures, prediction
    from mcverify.theory.predict import predict as run
    from mcverify.validate import new_file

    if plot is not None:
        new_file("--plot", plot, pictures.FORMATS)
    given = read(net)
    if plot is not None:
        pictures.save(pictures.layers(given.net, given.x), plot)
    if order and as_json:
        click.echo(json.dumps(first_order.as_dict(given.net, given.x), indent=2))
        return
    if as_json:
        click.echo(json.dumps(prediction.as_dict(given.net, given.x), indent=2))
        return
    console = _console()
    more = run(given.net, given.x, order=1) if order else None  # refused before anything is shown
    prediction.show(given.net, given.x, console)
    if more is not None:
        console.print()
        first_order.show(given.net, more, console)


@main.command()
@click.argument("net", metavar="NET.toml")
@click.option("--samples", type=int, default=1000, show_default=True, help="How many networks to sample.")
@seed_option
@backend_option
@click.option("--engine", default="auto", show_default=True, help="auto, explicit or conditional.")
@threads_option
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Store the result as netCDF.")
@click.option("--replicates", is_flag=True, help="With --out: store every network, not only means.")
@plot_option
@json_option
def simulate(
    net: str, samples: int, seed: int, backend: str, engine: str, threads: int | None, out: Path | None,
    replicates: bool, plot: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Sample your network many times and hold the means against theory."""
    from mcverify import results
    from mcverify.network_file import read
    from mcverify.report import pictures, prediction, terminal
    from mcverify.simulation.simulate import simulate as run
    from mcverify.validate import new_file

    if replicates and out is None:
        raise InputError("--replicates", True, "needs --out FILE")
    if replicates and plot is not None:
        raise InputError("--plot", str(plot), "does not go with --replicates")
    if out is not None:
        new_file("--out", out)
    if plot is not None:
        new_file("--plot", plot, pictures.FORMATS)
    given = read(net)
    console = _console(stderr=as_json)
    with terminal.counting(console, "networks") as progress:
        measured = run(
            given.net, given.x, samples, seed, engine, backend,
            replicates=replicates, threads=threads, progress=progress,
        )  # fmt: skip
    if out is not None:
        results.save(measured, out)
        console.print(f"Stored: {out}", highlight=False)
    if plot is not None:
        pictures.save(pictures.layers(given.net, given.x, measured), plot)
    if as_json:
        click.echo(json.dumps(prediction.finite(results.as_dict(measured)), indent=2))
    elif not replicates:
        prediction.compare(given.net, given.x, measured, console)


@main.command()
@click.argument("net", metavar="NET.toml")
@click.option("--margin", default="5%", show_default=True, metavar="5%|0.05",
              help="Deviation that still counts as holding: relative, for correlations absolute.")  # fmt: skip
@click.option("--no-sampling", is_flag=True, help="Theory alone: nothing is confirmed by sampled networks.")
@seed_option
@backend_option
@threads_option
@click.option("--report", "directory", type=click.Path(file_okay=False, path_type=Path), default="mcverify-report",
              show_default=True, help="Folder for validity.html.")  # fmt: skip
@json_option
def validity(
    net: str, margin: str, no_sampling: bool, seed: int, backend: str, threads: int | None, directory: Path,
    as_json: bool,
) -> None:  # fmt: skip
    """From which width on, and to which depth, the limit's predictions hold within a margin."""
    from mcverify.network_file import read
    from mcverify.report import prediction, terminal
    from mcverify.report import validity as report
    from mcverify.sampled_validity import validity as run
    from mcverify.validate import writable

    writable("--report", directory)
    given = read(net)
    console = _console(stderr=as_json)
    with ExitStack() as bar:
        shown: list[Callable[[int, int], None]] = []

        def progress(done: int, total: int) -> None:
            """A bar from the first network on: theory may refuse before."""
            if not shown:
                shown.append(bar.enter_context(terminal.counting(console, "weights or their like")))
            shown[0](done, total)

        found = run(
            given.net, given.x, margin, rng=seed, confirm=not no_sampling, backend=backend, threads=threads,
            progress=progress,
        )  # fmt: skip
    page = report.write(found, directory)
    if as_json:
        click.echo(json.dumps(prediction.finite(found.to_dict()), indent=2))
    else:
        report.show(found, console)
        console.print(f"Report: {page}", highlight=False, soft_wrap=True)
    sys.exit(found.exit_code)


@main.command()
@click.argument("activation")
@click.option("--sigma-w2", type=float, help="Weights have variance sigma_w2 / fan_in. Left out: with --diagram.")
@click.option("--sigma-b2", type=float, default=0.0, show_default=True, help="Variance of the biases.")
@click.option("--keep", type=float, default=1.0, show_default=True, help="Dropout's keep probability.")
@click.option("--q0", type=float, default=1.0, show_default=True,
              help="The variance to start from, which matters where there are several fixed points.")  # fmt: skip
@click.option("--diagram", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.svg|png|pdf",
              help="Draw the phases over (sigma_w2, sigma_b2), and the point among them.")  # fmt: skip
@json_option
def phase(
    activation: str, sigma_w2: float | None, sigma_b2: float, keep: float, q0: float, diagram: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Fixed points, depth scales and the phase of an activation at (sigma_w2, sigma_b2), or a diagram of all."""
    from dataclasses import asdict

    from mcverify.report import pictures, prediction
    from mcverify.theory.phase import phase as analyse
    from mcverify.validate import new_file

    if sigma_w2 is None and diagram is None:
        raise InputError("--sigma-w2", None, "must be a variance, or give --diagram FILE.svg for all of them")
    if diagram is not None:
        new_file("--diagram", diagram, pictures.FORMATS)
    found = None if sigma_w2 is None else analyse(activation, sigma_w2, sigma_b2, keep, q0=q0)
    if found is not None:
        told = json.dumps(prediction.finite(asdict(found)), indent=2) if as_json else prediction.phase_text(found)
        click.echo(told)
    if diagram is not None:
        _diagram(activation, found, keep, q0, diagram)


def _diagram(activation: str, here: Phase | None, keep: float, q0: float, path: Path) -> None:
    """About the point, where one is given; on stderr, since stdout may be JSON."""
    from mcverify.report import pictures, terminal
    from mcverify.theory.phase_diagram import axes_about, phase_diagram

    console = _console(stderr=True)
    with terminal.counting(console, "points") as progress:
        found = phase_diagram(activation, *axes_about(here), keep, q0=q0, progress=progress)
    pictures.save(pictures.phase_diagram(found, here), path)
    console.print(f"Diagram: {path}", highlight=False, soft_wrap=True)


@main.command()
@click.argument("activation")
@click.option("--width", type=click.IntRange(1, 10**6), default=256, show_default=True, help="Units of each layer.")
@click.option("--depth", type=click.IntRange(1, 10**4), default=20, show_default=True, help="How many layers.")
@click.option("--input-dim", type=click.IntRange(1, 10**6), help="Units of the input [the width].")
@json_option
def initialisers(activation: str, width: int, depth: int, input_dim: int | None, as_json: bool) -> None:
    """Sort all named initialisers on a fully connected network: which are right for it, and how others fail."""
    from dataclasses import asdict

    from mcverify.report import prediction
    from mcverify.theory.initialiser_table import diagnose_initialisers

    rows = diagnose_initialisers(activation, [width] * depth, input_dim)
    if as_json:
        click.echo(json.dumps(prediction.finite([asdict(r) for r in rows]), indent=2))
        return
    console = _console()
    console.print(prediction.initialisers_table(rows))
    console.print(
        "\nFM1: the mean length or gradient changes by more than ten over the network. FM2: single networks scatter by "
        "more than half of their mean, for want of width. σ_w²: Var w · fan_in.", highlight=False,
    )  # fmt: skip


@main.command()
@click.argument("pattern", nargs=-1)
@json_option
def claims(pattern: tuple[str, ...], as_json: bool) -> None:
    """List the claims: name, how true, statement and source."""
    from mcverify.claims.catalogue import select

    chosen = select(pattern)
    if as_json:
        keys = ("name", "mark", "statement", "source", "margin", "margin_reason", "expected")
        click.echo(json.dumps([{k: getattr(c, k) for k in keys} for c in chosen], indent=2))
        return
    for c in chosen:
        click.echo(f"{c.name}  [{c.mark}]\n  {c.statement}\n  {c.source}")


folder_option = click.option("--folder", type=click.Path(file_okay=False, path_type=Path), default="baselines",
                             show_default=True, help="Folder of the baselines, a file a claim.")  # fmt: skip


@main.group()
def baseline() -> None:
    """Keep what the claims measure, and tell when it moves."""


@baseline.command()
@click.argument("what", nargs=-1, metavar="[NET.toml | CLAIM-PATTERN ...]")
@folder_option
@click.option("--samples", type=int, default=1024, show_default=True, help="Networks of each width.")
@seed_option
@click.option("--budget", metavar="20000|4e9w", default=None, help="Of the theory checks, as of `verify`.")
@backend_option
@threads_option
def record(
    what: tuple[str, ...], folder: Path, samples: int, seed: int, budget: str | None, backend: str,
    threads: int | None,
) -> None:  # fmt: skip
    """Check claims against theory, and store what their networks measure."""
    from mcverify.baselines import record as run
    from mcverify.claims.plan import Budget, parse_budget
    from mcverify.report import baseline as report
    from mcverify.report import terminal

    spend, console = Budget() if budget is None else parse_budget(budget), _console()
    with terminal.LiveRun(console) as live:
        done = run(
            _claims(what, Budget().work), folder, samples=samples, seed=seed, budget=spend, backend=backend,
            threads=threads, listener=live,
        )  # fmt: skip
    report.show_recorded(done, folder, console)
    sys.exit(done.exit_code)


@baseline.command()
@click.argument("what", nargs=-1, metavar="[NET.toml | CLAIM-PATTERN ...]")
@folder_option
@click.option("--seed", callback=lambda ctx, at, value: None if value is None else _seed(ctx, at, value),
              metavar="N|random", help="Another seed than the baselines' own.")  # fmt: skip
@click.option("--samples", type=int, help="Networks of each width [as recorded].")
@click.option("--alpha", type=float, default=ALPHA, show_default=True,
              help="Chance that the comparison refutes what has not changed.")  # fmt: skip
@click.option("--ulps", type=float, default=0.0, show_default=True,
              help="What may move where a recording is repeated, in ulps of the sampled dtype.")  # fmt: skip
@click.option("--update", "renew", is_flag=True, help="Record again what is refuted, if theory holds for it.")
@backend_option
@threads_option
@json_option
def compare(
    what: tuple[str, ...], folder: Path, seed: int | None, samples: int | None, alpha: float, ulps: float, renew: bool,
    backend: str, threads: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Sample again, and compare with the baselines; without claims, with all that the folder holds."""
    from mcverify import baselines
    from mcverify.claims.plan import Budget
    from mcverify.report import baseline as report
    from mcverify.report import prediction, terminal

    console = _console(stderr=as_json)
    claims = _claims(what, Budget().work) if what else baselines.stored_claims(folder)
    with terminal.counting(console, "claims compared") as progress:
        found = baselines.compare(
            claims, folder, seed=seed, samples=samples, alpha=alpha, ulps=ulps, backend=backend, threads=threads,
            progress=progress,
        )  # fmt: skip
    if renew and not found.interrupted:
        found = baselines.update(found, claims, folder, backend=backend, threads=threads)
    if as_json:
        click.echo(json.dumps(prediction.finite(found.to_dict()), indent=2))
    else:
        report.show(found, console)
    sys.exit(found.exit_code)
