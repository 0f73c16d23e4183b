"""The README says what the program does: its outputs and its recipes are run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

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
    scope = {"np": np}
    exec(code.replace("mv.verify(net, x, margin=0.02)", "None"), scope)
    assert scope["m"].q_se.shape == scope["p"].q.shape
    assert mv.phase("tanh", sigma_w2=1.05, sigma_b2=2e-5).name == "critical"


def test_the_claim_recipe_is_confirmed_and_refutes_its_mutant():
    scope = {}
    exec(block("mypaper2026.sine_gradients"), scope)
    (claim,) = scope["CLAIMS"]
    assert run_claims([claim]).results[0].verdict == "confirmed"
    assert run_claims([claim], mutant=claim.mutants[0]).results[0].verdict == "refuted"
