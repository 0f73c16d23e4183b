"""Gaussian expectations against tables, mpmath, brute force written apart from the package, and their own laws."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import mpmath as mp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mcverify.activations import activation, custom_activation
from mcverify.errors import InputError
from mcverify.expectations import gaussian, matrix
from mcverify.expectations.gaussian import (
    Expectation,
    covariance,
    derivative_covariance,
    derivative_second_moment,
    derivative_second_moment_slope,
    expect,
    moment,
    product_second_moment,
    second_moment,
    second_moment_slope,
)
from mcverify.strategies import activations

SMOOTH = ["linear", "tanh", "erf", "sin", "gelu", "silu", "sigmoid", "softplus"]
KINKED = ["relu", "leaky_relu(0.2)", "elu", "elu(0.4)", "selu", "hard_tanh", "sign"]
ALL = SMOOTH + KINKED
PAIRS = {"covariance": covariance, "derivative": derivative_covariance, "product": product_second_moment}


def held(result: Expectation, truth: Any, floor: float = 0.0) -> bool:
    """Whether the truth lies within the error claimed."""
    return bool(np.all(np.abs(result.value - truth) <= result.error + floor))


def integrand(name: str, which: str):
    act = activation(name)
    return {"covariance": act.phi, "derivative": act.dphi, "product": lambda u: act.phi(u) ** 2}[which]


def scale(name: str, which: str, q_aa: float, q_bb: float) -> float:
    power, derivative = {"covariance": (2, 0), "derivative": (2, 1), "product": (4, 0)}[which]
    both = moment(name, np.array([q_aa, q_bb]), power, derivative).value
    return float(np.sqrt(both[0]) * np.sqrt(both[1]))


# --------------------------------------------------------------------------------------- known answers

TABLE = Path(__file__).parent / "known_answers" / "gaussian_expectations.json"
QUANTITIES = {
    "phi2": second_moment,
    "dphi2": derivative_second_moment,
    "d_phi2_dq": second_moment_slope,
    "phi_phi": covariance,
    "dphi_dphi": derivative_covariance,
    "phi2_phi2": product_second_moment,
}


@pytest.mark.parametrize("method", ["auto", "quadrature"])
def test_table_of_known_answers(method: str) -> None:
    rows = [row for row in json.loads(TABLE.read_text())["rows"] if row["value"] is not None]
    assert len(rows) > 400
    for row in rows:
        name = {"leaky_relu": "leaky_relu(0.2)", "elu": "elu(1)"}.get(row["activation"], row["activation"])
        arguments = [float(row[key]) for key in (("q",) if "q" in row else ("q_aa", "q_ab", "q_bb"))]
        got = QUANTITIES[row["quantity"]](name, *arguments, method=method)
        off = abs(float(mp.mpf(float(got.value)) - mp.mpf(row["value"])))
        assert off <= got.error, row
        if not (name == "sin" and max(arguments) > 50 and method == "quadrature"):  # oscillates out of reach
            assert off <= 1e-12 * max(abs(float(row["value"])), 1e-3), row


def test_matrices_of_known_answers() -> None:
    """The tabulated pairs once more, each as a matrix of two columns."""
    seen = set()
    for row in json.loads(TABLE.read_text())["rows"]:
        which = {"phi_phi": "covariance", "dphi_dphi": "derivative"}.get(row["quantity"])
        if row["value"] is None or which is None:
            continue
        name = {"leaky_relu": "leaky_relu(0.2)", "elu": "elu(1)"}.get(row["activation"], row["activation"])
        q_aa, q_ab, q_bb = (float(row[key]) for key in ("q_aa", "q_ab", "q_bb"))
        value, error = matrix.large(activation(name), which, np.array([[q_aa, q_ab], [q_ab, q_bb]]))
        assert value[0, 1] == value[1, 0]
        off = abs(float(mp.mpf(float(value[0, 1])) - mp.mpf(row["value"])))
        assert off <= error[0, 1] <= 1e-11 * scale(name, which, q_aa, q_bb), row
        seen.add((name, which))
    assert len(seen) > 15


def test_fixed_points_of_theory() -> None:
    # THEORY.md §1, 20-digit quadrature, rounded: tanh, sigma_w2, sigma_b2, q*, chi_1, dQ/dq
    for w, b, q, chi, slope in [
        (1.05, 2e-5, 0.025918765115354, 1.000003875137, 0.9518091556418),
        (1.5, 0.05, 0.41803720053348, 0.93863626819885, 0.55198320566351),
        (2.5, 0.1, 1.1490930291637, 1.0998010980122, 0.39758935236388),
    ]:
        assert w * second_moment("tanh", q).value + b == pytest.approx(q, rel=2e-13)
        assert w * derivative_second_moment("tanh", q).value == pytest.approx(chi, rel=1e-12)
        assert w * second_moment_slope("tanh", q).value == pytest.approx(slope, rel=1e-12)


# ------------------------------------------------------------------------------ closed against quadrature


@pytest.mark.parametrize("name", ["linear", "relu", "leaky_relu(-0.3)", "erf", "gelu", "sign", "sin"])
@pytest.mark.parametrize("which", list(PAIRS))
def test_closed_pairs_against_quadrature(name: str, which: str) -> None:
    if (name, which) in {("erf", "product"), ("gelu", "product")}:
        with pytest.raises(InputError, match="no closed form"):
            PAIRS[which](name, 1.0, 0.5, 1.0, method="closed")
        return
    rng = np.random.default_rng(3)
    q_aa, q_bb = 10 ** rng.uniform(-10, 1.5 if name == "sin" else 6, (2, 40))
    near = 10 ** rng.uniform(-14, -1, 40)
    c = np.select([rng.random(40) < 0.4, rng.random(40) < 0.5], [rng.uniform(-1, 1, 40), 1 - near], near - 1)
    c[:2] = 1.0, -1.0
    q_ab = c * np.sqrt(q_aa) * np.sqrt(q_bb)
    closed = PAIRS[which](name, q_aa, q_ab, q_bb, method="closed")
    for rtol in (1e-12, 1e-5):
        found = PAIRS[which](name, q_aa, q_ab, q_bb, method="quadrature", rtol=rtol)
        assert np.all(np.abs(closed.value - found.value) <= closed.error + found.error)
        size = np.array([scale(name, which, a, b) for a, b in zip(q_aa, q_bb, strict=True)])
        assert np.all(found.error <= 30 * rtol * size)
        assert np.all(closed.error <= 1e-14 * size)


@pytest.mark.parametrize("name", [n for n in ALL if n not in ("tanh", "silu", "sigmoid", "softplus")])
def test_closed_moments_against_quadrature(name: str) -> None:
    q = np.array([1e-12, 1e-4, 0.3, 1.0, 8.0, 30.0])
    for power, derivative in [(1, 0), (2, 0), (3, 0), (4, 0), (2, 1), (4, 1)]:
        found = moment(name, q, power, derivative, method="quadrature")
        best = moment(name, q, power, derivative)
        assert np.all(np.abs(best.value - found.value) <= best.error + found.error)
        try:
            closed = moment(name, q, power, derivative, method="closed")
        except InputError:
            assert name in ("erf", "gelu", "sin")
            assert power != 2
            continue
        assert np.all(np.abs(closed.value - found.value) <= closed.error + found.error)
        assert np.all(best.error <= closed.error + 1e-300)


# ------------------------------------------------------------------------------------------------ mpmath


def mp_tanh(u):
    return mp.tanh(u)


def mp_elu(u):
    return u if u > 0 else mp.expm1(u)


def mp_hard_tanh(u):
    return max(-1, min(1, u))


@pytest.mark.parametrize(("name", "f"), [("tanh", mp_tanh), ("elu", mp_elu), ("hard_tanh", mp_hard_tanh)])
@pytest.mark.parametrize("q", [1e-8, 1.0, 1e6])
def test_one_dimensional_against_mpmath(name: str, f, q: float) -> None:
    with mp.workdps(25):
        root = mp.sqrt(mp.mpf(q))
        inner = [mp.mpf(x) / root for x in (-30, -3, -1, 0, 1, 3, 30)]
        cuts = sorted({mp.mpf(x) for x in (-12, -4, 0, 4, 12)} | {x for x in inner if abs(x) < 12})
        truth = mp.quad(lambda z: f(root * z) ** 2 * mp.npdf(z), cuts)
        for method in ("auto", "quadrature"):
            got = second_moment(name, q, method=method)
            assert abs(mp.mpf(float(got.value)) - truth) <= float(got.error)
            assert float(got.error) <= 1e-12 * float(truth)


# Nested Gauss–Legendre in mpmath at 24 digits, panels graded about the kinks of both; orders 18 and 24 agree to
# 1e-20. (q_aa, q_ab, q_bb) are the doubles written; c = 1 − 1e-9, −1 + 1e-9, or unequal variances.
NEAR_ONE = [
    ("elu", "covariance", 1.0, 0.999999999, 1.0, "0.644945416824821871"),
    ("hard_tanh", "covariance", 1.0, -0.999999999, 1.0, "-0.516058550279029583"),
    ("hard_tanh", "derivative", 1000000.0, -1999999.9980000001, 4000000.0, "0.000398942263778838284"),
    ("relu", "product", 1e-08, 9.99999999e-09, 1e-08, "1.49999999799999932e-16"),
    ("selu", "derivative", 1e-08, 9.99999999e-09, 1e-08, "2.0971927785170917"),
    ("silu", "covariance", 3.0, 32.863353450309965, 1000.0, "16.1110413492162286"),
    ("tanh", "covariance", 1000000.0, 999999.9990000001, 1000000.0, "0.999201584056962358"),
    ("tanh", "derivative", 1e-08, 0.045000000000000005, 250000.0, "0.00159576649364780833"),
]


@pytest.mark.parametrize("row", NEAR_ONE, ids=lambda row: f"{row[0]}-{row[1]}-{row[2]:g}-{row[4]:g}")
def test_two_dimensional_against_mpmath(row: tuple[str, str, float, float, float, str]) -> None:
    name, which, q_aa, q_ab, q_bb, truth = row
    for method in ("auto", "quadrature"):
        got = PAIRS[which](name, q_aa, q_ab, q_bb, method=method)
        assert abs(mp.mpf(float(got.value)) - mp.mpf(truth)) <= float(got.error)
        assert float(got.error) <= 1e-11 * scale(name, which, q_aa, q_bb)


@pytest.mark.parametrize("row", [r for r in NEAR_ONE if r[1] != "product"], ids=lambda r: f"{r[0]}-{r[1]}-{r[2]:g}")
def test_matrices_against_mpmath(row: tuple[str, str, float, float, float, str]) -> None:
    name, which, q_aa, q_ab, q_bb, truth = row
    value, error = matrix.large(activation(name), which, np.array([[q_bb, q_ab], [q_ab, q_aa]]))
    assert abs(mp.mpf(float(value[0, 1])) - mp.mpf(truth)) <= float(error[0, 1])
    assert error[0, 1] <= 1e-11 * scale(name, which, q_aa, q_bb)


def mp_kernel(name: str, which: str, q_aa: float, q_ab: float, q_bb: float) -> Any:
    """ReLU's and erf's kernels as they are printed (Cho & Saul 2009; Williams 1997), in mpmath's precision."""
    aa, ab, bb = mp.mpf(q_aa), mp.mpf(q_ab), mp.mpf(q_bb)
    if name == "erf" and which == "covariance":
        return 2 / mp.pi * mp.asin(2 * ab / mp.sqrt((1 + 2 * aa) * (1 + 2 * bb)))
    if name == "erf":
        return 4 / mp.pi / mp.sqrt((1 + 2 * aa) * (1 + 2 * bb) - 4 * ab**2)
    root = mp.sqrt(aa * bb)
    angle = mp.acos(max(-1, min(1, ab / root)))
    if which == "derivative":
        return (mp.pi - angle) / (2 * mp.pi)
    return root * (mp.sin(angle) + (mp.pi - angle) * mp.cos(angle)) / (2 * mp.pi)


