"""The table of named initialisers: against the libraries in tests/test_check_sampler.py, by hand here."""

from __future__ import annotations

import tomllib

import pytest

import mcverify as mv
from mcverify import initialisers, network_file
from mcverify.errors import InputError
from mcverify.initialisers import FAN_MODES, INITIALISERS, fan, initialiser
from mcverify.weights import LAWS


def test_every_row_names_a_law_and_a_fan_and_its_source():
    for name, row in INITIALISERS.items():
        assert row.name == name
        assert row.law in LAWS
        assert row.bias_law in ("zeros", *LAWS)
        assert (row.bias_law == "zeros") == (row.bias_variance == 0)
        assert row.fan_mode in FAN_MODES
        assert row.source


def test_fans_by_hand():
    assert [fan(m, 30, 50) for m in FAN_MODES] == [30, 50, 40, 50]
    with pytest.raises(InputError, match=r"fan_mode: got 'fan_inn'.*did you mean 'fan_in'"):
        fan("fan_inn", 3, 5)


def test_variances_in_the_packages_own_terms():
    he, glorot, linear = (initialiser(n) for n in ("he_normal", "glorot_uniform", "pytorch_linear"))
    assert initialisers.sigma_w2(he, 30, 50) == 2.0
    assert initialisers.sigma_w2(glorot, 30, 50) == pytest.approx(2 * 30 / 80)
    # uniform on ±1/√fan_in, weights and biases alike
    assert initialisers.sigma_w2(linear, 30, 50) / 30 == pytest.approx((1 / 30) / 3)
    assert initialisers.sigma_b2(linear, 30) == pytest.approx((1 / 30) / 3)
    assert initialisers.sigma_b2(he, 30) == 0.0


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(InputError, match=r"initialiser: got 'he_norml'.*did you mean 'he_normal'"):
        initialiser("he_norml")


def test_networks_are_made_by_an_initialiser_s_name():
    """Each map by its own fans: Glorot's first, of 30 inputs and 50 units, and its readout of 10."""
    net = mv.mlp(30, [50], "relu", initialiser="glorot_normal", readout=10)
    assert [net.random_map(i).sigma_w2 for i in net.maps] == pytest.approx([30 / 40, 50 / 30])
    torch = mv.mlp(30, [50], "relu", initialiser="pytorch_linear").random_map(0)
    assert (torch.sigma_w2, torch.sigma_b2, torch.law) == pytest.approx((1 / 3, 1 / 90, "uniform"))
    conv = mv.cnn((3, 8, 8), [4], "relu", initialiser="pytorch_conv", readout=2)
    assert conv.random_map(0).sigma_b2 == pytest.approx(1 / 3 / 27)  # a kernel of 3 × 3 taps and 3 channels
    assert conv.random_map(conv.maps[-1]).sigma_b2 == pytest.approx(1 / 3 / 4)
    text = "[network]\ninput_dim = 4\nwidths = [8]\nactivation = 'relu'\ninitialiser = 'he_uniform'\n"
    m = network_file.parse(tomllib.loads(text)).net.random_map(0)
    assert (m.sigma_w2, m.law) == (2.0, "uniform")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: mv.mlp(4, [8], "relu", 2.0, initialiser="he_normal"), "initialiser: got 'he_normal'; stands for"),
        (lambda: mv.mlp(4, [8], "relu", initialiser="he_norml"), "did you mean 'he_normal'"),
        (lambda: mv.cnn((1, 4), [2], "relu", initialiser="orthogonal"), "is of matrices"),
        (lambda: mv.cnn((1, 4), [2], "relu", initialiser="orthogonal_relu"), "is of matrices"),
    ],
)  # fmt: skip
def test_what_an_initialiser_cannot_stand_beside(make, words):
    with pytest.raises(InputError, match=words):
        make()


@pytest.mark.parametrize("beside", [{"sigma_w2": 1.0}, {"sigma_b2": 0.0}, {"weights": "gaussian"}])
@pytest.mark.parametrize(("make", "shape"), [(mv.mlp, (4, [8])), (mv.cnn, ((1, 4), [2]))])
def test_what_stands_beside_an_initialiser_is_refused_though_it_be_the_default(make, shape, beside):
    """Left out, each of them is the same network's as given; beside a name it is refused, in a file too."""
    assert make(*shape, "relu", **beside) == make(*shape, "relu")
    with pytest.raises(InputError, match=f"stands for sigma_w2, sigma_b2 and weights: leave out {next(iter(beside))}"):
        make(*shape, "relu", **beside, initialiser="he_normal")
    (key, value), name = next(iter(beside.items())), "initialiser = 'he_normal'"
    text = f"[network]\ninput_dim = 4\nwidths = [8]\nactivation = 'relu'\n{name}\n{key} = {value!r}\n"
    with pytest.raises(InputError, match=rf"network\.initialiser: got 'he_normal'; .* leave out {key}"):
        network_file.parse(tomllib.loads(text))
