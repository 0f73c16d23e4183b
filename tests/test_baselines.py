"""Numerical regression: the catalogue against its recorded baseline, and every way in which a baseline can be wrong.

Error budget: the comparison of the catalogue refutes something true with probability 1e-3 where the recording's
platform is not at hand, and nothing by chance where it is, since then every bit must come back."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mcverify as mv
from mcverify import _native
from mcverify.baselines import SAME, compare, record, stored_claims, update
from mcverify.baselines import file as baseline_file
from mcverify.baselines.file import dumps, path_of, read, write
from mcverify.claims import measures, mutations
from mcverify.claims.catalogue import catalogue, select
from mcverify.claims.claim import Mutant
from mcverify.claims.plan import Budget
from mcverify.errors import InputError
from mcverify.report.baseline import closing, rows

CATALOGUE = Path(__file__).parent / "regression" / "catalogue"
OTHER_SEED = 7  # any but the recording's
SLOWER = np.linspace(1.0, 2.0, 5)  # a decay over five layers made slower
(Q_MAP,) = select(["poole2016.q_map"])
(XI_Q,) = select(["poole2016.xi_q"])


@pytest.fixture
def folder(tmp_path):
    """A copy of the catalogue's baselines to be spoilt."""
    return Path(shutil.copytree(CATALOGUE, tmp_path / "baselines"))


def forge(folder, claim, **changes):
    """A baseline whose numbers are changed at its first width, and whose checksum is right."""
    b = read(path_of(folder, claim.name))
    width = min(b.widths)
    write(replace(b, widths=b.widths | {width: replace(b.widths[width], **changes)}), folder)


def verdicts(found):
    return {r.verdict for r in found.rows}


# ---- the catalogue ------------------------------------------------------------------------------------


def test_every_claim_has_a_baseline_and_every_baseline_a_claim():
    assert {c.name for c in stored_claims(CATALOGUE)} == {c.name for c in catalogue()}


def test_the_catalogue_measures_what_it_did():
    """Bit for bit where it was recorded, by statistics elsewhere."""
    found = compare(catalogue(), CATALOGUE)
    assert found.exit_code == 0, closing(found)


@pytest.mark.parametrize("pattern", ["schoenholz2017*", pytest.param("*", marks=pytest.mark.slow)])
def test_the_catalogue_agrees_with_another_seed(pattern):
    found = compare(select([pattern]), CATALOGUE, seed=OTHER_SEED)
    assert {r.tier for r in found.rows} == {"statistics"}
    assert found.exit_code == 0, closing(found)
    assert all(0 < d < m for r in found.rows for d, m in zip(r.mde, np.array(r.margin) * 1.2, strict=True))


def test_another_instruction_path_is_compared_by_statistics(tmp_path):
    assert record([XI_Q], tmp_path).written == [XI_Q.name]
    assert {r.tier for r in compare([XI_Q], tmp_path).rows} == {"bits"}
    was = _native.path()
    other = next(name for name in _native.paths() if name != was)
    try:
        _native.set_path(other)
        found = compare([XI_Q], tmp_path)
    finally:
        _native.set_path(was)
    assert {r.tier for r in found.rows} == {"statistics"}
    assert found.exit_code == 0
    assert max(abs(d) for r in found.rows for d in r.differences) < 0.1  # the draws are nearly the same


@pytest.mark.parametrize("claim", [Q_MAP, XI_Q], ids=lambda c: c.name)
def test_a_recording_repeats_to_the_bit_with_any_number_of_threads(tmp_path, claim):
    for threads in (1, 3):
        assert record([claim], tmp_path / str(threads), threads=threads).exit_code == 0
    one, three = (path_of(tmp_path / t, claim.name).read_text() for t in "13")
    assert one == three
    assert verdicts(compare([claim], tmp_path / "1", threads=2)) == {"agrees"}
    assert {r.message for r in compare([claim], tmp_path / "1", threads=2).rows} == {"bit for bit"}


