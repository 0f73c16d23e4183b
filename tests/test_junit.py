"""Verdicts as JUnit XML: what continuous integration counts, and what it shows."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from mcverify.cli import main
from mcverify.errors import InputError
from mcverify.report import junit
from mcverify.verdict import Report
from tests.test_report import result


def written(tmp_path, *results, interrupted=False):
    path = tmp_path / "verdicts.xml"
    report = Report(list(results), 0.001, 7, {"command": "mcverify verify"}, interrupted=interrupted)
    junit.write(report, path)
    return ElementTree.parse(path).getroot()


def test_counts_and_cases(tmp_path):
    """A finding's refuted half is no failure; what is undecided is."""
    suite = written(
        tmp_path, result(), result(name="a.b", verdict="refuted", message="layer 2 is off"),
        result(name="a.c", verdict="undecided"), result(name="a.d", verdict="refuted", expected="refuted"),
    )  # fmt: skip
    assert {k: suite.get(k) for k in ("tests", "failures", "errors")} == {"tests": "4", "failures": "2", "errors": "0"}
    assert float(suite.get("time")) == 2.0
    cases = {f"{c.get('classname')}.{c.get('name')}": c.find("failure") for c in suite.iter("testcase")}
    assert [name for name, failure in cases.items() if failure is not None] == ["a.b", "a.c"]
    assert cases["a.b"].get("message") == "refuted, expected confirmed: layer 2 is off"
    assert cases["a.c"].get("type") == "undecided"
    assert "Paper 2000, eq. 1" in cases["a.b"].text
    assert {p.get("name"): p.get("value") for p in suite.iter("property")}["seed"] == "7"


def test_a_run_cut_short_is_an_error(tmp_path):
    suite = written(tmp_path, result(), interrupted=True)
    assert (suite.get("tests"), suite.get("errors")) == ("2", "1")
    assert suite.find("testcase/error").get("type") == "interrupted"


def test_any_name_is_well_formed(tmp_path):
    suite = written(tmp_path, result(name="<&\x00\x1b\ud800>", verdict="refuted", message="a\x07b\nc"))
    assert suite.find("testcase/failure").get("message").endswith("a�b")


def test_a_file_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="--junit"):
        junit.write(Report([result()], 0.001, 0), tmp_path)


def test_command_line(tmp_path):
    path = tmp_path / "v.xml"
    given = ["verify", "poole2016.q_map", "--report", str(tmp_path / "r")]
    done = CliRunner().invoke(main, [*given, "--junit", str(path)])
    assert done.exit_code == 0, done.output
    assert ElementTree.parse(path).getroot().get("failures") == "0"
    for bad in (["--junit", str(tmp_path / "v.txt")], ["--junit", str(path), "--self-test"]):
        refused = CliRunner().invoke(main, [*given, *bad])
        assert refused.exit_code == 2
        assert refused.output.startswith("mcverify: --junit: got")