def columns(rng: np.random.Generator, count: int, log_q: tuple[float, float]) -> np.ndarray:
    """A covariance of columns of many variances and correlations: some nearly parallel, opposite, equal, and 0."""
    x = rng.standard_normal((count, 6))
    for i, apart in enumerate(10.0 ** np.arange(-15.0, 0.0)):
        x[3 * i + 1] = (-1) ** i * (x[3 * i] + apart * x[3 * i + 1])
    x[-4] = x[-5]
    x /= np.linalg.norm(x, axis=1)[:, None]
    x *= 10.0 ** (0.5 * rng.uniform(*log_q, count))[:, None]
    x[-2:] = 0.0
    cov = x @ x.T
    bound = np.sqrt(np.outer(np.diag(cov), np.diag(cov)))
    return np.clip(0.5 * (cov + cov.T), -bound, bound)


@pytest.mark.parametrize("which", ["covariance", "derivative"])
@pytest.mark.parametrize("name", ["relu", "erf"])
def test_compiled_closed_forms_against_mpmath(name: str, which: str) -> None:
    cov = columns(np.random.default_rng(11), 150, (-30, 8))  # more than one tile
    value, error = matrix.large(activation(name), which, cov)
    np.testing.assert_array_equal(value, value.T)
    far = np.random.default_rng(12).integers(0, 148, (600, 2))
    near = [(3 * i, 3 * i + 1) for i in range(15)]
    with mp.workdps(50):
        for a, b in [*near, *(sorted(p) for p in far if p[0] != p[1])]:
            truth = mp_kernel(name, which, cov[a, a], cov[a, b], cov[b, b])
            assert abs(mp.mpf(float(value[a, b])) - truth) <= float(error[a, b])
            assert error[a, b] <= 3e-15 * scale(name, which, cov[a, a], cov[b, b])


