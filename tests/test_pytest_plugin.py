"""The pytest plugin, run by pytest on small suites: verdicts, one budget, seeds, workers, JUnit, and its cost."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest

import mcverify as mv
from mcverify import testing
from mcverify.inputs import with_gram

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent
INSTALLED = any(ep.value == "mcverify.pytest_plugin" for ep in entry_points(group="pytest11"))
LOAD = [] if INSTALLED else ["-p", "mcverify.pytest_plugin"]

HEAD = """
import numpy as np
import pytest
import mcverify as mv
from mcverify.inputs import with_gram

x = with_gram([[1.0, 0.5], [0.5, 1.0]], 64)
net = mv.mlp(64, [128] * 3, "relu", 2.0)

def drawn(rng, gain=2.0, samples=512):
    lengths = np.empty((samples, 3, 2))
    for replicate in lengths:
        signal = x
        for layer in replicate:
            w = rng.standard_normal((128, signal.shape[1])) * np.sqrt(gain / signal.shape[1])
            signal = np.maximum(signal @ w.T, 0)
            layer[:] = (signal**2).mean(axis=1)
    return {"length": lengths}
"""
GOOD = """
def test_good(mcverify):
    mcverify.samples(net, drawn(mcverify.rng), x, margin=0.1)
"""
BAD = """
def test_bad(mcverify):
    mcverify.samples(mv.predict(net, x), drawn(mcverify.rng, 1.0), margin=0.1)
"""


@pytest.fixture
def suite(pytester, monkeypatch):
    """Run pytest in a process of its own on files of this text; its result."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)

    def run(*arguments, ini="", **files):
        pytester.makeini(f"[pytest]\n{ini}")
        if files:
            pytester.makepyfile(**files)
        return pytester.runpytest_subprocess(*LOAD, "-p", "no:cacheprovider", *arguments)

    return run


def rows(result):
    """The summary's table: (test and statement, verdict)."""
    start = next(i for i, line in enumerate(result.outlines) if "mcverify: alpha" in line)
    found = [re.split(r"\s{2,}", line.strip()) for line in result.outlines[start:]]
    return [row[:2] for row in found if len(row) == 6 and "::" in row[0]]


def test_a_right_network_passes_and_is_summarised(suite):
    result = suite(test_it=HEAD + GOOD)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*mcverify: alpha 0.001 for the session, seed 0*", "*verdict*measured*predicted*mde"])
    assert rows(result) == [
        ["test_it.py::test_good 1.length.reference", "confirmed"],
        ["test_it.py::test_good 1.length.gain", "confirmed"],
    ]


def test_a_wrong_one_fails_with_everything_needed_and_its_command_repeats_it(suite):
    result = suite(test_it=HEAD + GOOD + BAD)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines([
        "*AssertionError: Layer 1, input ?: the length is 0.*, predicted 1: -*%; so do layers 2, 3.",
        "*length.reference: refuted: *",
        "*prediction  1, margin 0.1",
        "*measured    0.* ± 0.*, 99.9% interval ?0.*, 0.*?",
        "*networks    512, which show a deviation of 0.1* with power 99%",
        "*one network mean 0.*, variance 0.*, skewness *, excess kurtosis *",
        "*| █*",
        "*To repeat it: pytest test_it.py::test_bad --mcverify-seed=0 --mcverify-alpha=0.0005",
    ])  # fmt: skip
    assert not any("mcverify/testing.py" in line or "pytest_plugin.py:" in line for line in result.outlines)
    shown = [line for line in result.outlines if " ± " in line and "99.9%" in line]
    again = suite("test_it.py::test_bad", "--mcverify-seed=0", "--mcverify-alpha=0.0005")
    again.assert_outcomes(failed=1)
    assert [line for line in again.outlines if " ± " in line and "99.9%" in line] == shown


def test_undecided_is_no_pass(suite):
    few = "\ndef test_few(mcverify):\n    mcverify.samples(net, drawn(mcverify.rng, samples=40), x, margin=0.1)\n"
    result = suite(test_it=HEAD + few)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*Nothing was decided*256 are needed*"])


def test_networks_and_samplers_are_checked_too(suite):
    tests = """
def test_network(mcverify):
    report = mcverify.network(mv.mlp(64, [256], "tanh", 1.5), x, margin=0.05)
    assert report.exit_code == 0

def test_wrong_network(mcverify):
    mcverify.network(mv.mlp(64, [8] * 3, "relu", 2.0), x, margin=0.02)

def test_sampler(mcverify):
    rng = mcverify.rng
    mcverify.sampler(lambda: rng.normal(size=(64, 96)) * np.sqrt(2 / 96), "he_normal")
"""
    result = suite(test_it=HEAD + tests)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*AssertionError: The first layer to depart from the limit by more than 2.00% is *"])


