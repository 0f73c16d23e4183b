"""Orthogonal kernels: isometries to rounding, with the taps' energies and the law that they claim, and networks of them
against the predictions; everything also with an error planted."""

from __future__ import annotations

import math
import tomllib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import find as minimal
from hypothesis import given, settings
from scipy import stats

import mcverify as mv
from mcverify.errors import InputError
from mcverify.kernels import cpu, reference
from mcverify.layers import chain
from mcverify.layers.convolution import Convolution
from mcverify.layers.layer import Grad, State
from mcverify.network_file import dumps, parse
from mcverify.random_map import choice, conditional, explicit, orthogonal_kernel
from mcverify.strategies import convolutional_networks, seed_of
from mcverify.streams import Site, stream_key

BACKENDS = pytest.mark.parametrize("kernels", [cpu, reference], ids=["cpu", "reference"])
ENGINES = pytest.mark.parametrize("build", [explicit.engine, conditional.engine], ids=["explicit", "conditional"])
LAWS = pytest.mark.parametrize("law", ["orthogonal", "delta_orthogonal"])
GRIDS = [((5,), (3,)), ((4,), (4,)), ((6,), (1,)), ((5,), (2,)), ((3, 4), (3, 2)), ((2, 5), (1, 4)), ((4, 4), (3, 3))]
SITE = Site(stream_key(11), 4, 10, 3)
LEVEL = 1e-6  # of the whole collection of p-values in one test


def engine(build=explicit.engine, kernels=cpu, dtype=np.float64, **more):
    return build(kernels, np.dtype(dtype), **more)


def layer_of(grid, law, c_in=3, c_out=3, **more):
    return Convolution(grid[0], c_in, c_out, grid[1], 1.0, weights=law, **more)


def impulse_responses(layer, impulses, site, **more):
    """(replicate, impulse, position, channel out) of tangents (impulse, position, channel in)."""
    _, saved = layer.forward(engine(**more), np.zeros((1, *impulses.shape[1:])), site)
    return layer.tangent(engine(**more), saved, np.broadcast_to(impulses, (site.count, *impulses.shape)).copy())


def as_matrix(layer, site=SITE, **more):
    """(replicate, position · channel out, position · channel in)."""
    size, c = math.prod(layer.size), layer.channels_in
    impulses = np.eye(size * c).reshape(size * c, size, c)
    return impulse_responses(layer, impulses, site, **more).reshape(site.count, size * c, -1).swapaxes(1, 2)


