"""Large grids: local moments against whole ones, states found again, what is left out; and the stationary form."""

from __future__ import annotations

import math

import numpy as np
import pytest

import mcverify as mv
from mcverify import results
from mcverify.inputs import with_gram
from mcverify.kernels.patches import Window
from mcverify.layers import chain, taps_cpu
from mcverify.layers.flatten import Flatten
from mcverify.layers.layer import Grad, State
from mcverify.layers.pooling import GlobalAveragePool
from mcverify.theory.propagation import local_moments, propagate

# -------------------------------------------------------------------------------- local and whole moments


def images(inputs: int, channels: int, *grid: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((inputs, channels, *grid))


def columns_of(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, 1, -1)


def layers_of(phi: str, padding: str, keep: float = 1.0, sigma_b2: float = 0.1) -> list:
    conv = [mv.Convolution((3, 4), a, 5, (3, 2), 1.7, sigma_b2, padding=padding) for a in (2, 5, 5)]
    masks = [mv.Dropout(keep)] * (keep < 1)
    return [layer for c in conv for layer in (c, mv.Activation(phi), *masks)]


def brute_pull_back(layers, states, cov):
    """Whole gradient moments, from the first layer's input up: by the layers' own whole form, from a whole seed."""
    grads = [Grad(cov, np.ones(cov.shape, bool))]
    for layer, state in zip(reversed(layers), reversed(states[:-1]), strict=True):
        grads.append(layer.pull_back(state, grads[-1]))
    return grads[::-1]


@pytest.mark.parametrize("padding", ["circular", "zeros"])
@pytest.mark.parametrize(("phi", "keep", "sigma_b2"), [
    ("tanh", 1.0, 0.1), ("relu", 1.0, 0.1), ("relu", 1.0, 0.0), ("linear", 1.0, 0.0), ("leaky_relu(0.1)", 0.7, 0.1),
])  # fmt: skip
def test_local_gradients_are_the_whole_ones(phi, keep, sigma_b2, padding):
    """Between different positions a whole moment stays 0, and the local one is the rest of it, marks included."""
    net = mv.Network(layers_of(phi, padding, keep, sigma_b2))
    x = columns_of(images(2, 2, 3, 4))
    states = chain.propagate(net.layers, State.of_inputs(x))
    for cotangent, between in (("independent", np.eye(2)), ("shared", np.ones((2, 2)))):
        whole = brute_pull_back(net.layers[: net.end], states[: net.end + 1], np.kron(between, np.eye(12) / 12))
        p = propagate(net, x, cotangent)
        apart = ~np.kron(np.ones((2, 2), bool), np.eye(12, dtype=bool))
        for l, i in enumerate(net.maps):
            assert not whole[i + 1].cov[apart].any()
            cov, exact = local_moments(whole[i + 1], 12)
            np.testing.assert_allclose(p.grad_gram[l], cov.sum(axis=0), rtol=1e-13)
            np.testing.assert_array_equal(p.grad_exact[l], exact.all(axis=0))


@pytest.mark.parametrize("padding", ["circular", "zeros"])
@pytest.mark.parametrize(("size", "kernel"), [((5, 4), (3, 3)), ((4, 3), (2, 3)), ((9,), (4,)), ((3,), (1,))])
def test_compiled_mean_over_taps_is_the_plain_one(size, kernel, padding):
    layer = mv.Convolution(size, 1, 1, kernel, 1.7, 0.3, padding=padding)
    x = np.random.default_rng(1).standard_normal((3 * int(np.prod(size)), 4))
    cov = x @ x.T
    weights = np.linspace(0.5, 1.5, math.prod(kernel))
    got = taps_cpu.weighted_sum(cov, Window(size, kernel, padding), 1.7 * weights, 0.3)
    each = [w * one.mean_met(cov, 2) for w, one in zip(weights, taps_alone(layer), strict=True)]
    np.testing.assert_allclose(got, 1.7 * np.sum(each, axis=0) + 0.3, rtol=1e-13, atol=1e-13 * np.abs(cov).max())


class TapAlone(mv.Convolution):
    """All the weight on one tap."""

    tap = 0

    @property
    def energies(self):
        return np.eye(math.prod(self.kernel))[self.tap]


def taps_alone(layer):
    out = []
    for tap in range(math.prod(layer.kernel)):
        one = TapAlone(layer.size, 1, 1, layer.kernel, padding=layer.padding)
        object.__setattr__(one, "tap", tap)
        out.append(one)
    return out


@pytest.mark.parametrize(("weights", "padding"), [
    ("orthogonal", "circular"), ("delta_orthogonal", "circular"), ("gaussian", "circular"), ("gaussian", "zeros"),
])  # fmt: skip
def test_large_covariances_weigh_the_taps_as_small_ones_do(weights, padding, monkeypatch):
    layer = mv.Convolution((3, 4), 4, 4, (3, 2), 1.7, 0.3, weights, padding)
    x = np.random.default_rng(1).standard_normal((24, 4))
    state = State(x @ x.T, "unknown", False, np.ones((24, 24), bool))
    grad = Grad(x @ x.T, np.triu(np.ones((24, 24), bool), 20))
    small, below = layer.propagate(state), layer.pull_back(state, grad)
    monkeypatch.setattr("mcverify.layers.convolution.SMALL", 1)
    np.testing.assert_allclose(layer.propagate(state).cov, small.cov, rtol=0, atol=1e-14 * np.abs(small.cov).max())
    again = layer.pull_back(state, grad)
    np.testing.assert_allclose(again.cov, below.cov, rtol=0, atol=1e-14 * np.abs(below.cov).max())
    np.testing.assert_array_equal(again.exact, below.exact)


# ------------------------------------------------------------------------------------ without all pairs

HEADS = {
    "none": [], "flatten": [Flatten((3, 4)), mv.Dense(60, 4)],
    "average": [GlobalAveragePool((3, 4)), mv.Dense(5, 4)],
}  # fmt: skip


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("phi", ["tanh", "relu"])
def test_states_found_again_change_nothing(phi, head, monkeypatch):
    net = mv.Network([*layers_of(phi, "zeros"), *HEADS[head]])
    x = columns_of(images(2, 2, 3, 4))
    given = np.random.default_rng(4).standard_normal((2, *net.shapes[net.end]))
    cotangents = ["independent", "shared", *([] if head == "flatten" else [given])]
    kept = [propagate(net, x, c) for c in cotangents]
    monkeypatch.setattr(results, "holds_pairs", lambda layers, columns: False)
    for cotangent, p in zip(cotangents, kept, strict=True):
        other = propagate(net, x, cotangent)
        assert not other.covs
        for name in ("gram", "length", "chi", "grad_gram", "grad_exact", "length_exact", "chi_exact", "correlations"):
            np.testing.assert_array_equal(getattr(p, name), getattr(other, name))


def test_predict_and_simulate_leave_out_the_same(monkeypatch):
    net, x = mv.cnn((2, 3, 4), [6, 6], "tanh", 1.5, 0.1, readout=3), images(2, 2, 3, 4)
    whole, measured_whole = mv.predict(net, x), mv.simulate(net, x, samples=400)
    monkeypatch.setattr(results, "holds_pairs", lambda layers, columns: False)
    p, m = mv.predict(net, x), mv.simulate(net, x, samples=400)
    assert "left_out" not in whole.attrs
    assert "24 columns" in p.attrs["left_out"] == m.attrs["left_out"]
    assert {v.removesuffix("_mark") for v in p} == {v.removesuffix("_se") for v in m}
    assert p.q_local.dims == m.c_local.dims == ("layer", "input", "input_2", "row", "column")
    pairs = (whole, p, ("q", "c", "q_mark", "c_mark")), (measured_whole, m, ("q", "q_se", "c", "c_se"))
    for wide, narrow, names in pairs:
        for name in names:
            local, a = f"{name[0]}_local{name[1:]}", wide[name].values
            for (r, s), _ in np.ndenumerate(np.empty((3, 4))):
                here, other = a[:, :, r, s, :, r, s], narrow[local].values[..., r, s]
                if here.dtype.kind == "f":
                    np.testing.assert_allclose(here, other, rtol=1e-5, atol=1e-7)  # float32 sums, grouped otherwise
                else:
                    np.testing.assert_array_equal(here, other)


def test_what_does_not_fit_is_refused_in_a_line():
    net = mv.cnn((1, 128, 128), [2], "relu", 2.0)
    with pytest.raises(mv.InputError, match=r"16384 columns.*GB.*predict_stationary") as caught:
        mv.predict(net, np.ones((1, 1, 128, 128)))
    assert "\n" not in str(caught.value)


def test_a_grid_of_many_columns_is_predicted_as_its_parts():
    """200 columns go by compiled sums; 100 of them alone do not."""
    net, x = mv.cnn((3, 10, 10), [4] * 4, "tanh", 1.5, 0.1), images(2, 3, 10, 10)
    both, one = mv.predict(net, x), mv.predict(net, x[:1])
    assert "q" in both
    np.testing.assert_allclose(both.q.values[:, 0, :, :, 0], one.q.values[:, 0, :, :, 0], rtol=3e-12, atol=3e-12)
    np.testing.assert_allclose(both.grad_norm2[:, 0], one.grad_norm2[:, 0], rtol=1e-11)
    np.testing.assert_array_equal(both.q_mark.values[:, 0, :, :, 0], one.q_mark.values[:, 0, :, :, 0])


# ------------------------------------------------------------------------------------- the stationary form


def invariant(inputs: int, *grid: int) -> tuple[np.ndarray, np.ndarray]:
    """A translation-invariant covariance (input, input, *displacement), and images that have it exactly."""
    z = np.random.default_rng(8).standard_normal((inputs, *grid))
    z[1] += 0.7 * z[0]
    f = np.fft.fftn(z, axes=range(1, z.ndim))
    cov = np.fft.ifftn(f.conj()[:, None] * f[None], axes=range(2, z.ndim + 1)).real / np.prod(grid)
    cov += 0.3 * np.eye(inputs).reshape(inputs, inputs, *[1] * len(grid))  # what all positions have in common
    places = list(np.ndindex(*grid))
    whole = np.array([
        [cov[(a, b, *np.subtract(s, r) % grid)] for b in range(inputs) for s in places]
        for a in range(inputs) for r in places
    ])  # fmt: skip
    x = with_gram(whole, len(whole)).reshape(inputs, *grid, len(whole))
    return cov, np.moveaxis(x, -1, 1)


CASES = [
    (phi, grid, head, keep, weights)
    for phi in ("tanh", "relu", "erf", "leaky_relu(0.1)", "linear")
    for grid in ((3, 4), (5,))
    for head, keep, weights in ((None, 1.0, "gaussian"), ("flatten", 1.0, "gaussian"), ("average", 0.8, "uniform"))
]


@pytest.mark.parametrize(("phi", "grid", "head", "keep", "weights"), CASES)
def test_stationary_form_is_the_full_propagation(phi, grid, head, keep, weights):
    compare(phi, grid, head, keep, weights, wrong=0.0)


def test_the_comparison_sees_a_wrong_covariance():
    with pytest.raises(AssertionError):
        compare(*CASES[0], wrong=1e-6)


def compare(phi, grid, head, keep, weights, wrong):
    """The stationary form, of a covariance off by `wrong` everywhere, against every variable of `predict`."""
    cov, x = invariant(2, *grid)
    options = {"readout": 3, "pooling": head} if head else {}
    net = mv.cnn((x.shape[1], *grid), [4] * 4, phi, 1.6, 0.05, weights, **options)
    if keep < 1:
        masks = {layer: [mv.Dropout(keep)] * isinstance(layer, mv.Activation) for layer in net.layers}
        net = mv.Network([v for layer in net.layers for v in (layer, *masks[layer])])
    cov = cov + wrong
    for cotangent in ("independent", "shared"):
        full, fast = mv.predict(net, x, cotangent=cotangent), mv.predict_stationary(net, cov, cotangent=cotangent)
        for name in ("gram", "length", "chi", "grad_gram", "grad_norm2"):
            np.testing.assert_allclose(fast[name], full[name], rtol=1e-10, atol=1e-12)
            np.testing.assert_array_equal(fast[f"{name}_mark"], full[f"{name}_mark"])
        origin = (0,) * len(grid)
        for name in ("q", "c"):
            here = full[name].values[(slice(None), slice(None), *origin)]
            np.testing.assert_allclose(fast[f"{name}_displaced"], here, rtol=1e-10, atol=1e-12)
            marks = full[f"{name}_mark"].values[(slice(None), slice(None), *origin)]
            np.testing.assert_array_equal(fast[f"{name}_displaced_mark"], marks)


def test_stationary_form_refuses_what_it_cannot_treat():
    cov, _ = invariant(2, 3, 4)
    net = mv.cnn((2, 3, 4), [4] * 2, "tanh", 1.5)
    with pytest.raises(mv.Unpredictable, match="padding zeros"):
        mv.predict_stationary(mv.cnn((2, 3, 4), [4], "tanh", padding="zeros"), cov)
    with pytest.raises(mv.Unpredictable, match="positions"):
        mv.predict_stationary(mv.mlp(2, [4], "tanh"), cov)
    with pytest.raises(mv.Unpredictable, match="not Gaussian"):
        mv.predict_stationary(mv.Network([*net.layers, mv.Activation("relu")]), cov)
    lopsided = cov + np.arange(4)
    for bad, match in ((cov[0], "shape"), (cov[..., :3], "shape"), (lopsided, "a, b, d"), (cov * np.nan, "finite")):
        with pytest.raises(mv.InputError, match=match):
            mv.predict_stationary(net, bad)
    with pytest.raises(mv.InputError, match="cotangent"):
        mv.predict_stationary(net, cov, cotangent="own")
