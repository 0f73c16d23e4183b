"""The strategies: what they draw, what they shrink to, and that a property test on them finds an error."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st

import mcverify as mv
from mcverify import strategies
from mcverify.activations import activation, names
from mcverify.errors import InputError
from mcverify.network import Network, mlp
from mcverify.strategies import (
    KINDS,
    activations,
    grams,
    inputs,
    kinds,
    networks,
    seed_of,
    sigma_b2,
    sigma_w2,
    sites,
    vectors,
    weight_laws,
    width,
    widths,
    with_inputs,
)
from mcverify.streams import stream_key
from mcverify.weights import LAWS


def drawn(strategy, examples=300):
    """What a strategy gives in so many examples."""
    seen = []

    @settings(max_examples=examples, database=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def collect(value):
        seen.append(value)

    collect()
    return seen


def simplest(strategy, condition=lambda value: True):
    return find(strategy, condition, settings=settings(database=None, max_examples=1000))


# ---- shrinking --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "least"),
    [
        (width(), "1"),
        (width(3, 100), "3"),
        (widths(), "[1]"),
        (widths(2, 3, 5, 9, square=True), "[5, 5]"),
        (sigma_w2(), "1.0"),
        (sigma_w2(1.5, 3.0), "1.5"),
        (sigma_b2(), "0.0"),
        (sigma_b2(none=False), "1.0"),
        (activations(), "'linear'"),
        (activations(homogeneous=False), "'erf'"),
        (weight_laws(), "'gaussian'"),
        (kinds(), "'generic'"),
        (networks(), "mlp(1, [1], 'linear')"),
        (networks(readout=True, keep=0.5), "mlp(1, [1], 'linear', keep=0.5, readout=1)"),
        (networks(min_depth=2, min_width=3, square=True), "mlp(3, [3, 3], 'linear')"),
        (grams(), "array([[1.]])"),
        (inputs(1, gram=grams()), "array([[1.]])"),
        (sites(), "Site(key=0, layer=0, start=0, count=0)"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_everything_shrinks_to_the_simplest(strategy, least):
    assert repr(simplest(strategy)) == least


@pytest.mark.parametrize(
    ("condition", "least"),
    [
        (lambda net: len(net.maps) > 2, "mlp(1, [1, 1, 1], 'linear')"),
        (lambda net: net.input_dim > 4, "mlp(5, [1], 'linear')"),
        (lambda net: activation_of(net).kinks, "mlp(1, [1], 'relu')"),
        (lambda net: activation_of(net).name.startswith("leaky"), "mlp(1, [1], 'leaky_relu(0.01)')"),
        (lambda net: net.random_map(0).sigma_w2 > 2, "mlp(1, [1], 'linear', sigma_w2=3.0)"),
        (lambda net: net.random_map(0).sigma_b2 > 0, "mlp(1, [1], 'linear', sigma_b2=1.0)"),
        (lambda net: net.random_map(0).law == "orthogonal", "mlp(1, [1], 'linear', weights='orthogonal')"),
        (lambda net: mv.Dropout(0.5) in net.layers, "mlp(1, [1, 1], 'linear', keep=0.5)"),
    ],
)
def test_a_network_keeps_only_what_matters(condition, least):
    """Shrinking ends at the least network that has the property, in its shortest form."""
    least_net = simplest(networks(readout=False), condition)
    assert repr(least_net) == least


def activation_of(net):
    return net.layers[1].phi


def test_inputs_shrink_with_their_network():
    net, x = simplest(with_inputs(networks()), lambda case: len(case[0].maps) > 1 and len(case[1]) > 1)
    assert net == mlp(1, [1], "linear", readout=1) or net == mlp(1, [1, 1], "linear")
    assert np.array_equal(x, vectors("generic", 2, 1))


# ---- what is drawn ----------------------------------------------------------------------------------------


def test_every_activation_law_and_kind_is_drawn():
    seen = drawn(networks(), 500)
    assert {activation_of(net).name.partition("(")[0] for net in seen} == set(names())
    assert {net.random_map(0).law for net in seen} == set(LAWS)
    assert {len(net.layers) for net in seen} >= set(range(2, 10))
    assert {net.input_dim for net in seen} | {n for net in seen for n in net.widths} == set(range(1, 17))
    for feature in (
        lambda net: net.random_map(0).sigma_b2 > 0,
        lambda net: isinstance(net.layers[-1], mv.Dense),
        lambda net: any(isinstance(v, mv.Dropout) for v in net.layers),
        lambda net: len(set(net.widths)) > 1,
    ):
        share = np.mean([feature(net) for net in seen])
        assert 0.1 < share < 0.9
    assert set(drawn(kinds())) == set(KINDS)


def test_every_family_is_drawn_with_parameters():
    for family in (n for n in names() if activation(n).name != n):
        assert len(set(drawn(activations([family])))) >= 15


def test_wide_networks_are_drawn_and_narrow_ones_most():
    sizes = np.array(drawn(widths(8, 8, max_width=1000)))
    assert 0.4 < np.mean(sizes <= 6) < 0.9
    assert sizes.max() > 500


@pytest.mark.parametrize(
    ("filters", "some", "none"),
    [
        ({"smooth": True}, ["linear", "tanh", "gelu"], ["relu", "elu(1)", "sign"]),
        ({"homogeneous": True}, ["linear", "relu", "leaky_relu(0.01)"], ["tanh", "elu(1)"]),
        ({"homogeneous": False, "smooth": False}, ["hard_tanh", "sign"], ["relu", "tanh"]),
        ({"bounded": True, "continuous": True}, ["tanh", "hard_tanh"], ["sign", "relu"]),
        ({"names": ["tanh", "elu(0.4)"]}, ["tanh", "elu(0.4)"], ["elu(1)"]),
    ],
    ids=str,
)
def test_filters_keep_what_was_asked_for(filters, some, none):
    seen = set(drawn(activations(**filters)))
    assert set(some) <= seen
    assert not set(none) & seen
    for row in map(activation, seen):
        assert filters.get("smooth") in (None, not row.kinks)
        assert filters.get("homogeneous") in (None, row.slopes is not None)
        assert filters.get("bounded") in (None, row.bounded)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_inputs_is_what_it_says(kind):
    for x in drawn(inputs(3, min_inputs=2, kinds=[kind]), 30):
        first, second = x[:2]
        distance = np.linalg.norm(second - first)
        assert {
            "generic": np.linalg.matrix_rank(x) == min(3, len(x)),
            "scaled": np.isfinite(x).all(),
            "zero": not second.any() and first.any(),
            "repeated": distance == 0,
            "parallel": np.allclose(second, -0.3 * first, rtol=1e-14),
            "near": 0 < distance < 1e-5,
            "crowded": np.linalg.matrix_rank(x, tol=1e-12 * np.abs(x).max()) <= 2,
        }[kind]
    sizes = np.linalg.norm(vectors("scaled", 100, 20), axis=1)
    assert sizes.max() > 1e5 * sizes.min()


@given(inputs(4))
def test_inputs_are_printed_in_full(x):
    assert np.array_equal(eval(repr(x), {"array": np.array}), x)


def test_inputs_may_outnumber_the_dimensions():
    assert any(len(x) > net.input_dim for net, x in drawn(with_inputs(networks()), 50))


@given(grams(max_inputs=5, max_rank=3))
def test_grams_are_gram_matrices(gram):
    assert np.array_equal(gram, gram.T)
    assert np.linalg.eigvalsh(gram).min() > -1e-14
    assert np.linalg.matrix_rank(gram, tol=1e-12) <= 3
    assert np.abs(gram).max() <= 4 + 1e-12


def test_grams_are_of_every_kind():
    pairs = [g for g in drawn(grams(2, 2)) if g.all()]
    c = np.array([g[0, 1] / np.sqrt(g[0, 0] * g[1, 1]) for g in pairs])
    assert (c > 0.9999999).any()
    assert (c < -0.9999999).any()
    assert ((c > 0.99) & (c < 1 - 1e-8)).any()
    assert (np.abs(c) < 0.9).any()
    assert any(not g.all() for g in drawn(grams(2, 2)))


@given(st.data(), networks(min_width=2))
def test_inputs_have_the_gram_matrix_asked_for(data, net):
    gram = [[1.0, 0.5], [0.5, 0.25]]
    x = data.draw(inputs(net, gram=gram))
    np.testing.assert_allclose(x @ x.T / net.input_dim, gram, atol=1e-13)


@settings(max_examples=150)
@given(with_inputs(networks()))
def test_every_network_can_be_simulated_and_predicted_or_refused(case):
    net, x = case
    run = mv.simulate(net, x, samples=2, rng=seed_of(net, x))
    assert run.attrs["nonfinite"] == 0
    try:
        p = mv.predict(net, x)
    except mv.Unpredictable:
        return
    assert p.q.shape == run.q.shape
    assert np.isfinite(p.q).all()


# ---- seeds ------------------------------------------------------------------------------------------------


def test_a_seed_is_that_of_its_configuration():
    net, x = mlp(2, [3], "relu"), np.array([[1.0, 2.0]])
    assert seed_of(net, x) == seed_of(mlp(2, [3], "relu"), x.copy())
    assert seed_of("a", 1) == stream_key(0, "('a', 1)", "")  # text alone: the same on every machine
    others = [
        seed_of(net),
        seed_of(net, x, purpose="inputs"),
        seed_of(net, x + 1e-15),
        seed_of(replace(net, name="n"), x),
    ]
    assert len({seed_of(net, x), *others}) == 5


def test_a_seed_sees_every_digit_of_a_large_array_whatever_is_printed():
    x = np.zeros(5000)
    y = x.copy()
    y[2500] = 1e-12
    with np.printoptions(precision=2, threshold=5):
        assert seed_of(x) != seed_of(y)
        short = seed_of(y)
    assert short == seed_of(y)


def test_what_has_no_name_gives_no_seed():
    with pytest.raises(InputError, match="address in memory"):
        seed_of(lambda u: u)


def test_seeds_of_many_configurations_are_uniform():
    """Each of 16 top values as often as chance has it: χ² with 15 degrees, p > 1e-9 at a fixed set of 4,000."""
    counts = Counter(seed_of(n) >> 60 for n in range(4000))
    assert sum((counts[k] - 250) ** 2 / 250 for k in range(16)) < 75


# ---- a planted error --------------------------------------------------------------------------------------


def doubled(net: Network) -> Network:
    """Meant to double the output of a homogeneous network. It forgets that biases must grow too, and that every
    layer's factor multiplies."""
    return net.map_layers(lambda i, v: replace(v, sigma_w2=4 * v.sigma_w2) if isinstance(v, mv.Dense) else v)