# ---- planted errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("seed", [None, OTHER_SEED])
def test_a_gain_of_three_mde_is_refuted(sign, seed):
    """On the simulated side alone; by the bits or by statistics."""
    (clean,) = compare([Q_MAP], CATALOGUE, seed=OTHER_SEED).rows
    gain = Mutant("gain", mutations.weight_gain(1 + sign * 3 * max(clean.mde)))
    found = compare([Q_MAP], CATALOGUE, seed=seed, mutant=gain)
    assert verdicts(found) == {"refuted"}
    assert found.exit_code == 1
    cells = [str(c) for c in rows(found.rows[0])[0]]
    assert cells[0] == Q_MAP.name
    assert "refuted" in cells[-1]


def test_a_wider_distribution_with_the_same_mean_is_refuted_by_its_bins():
    # Twice as wide: sum (p - p0)^2/p over the bins is about 0.5, above what is told as detectable.
    wide = Mutant("wide", measure=lambda t: 1 + 2.0 * (measures.one_step_variance(t) - 1))
    (row,) = compare([Q_MAP], CATALOGUE, seed=OTHER_SEED, mutant=wide).rows
    assert (row.verdict, row.p_means > 0.01) == ("refuted", True)
    assert row.p_bins < 1e-6
    assert "distributions differ" in row.message


def test_another_engine_samples_the_same_law():
    other = Mutant("the conditional engine", engine="conditional")
    assert verdicts(compare([Q_MAP, XI_Q], CATALOGUE, seed=OTHER_SEED, mutant=other)) == {"agrees"}


def test_values_that_are_not_finite_are_no_agreement():
    def half(t):
        gone = np.where(np.arange(t.site.count) % 2, 1.0, np.nan)
        return measures.one_step_variance(t) * gone[:, None, None]

    nan = Mutant("nan", measure=half)
    found = compare([Q_MAP], CATALOGUE, seed=OTHER_SEED, mutant=nan)
    assert (verdicts(found), found.exit_code) == ({"undecided"}, 3)
    assert "not finite" in found.rows[0].message
    none = Mutant("none", measure=lambda t: measures.one_step_variance(t) * np.nan)
    assert compare([Q_MAP], CATALOGUE, seed=OTHER_SEED, mutant=none).exit_code == 3


def test_a_margin_that_the_networks_cannot_hold_is_undecided(folder):
    forge(folder, Q_MAP, margin=np.full(10, 0.005))
    found = compare([Q_MAP], folder, seed=OTHER_SEED)
    assert (verdicts(found), found.exit_code) == ({"undecided"}, 3)
    assert "networks" in found.rows[0].message


def test_dead_networks_are_compared_too(tmp_path):
    """With survivors, how many are left out is part of what must not move."""
    net = mv.mlp(8, [5, 5], "relu", sigma_w2=2.0)
    claim = replace(
        XI_Q, name="dead", networks=lambda _: net, widths=(5,), inputs=lambda n: np.ones((1, 8)), test="within",
        measure=measures.log_length_gain, combine=Q_MAP.combine, survivors=True, margin=9.0, rival=None,
        labels=lambda n: ["layer 2"], predict=lambda n, x: np.zeros(1), remainder=None,
    )  # fmt: skip
    assert record([claim], tmp_path).exit_code == 0
    (v,) = read(path_of(tmp_path, "dead").resolve()).widths.values()
    assert v.left_out > 50
    fewer = v.left_out // 3
    forge(tmp_path, claim, left_out=fewer, samples=v.samples - v.left_out + fewer)
    (row,) = compare([claim], tmp_path, seed=OTHER_SEED).rows
    assert (row.verdict, row.p_means > 0.01) == ("refuted", True)


# ---- files that cannot be used ------------------------------------------------------------------------


def refused(claims, folder, match):
    with pytest.raises(InputError, match=match) as error:
        compare(claims, folder)
    assert "\n" not in str(error.value)


def test_an_edited_number_is_told(folder):
    path = path_of(folder, XI_Q.name)
    text = path.read_text()
    path.write_text(re.sub(r"mean = 0\.046", "mean = 0.045", text, count=1))
    refused([XI_Q], folder, "was edited or truncated")


