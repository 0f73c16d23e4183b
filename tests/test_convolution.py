"""Convolution: patches and their adjoint by naive loops, sampled layers against stored kernels, and second moments
of linear networks against the enumeration of their paths."""

from __future__ import annotations

import itertools
import math
import tomllib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mcverify as mv
from mcverify.claims.claim import Mutant
from mcverify.claims.generic import generic_claims
from mcverify.errors import InputError
from mcverify.inputs import checked
from mcverify.kernels.backends import backend
from mcverify.kernels.patches import Window, neighbours
from mcverify.layers import chain
from mcverify.layers.convolution import Convolution
from mcverify.layers.layer import Grad, State
from mcverify.network_file import dumps, parse, read
from mcverify.random_map import conditional, explicit
from mcverify.simulation.simulate import choose_engine
from mcverify.streams import Role, Site, stream_key
from mcverify.verification import run_claims

CPU, REFERENCE = backend("cpu")[1], backend("reference")[1]
GRIDS = st.sampled_from(
    [((5,), (3,)), ((4,), (4,)), ((1,), (1,)), ((3, 4), (3, 2)), ((2, 5), (1, 3)), ((4, 4), (2, 2))]
)
PADDINGS = st.sampled_from(["circular", "zeros"])


def look(position, tap, size, kernel, padding):
    """The position that a tap looks at, by the definition, or None."""
    at = [p + t - (k - 1) // 2 for p, t, k in zip(position, tap, kernel, strict=True)]
    if padding == "circular":
        return tuple(a % n for a, n in zip(at, size, strict=True))
    return tuple(at) if all(0 <= a < n for a, n in zip(at, size, strict=True)) else None


def points(size):
    return list(itertools.product(*map(range, size)))


# ---- patches ------------------------------------------------------------------------------------------


@given(GRIDS, PADDINGS)
def test_neighbours_are_those_of_the_definition(grid, padding):
    size, kernel = grid
    seen = neighbours(size, kernel, padding)
    for i, position in enumerate(points(size)):
        for t, tap in enumerate(points(kernel)):
            there = look(position, tap, size, kernel, padding)
            assert seen[i, t] == (-1 if there is None else points(size).index(there))


@pytest.mark.parametrize("kernels", [CPU, REFERENCE])
@given(grid=GRIDS, padding=PADDINGS, units=st.integers(1, 3), inputs=st.integers(1, 2))
def test_fold_is_the_adjoint_of_patches(kernels, grid, padding, units, inputs):
    window = Window(*grid, padding)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, inputs * math.prod(grid[0]), units))
    seen = kernels.patches(x, window)
    np.testing.assert_array_equal(seen, REFERENCE.patches(x, window))
    d = rng.normal(size=seen.shape)
    assert (seen * d).sum() == pytest.approx((x * kernels.fold(d, window)).sum())
    grams = kernels.patch_gram(REFERENCE.gram(x, x), window)
    np.testing.assert_allclose(grams, REFERENCE.gram(seen, seen), atol=1e-13 * window.taps)


@given(
    grid=GRIDS, padding=PADDINGS, channels=st.sampled_from([(1, 1), (3, 5), (40, 9), (130, 70)]),
    dtype=st.sampled_from([np.float32, np.float64]),
)  # fmt: skip
def test_maps_with_a_window_are_maps_of_patches(grid, padding, channels, dtype):
    """To the bit forward. Backward the order of sums differs: of up to 70 · 16 terms of size one, so that rounding adds
    up to some 35 · 16 machine epsilons."""
    window, site = Window(*grid, padding), Site(stream_key(3), 1, 2, 2)
    n_in, n_out = channels[0] * math.prod(grid[1]), channels[1]
    rng = np.random.default_rng(0)
    for replicates in (1, 2):
        x = rng.normal(size=(replicates, 2 * math.prod(grid[0]), channels[0])).astype(dtype)
        d = rng.normal(size=(*x.shape[:2], n_out)).astype(dtype)
        for law in ("gaussian", "rademacher"):
            at = site, Role.WEIGHT, law
            whole = CPU.random_matmul(*at, n_out, CPU.patches(x, window))
            np.testing.assert_array_equal(CPU.random_matmul(*at, n_out, x, window), whole)
            whole = CPU.fold(CPU.random_matmul_transpose(*at, n_in, d), window)
            back = CPU.random_matmul_transpose(*at, n_in, d, window)
            sure = 1e3 * np.finfo(dtype).eps
            np.testing.assert_allclose(back, whole, atol=sure)
            np.testing.assert_allclose(back, REFERENCE.random_matmul_transpose(*at, n_in, d, window), atol=sure)


