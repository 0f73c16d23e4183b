"""The report of a run: one set of sections, written as Markdown and as a page."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import jinja2

from bench import plots
from bench.floors import CORES
from bench.plots import short
from bench.results import Result, Results
from bench.targets import Outcome, million, outcomes


@dataclass(frozen=True)
class Table:
    """A heading and rows of text; the first column is on the left, numbers on the right. `strong` rows are ours."""

    head: list[str]
    rows: list[list[str]]
    strong: list[bool] = field(default_factory=list)
    left: int = 1


@dataclass(frozen=True)
class Section:
    """Part of the report."""

    title: str
    text: list[str]
    tables: list[tuple[str, Table]]
    svg: str = ""
    name: str = ""

    @property
    def drawing(self) -> str:
        """The drawing without its XML heading, to stand in a page."""
        return self.svg[self.svg.index("<svg") :] if self.svg else ""


def write(data: Path, folder: Path) -> list[Path]:
    """Write MACHINE-DATE.md, .html, its drawings and a copy of the data; return the first two."""
    results = Results(data)
    stem = f"{_slug(_cpu(results))}-{results.when[:10]}"
    folder.mkdir(parents=True, exist_ok=True)
    if data.parent != folder:
        (folder / f"{stem}.json").write_text(results.without_rounds(), encoding="utf-8")
    title, facts, parts = "mcverify benchmarks", _facts(results), _sections(results)
    for part in parts:
        if part.svg:
            (folder / f"{stem}-{part.name}.svg").write_text(part.svg, encoding="utf-8")
    markdown = _markdown(title, facts, parts, stem)
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.get_template("report.html.j2").render(title=title, facts=facts, parts=parts)
    out = [folder / f"{stem}.md", folder / f"{stem}.html"]
    for path, text in zip(out, (markdown, page), strict=True):
        path.write_text(text, encoding="utf-8")
    return out


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _cpu(results: Results) -> str:
    brand = results.machine.get("cpu", {}).get("brand_raw") or results.machine["machine"]
    return re.sub(r"\((R|TM)\)| CPU| Processor|@.*", "", brand).strip()


# ---- what is said ------------------------------------------------------------------------------------------


def _facts(results: Results) -> list[tuple[str, str]]:
    run = results.run
    dirty = " with uncommitted changes" if results.commit.get("dirty") else ""
    commit = str(results.commit.get("id") or "unknown")[:12] + dirty
    cores = results.machine["cpu"].get("count", "?")
    load = f"{run['load_before']:.2f} before, {run['load_after']:.2f} after (this run alone adds up to {CORES})"
    facts = [
        ("Machine", f"{_cpu(results)}, {cores} cores; {run['caches']}; {', '.join(run['paths'])}"),
        ("Date", results.when[:16].replace("T", " ") + " UTC"),
        ("Load average", load),
        ("Took", f"{run['seconds'] / 60:.1f} minutes"),
        ("Commit", commit),
        ("Versions", ", ".join(f"{name} {version}" for name, version in run["versions"].items())),
        ("Absent", "; ".join(f"{name} ({why})" for name, why in run["absent"].items()) or "no peer"),
    ]
    if run["quick"]:
        facts.insert(0, ("Beware", "--quick: tiny sizes, the figures mean nothing"))
    if run["load_before"] > 0.5:
        facts.insert(0, ("Beware", "the machine was busy with other work when the run began"))
    return facts


def _sections(results: Results) -> list[Section]:
    sections = [
        _targets(results),
        _floors(results),
        _normals(results),
        _networks(results, "explicit", "Every weight drawn", _explicit_text(results)),
        _networks(results, "convolution", "Convolutions, every weight drawn", _convolution_text()),
        _networks(results, "conditional", "No weight drawn: the conditional engine", _conditional_text(results)),
        _scaling(results),
        _prediction(results),
        _skipped(results),
    ]
    return [s for s in sections if s is not None]


def _value(value: float, unit: str) -> str:
    if unit == "/s":
        return f"{short(value)}/s"
    number = f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"
    return number + {"": "", "%": "%"}.get(unit, f" {unit}")


def _targets(results: Results) -> Section:
    found = outcomes(results)
    rows = [_target_row(o) for o in found]
    count = {v: sum(o.verdict == v for o in found) for v in ("hit", "missed", "not measured")}
    text = ", ".join(f"{n} {verdict}" for verdict, n in count.items() if n) + "."
    more = "Where a target is about several cases, the figure is the worst of them."
    head = ["target", "bound", "measured", "verdict", "why"]
    return Section("Targets", [text, more], [("", Table(head, rows, [o.verdict == "missed" for o in found]))])


def _target_row(o: Outcome) -> list[str]:
    bound = ("≤ " if o.target.most else "≥ ") + _value(o.target.bound, o.target.unit)
    value = "" if o.value is None else _value(o.value, o.target.unit)
    return [o.target.text, bound, value, o.verdict, o.reason]


def _floors(results: Results) -> Section | None:
    found = [r for group in results.groups("floors") for r in results.of("floors", group)]
    if not found:
        return None
    rows = [[r.who, f"{short(r.rate)} {r.unit}", _spread(r), _cores(r)] for r in found]
    text = [
        f"What the machine can do at most, on all {CORES} cores. A floor is the time that work would take if one of "
        "these were all: numbers to generate ÷ the rate of normals, operations ÷ the rate of the fastest product, "
        "bytes ÷ the bandwidth; the largest counts. All rates here are those of the fastest round;"
        " “median” says by how "
        "much the median round was slower, “cores” how many cores the process had the use of, from warm-up to the last "
        "round: fewer than it could use, where other work took them."
    ]
    return Section("Floors", text, [("", Table(["resource", "rate", "median", "cores"], rows))])


def _cores(r: Result) -> str:
    return f"{r.info['cores_had']:.2f}" if "cores_had" in r.info else ""


def _spread(r: Result) -> str:
    return f"+{100 * (r.median / r.best - 1):.0f}%"


def _row(results: Results, r: Result, scale: float = 1.0) -> list[str]:
    """who, rate, floor, time over floor, against the fastest peer, spread, cores had."""
    least, peers = results.floor_of(r), results.peers(r.subject, r.group)
    bound = f"{short(r.work * scale / least.total)} ({least.largest})" if least else ""
    over = f"{r.best / least.total:.3g} ×" if least else ""
    ahead = f"{r.rate / peers[0].rate:,.3g} ×" if peers else ""
    return [r.who, short(r.rate * scale), bound, over, ahead, _spread(r), _cores(r)]


def _normals(results: Results) -> Section | None:
    groups = results.groups("normals")
    if not groups:
        return None
    head = ["generator", "normals/s", "floor (writing)", "time ÷ floor", "÷ fastest peer", "median", "cores"]
    tables = []
    for group in groups:
        found = results.of("normals", group)
        tables.append((group, Table(head, [_row(results, r) for r in found], [r.own for r in found])))
    text = [
        "One core: the whole process is pinned to it (every thread's CPU affinity), BLAS and PyTorch are set to one "
        "thread. Each generator fills 2¹⁷ numbers, in place where its interface can. Of each the fastest variant that "
        "it offers: NumPy with SFC64, MKL by inversion (float64 is all that mkl_random has). Before it is timed, mean, "
        "variance and fourth moment of its numbers are checked."
    ]
    svg = plots.bars(results, "normals", groups, "normals per second and core")
    return Section("Normals", text, tables, svg, "normals")


def _explicit_text(results: Results) -> list[str]:
    text = [
        "A perceptron of width 1000 and 50 layers, weights of its own for each network: forward, and the norm of the "
        "gradient at every layer. All in float32, on both cores. Peers as their users write them: draws in place into "
        "kept buffers, weights kept for the backward pass, JAX jitted with a scan over layers; each both one network "
        "at a time (the tool's own threads) and one network to a core. Each is checked against theory before it is "
        "timed.",
        "The floor is that of mcverify's way: every weight drawn in each pass and none kept. Who draws once and keeps "
        "200 MB needs half the numbers, and memory traffic.",
    ]
    rates, any_of = results.rates, results.of("explicit")
    if any_of and "normals" in rates and "bytes" in rates:
        maps, entries = any_of[0].info["depth"], any_of[0].info["width"] ** 2
        once = maps * entries / rates["normals"] + 2 * 4 * maps * entries / rates["bytes"]
        twice = (2 * maps - 1) * entries / rates["normals"]
        text.append(
            f"Drawn once, written once and read once, the weights of a network would take {1e3 * once:.3g} ms here; "
            f"drawn twice, {1e3 * twice:.3g} ms."
        )
    return text


def _convolution_text() -> list[str]:
    return [
        "3 × 3 taps on a circular grid, 20 layers of tanh, two inputs, weights of its own for each network: forward, "
        "and the norm of the gradient at every layer, in float32 on both cores. A column is a position of an input: "
        "128 or 512 of them meet each weight, so that products bind, and normals no more. Peers: PyTorch's conv2d and "
        "conv_transpose2d on circularly padded planes, JAX's convolution (jit), each one network at a time and one to "
        "a core; and eight networks at a time on each core, as a grouped convolution (PyTorch) or as products of "
        "patches under vmap (JAX). The conditional engine stands beside, on the small grids: it pays where channels "
        "by far outnumber columns."
    ]


def _conditional_text(results: Results) -> list[str]:
    return [
        "The same networks' law without their weights: n × B normals a layer and pass in place of n². The same "
        "algorithm in NumPy and in JAX (jit, vmap over networks) shows what is the algorithm's gain and what the "
        "implementation's. The floor counts normals alone."
    ]


def _networks(results: Results, subject: str, title: str, text: list[str]) -> Section | None:
    groups = results.groups(subject)
    if not groups:
        return None
    head = ["who", "networks/s", "layers/s", "floor, layers/s", "time ÷ floor", "÷ fastest peer", "median", "cores"]
    tables = []
    for group in groups:
        found = results.of(subject, group)
        rows = []
        for r in found:
            who, *rest = _row(results, r, r.info["depth"])
            rows.append([who, short(r.rate), *rest])
        tables.append((group, Table(head, rows, [r.own for r in found])))
    if subject == "conditional":
        tables += _gains(results, groups)
    svg = plots.bars(results, subject, groups, "layers per second, both cores", per_network=True)
    return Section(title, text, tables, svg, subject)


def _gains(results: Results, groups: list[str]) -> list[tuple[str, Table]]:
    """The factors between weights drawn by a peer and the conditional engine."""
    rows = []
    for group in groups:
        try:
            drawn, same = results.fastest_peer("explicit", group), results.fastest_peer("conditional", group)
            own = results.rate("conditional", group, "mcverify")
        except LookupError:
            continue
        rows.append([group, f"{same / drawn:,.3g} ×", f"{own / same:,.3g} ×", f"{own / drawn:,.3g} ×"])
    head = ["", "algorithm (fastest peer with ÷ without it)", "implementation (mcverify ÷ that peer)", "both"]
    return [("Where the gain comes from", Table(head, rows))] if rows else []


def _scaling(results: Results) -> Section | None:
    try:
        s = results.scaling()
    except LookupError:
        return None
    found = sorted(results.of("scaling"), key=lambda r: r.info["width"])
    rows = []
    for r, memory in zip(found, s.memory, strict=True):
        least = results.floor_of(r)
        over = f"{r.best / least.total:.3g} ×" if least else ""
        row = [f"{r.info['width']:,}", f"{1e3 / r.rate:.3g}", over, f"{memory / 2**20:,.0f}"]
        rows.append([*row, _spread(r), _cores(r)])
    head = ["width", "ms per network", "time ÷ floor", "peak memory, MiB", "median", "cores"]
    text = [
        f"tanh, B = 2, 50 layers. Time per network ∝ n^{s.exponent:.3f}, fitted by least squares in logarithms to all "
        "widths. Memory is the peak of a process of its own, beyond what the program and a network of width 64 needed."
    ]
    try:
        minutes = million(results)
        text.append(
            f"10⁶ networks of width 1000 and depth 50 would take {minutes:.1f} minutes: extrapolated from "
            f"{short(1e6 / 60 / minutes)} networks/s of `simulate` with all that it measures; not run."
        )
    except LookupError:
        pass
    table = ("", Table(head, rows))
    return Section("How the conditional engine grows", text, [table], plots.scaling(results), "scaling")


def _prediction(results: Results) -> Section | None:
    rows = []
    for r in results.of("prediction"):
        memory = (r.info["memory_peak"] - r.info["memory_before"]) / 2**20
        rows.append([r.who, r.group, f"{r.best:.3g}", f"{memory:,.0f}", _cores(r)])
    if not rows:
        return None
    text = [
        "`predict` for two inputs on a grid: every covariance between positions, layer by layer. One run; memory is "
        "the peak of a process of its own, beyond what the program and a small grid needed."
    ]
    head = ["activation", "network", "seconds", "peak memory, MiB", "cores"]
    return Section("Prediction on a large grid", text, [("", Table(head, rows, left=2))])


def _skipped(results: Results) -> Section | None:
    skipped = results.run["skipped"]
    if not skipped:
        return None
    text = ["These are in the suite, but have no figure in this run."]
    return Section("Not measured", text, [("", Table(["benchmark", "why"], [list(s) for s in skipped], left=2))])


# ---- how it is written -------------------------------------------------------------------------------------


def _markdown(title: str, facts: list[tuple[str, str]], parts: list[Section], stem: str) -> str:
    out = [f"# {title}", "", *(f"- **{name}**: {text}" for name, text in facts), ""]
    for part in parts:
        out += [f"## {part.title}", ""]
        for text in part.text:
            out += [text, ""]
        for caption, table in part.tables:
            out += [f"**{caption}**", ""] if caption else []
            out += [*_markdown_table(table), ""]
        if part.svg:
            out += [f"![{part.title}]({stem}-{part.name}.svg)", ""]
    return "\n".join(out)


def _markdown_table(table: Table) -> list[str]:
    def line(cells: list[str]) -> str:
        return "| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + " |"

    strong = table.strong or [False] * len(table.rows)
    rows = [[f"**{row[0]}**" if mark else row[0], *row[1:]] for row, mark in zip(table.rows, strong, strict=True)]
    rule = ["---" if i < table.left else "--:" for i in range(len(table.head))]
    return [line(table.head), "|" + "|".join(rule) + "|", *(line(row) for row in rows)]