def test_an_edited_number_with_a_right_checksum_is_refuted_where_bits_are_compared(tmp_path):
    assert record([XI_Q], tmp_path).written
    mean = read(path_of(tmp_path, XI_Q.name)).widths[32].mean
    forge(tmp_path, XI_Q, mean=np.nextafter(mean, 1))
    found = compare([XI_Q], tmp_path)
    assert [r.verdict for r in found.rows] == ["refuted", "agrees"]
    assert "moved by" in found.rows[0].message
    assert compare([XI_Q], tmp_path, ulps=1e-6).exit_code == 0  # 2**-29 of float32's ulp is one of float64


def test_other_networks_with_the_same_moments_are_refuted_where_bits_are_compared(tmp_path):
    assert record([XI_Q], tmp_path).written
    forge(tmp_path, XI_Q, digest="0" * 32)
    found = compare([XI_Q], tmp_path)
    assert [r.verdict for r in found.rows] == ["refuted", "agrees"]
    assert "not every network" in found.rows[0].message
    assert compare([XI_Q], tmp_path, ulps=1.0).exit_code == 0


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_told(folder, share):
    path = path_of(folder, XI_Q.name)
    text = path.read_text()
    path.write_text(text[: int(share * len(text))])
    refused([XI_Q], folder, "truncated|no baseline")


def test_a_file_cut_at_the_end_of_a_line_is_told(folder):
    path = path_of(folder, XI_Q.name)
    text = path.read_text()
    path.write_text(text[: text.rindex("[[widths]]")])
    refused([XI_Q], folder, "was edited or truncated")


def test_a_newer_format_is_told(folder):
    path = path_of(folder, XI_Q.name)
    path.write_text(path.read_text().replace("format = 1", "format = 2"))
    refused([XI_Q], folder, "has format 2: this mcverify reads 1")


def test_another_claims_baseline_is_told(folder):
    shutil.copy(path_of(folder, Q_MAP.name), path_of(folder, XI_Q.name))
    refused([XI_Q], folder, "holds the baseline of poole2016.q_map")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"networks": lambda width: mutations.weight_gain(1.1)(Q_MAP.networks(width))}, "of another network"),
        ({"inputs": lambda net: 1.01 * Q_MAP.inputs(net)}, "with other inputs"),
        ({"widths": (64,)}, "which the claim does not have"),
        ({"labels": lambda net: ["one", "two"]}, "components are others"),
        ({"measure": lambda t: measures.one_step_variance(t)[:, :2]}, "measured 10 values"),
    ],
)
def test_a_claim_that_became_another_is_told(change, match):
    refused([replace(Q_MAP, **change)], CATALOGUE, match)


def test_nan_and_missing_files_are_told(folder):
    b = read(path_of(folder, XI_Q.name))
    bad = replace(b, widths={w: replace(v, mean=v.mean * np.nan) for w, v in b.widths.items()})
    with pytest.raises(InputError, match="not finite"):
        write(bad, folder)
    path_of(folder, XI_Q.name).write_text(dumps(bad))
    refused([XI_Q], folder, "not finite")
    path_of(folder, XI_Q.name).unlink()
    refused([XI_Q], folder, "no such file")
    (folder / "mine.toml").write_text("")
    with pytest.raises(InputError, match="belongs to no claim"):
        stored_claims(folder)
    with pytest.raises(InputError, match="holds no baselines"):
        stored_claims(folder / "nowhere")


