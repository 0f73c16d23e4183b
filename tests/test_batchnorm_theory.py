"""Growth of gradients under batch norm: closed forms, limits, predicted networks, and networks written out."""

from __future__ import annotations

import math

import numpy as np
import pytest

import mcverify as mv
from mcverify import Activation, BatchNorm, Dense, Network, Residual, batchnorm_gradient_growth
from mcverify import batchnorm_residual_growth as residual_growth
from mcverify.errors import InputError
from mcverify.inputs import with_gram


def test_growth_in_plain_networks() -> None:
    assert batchnorm_gradient_growth("relu", 16) == pytest.approx(1.589950, abs=5e-7)
    assert batchnorm_gradient_growth("relu", 32) == pytest.approx(1.521953, abs=5e-7)
    assert batchnorm_gradient_growth("relu") == pytest.approx(math.pi / (math.pi - 1), rel=1e-14)
    assert batchnorm_gradient_growth("linear", 8) == pytest.approx(6 / 5, rel=1e-14)
    for phi in ("tanh", "relu", "gelu"):  # a large batch comes near its limit like 1/B
        off = [batchnorm_gradient_growth(phi, B) - batchnorm_gradient_growth(phi) for B in (10**4, 2 * 10**4)]
        assert off[0] == pytest.approx(2 * off[1], rel=1e-3)
        assert abs(off[0]) < 1e-3


def test_growth_falls_towards_the_linear_regime() -> None:
    for batch, least in ((8, 6 / 5), (math.inf, 1.0)):
        growth = [batchnorm_gradient_growth("tanh", batch, gain=g) for g in (2.0, 1.0, 0.3, 0.1, 0.01)]
        assert (np.diff(growth) < 0).all()
        assert growth[-1] == pytest.approx(least, rel=1e-7)
    # 1 + (4/3)g⁴ and a sixth power
    assert batchnorm_gradient_growth("tanh", gain=0.1) == pytest.approx(1 + 4 / 3 * 1e-4, abs=2e-5)


def block(phi: str, placement: str, n: int, sigma_w2: float, gain: float) -> Residual:
    if placement == "pre":
        return Residual([BatchNorm(gain=gain), Activation(phi), Dense(n, n, sigma_w2)])
    return Residual([Activation(phi), Dense(n, n, sigma_w2), BatchNorm()])


@pytest.mark.parametrize("placement", ["pre", "post"])
@pytest.mark.parametrize("phi", ["linear", "relu", "tanh"])
def test_residual_growth_is_what_is_predicted_of_such_networks(placement: str, phi: str) -> None:
    B, q0, c0 = 9, 0.7, 0.1
    net = Network([Dense(16, 8), *[block(phi, placement, 8, 2.0, 1.3)] * 4])
    predicted = mv.predict(net, with_gram(q0 * ((1 - c0) * np.eye(B) + c0), 16)).grad_norm2.values
    found = residual_growth(phi, 4, placement, B, q0=q0, c0=c0, sigma_w2=2.0, gain=1.3)
    assert predicted / predicted[-1] == pytest.approx(np.tile(found[:, None], B), rel=1e-9)


def test_identity_blocks_grow_like_their_depth() -> None:
    """In the variance v_0 + l the factors telescope: (v_0 + L)/v_0 at B → ∞, in both placements."""
    for placement in ("pre", "post"):
        growth = residual_growth("linear", 20, placement, q0=2.0, c0=0.5)
        assert growth == pytest.approx((1.0 + 20) / (1.0 + np.arange(21)), rel=1e-12)
    # and on 1^⊥, a share (B−1)/B of an independent cotangent, with (B−2)/(B−3) at finite B
    B = 64
    product = np.prod([1 + (B - 2) / (B - 3) / (63 / 64 + l) for l in range(20)])
    assert residual_growth("linear", 20, "post", B)[0] == pytest.approx((product * (B - 1) + 1) / B, rel=1e-12)


def test_other_activations_grow_like_a_power() -> None:
    """L^a, a the growth per layer of a plain network; π/(π − 1) for relu, in both placements."""
    for phi, placement, batch in (("relu", "pre", 8), ("tanh", "pre", 12), ("relu", "pre", math.inf),
                                  ("relu", "post", math.inf)):  # fmt: skip
        growth = residual_growth(phi, 2000, placement, batch)
        slope = math.log(growth[100] / growth[200]) / math.log(2)  # λ_0 and (a/l)² leave some 2%
        assert slope == pytest.approx(batchnorm_gradient_growth(phi, batch), rel=0.03)
    # a correlation between the inputs delays it: the first blocks tell them less apart
    apart, alike = (residual_growth("relu", 20, "post", c0=c)[0] for c in (0.0, 0.6))
    assert alike > 2 * apart


