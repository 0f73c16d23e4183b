"""The web page of a run: whole, self-contained and true to the report, whatever numbers it holds."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from mcverify.errors import InputError
from mcverify.report import html, plots, terminal
from mcverify.report.findings import findings
from mcverify.verdict import Report, Result
from mcverify.verification import Event

VOID = {"meta", "br", "wbr", "link", "img", "hr", "input"}


def result(**changes: Any) -> Result:
    """A confirmed claim of two components, with changes."""
    base = Result(
        name="paper2000.claim", verdict="confirmed", expected="confirmed", statement="Lengths stay.",
        source="Paper 2000, eq. 1", mark="exact", labels=["layer 1", "layer 2"], estimate=[1.001, 0.999],
        se=[0.0004, 0.0005], interval=[[0.9997, 1.0023], [0.9974, 1.0006]], prediction=[1.0, 1.0],
        margin=[0.005, 0.005], remainder=[0.0, 0.001],
        mde=[0.002, 0.0025], rival_name="lengths double", rival=[2.0, 1.004], margin_reason="it matters",
        p=0.3, p_adjusted=0.6, p_confirmation=None, lack_of_fit=1.0, samples={48: 5919}, samples_for_margin=3000,
        network="64 → [dense 48, tanh]", message="every deviation beyond the margin is excluded", seconds=0.5,
    )  # fmt: skip
    return replace(base, **changes)


REFUTED = result(name="paper2000.refuted", verdict="refuted", p=0.0, p_adjusted=0.0, p_confirmation=1e-40)
FINDING = result(name="paper2000.finding", verdict="refuted", expected="refuted", estimate=[9.0, -9.0])
UNDECIDED = result(name="paper2000.open", verdict="undecided", rival_name="", rival=[])
LADDER = result(name="network.limit.length", mark="limit", samples={1: 512, 2: 256, 4: 128}, lack_of_fit=0.04)
BOUND = result(name="paper2000.bound", mark="bound", one_sided=True,
               labels=["rate"], estimate=[-0.3], se=[0.01], prediction=[-0.2],
               margin=[0.05], remainder=[0.01], mde=[0.06], rival=[-0.05])  # fmt: skip
NAN = result(
    name="paper2000.nan", verdict="undecided", estimate=[math.nan, math.inf], se=[math.nan, math.inf],
    mde=[math.nan, -math.inf], rival=[math.nan, math.inf], p=math.nan, p_adjusted=math.nan, lack_of_fit=math.nan,
)  # fmt: skip
EMPTY = result(name="paper2000.empty", labels=[], estimate=[], se=[], prediction=[], margin=[], remainder=[], mde=[],
               rival=[], samples={})  # fmt: skip
ALL = [result(), REFUTED, FINDING, UNDECIDED, LADDER, BOUND, NAN, EMPTY]


def report(*results: Result, **changes: Any) -> Report:
    facts = {
        "mcverify": "0.1.0",
        "command": "mcverify verify net.toml --seed random",
        "budget": "20000n",
        "backend": "cpu",
    }
    return replace(Report(list(results), alpha=1e-3, seed=7, provenance=facts), **changes)


class Page(HTMLParser):
    """Text, attributes and ids of a page; refuses tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def values(self, *names: str) -> list[str]:
        return [value or "" for name, value in self.attributes if name in names]


def page(shown: Report) -> Page:
    return Page(html.render(shown))


@pytest.fixture(scope="module")
def full() -> Page:
    return page(report(*ALL))


def test_every_claim_and_its_account_is_on_the_page(full: Page) -> None:
    for r in ALL:
        assert full.text.count(r.name) >= 2, "in the summary and in its section"
        assert r.message in full.text
    for words in ("Lengths stay.", "Paper 2000, eq. 1", "64 → [dense 48, tanh]", "0.005: it matters."):
        assert words in full.text
    assert "8 claims: 4 confirmed, 1 refuted as expected, 1 refuted, 2 undecided; 3 not as expected." in full.text
    assert "not the expected “confirmed”" in full.text