# ---- sampled layers -----------------------------------------------------------------------------------


def stored(layer, site):
    """(replicate, tap, channel out, channel in) and biases, as addressed."""
    m = layer.random_map
    w = CPU.draw(site, Role.WEIGHT, m.law, m.fan_out, m.fan_in, np.float64) * np.sqrt(m.sigma_w2 / m.fan_in)
    b = CPU.draw(site, Role.BIAS, "gaussian", 1, m.fan_out, np.float64)[:, 0] * np.sqrt(m.sigma_b2)
    return w.reshape(site.count, m.fan_out, -1, layer.channels_in).swapaxes(1, 2), b


def convolved(layer, w, b, x):
    """By loops over positions and taps: x (column, channel) → (replicate, column, channel)."""
    size, places = layer.size, points(layer.size)
    inputs = len(x) // len(places)
    out = np.zeros((len(w), len(x), layer.channels_out)) + b[:, None]
    for a, (i, position) in itertools.product(range(inputs), enumerate(places)):
        for t, tap in enumerate(points(layer.kernel)):
            there = look(position, tap, size, layer.kernel, layer.padding)
            if there is not None:
                out[:, a * len(places) + i] += w[:, t] @ x[a * len(places) + places.index(there)]
    return out


@given(GRIDS, PADDINGS, st.sampled_from(["gaussian", "uniform", "rademacher"]))
def test_explicit_layers_are_convolutions_with_the_addressed_kernel(grid, padding, law):
    layer = Convolution(grid[0], 2, 3, grid[1], 1.5, 0.3, law, padding)
    site = Site(stream_key(7), 4, 10, 3)
    engine = explicit.engine(CPU, np.dtype(np.float64))
    x = np.random.default_rng(1).normal(size=(2 * math.prod(grid[0]), 2))
    y, saved = layer.forward(engine, x[None], site)
    w, b = stored(layer, site)
    np.testing.assert_allclose(y, convolved(layer, w, b, x), atol=1e-12)
    dx = np.random.default_rng(2).normal(size=(3, 2, *x.shape))
    dy = layer.tangent(engine, saved, dx)
    np.testing.assert_allclose(
        dy[:, 1], [convolved(layer, w[r : r + 1], 0 * b[:1], dx[r, 1])[0] for r in range(3)], atol=1e-12
    )
    d = np.random.default_rng(3).normal(size=dy.shape)
    np.testing.assert_allclose((dy * d).sum((1, 2, 3)), (dx * layer.backward(engine, saved, d)).sum((1, 2, 3)))


@pytest.mark.parametrize("padding", ["circular", "zeros"])
def test_the_conditional_engine_has_the_moments_of_explicit_weights(padding):
    """Outputs' squares and overlaps, and gradients, against 20,000 explicit kernels: two-sample z-scores below 5.5,
    which a false alarm exceeds once in 10⁶ for these 17 statistics."""
    layer = Convolution((4,), 2, 3, (3,), 1.5, 0.3, padding=padding)
    x = np.random.default_rng(1).normal(size=(8, 2))
    v = np.random.default_rng(2).normal(size=(1, 1, 8, 3))
    found = []
    for build, start in ((explicit.engine, 0), (conditional.engine, 10**6)):
        engine = build(CPU, np.dtype(np.float64))
        y, saved = layer.forward(engine, x[None], Site(stream_key(7), 4, start, 20_000))
        back = layer.backward(engine, saved, np.broadcast_to(v, (len(y), *v.shape[1:])).copy())[:, 0]
        stats = [
            y[:, 0] ** 2,
            y[:, 1] * y[:, 6],
            (back**2).sum(-1),
            (back[:, 2] * x[2]).sum(-1, keepdims=True) * y[:, 2],
        ]
        found.append(np.concatenate(stats, axis=1))
    a, b = found
    z = (a.mean(0) - b.mean(0)) / np.sqrt(a.var(0) / len(a) + b.var(0) / len(b))
    assert np.abs(z).max() < 5.5


# ---- theory, against paths ----------------------------------------------------------------------------