@pytest.mark.parametrize("which", ["covariance", "derivative"])
@pytest.mark.parametrize("name", [*ALL, "leaky_relu(-0.3)"])
def test_matrices_are_their_pairs(name: str, which: str) -> None:
    smooth = name in SMOOTH or activation(name).slopes is not None
    cov = columns(np.random.default_rng(5), 131 if smooth else 52, (-6, 1.0))
    q = np.diagonal(cov)
    value, error = matrix.large(activation(name), which, cov)
    pair = PAIRS[which](name, q[:, None], cov, q)
    off = ~np.eye(len(q), dtype=bool)
    size = np.sqrt(moment(name, q, 2, int(which == "derivative")).value)
    assert np.all((np.abs(value - pair.value) <= error + pair.error)[off])
    assert np.all((error <= np.maximum(1.1 * pair.error, 1.1e-12 * np.outer(size, size)))[off])
    np.testing.assert_array_equal(value[off], value.T[off])


def test_matrices_large_and_small() -> None:
    whole = columns(np.random.default_rng(6), 140, (-2, 0.5))
    for name in ("relu", "tanh"):
        for which, over, pair, own in (
            ("covariance", matrix.covariance, covariance, second_moment),
            ("derivative", matrix.derivative_covariance, derivative_covariance, derivative_second_moment),
        ):
            for cov in (whole, whole[:60, :60]):
                q = np.diagonal(cov)
                got, other = over(name, cov), pair(name, q[:, None], cov, q)
                off = ~np.eye(len(q), dtype=bool)
                assert np.all((np.abs(got.value - other.value) <= got.error + other.error)[off])
                np.testing.assert_array_equal(np.diagonal(got.value), own(name, q).value)
                if len(cov) < matrix.SMALL:
                    np.testing.assert_array_equal(got.value[off], other.value[off])
                np.testing.assert_array_equal(matrix.values(name, which, cov), got.value)
                np.testing.assert_array_equal(over(name, np.triu(cov)), got)
    for name in ("relu", "erf", "tanh", "gelu"):
        for wrong in (1.0001, np.nan):
            bad = whole.copy()
            bad[3, 70] = bad[70, 3] = wrong * math.sqrt(bad[3, 3] * bad[70, 70])
            with pytest.raises(InputError, match="q_ab"):
                matrix.covariance(name, bad)
    with pytest.raises(InputError, match="q: "):
        matrix.covariance("relu", -whole)


