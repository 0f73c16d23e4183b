"""From positions to units: flatten and global average pooling, the layers whose networks stand on two grids."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

import mcverify as mv
from mcverify.claims.generic import generic_claims
from mcverify.errors import InputError, Unpredictable
from mcverify.inputs import checked
from mcverify.kernels.backends import backend
from mcverify.network_file import dumps, parse
from mcverify.random_map import explicit
from mcverify.streams import Site, stream_key
from mcverify.verification import run_claims

CPU = backend("cpu")[1]
SIZE, CHANNELS, INPUTS, UNITS = (2, 3), 2, 2, 3
X = np.random.default_rng(5).normal(size=(INPUTS, 2, *SIZE))


def net(pooling="average", phi="tanh", padding="zeros", width=8):
    return mv.cnn((2, *SIZE), [width] * 2, phi, 1.5, 0.2, readout=UNITS, pooling=pooling, padding=padding)


@pytest.mark.parametrize("layer", [mv.Flatten(SIZE), mv.GlobalAveragePool(SIZE)])
def test_the_layers_do_as_their_definitions_say(layer):
    engine = explicit.engine(CPU, np.dtype(np.float64))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, INPUTS, *SIZE, CHANNELS))
    columns = x.reshape(3, -1, CHANNELS)
    y, saved = layer.forward(engine, columns, Site(stream_key(0), 0, 0, 3))
    wanted = x.reshape(3, INPUTS, -1) if isinstance(layer, mv.Flatten) else x.mean(axis=(2, 3))
    np.testing.assert_allclose(y, wanted, atol=1e-14)
    assert y.shape[-1:] == layer.shape((*SIZE, CHANNELS))
    dy = layer.tangent(engine, saved, columns[:, None])
    np.testing.assert_allclose(dy[:, 0], wanted, atol=1e-14)
    v = rng.normal(size=(3, 1, INPUTS, y.shape[-1]))
    assert (layer.backward(engine, saved, v)[:, 0] * columns).sum() == pytest.approx((v[:, 0] * y).sum())


def test_pooling_sums_in_float64():
    x = np.full((1, 4096, 1), 0.1, np.float32)
    x[0, 0] = 1e4
    y, _ = mv.GlobalAveragePool((64, 64)).forward(explicit.engine(CPU, np.dtype(np.float32)), x, None)
    assert y.dtype == np.float32
    assert y[0, 0, 0] == np.float32(x.astype(np.float64).mean())


@pytest.mark.parametrize("pooling", ["flatten", "average"])
@pytest.mark.parametrize("padding", ["circular", "zeros"])
def test_linear_networks_are_predicted_exactly_at_width_two(pooling, padding):
    """Second moments by weights of NumPy's own, drawn many times: no code of the package but the prediction."""
    rng = np.random.default_rng(11)
    n, samples = 2, 200_000
    layer = mv.Convolution(SIZE, 2, n, (3, 3) if padding == "zeros" else (2, 3), 1.5, 0.2, padding=padding)
    top = mv.Dense(n * (6 if pooling == "flatten" else 1), UNITS, 0.8, 0.1)
    pool = {"flatten": mv.Flatten, "average": mv.GlobalAveragePool}[pooling](SIZE)
    p = mv.predict(mv.Network([layer, pool, top]), X)
    assert (p.gram_mark.values == "exact").all()
    assert (p.grad_gram_mark.values == "exact").all()

    x = X.reshape(INPUTS, 2, *SIZE)
    w = rng.normal(size=(samples, n, 2, *layer.kernel)) * np.sqrt(1.5 / (2 * np.prod(layer.kernel)))
    b = rng.normal(size=(samples, n)) * np.sqrt(0.2)
    h = np.zeros((samples, INPUTS, n, *SIZE)) + b[:, None, :, None, None]
    start = [(k - 1) // 2 for k in layer.kernel]
    for i in range(layer.kernel[0]):
        for j in range(layer.kernel[1]):
            shifted = np.zeros_like(x)
            for r in range(SIZE[0]):
                for c in range(SIZE[1]):
                    at = (r + i - start[0], c + j - start[1])
                    if padding == "circular":
                        at = (at[0] % SIZE[0], at[1] % SIZE[1])
                    if 0 <= at[0] < SIZE[0] and 0 <= at[1] < SIZE[1]:
                        shifted[..., r, c] = x[..., at[0], at[1]]
            h += np.einsum("snm,amrc->sanrc", w[..., i, j], shifted)
    units = h.transpose(0, 1, 3, 4, 2).reshape(samples, INPUTS, -1) if pooling == "flatten" else h.mean(axis=(3, 4))
    v = rng.normal(size=(samples, UNITS, units.shape[-1])) * np.sqrt(0.8 / units.shape[-1])
    y = np.einsum("smu,sau->sam", v, units) + rng.normal(size=(samples, 1, UNITS)) * np.sqrt(0.1)
    gram = np.einsum("sam,sbm->sab", y, y) / UNITS
    # ∂E/∂h for the cotangent e_a of unit expected norm, the same for no two inputs.
    e = rng.normal(size=(samples, INPUTS, UNITS)) / np.sqrt(UNITS)
    g = np.einsum("smu,sam->sau", v, e) / (1 if pooling == "flatten" else np.sqrt(6))
    norms = (g**2).sum(axis=-1)
    for measured, predicted in ((gram, p.gram.values[-1]), (norms, p.grad_norm2.values[0])):
        z = (measured.mean(axis=0) - predicted) / (measured.std(axis=0) / np.sqrt(samples))
        assert np.abs(z).max() < norm.isf(1e-4 / 2 / z.size)


def scores(network, p, m):
    """z of every entry that is marked exact, by variable."""
    out = {}
    for name in ("gram", "length", "chi", "grad_norm2"):
        se = np.maximum(m[f"{name}_se"].values, 1e-6)
        out[name] = np.abs((m[name].values - p[name].values) / se)[p[f"{name}_mark"].values == "exact"]
    return out


@pytest.mark.parametrize("pooling", ["flatten", "average"])
@pytest.mark.parametrize("engine", ["explicit", "conditional"])
def test_what_is_marked_exact_is_so_at_width_two(pooling, engine):
    """ReLU, three maps. Below the mean over positions the gradient of the first one is only a limit: the same δ at two
    positions meets two taps of a kernel that φ′ has seen."""
    network = net(pooling, "relu", width=2)
    p, m = mv.predict(network, X), mv.simulate(network, X, samples=20_000, engine=engine, rng=3)
    z = scores(network, p, m)
    assert max(v.max() for v in z.values()) < norm.isf(1e-4 / 2 / sum(v.size for v in z.values()))
    norms = p.grad_norm2_mark.values
    assert (norms[1:] == "exact").all()
    assert (norms[0] == ("exact" if pooling == "flatten" else "limit")).all()
    off = np.abs(m.grad_norm2 / p.grad_norm2 - 1).values[0]
    assert pooling == "flatten" or off.min() > 0.01  # at width two the limit is measurably off


def test_a_given_cotangent_of_a_convolution_is_no_longer_exact_two_maps_down():
    network = mv.cnn((2, *SIZE), [2, 2, 2], "relu", 1.5, 0.2, padding="zeros")
    for cotangent, exact in (("independent", True), (np.ones((INPUTS, *SIZE, 2)), False)):
        p = mv.predict(network, X, cotangent=cotangent)
        m = mv.simulate(network, X, samples=20_000, cotangent=cotangent, rng=4)
        z = scores(network, p, m)
        assert max(v.max() for v in z.values()) < norm.isf(1e-4 / 2 / sum(v.size for v in z.values()))
        assert (p.grad_norm2_mark.values[0] == "exact").all() == exact


def test_what_stands_on_another_grid_has_no_covariance_between_positions():
    p, m = mv.predict(net(), X), mv.simulate(net(), X, samples=4)
    for values in (p.q, p.c, m.q, m.metric):
        assert np.isfinite(values[:2]).all()
        assert np.isnan(values[2]).all()
    assert (p.q_mark[2] == "none").all()
    assert (p.c_mark[2] == "none").all()
    assert np.isfinite(m.gram).all()
    assert p.gram.dims == m.gram.dims == ("layer", "input", "input_2")
    np.testing.assert_allclose(p.gram[0, 0, 1], np.einsum("rcrc->rc", p.q.values[0, 0, :, :, 1]).mean())


@pytest.mark.parametrize("pooling", ["flatten", "average"])
def test_verify_follows_a_network_through_its_readout(pooling):
    network = net(pooling, width=64)
    x = checked(X, network.input_shape)
    claims = generic_claims(network, x, 0.1, 1e9)
    names = [c.name for c in claims]
    assert "network.gradient" in names
    report = run_claims([c for c in claims if ".limit." not in c.name])
    assert {r.name: r.verdict for r in report.results} == {r.name: "confirmed" for r in report.results}
    (steps,) = [r for r in report.results if r.name.endswith("one_step_q")]
    assert steps.labels == (["layer 2", "layer 3"] if pooling == "flatten" else ["layer 2"])


def test_readouts_are_read_from_files_and_written():
    for pooling in ("flatten", "average"):
        network = net(pooling)
        assert parse_text(dumps(network)).layers == network.layers
    text = """
        [network]
        architecture = "cnn"
        input_shape = [2, 2, 3]
        channels = [8, 8]
        activation = "tanh"
        sigma_w2 = 1.5
        sigma_b2 = 0.2
        padding = "zeros"
        readout = 3
        pooling = "flatten"
    """
    assert parse_text(text).layers == net("flatten").layers


def parse_text(text):
    import tomllib

    return parse(tomllib.loads(text)).net


def test_a_cotangent_of_given_entries_is_refused_below_flatten_alone():
    flat = mv.Network([mv.Convolution(SIZE, 2, 4, (1, 1)), mv.Flatten(SIZE)])
    with pytest.raises(Unpredictable, match="cotangent of given entries"):
        mv.predict(flat, X, cotangent=np.ones((INPUTS, 24)))
    # A random map in between makes all units alike.
    assert np.isfinite(mv.predict(net("flatten"), X, cotangent=np.ones((INPUTS, UNITS))).grad_norm2).all()


def test_bad_input_gets_one_line():
    with pytest.raises(InputError, match="pooling: got 'max'; allowed: average, flatten"):
        mv.cnn((2, 3), [4], "relu", readout=2, pooling="max")
    with pytest.raises(InputError, match=r"size: got \(2, 2\); must match the grid"):
        mv.Network([mv.Convolution(SIZE, 2, 4, (1, 1)), mv.Flatten((2, 2))])
    with pytest.raises(InputError, match=r"size: .* one or two axes"):
        mv.GlobalAveragePool((2, 2, 2))
    with pytest.raises(InputError, match="fan_in"):
        mv.Network([mv.Convolution(SIZE, 2, 4, (1, 1)), mv.Flatten(SIZE), mv.Dense(4, 2)])
    with pytest.raises(Unpredictable, match="units of several positions"):
        mv.predict(mv.Network([mv.Convolution(SIZE, 2, 4, (1, 1)), mv.Flatten(SIZE), mv.Activation("relu")]), X)


# ---- with the rest of the program -----------------------------------------------------------------------


def test_what_another_grid_leaves_blank_is_not_counted_as_non_finite():
    assert mv.simulate(net(), X, samples=8).attrs["nonfinite"] == 0
    overflow = mv.cnn((2, *SIZE), [4, 4], "linear", 1e38, readout=2, padding="zeros")
    assert mv.simulate(overflow, X, samples=8).attrs["nonfinite"] == 8


def test_measured_positions_are_checked_by_their_gram_matrix():
    network = mv.cnn((2, *SIZE), [64] * 2, "tanh", 1.5, 0.2, padding="zeros")
    run = mv.simulate(network, X, samples=1024, replicates=True, rng=1)
    verdicts = {r.name: r.verdict for r in mv.check(network, run, X, margin=0.2).results}
    assert verdicts["gram.reference"] == verdicts["gram.gain"] == "confirmed"
    wrong = mv.check(network, {"gram": 1.5 * run.gram.values}, X, margin=0.2)
    assert any(r.verdict == "refuted" for r in wrong.results)
    with pytest.raises(InputError, match=r"samples\.q: got 'between positions'; give gram instead"):
        mv.check(network, {"q": run.q.values}, X)