@pytest.mark.parametrize("placement", ["pre", "post"])
def test_one_block_written_out(placement: str) -> None:
    """NumPy alone: a block's Jacobian times random directions, by central differences, at width 200 over 8 inputs.

    The width's share is of order B/n, 4%; half of it is allowed."""
    rng, B, n, c0, step = np.random.default_rng(3), 8, 200, 0.3, 1e-4

    def normalised(h: np.ndarray) -> np.ndarray:
        h = h - h.mean(axis=0)
        return h / np.sqrt((h**2).mean(axis=0))

    found = []
    for _ in range(60):
        common, own = rng.standard_normal(n), rng.standard_normal((B, n))
        x, W = np.sqrt(c0) * common + np.sqrt(1 - c0) * own, rng.standard_normal((n, n)) * math.sqrt(2 / n)

        def branch(x: np.ndarray, W: np.ndarray = W) -> np.ndarray:
            relu = np.maximum(normalised(x) if placement == "pre" else x, 0)
            return relu @ W.T if placement == "pre" else normalised(relu @ W.T)

        u = rng.standard_normal((B, n))  # E ‖J u‖²_F over units and inputs is E ‖Jᵀu‖²
        pushed = u + (branch(x + step * u) - branch(x - step * u)) / (2 * step)
        found.append((pushed**2).mean())
    (growth, _) = residual_growth("relu", 1, placement, B, c0=c0, sigma_w2=2.0)
    error = np.std(found) / math.sqrt(len(found))
    assert error < 0.015 * growth
    assert abs(np.mean(found) - growth) < 4 * error + 0.02 * growth


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: batchnorm_gradient_growth("relu", 3), "no finite mean"),
        (lambda: batchnorm_gradient_growth("relu", 16.5), "whole number above 3"),
        (lambda: batchnorm_gradient_growth("relu", True), "whole number above 3"),
        (lambda: batchnorm_gradient_growth("relu", 8, gain=0.0), "gain"),
        (lambda: residual_growth("relu", 0, "pre"), "depth"),
        (lambda: residual_growth("relu", 10**12, "pre"), "depth"),
        (lambda: batchnorm_gradient_growth("relu", 10**400), "whole number above 3"),
        (lambda: residual_growth("relu", 3, "middle"), "pre, post"),
        (lambda: residual_growth("relu", 3, "pre", 8, c0=1.0), "inputs that differ"),
        (lambda: residual_growth("relu", 3, "pre", 8, c0=-0.2), "inputs that differ"),
        (lambda: residual_growth("relu", 3, "pre", 2), "no finite mean"),
        (lambda: residual_growth("relu", 3, "post", q0=-1.0), "q0"),
    ],
)
def test_bad_input_gets_one_line(call, told: str) -> None:
    with pytest.raises(InputError, match=told) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_what_a_sum_with_normalised_units_differs_from_a_gaussian_one() -> None:
    """The remainder of taki2017.batchnorm_relu_post, at B = 8 and its first block, where it is largest: x = x^0 + y, y
    uniform on the sphere in 1^⊥, against the Gaussian of the same covariance made of the same draws."""
    B, n, rng = 8, 1_000_000, np.random.default_rng(0)
    start = rng.standard_normal((n, B)) @ np.linalg.cholesky(0.7 * np.eye(B) + 0.3).T  # q_0 = 1, c_0 = 0.3
    z = rng.standard_normal((n, B))
    z -= z.mean(axis=1, keepdims=True)

    def told_apart(x):
        """Means of Λ and of the covariance of slopes over batches."""
        on = (x > 0).sum(axis=1)
        return np.array([np.maximum(x, 0).var(axis=1).mean() * B / (B - 1), (on * (on - 1)).mean() / (B * (B - 1))])

    drawn = told_apart(start + z / z.std(axis=1, keepdims=True))
    spread, slopes = np.abs(drawn / told_apart(start + z * math.sqrt(B / (B - 1))) - 1)
    assert spread + slopes / B < 0.003
    assert slopes > 0.005  # it is no Gaussian: some ten standard errors
