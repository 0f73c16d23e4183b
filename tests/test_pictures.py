"""Pictures in files: what is drawn is what theory and simulation say, and the files are whole."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

import mcverify as mv
from mcverify.cli import main
from mcverify.errors import InputError
from mcverify.report import pictures
from mcverify.theory.phase_diagram import axes_about

NARROW = mv.mlp(16, [10] * 6, "relu", 2.0)
ONE = np.ones((1, 16))
W2, B2 = [0.8, 1.4, 2.0, 3.0], [0.02, 0.1, 0.3]


def lines(ax):
    return {line.get_label(): line.get_xydata() for line in ax.get_lines()}


def test_a_diagram_holds_the_phases_of_its_points():
    seen = []
    d = mv.phase_diagram("erf", W2, B2, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (12, 12)
    for i, b in enumerate(B2):
        for j, w in enumerate(W2):
            p = mv.phase("erf", sigma_w2=w, sigma_b2=b)
            assert d["name"].values[i, j] == p.name
            assert all(d[n].values[i, j] == getattr(p, n) for n in ("q", "c", "chi_1", "xi_q", "xi_c"))


@pytest.mark.parametrize(
    ("field", "bad"),
    [("sigma_w2", [1.0]), ("sigma_w2", [2.0, 1.0]), ("sigma_b2", [-0.1, 0.1]), ("sigma_b2", [0.0, np.nan])],
)  # fmt: skip
def test_axes_that_are_none(field, bad):
    with pytest.raises(InputError, match=field) as caught:
        mv.phase_diagram("erf", **{field: bad})
    assert "\n" not in str(caught.value)


def test_the_critical_line_of_a_diagram():
    """Drawn from theory: at σ_b² = 0.1 it is where critical_sigma_w2 has it, and the names part there."""
    figure = pictures.phase_diagram(mv.phase_diagram("erf", W2, B2), mv.phase("erf", 2.0, 0.1))
    drawn = lines(figure.axes[0])
    w2, b2 = drawn["critical, χ_1 = 1"].T
    kept = np.isfinite(b2)
    at = mv.critical_sigma_w2("erf", sigma_b2=0.1)
    assert np.interp(0.1, b2[kept], w2[kept]) == pytest.approx(at, rel=1e-3)  # 400 points over eight decades of q
    assert drawn["chaotic, σ_w² = 2, σ_b² = 0.1"].tolist() == [[2.0, 0.1]]


def test_relu_has_a_critical_point_and_no_line():
    drawn = lines(pictures.phase_diagram(mv.phase_diagram("relu", W2, [0.2, 0.3])).axes[0])
    assert "critical, χ_1 = 1" not in drawn  # the axes do not reach down to σ_b² = 0
    d = mv.phase_diagram("relu", *axes_about(None))
    assert lines(pictures.phase_diagram(d).axes[0])["critical, χ_1 = 1"].tolist() == [[2.0, 0.0]]


@pytest.mark.parametrize("phi", ["sign", "linear", "softplus"])
def test_every_activation_has_a_diagram(phi):
    assert pictures.phase_diagram(mv.phase_diagram(phi, W2, B2)).axes


def test_layers_as_predicted_and_measured():
    """Lines are the prediction's; the band is the exact law's; points are the simulation's."""
    m = mv.simulate(NARROW, ONE, samples=50, rng=0, threads=1)
    figure = pictures.layers(NARROW, ONE, m)
    panels = {ax.get_title(): ax for ax in figure.axes}
    p = mv.predict(NARROW, ONE)
    assert set(panels) == {"mean square q", "length", "χ", "gradient norm ‖δ‖²"}
    length = lines(panels["length"])
    np.testing.assert_array_equal(length["mean in theory"][:, 1], p["length"].values[:, 0])
    law = mv.length_law(NARROW, layer=6)
    assert length["the median network"][-1].tolist() == pytest.approx([6, law.ppf(0.5)])
    at_end = panels["length"].collections[0].get_paths()[0].vertices
    assert at_end[at_end[:, 0] == 6][:, 1].max() == pytest.approx(law.ppf(0.95))
    points = panels["length"].containers[0].lines[0].get_xydata()
    np.testing.assert_array_equal(points[:, 1], m["length"].values[:, 0])
    assert panels["length"].get_yscale() == "log"
    assert panels["χ"].get_yscale() == "linear"


def test_what_theory_cannot_treat_is_drawn_as_measured():
    net = mv.Network([mv.Dense(16, 12), mv.BatchNorm(shift=0.5), mv.Activation("tanh"), mv.Dense(12, 12)])
    x = np.random.default_rng(0).standard_normal((8, 16))
    with pytest.raises(mv.Unpredictable):
        mv.predict(net, x)
    m = mv.simulate(net, x, samples=10, rng=0, threads=1)
    panels = pictures.layers(net, x, m).axes
    assert [len(ax.containers) for ax in panels] == [1] * len(panels)


@pytest.mark.parametrize("ending", pictures.FORMATS)
def test_the_same_figure_is_the_same_file(tmp_path, ending):
    paths = [tmp_path / f"{i}{ending}" for i in range(2)]
    for path in paths:
        pictures.save(pictures.layers(mv.mlp(16, [10, 10], "tanh"), ONE), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[0].stat().st_size > 5000


def test_command_line(tmp_path):
    run = CliRunner().invoke
    net = tmp_path / "net.toml"
    net.write_text('[network]\ninput_dim = 16\nwidths = [12, 12]\nactivation = "relu"\nsigma_w2 = 2.0\n')
    file = str(tmp_path / "a.svg")
    for command in (
        ["phase", "relu", "--diagram", file], ["phase", "relu", "--sigma-w2", "2", "--json", "--diagram", file],
        ["predict", str(net), "--plot", file], ["simulate", str(net), "--samples", "10", "--plot", file],
    ):  # fmt: skip
        done = run(main, command)
        assert done.exit_code == 0, done.output
        assert (tmp_path / "a.svg").read_text().startswith("<?xml")
        (tmp_path / "a.svg").unlink()


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["phase", "tanh"], "--sigma-w2: got None; must be a variance, or give --diagram FILE.svg for all of them"),
        (["phase", "tanh", "--diagram", "a.gif"], "--diagram: got 'a.gif'; must end in .svg, .png, .pdf"),
        (["phase", "tanh", "--diagram", "no/a.svg"], "--diagram: got 'no/a.svg'; must be in a folder that exists"),
        (["predict", "n.toml", "--plot", "a"], "--plot: got 'a'; must end in .svg, .png, .pdf"),
        (["simulate", "n.toml", "--out", "a.nc", "--replicates", "--plot", "a.svg"],
         "--plot: got 'a.svg'; does not go with --replicates"),
    ],
)  # fmt: skip
def test_bad_input_gets_one_line(command, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2
    assert done.output.strip() == f"mcverify: {told}"
    assert not list(tmp_path.iterdir())
