"""The README and the pages under docs say what the program does: their outputs and recipes are run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mcverify as mv
from mcverify import network_file
from mcverify.verification import run_claims

ROOT = Path(__file__).parent.parent
README, PYTHON, TESTING, CLAIMS = (
    (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", "docs/python.md", "docs/testing.md", "docs/claims.md")
)


def block(having, page=README):
    """The indented or fenced block that contains a text."""
    blocks = re.findall(r"```python\n(.*?)```", page, re.S) + re.findall(r"((?:^ {4}.*\n|^\n)+)", page, re.M)
    return next(b for b in blocks if having in b)


def printed(command, *options):
    """What a command shown in the README prints, and what it is shown to print."""
    lines = [line[4:] for line in block(f"$ mcverify {command} ").splitlines() if line]
    words = shlex.split(lines[0].removeprefix("$ mcverify "))
    run = subprocess.run([sys.executable, "-m", "mcverify", *words, *options], capture_output=True, text=True, cwd=ROOT)
    return run.stdout, lines[1:]


def test_the_first_result_is_the_real_one():
    real, shown = printed("phase")
    assert real.splitlines() == shown


@pytest.mark.parametrize("command", ["predict", "initialisers"])
def test_what_is_shown_is_printed(command):
    """Lines are wrapped, and some left out, where the README has "…"."""
    real, shown = printed(command)
    for part in " ".join(shown).split("…"):
        assert " ".join(part.split()) in " ".join(real.split())


def test_the_boundaries_shown_are_computed(tmp_path):
    real, shown = printed("validity", "--no-sampling", "--report", str(tmp_path))
    for line in shown:
        assert " ".join(line.split()[:-1]) in " ".join(real.split())


def test_the_claim_shown_is_decided_so(tmp_path):
    real, shown = printed("verify", "--report", str(tmp_path))
    (name, mark, verdict, *_, networks), row = shown[1].split(), real.splitlines()[1].split()
    assert row[:3] == [name, mark, verdict]
    # the pilot's rounding, which differs between processors, may move a planned size by a few
    assert int(row[-1].replace(",", "")) == pytest.approx(int(networks.replace(",", "")), rel=1e-2)


def test_the_network_file_is_read():
    text = "\n".join(line[4:] for line in block("[network]").splitlines())
    import tomllib

    given = network_file.parse(tomllib.loads(text))
    assert given.net.widths == [256] * 4
    assert given.margin == 0.02


def test_the_python_snippet_runs():
    code = (
        block("import mcverify as mv").replace("x = ...", "x = np.ones((2, 64))").replace("samples=1000", "samples=4")
    )
    scope = {"np": np}
    unsampled = code.replace("margin=0.05)", "margin=0.05, confirm=False)")
    exec(unsampled.replace("mv.verify(net, x, margin=0.02)", "None"), scope)
    assert scope["m"].q_se.shape == scope["p"].q.shape
    assert mv.phase("tanh", sigma_w2=1.05, sigma_b2=2e-5).name == "critical"


def test_python_by_subject_runs_and_leaves_nothing_out(monkeypatch):
    monkeypatch.chdir(ROOT)
    exec(block("import mcverify as mv", PYTHON), {})


def test_the_public_face_has_one_order_in_three_places():
    """The module's docstring, which `help` shows first, __all__, and docs/python.md: the same subjects, whose names are
    all there; and dir has them."""
    face = re.findall(r"^(\w[^\n]*): [^\n]*\n((?:    .*\n)+)", mv.__doc__, re.M)
    subjects = {title: re.split(r",\s+", names.strip()) for title, names in face}
    assert [name for names in subjects.values() for name in names] == mv.__all__[1:]
    assert subjects == {title: list(names) for title, names in mv._SUBJECTS.items()}
    parts = re.split(r"^# ([A-Z][^:\n]*): .*$", block("import mcverify as mv", PYTHON), flags=re.M)[1:]
    assert parts[::2] == list(subjects)
    for title, part in zip(parts[::2], parts[1::2], strict=True):
        assert [name for name in subjects[title] if f"mv.{name}" not in part] == []
    assert set(mv.__all__) < set(dir(mv))
    assert all(hasattr(mv, name) for name in dir(mv))


def test_the_property_test_passes_and_fails_as_told():
    code = block("with_inputs(homogeneous)", TESTING)
    scope = {}
    exec(code, scope)
    scope["test_twice_the_input_is_twice_the_output"]()
    exec(code.replace("sigma_b2=0.0, ", ""), scope)
    with pytest.raises(AssertionError) as failed:
        scope["test_twice_the_input_is_twice_the_output"]()
    told = re.search(r"`(mlp\(.*?\))`", TESTING).group(1)
    assert told in "\n".join(failed.value.__notes__)


def test_networks_measured_elsewhere_get_the_sentence_shown(capsys):
    code = block("report = mv.check(", TESTING)
    exec(code, {})
    shown = next(line for line in code.splitlines() if "print(report.sentence)" in line).partition("# ")[2]
    assert capsys.readouterr().out == shown + "\n"


def test_the_claim_recipe_is_confirmed_and_refutes_its_mutant():
    scope = {}
    exec(block("mypaper2026.sine_gradients", CLAIMS), scope)
    (claim,) = scope["CLAIMS"]
    assert run_claims([claim]).results[0].verdict == "confirmed"
    assert run_claims([claim], mutant=claim.mutants[0]).results[0].verdict == "refuted"


def test_the_baseline_recipe_runs(tmp_path):
    commands = re.findall(r"mcverify (baseline .*)", block('mcverify baseline record "poole', TESTING))
    for command in commands:
        words = shlex.split(command.replace("--folder baselines", f"--folder {tmp_path}"))
        run = subprocess.run([sys.executable, "-m", "mcverify", *words], capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr
    assert len(commands) == 3
    assert len(list(tmp_path.glob("*.toml"))) == 2