PRINTED = replace(FINDING, name="paper2000.printed", finding="how lengths move", statement="Lengths stay, they say.")
MENDED = result(name="paper2000.mended", finding="how lengths move", statement="Lengths move.", prediction=[9.0, -9.0],
                estimate=[9.001, -9.001])  # fmt: skip


def test_a_finding_is_shown_with_both_sides_at_one_component() -> None:
    """Where the source is farthest off (layer 2), though the mended statement's own worst is another component."""
    mended = replace(MENDED, estimate=[9.004, -9.001])
    assert mended.worst == 0
    shown = page(report(result(), PRINTED, mended))
    start = shown.text.index("How lengths move")
    section = shown.text[start : shown.text.index("Summary", start)]
    for words in ("reproduced", "As the source has it", "Lengths stay, they say.", "Mended", "Lengths move.",
                  "Predicted1", "Measured−9.00000", "Predicted−9", "At layer 2", "Conditions: 64 → [dense 48, tanh]",
                  "✗ refuted as expected", "✓ confirmed as expected"):  # fmt: skip
        assert words in section, words
    assert "layer 1" not in section
    assert "1 finding reproduced" in shown.text
    assert "findings" in shown.values("id")


def test_a_page_without_findings_has_no_place_for_them(full: Page) -> None:
    assert "findings" not in full.values("id")
    assert "finding reproduced" not in full.text


@pytest.mark.parametrize(
    ("results", "outcome", "code"),
    [
        ((PRINTED, MENDED), "reproduced", 0),
        ((PRINTED,), "half of it: only the source’s statement was run", 0),
        ((MENDED,), "half of it: only the mended statement was run", 0),
        ((replace(PRINTED, verdict="confirmed"), MENDED), "not reproduced", 1),
        ((PRINTED, replace(MENDED, verdict="undecided")), "not reproduced", 3),
    ],
)
def test_a_finding_says_what_became_of_it(results: tuple[Result, ...], outcome: str, code: int) -> None:
    shown = report(*results)
    assert shown.exit_code == code
    (found,) = findings(shown)
    assert found.outcome == outcome
    assert outcome in page(shown).text
    assert f"Finding, {outcome}: how lengths move" in told(shown)


