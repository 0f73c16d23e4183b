"""Fixed points, phases and the critical line, against THEORY.md §§1–3, independent tables and brute force."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mcverify.activations import Activation, activation, custom_activation
from mcverify.errors import InputError
from mcverify.expectations import gaussian
from mcverify.strategies import activations, sigma_b2, sigma_w2
from mcverify.theory import critical_line as line_module
from mcverify.theory import roots
from mcverify.theory.correlation_map import CorrelationMap
from mcverify.theory.critical_line import NoCriticalPoint, SeveralCriticalPoints, critical_line, critical_sigma_w2
from mcverify.theory.fixed_points import fixed_points
from mcverify.theory.phase import Phase, depth_to_fixed_point, phase, q_trajectory
from mcverify.theory.variance_map import VarianceMap

TABLES = Path(__file__).parent / "known_answers"

tanh_cubed = custom_activation("tanh_cubed", lambda u: np.tanh(u**3), lambda u: 3 * u**2 * (1 - np.tanh(u**3) ** 2))
bump = custom_activation("bump", lambda u: np.exp(-(u**2) / 2), lambda u: -u * np.exp(-(u**2) / 2))
ramp = custom_activation("ramp", lambda u: u / 2 + (u > 0), lambda u: 0.5 + 0 * u, jumps=((0.0, 1.0),))


def named(name: str) -> Activation:
    """An activation by the name that the tables use."""
    return tanh_cubed if name == "tanh_cubed" else activation({"leaky_relu": "leaky_relu(0.2)"}.get(name, name))


def rows(file: str, kind: str | None = None) -> list[dict[str, Any]]:
    """The rows of a table (of one kind), or none where the table is not there."""
    path = TABLES / file
    if not path.exists():
        return []
    return [r for r in json.loads(path.read_text())["rows"] if kind is None or r["kind"] == kind]


def label(row: Any) -> str:
    if not isinstance(row, dict):
        return str(row)
    return "-".join(str(row[k]) for k in ("activation", "sigma_w2", "sigma_b2", "q_star", "margin") if k in row)


def near(value: str | float, rel: float = 1e-10) -> Any:
    """pytest's approx, relative, with an absolute floor only for a value of 0."""
    return pytest.approx(float(value), rel=rel, abs=1e-13 if float(value) == 0 else 0)


# ---------------------------------------------------------------------------------------------------- known answers


@pytest.mark.parametrize(
    ("sigma_w2", "sigma_b2", "q", "chi_1", "slope"),
    [
        (1.05, 2e-5, 0.025918765115354, 1.000003875137, 0.9518091556418),
        (1.5, 0.05, 0.41803720053348, 0.93863626819885, 0.55198320566351),
        (2.5, 0.1, 1.1490930291637, 1.0998010980122, 0.39758935236388),
    ],
)
def test_tanh_fixed_points_of_theory(sigma_w2: float, sigma_b2: float, q: float, chi_1: float, slope: float) -> None:
    p = phase("tanh", sigma_w2, sigma_b2)
    assert p.q == near(q)
    assert p.chi_1 == near(chi_1)
    assert p.slope_q == near(slope)
    assert p.q_error < 1e-12
    assert p.chi_1_error < 1e-12


def test_published_training_point_is_critical() -> None:
    p = phase("tanh", 1.05, 2e-5)
    assert p.name == "critical"
    assert f"{p.q:.10f}" == "0.0259187651"
    assert f"{p.chi_1:.10f}" == "1.0000038751"
    assert "1.0000038751" in p.message
    assert 0.99 < p.c < 1.0  # its own values all the same: the point is chaotic by 4e-6
    assert p.xi_c == near(258345.06928317436716)
    assert phase("tanh", 1.05, 2e-5, critical_tolerance=1e-6).name == "chaotic"


@pytest.mark.parametrize(
    ("q", "sigma_w2", "sigma_b2"),
    [
        (0.01, 1.0197107607413, 1.2579958713243e-6),
        (0.1, 1.1775690961646, 8.3228042468632e-4),
        (0.5, 1.6879751205775, 0.038041201111268),
    ],
)
def test_tanh_critical_line_of_theory(q: float, sigma_w2: float, sigma_b2: float) -> None:
    line = critical_line("tanh", q)
    assert float(line.sigma_w2) == near(sigma_w2)
    assert float(line.sigma_b2) == near(sigma_b2)
    assert bool(line.stable)
    assert critical_sigma_w2("tanh", sigma_b2) == near(sigma_w2)


