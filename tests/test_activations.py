"""The activation table: parsing, derivatives, stability, and what users may bring."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

from mcverify.activations import Activation, activation, custom_activation, names
from mcverify.errors import InputError

ALL = [n if n not in ("elu", "leaky_relu") else f"{n}(0.3)" for n in names()]
POINTS = np.concatenate([np.linspace(-6, 6, 241) + 0.01234, [-30.0, -12.0, 12.0, 30.0]])


def away_from_kinks(act: Activation, points: np.ndarray, distance: float) -> np.ndarray:
    for kink in act.kinks:
        points = points[np.abs(points - kink) > distance]
    return points


@pytest.mark.parametrize("name", ALL)
def test_derivatives_agree_with_finite_differences(name: str) -> None:
    act = activation(name)
    u = away_from_kinks(act, POINTS, 1e-2)

    def difference(f, h=1e-3):
        # fourth order
        return (8 * (f(u + h) - f(u - h)) - (f(u + 2 * h) - f(u - 2 * h))) / (12 * h)

    np.testing.assert_allclose(act.dphi(u), difference(act.phi), rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(act.d2phi(u), difference(act.dphi), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", ALL)
def test_dtype_and_shape_are_kept(name: str) -> None:
    act = activation(name)
    for f in (act.phi, act.dphi, act.d2phi):
        for dtype in (np.float32, np.float64):
            out = f(np.linspace(-3, 3, 12, dtype=dtype).reshape(3, 4))
            assert out.dtype == dtype
            assert out.shape == (3, 4)
        assert np.asarray(f(np.arange(3))).dtype == np.float64
        assert np.shape(f(0.5)) == ()
    u32 = np.linspace(-3, 3, 61, dtype=np.float32)
    np.testing.assert_allclose(act.phi(u32), act.phi(u32.astype(np.float64)), rtol=3e-6, atol=3e-7)
    np.testing.assert_allclose(act.dphi(u32), act.dphi(u32.astype(np.float64)), rtol=3e-6, atol=3e-7)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_arguments_are_finite_and_silent(name: str, dtype: type) -> None:
    act = activation(name)  # warnings are errors in this suite
    big = 0.5 * np.finfo(dtype).max
    u = np.array([-big, -1e20, -1e3, -100, -1e-30, 0, 1e-30, 100, 1e3, 1e20, big], dtype=dtype)
    for f in (act.phi, act.dphi, act.d2phi):
        assert np.all(np.isfinite(f(u)))
    if act.bounded:
        assert np.max(np.abs(act.phi(u))) <= 1.0


@pytest.mark.parametrize("name", ALL)
def test_rows_say_the_truth_about_themselves(name: str) -> None:
    act = activation(name)
    u = away_from_kinks(act, POINTS, 0.0)
    if act.slopes is not None:
        negative, positive = act.slopes
        np.testing.assert_allclose(act.phi(u), np.where(u > 0, positive * u, negative * u), rtol=1e-15)
    if act.pieces:
        rebuilt = np.zeros_like(u)
        for low, high, terms in act.pieces:
            here = (u > low) & (u < high)
            rebuilt[here] = sum(t.coefficient * u[here] ** t.power * np.exp(t.rate * u[here]) for t in terms)
        np.testing.assert_allclose(act.phi(u), rebuilt, rtol=1e-12, atol=1e-14)
    for point, height in act.jumps:
        assert point in act.kinks
        assert act.phi(point + 1e-12) - act.phi(point - 1e-12) == pytest.approx(height)
    for point in (-1.0, 0.0, 1.0):
        sides = np.array([point - 1e-9, point + 1e-9])
        breaks = any(abs(np.diff(f(sides))[0]) > 1e-6 for f in (act.phi, act.dphi, act.d2phi))
        assert breaks == (point in act.kinks)


def test_values_at_kinks_are_those_of_pytorch() -> None:
    at = {"relu": (0, 0.0), "leaky_relu(0.2)": (0, 0.2), "elu(0.5)": (0, 0.5), "sign": (0, 0.0)}
    for name, (point, slope) in at.items():
        assert activation(name).dphi(np.array(float(point))) == slope
    assert activation("hard_tanh").dphi(np.array([-1.0, 1.0])).tolist() == [0.0, 0.0]
    assert activation("sign").phi(np.array([-2.0, 0.0, 3.0])).tolist() == [-1.0, 0.0, 1.0]


def test_known_values() -> None:
    def one(name: str, u: float) -> float:
        return float(activation(name).phi(u))

    assert one("gelu", 1.0) == pytest.approx(0.8413447460685429, rel=1e-15)  # Φ(1)
    assert one("erf", 0.5) == pytest.approx(math.erf(0.5), rel=1e-15)
    assert one("softplus", -40.0) == pytest.approx(math.exp(-40.0), rel=1e-15)
    assert one("silu", 2.0) == pytest.approx(2.0 / (1.0 + math.exp(-2.0)), rel=1e-15)
    assert one("elu(2)", -1e-12) == pytest.approx(-2e-12, rel=1e-9)
    assert one("selu", 1.0) == pytest.approx(1.0507009873554805, rel=1e-15)
    assert one("selu", -50.0) == pytest.approx(-1.7580993408473766, rel=1e-14)


def test_names_and_parameters() -> None:
    assert activation("leaky_relu(0.20)").name == "leaky_relu(0.2)"
    assert activation(" leaky_relu( 0.2 ) ") is activation("leaky_relu(0.2)")
    assert activation("leaky_relu").name == "leaky_relu(0.01)"
    assert activation("elu").name == "elu(1)"
    assert activation("leaky_relu(1)").kinks == ()
    row = activation("tanh")
    assert activation(row) is row
    for name in ALL:
        act = activation(name)
        assert pickle.loads(pickle.dumps(act)) is act
        assert activation(act.name) is act


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("rleu", "did you mean 'relu'?"),
        ("step", "allowed:"),
        ("relu(1)", "no parameter"),
        ("leaky_relu(x)", "slope"),
        ("leaky_relu(inf)", "slope"),
        ("leaky_relu()", "slope"),
        ("elu(-1)", "alpha"),
        ("relu)", "allowed:"),
        ("", "allowed:"),
        (3, "allowed:"),
    ],
)
def test_unusable_specs_are_refused_in_one_line(spec: object, says: str) -> None:
    with pytest.raises(InputError) as caught:
        activation(spec)
    text = str(caught.value)
    assert text.startswith("activation: got ")
    assert says in text
    assert "\n" not in text


def test_custom_activation_from_scalar_functions() -> None:
    act = custom_activation("mine", math.tanh, lambda u: 1.0 - math.tanh(u) ** 2)
    u = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
    assert act.phi(u).dtype == np.float32
    np.testing.assert_allclose(act.phi(u), np.tanh(u), rtol=1e-6)
    assert act.dphi(np.zeros((2, 0))).shape == (2, 0)
    assert activation(act) is act


def test_custom_activation_from_branching_and_vectorised_functions() -> None:
    branching = custom_activation("b", lambda u: u if u > 0 else 0.0, lambda u: 1.0 if u > 0 else 0.0, kinks=[0])
    arrays = custom_activation("v", lambda u: np.maximum(u, 0), lambda u: np.where(u > 0, 1.0, 0.0), kinks=[0])
    u = np.linspace(-1, 1, 9)
    np.testing.assert_array_equal(branching.phi(u), arrays.phi(u))
    jump = custom_activation("j", np.sign, lambda u: 0.0 * u, jumps=[(0, 2)])
    assert (jump.kinks, jump.jumps) == ((0.0,), ((0.0, 2.0),))
    # a function that takes arrays but does not act elementwise is called entry by entry
    odd = custom_activation("o", lambda u: np.sum(u), lambda u: np.ones(np.shape(u)))
    np.testing.assert_array_equal(odd.phi(u), u)


@pytest.mark.parametrize(
    ("phi", "dphi", "more", "field"),
    [
        (np.tanh, np.tanh, {}, "dphi"),
        (np.abs, np.sign, {"kinks": [math.nan]}, "kinks"),
        (lambda u: 1.0 / (u - 4.5), lambda u: -1.0 / (u - 4.5) ** 2, {}, "phi"),
        (lambda u: np.log(np.where(u > 0, u, np.nan)), lambda u: 1.0 / u, {}, "phi"),
        ("tanh", np.tanh, {}, "phi"),
        (np.tanh, lambda u: 1 - np.tanh(u) ** 2, {"scale": 0.0}, "scale"),
    ],
)
def test_unusable_custom_activations_are_refused(phi, dphi, more, field) -> None:
    with np.errstate(all="ignore"), pytest.raises(InputError) as caught:
        custom_activation("bad", phi, dphi, **more)
    assert caught.value.field.startswith(field)
    assert "\n" not in str(caught.value)


def test_a_wrong_derivative_is_named_with_its_point() -> None:
    with pytest.raises(InputError, match=r"u = .*finite difference of phi gives"):
        custom_activation("bad", np.sin, lambda u: np.cos(u) + 1e-4)
    # right away from a kink that is declared
    custom_activation("good", np.abs, np.sign, kinks=[0.0])