def falsified(strategy):
    """What Hypothesis says of `doubled` on such networks; "" where it finds nothing."""

    @settings(database=None)
    @given(net=strategy)
    def the_output_doubles(net):
        x = np.ones((1, net.input_dim))
        q, four_q = (mv.predict(n, x).q.values[-1] for n in (net, doubled(net)))
        np.testing.assert_allclose(four_q, 4 * q, rtol=1e-9)

    try:
        the_output_doubles()
    except AssertionError as error:
        return "\n".join(error.__notes__)
    return ""


@pytest.mark.parametrize(
    ("options", "least"),
    [
        ({"max_depth": 1, "readout": False}, "net=mlp(1, [1], 'linear', sigma_b2=1.0)"),
        ({"sigma_b2": 0.0, "readout": False}, "net=mlp(1, [1, 1], 'linear')"),
    ],
)
def test_a_wrong_transformation_is_found_and_told_in_one_line(options, least):
    assert least in falsified(networks(activations=activations(homogeneous=True), **options))


def test_where_the_transformation_is_right_nothing_is_found():
    assert (
        falsified(networks(activations=activations(homogeneous=True), max_depth=1, readout=False, sigma_b2=0.0)) == ""
    )


# ---- options and the package ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "field", "words"),
    [
        (lambda: width(0), "min_width", "at least 1"),
        (lambda: width(4, 3), "max_width", "at least min_width = 4"),
        (lambda: widths(3, 2), "max_depth", "at least min_depth = 3"),
        (lambda: widths(1, 2.5), "max_depth", "whole number"),
        (lambda: sigma_w2(2.0, 1.0), "sigma_w2 max_value", "at least min_value = 2.0"),
        (lambda: sigma_b2(-1.0), "sigma_b2 min_value", "at least 0"),
        (lambda: activations(["tahn"]), "activations", "did you mean 'tanh'"),
        (lambda: activations(["relu(2)"]), "activation", "takes no parameter"),
        (lambda: activations([]), "activations", "one or more"),
        (lambda: activations("tanh"), "activations", "must be a list"),
        (lambda: activations(["tanh"], smooth=False), "activations", "no activation"),
        (lambda: weight_laws(["gausian"]), "weight_laws", "did you mean 'gaussian'"),
        (lambda: weight_laws(["gaussian"], independent=False), "weight_laws", "no law"),
        (lambda: kinds(["paralel"]), "kinds", "did you mean 'parallel'"),
        (lambda: networks(activations="tahn"), "activations", "did you mean 'tanh'"),
        (lambda: networks(laws=["gaussian", "cauchy"]), "weight_laws", "allowed: gaussian"),
        (lambda: networks(min_depth=5), "max_depth", "at least min_depth = 5"),
        (lambda: networks(max_depth=0), "max_depth", "at least 1"),
        (lambda: networks(min_width=3, max_width=2), "max_width", "at least min_width = 3"),
        (lambda: networks(sigma_w2=-1.0), "sigma_w2", "at least 0"),
        (lambda: networks(sigma_b2="no"), "sigma_b2", "finite"),
        (lambda: networks(keep=0.0), "keep", "(0, 1]"),
        (lambda: inputs(0), "input_dim", "at least 1"),
        (lambda: inputs(3, min_inputs=9), "max_inputs", "at least min_inputs = 9"),
        (lambda: inputs(3, gram=np.eye(2), kinds="zero"), "gram", "either"),
        (lambda: inputs(1, gram=np.eye(2)), "gram", "rank"),
        (lambda: with_inputs(5), "nets", "such as networks()"),
        (lambda: with_inputs(mv.mlp(1, [1], "linear")), "nets", "such as networks()"),
        (lambda: with_inputs(networks(), kinds=["none"]), "kinds", "allowed"),
        (lambda: with_inputs(networks(), gram=[[-1.0]]), "gram", "semidefinite"),
        (lambda: vectors("paralel", 2, 3), "kind", "did you mean 'parallel'"),
        (lambda: grams(3, 2), "max_inputs", "at least min_inputs = 3"),
        (lambda: grams(max_rank=0), "max_rank", "at least 1"),
        (lambda: sites(-1), "max_count", "at least 0"),
    ],
)
def test_bad_options_are_told_when_the_strategy_is_made(make, field, words):
    with pytest.raises(InputError) as caught:
        make()
    assert caught.value.field == field
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


WITHOUT_HYPOTHESIS = """
import sys, pkgutil, importlib
sys.modules["hypothesis"] = None
import mcverify
for module in pkgutil.walk_packages(mcverify.__path__, "mcverify."):
    if module.name not in ("mcverify.strategies", "mcverify.__main__"):
        importlib.import_module(module.name)
try:
    mcverify.strategies
except ImportError as error:
    print(error)
"""


def test_the_package_does_without_hypothesis_and_its_absence_is_told_in_one_line():
    run = subprocess.run([sys.executable, "-c", WITHOUT_HYPOTHESIS], capture_output=True, text=True, check=True)
    assert run.stdout == "mcverify.strategies needs Hypothesis: pip install 'mcverify[hypothesis]'\n"


def test_it_is_a_lazy_submodule():
    assert mv.strategies is strategies
    there = "print('hypothesis' in sys.modules)"
    code = f"import sys, mcverify; {there}; mcverify.strategies; {there}"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\nTrue\n"


@given(strategies.with_inputs(strategies.convolutional_networks(max_depth=2)))
def test_inputs_of_convolutional_networks_have_positions(drawn):
    net, x = drawn
    assert x.shape[1:] == (net.input_shape[-1], *net.input_shape[:-1])