@pytest.mark.parametrize(
    ("sigma_w2", "six_xi"),
    [
        (1.05, "1.55e6"), (1.10, "3872.46"), (1.15, "1985.37"), (1.20, "1253.19"), (1.25, "880.21"),
        (1.30, "663.00"), (1.35, "524.60"), (0.85, "36.9"), (0.90, "56.7"), (0.95, "115.2"),
    ],
)  # fmt: skip
def test_depth_scales_of_xiao2018_figure_1c(sigma_w2: float, six_xi: str) -> None:
    p = phase("tanh", sigma_w2, 2e-5)
    digits = len(six_xi.split("e")[0].replace(".", ""))
    assert f"{6 * p.xi_c:.{digits - 1}e}" == f"{float(six_xi):.{digits - 1}e}"
    if sigma_w2 == 1.20:
        assert round(p.c, 4) == 0.0389


def test_slopes_of_unstable_gelu_points() -> None:
    value, slope = next((p.value, p.slope) for p in phase("gelu", 3, 0).q_fixed_points if p.value > 0)
    assert (round(value, 3), round(slope, 2)) == (0.247, 1.18)
    found = [(p.value, p.stability) for p in phase("gelu", 2.2, 0.01).q_fixed_points if math.isfinite(p.value)]
    assert [(round(q, 4 if q < 1 else 2), s) for q, s in found] == [(0.0235, "stable"), (1.62, "unstable")]


# ------------------------------------------------------------------------------------- tables by another hand


@pytest.mark.parametrize("row", rows("fixed_points.json", "fixed_points"), ids=label)
def test_every_fixed_point_of_the_table(row: dict[str, Any]) -> None:
    act = named(row["activation"])
    q_map = VarianceMap(act, float(row["sigma_w2"]), float(row["sigma_b2"]))
    assert fixed_points(q_map).continuum == (row["status"] == "continuum")
    found = [p for p in fixed_points(q_map).points if math.isfinite(p.value)]
    assert len(found) == len(row["fixed_points"])
    for point, truth in zip(found, row["fixed_points"], strict=True):
        assert point.value == near(truth["q_star"])
        assert point.slope == near(truth["dQ_dq"])
        assert (point.stability == "stable") == truth["stable"]
        if truth["c_fixed_points"]:
            chi_1 = math.inf if truth["chi_1"] is None else float(q_map.gradient_factor(point.value))
            c_map = CorrelationMap(act, q_map.sigma_w2, q_map.sigma_b2, point.value)
            c_points = c_map.fixed_points(chi_1, 1e-12)
            assert [p.value for p in c_points] == [near(c["c"]) for c in truth["c_fixed_points"]]
            assert [p.slope for p in c_points] == [near(c["slope"]) for c in truth["c_fixed_points"]]


STABLE = [(r, f) for r in rows("fixed_points.json", "fixed_points") for f in r["fixed_points"] if f["stable"]]


@pytest.mark.parametrize(("row", "truth"), [(r, f) for r, f in STABLE if f["q_star"] != "0"], ids=label)
def test_phase_at_every_stable_point_of_the_table(row: dict[str, Any], truth: dict[str, Any]) -> None:
    q0 = 0.999 * float(truth["q_star"])
    p = phase(named(row["activation"]), float(row["sigma_w2"]), float(row["sigma_b2"]), q0=q0, critical_tolerance=0)
    assert p.q == near(truth["q_star"])
    assert p.slope_q == near(truth["dQ_dq"])
    assert p.c == near(truth["c_star"])
    assert p.chi_c == near(truth["chi_c_star"])
    assert p.xi_c == near(truth["xi_c"])
    assert p.xi_q == (0.0 if truth["xi_q"] is None else near(truth["xi_q"], 1e-9))
    if truth["chi_1"] is None:
        assert math.isnan(p.chi_1)
        assert p.name == "discontinuous"
    else:
        assert p.chi_1 == near(truth["chi_1"])
        assert p.name == truth["phase"]


NO_FIXED_POINT = {"continuum": "critical", "none": "divergent", "zero_only": "degenerate"}


@pytest.mark.parametrize(
    "row", [r for r in rows("fixed_points.json", "fixed_points") if r["status"] in NO_FIXED_POINT], ids=label
)
def test_what_is_no_fixed_point_is_never_a_number(row: dict[str, Any]) -> None:
    p = phase(named(row["activation"]), float(row["sigma_w2"]), float(row["sigma_b2"]))
    assert p.name == NO_FIXED_POINT[row["status"]]
    assert math.isnan(p.q)


@pytest.mark.parametrize("row", rows("fixed_points.json", "critical_line"), ids=label)
def test_every_critical_point_of_the_table(row: dict[str, Any]) -> None:
    act = named(row["activation"])
    line = critical_line(act, float(row["q_star"]))
    assert float(line.sigma_w2) == near(row["sigma_w2"])
    assert float(line.sigma_b2) == near(row["sigma_b2"])
    assert float(line.slope) == near(row["dQ_dq"])
    assert bool(line.stable) == row["valid"]
    if row["valid"]:
        assert critical_sigma_w2(act, float(row["sigma_b2"])) == near(row["sigma_w2"])