def test_a_file_under_a_file_is_no_folder(folder):
    with pytest.raises(InputError, match="must be a folder that can be written"):
        record([XI_Q], path_of(folder, XI_Q.name))
    for field, value in (("samples", 100), ("alpha", 0.9), ("ulps", -1.0), ("ulps", np.nan)):
        with pytest.raises(InputError, match=field):
            compare([XI_Q], folder, **{field: value})


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r'seed = "\d+"', 'seed = "abc"'),
        (r'seed = "\d+"\n', ""),
        (r"samples = \d+", 'samples = "many"'),
        (r"samples = \d+", "samples = 1024.5"),
        (r"samples = \d+", "samples = 99999999999999999999"),
        (r"samples = \d+", "samples = -5"),
        (r"left_out = 0", "left_out = -1"),
        (r"counts = \[\d+", "counts = [7"),
        (r"counts = \[\d+", "counts = [-1"),
        (r"margin = \[", "margin = [-"),
        (r"edges = \[", "edges = [1e9, "),
        (r"format = 1", "format = true"),
        (r"format = 1", "format = 1.0"),
    ],
)
def test_what_no_recording_gives_is_told_though_the_checksum_be_right(folder, pattern, text):
    path = path_of(folder, XI_Q.name)
    spoilt = re.sub(pattern, text, path.read_text(), count=1)
    head, _, rest = spoilt.partition("\nchecksum = ")
    body = rest.partition("\n")[2]
    path.write_text(f'{head}\nchecksum = "{baseline_file._digest(body.encode())}"\n{body}')
    refused([XI_Q], folder, "missing or wrong entry|is no baseline of format")


# ---- interrupts ---------------------------------------------------------------------------------------


def test_an_interrupted_comparison_keeps_what_it_compared():
    def stop(done, claims):
        if done == 1:
            raise KeyboardInterrupt

    found = compare([XI_Q, Q_MAP], CATALOGUE, seed=OTHER_SEED, progress=stop)
    assert {r.claim for r in found.rows} == {XI_Q.name}
    assert verdicts(found) == {"agrees"}
    assert found.exit_code == 3
    assert found.provenance["tests"] == 2 * sum(len(read(path_of(CATALOGUE, c.name)).widths) for c in (XI_Q, Q_MAP))
    assert "interrupted" in closing(found)


def test_an_interrupted_recording_keeps_what_it_stored(tmp_path, monkeypatch):
    def stop(baseline, folder):
        if baseline.claim == XI_Q.name:
            raise KeyboardInterrupt
        return write(baseline, folder)

    monkeypatch.setattr("mcverify.baselines.recording.write", stop)
    quick = select(["poole2016.q_trajectory"])
    done = record([*quick, XI_Q], tmp_path)
    assert (done.written, done.exit_code) == ([quick[0].name], 3)
    assert "interrupted" in done.refused[XI_Q.name]


# ---- text and netCDF ----------------------------------------------------------------------------------


WHOLE = [p for p in sorted(CATALOGUE.glob("*.toml")) if not p.with_suffix(".nc").exists()]


@pytest.mark.parametrize("path", WHOLE, ids=lambda p: p.stem)
def test_the_text_holds_every_bit(path):
    text = path.read_text(encoding="utf-8")
    assert dumps(read(path)) == text
    assert len(text.splitlines()) < 100  # short enough to review


def test_large_baselines_keep_their_arrays_beside_them(folder, monkeypatch):
    was = read(path_of(folder, Q_MAP.name))
    monkeypatch.setattr(baseline_file, "TEXT_NUMBERS", 100)
    path = write(was, folder)
    arrays = path.with_suffix(".nc")
    assert len(path.read_text().splitlines()) < 35
    for name in ("mean", "covariance", "edges", "counts"):
        np.testing.assert_array_equal(getattr(read(path).widths[48], name), getattr(was.widths[48], name))
    assert compare([Q_MAP], folder).exit_code == 0

    (xi_q,) = write(read(path_of(folder, XI_Q.name)), folder).parent.glob("poole2016.xi_q.nc")
    shutil.copy(xi_q, arrays)
    refused([Q_MAP], folder, "does not belong to|missing or wrong")
    arrays.write_bytes(arrays.read_bytes()[:1000])
    refused([Q_MAP], folder, "must be a result stored by mcverify")
    arrays.unlink()
    refused([Q_MAP], folder, r"needs poole2016.q_map.nc beside it, which is missing")


# ---- record and update --------------------------------------------------------------------------------


