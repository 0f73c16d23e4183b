"""Convolutional networks against exact answers derived apart from this code: paths enumerated in rational arithmetic,
closed forms and quadrature (tests/known_answers/convolution.json). Rationals are held to 1e-12 of the largest entry,
which leaves a hundred roundings of sums of positive and negative terms; tanh to what the package says of itself."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import norm

import mcverify as mv
from mcverify.errors import InputError
from mcverify.expectations import gaussian
from mcverify.inputs import checked
from mcverify.kernels.backends import backend
from mcverify.layers import chain
from mcverify.layers.layer import Grad, State
from mcverify.random_map import conditional, explicit
from mcverify.simulation import observables
from mcverify.simulation.simulate import sample
from mcverify.simulation.trace import Plan
from mcverify.streams import stream_key

CPU = backend("cpu")[1]
POOLS = {"flatten": mv.Flatten, "average": mv.GlobalAveragePool}
LAWS = {"uniform": "gaussian", "binomial": "orthogonal"}  # which weights have taps of these energies


@pytest.fixture
def rows(known_answers):
    """The rows of one kind."""
    return lambda kind: [r for r in known_answers("convolution") if r["kind"] == kind]


def numbers(line):
    return [float(Fraction(s)) for s in line.split()]


def matrix(triangle):
    """(column, column), from its rows from the diagonal on."""
    out = np.zeros((len(triangle), len(triangle)))
    for i, line in enumerate(triangle):
        out[i, i:] = out[i:, i] = numbers(line)
    return out


def signal(row, name):
    """(input, channel, *positions)."""
    return np.array([[numbers(channel) for channel in given] for given in row[name]]).reshape(2, -1, *row["grid"])


def sigmas(row):
    return float(Fraction(row["sigma_w2"])), float(Fraction(row["sigma_b2"]))


def convolutions(row, **changes):
    """The convolutions of a row, from below."""
    given = {"padding": row["padding"]} | changes
    return [
        mv.Convolution(tuple(row["grid"]), below, above, tuple(row["kernel"]), *sigmas(row), **given)
        for below, above in itertools.pairwise(row["channels"])
    ]


def gradients(net, x, cotangents):
    """Theory's gradient moments at every map, (column, column) each; cotangents (column, units) at the output."""
    states = chain.propagate(net.layers, State.of_inputs(checked(x, net.input_shape)))
    moments = cotangents @ cotangents.T
    grads = chain.pull_back(net.layers, states, Grad(moments, np.ones(moments.shape, bool), exchangeable=False))
    return [everywhere(grads[i + 1]) for i in net.maps]


def everywhere(grad):
    """The moments between all columns; local ones are zero between different positions."""
    if not grad.local:
        return grad
    alone = np.eye(len(grad.cov))
    cov, exact = (
        np.einsum("pab,pq->apbq", v, alone).reshape((len(alone) * v.shape[1],) * 2)
        for v in (grad.cov, (~grad.exact).astype(float))
    )
    return Grad(cov, exact == 0)


def columns(v):
    """(input, channel, *positions) → (column, channel)."""
    return np.moveaxis(v, 1, -1).reshape(-1, v.shape[1])


def covariance(q):
    """(…, column, column) from q of a Dataset, (…, input, *positions, input, *positions)."""
    axes = (q.ndim - 1) // 2
    size = math.prod(q.shape[1 : 1 + axes])
    return q.values.reshape(len(q), size, size)


def close(found, exact, tolerance=1e-12):
    np.testing.assert_allclose(found, exact, rtol=0, atol=tolerance * np.abs(exact).max())


# ---- linear networks ----------------------------------------------------------------------------------


