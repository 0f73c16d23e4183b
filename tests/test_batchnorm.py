"""Batch and layer normalisation: the layers against the definition, predictions against sampled networks.

Scores must stay below 5, which a normal score leaves with probability 6e-7: those of the file together do with less
than 1e-3. Where a prediction is a limit the widths are such that its error, O(1/width), is below what the replicates
can see, or an allowance for it is stated.
"""

from __future__ import annotations

import math
import tomllib

import numpy as np
import pytest

import mcverify as mv
from mcverify import Activation, BatchNorm, Convolution, Dense, LayerNorm, Network, Residual, network_file
from mcverify.errors import InputError, Unpredictable
from mcverify.expectations import batch, batch_gaussian, sphere
from mcverify.inputs import with_gram
from mcverify.kernels import cpu
from mcverify.layers.layer import Grad, State
from mcverify.network import describe
from mcverify.random_map import explicit
from mcverify.streams import Site

SCORE = 5.0
SITE = Site(0, 0, 0, 1)
ENGINE = explicit.engine(cpu, np.dtype(np.float64))
NORMS = [BatchNorm(), BatchNorm(0.3, 1.7, -0.4), LayerNorm(), LayerNorm(0.3, 1.7, -0.4)]


def normalised(layer, h: np.ndarray) -> np.ndarray:
    """The definition, for h (column, units), unit by unit or column by column."""
    out = np.empty_like(h)
    lines = [(slice(None), i) for i in range(h.shape[1])]
    if isinstance(layer, LayerNorm):
        lines = [(a, slice(None)) for a in range(h.shape[0])]
    for line in lines:
        v = h[line]
        mean = sum(v) / len(v)
        var = sum((e - mean) ** 2 for e in v) / len(v)
        out[line] = [layer.gain * (e - mean) / math.sqrt(var + layer.eps) + layer.shift for e in v]
    return out


def jacobian(layer, h: np.ndarray) -> np.ndarray:
    """∂y/∂h of the definition, (column·units, column·units), by central differences of error 1e-9."""
    step, columns = 1e-5, []
    for i in range(h.size):
        there = np.zeros(h.size)
        there[i] = step
        up, down = (normalised(layer, h + s * there.reshape(h.shape)) for s in (1, -1))
        columns.append((up - down).ravel() / (2 * step))
    return np.array(columns).T


def scores(measured, predicted, *names: str) -> float:
    """The largest |z| of the means over networks; where nothing varies they must agree to single precision."""
    out = 0.0
    for name in names:
        error = measured[f"{name}_se"].values + 1e-6 * np.abs(predicted[name].values)
        out = max(out, float(np.nanmax(np.abs(measured[name].values - predicted[name].values) / error)))
    return out


# ---------------------------------------------------------------------------------------------- the layers


@pytest.mark.parametrize("layer", NORMS, ids=repr)
def test_both_passes_are_those_of_the_definition(layer) -> None:
    rng = np.random.default_rng(0)
    h, d = 3.0 + rng.standard_normal((2, 5, 4)), rng.standard_normal((2, 3, 5, 4))
    y, saved = layer.forward(ENGINE, h, SITE)
    pushed, pulled = layer.tangent(ENGINE, saved, d), layer.backward(ENGINE, saved, d)
    for r in range(2):
        assert y[r] == pytest.approx(normalised(layer, h[r]), rel=1e-12)
        J = jacobian(layer, h[r])
        for k in range(3):
            assert pushed[r, k].ravel() == pytest.approx(J @ d[r, k].ravel(), abs=1e-8)
            assert pulled[r, k].ravel() == pytest.approx(J.T @ d[r, k].ravel(), abs=1e-8)


