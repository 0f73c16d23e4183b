"""Absurd but finite parameters: one line, or what is right; never a warning, never another precision."""

from __future__ import annotations

import math

import numpy as np
import pytest

import mcverify as mv
from mcverify.errors import InputError, Unpredictable
from mcverify.expectations import sphere

pytestmark = pytest.mark.filterwarnings("error")

TWO = np.array([[1.0, 1.0], [1.0, -1.0]])
TAKE_A_SCALE = (
    lambda v: mv.mlp(2, [3], "tanh", v),
    lambda v: mv.mlp(2, [3], "tanh", sigma_b2=v),
    lambda v: mv.cnn((1, 4), [2], "tanh", v),
    lambda v: mv.resnet(2, 3, 2, "tanh", scale=v),
    lambda v: mv.BatchNorm(gain=v),
    lambda v: mv.LayerNorm(eps=v),
    lambda v: mv.Dropout(v),
    lambda v: mv.phase("tanh", v, 0.1),
    lambda v: mv.phase("tanh", 1.5, 0.1, q0=v),
    lambda v: mv.critical_sigma_w2("tanh", v),
    lambda v: mv.resnet_trajectory("tanh", v, 1.0, depth=2),
    lambda v: mv.tanh_resnet_growth(v, 1.0),
    lambda v: mv.taki_initialisation(4, 3, v),
    lambda v: mv.PowerScales(v, 2.0),
    lambda v: mv.depth_limit("bfloat16", 4, 3, v),
    lambda v: mv.ratio_moments([1.0, 1.0], 3, sigma_w2=v),
    lambda v: mv.batchnorm_gradient_growth("tanh", 8, gain=v),
    lambda v: mv.batchnorm_residual_growth("tanh", 3, "pre", q0=v),
    lambda v: mv.predict(mv.mlp(2, [3], "tanh"), v * np.eye(2)),
    lambda v: mv.activation(f"leaky_relu({v!r})") if v > 1 else mv.Dropout(v),
)