def told(shown: Report) -> str:
    """What the terminal says, without line breaks of its own."""
    console = Console(file=StringIO(), width=1000, markup=False)
    terminal.show(shown, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_an_expected_refutation_looks_like_no_failure() -> None:
    text = told(report(result(), PRINTED, MENDED))
    last = text.strip().splitlines()[-1]
    assert last.startswith("2 confirmed, 1 refuted as expected (1 finding reproduced); every verdict as expected.")
    assert "As the source has it: refuted, as expected  (paper2000.printed)" in text
    assert "layer 2: measured −9.00000 ± 0.00050, predicted 1" in text
    assert terminal.style(PRINTED) == terminal.STYLE["confirmed"]
    assert terminal.style(REFUTED) == terminal.STYLE["refuted"]
    astray = told(report(result(), replace(PRINTED, verdict="confirmed"), MENDED)).strip()
    assert "confirmed (expected refuted)" in astray
    assert astray.splitlines()[-1].startswith("3 confirmed; NOT as expected.")


def test_a_refutation_that_waits_for_fresh_networks_is_not_called_undecided(capsys) -> None:
    live = terminal.LiveRun(Console(file=StringIO()))
    for r in (replace(PRINTED, verdict="undecided", p_adjusted=np.float64(1e-9)), replace(UNDECIDED, p_adjusted=0.2)):
        live(Event(0, 2, r.name, "main", 1.0, 0.5, r))
    refuted, open_ = capsys.readouterr().err.splitlines()
    assert refuted == "1/2 paper2000.printed: refuted, as expected; to be measured again with fresh networks"
    assert open_ == "2/2 paper2000.open: undecided (expected confirmed)"
    assert [r.verdict for r in live.measured] == ["refuted", "undecided"]


def test_the_page_needs_nothing_else(full: Page) -> None:
    for reference in full.values("src", "href", "xlink:href", "action", "data"):
        assert reference.startswith("#")
    text = html.render(report(*ALL))
    assert "<script" not in text
    assert "@import" not in text
    assert all(part.startswith(("url(#", "url('#")) for part in (text[i : i + 6] for i in _places(text, "url(")))


def _places(text: str, word: str) -> list[int]:
    return [i for i in range(len(text)) if text.startswith(word, i)]


def test_references_lead_to_one_place_each(full: Page) -> None:
    ids = full.values("id")
    assert len(ids) == len(set(ids))
    assert {reference[1:] for reference in full.values("href", "xlink:href")} <= set(ids)


def test_colours_are_the_page_s_own() -> None:
    text = html.render(report(*ALL))
    body = text[text.index("<body>") :]
    for name in ("ink", "muted", "band", "rest", "point", "rival"):
        assert f"var(--{name})" in body
    assert "fill: #" not in body
    assert "stroke: #" not in body


def test_names_are_escaped() -> None:
    name = "<script>alert('x')</script> & \"co\""
    shown = result(name=name, labels=[name, "$x_1$"], statement=name, message=name, network=name, rival_name=name)
    text = html.render(report(shown, sentence=name, provenance={"command": name}))
    assert "<script" not in text
    assert name in Page(text).text


def test_numbers_that_are_not_finite_are_undefined(full: Page) -> None:
    text = page(report(NAN)).text
    assert "undefined" in text
    assert " nan" not in text
    assert " inf" not in text
    assert "p = undefined" in text


@pytest.mark.parametrize(
    "changes",
    [
        {"margin": [0.0, 0.0]},
        {"margin": [math.nan, math.inf]},
        {"estimate": [1e300, -1e300], "prediction": [-1e300, 1e300]},
        {"se": [0.0, 0.0], "mde": [0.0, 0.0]},
        {"se": [1e300, 1e-300]},
        {"remainder": [1e9, math.inf]},
        {"prediction": [math.inf, math.nan], "rival": [math.inf, math.nan]},
        {"mark": "bound", "one_sided": True, "estimate": [-1e6, 1e6]},
        {"mark": "a mark of tomorrow", "labels": ["中文", "x" * 300]},
    ],
)
def test_extreme_numbers_make_a_page(changes: dict[str, Any]) -> None:
    assert "paper2000.claim" in page(report(result(**changes))).text


def test_empty_and_interrupted_runs_say_so() -> None:
    assert "No claim was measured." in page(report()).text
    cut = page(report(result(), interrupted=True)).text
    assert "Interrupted." in cut
    assert "3 (interrupted)" in cut
    assert "Interrupted" not in page(report(result())).text


def test_the_sentence_on_a_network_comes_first() -> None:
    text = page(report(result(), sentence="No layer departs.")).text
    assert text.index("No layer departs.") < text.index("1 claim: 1 confirmed; every verdict as expected.")


def test_commands_repeat_the_claim() -> None:
    shown = report(result(), LADDER)
    assert html.command(shown, result()) == "mcverify verify paper2000.claim --seed 7 --budget 20000n --backend cpu"
    assert html.command(shown, LADDER) == "mcverify verify net.toml --seed 7"
    plain = replace(shown, provenance={}, alpha=0.01)
    assert html.command(plain, result()) == "mcverify verify paper2000.claim --seed 7 --alpha 0.01"


def test_a_ladder_tells_its_widths_and_fit(full: Page) -> None:
    assert "512 at all widths × 1, 256 at all widths × 2, 128 at all widths × 4" in full.text
    assert "p = 0.04 for the fit in 1/width itself" in full.text
    assert "5,919 at width 48" in full.text


@pytest.mark.parametrize(
    ("value", "se", "shown"),
    [
        (0.9988509, 0.00152, "0.9989 ± 0.0015"),
        (-0.05713, 0.0028, "−0.0571 ± 0.0028"),
        (123.4, 25.0, "123 ± 25"),
        (12340.0, 250.0, "12,340 ± 250"),
        (-3e-7, 2e-8, "−3e−07 ± 2e−08"),
        (1.0, 0.0, "1 ± 0"),
        (math.nan, 0.1, "undefined ± 0.1"),
        (1.0, math.inf, "1 ± undefined"),
    ],
)
def test_measurements_are_told_to_their_precision(value: float, se: float, shown: str) -> None:
    assert html.measured(value, se) == shown


def test_predictions_carry_one_digit_more() -> None:
    assert html.predicted(2.2e-16, 0.0028) == "0"
    assert html.predicted(-1e-9, 0.0028) == "0"
    assert html.predicted(0.5326434, 0.0023) == "0.53264"
    assert html.predicted(0.5326434, math.nan) == "0.532643"


def test_the_worst_component_is_farthest_or_undefined() -> None:
    assert result(estimate=[1.001, 0.99]).worst == 1
    assert result(estimate=[1.004, math.nan]).worst == 1
    assert EMPTY.worst is None


def test_gaps_are_in_margins() -> None:
    g = plots.gaps(result())
    assert g.deviation == pytest.approx([0.2, -0.2])
    assert g.remainder == pytest.approx([0.0, 0.2])
    assert g.rival == pytest.approx([200.0, 0.8])
    assert g.reach == pytest.approx([3.0902 * 0.08, 3.0902 * 0.1], rel=1e-4)


def kinds(r: Result) -> dict[str, str]:
    plot = plots.draw(r)
    assert plot is not None
    return {sign.kind: sign.text for sign in plot.legend}


def test_the_legend_names_what_is_drawn() -> None:
    signs = kinds(result())
    assert set(signs) == {"band", "rest", "point", "mde", "rival", "rival-beyond"}
    assert signs["rival-beyond"].endswith("lengths double, 200 margins away")
    assert kinds(FINDING)["beyond"].endswith("1,600 to 2,000 margins away")
    assert set(kinds(UNDECIDED)) == {"band", "rest", "point", "mde"}
    assert set(kinds(NAN)) == {"band", "rest", "undefined"}
    assert plots.draw(EMPTY) is None


def test_the_axes_hold_the_intervals_and_never_lose_the_margin() -> None:
    low, high = plots.limits(plots.gaps(result()))
    assert low < -1
    assert high > 1
    assert plots.limits(plots.gaps(result(estimate=[1.02, 1.0])))[1] > 4
    assert plots.limits(plots.gaps(FINDING))[1] < 2 * plots.CAP


def test_a_wide_claim_thins_its_labels_and_stays_small() -> None:
    n = 400
    many = {k: getattr(result(), k) * (n // 2) for k in ("estimate", "se", "prediction", "margin", "remainder", "mde")}
    plot = plots.draw(result(labels=[f"layer {i}, input 1" for i in range(n)], rival=[2.0] * n, **many))
    assert plot is not None
    assert plot.svg.count("<text") < plots.LABELS + 15
    assert len(plot.svg) < 400_000
    small = plots.draw(result())
    assert small is not None
    assert len(small.svg) < 16_000


def test_the_same_report_makes_the_same_page() -> None:
    assert html.render(report(*ALL)) == html.render(report(*ALL))


def test_a_reader_s_own_style_does_not_touch_the_plots() -> None:
    import matplotlib

    plain = html.render(report(result()))
    with matplotlib.rc_context({"lines.linewidth": 9, "axes.facecolor": "red", "font.size": 30}):
        assert html.render(report(result())) == plain


def test_both_files_are_written_and_the_data_survive(tmp_path: Path) -> None:
    shown = report(result(), REFUTED, LADDER, sentence="No layer departs.")
    written = html.write(shown, tmp_path / "new" / "folder")
    assert written == tmp_path / "new" / "folder" / "report.html"
    assert Page(written.read_text(encoding="utf-8")).text.startswith("mcverify report")
    stored = json.loads(written.with_name("report.json").read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(shown.to_dict()))
    assert stored["exit_code"] == 1


def test_stored_data_are_strict_json(tmp_path: Path) -> None:
    html.write(report(NAN), tmp_path)

    def refuse(word: str) -> None:
        raise AssertionError(word)

    stored = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert stored["results"][0]["estimate"] == [None, "infinity"]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as caught:
        html.write(report(result()), tmp_path / "file" / "folder")
    assert "\n" not in str(caught.value)
    assert "folder" in str(caught.value)


def test_importing_the_page_draws_in_no_library() -> None:
    code = "import sys, mcverify.report.html; print([m for m in ('matplotlib', 'jinja2', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