def test_linear_networks_are_predicted_to_the_last_pair(rows):
    """q of every layer and gradient moments, at every pair of (input, position); all are marked exact."""
    for r in rows("linear"):
        net, x, v = mv.Network(convolutions(r)), signal(r, "x"), signal(r, "v")
        p = mv.predict(net, x, cotangent=np.moveaxis(v, 1, -1))
        assert (p.q_mark == "exact").all()
        assert (p.grad_gram_mark == "exact").all()
        moments = gradients(net, x, columns(v))
        for l, (q, grad) in enumerate(zip(covariance(p.q), moments, strict=True)):
            close(q, matrix(r["covariance"][l]))
            exact = matrix(r["gradient_moment"][l])
            close(grad.cov, exact)
            assert grad.exact.all()
            close(p.grad_gram[l], np.einsum("apbp->ab", exact.reshape(2, len(exact) // 2, 2, -1)))
    assert len(rows("linear")) == 11


@pytest.mark.parametrize("build", [explicit.engine, conditional.engine])
def test_sampled_linear_networks_have_the_enumerated_moments(rows, build):
    """Means over 40,000 networks of all q and gradient moments, on a line and on a torus. Chance passes the
    bound with probability 10⁻⁶ were they Gaussian, times the exp(γ z³/3√N) = e⁵ by which the largest skewness of single
    networks, γ = 12, may raise it: below 2 in 10⁴."""
    cases = [r for r in rows("linear") if (r["grid"], r["kernel"]) in (([5], [2]), ([3, 3], [3, 2]))]
    assert {r["padding"] for r in cases} == {"circular", "zeros"}
    bound = norm.isf(1e-6 / 2 / sum(len(m) * (len(m) + 1) for r in cases for m in r["covariance"]))
    for r in cases:
        net, x = mv.Network(convolutions(r)), signal(r, "x")
        plan = Plan(
            net, checked(x, net.input_shape), build(CPU, np.dtype(np.float64)), stream_key(5),
            np.moveaxis(signal(r, "v"), 1, -1),
        )  # fmt: skip
        found, _ = sample(plan, {"covariance": observables.q, "gradient_moment": deltas}, 0, 40_000)
        for name, moments in found.items():
            exact = np.stack([matrix(m) for m in r[name]])
            sampled = moments.standard_error > 1e-12  # the last layer's δ is given
            np.testing.assert_allclose(moments.mean[~sampled], exact[~sampled], rtol=1e-12, atol=1e-12)
            z = (moments.mean - exact)[sampled] / moments.standard_error[sampled]
            assert np.abs(z).max() < bound


def deltas(trace):
    """δ^l(a, p) · δ^l(b, p′), (replicate, layer, column, column)."""
    return np.stack([CPU.gram(r.gy[:, 0], r.gy[:, 0]) for r in trace.maps], axis=1)


def test_a_kernel_longer_than_its_axis_lies_between_zeros_alone(rows):
    (r,) = (r for r in rows("linear") if any(k > n for k, n in zip(r["kernel"], r["grid"], strict=True)))
    assert r["padding"] == "zeros"  # its numbers are held with the others'
    with pytest.raises(InputError, match="wider than the circle"):
        convolutions(r, padding="circular")


# ---- readouts -----------------------------------------------------------------------------------------


def test_readouts_are_predicted_exactly(rows):
    """Second moments of the outputs, and gradient moments at both convolutions, all pairs of positions."""
    for r in rows("readout"):
        pool = POOLS[r["readout"]](tuple(r["grid"]))
        units = r["channels"][-1] * (math.prod(r["grid"]) if r["readout"] == "flatten" else 1)
        net, x = mv.Network([*convolutions(r), pool, mv.Dense(units, 2, *sigmas(r))]), signal(r, "x")
        g = np.array([numbers(line) for line in r["g"]])
        p = mv.predict(net, x, cotangent=g)
        close(p.gram[-1], matrix(r["output_moment"]))
        assert (p.gram_mark == "exact").all()
        assert (p.grad_gram_mark == "exact").all()
        for grad, exact in zip(gradients(net, x, g), r["gradient_moment"], strict=False):
            close(grad.cov, matrix(exact))
            assert grad.exact.all()
    assert len(rows("readout")) == 10


# ---- one nonlinear step -------------------------------------------------------------------------------


def test_one_nonlinear_step(rows):
    """ReLU is in closed form, to rounding. For tanh the package's own bounds on E φφ and E φ′φ′ say how far q² and δ¹
    may be off: σ_w² times the first, and the second in proportion to the cotangents it multiplies."""
    for r in rows("one_step"):
        below, above = convolutions(r)
        net, x, v = mv.Network([below, mv.Activation(r["activation"]), above]), signal(r, "x"), signal(r, "v")
        first, second = (matrix(m) for m in r["covariance"])
        p = mv.predict(net, x)
        assert (p.q_mark == "exact").all()
        pairs = np.diag(first)[:, None], first, np.diag(first)[None, :]
        phi = net.layers[1].phi
        values, slopes = (f(phi, *pairs) for f in (gaussian.covariance, gaussian.derivative_covariance))
        assert max(values.error.max(), slopes.error.max()) < 1e-11  # else the bounds below would say little
        q, (grad, _) = covariance(p.q), gradients(net, x, columns(v))
        close(q[0], first)
        close(q[1], second, 1e-12 + above.sigma_w2 * values.error.max() / second.max())
        exact = matrix(r["gradient_moment"])
        close(grad.cov, exact, 1e-12 + (slopes.error / slopes.value).max())
    assert {(r["activation"], r["padding"]) for r in rows("one_step")} == {
        (phi, padding) for phi in ("relu", "tanh") for padding in ("circular", "zeros")
    }  # fmt: skip


# ---- borders of zeros ---------------------------------------------------------------------------------


def test_he_relu_profiles_between_zeros(rows):
    """Exact at every width, here at width 3, and marked so; the rival has the bias inside the average over taps."""
    for r in rows("border_relu"):
        right, rival = (profiles(r, name) for name in ("q", "rival_bias_averaged"))
        p = mv.predict(he_relu(r, 3), np.ones((1, 1, r["positions"])))
        close(diagonal(p.q), right)
        assert (np.diagonal(p.q_mark.values[:, 0, :, 0], axis1=1, axis2=2) == "exact").all()
        assert sigmas(r)[1] == 0 or (np.abs(diagonal(p.q) - rival)[1:, [0, -1]] > 0.03).all()


def test_sampled_he_relu_profiles_exclude_the_bias_inside_the_average(rows):
    """48 means of 16,000 networks within 5.5 standard errors, which chance passes twice in 10⁶: at width 64 single
    networks are not skewed enough to matter. At the border the rival is 5.5 off from layer 3 on."""
    (r,) = (r for r in rows("border_relu") if sigmas(r)[1] > 0)
    m = mv.simulate(he_relu(r, 64), np.ones((1, 1, r["positions"])), samples=16_000, rng=1)
    z, z_rival = ((diagonal(m.q) - profiles(r, name)) / diagonal(m.q_se) for name in ("q", "rival_bias_averaged"))
    assert np.abs(z).max() < 5.5
    assert np.abs(z_rival[2:, [0, -1]]).min() > 5.5


def profiles(row, name):
    """(layer, position)."""
    return np.array([numbers(line) for line in row[name]])


def he_relu(row, width):
    """As many layers as the row tells of."""
    return mv.cnn((1, row["positions"]), [width] * len(row["q"]), "relu", *sigmas(row), padding="zeros")


def diagonal(q):
    """(layer, position) of one input."""
    return np.diagonal(covariance(q), axis1=1, axis2=2)


def test_tanh_settles_on_the_profile_between_zeros(rows):
    """80 layers: the slowest mode of the lengths shrinks by 0.96 dQ/dq = 0.53 in each, to 1e-22. What a layer errs,
    σ_w² times the package's bound on ⟨φ²⟩, adds up to less than 1/(1 - 0.53) < 3 times that."""
    (r,) = rows("border_tanh")
    layers = convolutions({**r, "grid": [r["positions"]], "kernel": [3], "channels": [1, 2, 2], "padding": "zeros"})
    state = State.of_inputs(np.ones((1, r["positions"], 1)))
    (state,) = chain.propagate(layers[:1], state)[1:]
    for _ in range(79):
        state = chain.propagate([mv.Activation("tanh"), layers[1]], state)[-1]
    error = gaussian.second_moment("tanh", state.q).error.max()
    close(state.q, np.array(numbers(r["q"])), 1e-14 + 3 * sigmas(r)[0] * error / state.q.min())


def test_modes_between_zeros(rows):
    """The average over taps multiplies each mode by its eigenvalue, and the slowest one at every displacement."""
    (r,) = rows("border_modes")
    n = r["positions"]
    layer = mv.Convolution((n,), 1, 1, (3,), padding="zeros")
    for m, eigenvalue in enumerate(numbers(r["eigenvalues"]), start=1):
        mode = np.sin(m * np.pi * np.arange(1, n + 1) / (n + 1))
        np.testing.assert_allclose(layer.mean_met(mode), eigenvalue * mode, atol=1e-14)
    for d, eigenvalue in enumerate(numbers(r["largest"])):
        mode = np.diag(np.sin(np.pi * np.arange(1, n - d + 1) / (n - d + 1)), d)
        np.testing.assert_allclose(layer.mean_met(mode, 2), eigenvalue * mode, atol=1e-14)


# ---- modes on a circle --------------------------------------------------------------------------------


@pytest.mark.parametrize("taps", LAWS)
def test_modes_on_a_circle(rows, taps):
    """e^{2πi f·p/n} at every displacement of two positions, and its adjoint's conjugate, to rounding."""
    cases = [r for r in rows("modes") if r["taps"] == taps]
    assert len(cases) > 1
    for r in cases:
        grid = tuple(r["grid"])
        layer = mv.Convolution(grid, 1, 1, tuple(r["kernel"]), weights=LAWS[taps])
        points = np.array(list(np.ndindex(*grid)))
        partners = [np.ravel_multi_index(((points + d) % grid).T, grid) for d in points]
        spectrum = np.array(numbers(r["real"])) + 1j * np.array(numbers(r["imaginary"]))
        everywhere = np.ones((len(points),) * 2, bool)
        state = State(np.eye(len(points)), "gaussian", True, everywhere)
        for f, eigenvalue in zip(points, spectrum, strict=True):
            wave = np.exp(2j * np.pi * (points * f / grid).sum(axis=1))
            for partner in partners:
                mode = np.zeros((len(points),) * 2, complex)
                mode[np.arange(len(points)), partner] = wave
                down = layer.mean_met(mode.real, 2) + 1j * layer.mean_met(mode.imag, 2)
                np.testing.assert_allclose(down, eigenvalue * mode, atol=1e-14)
                real, imag = (layer.pull_back(state, Grad(part, everywhere)).cov for part in (mode.real, mode.imag))
                np.testing.assert_allclose(real + 1j * imag, np.conj(eigenvalue) * mode, atol=1e-14)


def test_where_the_modes_stand(rows):
    """q* and χ_1 to the package's error bounds; what has none to 1e-12, a hundred times those. κ from dE/dq at fixed
    correlation, σ_w² dE/dq = 2κ + c χ_c, by differences of fourth order, whose error is (0.01)⁴ times a fifth
    derivative of order one."""
    for r in rows("tanh_point"):
        w, b = sigmas(r)
        q, slope_q, chi_1, c, chi_c, kappa = (float(r[k]) for k in ("q", "slope_q", "chi_1", "c", "chi_c", "kappa"))
        p = mv.phase("tanh", w, b)
        assert abs(p.q - q) <= p.q_error + np.spacing(q)
        assert abs(p.chi_1 - chi_1) <= p.chi_1_error + np.spacing(chi_1)
        assert max(p.q_error, p.chi_1_error) < 1e-12
        assert (p.slope_q, p.c, p.chi_c) == pytest.approx((slope_q, c, chi_c), rel=1e-12)
        step = 0.01
        logs = step * np.array([1, -1, 2, -2])
        e = gaussian.covariance("tanh", q * np.exp(logs), c * q * np.exp(logs), q * np.exp(logs)).value
        slope = w * (8 * (e[0] - e[1]) - (e[2] - e[3])) / (12 * step * q)
        assert (slope - c * chi_c) / 2 == pytest.approx(kappa, rel=1e-7)
    assert len(rows("tanh_point")) == 2


def test_the_modes_of_the_theory(rows):
    """λ_f, κ and the fixed point of `spatial_modes`."""
    for r in rows("modes"):
        found = mv.spatial_modes("tanh", 1.5, 0.05, r["grid"], r["kernel"], taps=r["taps"])
        np.testing.assert_allclose(found.eigenvalues.real.ravel(), numbers(r["real"]), atol=1e-14)
        np.testing.assert_allclose(found.eigenvalues.imag.ravel(), numbers(r["imaginary"]), atol=1e-14)
    for r in rows("tanh_point"):
        found = mv.spatial_modes("tanh", *sigmas(r), 8)
        assert found.kappa == pytest.approx(float(r["kappa"]), rel=1e-10)