def kernel_of(layer, site):
    """(replicate, tap, channel out, channel in) of a layer on a circle, by impulses at position 0."""
    c, places = layer.channels_in, np.arange(math.prod(layer.size)).reshape(layer.size)
    impulses = np.eye(places.size * c)[:c].reshape(c, places.size, c)
    taps = [[t - (k - 1) // 2 for t, k in zip(tap, layer.kernel, strict=True)] for tap in np.ndindex(layer.kernel)]
    at = [places[tuple(-o % n for o, n in zip(offset, layer.size, strict=True))] for offset in taps]
    return impulse_responses(layer, impulses, site)[:, :, at].transpose(0, 2, 3, 1)


# ---- identities, in every replicate -------------------------------------------------------------------


@BACKENDS
@LAWS
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_circular_convolution_is_an_orthogonal_matrix(kernels, law, grid):
    matrix = as_matrix(layer_of(grid, law), kernels=kernels)
    identity = np.eye(matrix.shape[1])
    assert np.abs(matrix.swapaxes(1, 2) @ matrix - identity).max() < 1e-13
    assert np.abs(matrix[0] - matrix[1]).max() > 0.1  # replicates are different kernels


@LAWS
def test_convolutions_have_their_taps_and_no_others(law):
    """The matrix is a convolution: what an impulse gives moves along with it; and it stays within the kernel."""
    for grid in GRIDS:
        layer = layer_of(grid, law)
        matrix = as_matrix(layer).reshape(3, *layer.size, 3, *layer.size, 3)
        for axis in range(len(layer.size)):
            moved = np.roll(matrix, (1, 1), axis=(1 + axis, 2 + len(layer.size) + axis))
            np.testing.assert_allclose(moved, matrix, atol=1e-13)
        energy = (kernel_of(layer, SITE) ** 2).sum((1, 2, 3))
        np.testing.assert_allclose(energy, 3.0, rtol=1e-13)  # all of tr(WᵀW)/positions is under the taps


@LAWS
@ENGINES
@pytest.mark.parametrize("channels", [(3, 3), (2, 5), (5, 2)], ids=str)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_backward_is_the_adjoint_of_the_tangent(law, build, channels, grid):
    layer = layer_of(grid, law, *channels, sigma_b2=0.3)
    rng = np.random.default_rng(2)
    x, d = rng.normal(size=(1, 2 * math.prod(grid[0]), channels[0])), None
    y, saved = layer.forward(engine(build), x, SITE)
    dx = rng.normal(size=(3, 2, *x.shape[1:]))
    dy = layer.tangent(engine(build), saved, dx)
    d = rng.normal(size=dy.shape)
    back = layer.backward(engine(build), saved, d)
    np.testing.assert_allclose((dy * d).sum((2, 3)), (dx * back).sum((2, 3)), atol=1e-11)
    assert dy.shape == (3, 2, *y.shape[1:])


@LAWS
def test_the_tangent_is_the_linear_part(law):
    """Explicit weights: W dx is the same as forward at x + dx less forward at x."""
    layer = layer_of(((3, 4), (3, 2)), law, 3, 4, sigma_b2=0.3)
    rng = np.random.default_rng(3)
    x, dx = rng.normal(size=(2, 3, 24, 3))
    (y, saved), (moved, _) = (layer.forward(engine(), v, SITE) for v in (x, x + dx))
    np.testing.assert_allclose(layer.tangent(engine(), saved, dx[:, None])[:, 0], moved - y, atol=1e-12)


@LAWS
def test_backends_sample_the_same_kernels(law):
    layer = layer_of(((3, 4), (3, 2)), law)
    for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 1e-5)):
        x = np.random.default_rng(3).normal(size=(1, 12, 3)).astype(dtype)
        a, b = (layer.forward(engine(kernels=k, dtype=dtype), x, SITE)[0] for k in (cpu, reference))
        assert a.dtype == b.dtype == dtype
        np.testing.assert_allclose(a, b, atol=tolerance)


def test_untied_backward_passes_have_kernels_of_their_own():
    layer = layer_of(((5,), (3,)), "orthogonal")
    d = np.random.default_rng(4).normal(size=(3, 1, 5, 3))
    x = np.zeros((1, 5, 3))
    tied, fresh = (layer.backward(e, layer.forward(e, x, SITE)[1], d) for e in (engine(), engine(tied=False)))
    np.testing.assert_allclose((fresh**2).sum((2, 3)), (d**2).sum((2, 3)))
    assert np.abs(tied - fresh).max() > 0.1
    frames = [orthogonal_kernel.compose_transpose(cpu, (5,), (3,), SITE, d[:, 0], tied=t) for t in (True, False)]
    assert np.abs(frames[0] - frames[1]).max() > 0.1  # the projections too, not only the matrix after them


def test_layers_take_one_address_for_each_frame():
    layer = layer_of(((4, 4), (3, 2)), "orthogonal")
    assert layer.sites == 1 + 2 + 1
    assert [f.axis for f in orthogonal_kernel.factors((3, 2))] == [0, 1, 0]
    assert layer_of(((4, 4), (3, 2)), "delta_orthogonal").sites == 1
    tape = chain.forward([layer, layer], engine(), np.zeros((1, 16, 3)), SITE)
    assert [r.site.layer for r in tape] == [4, 8]


def _other_sites(k, size, kernel, site, x):
    return orthogonal_kernel.compose(k, size, kernel, site.above(1), x)


def _a_factor_short(k, size, kernel, site, x):
    return orthogonal_kernel.compose(k, size, (2,), site, x)


@pytest.mark.parametrize(
    ("wrong", "sees"),
    [
        (lambda *a: 1.001 * orthogonal_kernel.compose(*a), "isometry"),
        (lambda *a: 0.9 * orthogonal_kernel.compose(*a) + 0.1 * a[-1], "isometry"),
        (_other_sites, "adjoint"),
        (_a_factor_short, "energies"),
    ],
    ids=["gain", "mixed with the input", "other frames in the transpose", "a factor missing"],
)
def test_planted_errors_are_seen(monkeypatch, wrong, sees):
    monkeypatch.setattr("mcverify.layers.convolution.compose", wrong)
    layer = layer_of(((5,), (3,)), "orthogonal")
    matrix = as_matrix(layer)
    _, saved = layer.forward(engine(), np.zeros((1, 5, 3)), SITE)
    d = np.random.default_rng(4).normal(size=(3, 1, 5, 3))
    back = layer.backward(engine(), saved, d).reshape(3, -1)
    holds = {
        "isometry": np.abs(matrix.swapaxes(1, 2) @ matrix - np.eye(15)).max() < 1e-10,
        "adjoint": np.abs(back - np.einsum("rij,ri->rj", matrix, d.reshape(3, -1))).max() < 1e-10,
        "energies": energy_z("orthogonal", ((5,), (3,)), 400) < 5.5,
    }
    assert not holds[sees], holds