def path_moments(layers, x):
    """E h_a(p) h_b(p′), the mean over channels, of a linear network: every pair of paths of weights, enumerated; a pair
    counts where both take the same weights."""
    size, places = layers[0].size, points(layers[0].size)
    inputs, depth = len(x) // len(places), len(layers)

    def ends(position, taps):
        """Where a path that leaves the output at `position` along these taps meets the input."""
        for layer, tap in zip(reversed(layers), taps, strict=True):
            if position is not None:
                position = look(position, tap, size, layer.kernel, layer.padding)
        return position

    scale = np.prod([v.sigma_w2 / math.prod(v.kernel) for v in layers])
    out = np.zeros((len(x), len(x)))
    for (a, (i, p)), (b, (j, q)) in itertools.product(itertools.product(range(inputs), enumerate(places)), repeat=2):
        for taps in itertools.product(*(points(v.kernel) for v in reversed(layers))):
            s, t = ends(p, taps), ends(q, taps)
            if s is not None and t is not None:
                u, v = (x[c * len(places) + places.index(e)] for c, e in ((a, s), (b, t)))
                out[a * len(places) + i, b * len(places) + j] += scale * (u @ v) / len(u)
    assert depth
    return out


@given(GRIDS, PADDINGS, st.integers(1, 2))
def test_covariances_of_linear_networks_are_sums_over_paths(grid, padding, depth):
    size, kernel = grid
    channels = [2, 3, 1][: depth + 1]
    layers = [
        Convolution(size, a, b, kernel, 1.2 + 0.5 * i, 0.0, padding=padding)
        for i, (a, b) in enumerate(itertools.pairwise(channels))
    ]
    x = np.random.default_rng(5).normal(size=(2 * math.prod(size), 2))
    states = chain.propagate(layers, State.of_inputs(x))
    np.testing.assert_allclose(states[-1].cov, path_moments(layers, x), atol=1e-12)
    assert states[-1].exact.all()


@given(GRIDS, PADDINGS)
def test_gradient_moments_pull_back_by_the_adjoint(grid, padding):
    """⟨A ⋆ S, G⟩ = ⟨S, Aᵀ ⋆ G⟩: a linear layer's tangents and cotangents meet in the same number."""
    layer = Convolution(grid[0], 2, 2, grid[1], 1.7, 0.4, padding=padding)
    n = 2 * math.prod(grid[0])
    rng = np.random.default_rng(6)
    s, g = (m @ m.T for m in rng.normal(size=(2, n, n)))
    state, everywhere = State(s, "input", True, np.ones((n, n), bool)), np.ones((n, n), bool)
    up = layer.propagate(state).cov - layer.sigma_b2
    down = layer.pull_back(state, Grad(g, everywhere)).cov
    assert (up * g).sum() == pytest.approx((s * down).sum())


def test_sampled_second_moments_follow_the_recursion():
    """Zero padding, an even kernel and biases: means over 40,000 networks within 5.5 standard errors."""
    layers = [
        Convolution((3, 2), 1, 4, (2, 2), 1.5, 0.2, padding="zeros"),
        Convolution((3, 2), 4, 2, (3, 1), 0.8, 0.1, padding="zeros"),
    ]
    x = np.random.default_rng(8).normal(size=(6, 1))
    engine = conditional.engine(CPU, np.dtype(np.float64))
    tape = chain.forward(layers, engine, x[None], Site(stream_key(3), 0, 0, 40_000))
    measured = CPU.gram(tape[-1].y, tape[-1].y) / 2
    expected = chain.propagate(layers, State.of_inputs(x))[-1].cov
    z = (measured.mean(0) - expected) / (measured.std(0) / np.sqrt(len(measured)))
    assert np.abs(z).max() < 5.5
    # The planted error: σ_b² inside A, as if a border of zeros lost it.
    wrong = layers[1].sigma_w2 * layers[1].mean_met(chain.propagate(layers[:1], State.of_inputs(x))[-1].cov, 2)
    wrong += layers[1].mean_met(np.full((6, 6), layers[1].sigma_b2), 2)
    assert np.abs((measured.mean(0) - wrong) / (measured.std(0) / np.sqrt(len(measured)))).max() > 8


# ---- refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"size": (4, 4, 4)}, "size"),
        ({"size": (0,)}, "size"),
        ({"kernel": (3, 3)}, "kernel"),
        ({"kernel": (5,)}, "kernel"),
        ({"padding": "same"}, "padding"),
        ({"channels_in": 0}, "channels_in"),
        ({"sigma_w2": -1.0}, "sigma_w2"),
        ({"weights": "orthogonall"}, "weights"),
    ],
)
def test_bad_convolutions_are_refused_in_one_line(changes, field):
    given = {"size": (4,), "channels_in": 2, "channels_out": 3, "kernel": (3,)} | changes
    with pytest.raises(InputError) as caught:
        Convolution(**given)
    assert caught.value.field == field
    assert "\n" not in str(caught.value)


