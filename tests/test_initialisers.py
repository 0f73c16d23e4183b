"""The table of named initialisers: against the libraries in tests/test_check_sampler.py, by hand here."""

from __future__ import annotations

import pytest

from mcverify import initialisers
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