# ---- energies and laws --------------------------------------------------------------------------------


def energy_z(law, grid, count, c=3):
    """The largest |z| of the mean tap energies tr(K_βᵀK_β)/c over `count` kernels, against the layer's own."""
    layer = layer_of(grid, law, c, c)
    found = (kernel_of(layer, Site(stream_key(5), 0, 0, count)) ** 2).sum((2, 3)) / c
    expected = layer.energies / layer.energies.sum()
    se = found.std(axis=0, ddof=1) / np.sqrt(count) + 1e-12
    return np.max(np.abs(found.mean(axis=0) - expected) / se)


@pytest.mark.parametrize("c", [1, 2, 4])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_taps_have_their_energies_at_every_width(grid, c):
    """Binomial along each axis: |z| < 5.5 over 4,000 kernels for each of at most 9 taps, 21 cases: a false alarm once
    in 10⁵ or less."""
    assert energy_z("orthogonal", grid, 4000, c) < 5.5
    layer = layer_of(grid, "orthogonal")
    by_axis = [stats.binom.pmf(np.arange(k), k - 1, 0.5) for k in layer.kernel]
    expected = np.prod(np.meshgrid(*by_axis, indexing="ij"), axis=0).ravel()
    np.testing.assert_allclose(layer.energies, expected, rtol=1e-12)


def test_the_energies_are_told_from_uniform_ones(monkeypatch):
    monkeypatch.setattr(Convolution, "energies", property(lambda self: np.ones(math.prod(self.kernel))))
    assert energy_z("orthogonal", ((5,), (3,)), 400) > 5.5
    assert energy_z("delta_orthogonal", ((5,), (3,)), 400) > 5.5


@pytest.mark.parametrize("padding", ["circular", "zeros"])
def test_delta_orthogonal_acts_on_every_position_alone(padding):
    layer = layer_of(((3, 4), (3, 2)), "delta_orthogonal", 3, 3, padding=padding)
    taps = np.sqrt((as_matrix(layer) ** 2).reshape(3, 12, 3, 12, 3).sum((2, 4)))
    np.testing.assert_allclose(taps, np.broadcast_to(np.sqrt(3) * np.eye(12), (3, 12, 12)), atol=1e-12)
    np.testing.assert_array_equal(layer.energies, [0, 0, 1, 0, 0, 0])


def test_the_centre_tap_is_haar():
    """By the check for anyone's orthogonal sampler, which refutes taps whose diagonal is made positive."""
    layer = layer_of(((1,), (1,)), "delta_orthogonal", 16, 16)

    def tap(seed):
        return as_matrix(layer, Site(stream_key(seed), 0, 0, 1))[0]

    report = mv.check_sampler(tap, "orthogonal")
    assert report.exit_code == 0, report.sentence

    def biased(seed):
        w = tap(seed)
        return w * np.sign(np.diagonal(w))

    found = mv.check_sampler(biased, "orthogonal")
    assert "orthogonal.haar" in {r.name for r in found.results if r.verdict == "refuted"}


def statistics_of(build, law, start, count=4000, **more):
    """(statistic, replicate) of outputs, tangents and cotangents of one layer, and of their products."""
    layer = Convolution((4,), 3, 3, (3,), 1.3, 0.3, weights=law, **more)
    rng = np.random.default_rng(6)
    x, t, d = rng.normal(size=(1, 8, 3)), rng.normal(size=(1, 1, 8, 3)), rng.normal(size=(1, 1, 8, 3))
    y, saved = layer.forward(engine(build), x, Site(stream_key(3), 2, start, count))
    dy = layer.tangent(engine(build), saved, np.broadcast_to(t, (count, *t.shape[1:])).copy())[:, 0]
    dx = layer.backward(engine(build), saved, np.broadcast_to(d, (count, *d.shape[1:])).copy())[:, 0]
    a, b, c = (np.einsum("rcn,cn->r", v, rng.normal(size=v.shape[1:])) for v in (y, dy, dx))
    return np.stack(
        [a, b, c, a * b, a * c, b * c, y[:, 0, 0] * y[:, 5, 1], dy[:, 1, 0] * dx[:, 2, 0], y[:, 3, 0] * dx[:, 3, 0]]
    )


