"""A project as a user would have it: fixture, strategies, check and baselines together, right and then wrong."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent / "sample_project"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy with its baseline recorded."""
    here = tmp_path_factory.mktemp("user") / "project"
    shutil.copytree(PROJECT, here, ignore=shutil.ignore_patterns("__pycache__"))
    run(here, "mcverify", "baseline", "record", "net.toml", "--folder", "baselines")
    return here


def run(here, *words):
    done = subprocess.run([sys.executable, "-m", *words], cwd=here, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_sound_project_is_green(project):
    code, shown = run(project, "pytest", "-q", "-p", "no:cacheprovider")
    assert code == 0, shown
    assert "5 passed" in shown
    assert "mcverify: alpha 0.001" in shown


def test_a_wrong_initialiser_turns_it_red_and_is_named(project):
    """fan_out for fan_in, planted in the project's own library."""
    source = project / "initialiser.py"
    right = source.read_text()
    source.write_text(right.replace("np.sqrt(2 / fan_in)", "np.sqrt(2 / fan_out)"))
    code, shown = run(project, "pytest", "-q", "-p", "no:cacheprovider", "-k", "law or lengths")
    source.write_text(right)
    assert code == 1
    assert "2/fan_out, not 2/fan_in" in shown
    assert "2 failed" in shown


def test_a_changed_network_is_seen_by_the_baseline(project):
    file = project / "net.toml"
    right = file.read_text()
    file.write_text(right.replace("sigma_w2 = 2.0", "sigma_w2 = 2.1"))
    code, shown = run(project, "mcverify", "baseline", "compare", "net.toml", "--folder", "baselines")
    file.write_text(right)
    assert code in (1, 2), shown
