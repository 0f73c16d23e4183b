"""The constructors of residual and batch-normalised networks: what they make, as text, and what they refuse."""

from __future__ import annotations

import tomllib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mcverify as mv
from mcverify.errors import InputError
from mcverify.network_file import dumps, parse

FACE = {name: getattr(mv, name) for name in mv.__all__}


def test_takis_block_has_its_activation_before_its_map():
    net = mv.resnet(8, 16, 2, "relu", 0.5, 0.1, "uniform", scale=0.7, sigma_in2=1.5)
    block = mv.Residual([mv.Activation("relu"), mv.Dense(16, 16, 0.5, 0.1, "uniform")], 0.7)
    assert net.layers == (mv.Dense(8, 16, 1.5, 0.0, "uniform"), block, block)


def test_yang_and_schoenholzs_block_has_two_maps_with_variances_of_their_own():
    net = mv.resnet(8, 16, 1, "tanh", 0.5, 0.1, sigma_v2=2.0, sigma_a2=0.3, readout=3, sigma_out2=0.9)
    branch = [mv.Dense(16, 16, 0.5, 0.1), mv.Activation("tanh"), mv.Dense(16, 16, 2.0, 0.3)]
    assert net.layers == (mv.Dense(8, 16), mv.Residual(branch), mv.Dense(16, 3, 0.9))


def test_an_activation_after_the_addition_is_a_layer_of_its_own():
    net = mv.resnet(8, 16, 2, "relu", order="post", scale=[0.5, 0.25])
    kinds = [type(v).__name__ for v in net.layers]
    assert kinds == ["Dense", "Residual", "Activation", "Residual", "Activation"]
    assert [v.scale for v in net.layers[1::2]] == [0.5, 0.25]
    assert net.layers[1].branch == (mv.Dense(16, 16),)
    assert np.isfinite(mv.simulate(net, np.ones((1, 8)), samples=4).length).all()


def test_batch_norm_stands_between_each_map_and_its_activation():
    net = mv.batchnorm_mlp(8, [16, 5], "relu", 2.0, 0.1, eps=1e-5, gain=0.9, shift=0.1, readout=3)
    norm = mv.BatchNorm(1e-5, 0.9, 0.1)
    hidden = [mv.Dense(8, 16, 2.0, 0.1), norm, mv.Activation("relu"), mv.Dense(16, 5, 2.0, 0.1), norm]
    assert net.layers == (*hidden, mv.Activation("relu"), mv.Dense(5, 3, 2.0, 0.1))


@given(
    st.booleans(), st.sampled_from(["pre", "post"]), st.sampled_from([0.5, [1.0, 0.5]]), st.sampled_from([None, 3]),
    st.booleans(),
)  # fmt: skip
def test_networks_are_read_back_from_their_text_and_their_repr(two_maps, order, scale, readout, normalised):
    more = {"sigma_v2": 0.7, "sigma_a2": 0.1} if two_maps else {}
    net = mv.resnet(4, 6, 2, "erf", 1.1, 0.2, order=order, scale=scale, readout=readout, **more)
    if normalised:
        net = mv.batchnorm_mlp(4, [6, 5], "erf", 1.1, 0.2, readout=readout)
    assert parse(tomllib.loads(dumps(net))).net.layers == net.layers
    assert eval(repr(net), FACE) == net


def test_network_tables():
    table = {"architecture": "resnet", "input_dim": 4, "width": 6, "depth": 3, "activation": "relu", "sigma_w2": 0.3}
    assert (
        parse({"network": table | {"scale": [1.0, 0.5, 0.2]}}).net.layers
        == mv.resnet(4, 6, 3, "relu", 0.3, scale=[1.0, 0.5, 0.2]).layers
    )
    assert (
        parse({"network": table | {"sigma_v2": 0.5}}).net.layers == mv.resnet(4, 6, 3, "relu", 0.3, sigma_v2=0.5).layers
    )
    normalised = table | {"architecture": "batchnorm_mlp"}
    assert parse({"network": normalised}).net.layers == mv.batchnorm_mlp(4, [6] * 3, "relu", 0.3).layers


BAD = [
    (lambda: mv.resnet(4, 6, 0, "relu"), "depth", "at least 1"),
    (lambda: mv.resnet(4, 0, 2, "relu"), "fan_in", "at least 1"),
    (lambda: mv.resnet(4, 6, 10**12, "relu"), "depth", "at most 100,000"),
    (lambda: mv.resnet(4, 6, 2, "relu", order=["pre"]), "order", "pre, post"),
    (lambda: mv.resnet(4, 6, 2, "relu", order="middle"), "order", "pre, post"),
    (lambda: mv.resnet(4, 6, 2, "relu", sigma_a2=0.1), "sigma_a2", "give sigma_v2"),
    (lambda: mv.resnet(4, 6, 2, "relu", scale=[1.0]), "scale", "a list of 2"),
    (lambda: mv.resnet(4, 6, 2, "relu", scale="half"), "scale", "a list of 2"),
    (lambda: mv.resnet(4, 6, 2, "relu", scale=0.0), "scale", "above 0"),
    (lambda: mv.resnet(4, 6, 2, "relu", readout=0), "fan_out", "at least 1"),
    (lambda: mv.batchnorm_mlp(4, [], "relu"), "widths", "at least one width"),
    (lambda: mv.batchnorm_mlp(4, [6], "relu", eps=-1), "eps", "at least 0"),
    (lambda: parse({"network": {"architecture": "resnet", "input_dim": 4, "widths": [4], "depth": 1}}),
     "network.widths", "unknown key"),
    (lambda: parse({"network": {"architecture": "resnet", "input_dim": 4, "width": 4, "activation": "relu"}}),
     "network.depth", "is required"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "field", "allowed"), BAD)
def test_bad_input_gets_one_line(make, field, allowed):
    with pytest.raises(InputError) as error:
        make()
    assert error.value.field == field
    assert allowed in str(error.value)