@LAWS
def test_the_conditional_engine_has_the_law_of_explicit_weights(law):
    """Two-sample Kolmogorov–Smirnov on functionals and products, and it sees a bias of another size."""
    a, b = statistics_of(explicit.engine, law, 0), statistics_of(conditional.engine, law, 10**6)
    p = [stats.ks_2samp(u, v, method="asymp").pvalue for u, v in zip(a, b, strict=True)]
    assert min(p) > LEVEL / len(p)
    wrong = statistics_of(conditional.engine, "delta_orthogonal" if law == "orthogonal" else "orthogonal", 10**6)
    p = [stats.ks_2samp(u, v, method="asymp").pvalue for u, v in zip(a, wrong, strict=True)]
    assert min(p) < LEVEL / len(p)


def test_conditional_square_delta_kernels_draw_no_weights():
    layer = layer_of(((4,), (3,)), "delta_orthogonal")
    assert conditional.sampler(layer.random_map) is not explicit
    assert conditional.sampler(layer_of(((4,), (3,)), "delta_orthogonal", 3, 4).random_map) is explicit


def test_the_cost_counts_the_frames():
    general, delta = (layer_of(((8,), (3,)), law, 64, 64).random_map for law in ("orthogonal", "delta_orthogonal"))
    load = choice.Load(16, 0, 16)
    assert choice.work("explicit", [general], [load]) == pytest.approx(5 * choice.work("explicit", [delta], [load]))
    assert choice.work("conditional", [general], [load]) > 4 * choice.work("explicit", [delta], [load])


