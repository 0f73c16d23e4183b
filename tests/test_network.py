"""Networks: shapes, constructors, description, and files in and out."""

from __future__ import annotations

import tomllib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import mcverify as mv
from mcverify import inputs, network_file
from mcverify.errors import InputError
from mcverify.network import describe
from mcverify.strategies import networks


def test_mlp_puts_the_activation_after_every_width():
    net = mv.mlp(8, [16, 4], "tanh", 1.5, 0.05)
    assert [type(v).__name__ for v in net.layers] == ["Dense", "Activation", "Dense", "Activation"]
    assert net.shapes == [(8,), (16,), (16,), (4,), (4,)]
    assert net.widths == [16, 4]
    assert net.end == 3  # the cotangent sits on the last map's output


def test_dropout_masks_hidden_units_and_not_the_input():
    net = mv.mlp(8, [16, 16], "tanh", keep=0.5, readout=3)
    assert [type(v).__name__ for v in net.layers] == [
        "Dense", "Activation", "Dropout", "Dense", "Activation", "Dropout", "Dense",
    ]  # fmt: skip


def test_scaled_keeps_the_input():
    net = mv.mlp(8, [16, 4], "relu", 2.0).scaled(3)
    assert net.widths == [48, 12]
    assert net.input_dim == 8


@pytest.mark.parametrize(
    ("net", "text"),
    [
        (mv.mlp(4, [8] * 3, "relu", 2.0), "4 → 3 × (dense 8 σ_w²=2 σ_b²=0 gaussian, relu)"),
        (
            mv.mlp(4, [8, 6] * 2, "relu", 2.0),
            "4 → 2 × ((dense 8 σ_w²=2 σ_b²=0 gaussian, relu) → (dense 6 σ_w²=2 σ_b²=0 gaussian, relu))",
        ),
        (mv.mlp(4, [8], "erf"), "4 → (dense 8 σ_w²=1 σ_b²=0 gaussian, erf)"),
    ],
)
def test_describe_counts_repeats(net, text):
    assert describe(net) == text