@pytest.mark.parametrize("value", [5e-324, 1e-300, 1e200, 1e300])
@pytest.mark.parametrize("make", TAKE_A_SCALE)
def test_beyond_the_ranges_there_is_one_line(make, value):
    with pytest.raises(InputError, match=r"from -?1e-?50 to 1e\+?50|must be a number in") as caught:
        make(value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sigma_w2", [1e-50, 1e-20, 1e20, 1e50])
@pytest.mark.parametrize("phi", ["tanh", "relu", "gelu", "linear"])
def test_at_the_ranges_ends_predictions_are_told_without_warnings(phi, sigma_w2):
    p = mv.predict(mv.mlp(2, [1, 3], phi, sigma_w2, 0.0), TWO)
    q = p.q.values[:, 0, 0]
    assert q[0] == sigma_w2
    if phi == "linear":
        np.testing.assert_allclose(q, sigma_w2 ** np.arange(1.0, 3), rtol=1e-12)
    assert not np.isnan(q).any()


def test_numbers_of_numpy_are_python_s_own():
    """np.float32 would make all that it is multiplied with so, and np.int8 overflow at 127."""
    net = mv.mlp(2, [np.int8(100)] * 3, "tanh", np.float32(1.5), np.float32(0.1))
    own = mv.mlp(2, [100] * 3, "tanh", 1.5, float(np.float32(0.1)))
    assert repr(net) == repr(own)
    assert mv.Dense(np.int8(100), np.int16(100)).widened(2, first=False) == mv.Dense(200, 200)
    np.testing.assert_array_equal(mv.predict(net, TWO).q, mv.predict(own, TWO).q)
    relu = [mv.mlp(2, [4] * 50, "relu", kind(3)) for kind in (float, np.float32)]
    assert mv.variance_across_layers(relu[0]) == mv.variance_across_layers(relu[1])
    assert mv.taki_initialisation(4, 3, np.float32(0.1)) == mv.taki_initialisation(4, 3, float(np.float32(0.1)))


def test_moments_of_entries_beyond_the_floats_range():
    """They go as Π σ_w², with which they leave the range and come back; what does not come back is ∞."""
    layers = [mv.Dense(2, 4, 1e50), mv.Activation("relu")]
    for gain in (1e50, 1e50, 1e-50, 1e-50, 1e-50):
        layers += [mv.Dense(4, 4, gain), mv.Activation("relu")]
    back = mv.entry_moments(mv.Network(layers[:-1]))
    plain = mv.entry_moments(mv.mlp(2, [4] * 5, "relu", readout=4))
    np.testing.assert_allclose(back, plain, rtol=1e-9)
    assert mv.entry_moments(mv.mlp(2, [4] * 9, "relu", 1e50)) == (math.inf,) * 3
    assert mv.length_law(mv.mlp(2, [4] * 9, "relu", 1e50)).rvs(3, 0).max() == np.inf
    with pytest.raises(Unpredictable, match="E z² leaves the range of floats in block 3"):
        mv.resnet_trajectory("relu", 1e50, 1e50, depth=9)


@pytest.mark.parametrize("phi", ["relu", "linear", "gelu"])
@pytest.mark.parametrize("order", [0, 1])
def test_lengths_that_leave_the_range_are_refused_by_layer(phi, order):
    """After three or four maps of gain 1e50, and 75 to 89 of gain 100, each with its activation above it."""
    with pytest.raises(Unpredictable, match=r"E h² exceeds 1e\+150 in layer [5-8],"):
        mv.predict(mv.mlp(2, [4] * 9, phi, 1e50), TWO, order=order)
    with pytest.raises(Unpredictable, match=r"E h² exceeds 1e\+150 in layer 1[4-7]\d,"):
        mv.predict(mv.mlp(2, [4] * 200, phi, 100.0), TWO, order=order)


def test_a_border_s_critical_point_that_is_not_found_is_one_line():
    with pytest.raises(InputError, match=r"sigma_b2: got 1e-20; no profile q\* was found at sigma_w2 = 1\.03"):
        mv.border_critical_sigma_w2("tanh", 1e-20, 8)


def test_gradients_beyond_the_floats_range_are_infinite():
    p = mv.predict(mv.mlp(2, [4] * 80, "tanh", 1e20), TWO)
    assert p.grad_norm2.values[0, 0] == np.inf
    assert np.isfinite(p.q.values).all()
    assert mv.validity(mv.mlp(2, [3] * 3, "tanh", 1e50, 0.1), confirm=False).deviations


def test_batch_norms_of_any_gain(monkeypatch):
    """A steep tanh is a sign: growth in proportion to the gain, whose factor tends to its limit. A sine that turns more
    often than can be integrated is refused: it was told 1% off at gain 1000."""
    growth = [mv.batchnorm_gradient_growth("tanh", gain=g) / g for g in (1e6, 1e12, 1e20, 1e50)]
    assert growth[-1] == pytest.approx(growth[0], rel=1e-5)
    assert growth[-1] == pytest.approx((4 / 3) / math.sqrt(2 * math.pi), rel=1e-6)
    with pytest.raises(InputError, match="gain: got 1e\\+20; must be at most 1e\\+12"):
        mv.batchnorm_gradient_growth("tanh", 8, gain=1e20)
    monkeypatch.setattr(sphere, "_SPLITS", 1)  # quick, and as blind to gain 20 as the whole is to 1000
    with pytest.raises(Unpredictable, match=r"sin turns too often at gain 20\.5"):
        mv.batchnorm_gradient_growth("sin", 8, gain=20.5)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: mv.Network(None), "layers"),
        (lambda: mv.load(3.0), "file"),
        (lambda: mv.custom_activation("a", np.tanh, np.cos, kinks=2.0), "kinks or jumps"),
        (lambda: mv.custom_activation("a", np.tanh, np.cos, jumps=[10**400]), "kinks or jumps"),
        (lambda: mv.custom_activation("a", np.tanh, np.cos, scale="2"), "scale"),
        (lambda: mv.custom_activation("a", np.tanh, np.cos, scale=10**400), "scale"),
        (lambda: mv.predict(mv.mlp(2, [2], "relu"), [[10**400, 1]]), "x"),
        (lambda: mv.predict(mv.mlp(2, [2], "relu"), TWO, cotangent=10**400), "cotangent"),
        (lambda: mv.predict_stationary(mv.cnn((1, 4), [2], "tanh"), 10**400), "cov"),
        (lambda: mv.spatial_modes("tanh", 1.0, 0.1, 8, taps=10**400), "taps"),
    ],
)  # fmt: skip
def test_what_is_no_number_or_list_is_one_line(make, field):
    with pytest.raises(InputError, match=f"^{field}: got ") as caught:
        make()
    assert "\n" not in str(caught.value)