def test_layers_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="must match"):
        mv.Network([Convolution((4,), 2, 3, (3,)), Convolution((5,), 3, 3, (3,))])
    with pytest.raises(InputError, match="must match"):
        mv.Network([Convolution((4,), 2, 3, (3,)), mv.Dense(3, 2)])


# ---- whole networks -----------------------------------------------------------------------------------

TOML = """
[network]
architecture = "cnn"
input_shape = [1, 6]
channels = [32, 32]
activation = "tanh"
sigma_w2 = 1.5
sigma_b2 = 0.1
kernel_size = 3
padding = "zeros"

[inputs]
gram = [[1.0, 0.3], [0.3, 0.8]]

[verify]
margin = 0.1
"""


def test_a_network_is_predicted_and_simulated_position_by_position():
    """The first layer is exact: its covariance agrees within 5 standard errors of 2,000 networks."""
    net = mv.cnn((2, 3, 2), [16, 16], "relu", 2.0, 0.1, kernel_size=(2, 1), padding="zeros")
    x = np.random.default_rng(0).normal(size=(2, 2, 3, 2))
    p, m = mv.predict(net, x), mv.simulate(net, x, samples=2000)
    assert p.q.dims == m.q.dims == ("layer", "input", "row", "column", "input_2", "row_2", "column_2")
    assert p.q.shape == (2, 2, 3, 2, 2, 3, 2)
    assert p.length.dims == m.grad_norm2.dims == ("layer", "input")
    z = ((m.q - p.q) / m.q_se).values[0]
    assert np.abs(z).max() < 5
    assert (p.q_mark[0] == "exact").all()
    np.testing.assert_allclose(p.grad_norm2[-1], 1.0)
    assert (np.abs(m.grad_norm2 - p.grad_norm2) < 5 * m.grad_norm2_se + 0.02 * p.grad_norm2).all()


def test_auto_takes_weights_where_columns_abound():
    """128 columns at 64 channels take 11 times as long by the conditional engine, 16 at 1000 a 20th."""
    for shape, channels, engine in [((64, 8, 8), 64, "explicit"), ((1000, 8), 1000, "conditional")]:
        net = mv.cnn(shape, [channels] * 2, "tanh")
        assert choose_engine("auto", "auto", "float32", net, 2)[0].name == engine


def test_files_describe_convolutional_networks(tmp_path):
    path = tmp_path / "net.toml"
    path.write_text(TOML)
    given = read(path)
    assert given.net == mv.cnn((1, 6), [32, 32], "tanh", 1.5, 0.1, padding="zeros", name="net")
    assert given.x.shape == (2, 1, 6)
    assert parse(tomllib.loads(dumps(given.net)), "net").net == given.net
    assert eval(repr(given.net), vars(mv) | {n: getattr(mv, n) for n in mv.__all__}) == given.net


def test_a_sound_network_is_confirmed_and_a_wrong_one_is_not(tmp_path):
    path = tmp_path / "net.toml"
    path.write_text(TOML)
    report = mv.verify(str(path), budget="3e8w")
    assert report.exit_code == 0, [(r.name, r.message) for r in report.results]
    given = read(path)
    claims = generic_claims(given.net, checked(given.x, given.net.input_shape), 0.1, 0)
    (one_step,) = (c for c in claims if c.name == "network.one_step_q")
    # The planted error: circular padding, sampled where zeros are claimed.
    circular = Mutant("circular", lambda net: net.map_layers(_circular))
    assert run_claims([one_step], mutant=circular).results[0].verdict == "refuted"


def _circular(_, layer):
    return replace(layer, padding="circular") if isinstance(layer, Convolution) else layer


def test_inputs_have_channels_before_positions():
    net = mv.cnn((3, 8), [4], "relu")
    with pytest.raises(InputError, match="channels come before positions"):
        mv.predict(net, np.ones((1, 8, 3)))
    with pytest.raises(InputError, match=r"\(inputs, 3, 8\)"):
        mv.simulate(net, np.ones((1, 3, 9)))


def test_the_cost_of_widening_counts_channels():
    net = mv.cnn((3, 8), [4, 5], "relu").scaled(3)
    assert net.widths == [12, 15]
    assert net.input_shape == (8, 3)
