"""The command line, run as a process: what people type, what they see, and the exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from mcverify import results
from mcverify.report import terminal

EXAMPLES = Path(__file__).parent.parent / "examples"
TANH = str(EXAMPLES / "tanh_critical.toml")


def mcverify(*args, cwd=None, **env):
    command = [sys.executable, "-m", "mcverify", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=os.environ | env, timeout=120)


def test_help_imports_nothing_heavy():
    """--help in well under half a second: neither NumPy nor anything that needs it is loaded."""
    code = "import sys, mcverify.cli; print(sorted({'numpy', 'scipy', 'rich', 'xarray', 'numba'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
    shown = mcverify("--help")
    assert shown.returncode == 0
    for command in ("verify", "predict", "simulate", "phase", "claims", "baseline"):
        assert command in shown.stdout


def test_phase_prints_the_known_answer():
    shown = mcverify("phase", "tanh", "--sigma-w2", "1.05", "--sigma-b2", "2e-5")
    assert shown.returncode == 0
    for text in ("critical", "0.0259187651", "1.0000038751"):
        assert text in shown.stdout
    told = json.loads(mcverify("phase", "tanh", "--sigma-w2", 1.05, "--sigma-b2", 2e-5, "--json").stdout)
    assert told["chi_1"] == pytest.approx(1.000003875137, abs=1e-11)


def test_phase_without_a_fixed_point_says_so():
    shown = mcverify("phase", "relu", "--sigma-w2", "2", "--sigma-b2", "0.1")
    assert shown.returncode == 0
    assert "nan" not in shown.stdout
    assert json.loads(mcverify("phase", "relu", "--sigma-w2", "2", "--sigma-b2", "0.1", "--json").stdout)["q"] is None


def example(path):
    wide = path.stem == "taki_100_blocks_bn"  # 512 columns through 100 blocks: half a minute
    return pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if wide else [])


@pytest.mark.parametrize("example", [example(path) for path in sorted(EXAMPLES.glob("*.toml"))])
def test_every_example_is_predicted(example):
    shown = mcverify("predict", example)
    assert shown.returncode == 0, shown.stderr
    assert "layer" in shown.stdout
    if example.stem.startswith(("xiao2018_1503", "taki_100_blocks")):  # deep: once is enough
        return
    told = json.loads(mcverify("predict", example, "--json").stdout)
    assert len(told["q"]) == len(told["chi"])
    assert told["words"]


def test_initialisers_are_sorted():
    shown = mcverify("initialisers", "relu", "--width", 1000, "--depth", 5)
    assert shown.returncode == 0, shown.stderr
    verdicts = {line.split()[0]: line.split()[-1] for line in shown.stdout.splitlines()[1:-3]}
    assert verdicts["he_normal"] == "right"
    assert verdicts["glorot_uniform"] == "FM1"
    told = json.loads(mcverify("initialisers", "relu", "--width", 1000, "--depth", 5, "--json").stdout)
    assert {r["name"]: r["verdict"] for r in told} == verdicts


def test_initialisers_of_more_layers_than_fit_are_refused():
    shown = mcverify("initialisers", "relu", "--depth", "1000000000000")
    assert shown.returncode == 2
    assert "1<=x<=10000" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_simulate_shows_stores_and_repeats(tmp_path):
    shown = mcverify("simulate", TANH, "--samples", 50, "--seed", 3, "--out", tmp_path / "r.nc")
    assert shown.returncode == 0, shown.stderr
    assert "50 networks" in shown.stdout
    stored = results.load(tmp_path / "r.nc")
    assert stored.attrs["seed"] == "3"
    assert stored.sizes["layer"] == 10
    told = json.loads(mcverify("simulate", TANH, "--samples", 50, "--seed", 3, "--json").stdout)
    assert told["variables"]["q"]["values"] == stored.q.values.tolist()


def test_verify_claims_writes_a_report(tmp_path):
    shown = mcverify("verify", "poole2016.xi_q", "--report", tmp_path / "out")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "1 confirmed; every verdict as expected" in shown.stdout
    assert (tmp_path / "out" / "report.html").read_text(encoding="utf-8").count("poole2016.xi_q") >= 2


def test_verify_is_a_function_of_its_seed(tmp_path):
    def told(*more):
        run = mcverify("verify", "poole2016.xi_q", "--json", "--report", tmp_path, *more)
        report = json.loads(run.stdout)
        for result in report["results"]:
            del result["seconds"]
        del report["provenance"]["command"]
        return report

    assert told("--seed", 5, "--threads", 1) == told("--seed", 5, "--threads", 2)
    assert told("--seed", 5)["results"] != told("--seed", 6)["results"]
    assert told("--seed", "random")["seed"] > 2**20  # printed, so that it can be repeated


def test_verify_a_network_ends_in_one_sentence(tmp_path):
    net = tmp_path / "net.toml"
    net.write_text(
        "[network]\ninput_dim = 16\nwidths = [128, 128]\nactivation = 'erf'\nsigma_w2 = 1.2\nsigma_b2 = 0.1\n"
        "[verify]\nmargin = 0.05\n"
    )
    shown = mcverify("verify", net, "--report", tmp_path)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "No layer departs from theory by more than 5.00%" in shown.stdout


def test_exit_code_1_names_the_layer_that_departs(tmp_path):
    net = tmp_path / "narrow.toml"
    net.write_text(
        "[network]\ninput_dim=16\nwidths=[64, 8, 64]\nactivation='relu'\nsigma_w2=2.0\n[verify]\nmargin=0.05\n"
    )
    shown = mcverify("verify", net, "--report", tmp_path, "--budget", "1e9w")
    assert shown.returncode == 1
    assert "The first layer to depart from the limit by more than 5.00% is layer" in shown.stdout


def test_exit_code_3_when_the_budget_is_too_small(tmp_path):
    shown = mcverify("verify", "poole2016.q_map", "--budget", 2000, "--report", tmp_path)
    assert shown.returncode == 3
    assert "raise the budget" in shown.stdout


def test_planted_errors_are_shown_refuted():
    shown = mcverify("verify", "--self-test", "poole2016.xi_q")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "2 of 2 planted errors refuted" in shown.stdout
    *trials, smallest = shown.stderr.splitlines()  # a line each, so that a log is never silent for long
    assert [line.partition(" ")[0] for line in trials] == ["1/3", "2/3", "3/3", "3/3"]
    assert "poole2016.xi_q: as it is" in trials[2]
    assert smallest == "1/1 poole2016.xi_q: smallest error"


def test_claims_are_listed():
    shown = mcverify("claims")
    assert "poole2016.q_map" in shown.stdout
    listed = json.loads(mcverify("claims", "schoenholz*", "--json").stdout)
    assert all(c["source"] and c["margin_reason"] for c in listed)


BAD = [
    (["phase", "tahn", "--sigma-w2", "1"], "activation", "did you mean 'tanh'"),
    (["phase", "tanh", "--sigma-w2", "-1"], "sigma_w2", "at least 0"),
    (["phase", "tanh", "--sigma-w2", "1", "--keep", "0"], "keep", "(0, 1]"),
    (["verify", "none.toml"], "none.toml", "no such file"),
    (["verify", "nothing*"], "nothing*", "matches no claim"),
    (["verify", TANH, "poole*"], "poole*", "not both"),
    (["verify", "poole2016.xi_q", "--alpha", "0"], "alpha", "(0, 0.5]"),
    (["verify", "poole2016.xi_q", "--budget", "-1"], "budget", "90s"),
    (["verify", "poole2016.xi_q", "--seed", "-1"], "--seed", "whole number"),
    (["verify", "poole2016.xi_q", "--backend", "gpu"], "backend", "allowed"),
    (["simulate", TANH, "--samples", "1"], "samples", "at least 2"),
    (["simulate", TANH, "--engine", "warp"], "engine", "allowed"),
    (["simulate", TANH, "--out", "/nowhere/x.nc"], "--out", "folder that exists"),
    (["simulate", TANH, "--replicates"], "--replicates", "--out"),
    (["predict", "none.toml"], "none.toml", "no such file"),
]


@pytest.mark.parametrize(("args", "field", "words"), BAD, ids=[" ".join(a)[-40:] for a, _, _ in BAD])
def test_bad_input_is_one_line_and_exit_code_2(args, field, words, tmp_path):
    shown = mcverify(*args, cwd=tmp_path)
    assert shown.returncode == 2
    assert "Traceback" not in shown.stderr
    assert field in shown.stderr
    assert words in shown.stderr
    assert len(shown.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []  # nothing was started


def test_an_interrupt_keeps_what_it_has(tmp_path):
    """Ctrl-C in a long run: the claims measured so far are reported, and the exit code says undecided."""
    command = [sys.executable, "-m", "mcverify", "verify", "--budget", "40e9w", "--report", str(tmp_path)]
    run = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a job in a background ignores it
    )  # fmt: skip
    first = run.stderr.readline()  # a line a claim, where the output is no terminal
    run.send_signal(signal.SIGINT)
    try:
        out, err = run.communicate(timeout=20)
    except subprocess.TimeoutExpired:  # Python drops what a signal raises inside a finalizer: pressed again
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=60)
    assert first.startswith("1/")
    assert "Traceback" not in err
    assert run.returncode in (1, 3)
    assert "interrupted" in out
    assert (tmp_path / "report.html").exists()


QUICK = "verify", "poole2016.q_trajectory", "--budget", "1n"


@pytest.mark.parametrize("seed", ["²", "٣", "9" * 5000])
def test_a_seed_is_written_in_plain_digits(seed):
    shown = mcverify(*QUICK, "--seed", seed)
    assert (shown.returncode, shown.stdout) == (2, "")
    assert shown.stderr.startswith("mcverify: --seed: got ")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc: a folder that refuses every user")
@pytest.mark.parametrize("folder", ["/proc/report", "x" * 300])
def test_a_folder_that_cannot_be_written_is_refused_before_the_run(folder, tmp_path):
    for command in (*QUICK, "--report"), ("baseline", "record", QUICK[1], "--folder"):
        shown = mcverify(*command, folder, cwd=tmp_path)
        assert (shown.returncode, shown.stdout) == (2, "")
        assert len(shown.stderr.splitlines()) == 1
        assert "must be a folder that can be written" in shown.stderr


def test_a_terminal_without_greek_letters_keeps_the_verdict(tmp_path):
    shown = mcverify(*QUICK, "--report", tmp_path, PYTHONIOENCODING="ascii")
    assert shown.returncode == 0
    assert "1 confirmed; every verdict as expected" in shown.stdout


def test_a_reader_that_leaves_does_not_look_like_a_refutation(tmp_path):
    """`mcverify … | true`: exit code 141 as of any program, not the 1 of a refutation."""
    command = [sys.executable, "-m", "mcverify", *QUICK, "--report", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        run.stdout.close()
        assert "Traceback" not in run.stderr.read()
    assert run.returncode == 141
    assert (tmp_path / "report.json").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full: a disk without space")
def test_a_full_disk_does_not_look_like_a_refutation(tmp_path):
    with open("/dev/full", "w") as full:
        for command in (*QUICK, "--report", tmp_path), ("claims",):
            command = [sys.executable, "-m", "mcverify", *map(str, command)]
            run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
            assert run.returncode in (2, 120)  # 120 where Python itself tries once more at its end
            assert "mcverify: the output cannot be written: No space left on device" in run.stderr
            assert "Traceback" not in run.stderr
    assert (tmp_path / "report.json").exists()


def test_brackets_in_a_name_are_shown(tmp_path):
    assert "Report: [bold]x/report.html" in mcverify(*QUICK, "--report", "[bold]x", cwd=tmp_path).stdout


@pytest.mark.parametrize(("planned", "told"), [(7, True), (0, False), (None, False)])
def test_an_interrupted_self_test_says_how_far_it_came(planned, told):
    console = Console(file=StringIO(), width=140)
    terminal.show_self_test([], [], console, planned=planned)
    assert ("Interrupted: 0 of 7 trials were judged" in console.file.getvalue()) == told
