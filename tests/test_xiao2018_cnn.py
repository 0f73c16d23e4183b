"""What the claims on deep networks rest on, by theory or in few layers; their verdicts are tests/test_claims.py's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import mcverify as mv
from mcverify.claims import experiment, mutations
from mcverify.claims.claim import Mutant
from mcverify.claims.xiao2018_cnn import whole_depth
from mcverify.claims.xiao2018_cnn.figure_1c import DEPTH_1C, FIGURE_1C, STRETCHES, SURVIVAL, TRAINED, shares_1c


def test_six_depth_scales_sort_the_figure():
    """As printed in the figure: depth 1003 is below 6ξ_c where networks trained; ξ_c at c*, far from 1 in chaos."""
    scales = [6 * mv.phase("tanh", s, 2e-5).xi_c for s in FIGURE_1C]
    assert tuple(scale > DEPTH_1C for scale in scales) == TRAINED
    np.testing.assert_allclose(scales[4:7], [3872.46, 1985.37, 1253.19], rtol=1e-5)
    np.testing.assert_allclose(shares_1c(), DEPTH_1C / (DEPTH_1C + np.array(scales)), rtol=1e-6)


@pytest.mark.parametrize(("stretch", "claim", "share"), list(zip(STRETCHES, SURVIVAL, shares_1c(), strict=True)))
def test_what_survives_a_stretch_tells_the_side_of_the_figure(stretch, claim, share):
    """A few layers about c* decay at ξ_c's own rate to 0.0025 of the share, but at the critical point, where they must
    be faster; and the margin leaves the prediction on its side."""
    net = claim.networks(stretch.channels)
    (found,) = claim.predict(net, claim.inputs(net))
    assert (found < 0.5) == (share < 0.5)
    assert stretch.margin < abs(found - 0.5)
    (rival,) = claim.rival.predict(net, claim.inputs(net))
    assert (rival < 0.5) != (share < 0.5), "a rival that sorts as the figure does"
    assert share < found if stretch.sigma_w2 == 1.05 else abs(found - share) < 0.0025


# ---- whole depth --------------------------------------------------------------------------------------


def _rows(monkeypatch, mutant=None):
    """Stretches of twelve-layer networks, (network, stretch, 2)."""
    monkeypatch.setattr(whole_depth, "_DEPTH", 12)
    monkeypatch.setattr(whole_depth, "_ENDS", np.array([0, 4, 11]))
    monkeypatch.setattr(whole_depth, "_LOOKED_AT", 2)
    claim = replace(whole_depth.WHOLE_DEPTH, stretches=2)
    rows = []
    sample = experiment.Sample([claim], experiment.Run(1), "main", mutant, lambda claim, width, v: rows.append(v))
    experiment.extend(sample, {64: 600})
    return np.concatenate(rows).reshape(-1, 2, 2)


def test_gains_fluctuate_by_their_gradients_own_modes(monkeypatch):
    """√|log r| has the mean of a Gaussian's of variance 2ρ/c, here of ρ from 1/64 on; and varies by √(2/π)/m² − 1 of
    its mean m, in two layers of each row."""
    rows, mean = _rows(monkeypatch)[..., 0], 0.822179
    variance = (np.sqrt(2 / np.pi) / mean**2 - 1) / (2 * rows.size)
    assert rows.mean() == pytest.approx(1.0, abs=5 * np.sqrt(variance) + 0.01)
    still = _rows(monkeypatch, Mutant("", mutations.weights("delta_orthogonal")))[..., 0]
    assert still.mean() < 0.6


def test_stretches_add_up_to_whole_networks(monkeypatch):
    """Gradients of 64 channels hardly lose or gain in eleven layers; with σ_w² halved they lose log 2 in each."""
    whole = _rows(monkeypatch)[..., 1].sum(axis=1)
    less = _rows(monkeypatch, Mutant("", mutations.weight_gain(0.5)))[..., 1].sum(axis=1)
    assert abs(whole.mean()) < 5 * whole.std() / np.sqrt(len(whole)) + 0.1
    assert less.mean() == pytest.approx(-11 * np.log(2), abs=0.7)  # and of what tanh took, 2q* a layer, some comes back


def test_quantiles_are_those_of_whole_networks():
    steps = np.arange(5.0)[:, None] * np.full((1, whole_depth._STRETCHES), 1 / whole_depth._STRETCHES)
    rows = np.stack([np.ones_like(steps), steps], axis=-1).reshape(-1, 2)
    told = whole_depth.WHOLE_DEPTH.told(rows)
    assert told.endswith("of 5 networks: mean 2.0, variance 2.5, quantiles 0.4, 2.0, 3.6 at 0.1, 0.5, 0.9")