@pytest.mark.parametrize("row", rows("fixed_points.json", "critical_line_threshold"), ids=label)
def test_where_the_stable_line_begins(row: dict[str, Any]) -> None:
    start = float(row["q_star"])
    assert critical_line(row["activation"], np.array([0.999, 1.001]) * start).stable.tolist() == [False, True]
    if float(row["sigma_b2"]) > 0:
        with pytest.raises(NoCriticalPoint):
            critical_sigma_w2(row["activation"], 0.999 * float(row["sigma_b2"]))


@pytest.mark.parametrize(
    ("row", "margin", "layer"),
    [(r, m, n) for r in rows("depth_to_fixed_point.json") for m, n in r["first_layer"].items()],
    ids=label,
)
def test_depth_to_fixed_point_of_the_table(row: dict[str, Any], margin: str, layer: int) -> None:
    network = (row["activation"], float(row["sigma_w2"]), float(row["sigma_b2"]))
    assert depth_to_fixed_point(*network, float(row["q_1"]), float(margin)) == layer
    truth = [float(t["q"]) for t in row["trajectory"]]
    assert q_trajectory(*network, float(row["q_1"]), len(truth)).tolist() == near_each(truth)


def near_each(values: list[float]) -> Any:
    return pytest.approx(values, rel=1e-10, abs=0)