BUDGET = """
import json
import pytest

@pytest.mark.parametrize("n", range(4))
def test_levels(mcverify, monkeypatch, n, request):
    from mcverify import testing
    from mcverify.verdict import Report
    levels, seeds = [], []
    seen = lambda *_, alpha, rng, watch: (levels.append(alpha), seeds.append(rng))
    monkeypatch.setattr(testing, "assert_network", seen)
    for _ in range(1 + n):
        mcverify.network(None, None)
    with open(str(request.config.rootpath / f"{request.node.name}.json"), "w") as file:
        json.dump([levels, seeds, mcverify.seed], file)

def test_without():
    pass
"""


def told(pytester):
    return {p.stem: json.loads(p.read_text()) for p in pytester.path.glob("test_levels*.json")}


def test_the_session_spends_no_more_than_alpha_and_verdicts_do_not_depend_on_selection_or_workers(suite, pytester):
    suite(ini="mcverify_alpha = 0.01", test_it=BUDGET).assert_outcomes(passed=5)
    whole = told(pytester)
    levels = [level for values, _, _ in whole.values() for level in values]
    assert len(levels) == 10
    assert sum(levels) <= 0.01
    # The k-th check of a test has 6/(π²k²) of its share, whatever the number of checks.
    assert levels[0] == pytest.approx(0.01 / 4 * 6 / np.pi**2)
    assert sum(6 / (np.pi * k) ** 2 for k in range(1, 10**6)) == pytest.approx(1, abs=1e-5)
    seeds = [seed for _, values, own in whole.values() for seed in [*values, own]]
    assert len(set(seeds)) == len(seeds) == 14
    for arguments in (["-k", "levels and 2"], ["-n", "2"], ["-n", "2", "--dist", "loadfile"]):
        for file in pytester.path.glob("test_levels*.json"):
            file.unlink()
        result = suite(*arguments, ini="mcverify_alpha = 0.01")
        assert result.ret == 0
        again = told(pytester)
        assert again
        assert again == {name: whole[name] for name in again}
    suite("--mcverify-seed", "5")
    assert all(value[1:] != whole[name][1:] for name, value in told(pytester).items())


def test_workers_bring_the_same_summary_and_junit_properties(suite, pytester):
    one = suite("--junitxml=one.xml", test_it=HEAD + GOOD + BAD)
    two = suite("-n", "2", "--junitxml=two.xml")
    two.assert_outcomes(passed=1, failed=1)
    assert rows(two) == rows(one)
    assert ["test_it.py::test_bad 1.length.gain", "refuted (!)"] in rows(two)
    found = []
    for name in ("one.xml", "two.xml"):
        properties = ET.parse(pytester.path / name).iter("property")
        found.append({p.get("name"): json.loads(p.get("value")) for p in properties})
    # Both tests have the same statements; the file keeps the last of each name.
    assert found[0].keys() == {"mcverify.1.length.reference", "mcverify.1.length.gain"}
    for values in found[0].values():
        assert values.keys() == {
            "verdict", "expected", "component", "estimate", "se", "prediction", "margin", "mde", "samples",
        }  # fmt: skip


def test_a_random_seed_is_told_and_shared_by_workers(suite):
    result = suite("-n", "2", "--mcverify-seed=random", test_it=HEAD + BAD + BAD.replace("bad", "worse"))
    result.assert_outcomes(failed=2)
    (head,) = [line for line in result.outlines if "mcverify: alpha" in line]
    (seed,) = re.findall(r"seed (\d+)", head)
    # Once for each test; where the variable CI is set, pytest's summary says the whole message again.
    repeats = {line.removeprefix("E").strip() for line in result.outlines if "To repeat it" in line}
    assert len(repeats) == 2
    assert all(f"--mcverify-seed={seed} " in line for line in repeats)


@pytest.mark.parametrize(
    ("arguments", "ini", "line"),
    [
        (["--mcverify-seed=-1"], "", "*--mcverify-seed: got '-1'; must be*"),
        (["--mcverify-seed=x"], "", "*--mcverify-seed: got 'x'; must be*"),
        (["--mcverify-alpha=0"], "", "*mcverify_alpha: got '0'; must be*"),
        ([], "mcverify_alpha = much", "*mcverify_alpha: got 'much'; must be*"),
        (["-n", "2"], "mcverify_alpha = much", "*mcverify_alpha: got 'much'; must be*"),
        (["--mcverify-alpha="], "", "*mcverify_alpha: got ''; must be*"),
    ],
)
def test_bad_options_get_one_line(suite, arguments, ini, line):
    result = suite(*arguments, ini=ini, test_it=HEAD + GOOD)
    assert result.ret != 0
    (result.stderr if any("mcverify" in e for e in result.errlines) else result.stdout).fnmatch_lines([line])