BAD = [
    (lambda: mv.mlp(0, [4], "tanh"), "input_dim", "whole number"),
    (lambda: mv.mlp(4, [], "tanh"), "widths", "at least one width"),
    (lambda: mv.mlp(4, "44", "tanh"), "widths", "list"),
    (lambda: mv.mlp(4, [4, 0], "tanh"), "widths[1]", "at least 1"),
    (lambda: mv.mlp(4, [4.5], "tanh"), "widths[0]", "whole number"),
    (lambda: mv.mlp(4, [True], "tanh"), "widths[0]", "whole number"),
    (lambda: mv.mlp(4, [4], "tahn"), "activation", "'tanh'"),
    (lambda: mv.mlp(4, [4], "tanh", -1.0), "sigma_w2", "at least 0"),
    (lambda: mv.mlp(4, [4], "tanh", float("nan")), "sigma_w2", "finite"),
    (lambda: mv.mlp(4, [4], "tanh", 1.0, float("inf")), "sigma_b2", "finite"),
    (lambda: mv.mlp(4, [4], "tanh", weights="gausian"), "weights", "'gaussian'"),
    (lambda: mv.mlp(4, [4], "tanh", keep=0.0), "keep", "(0, 1]"),
    (lambda: mv.mlp(4, [4], "tanh", keep=1.5), "keep", "(0, 1]"),
    (lambda: mv.mlp(4, [4], "tanh", readout=0), "readout", "at least 1"),
    (lambda: mv.Network([]), "layers", "Dense"),
    (lambda: mv.Network([mv.Activation("tanh")]), "layers", "Dense"),
    (lambda: mv.Network([mv.Dense(4, 5), mv.Dense(4, 5)]), "fan_in", "must match"),
    (lambda: mv.Network([mv.Dense(4, 5), "tanh"]), "layers[1]", "layer"),
    (lambda: inputs.checked([[1.0, np.nan]], (2,)), "x[0, 1]", "finite"),
    (lambda: inputs.checked([1.0, 2.0], (2,)), "x", "shape"),
    (lambda: inputs.checked([["a"]], (1,)), "x", "numbers"),
    (lambda: inputs.with_gram([[1.0, 2.0], [2.0, 1.0]], 4), "gram", "semidefinite"),
    (lambda: inputs.with_gram([[1.0, 0.5]], 4), "gram", "symmetric"),
    (lambda: inputs.with_gram([[1.0, 0.5], [0.5]], 4), "gram", "numbers"),
    (lambda: inputs.with_gram([], 4), "gram", "symmetric"),
    (lambda: inputs.checked([[1j]], (1,)), "x", "numbers"),
    (lambda: mv.predict(mv.mlp(1, [4], "tanh"), [[1.0]], cotangent=[[1.0], [1.0, 2.0]]), "cotangent", "array"),
    (lambda: mv.predict(mv.mlp(1, [4], "tanh"), [[1.0]], cotangent=np.ones((1, 3))), "cotangent", "(1, 4)"),
    (lambda: mv.verify(5), "what", "Network"),
    (lambda: inputs.with_gram(np.eye(3), 2), "gram", "rank"),
    (lambda: inputs.digits(10**6), "digits", "at most"),
    (lambda: mv.mlp(4, [4], "tanh", weights=["gaussian"]), "weights", "allowed"),
    (lambda: mv.mlp(4, [10**400], "tanh"), "widths[0]", "whole number"),
    (lambda: mv.mlp(4, [4], "tanh", shared_masks="yes"), "shared_masks", "true or false"),
    (lambda: mv.predict("net.toml", [[1.0]]), "net", "must be a Network"),
    (lambda: mv.predict(mv.mlp(1, [4], "tanh"), [[1.0]], order=np.ones(2)), "order", "allowed"),
    (lambda: mv.simulate("net.toml", [[1.0]]), "net", "must be a Network"),
    (lambda: mv.validity("net.toml"), "net", "must be a Network"),
    (lambda: mv.length_law("net.toml"), "net", "must be a Network"),
    (lambda: mv.gradient_law("net.toml"), "net", "must be a Network"),
    (lambda: mv.jacobian_moments("net.toml"), "net", "must be a Network"),
    (lambda: mv.simulate_jacobian_moments("net.toml", [[1.0]]), "net", "must be a Network"),
]


@pytest.mark.parametrize(("make", "field", "words"), BAD, ids=range(len(BAD)))
def test_bad_input_is_one_line_naming_field_and_range(make, field, words):
    with pytest.raises(InputError) as caught:
        make()
    assert caught.value.field == field
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numpy_numbers_are_numbers():
    assert mv.mlp(4, [4, 4], "tanh", keep=np.float32(0.5), readout=2) == mv.mlp(4, [4, 4], "tanh", keep=0.5, readout=2)


@given(arrays(float, st.tuples(st.integers(1, 5), st.just(3)), elements=st.floats(-1e3, 1e3)), st.integers(5, 40))
def test_with_gram_has_that_gram(root, dim):
    gram = root @ root.T
    x = inputs.with_gram(gram, dim)
    np.testing.assert_allclose(x @ x.T / dim, gram, atol=1e-10 * max(1.0, np.abs(gram).max()))


def test_digits_are_standardised():
    x = inputs.digits(5)
    assert x.shape == (5, 64)
    np.testing.assert_allclose((x**2).mean(axis=1), 1.0)


# ---- files --------------------------------------------------------------------------------------------

MLP = """
[network]
input_dim = 8
width = 16
depth = 3
activation = "leaky_relu(0.2)"
sigma_w2 = 1.5
keep = 0.9

[inputs]
gram = [[2.0]]

[verify]
margin = 0.02
"""


def read(text: str, tmp_path):
    path = tmp_path / "net.toml"
    path.write_text(text, encoding="utf-8")
    return network_file.read(path)


def test_network_table(tmp_path):
    given = read(MLP, tmp_path)
    assert given.net == mv.Network(mv.mlp(8, [16] * 3, "leaky_relu(0.2)", 1.5, keep=0.9).layers, "net")
    assert given.margin == 0.02
    np.testing.assert_allclose(given.x @ given.x.T / 8, [[2.0]])