def networks(table: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The rows of finite_depth.json, one list for each network, first layer first."""
    out: list[list[dict[str, Any]]] = []
    for row in table:
        if row["layer"] == 1:
            out.append([])
        out[-1].append(row)
    return out


@pytest.mark.parametrize("layers", networks(rows("finite_depth.json")), ids=lambda n: label(n[0]))
def test_trajectories_with_and_without_dropout(layers: list[dict[str, Any]]) -> None:
    first = layers[0]
    q1 = [float(first["q"]["aa"]), float(first["q"]["bb"])]
    q = q_trajectory(
        named(first["activation"]), float(first["sigma_w2"]), float(first["sigma_b2"]), q1, len(layers),
        keep=float(first["keep_probability"]),
    )  # fmt: skip
    assert q.shape == (len(layers), 2)
    for here, row in zip(q, layers, strict=True):
        assert here.tolist() == near_each([float(row["q"]["aa"]), float(row["q"]["bb"])])


# ---------------------------------------------------------------------------------------------- degenerate cases


def test_tanh_without_bias_below_one_keeps_a_correlation() -> None:
    p = phase("tanh", 0.9, 0)
    assert p.name == "degenerate"
    assert math.isnan(p.q)
    assert math.isnan(p.c)
    assert (p.chi_1, p.slope_q) == (near(0.9), near(0.9))
    assert p.xi_c == math.inf
    assert "depends on the inputs" in p.message
    for start, end in [(0.8, 0.759), (0.2, 0.177)]:  # THEORY §1, from q = 1
        q, q_ab = 1.0, start
        for _ in range(150):
            now, q_ab = q, 0.9 * float(gaussian.covariance("tanh", q, q_ab, q).value)
            q = 0.9 * float(gaussian.second_moment("tanh", now).value)
        assert round(q_ab / q, 3) == end


@pytest.mark.parametrize(("sigma_w2", "name"), [(1.5, "degenerate"), (2.0, "critical"), (2.5, "divergent")])
def test_relu_without_bias_tends_to_one_algebraically(sigma_w2: float, name: str) -> None:
    p = phase("relu", sigma_w2, 0)
    assert p.name == name
    assert math.isnan(p.q)
    assert (p.c, p.chi_c, p.xi_c) == (1.0, 1.0, math.inf)
    assert p.chi_1 == sigma_w2 / 2
    assert "depth^-2" in p.message


def test_the_relu_law_is_l_to_the_minus_two() -> None:
    c, scaled = 0.5, []
    for layer in range(1, 1601):
        c = 2 * float(gaussian.covariance("relu", 1.0, c, 1.0).value)
        if layer in (800, 1600):
            scaled.append((1 - c) * layer**2)
    assert scaled == pytest.approx([9 * math.pi**2 / 2] * 2, rel=0.05)


@pytest.mark.parametrize(
    ("act", "sigma_w2", "c"),
    [
        ("linear", 1.0, math.nan),
        ("leaky_relu(0.2)", 2 / 1.04, 1.0),
        (custom_activation("abs", np.abs, np.sign, kinks=(0.0,)), 1.0, 1.0),
    ],
    ids=str,
)
def test_a_continuum_is_said(act: str | Activation, sigma_w2: float, c: float) -> None:
    p = phase(act, sigma_w2, 0)
    assert (p.name, p.q_fixed_points) == ("critical", ())
    assert math.isnan(p.q)
    assert (p.chi_1, p.xi_q, p.xi_c) == (1.0, math.inf, math.inf)
    assert p.c == pytest.approx(c, nan_ok=True)
    assert "Every q" in p.message


@pytest.mark.parametrize(("act", "sigma_w2", "sigma_b2"), [("relu", 2, 0.1), ("relu", 3, 0.1), ("linear", 1, 0.1)])
def test_divergence_is_said(act: str, sigma_w2: float, sigma_b2: float) -> None:
    p = phase(act, sigma_w2, sigma_b2)
    assert p.name == "divergent"
    assert math.isnan(p.q)
    assert [q.value for q in p.q_fixed_points] == [math.inf]
    assert "There is no q*" in p.message


def test_one_of_several_fixed_points_is_chosen_by_q0() -> None:
    low, at, high = (phase("gelu", 2.2, 0.01, q0=q0) for q0 in (1.0, phase_point("gelu", 2.2, 0.01, 1), 1.7))
    assert (low.name, round(low.q, 4)) == ("ordered", 0.0235)
    assert "q0 = 1" in low.message
    assert "1.62228 (unstable" in low.message
    assert (at.name, high.name) == ("unstable", "divergent")
    assert math.isnan(at.q)
    assert math.isnan(high.q)
    assert low.q_fixed_points[-1].slope == pytest.approx(1.1)  # gain at infinity, σ_w²/2


def phase_point(act: str | Activation, sigma_w2: float, sigma_b2: float, index: int) -> float:
    return phase(act, sigma_w2, sigma_b2).q_fixed_points[index].value


def test_bounded_phi_with_three_fixed_points() -> None:
    p = phase(tanh_cubed, 3, 0)
    assert p.name == "chaotic"
    assert [(round(x.value, 4), x.stability) for x in p.q_fixed_points] == [
        (0.0, "stable"), (0.2852, "unstable"), (1.1326, "stable"),
    ]  # fmt: skip
    assert p.q == p.q_fixed_points[2].value
    fallen = phase(tanh_cubed, 3, 0, q0=0.28)
    assert (fallen.name, fallen.xi_q) == ("degenerate", 0.0)
    assert math.isnan(fallen.q)
    assert math.isnan(fallen.c)


@pytest.mark.parametrize(("act", "word"), [("tanh", "power"), ("erf", "power"), ("hard_tanh", "power")])
def test_the_end_of_the_critical_line(act: str, word: str) -> None:
    p = phase(act, critical_sigma_w2(act, 0), 0)
    assert p.name == "degenerate"
    assert math.isnan(p.q)
    assert p.chi_1 == near(1)
    assert p.xi_q == math.inf
    assert word in p.message


def test_sign_has_no_single_chi_1() -> None:
    p = phase("sign", 1, 0.1)
    assert p.name == "discontinuous"
    assert math.isnan(p.chi_1)
    assert p.c_fixed_points[-1] == (type(p.c_fixed_points[-1]))(1.0, math.inf, "unstable")
    assert p.chi_c == near(2 / math.pi / p.q / math.sqrt(1 - p.c**2))  # d/dc (2/π) asin c, over q
    assert "no single χ_1" in p.message
    unbiased = phase("sign", 1.3, 0)
    assert (unbiased.q, unbiased.c) == (near(1.3), 0.0)
    assert unbiased.q_fixed_points[0].slope == math.inf


def test_a_jump_upon_a_slope() -> None:
    p = phase(ramp, 1, 0.1)
    f = CorrelationMap(ramp, 1, 0.1, p.q)
    h = 1e-5
    assert float(f(p.c)) == near(p.c)
    assert p.chi_c == near(float(f(p.c + h) - f(p.c - h)) / (2 * h), 1e-7)


def test_exponential_phi_overflows_without_complaint() -> None:
    p = phase(custom_activation("exp", np.exp, np.exp), 0.1, 0)
    assert len(p.q_fixed_points) == 3
    for point in p.q_fixed_points[:2]:
        assert point.value == near(0.1 * math.exp(2 * point.value))
        assert point.slope == near(2 * point.value)
    assert (p.q, p.q_fixed_points[2].value) == (p.q_fixed_points[0].value, math.inf)


def test_a_diverging_gradient_moment_is_confessed() -> None:
    cube_root = custom_activation("cbrt", np.cbrt, lambda u: np.cbrt(np.where(u == 0, 1.0, u)) ** -2 / 3, kinks=(0.0,))
    assert "known only to within" in phase(cube_root, 1, 0).message


def test_a_decreasing_variance_map() -> None:
    p = phase(bump, 2, 0.1)
    assert p.slope_q == near(-2 * p.q * 2 / 2 * (1 + 2 * p.q) ** -1.5 / p.q)  # d/dq 2/√(1 + 2q)
    assert p.q == near(q_trajectory(bump, 2, 0.1, 1.0, 60)[-1])


# ------------------------------------------------------------------------------- pairs of roots, small distances


def gelu_tangency() -> tuple[float, float]:
    """(q, σ_b²) at which the two fixed points of GELU with σ_w² = 2.2 meet."""
    q = roots.refine(lambda x: 2.2 * float(gaussian.second_moment_slope("gelu", x).value) - 1, 0.05, 1.0)
    return q, q - 2.2 * float(gaussian.second_moment("gelu", q).value)


@pytest.mark.parametrize("apart", [1e-3, 1e-6, 1e-9])
def test_a_close_pair_of_fixed_points_is_found(apart: float) -> None:
    q, sigma_b2 = gelu_tangency()
    p = phase("gelu", 2.2, sigma_b2 * (1 - apart), q0=q / 2)
    low, high = p.q_fixed_points[:2]
    assert (low.stability, high.stability) == ("stable", "unstable")
    assert 0 < high.value - low.value < 10 * q * math.sqrt(apart)
    assert p.q == low.value


def test_a_touching_fixed_point_is_said() -> None:
    q, sigma_b2 = gelu_tangency()
    p = phase("gelu", 2.2, sigma_b2, q0=q / 2)
    finite = [x for x in p.q_fixed_points if math.isfinite(x.value)]
    assert all(x.value == pytest.approx(q, rel=1e-5) for x in finite)
    if len(finite) == 1:
        assert finite[0].stability == "half-stable"
        assert (p.name, math.isnan(p.q)) == ("marginal", True)
    assert phase("gelu", 2.2, sigma_b2 * (1 + 1e-6), q0=q / 2).name == "divergent"


@pytest.mark.parametrize("act", ["tanh", "erf", "gelu"])
@pytest.mark.parametrize("step", [1e-4, 1e-6, 1e-8])
def test_smooth_c_just_beyond_the_critical_line(act: str, step: float) -> None:
    """1 − c* → 2ε/κ and 1 − χ_c → ε for χ_1 = 1 + ε, κ = f″(1) = σ_w² q ⟨φ″²⟩."""
    p = phase(act, critical_sigma_w2(act, 0.5) * (1 + step), 0.5, critical_tolerance=0)
    epsilon = p.chi_1 - 1
    assert epsilon > 0
    curvature = activation(act).d2phi
    assert curvature is not None
    kappa = p.sigma_w2 * p.q * float(gaussian.expect(lambda u: curvature(u) ** 2, p.q).value)
    assert 1 - p.c == pytest.approx(2 * epsilon / kappa, rel=30 * epsilon / kappa + 1e-12 / epsilon)
    assert 1 / p.xi_c == pytest.approx(epsilon, rel=30 * epsilon / kappa + 1e-12 / epsilon)


@pytest.mark.parametrize("act", ["hard_tanh", "selu"])
def test_kinked_c_just_beyond_the_critical_line(act: str) -> None:
    """1 − c* → (3ε/2A)² and 1 − χ_c → ε/2: √(1 − c) takes the place of 1 − c, down to where c is 1 in float64."""
    sigma_w2, gaps, rates = critical_sigma_w2(act, 0.05), [], []
    for step in (1e-4, 1e-5, 1e-6, 1e-7, 1e-10):
        p = phase(act, sigma_w2 * (1 + step), 0.05, critical_tolerance=0)
        assert p.chi_c < 1 < p.chi_1
        rates.append(p.xi_c * (p.chi_1 - 1))
        gaps.append((1 - p.c) / (p.chi_1 - 1) ** 2)
    assert rates == pytest.approx([2.0] * 5, rel=2e-3)
    assert gaps[:4] == pytest.approx([gaps[2]] * 4, rel=1e-2)


@pytest.mark.parametrize("epsilon", [1e-4, 1e-8, 1e-12])
def test_fixed_points_near_zero(epsilon: float) -> None:
    """tanh (1 + ε, 0): 1 = (1 + ε)(1 − 2q + 17q²/3 + O(q³)), since tanh² u = u² − 2u⁴/3 + 17u⁶/45."""
    p = phase("tanh", 1 + epsilon, 0)
    expected = epsilon / 2 * (1 + (17 / 12 - 1) * epsilon)
    assert p.q == pytest.approx(expected, rel=max(100 * epsilon**2, 3e-15 / epsilon))
    assert p.c == 0.0


# ----------------------------------------------------------------------------------------------------- dropout


def iterate_two_inputs(act: Activation, sigma_w2: float, sigma_b2: float, keep: float) -> tuple[float, float]:
    """(q, c) after many layers of the two-input map with independent masks, and no theory of fixed points."""
    q, q_ab = 1.0, 0.3
    for _ in range(400):
        now, q_ab = q, sigma_w2 * float(gaussian.covariance(act, q, q_ab, q).value) + sigma_b2
        q = sigma_w2 / keep * float(gaussian.second_moment(act, now).value) + sigma_b2
    return q, q_ab / q


@pytest.mark.parametrize(
    ("name", "sigma_w2", "sigma_b2", "keep"),
    [
        ("tanh", 1.5, 0.05, 0.9), ("relu", 1.5, 0.1, 0.8), ("erf", 2.0, 0.1, 0.5), ("sign", 1.0, 0.1, 0.9),
        ("gelu", 1.5, 0.1, 0.9), ("selu", 0.5, 0.1, 0.95), ("hard_tanh", 1.5, 0.2, 0.99), ("relu", 1.2, 0.0, 0.9),
        ("linear", 0.5, 0.1, 0.7), ("tanh", 3.0, 0.5, 0.99), ("tanh", 0.5, 0.5, 0.99), ("sigmoid", 1.0, 0.3, 0.995),
    ],
)  # fmt: skip
def test_dropout_by_iteration(name: str, sigma_w2: float, sigma_b2: float, keep: float) -> None:
    act = activation(name)
    p = phase(act, sigma_w2, sigma_b2, keep=keep)
    q, c = iterate_two_inputs(act, sigma_w2, sigma_b2, keep)
    assert p.c == near(c, 1e-9)
    assert p.c < 1
    assert p.chi_c <= keep
    assert p.xi_c <= 1 / abs(math.log(keep))
    if sigma_b2 > 0:
        assert p.q == near(q)
        if not act.jumps:
            assert p.chi_1 == near(sigma_w2 / keep * float(gaussian.derivative_second_moment(act, q).value))
            derivative = gaussian.derivative_covariance(act, q, c * q, q)
            assert p.chi_c == near(sigma_w2 * float(derivative.value), 1e-9)


def test_tanh_comes_close_to_the_dropout_bound() -> None:
    p = phase("tanh", 0.95, 1e-6, keep=0.9)
    assert 0.995 * 0.9 < p.chi_c <= 0.9
    assert "Dropout" in p.message


def test_dropout_of_an_odd_network_without_bias_decorrelates() -> None:
    p = phase("tanh", 2, 0, keep=0.9)
    assert p.c == 0.0
    assert [x.value for x in p.c_fixed_points] == [0.0]


# --------------------------------------------------------------------------------------------------- invariants

ACTIVATIONS = ("tanh", "erf", "relu", "leaky_relu(0.3)", "sin", "gelu", "silu", "sigmoid", "softplus", "elu", "selu",
               "hard_tanh", "linear")  # fmt: skip
weights, biases = sigma_w2(0.05, 4.0), sigma_b2(1e-6, 2.0)
some = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@some
@given(activations(ACTIVATIONS), weights, biases, st.sampled_from([1.0, 0.9, 0.5]))
def test_fixed_points_are_fixed_and_slopes_are_slopes(act: str, sigma_w2: float, sigma_b2: float, keep: float) -> None:
    q_map = VarianceMap(activation(act), sigma_w2, sigma_b2, keep)
    for point in fixed_points(q_map).points:
        if 0 < point.value < math.inf:
            q, h = point.value, 1e-4 * point.value
            assert float(q_map(q)) == near(q, 1e-12)
            assert point.slope == pytest.approx(float(q_map(q + h) - q_map(q - h)) / (2 * h), abs=1e-6)
            assert point.slope > -0.5


@some
@given(activations(ACTIVATIONS), weights, biases)
def test_no_crossing_is_missed(act: str, sigma_w2: float, sigma_b2: float) -> None:
    q_map = VarianceMap(activation(act), sigma_w2, sigma_b2)
    assume(not fixed_points(q_map).continuum)
    q = np.geomspace(1e-8, 1e8, 1500)
    excess = q_map(q) / q - 1
    sure = excess[np.abs(excess) > 1e-11]
    crossings = [p for p in fixed_points(q_map).points if q[0] < p.value < q[-1] and p.stability != "half-stable"]
    assert len(crossings) >= np.count_nonzero(np.sign(sure[1:]) != np.sign(sure[:-1]))


@some
@given(activations(ACTIVATIONS), weights, biases)
def test_what_the_names_promise(act: str, sigma_w2: float, sigma_b2: float) -> None:
    p = phase(act, sigma_w2, sigma_b2)
    if p.name in ("ordered", "critical", "chaotic") and not math.isnan(p.q):
        assert 0 < p.q < math.inf
        assert abs(p.slope_q) < 1
        assert p.chi_c <= 1
        assert p.xi_q == near(-1 / math.log(abs(p.slope_q)) if p.slope_q else 0)
    else:
        assert math.isnan(p.q)
    if p.name == "ordered":
        assert p.chi_1 < 1
        assert (p.c, p.chi_c) == (1.0, p.chi_1)
    if p.name == "chaotic":
        assert p.chi_1 > 1
        assert 0 <= p.c < 1
        assert p.c_fixed_points[-1].stability == "unstable"
    assert p.message


@some
@given(activations((*ACTIVATIONS, "sign")), weights, biases, st.floats(0.05, 0.999))
def test_dropout_bounds_the_slope_of_every_activation(act: str, sigma_w2: float, sigma_b2: float, keep: float) -> None:
    p = phase(act, sigma_w2, sigma_b2, keep=keep)
    assume(not math.isnan(p.c))
    assert 0 <= p.c < 1
    assert p.chi_c <= keep * (1 + 1e-12)
    assert p.xi_c <= -1 / math.log(keep) * (1 + 1e-9)


@some
@given(activations(["tanh", "erf", "sin", "hard_tanh", "elu", "selu"]), sigma_b2(1e-4, 20.0, none=False))
def test_critical_weights_are_critical(act: str, sigma_b2: float) -> None:
    p = phase(act, critical_sigma_w2(act, sigma_b2), sigma_b2)
    assert p.name == "critical"
    assert p.chi_1 == near(1, 1e-9)
    assert p.c > 1 - 1e-6


@some
@given(activations(["tanh", "gelu", "sin", "selu", "softplus"]), sigma_w2(0.1, 2.0), sigma_b2(0.001, 1.0, none=False),
       st.floats(0.01, 30), st.floats(0.001, 0.3))  # fmt: skip
def test_the_margin_holds_from_the_depth_on(
    act: str, sigma_w2: float, sigma_b2: float, q1: float, margin: float
) -> None:
    p = phase(act, sigma_w2, sigma_b2, q0=q1)
    assume(not math.isnan(p.q) and p.xi_q < 40)
    q = q_trajectory(act, sigma_w2, sigma_b2, q1, 400)
    off = np.abs(VarianceMap(activation(act), sigma_w2, sigma_b2).gradient_factor(q) / p.chi_1 - 1) >= margin
    last = int(np.flatnonzero(off)[-1]) + 1 if off.any() else 0
    assert depth_to_fixed_point(act, sigma_w2, sigma_b2, q1, margin) == last + 1


# -------------------------------------------------------------------------------------------- the critical line


def test_critical_weights_of_homogeneous_phi() -> None:
    assert critical_sigma_w2("relu", 0) == 2.0
    assert critical_sigma_w2("leaky_relu(0.5)", 0) == near(1.6)
    with pytest.raises(NoCriticalPoint, match="diverges"):
        critical_sigma_w2("relu", 0.1)


@pytest.mark.parametrize(
    ("act", "sigma_b2"), [("softplus", 0), ("softplus", 1), ("gelu", 0.05), ("silu", 0.1), ("sign", 0.1), ("gelu", 0)]
)
def test_no_critical_point_is_said(act: str, sigma_b2: float) -> None:
    with pytest.raises(NoCriticalPoint) as caught:
        critical_sigma_w2(act, sigma_b2)
    assert isinstance(caught.value, InputError)
    assert "\n" not in str(caught.value)


def test_sigmoid_is_critical_only_far_out() -> None:
    assert not critical_line("sigmoid", np.geomspace(1e-3, 30, 60)).stable.any()
    assert critical_sigma_w2("sigmoid", 0) == near(103.00755385551928, 1e-9)
    assert phase("sigmoid", critical_sigma_w2("sigmoid", 0.5), 0.5).name == "critical"


def test_the_line_is_vectorised() -> None:
    q = np.geomspace(1e-4, 100, 12).reshape(3, 4)
    sigma_w2, sigma_b2, stable, slope = critical_line("tanh", q)
    assert sigma_w2.shape == sigma_b2.shape == stable.shape == slope.shape == (3, 4)
    one = critical_line("tanh", float(q[1, 2]))
    assert [float(x) for x in one] == pytest.approx([float(x[1, 2]) for x in (sigma_w2, sigma_b2, stable, slope)])


def test_small_bias_variances_keep_their_digits() -> None:
    """tanh: σ_b² = (4/3 + …) q³ near 0; by series from tanh u = u − u³/3 + 2u⁵/15, σ_b²/q³ → 4/3."""
    q = np.array([1e-8, 1e-6, 1e-4])
    assert critical_line("tanh", q).sigma_b2 / q**3 == pytest.approx([4 / 3] * 3, rel=1e-3)
    assert critical_sigma_w2("tanh", 1e-18) == near(1 + 2 * (0.75e-18) ** (1 / 3), 1e-9)


def test_several_critical_points_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_module, "critical_points", lambda act, b: [(0.1, 1.2), (3.0, 2.5)])
    with pytest.warns(SeveralCriticalPoints, match=r"1\.2 at q\* = 0\.1; sigma_w2 = 2\.5 at q\* = 3"):
        assert critical_sigma_w2("tanh", 0.1) == 1.2


# ------------------------------------------------------------------------------------------------------- depth


def test_homogeneous_phi_is_at_its_gradient_factor_from_the_start() -> None:
    assert depth_to_fixed_point("relu", 2.0, 0.1, 5.0, 0.01) == 1


def test_a_margin_that_is_left_again_does_not_count() -> None:
    """GELU's ⟨φ′²⟩ has a peak: from beyond it χ starts within 6% of χ_1, leaves, and comes back."""
    p = phase("gelu", 1.8, 0.3)
    q = q_trajectory("gelu", 1.8, 0.3, 40.0, 200)
    off = np.abs(VarianceMap(activation("gelu"), 1.8, 0.3).gradient_factor(q) / p.chi_1 - 1)
    assert off[0] < 0.06 < off.max()
    layer = depth_to_fixed_point("gelu", 1.8, 0.3, 40.0, 0.06)
    assert layer == 1 + int(np.flatnonzero(off >= 0.06)[-1]) + 1 > 2


@pytest.mark.parametrize(
    ("act", "sigma_w2", "sigma_b2", "q1", "field"),
    [("tanh", 0.9, 0, 1, "q1"), ("gelu", 3, 0, 1, "q1"), ("sign", 1, 0.1, 1, "activation")],
)
def test_no_depth_without_a_fixed_point(act: str, sigma_w2: float, sigma_b2: float, q1: float, field: str) -> None:
    with pytest.raises(InputError) as caught:
        depth_to_fixed_point(act, sigma_w2, sigma_b2, q1, 0.01)
    assert caught.value.field == field


def test_too_few_layers_are_said() -> None:
    with pytest.raises(InputError, match="max_depth"):
        depth_to_fixed_point("tanh", 1.05, 2e-5, 1.0, 0.001, max_depth=50)


# --------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"sigma_w2": -1.0}, "sigma_w2"),
        ({"sigma_w2": math.nan}, "sigma_w2"),
        ({"sigma_b2": math.inf}, "sigma_b2"),
        ({"sigma_b2": -1e-9}, "sigma_b2"),
        ({"sigma_b2": "0.1"}, "sigma_b2"),
        ({"keep": 0.0}, "keep"),
        ({"keep": 1.1}, "keep"),
        ({"q0": 0.0}, "q0"),
        ({"q0": math.inf}, "q0"),
        ({"critical_tolerance": -1.0}, "critical_tolerance"),
        ({"activation": "tnah"}, "activation"),
    ],
)
def test_bad_input_is_one_line(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as caught:
        phase(**{"activation": "tanh", "sigma_w2": 1.5, "sigma_b2": 0.05, **arguments})
    assert caught.value.field == field
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("function", "arguments", "field"),
    [
        (critical_sigma_w2, ("tanh", -0.1), "sigma_b2"),
        (critical_line, ("tanh", [0.1, 0.0]), "q"),
        (q_trajectory, ("tanh", 1, 0, -1.0, 5), "q1"),
        (q_trajectory, ("tanh", 1, 0, 1.0, 0), "depth"),
        (depth_to_fixed_point, ("tanh", 1.5, 0.05, 0.0, 0.1), "q1"),
        (depth_to_fixed_point, ("tanh", 1.5, 0.05, 1.0, 0.0), "margin"),
    ],
)
def test_bad_input_elsewhere(function: Callable[..., Any], arguments: tuple[Any, ...], field: str) -> None:
    with pytest.raises(InputError) as caught:
        function(*arguments)
    assert caught.value.field == field


def test_solvers_are_not_imported_at_start_up() -> None:
    code = "import sys, mcverify.theory.phase; sys.exit('scipy.optimize' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_phase_is_a_plain_record() -> None:
    p = phase("tanh", 1.5, 0.05)
    assert isinstance(p, Phase)
    assert all(type(getattr(p, name)) is float for name in ("q", "c", "chi_1", "chi_c", "slope_q", "xi_q", "xi_c"))
    assert (p.activation, p.sigma_w2, p.sigma_b2, p.keep) == ("tanh", 1.5, 0.05, 1.0)
