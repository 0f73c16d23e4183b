"""The claims that follow for networks with batch norm, whose σ_w² may move nothing."""

from __future__ import annotations

import numpy as np
import pytest

from mcverify import Activation, BatchNorm, Dense, LayerNorm, Network, Residual
from mcverify.claims import generic, wrong_norms
from mcverify.claims.claim import Claim
from mcverify.claims.generic import generic_claims
from mcverify.layers.layer import Layer
from mcverify.self_test import self_test, sensitivities
from mcverify.simulation.simulate import choose_engine
from mcverify.streams import Site

WIDTH = 64
X = np.random.default_rng(0).standard_normal((10, 16))
RELU, MAP = Activation("relu"), Dense(WIDTH, WIDTH)
NETWORKS = {
    "plain": [BatchNorm(), RELU, MAP],
    "before": [Residual([BatchNorm(), RELU, MAP])],
    "after": [Residual([RELU, MAP, BatchNorm()])],
    "layer norm": [LayerNorm(), RELU, MAP],
}


def claims_on(block: list[Layer]) -> list[Claim]:
    net = Network([Dense(16, WIDTH), *block * 2])
    return [c for c in generic_claims(net, X, 0.05, 1e9) if ".limit." not in c.name]


@pytest.mark.parametrize("kind", NETWORKS)
def test_mutants_of_normalised_networks_are_refuted(kind: str) -> None:
    trials = self_test(claims_on(NETWORKS[kind]), threads=1)
    assert [(t.result.name, t.name) for t in trials if not t.passed] == []
    assert {t.name for t in trials if t.planted} > {"the normalised square off by thirty margins"}


def test_the_knob_is_one_that_moves_something() -> None:
    """σ_w² scales everything in a plain network: the lengths' gains stay."""
    (length,) = (c for c in claims_on(NETWORKS["plain"]) if c.name == "network.length")
    (found,) = sensitivities([length], threads=1)
    assert found.of == "the normalised square"
    assert found.caught is not None
    assert found.caught < 0.2


def test_one_prediction_serves_all_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, real = [], generic.propagate

    def counted(net: Network, x: np.ndarray) -> generic.Prediction:
        calls.append(net)
        return real(net, x)

    monkeypatch.setattr(generic, "propagate", counted)
    claims = claims_on(NETWORKS["plain"])
    for c in claims * 2:
        c.predict(c.networks(WIDTH), X)
    assert len(calls) == 1


# ---- the batch norms made wrong ---------------------------------------------------------------------------


def test_wrong_batch_norms_are_wrong_in_what_they_say() -> None:
    net = Network([Dense(4, 5), BatchNorm(), Dense(5, 5)])
    rng = np.random.default_rng(1)
    h, d = 1.0 + rng.standard_normal((1, 6, 5)), rng.standard_normal((1, 2, 6, 5))
    engine = choose_engine("explicit", "auto", "float64")[0]

    def through(change) -> tuple[np.ndarray, np.ndarray]:
        layer = change(net).layers[1]
        y, saved = layer.forward(engine, h, Site(0, 0, 0, 1))
        return np.asarray(y), np.asarray(layer.tangent(engine, saved, d))

    right, slope = through(lambda net: net)
    sd = h.std(axis=1, keepdims=True)
    y, dy = through(wrong_norms.detached)
    assert y == pytest.approx(right)
    assert dy == pytest.approx(d / sd[:, None], rel=1e-12)
    y, dy = through(wrong_norms.uncentred)
    assert (y**2).mean(axis=1) == pytest.approx(1.0)
    assert np.abs(y.mean(axis=1)).max() > 0.3
    step = 1e-6 * d[:, 0]
    moved = (h + step) / np.sqrt(((h + step) ** 2).mean(axis=1, keepdims=True)) - y
    assert dy[:, 0] == pytest.approx(moved / 1e-6, abs=1e-4)
    y, dy = through(wrong_norms.sample_variance(6))
    assert y == pytest.approx((h - h.mean(axis=1, keepdims=True)) / h.std(axis=1, keepdims=True, ddof=1))
    assert dy == pytest.approx(slope * np.sqrt(5 / 6))
    assert not wrong_norms.are_in(wrong_norms.left_out(net))
