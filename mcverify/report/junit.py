"""A run as JUnit XML, which continuous integration shows: a test case for each claim."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, ElementTree, SubElement

from mcverify.errors import InputError

if TYPE_CHECKING:
    from mcverify.verdict import Report, Result


def write(report: Report, path: Path) -> None:
    """A claim that is not as expected is a failure, of the type of its verdict; a run that was cut short is an error
    of the suite. Raises InputError where the file cannot be written."""
    wrong = [r for r in report.results if not r.as_expected]
    seconds = sum(r.seconds for r in report.results)
    suite = Element(
        "testsuite", name="mcverify", tests=str(len(report.results) + report.interrupted), failures=str(len(wrong)),
        errors=str(int(report.interrupted)), time=f"{seconds:.3f}",
    )  # fmt: skip
    given = SubElement(suite, "properties")
    for name, value in {"seed": report.seed, "alpha": report.alpha, **report.provenance}.items():
        SubElement(given, "property", name=name, value=_text(str(value)))
    for r in report.results:
        _case(suite, r)
    if report.interrupted:
        cut = SubElement(suite, "testcase", classname="mcverify", name="run", time="0")
        SubElement(cut, "error", type="interrupted", message="the run was cut short: claims are missing")
    try:
        ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)
    except OSError as error:
        raise InputError("--junit", str(path), f"must be a file that can be written ({error.strerror})") from None


def _case(suite: Element, r: Result) -> None:
    module, _, name = r.name.rpartition(".")
    case = SubElement(
        suite, "testcase", classname=_text(module) or "mcverify", name=_text(name), time=f"{r.seconds:.3f}"
    )
    if not r.as_expected:
        first = _text(f"{r.verdict}, expected {r.expected}: {r.message}".splitlines()[0])
        failure = SubElement(case, "failure", type=r.verdict, message=first)
        failure.text = _text(f"{r.statement}\n{r.source}\n{r.message}\n{r.network}")


def _text(value: str) -> str:
    """Without the control characters that no XML may hold."""
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", "�", value)