# ---- theory -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("law", ["orthogonal", "delta_orthogonal", "gaussian"])
def test_a_weighs_the_taps_and_its_adjoint_pulls_back(law, grid):
    """A ⋆ S by loops over taps, and ⟨A ⋆ S, G⟩ = ⟨S, Aᵀ ⋆ G⟩."""
    layer, size = layer_of(grid, law, sigma_b2=0.4), grid[0]
    n = 2 * math.prod(size)
    s, g = (m @ m.T for m in np.random.default_rng(6).normal(size=(2, n, n)))
    state, everywhere = State(s, "input", True, np.ones((n, n), bool)), np.ones((n, n), bool)
    up = layer.propagate(state).cov - layer.sigma_b2
    down = layer.pull_back(state, Grad(g, everywhere)).cov
    assert (up * g).sum() == pytest.approx((s * down).sum())
    array = s.reshape(2, *size, 2, *size)
    energies = (layer.energies / layer.energies.sum()).reshape(layer.kernel)
    expected = 0
    for tap in np.ndindex(layer.kernel):
        shift = [-(t - (k - 1) // 2) for t, k in zip(tap, layer.kernel, strict=True)]
        axes = range(1, 1 + len(size)), range(2 + len(size), 2 + 2 * len(size))
        expected = expected + energies[tap] * np.roll(array, shift * 2, axis=(*axes[0], *axes[1]))
    np.testing.assert_allclose(up, expected.reshape(n, n), atol=1e-12)


@pytest.mark.parametrize("law", ["orthogonal", "delta_orthogonal", "gaussian"])
def test_the_metric_is_the_mean_of_the_gram_matrix_given_the_input(law):
    """Over 20,000 kernels, |z| < 5.5 for 136 entries; the metric of another kernel is off by more."""
    layer = Convolution((8,), 2, 3, (3,), 1.4, 0.2, weights=law)
    x = np.random.default_rng(9).normal(size=(1, 8, 2))
    net = mv.Network([layer])
    run = mv.simulate(net, np.moveaxis(x, -1, 1), samples=20_000, engine="explicit", dtype="float64")
    z = ((run.q - run.metric) / run.q_se).values
    assert np.abs(z).max() < 5.5
    np.testing.assert_allclose(mv.predict(net, np.moveaxis(x, -1, 1)).q, run.metric, atol=1e-12)
    other = replace(layer, weights="gaussian" if law != "gaussian" else "delta_orthogonal")
    wrong = mv.predict(mv.Network([other]), np.moveaxis(x, -1, 1)).q
    assert np.abs(((run.q - wrong) / run.q_se).values).max() > 8


@pytest.mark.parametrize("law", ["orthogonal", "delta_orthogonal", "gaussian"])
@pytest.mark.parametrize("channels", [[32, 32, 32], [32, 48, 24]], ids=str)
def test_predictions_agree_with_simulations(law, channels):
    """q, lengths and gradient norms: 5.5 standard errors of 1,500 networks, and for what is not marked exact
    2/32 of the largest, the depth over the width, for what finite width adds. The input has 32 channels, since a
    general kernel's projections do not average over fewer: then the first layer is far from Gaussian, as its mark
    says."""
    net = mv.cnn((32, 6), channels, "erf", 1.5, 0.1, weights=law)
    x = np.random.default_rng(4).normal(size=(2, 32, 6))
    p, m = mv.predict(net, x), mv.simulate(net, x, samples=1500, rng=1)
    for name in ("q", "grad_norm2", "length"):
        room = np.where(p[f"{name}_mark"] == "exact", 0, 2 / 32 * float(np.abs(p[name]).max()))
        assert (np.abs(m[name] - p[name]) < 5.5 * m[f"{name}_se"] + 2e-6 + room).all(), name
    assert (p.q_mark[0] == "exact").all()
    assert (p.q_mark[-1] != "exact").any()


@LAWS
def test_linear_networks_are_exact_at_width_two(law):
    """Means of q and gradient norms through three layers of two channels."""
    net = mv.cnn((2, 5), [2, 2, 2], "linear", 1.2, 0.1, weights=law)
    x = np.random.default_rng(3).normal(size=(2, 2, 5))
    p, m = mv.predict(net, x), mv.simulate(net, x, samples=20_000, dtype="float64")
    for name in ("q", "grad_norm2"):
        assert (p[f"{name}_mark"] == "exact").all()
        assert (np.abs(m[name] - p[name]) < 5.5 * m[f"{name}_se"] + 1e-9).all(), name


# ---- more channels out than in ------------------------------------------------------------------------


@LAWS
def test_added_channels_keep_the_norm_or_the_mean_field_maps(law):
    x = np.random.default_rng(3).normal(size=(1, 6, 2))
    d = np.random.default_rng(4).normal(size=(4000, 1, 6, 5))
    for normalisation, gain in (("isometry", 1.0), ("mean_field", 5 / 2)):
        layer = Convolution((6,), 2, 5, (3,), 1.3, 0.0, law, normalisation=normalisation)
        y, saved = layer.forward(engine(), x, Site(stream_key(3), 0, 0, 4000))
        np.testing.assert_allclose((y**2).sum((1, 2)), 1.3 * gain * (x**2).sum(), rtol=1e-12)
        back = layer.backward(engine(), saved, d)
        ratio = (back**2).sum((1, 2, 3)) / (d**2).sum((1, 2, 3))
        assert layer.random_map.sigma_w2 == pytest.approx(1.3 * gain * 2 / 5)
        assert abs(ratio.mean() / (1.3 * gain * 2 / 5) - 1) < 5.5 * ratio.std() / ratio.mean() / np.sqrt(4000)
        q = mv.predict(mv.Network([layer]), np.moveaxis(x, -1, 1)).q.values[0].reshape(6, 6)
        assert np.trace(q) == pytest.approx((y[0] ** 2).sum() / 5)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"weights": "orthogonal", "padding": "zeros"}, "padding"),
        ({"weights": "delta"}, "weights"),
        ({"normalisation": "isometry"}, "normalisation"),
        ({"weights": "orthogonal", "normalisation": "isometric"}, "normalisation"),
        ({"weights": "orthogonal", "normalisation": "isometry", "channels_out": 1}, "channels_out"),
        ({"weights": "delta_orthogonal", "normalisation": "isometry", "channels_out": 1}, "channels_out"),
        ({"weights": "orthogonal", "kernel": (5,)}, "kernel"),
    ],
    ids=str,
)
def test_bad_orthogonal_convolutions_are_refused_in_one_line(changes, field):
    with pytest.raises(InputError) as caught:
        Convolution(**({"size": (4,), "channels_in": 2, "channels_out": 3, "kernel": (3,)} | changes))
    assert caught.value.field == field
    assert "\n" not in str(caught.value)


