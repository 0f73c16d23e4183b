"""The initialiser is right, networks built with it behave as theory says, and nothing moved since the baseline."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from hypothesis import given, settings
from initialiser import he, lengths

import mcverify as mv
from mcverify.strategies import activations, networks, seed_of, with_inputs

NET = mv.load("net.toml")


def test_the_initialiser_has_its_law(mcverify):
    rng = mcverify.rng
    mcverify.sampler(lambda: he(64, 96, rng), "he_normal")


def test_the_network_behaves(mcverify):
    mcverify.network(NET, np.ones((1, 16)), margin=0.05)


def test_our_forward_pass_gives_its_lengths(mcverify):
    x, rng = np.ones((1, 16)), mcverify.rng
    measured = np.stack([lengths(x, [64, 64, 64], rng) for _ in range(600)])
    mcverify.samples(NET, {"length": measured}, x, margin=0.2)


@settings(max_examples=20, deadline=None)
@given(with_inputs(networks(activations=activations(homogeneous=True), sigma_b2=0.0, max_width=6)))
def test_scaling_an_input_scales_every_layer(case):
    net, x = case
    once, twice = (mv.simulate(net, s * x, samples=2, rng=seed_of(net, x)).q for s in (1, 2))
    np.testing.assert_allclose(twice, 4 * once, rtol=1e-6)


def test_nothing_moved_since_the_baseline():
    command = [sys.executable, "-m", "mcverify", "baseline", "compare", "net.toml", "--folder", "baselines"]
    compared = subprocess.run(command, capture_output=True, text=True, check=False)
    assert compared.returncode == 0, compared.stdout