@pytest.mark.parametrize("layer", NORMS, ids=repr)
def test_the_backward_is_the_adjoint_of_the_tangent(layer) -> None:
    rng = np.random.default_rng(1)
    h, up, down = rng.standard_normal((2, 6, 7)), *rng.standard_normal((2, 2, 3, 6, 7))
    _, saved = layer.forward(ENGINE, h, SITE)
    one = (layer.tangent(ENGINE, saved, up) * down).sum(axis=(2, 3))
    other = (up * layer.backward(ENGINE, saved, down)).sum(axis=(2, 3))
    assert one == pytest.approx(other, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("layer", [BatchNorm(), LayerNorm()], ids=repr)
def test_statistics_are_taken_in_double_precision(layer) -> None:
    """Values of 1e4 with a spread of 1: in single precision their mean alone would be off by some 1e-3."""
    h = (1e4 + np.random.default_rng(2).standard_normal((1, 300, 200))).astype(np.float32)
    y, saved = layer.forward(ENGINE, h, SITE)
    assert y.dtype == np.float32 == layer.tangent(ENGINE, saved, h[None]).dtype
    assert y[0] == pytest.approx(layer.forward(ENGINE, h.astype(np.float64), SITE)[0][0], rel=1e-6, abs=1e-7)


def test_a_batch_has_the_length_of_its_columns() -> None:
    """Σ_a y_a² = B for each unit: inputs and positions are one batch."""
    h = np.random.default_rng(3).standard_normal((2, 5 * 6, 4))
    y, _ = BatchNorm(size=(3, 2)).forward(ENGINE, h, SITE)
    assert (y**2).sum(axis=1) == pytest.approx(30.0, rel=1e-12)


# --------------------------------------------------------------------------------------- against sampled networks


@pytest.mark.parametrize("norm", [BatchNorm(), LayerNorm()], ids=repr)
def test_a_normalised_branch_adds_one(norm) -> None:
    """E q_l = q_0 + l at width 3, exactly: for the batch norm in the mean over inputs, the layer norm at each."""
    x = np.random.default_rng(4).standard_normal((6, 5))
    net = Network([Dense(5, 3), *[Residual([Activation("tanh"), Dense(3, 3), norm])] * 3])
    q = np.diagonal(mv.simulate(net, x, 4000, rng=0, replicates=True).q.values, axis1=2, axis2=3)
    q = q.mean(axis=-1, keepdims=True) if isinstance(norm, BatchNorm) else q
    for l in (1, 2, 3):
        gained = q[:, l] - q[:, 0] - l
        assert np.abs(gained.mean(axis=0) / (gained.std(axis=0) / math.sqrt(len(q)))).max() < SCORE
    assert np.trace(mv.predict(net, x).q.values, axis1=1, axis2=2) / 6 == pytest.approx(
        (x**2).mean() + np.arange(4), rel=1e-9
    )


@pytest.mark.parametrize("phi", ["relu", "tanh"])
def test_gradients_grow_as_on_the_sphere(phi) -> None:
    """Per layer of a plain network at B = 16, in the middle: what is above still depends on the cotangent.

    The width's share falls like 1/n: up to 0.6 % at n = 256 and 0.3 % at n = 512, for which 0.5 % is allowed."""
    B, n, x = 16, 512, with_gram(np.eye(16), 64)
    layers = [BatchNorm(), Activation(phi), Dense(n, n)]
    net = Network([Dense(64, n), *layers * 5])
    growth = float(sphere.gradient_growth(phi, B).value)
    predicted = mv.predict(net, x).grad_norm2.mean("input").values
    assert predicted[1] / predicted[2] == pytest.approx(growth, rel=1e-12)
    g = mv.simulate(net, x, 400, rng=1, replicates=True).grad_norm2.values.mean(axis=-1)
    for l in (1, 2, 3):
        ratio = g[:, l].mean() / g[:, l + 1].mean()
        error = (g[:, l] - ratio * g[:, l + 1]).std() / math.sqrt(len(g)) / g[:, l + 1].mean()
        assert abs(ratio - growth) < SCORE * error + 0.005 * growth
        assert error < 0.005 * growth


@pytest.mark.parametrize(("eps", "gain"), [(0.0, 1.0), (0.2, 2.0)])
@pytest.mark.parametrize("phi", ["relu", "linear", "tanh"])
def test_exact_marks_hold_at_width_three(phi, eps, gain) -> None:
    """Above the first map, whose batch covariance is not random: the next q, and the gradient at h¹."""
    x = np.random.default_rng(5).standard_normal((10, 12))
    if phi == "tanh":  # exact for equally correlated inputs
        x = with_gram(0.6 * np.eye(10) + 0.4, 12)
    net = Network([Dense(12, 3), BatchNorm(eps, gain), Activation(phi), Dense(3, 3)])
    predicted = mv.predict(net, x)
    assert (predicted.q_mark == "exact").all()
    assert (predicted.grad_norm2_mark == "exact").all()
    measured = mv.simulate(net, x, 4000, rng=2)
    assert scores(measured, predicted, "q", "grad_gram") < SCORE


@pytest.mark.parametrize("phi", ["relu", "tanh", "linear"])
def test_inputs_that_are_alike_gain_one_exactly(phi) -> None:
    """Behind the batch norm that ends a branch, at width 6; not where inputs or the first map's weights differ."""
    x, block = with_gram(0.7 * np.eye(6) + 0.3, 8), Residual([Activation(phi), Dense(6, 6), BatchNorm(gain=1.5)])
    net = Network([Dense(8, 6), *[block] * 3])
    predicted, measured = mv.predict(net, x), mv.simulate(net, x, 4000, rng=8)
    assert (predicted.q_mark == "exact").all()
    assert scores(measured, predicted, "q") < SCORE
    uneven = with_gram(np.diag([0.5, 1, 1, 1, 1, 2]), 8)
    for other, points in ((net, uneven), (Network([Dense(8, 6, weights="rademacher"), *[block] * 3]), x)):
        assert (mv.predict(other, points).q_mark[1:] != "exact").all()
    if phi == "linear":  # second moments alone, whatever the law of the sum
        assert (mv.predict(net, x).grad_norm2_mark[:-1] == "limit").all()


def test_convolution_over_inputs_and_positions() -> None:
    """One batch of 4 inputs at 8 positions; the local gradient above becomes one between all columns."""
    size, c = (8,), 200
    x = np.random.default_rng(6).standard_normal((4, 16, 8))
    middle = [BatchNorm(size=size), Activation("relu"), Convolution(size, c, c, (3,))]
    block = Residual([BatchNorm(size=size), Activation("relu"), Convolution(size, c, c, (3,))])
    net = Network([Convolution(size, 16, c, (3,)), *middle, block, mv.GlobalAveragePool(size), Dense(c, 40)])
    for cotangent in ("independent", "shared"):
        predicted = mv.predict(net, x, cotangent=cotangent)
        measured = mv.simulate(net, x, 200, rng=3, cotangent=cotangent)
        assert scores(measured, predicted, "gram", "grad_gram") < SCORE


@pytest.mark.parametrize("gain", [1.0, 2.0])
def test_any_batch_in_the_large_batch_limit(gain) -> None:
    """tanh over 16 inputs at random; the limit leaves 1/B² = 0.4 %, and a few of those are allowed."""
    x, n = np.random.default_rng(7).standard_normal((16, 64)), 300
    net = Network([Dense(64, n), *[BatchNorm(0.1, gain), Activation("tanh"), Dense(n, n)] * 2])
    predicted, measured = mv.predict(net, x), mv.simulate(net, x, 300, rng=4)
    for name in ("q", "grad_norm2"):
        off = np.abs(measured[name] - predicted[name])
        assert (off < SCORE * measured[f"{name}_se"] + 0.01 * np.abs(predicted[name]).max()).all()
    assert (predicted.q_mark[0] == "exact").all()
    assert (predicted.q_mark[1:] == "heuristic").all()


@pytest.mark.parametrize(
    "branch",
    [
        [BatchNorm(), Activation("relu"), Dense(300, 300, 2.0)],
        [Activation("relu"), Dense(300, 300, 2.0), BatchNorm()],
        [Activation("relu"), Dense(300, 300, 2.0), LayerNorm()],
        [LayerNorm(), Activation("tanh"), Dense(300, 300, 2.0)],
    ],
    ids=["pre", "post", "layer norm", "layer norm first"],
)
def test_residual_networks(branch) -> None:
    """Four blocks at width 300 over 16 inputs."""
    net, x = Network([Dense(64, 300), *[Residual(branch)] * 4]), with_gram(np.eye(16), 64)
    predicted, measured = mv.predict(net, x), mv.simulate(net, x, 200, rng=5)
    assert scores(measured, predicted, "q", "grad_norm2") < SCORE
    after = "exact" if isinstance(branch[-1], BatchNorm) else "limit"
    assert predicted.q_mark.values[3, 0, 1] == after


def test_a_sum_with_normalised_batches_is_gaussian_to_a_linear_layer_alone() -> None:
    """Taking it as Gaussian is heuristic, as no width makes it so; second moments alone do not need to."""
    state = State(np.eye(8), "batch_sum", False, np.zeros((8, 8), bool))
    assert Activation("tanh").propagate(state).heuristic
    assert not Activation("linear").propagate(state).heuristic


def test_equal_entries_take_the_form_on_the_sphere() -> None:
    """Where two forms treat one batch they agree: relu by both, and what the limit leaves of tanh is of order 1/B²."""
    S, G = np.full((12, 12), 0.3) + 0.7 * np.eye(12), np.full((12, 12), 0.2) + np.eye(12)
    relu, tanh = Activation("relu").phi, Activation("tanh").phi
    own = batch.propagate(relu, S, eps=0.0, gain=1.5)
    assert own.value == pytest.approx(1.5**2 * batch_gaussian.propagate("relu", S).value, rel=1e-8)
    back = batch.pull_back(relu, S, G, eps=0.0, gain=1.5)
    assert back.value == pytest.approx(1.5**2 * batch_gaussian.pull_back("relu", S, G).value, rel=1e-8)
    apart = S + 1e-6 * np.diag(np.arange(12.0))  # no longer alike
    for phi in (relu, tanh):
        bound = 1e-5 if phi is relu else 4 / 12**2
        one, other = (batch.propagate(phi, s, eps=0.0, gain=1.0).value for s in (S, apart))
        assert np.abs(one - other).max() < bound * np.abs(one).max()
        one, other = (batch.pull_back(phi, s, G, eps=0.0, gain=1.0).value for s in (S, apart))
        assert np.abs(one - other).max() < bound * np.abs(one).max()


def test_a_local_gradient_made_whole() -> None:
    """(position, input, input) at its columns (input, position), zero between different positions."""
    local = np.random.default_rng(8).standard_normal((3, 2, 2))
    whole = Grad(local, np.ones(local.shape, bool)).whole(6)
    for a, p, b, r in np.ndindex(2, 3, 2, 3):
        assert whole.cov[3 * a + p, 3 * b + r] == (local[p, a, b] if p == r else 0.0)
    assert whole.exact.all()
    assert whole.whole(6) is whole


def test_layer_norm_is_exact_on_the_diagonal_alone() -> None:
    """At eps = 0 the diagonal of y is 1 at every width: at width 3 that of the next map is, and no other entry."""
    net, x = Network([Dense(8, 3), LayerNorm(), Dense(3, 3)]), with_gram(0.5 * np.eye(4) + 0.5, 8)
    predicted, measured = mv.predict(net, x), mv.simulate(net, x, 4000, rng=6)
    assert ((predicted.q_mark[1] == "exact") == np.eye(4, dtype=bool)).all()
    assert scores(measured, predicted, "length") < SCORE
    assert abs(measured.q[1, 0, 1] - predicted.q[1, 0, 1]) > SCORE * measured.q_se[1, 0, 1]


# ------------------------------------------------------------------------------------------------- refusals


def plain(*between, n: int = 8) -> Network:
    return Network([Dense(8, n), *between, Dense(n, n)])


@pytest.mark.parametrize(
    ("net", "gram", "error", "told"),
    [
        (plain(BatchNorm()), np.eye(1), InputError, "at least 2"),
        (plain(BatchNorm()), np.ones((4, 4)), InputError, "must differ"),
        (plain(BatchNorm()), np.eye(3), InputError, r"B > 3"),
        (plain(BatchNorm(shift=0.5), Activation("relu")), np.eye(6), Unpredictable, "shift"),
        (plain(Activation("relu"), BatchNorm()), np.eye(6), Unpredictable, "image of another nonlinearity"),
        (plain(Activation("relu"), LayerNorm()), np.eye(6), Unpredictable, "image of another nonlinearity"),
        (plain(BatchNorm(), Activation("tanh")), np.diag([9.0, 1, 1, 1]), Unpredictable, "large-batch limit"),
        (plain(Residual([Dense(8, 8), BatchNorm(shift=1.0)])), np.eye(6), Unpredictable, "correlated with the trunk"),
        (plain(BatchNorm(), Residual([Activation("relu"), Dense(8, 8)])), np.eye(6), Unpredictable, "not Gaussian"),
    ],
)
def test_what_is_not_treated_is_refused(net, gram, error, told) -> None:
    with pytest.raises(error, match=told) as caught:
        mv.predict(net, with_gram(gram, 8))
    assert "\n" not in str(caught.value)


def test_one_column_is_refused_where_it_is_sampled() -> None:
    with pytest.raises(InputError, match="at least 2"):
        mv.simulate(plain(BatchNorm()), np.ones((1, 8)), 10)
    assert mv.simulate(plain(BatchNorm(eps=0.1)), np.ones((1, 8)), 10).attrs["nonfinite"] == 0


def test_layers_that_do_not_fit() -> None:
    with pytest.raises(InputError, match="size"):
        Network([Convolution((8,), 2, 3, (3,)), BatchNorm()])
    with pytest.raises(InputError, match="eps"):
        BatchNorm(eps=-1.0)
    with pytest.raises(InputError, match="at least 2"):
        Network([Dense(4, 1), LayerNorm()])


def test_given_cotangents_lose_their_common_part_in_a_layer_norm() -> None:
    net, x = Network([Dense(8, 8), LayerNorm()]), with_gram(np.eye(4), 8)
    with pytest.raises(Unpredictable, match="given entries"):
        mv.predict(net, x, cotangent=np.ones((4, 8)))


def test_files_and_words() -> None:
    net = Network([Convolution((8,), 2, 3, (3,)), BatchNorm(0.1, size=(8,)), LayerNorm(gain=2.0)])
    again = network_file.parse(tomllib.loads(network_file.dumps(net))).net
    assert again.layers == net.layers
    assert "batch norm ε=0.1, layer norm gain=2" in describe(net)
    assert eval(repr(net), dict(vars(mv), **{n: getattr(mv, n) for n in mv.__all__})).layers == net.layers
