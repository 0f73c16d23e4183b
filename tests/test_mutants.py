"""The planted errors of tests/mutants still fit the sources, and what tries them can tell one that survives.

That each is caught is for `make mutants`, which takes minutes.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mutants import run

PATCHES = sorted(run.HERE.glob("*.patch"))


def places(patch: Path) -> list[tuple[str, str]]:
    """(file, what a hunk replaces with the lines around it) for every hunk."""
    out = []
    for part in re.split(r"^--- a/", patch.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        for hunk in re.split(r"^@@.*\n", part, flags=re.MULTILINE)[1:]:
            before = [line[1:] for line in hunk.splitlines(keepends=True) if line[0] in " -"]
            out.append((part.partition("\n")[0], "".join(before)))
    return out


def test_there_are_enough():
    assert len(PATCHES) >= 34


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_a_patch_fits_the_sources_and_names_its_tests(patch):
    mutant = run.read(patch)
    assert run.apply(mutant, run.ROOT, "--check") == ""
    assert all(name.startswith(("mcverify/", "src_ext/", "bench/")) for name in mutant.files)
    for name, before in places(patch):  # in one place alone, so that it cannot slip to another
        assert (run.ROOT / name).read_text(encoding="utf-8").count(before) == 1
    for argument in mutant.caught_by:
        file, _, test = argument.partition("::")
        assert f"def {test.partition('[')[0]}(" in (run.ROOT / file).read_text(encoding="utf-8") or not test
    assert mutant.needs in ("", "avx2", "avx512")


def test_headers_are_read(tmp_path):
    patch = tmp_path / "x.patch"
    body = "\n--- a/mcverify/x.py\n+++ b/mcverify/x.py\n@@ -1 +1 @@\n-a\n+b\n"
    patch.write_text(
        "Plants: an error\nCaught by: tests/test_x.py 'tests/test_y.py::test_z[a b]'\nNeeds: avx2\n" + body
    )
    mutant = run.read(patch)
    assert mutant.caught_by == ("tests/test_x.py", "tests/test_y.py::test_z[a b]")
    assert (mutant.plants, mutant.needs, mutant.files) == ("an error", "avx2", ("mcverify/x.py",))
    patch.write_text("Plants: an error\n" + body)
    with pytest.raises(ValueError, match="Caught by"):
        run.read(patch)


@pytest.mark.parametrize(
    ("line", "to", "fate"),
    [
        ("    return a + b", "    return a - b", "caught"),
        ("    return a + b", "    return b + a", "SURVIVED"),
        ("    return a + b", "    return a +", "BROKEN (2)"),
        ("    return a * b", "    return a - b", "DOES NOT APPLY"),
    ],
)
def test_every_fate_is_told(line, to, fate, tmp_path):
    """On a project of one function and one test."""
    green = tmp_path / "green"
    (green / "tests").mkdir(parents=True)
    (green / "toy.py").write_text("def add(a, b):\n    return a + b\n")
    (green / "tests/test_toy.py").write_text("from toy import add\n\n\ndef test_add():\n    assert add(2, 1) == 3\n")
    assert run.pytest(green, ["tests/test_toy.py"])[0] == 0
    patch = tmp_path / "toy.patch"
    diff = f"\n--- a/toy.py\n+++ b/toy.py\n@@ -1,2 +1,2 @@\n def add(a, b):\n-{line}\n+{to}\n"
    patch.write_text("Plants: a toy error\nCaught by: tests/test_toy.py\n" + diff)
    outcome = run.judge(run.read(patch), green, tmp_path / "work")
    assert outcome.fate == fate
    assert outcome.test == ("test_toy.py::test_add" if fate == "caught" else outcome.test)
    assert not (tmp_path / "work/toy").exists()
