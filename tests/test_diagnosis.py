"""What `predict` says in words: the failure modes with their figures, and what residual and normalised networks do."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

import mcverify as mv
from mcverify import initialisers
from mcverify.inputs import checked, default_inputs
from mcverify.theory import failure_modes
from mcverify.theory.diagnosis import diagnose
from mcverify.theory.propagation import propagate


def told(net, x=None):
    x = default_inputs(net.input_shape) if x is None else checked(x, net.input_shape)
    return " ".join(diagnose(net, propagate(net, x)))


def spread(net):
    return failure_modes.length_spread(net, propagate(net, default_inputs(net.input_shape)[:1]))


# ---- failure modes ----------------------------------------------------------------------------------------


def test_a_wide_network_with_he_s_weights_is_in_neither():
    words = told(mv.mlp(16, [400] * 6, "relu", 2.0))
    assert "a mean that is not kept to a factor ten: no, lengths change by a factor 1 in all, gradients by 1." in words
    assert "scatter about the mean: no, lengths scatter by ±0.28 of it" in words  # √((1 + 5/400)^6 − 1) = 0.278


def test_failure_mode_1_tells_its_rate_and_its_cause():
    """Glorot's weights halve ReLU lengths: 2^−7 over the seven steps of eight layers."""
    words = told(mv.mlp(400, [400] * 8, "relu", initialiser="glorot_normal"))
    assert "yes, lengths fall by a factor 0.5 a layer, gradients fall by a factor 0.5" in words
    assert "by a factor 0.00781 in all" in words
    assert "σ_w² = 1 is below the 2 at which relu keeps lengths" in words
    above = told(mv.mlp(400, [400] * 8, "leaky_relu(0.5)", 3.2))  # critical at 2/1.25 = 1.6
    assert "lengths grow by a factor 2 a layer" in above
    assert "σ_w² = 3.2 is above the 1.6 at which leaky_relu(0.5) keeps lengths" in above


def test_pytorch_s_biases_hold_lengths_at_a_floor():
    """q* = σ_b²/(1 − σ_w²/2) = (1/300)/(5/6) = 0.004, gradients falling by σ_w²/2 = 1/6 a layer."""
    words = told(mv.mlp(100, [100] * 12, "relu", initialiser="pytorch_linear"))
    assert "gradients fall by a factor 0.167" in words
    assert "biases hold lengths at a floor, q = 0.004, but not gradients" in words


