"""From which widths and to which depth the limit holds: against closed forms, and against sampled networks."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

import mcverify as mv
from mcverify import sampled_validity
from mcverify.cli import main
from mcverify.errors import InputError, Unpredictable
from mcverify.inputs import with_gram
from mcverify.report import validity as report
from mcverify.sampled_validity import parse_margin
from mcverify.theory.corrections import first_order
from mcverify.theory.propagation import propagate
from mcverify.theory.validity import boundaries, deviations, hidden, widened, with_depth

ONE = with_gram([[1.0]], 8)
TWO = with_gram([[1.0, 0.5], [0.5, 1.0]], 8)


def of(net, x, margin):
    return {(b.quantity, b.kind): b for b in boundaries(net, x, margin)}


def test_relu_lengths_have_the_widths_of_their_law():
    """He-ReLU: the mean holds at every width, a typical network from n = 5(L − 1)/margin² on, and gradients from
    5(L − 1)/margin² as well; and the depth that n allows is 1 + n margin²/5."""
    found = of(mv.mlp(8, [1010] * 6, "relu", 2.0), ONE, 0.2)
    assert found["length", "mean"].factor == found["gradient norm", "mean"].factor == 0.0
    for quantity in ("length", "gradient norm"):
        b = found[quantity, "typical"]
        assert b.widths == (625,) * 5
        assert b.depth == 1 + int(1010 * 0.04 / 5)
        assert b.layers == (b.all_layers,)


def test_layers_that_hold_at_the_networks_own_widths():
    found = of(mv.mlp(8, [400] * 8, "relu", 2.0), ONE, 0.2)  # layers up to 1 + 400 · 0.04/5 = 4.2
    assert found["length", "typical"].layers == ((2, 4),)
    assert found["gradient norm", "typical"].layers == ((5, 7),)
    assert found["length", "typical"].depth == found["gradient norm", "typical"].depth == 4


def test_at_the_boundary_the_deviation_is_the_margin():
    """To first order, at widths that need no rounding: tanh, two inputs, widths that differ."""
    net = mv.mlp(8, [3000, 4000, 5000, 4000], "tanh", 1.5, 0.05)
    for b in boundaries(net, TWO, 0.05):
        assert b.factor > 0
        d = next(v for v in deviations(net, TWO) if v.quantity == b.quantity)
        size = d.size(b.kind, b.factor)
        assert np.nanmax(size) == pytest.approx(0.05, rel=1e-9)
        at = np.unravel_index(np.nanargmax(size), size.shape)
        assert (d.first + at[0], at[1]) == (b.layer, b.item)
        if b.kind == "mean":
            assert b.safe >= b.factor
            with_rest = np.abs(d.shift) / b.safe + d.remainder / b.safe**2
            assert np.nanmax(with_rest) <= 0.05 * (1 + 1e-9)


def test_deviations_scale_with_width():
    """Widths times f are the corrections' own f: shifts and variances go as 1/f, remainders as 1/f²."""
    net, wide = (widened(mv.mlp(8, [40, 60, 50], "erf", 1.5, 0.1), f) for f in (1.0, 3.0))
    assert hidden(wide) == [120, 180]
    assert wide.widths[-1] == net.widths[-1]
    for a, b in zip(deviations(net, TWO), deviations(wide, TWO), strict=True):
        np.testing.assert_allclose(b.shift, a.shift / 3, rtol=1e-9, atol=1e-15)
        np.testing.assert_allclose(b.variance, a.variance / 3, rtol=1e-9, atol=1e-15)
        np.testing.assert_allclose(b.remainder, a.remainder / 9, rtol=1e-9, atol=1e-15)


def test_depths_are_cut_and_continued():
    net = mv.mlp(8, [16] * 4, "tanh", 1.5, keep=0.9, readout=3)
    for depth in (2, 3, 5, 9):
        assert with_depth(net, depth).widths == [16] * (depth - 1) + [3]
    assert with_depth(net, 5) == net
    assert with_depth(mv.mlp(8, [16, 17, 16], "tanh", 1.5), 5) is None
    x = with_gram([[1.0]], 8)
    p = propagate(net, x)
    deep = with_depth(net, 8)
    np.testing.assert_allclose(
        first_order(deep, propagate(deep, x)).metric.value[:5], first_order(net, p).metric.value, atol=1e-12
    )


def test_sampled_networks_confirm_the_boundaries():
    """He-ReLU: half the widths fail, twice them hold. 600 networks know a root mean square to 3%; a layer more or less
    moves it by 15%."""
    v = mv.validity(mv.mlp(8, [30] * 4, "relu", 2.0), ONE, "10%", threads=1)
    said = {(r.boundary.quantity, r.boundary.kind): r.agreement for r in v.rows}
    assert said["length", "typical"] == said["gradient norm", "typical"] == "confirmed"
    assert said["length", "mean"] == "not sampled"
    assert v.exit_code == 0
    for row in v.rows:
        for point in row.points:
            assert point.measured == pytest.approx(point.predicted, rel=0.1)


def test_a_wrong_boundary_fails(monkeypatch):
    """That of three times the margin asks for a ninth of the widths, at twice which networks do not hold."""
    real = sampled_validity.boundaries
    monkeypatch.setattr(
        sampled_validity,
        "boundaries",
        lambda *given: [replace(b, margin=given[2]) for b in real(*given[:2], 3 * given[2])],
    )
    v = mv.validity(mv.mlp(8, [30] * 4, "relu", 2.0), ONE, 0.2, threads=1)
    assert {r.agreement for r in v.rows if r.boundary.kind == "typical"} == {"fails"}
    assert v.exit_code == 1