def test_written_layers_are_read_back(tmp_path):
    net = mv.mlp(8, [16, 5], "elu", 1.5, 0.1, "uniform", keep=0.5, readout=2)
    assert read(network_file.dumps(net), tmp_path).net.layers == net.layers


FACE = {name: getattr(mv, name) for name in mv.__all__}


@given(networks())
def test_every_network_is_read_back_from_its_text_and_its_repr(net):
    assert network_file.parse(tomllib.loads(network_file.dumps(net))).net.layers == net.layers
    assert eval(repr(net), FACE) == net
    assert "\n" not in repr(net)


def test_the_repr_of_what_mlp_does_not_make():
    net = mv.Network([mv.Dense(4, 3), mv.Activation("tanh"), mv.Dropout(0.5), mv.Activation("relu")], "odd")
    assert eval(repr(net), FACE) == net
    assert repr(net).startswith("Network([Dense(fan_in=4, fan_out=3,")
    linear = mv.Network([mv.Dense(4, 3)])
    assert eval(repr(linear), FACE) == linear


def test_custom_activations_are_not_written():
    phi = mv.custom_activation("cubic", lambda u: u**3, lambda u: 3 * u**2)
    with pytest.raises(InputError, match="custom"):
        network_file.dumps(mv.mlp(4, [4], phi))


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ("[network]\ninput_dim=4\nwidths=[4]\nactivaton='tanh'", "network.activaton", "did you mean 'activation'"),
        ("[network]\nwidths=[4]\nactivation='tanh'", "network.input_dim", "required"),
        ("[network]\ninput_dim=4\nwidths=[4]\nwidth=4\ndepth=1\nactivation='tanh'", "network.widths", "either"),
        ("[network]\ninput_dim=4\nwidth=4\nactivation='tanh'", "network.depth", "required"),
        ("[network]\ninput_dim=4\nwidths=[-4]\nactivation='tanh'", "network.widths[0]", "at least 1"),
        ("[network]\narchitecture='cn'", "network.architecture", "'cnn'"),
        ("[netwrk]\n", "netwrk", "did you mean 'network'"),
        ("[verify]\nmargin=1\n", "file", "either"),
        ("network = 3", "network", "table"),
        ("layer = 3", "layer", "list"),
        ("[network]\ninput_dim=4\nwidth=4\ndepth=1000000000000\nactivation='tanh'", "network.depth", "at most 100,000"),
        ("[[layer]]\ntype='dens'", "layer[0].type", "did you mean 'dense'"),
        ("[[layer]]\ntype='dense'\nfan_in=4", "layer[0].fan_out", "required"),
        ("[[layer]]\ntype='dense'\nfan_in=4\nfan_out='a'", "layer[0].fan_out", "whole number"),
        ("[[layer]]\ntype='dense'\nfan_in=4\nfan_out=4\nsigma=1", "layer[0].sigma", "did you mean"),
        (MLP.replace("0.02", "0"), "verify.margin", "(0, 1]"),
        (MLP.replace("0.02", "0.02\nmargin_in_all = 0"), "verify.margin_in_all", "above 0"),
        (MLP.replace("0.02", "0.02\nmargin_in_al = 1"), "verify.margin_in_al", "did you mean 'margin_in_all'"),
        (MLP.replace("[[2.0]]", "[[-2.0]]"), "inputs.gram", "semidefinite"),
        (MLP.replace("gram = [[2.0]]", "digits = 2"), "network's input", "64"),
        (MLP.replace("gram = [[2.0]]", "values = [[1.0]]"), "inputs.x", "shape"),
        (MLP.replace("gram = [[2.0]]", "gramm = [[1.0]]"), "inputs.gramm", "did you mean 'gram'"),
        ("[network", "file", "TOML"),
    ],
)
def test_bad_files_name_the_key(text, field, words, tmp_path):
    with pytest.raises(InputError) as caught:
        read(text, tmp_path)
    assert caught.value.field == field
    assert words in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        network_file.read(tmp_path / "none.toml")