def test_failure_mode_2_tells_quantiles_and_a_width_that_mends_it():
    net = mv.mlp(16, [10] * 20, "relu", 2.0)
    words = told(net)
    assert "lengths change by a factor 1 in all" in words
    assert "scatter about the mean: yes, 9 in 10 networks end with a length between" in words
    factor = int(re.search(r"Widths (\d+) times as large", words)[1])
    assert spread(mv.mlp(16, [10 * factor] * 20, "relu", 2.0)).relative <= 0.5
    assert spread(mv.mlp(16, [10 * (factor // 2)] * 20, "relu", 2.0)).relative > 0.5


def test_the_quantiles_are_those_of_sampled_networks():
    """5%, 50% and 95% of 4000 networks' lengths over their exact mean, each within four binomial errors."""
    net, n = mv.mlp(8, [12] * 8, "relu", 2.0), 4000
    s = spread(net)
    lengths = mv.simulate(net, default_inputs((8,))[:1], samples=n, replicates=True, rng=3).length.values[:, -1, 0]
    for at, p in ((s.low, 0.05), (s.median, 0.5), (s.high, 0.95)):
        assert abs((lengths <= at).mean() - p) < 4 * math.sqrt(p * (1 - p) / n)


def test_a_smooth_network_s_spread_is_log_normal_to_first_order():
    net = mv.mlp(8, [64] * 6, "tanh", 1.5, 0.05)
    p = mv.predict(net, default_inputs((8,))[:1])
    s = spread(net)
    assert s.how == "first order"
    assert s.relative == pytest.approx(float(np.sqrt(p.length_var[-1, 0]) / p.length[-1, 0]))
    assert s.low < s.median < 1 < s.high
    assert math.log(s.high / s.median) == pytest.approx(math.log(s.median / s.low))


def test_other_weights_are_not_told_as_exact():
    """At one input unit uniform weights have E R² = 1 + 2.6/n, not 1 + 5/n, at the first map."""
    net = mv.mlp(1, [12] * 3, "relu", 2.0, weights="uniform")
    assert spread(net).how == "law of Gaussian weights"
    assert mv.ratio_moments([1.0], 12, weights="uniform").second == pytest.approx(1 + 2.6 / 12)
    assert spread(mv.mlp(1, [12] * 3, "relu", 2.0)).how == "exact law"


# ---- all initialisers on one architecture -----------------------------------------------------------------


def test_initialisers_are_sorted_into_right_and_failing():
    rows = {r.name: r for r in mv.diagnose_initialisers("relu", [500] * 10)}
    assert set(rows) == set(initialisers.INITIALISERS)
    right = {"he_normal", "he_uniform", "kaiming_normal", "kaiming_uniform", "jax_he_normal", "keras_he_normal",
             "orthogonal_relu"}  # fmt: skip
    assert {name for name, r in rows.items() if r.verdict == "right"} == right
    rates = {"glorot_uniform": 1 / 2, "lecun_normal": 1 / 2, "orthogonal": 1 / 2, "pytorch_linear": 1 / 6}
    for name, rate in rates.items():
        assert rows[name].verdict == "FM1"
        assert rows[name].rates.gradient == pytest.approx(rate)
    cut = rows["truncated_he_uncorrected"].rates.length  # 1 − 4φ(2)/erf(√2), the variance of a normal cut at two
    assert cut == pytest.approx(1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2)))
    listed = [r.verdict for r in mv.diagnose_initialisers("relu", [30] * 10)]
    assert listed.index("FM2") == 0
    assert listed.index("FM1, FM2") == listed.count("FM2")


def test_bad_architectures_are_refused_before_any_row():
    with pytest.raises(mv.InputError, match="activation: got 'rely'"):
        mv.diagnose_initialisers("rely", [8])
    with pytest.raises(mv.InputError, match="widths"):
        mv.diagnose_initialisers("relu", [])


# ---- residual and normalised networks ---------------------------------------------------------------------


def resnet(depth, *branch, n=32):
    return mv.Network([mv.Dense(8, n), *[mv.Residual(branch)] * depth])


def test_he_in_a_residual_branch_is_told_as_two_to_the_depth_with_what_mends_it():
    words = told(resnet(20, mv.Activation("relu"), mv.Dense(32, 32, 2.0)))
    assert "20 residual blocks: lengths gain a factor 2 a block, 1.05e+06 in all" in words
    assert "exponential in the depth" in words
    new = float(re.search(r"from 2 to ([0-9.]+) =", words)[1])
    scale = float(re.search(r"scale = ([0-9.]+)\.", words)[1])
    for mended in (mv.Residual([mv.Activation("relu"), mv.Dense(32, 32, new)]),
                   mv.Residual([mv.Activation("relu"), mv.Dense(32, 32, 2.0)], scale)):  # fmt: skip
        net = mv.Network([mv.Dense(8, 32), *[mended] * 20])
        q = mv.predict(net, default_inputs((8,))).q.values[:, 0, 0]
        assert q[-1] / q[0] == pytest.approx((1 + 1 / 20) ** 20, rel=1e-2)  # → e; `scale` is told to three digits
        assert "of order one" in told(net)


@pytest.mark.parametrize("net", [
    mv.resnet(8, 32, 50, "relu", 0.0, 1.0),  # biases alone: lengths grow like the depth
    mv.resnet(8, 32, 50, "tanh", 1.0, 0.1, sigma_v2=1.0, sigma_a2=0.5),  # gradients like e^√depth
])  # fmt: skip
def test_growth_that_slows_down_is_not_told_as_exponential(net):
    words = told(net)
    assert "slower than exponential" in words
    scale = float(re.search(r"scale = ([0-9.]+)\.", words)[1])
    p = mv.predict(net.map_layers(lambda _, v: mv.Residual(v.branch, scale) if v.inner else v), default_inputs((8,)))
    q, g = p.q.values[:, 0, 0], p.grad_norm2.values[:, 0]
    assert max(q[-1] / q[0], g[0] / g[-1]) < math.e


def test_a_length_that_a_bias_starts_and_weights_carry_on_is_exponential():
    words = told(mv.resnet(8, 32, 30, "relu", 2.0, 9.0))
    assert "exponential in the depth" in words


def test_normalised_branches_are_told_by_their_placement():
    phi, dense, norm = mv.Activation("relu"), mv.Dense(32, 32, 2.0), mv.BatchNorm()
    x = np.random.default_rng(0).normal(size=(8, 8))
    pre, post = told(resnet(6, norm, phi, dense), x), told(resnet(6, phi, dense, norm), x)
    assert "Batch norm before φ in the branch" in pre
    assert "Batch norm after the branch's last map" in post
    assert "exponential in the depth" not in pre + post


def test_plain_batch_norm_is_told_its_explosion():
    """1.589950 a layer for ReLU at B = 16 (Yang et al. 2019)."""
    layers = [v for _ in range(4) for v in (mv.Dense(64, 64, 1.0), mv.BatchNorm(), mv.Activation("relu"))]
    x = np.random.default_rng(0).normal(size=(16, 64))
    words = told(mv.Network([*layers, mv.Dense(64, 8)]), x)
    assert "whatever σ_w² (Yang et al. 2019): here by a factor" in words
    assert "1.59 for a batch of 16 columns that are all alike, and relu" in words
