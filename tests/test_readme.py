"""The README says what the program does: its outputs and its recipes are run."""

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
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(having):
    """The indented or fenced block that contains a text."""
    blocks = re.findall(r"```python\n(.*?)```", README, re.S) + re.findall(r"((?:^ {4}.*\n|^\n)+)", README, re.M)
    return next(b for b in blocks if having in b)


def test_the_first_result_is_the_real_one():
    shown = [line[4:] for line in block("mcverify phase").splitlines() if line]
    command, output = shown[0].removeprefix("$ mcverify "), shown[1:]
    run = subprocess.run([sys.executable, "-m", "mcverify", *command.split()], capture_output=True, text=True)
    assert run.stdout.splitlines() == output


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
    scope = {"np": np, "cov": np.ones((2, 2, 32, 32))}
    unsampled = code.replace("margin=0.05)", "margin=0.05, confirm=False)")
    exec(unsampled.replace("mv.verify(net, x, margin=0.02)", "None"), scope)
    assert scope["m"].q_se.shape == scope["p"].q.shape
    assert mv.phase("tanh", sigma_w2=1.05, sigma_b2=2e-5).name == "critical"


def test_the_property_test_passes_and_fails_as_told():
    code = block("with_inputs(homogeneous)")
    scope = {}
    exec(code, scope)
    scope["test_twice_the_input_is_twice_the_output"]()
    exec(code.replace("sigma_b2=0.0, ", ""), scope)
    with pytest.raises(AssertionError) as failed:
        scope["test_twice_the_input_is_twice_the_output"]()
    told = re.search(r"`(mlp\(.*?\))`", README).group(1)
    assert told in "\n".join(failed.value.__notes__)


def test_networks_measured_elsewhere_get_the_sentence_shown(capsys):
    code = block("report = mv.check(")
    exec(code, {})
    shown = next(line for line in code.splitlines() if "print(report.sentence)" in line).partition("# ")[2]
    assert capsys.readouterr().out == shown + "\n"


def test_the_claim_recipe_is_confirmed_and_refutes_its_mutant():
    scope = {}
    exec(block("mypaper2026.sine_gradients"), scope)
    (claim,) = scope["CLAIMS"]
    assert run_claims([claim]).results[0].verdict == "confirmed"
    assert run_claims([claim], mutant=claim.mutants[0]).results[0].verdict == "refuted"


def test_the_baseline_recipe_runs(tmp_path):
    commands = re.findall(r"mcverify (baseline .*)", block('mcverify baseline record "poole'))
    for command in commands:
        words = shlex.split(command.replace("--folder baselines", f"--folder {tmp_path}"))
        run = subprocess.run([sys.executable, "-m", "mcverify", *words], capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr
    assert len(commands) == 3
    assert len(list(tmp_path.glob("*.toml"))) == 2