def test_an_interrupt_keeps_the_theory_and_what_was_sampled(monkeypatch):
    """Ctrl-C ends a point's sample where it stands: that point, and those after it, are not judged."""
    real, calls = sampled_validity.sample, []

    def cut(plan, measures, start, samples, *rest, **named):
        calls.append(samples)
        return real(plan, measures, start, samples if len(calls) <= 3 else 2, *rest, **named)

    monkeypatch.setattr(sampled_validity, "sample", cut)
    found = mv.validity(mv.mlp(8, [20] * 3, "tanh", 1.5), margin="20%", threads=1)
    assert found.interrupted
    assert found.exit_code == 3
    assert len(calls) == 4
    assert found.rows[0].agreement != "not sampled"
    cut_short = [row for row in found.rows if row.reason == "interrupted"]
    assert len(cut_short) >= 3
    assert {row.agreement for row in cut_short} == {"not sampled"}


def test_margins():
    assert parse_margin("5%") == parse_margin(0.05) == parse_margin(" 0.05 ") == 0.05
    for bad in ("5 percent", "-5%", "0", "200%", "", "nan", True, 1e-300):
        with pytest.raises(InputError, match="margin"):
            parse_margin(bad)


def test_what_cannot_be_treated_says_so():
    uniform = mv.mlp(8, [8, 8], "relu", weights="uniform")
    for net, reason in ((mv.mlp(8, [8], "tanh"), "single layer"), (uniform, "uniform")):
        with pytest.raises(Unpredictable, match=reason):
            mv.validity(net, ONE)
    v = mv.validity(mv.mlp(8, [8] * 3, "relu", 2.0), np.array([np.ones(8), 2 * np.ones(8)]), 0.5, confirm=False)
    assert all(r.agreement == "not sampled" for r in v.rows)
    assert np.isnan(next(r.boundary.factor for r in v.rows if r.boundary.quantity == "correlation"))


def test_command_line(tmp_path):
    """A table, a page with a plot, JSON; and one line for a network without corrections."""
    file = tmp_path / "net.toml"
    file.write_text('[network]\ninput_dim = 8\nwidth = 40\ndepth = 4\nactivation = "tanh"\nsigma_w2 = 1.5\n')
    run = CliRunner().invoke
    options = ["--margin", "20%", "--report", str(tmp_path / "out")]
    told = run(main, ["validity", str(file), "--json", "--no-sampling", *options])
    assert told.exit_code == 0, told.output
    page = (tmp_path / "out" / "validity.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 1
    assert "gradient norm" in page
    data = json.loads(told.stdout)
    assert data["margin"] == 0.2
    assert {row["boundary"]["kind"] for row in data["rows"]} == {"mean", "typical"}
    file.write_text('[network]\narchitecture = "cnn"\ninput_shape = [1, 8]\nchannels = [4, 4]\nactivation = "tanh"\n')
    refused = run(main, ["validity", str(file), *options])
    assert refused.exit_code == 2
    assert "convolution" in refused.output
    assert refused.output.count("\n") == 1


@pytest.mark.filterwarnings("error")
def test_networks_that_are_all_alike_or_dead(monkeypatch):
    """Correlations of one unit are 1 or do not exist, so that points have no standard error, or no networks."""
    monkeypatch.setattr(sampled_validity, "_TYPICAL", 300)
    monkeypatch.setattr(sampled_validity, "_WORK", 4e6)
    for net, x in ((mv.mlp(4, [2] * 6, "relu", 2.0), None), (mv.mlp(4, [2] * 3, "relu", 1.5), [[1.0] * 4, [-1.0] * 4]),
                   (mv.mlp(4, [2, 2], "sign"), None)):  # fmt: skip
        v = mv.validity(net, x, 1.0, threads=1)
        assert v.exit_code in (0, 1, 3)
        points = [p for row in v.rows for p in row.points]
        assert all(math.isnan(p.measured) == (p.networks < 100) for p in points)


def test_dropped_networks_are_counted(monkeypatch, tmp_path):
    """Networks of two units die often: how many is in the rows, in the JSON, on the terminal and on the page. Dead are
    those that the sampled correlations of the same draws leave out."""
    real, kept = sampled_validity._correlation, []

    def watched(*given, **named):
        kept.append(real(*given, **named))
        return kept[-1]

    monkeypatch.setitem(sampled_validity._MEASURES, "correlation", watched)
    monkeypatch.setattr(sampled_validity, "_WORK", 4e6)
    file = tmp_path / "net.toml"
    file.write_text('[network]\ninput_dim = 8\nwidth = 4\ndepth = 4\nactivation = "relu"\nsigma_w2 = 2.0\n')
    told = CliRunner().invoke(main, ["validity", str(file), "--margin", "50%", "--threads", "1",
                                     "--report", str(tmp_path / "out")])  # fmt: skip
    dead, of = int(sum(np.isnan(v).sum() for v in kept)), sum(map(len, kept))
    data = json.loads((tmp_path / "out" / "validity.json").read_text())
    rows = [row for row in data["rows"] if row["boundary"]["quantity"] == "correlation"]
    points = [p for row in rows for p in row["points"]]
    assert dead > 100
    assert data["dropped"] == sum(p["dropped"] for p in points) == dead
    assert sum(p["networks"] + p["dropped"] for p in points) == of <= data["sampled"]
    words = f"Dropped: {dead:,} of {data['sampled']:,} sampled networks"
    assert words in " ".join(told.output.split())
    page = (tmp_path / "out" / "validity.html").read_text(encoding="utf-8")
    assert words in page
    assert f"{points[0]['dropped']:,} more dropped" in page
    assert "Dropped" not in report.dropped(mv.validity(mv.mlp(8, [40] * 3, "tanh"), margin=0.2, confirm=False))