def test_what_theory_does_not_confirm_is_not_recorded(tmp_path):
    wrong = replace(XI_Q, name="wrong", predict=lambda net, x: XI_Q.predict(net, x) + 0.2)
    done = record([wrong, XI_Q], tmp_path)
    assert (done.written, list(done.refused), done.exit_code) == ([XI_Q.name], ["wrong"], 1)
    assert "refuted (expected confirmed)" in done.refused["wrong"]
    assert [p.stem for p in tmp_path.iterdir()] == [XI_Q.name]
    small = record([Q_MAP], tmp_path, budget=Budget(samples=1500))
    assert (small.written, small.exit_code) == ([], 3)


def test_update_rewrites_what_changed_and_nothing_that_theory_refutes(folder):
    forge(folder, XI_Q, mean=SLOWER * read(path_of(folder, XI_Q.name)).widths[32].mean)
    forged, untouched = path_of(folder, XI_Q.name).read_text(), path_of(folder, Q_MAP.name).read_text()
    found = compare([Q_MAP, XI_Q], folder, seed=OTHER_SEED)
    wrong = replace(XI_Q, predict=lambda net, x: XI_Q.predict(net, x) + 0.2)
    refusal = update(found, [Q_MAP, wrong], folder)
    assert (refusal.exit_code, refusal.updated, list(refusal.refused)) == (1, [], [XI_Q.name])
    assert path_of(folder, XI_Q.name).read_text() == forged

    done = update(found, [Q_MAP, XI_Q], folder)
    assert (found.exit_code, done.exit_code, done.updated) == (1, 0, [XI_Q.name])
    assert path_of(folder, Q_MAP.name).read_text() == untouched
    assert compare([Q_MAP, XI_Q], folder).exit_code == 0
    new, shipped = (read(path_of(where, XI_Q.name)) for where in (folder, CATALOGUE))
    if all(new.recorded[key] == shipped.recorded[key] for key in SAME):
        assert dumps(new) == dumps(replace(shipped, recorded=new.recorded))


# ---- the command line ---------------------------------------------------------------------------------


def mcverify(*args):
    command = [sys.executable, "-m", "mcverify", "baseline", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_command_line_tells_by_exit_code_and_one_line(folder):
    assert mcverify("compare", XI_Q.name, Q_MAP.name, "--folder", folder, "--seed", 3).returncode == 0
    forge(folder, XI_Q, mean=SLOWER * read(path_of(folder, XI_Q.name)).widths[32].mean)
    shown = mcverify("compare", "poole2016.xi_q", "--folder", folder, "--seed", 3)
    assert shown.returncode == 1
    assert re.search(r"poole2016.xi_q at width 32: refuted: (means|means and distributions) differ", shown.stdout)
    told = json.loads(mcverify("compare", XI_Q.name, "--folder", folder, "--seed", 3, "--json").stdout)
    assert told["exit_code"] == 1
    assert told["rows"][0]["differences"][0] != 0
    updated = mcverify("compare", XI_Q.name, "--folder", folder, "--seed", 3, "--update")
    assert updated.returncode == 0
    assert "Recorded again: poole2016.xi_q" in updated.stdout
    path_of(folder, XI_Q.name).write_text("format = 9\n")
    unusable = mcverify("compare", "--folder", folder)
    assert unusable.returncode == 2
    assert unusable.stderr.count("\n") == 1
    assert "has format 9" in unusable.stderr


def test_a_network_file_has_baselines_of_its_own(tmp_path):
    net, mine = tmp_path / "net.toml", tmp_path / "mine"
    text = "[network]\ninput_dim = 16\nwidths = [64, 64]\nactivation = 'erf'\nsigma_w2 = 1.2\nsigma_b2 = 0.1\n"
    net.write_text(text + "[verify]\nmargin = 0.1\n")
    shown = mcverify("record", net, "--folder", mine)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert (mine / "network.map.toml").exists()
    assert mcverify("compare", net, "--folder", mine).returncode == 0
    assert mcverify("compare", net, "--folder", mine, "--seed", 1).returncode == 0
    net.write_text(text.replace("1.2", "1.3"))
    other = mcverify("compare", net, "--folder", mine)
    assert other.returncode == 2
    assert "was recorded of another network" in other.stderr