# ------------------------------------------------------------------------------------------ honest errors


def brute_rule(centres: np.ndarray, finest: np.ndarray, order: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Gauss–Legendre nodes and Gaussian weights, row by row, on panels graded about the centres (M, C)."""
    x, w = np.polynomial.legendre.leggauss(order)
    steps = np.minimum(finest, 20.0)[..., None] * 1.9 ** np.arange(
        max(1, math.ceil(math.log(1.5 / min(1.0, finest.min())) / math.log(1.9)) + 1)
    )
    middle = np.clip(centres, -30, 30)[..., None]
    about = np.concatenate([middle - steps, middle, middle + steps], axis=-1).reshape(len(centres), -1)
    grid = np.broadcast_to(np.arange(-10.5, 10.6, 0.75), (len(centres), 29))
    edges = np.sort(np.concatenate([grid, np.clip(about, -10.5, 10.5)], axis=1), axis=1)
    half = 0.5 * np.diff(edges)[..., None]
    z = (edges[:, :-1, None] + half * (1 + x)).reshape(len(centres), -1)
    return z, (half * w).reshape(len(centres), -1) * np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)


def brute_force(f, kinks: tuple[float, ...], q_aa: float, q_ab: float, q_bb: float) -> float:
    """E f(u_a)f(u_b) with the smaller variance outside (the package has the larger) and the correlation from
    exact rationals."""
    if q_aa > q_bb:
        q_aa, q_bb = q_bb, q_aa
    whole = Fraction(q_aa) * Fraction(q_bb)
    sin2 = max(Fraction(0), whole - Fraction(q_ab) ** 2) / whole
    sin, sd_a, sd_b = math.sqrt(sin2), math.sqrt(q_aa), math.sqrt(q_bb)
    cos = math.copysign(math.sqrt(1 - sin2), q_ab)
    length, slope, sd = 0.6, sd_b * cos, sd_b * sin
    blur = sin / abs(cos) if cos else 50.0
    centres, finest = [0.0], [min(length / sd_a, max(length / max(abs(slope), 1e-300), blur))]
    for kink in kinks:
        centres += [kink / sd_a, kink / slope if slope else 50.0]
        finest += [max(min(length / sd_a, 50.0), 1e-12), max(min(blur, 50.0), length / sd_b if sin == 0 else 1e-12)]
    if 0.0 in kinks:
        finest = [min(finest)] * len(finest)
    z, p = (x[0] for x in brute_rule(np.array([centres]), np.array([finest])))
    z, p = z[p > 0], p[p > 0]
    if sin == 0.0:
        return float(np.sum(p * f(sd_a * z) * f(slope * z)))
    inner = np.empty(z.size)
    points = np.array([0.0, *kinks])
    for start in range(0, z.size, 256):
        mean = slope * z[start : start + 256, None]
        x, w = brute_rule((points - mean) / sd, np.full((len(mean), len(points)), length / sd))
        inner[start : start + 256] = np.sum(f(mean + sd * x) * w, axis=1)
    return float(np.sum(p * f(sd_a * z) * inner))


LOG_VARIANCE = st.floats(-10, 6)
CORRELATION = st.one_of(
    st.floats(-1, 1),
    st.sampled_from([-1.0, 0.0, 1.0]),
    st.builds(lambda t, s: s * (1 - 10.0**t), st.floats(-15, -1), st.sampled_from([-1.0, 1.0])),
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    name=activations(ALL),
    which=st.sampled_from(list(PAIRS)),
    log_a=LOG_VARIANCE,
    log_b=LOG_VARIANCE,
    equal=st.booleans(),
    c=CORRELATION,
    rtol=st.sampled_from([1e-12, 1e-12, 1e-6]),
    method=st.sampled_from(["auto", "quadrature"]),
)
@example("hard_tanh", "derivative", 6.0, 5.0, False, 1 - 1e-12, 1e-12, "auto")
@example("elu", "covariance", -10.0, -10.0, True, 1e-9 - 1, 1e-12, "auto")
@example("tanh", "covariance", 6.0, 6.0, True, 1 - 1e-9, 1e-12, "auto")
@example("relu", "derivative", 0.0, 6.0, False, 1 - 1e-15, 1e-12, "quadrature")
def test_the_error_is_honest_and_not_vacuous(name, which, log_a, log_b, equal, c, rtol, method) -> None:
    q_aa, q_bb = 10.0**log_a, 10.0 ** (log_a if equal else log_b)
    if name == "sin" and max(q_aa, q_bb) > 50.0:
        q_aa, q_bb = min(q_aa, 50.0), min(q_bb, 50.0)  # brute force cannot follow it further
    q_ab = c * math.sqrt(q_aa) * math.sqrt(q_bb)
    got = PAIRS[which](name, q_aa, q_ab, q_bb, rtol=rtol, method=method)
    truth = brute_force(integrand(name, which), activation(name).kinks, q_aa, q_ab, q_bb)
    size = scale(name, which, q_aa, q_bb)
    assert held(got, truth, floor=3e-14 * size)  # what brute force itself may be off by
    assert got.error <= (1e-6 if rtol < 1e-8 else 1e-4) * size


@settings(max_examples=200, deadline=None, derandomize=True)
@given(name=activations(ALL), log_q=st.floats(-12, 8), power=st.integers(1, 4), derivative=st.integers(0, 1))
def test_one_dimensional_error_is_honest(name: str, log_q: float, power: int, derivative: int) -> None:
    q = 10.0 ** (min(log_q, 1.0) if name == "sin" else log_q)
    act = activation(name)
    f = act.dphi if derivative else act.phi
    sd = math.sqrt(q)
    points = np.array([[0.0, *act.kinks]]) / sd
    z, p = (x[0] for x in brute_rule(points, np.full(points.shape, 0.6 / sd)))
    terms = p * f(sd * z) ** power
    for method in ("auto", "quadrature"):
        got = moment(name, q, power, derivative, method=method)
        assert held(got, terms.sum(), floor=2e-14 * np.abs(terms).sum())
        assert got.error <= 1e-11 * np.abs(terms).sum()


def test_an_undeclared_kink_shows_in_the_error() -> None:
    # |u − 0.3| without saying so: E = 2[√q·p(k) + k(Φ(k) − ½)] at k = 0.3/√q
    got = expect(lambda u: np.abs(u - 0.3), 1.0)
    truth = 2 * (math.exp(-0.045) / math.sqrt(2 * math.pi) + 0.3 * 0.5 * math.erf(0.3 / math.sqrt(2)))
    assert held(got, truth)
    assert got.error > 1e-9
    told = expect(lambda u: np.abs(u - 0.3), 1.0, kinks=[0.3])
    assert held(told, truth)
    assert told.error < 1e-13
    narrow = custom_activation("narrow", lambda u: np.tanh(30 * u), lambda u: 30 / np.cosh(30 * u) ** 2)
    exact = covariance("tanh", 900.0, 850.0, 900.0)
    assert held(covariance(narrow, 1.0, 850.0 / 900.0, 1.0), exact.value, float(exact.error))


# --------------------------------------------------------------------------------------------------- laws


@pytest.mark.parametrize("name", ALL)
def test_laws_of_covariances(name: str) -> None:
    q_aa, q_bb = np.array([1e-9, 0.04, 1.0, 1.0, 40.0, 1e5]), np.array([1e-9, 3.0, 1.0, 2.0, 0.5, 2e5])
    c = np.array([[-1.0], [-0.999], [-0.4], [0.0], [0.3], [1 - 1e-9], [1.0]])
    q_ab = c * np.sqrt(q_aa * q_bb)
    for which, function in PAIRS.items():
        got, swapped = function(name, q_aa, q_ab, q_bb), function(name, q_bb, q_ab, q_aa)
        assert got.value.shape == got.error.shape == (7, 6)
        assert np.all(np.abs(got.value - swapped.value) <= got.error + swapped.error)
        power, derivative = {"covariance": (2, 0), "derivative": (2, 1), "product": (4, 0)}[which]
        own, other = moment(name, q_aa, power, derivative), moment(name, q_bb, power, derivative)
        bound = np.sqrt(own.value * other.value)
        assert np.all(np.abs(got.value) <= bound * (1 + 1e-14) + got.error)
        same = function(name, q_aa, q_aa, q_aa)
        assert np.all(np.abs(same.value - own.value) <= same.error + own.error)
        first = moment(name, q_aa, power // 2, derivative), moment(name, q_bb, power // 2, derivative)
        np.testing.assert_allclose(got.value[3], first[0].value * first[1].value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [n for n in ALL if n != "sign"])
def test_price_theorem(name: str) -> None:
    # ∂ E φφ / ∂ q_ab = E φ′φ′: fourth-order difference
    for q_aa, q_ab, q_bb in [(1.0, 0.4, 1.0), (0.3, -0.2, 2.0), (20.0, 15.0, 14.0)]:
        h = 1e-3 * math.sqrt(q_aa * q_bb)
        at = covariance(name, q_aa, q_ab + h * np.array([-2, -1, 1, 2]), q_bb).value
        slope = (8 * (at[2] - at[1]) - (at[3] - at[0])) / (12 * h)
        assert slope == pytest.approx(float(derivative_covariance(name, q_aa, q_ab, q_bb).value), rel=1e-8, abs=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_slopes_against_differences(name: str) -> None:
    q = np.array([0.02, 0.7, 5.0, 60.0 if name != "sin" else 6.0])
    for slope, base in [
        (second_moment_slope, second_moment),
        (derivative_second_moment_slope, derivative_second_moment),
    ]:
        h = 3e-3 * q
        at = [base(name, q + k * h).value for k in (-2, -1, 1, 2)]
        difference = (8 * (at[2] - at[1]) - (at[3] - at[0])) / (12 * h)
        for method in ("auto", "quadrature"):
            np.testing.assert_allclose(slope(name, q, method=method).value, difference, rtol=1e-7, atol=1e-9)


def test_slopes_at_zero_variance() -> None:
    at_zero = {n: float(second_moment_slope(n, 0.0).value) for n in ALL}
    assert at_zero["relu"] == 0.5
    assert at_zero["leaky_relu(0.2)"] == pytest.approx(0.52, rel=1e-15)
    assert at_zero["tanh"] == 1.0
    assert at_zero["gelu"] == 0.25
    assert at_zero["softplus"] == pytest.approx(0.25 + math.log(2) / 4, rel=1e-14)  # φ′² + φφ″
    assert at_zero["sign"] == math.inf
    assert at_zero["elu(0.4)"] == pytest.approx(0.58, rel=1e-13)
    assert derivative_second_moment_slope("elu", 0.0).value == -math.inf
    assert held(derivative_second_moment_slope("tanh", 0.0), -2.0)
    for name in ALL:  # continuous there
        near = second_moment_slope(name, 1e-18).value
        assert name == "sign" or near == pytest.approx(at_zero[name], rel=1e-7)


def test_homogeneity() -> None:
    q = np.array([1e-300, 1e-12, 1.0, 1e6, 1e300])
    for name in ("relu", "leaky_relu(0.2)"):
        unit = covariance(name, 1.0, 0.3, 1.0).value
        np.testing.assert_allclose(covariance(name, q, 0.3 * q, q).value, unit * q, rtol=1e-14)
        np.testing.assert_allclose(
            derivative_covariance(name, q, 0.3 * q, q).value, 0.5 * (1 + 0.04 * (name != "relu")) + 0 * q, rtol=0.6
        )
    # relu kernels at orthogonal inputs and at right angles
    assert covariance("relu", 1.0, 0.0, 1.0).value == pytest.approx(1 / (2 * math.pi), rel=1e-15)
    assert derivative_covariance("relu", 1.0, 0.5, 1.0).value == pytest.approx(1 / 3, rel=1e-15)
    # opposite inputs: θ → π leaves the cube of the complement
    tiny = 1e-5
    got = covariance("relu", 1.0, -math.cos(tiny), 1.0)
    assert got.value == pytest.approx(tiny**3 / (6 * math.pi), rel=1e-5)
    assert got.error < 1e-12 * got.value


@pytest.mark.parametrize("name", ["tanh", "silu", "selu", "hard_tanh", "erf", "gelu"])
def test_tiny_and_huge_variances(name: str) -> None:
    act = activation(name)
    q = np.array([1e-300, 1e-100, 1e-20])
    right, left = float(act.dphi(1e-12)) ** 2, float(act.dphi(-1e-12)) ** 2
    np.testing.assert_allclose(second_moment(name, q).value, 0.5 * (right + left) * q, rtol=1e-9)
    # at c = 1 nothing but the second moment is left
    np.testing.assert_allclose(covariance(name, q, q, q).value, second_moment(name, q).value, rtol=1e-11)
    high = second_moment(name, 1e12).value
    assert high == pytest.approx(1.0, rel=2e-6) if act.bounded else high > 4e11


def test_zero_variance_is_the_constant_zero() -> None:
    got = covariance("softplus", [0.0, 0.0, 2.0], 0.0, [0.0, 1.5, 0.0])
    mean = moment("softplus", [0.0, 1.5, 2.0], 1).value
    np.testing.assert_allclose(got.value, math.log(2) * mean, rtol=1e-14)
    assert derivative_second_moment("relu", 0.0).value == 0.0  # φ′(0), not the limit ½
    assert derivative_second_moment("relu", 5e-324).value == 0.5
    assert derivative_covariance("tanh", 0.0, 0.0, 1.0).value == pytest.approx(
        float(moment("tanh", 1.0, 1, 1).value), rel=1e-14
    )
    assert second_moment("sign", 0.0).value == 0.0


def test_shapes_and_methods() -> None:
    assert second_moment("tanh", 1.0).value.shape == ()
    assert second_moment("tanh", np.ones((2, 0))).value.shape == (2, 0)
    assert covariance("tanh", np.ones((3, 1)), 0.2, np.ones(4)).value.shape == (3, 4)
    assert expect(np.cos, np.ones((2, 3))).value.shape == (2, 3)
    assert held(expect(np.cos, 2.0), math.exp(-1.0))
    assert held(expect(lambda u: u**8, 4.0), 105.0 * 256.0)
    many = covariance("silu", np.linspace(0.1, 9, 50)[:, None], 0.05, np.linspace(0.1, 9, 50))
    some = covariance("silu", np.linspace(0.1, 9, 50)[7], 0.05, np.linspace(0.1, 9, 50)[31])
    assert abs(many.value[7, 31] - some.value) <= many.error[7, 31] + some.error


def test_custom_activations_match_rows() -> None:
    scalar = custom_activation("t", math.tanh, lambda u: 1 - math.tanh(u) ** 2)
    clip = custom_activation(
        "c", lambda u: np.clip(u, -1, 1), lambda u: np.where(np.abs(u) < 1, 1.0, 0.0), kinks=[-1, 1]
    )
    stair = custom_activation("s", lambda u: np.where(u > 0.3, 1.0, 0.0), lambda u: 0.0 * u, jumps=[(0.3, 1.0)])
    for custom, row in ((scalar, "tanh"), (clip, "hard_tanh")):
        for function in (second_moment, second_moment_slope, derivative_second_moment_slope):
            one, other = function(custom, [0.5, 3.0]), function(row, [0.5, 3.0])
            assert np.all(np.abs(one.value - other.value) <= one.error + other.error)
            assert np.all(one.error < 1e-11)
        for function in PAIRS.values():
            one, other = function(custom, 1.2, -1.1, 1.5), function(row, 1.2, -1.1, 1.5)
            assert np.abs(one.value - other.value) <= one.error + other.error
    # P(u > k) falls off at the slope p(k)·k/2q
    k, q = 0.3, 2.0
    density = math.exp(-k * k / (2 * q)) / math.sqrt(2 * math.pi * q)
    assert held(second_moment_slope(stair, q), density * k / (2 * q))


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: second_moment("tanh", -1.0), "q"),
        (lambda: second_moment("tanh", [1.0, math.nan]), "q"),
        (lambda: covariance("tanh", math.inf, 0.0, 1.0), "q_aa"),
        (lambda: covariance("tanh", 1.0, 0.0, -1e-9), "q_bb"),
        (lambda: covariance("tanh", 1.0, math.nan, 1.0), "q_ab"),
        (lambda: covariance("tanh", 1.0, 1.0001, 1.0), "q_ab"),
        (lambda: covariance("tanh", 0.0, 1e-9, 1.0), "q_ab"),
        (lambda: second_moment("tahn", 1.0), "activation"),
        (lambda: second_moment("tanh", 1.0, method="magic"), "method"),
        (lambda: second_moment("tanh", 1.0, method="closed"), "method"),
        (lambda: second_moment_slope("tanh", 1.0, method="closed"), "method"),
        (lambda: covariance("tanh", 1.0, 0.0, 1.0, method="closed"), "method"),
        (lambda: second_moment("tanh", 1.0, rtol=0.0), "rtol"),
        (lambda: moment("tanh", 1.0, 0), "power"),
        (lambda: moment("tanh", 1.0, 2, 3), "derivative"),
        (lambda: expect(lambda u: 1.0 / (u - u), 1.0), "f"),
    ],
)
def test_unusable_input_is_refused_in_one_line(call, field: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert caught.value.field == field
    assert "\n" not in str(caught.value)


def test_rounding_above_one_is_clipped() -> None:
    q = 0.1 + 0.2
    for name in ("tanh", "relu", "gelu", "hard_tanh"):
        over = covariance(name, q, q * (1 + 1e-12), q)
        assert np.abs(over.value - second_moment(name, q).value) <= 1e-14


def test_importing_brings_no_heavy_module() -> None:
    import subprocess
    import sys

    code = (
        "import sys, mcverify.expectations.matrix; "
        "print([m for m in ('scipy.stats', 'scipy.integrate', 'scipy.optimize', 'numba') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert gaussian.__doc__