def test_what_is_the_session_s_cannot_be_set_by_a_test(suite):
    text = "\ndef test_it(mcverify):\n    mcverify.network(net, x, alpha=0.5)\n"
    result = suite(test_it=HEAD + text)
    result.stdout.fnmatch_lines(["*TypeError: alpha is the session's*"])
    hidden = "\ndef test_it(request):\n    request.getfixturevalue('mcverify')\n"
    suite(test_it=HEAD + hidden).stdout.fnmatch_lines(["*must name the fixture*"])


def test_the_readme_s_test_passes(suite):
    (code,) = re.findall(r"```python\n# test_mine.py\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    suite(test_mine=code).assert_outcomes(passed=1)
    suite(test_mine=code.replace("sigma_w2=1.0", "sigma_w2=1.3")).assert_outcomes(failed=1)


def test_a_test_without_checks_costs_nothing(suite):
    quiet = """
import sys

def test_nothing():
    assert not {"numpy", "scipy", "numba", "xarray"} & set(sys.modules)
    loaded = {name for name in sys.modules if name.startswith("mcverify.")}
    assert loaded <= {"mcverify.pytest_plugin", "mcverify.levels"}

def test_asked_and_unused(mcverify):
    assert "numpy" not in sys.modules
"""
    result = suite(test_it=quiet)
    result.assert_outcomes(passed=2)
    result.stdout.no_fnmatch_line("*mcverify: alpha*")
    code = (
        "import sys, pytest; b = set(sys.modules); import mcverify.pytest_plugin; print(*sorted(set(sys.modules) - b))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert not {"numpy", "scipy", "numba", "xarray"} & {name.partition(".")[0] for name in run.stdout.split()}


# The companions that need no pytest.


def test_assertions_hold_and_fail():
    x = with_gram([[1.0]], 16)
    net = mv.mlp(16, [128], "tanh", 1.5)
    own = mv.simulate(net, x, samples=4096, replicates=True)[["length"]]
    watched = []
    assert testing.assert_samples(net, own, x, margin=0.05, watch=watched.append) is watched[0]
    with pytest.raises(AssertionError, match="Layer 1, input 1: the length is"):
        testing.assert_samples(mv.mlp(16, [128], "tanh", 2.5), own, x, margin=0.05)
    with pytest.raises(AssertionError, match="Nothing was checked"):
        testing.assert_confirmed(testing.Report([], 1e-3, 0))
    assert testing.assert_network(net, x, margin=0.05).exit_code == 0
    with pytest.raises(AssertionError, match=r"lengths|gradient norms"):
        testing.assert_network(mv.mlp(16, [4] * 3, "relu", 2.0), x, margin=0.02)


def test_mde_and_samples_are_each_other_s_inverse_and_true():
    sd, deviation = 2.0, 0.1
    n = testing.samples_for_mean(sd, deviation, tests=5)
    assert testing.mde_of_mean(sd, n, tests=5) <= deviation < testing.mde_of_mean(sd, n - 1, tests=5)
    assert testing.mde_of_mean(sd, n, margin=0.3) == pytest.approx(0.3 + testing.mde_of_mean(sd, n))
    # By simulation of the mean itself: refuted as often as the power says.
    z = (np.random.default_rng(1).standard_normal(10**5) * sd / np.sqrt(n) + deviation) / (sd / np.sqrt(n))
    from scipy.stats import norm

    assert (2 * norm.sf(np.abs(z)) <= 1e-3 / 5).mean() == pytest.approx(0.99, abs=0.002)
    for bad in ({"sd": 0.0}, {"power": 1.0}, {"alpha": 0.0}, {"tests": 0}, {"samples": 1}):
        with pytest.raises(mv.InputError):
            testing.mde_of_mean(**({"sd": 1.0, "samples": 10} | bad))


def test_a_report_tells_what_it_could_see_and_what_it_needs():
    x = with_gram([[1.0, 0.5], [0.5, 1.0]], 16)
    net = mv.mlp(16, [64] * 2, "tanh", 1.5)
    report = mv.check(net, mv.simulate(net, x, samples=300, replicates=True)[["length"]], x, margin=0.02)
    seen, needed = testing.mde_of_report(report), testing.samples_for_report(report)
    assert seen.keys() == needed.keys() == {"length.reference", "length.gain"}
    assert all(value > 0.02 for value in seen.values())
    assert all(number > 300 for number in needed.values())