def test_one_tap_is_a_haar_matrix_with_any_padding():
    kernels = [layer_of(((4,), (1,)), law, padding="zeros") for law in ("orthogonal", "delta_orthogonal")]
    np.testing.assert_array_equal(*(as_matrix(v) for v in kernels))


# ---- networks -----------------------------------------------------------------------------------------

TOML = """
[network]
architecture = "cnn"
input_shape = [2, 6]
channels = [16, 16, 32]
activation = "tanh"
sigma_w2 = 1.05
weights = "orthogonal"
normalisation = "isometry"
"""


def test_files_and_descriptions_name_the_kernel():
    net = parse(tomllib.loads(TOML), "net").net
    assert net == mv.cnn((2, 6), [16, 16, 32], "tanh", 1.05, weights="orthogonal", normalisation="isometry", name="net")
    assert parse(tomllib.loads(dumps(net)), "net").net == net
    assert eval(repr(net), vars(mv) | {n: getattr(mv, n) for n in mv.__all__}) == net
    run = mv.simulate(net, np.ones((1, 2, 6)), samples=2)
    assert "conv 3 16 σ_w²=1.05 σ_b²=0 orthogonal circular isometry" in run.attrs["network"]


@LAWS
@pytest.mark.parametrize("name", ["explicit", "conditional"])
def test_results_do_not_depend_on_threads_or_chunks(monkeypatch, law, name):
    net = mv.cnn((2, 6), [8, 8], "tanh", 1.05, 0.1, weights=law)
    x = np.random.default_rng(3).normal(size=(2, 2, 6))
    one = mv.simulate(net, x, samples=300, engine=name, threads=1, tangents=1)
    monkeypatch.setattr("mcverify.simulation.simulate.chunk_size", lambda *_: 7)
    cut = mv.simulate(net, x, samples=300, engine=name, threads=2, tangents=1)
    for key in ("q", "metric", "grad_gram", "tangent_gram"):
        np.testing.assert_array_equal(one[key], cut[key])


@settings(max_examples=60, deadline=None)
@given(convolutional_networks())
def test_adjoints_and_lengths_of_every_network(net):
    """Whatever is drawn: Σ gy·dy = Σ gx·dx through all layers, and an isometry of one layer keeps the norm."""
    size, engine_ = math.prod(net.input_shape[:-1]), engine()
    rng = np.random.default_rng(seed_of(net))
    x, dx = rng.normal(size=(1, 2 * size, net.input_dim)), rng.normal(size=(2, 1, 2 * size, net.input_dim))
    tape = chain.forward(net.layers, engine_, x, Site(stream_key(1), 0, 0, 2))
    dy = chain.tangent(tape, engine_, dx)
    gy = rng.normal(size=dy.shape)
    gx = chain.backward(tape, engine_, gy)
    scale = np.sqrt((gx**2).sum() * (dx**2).sum()) + np.sqrt((gy**2).sum() * (dy**2).sum())
    assert abs((gy * dy).sum() - (gx * dx).sum()) <= 1e-11 * scale
    first = net.layers[0]
    if first.normalisation == "isometry":
        np.testing.assert_allclose(
            (tape[0].dy ** 2).sum((1, 2, 3)), first.sigma_w2 * (dx**2).sum((1, 2, 3)), rtol=1e-12
        )


def test_strategies_draw_every_kernel():
    assert minimal(convolutional_networks(), lambda _: True) == mv.cnn((1, 1), [1], "linear", kernel_size=1)
    for law in ("orthogonal", "delta_orthogonal", "rademacher"):
        net = minimal(convolutional_networks(laws=law), lambda n: n.input_dim > 1)
        assert net.layers[0].weights == law
    with pytest.raises(InputError, match="delta_orthogonal"):
        convolutional_networks(laws="delta")


@LAWS
def test_networks_of_orthogonal_kernels_are_verified(law):
    net = mv.cnn((32, 6), [32, 32, 32], "tanh", 1.5, 0.1, weights=law)
    report = mv.verify(net, np.random.default_rng(3).normal(size=(2, 32, 6)), margin=0.1, budget="1e9w")
    assert report.exit_code == 0, [(r.name, r.verdict, r.message) for r in report.results]
