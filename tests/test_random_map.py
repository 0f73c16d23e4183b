"""The licence of the conditional engine: the same law as weights that were drawn, whatever is asked of them.

Three kinds of evidence. Identities hold in every replicate, to rounding. Against laws known in closed form
(a linear functional of W is Gaussian, a coordinate of O u is that of a point on the sphere) there are
one-sample tests; against explicit weights, two-sample tests of whole networks. Their p-values are collected
over many configurations and judged once, at a total level of 1e-6. Planted errors must turn it red.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import mcverify as mv
from mcverify import activations
from mcverify.inputs import with_gram
from mcverify.kernels import conditional as algebra
from mcverify.kernels import cpu, reference
from mcverify.random_map import conditional, explicit
from mcverify.random_map.engine import Map
from mcverify.simulation.trace import Plan, trace
from mcverify.strategies import KINDS, kinds, networks, seed_of, vectors, weight_laws, width
from mcverify.streams import Site, stream_key

LEVEL = 1e-6  # of the whole collection of p-values in one test
BACKENDS = pytest.mark.parametrize("kernels", [cpu, reference], ids=["cpu", "reference"])


def seeded(config, purpose):
    """A generator that depends on the configuration alone."""
    return np.random.default_rng(seed_of(config, purpose=purpose))


@dataclass(frozen=True)
class Case:
    """One map, and what it is given: inputs, tangents, cotangents in one or two calls."""

    law: str
    n_in: int
    n_out: int
    bias: float
    inputs: int
    tangents: int
    cotangents: int
    kind: str
    cokind: str

    @property
    def map(self):
        return Map(self.n_in, self.n_out, 1.3, self.bias, self.law)

    def arrays(self):
        """(x, dx, d), the same for all replicates."""
        seed = seed_of(self)
        ab = vectors(self.kind, self.inputs + self.tangents, self.n_in, seed)
        x, t = np.split(seeded(self, "order").permutation(ab), [self.inputs])
        return x, t, vectors(self.cokind, self.cotangents, self.n_out, seed + 1)


CONDITIONAL = ["gaussian", "orthogonal"]
sizes = width(max_width=64)


@st.composite
def cases(draw, laws=weight_laws(CONDITIONAL)):
    chosen = draw(laws)
    n_in = draw(sizes)
    return Case(
        chosen,
        n_in,
        n_in if chosen == "orthogonal" else draw(sizes),
        draw(st.sampled_from([0.0, 0.4])),
        draw(st.integers(1, 8)),
        draw(st.integers(0, 3)),
        draw(st.integers(1, 6)),
        draw(kinds()),
        draw(kinds()),
    )


def run_map(engine, case, count, *, split=False, start=0):
    """(y, dy, dx) of a case for `count` replicates; split: cotangents and tangents in two calls each."""
    x, t, d = (a.astype(engine.dtype) for a in case.arrays())
    y, saved = engine.apply(engine.kernels, case.map, x[None], Site(stream_key(3, "map"), 5, start, count))
    pieces = []
    for columns_in, apply in ((t, engine.apply_tangent), (d, engine.apply_transpose)):
        cut = [columns_in[:1], columns_in[1:]] if split else [columns_in]
        sent = [np.broadcast_to(c, (count, *c.shape)).copy() for c in cut if len(c)]
        images = [apply(engine.kernels, saved, c) for c in sent]
        units = case.n_out if columns_in is t else case.n_in
        pieces.append(np.concatenate(images, axis=1) if images else np.zeros((count, 0, units), engine.dtype))
    return y, *pieces


def sampler(kernels=cpu, dtype="float64", **more):
    return conditional.engine(kernels, np.dtype(dtype), **more)


# ---- identities, in every replicate ---------------------------------------------------------------------


def norm(a):
    return np.linalg.norm(a, axis=-1)


def gap(a, b, scale):
    """The largest difference relative to the scale, 0 where all three vanish."""
    return float(np.max(np.abs(a - b) / np.where(scale > 0, scale, 1.0), initial=0.0))


def adjointness(case, y, dy, dx):
    """Σ (Wᵀδ)·u − Σ δ·(W u) over the columns u whose W u is known: tangents and differences of inputs."""
    x, t, d = case.arrays()
    u = np.concatenate([t, x - x[:1] if case.bias else x])
    image = np.concatenate([dy, y - y[:, :1] if case.bias else y], axis=1)
    left = np.einsum("rkn,un->rku", dx, u)
    right = np.einsum("kn,run->rku", d, image)
    size = np.concatenate([norm(t), norm(x) + (norm(x[:1]) if case.bias else 0)])
    spread = np.sqrt(max(case.n_in, case.n_out))
    return gap(left, right, norm(d)[:, None] * (size + (case.bias > 0)) * spread)


@BACKENDS
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-4)])
@settings(max_examples=60)
@given(case=cases())
def test_transpose_is_the_transpose(kernels, dtype, tolerance, case):
    """Σ (Wᵀδ)·u = Σ δ·(W u), and every output is finite."""
    out = run_map(sampler(kernels, dtype), case, 3)
    assert all(np.isfinite(a).all() for a in out)
    assert adjointness(case, *out) < tolerance


@BACKENDS
@settings(max_examples=60)
@given(case=cases(weight_laws(["orthogonal"])))
def test_haar_maps_keep_every_inner_product(kernels, case):
    """‖O u‖ = ‖u‖ and O u · O v = u · v, forward and transposed."""
    case = replace(case, bias=0.0)
    x, t, d = case.arrays()
    y, dy, dx = run_map(sampler(kernels), case, 3)
    for before, after in ((np.concatenate([x, t]), np.concatenate([y, dy], axis=1)), (d, dx)):
        gram = 1.3 * before @ before.T
        scale = np.sqrt(np.outer(np.diagonal(gram), np.diagonal(gram)))
        assert gap(after @ after.swapaxes(1, 2), gram, scale) < 1e-12


@BACKENDS
@settings(max_examples=40)
@given(case=cases())
def test_columns_may_come_in_several_calls(kernels, case):
    """One W is met by all of them: dividing the columns among calls changes nothing but rounding."""
    for once, twice in zip(*(run_map(sampler(kernels), case, 3, split=s) for s in (False, True)), strict=True):
        np.testing.assert_allclose(twice, once, rtol=1e-7, atol=1e-9 * np.abs(once).max(initial=0.0))


@settings(max_examples=60)
@given(case=cases(), tied=st.booleans())
def test_backends_sample_the_same_maps(case, tied):
    runs = [run_map(sampler(k, tied=tied), case, 3, start=2**33) for k in (cpu, reference)]
    for a, b in zip(*runs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9 * np.abs(b).max(initial=0.0))


@pytest.mark.parametrize("law", ["gaussian", "orthogonal"])
@pytest.mark.parametrize("kind", ["generic", "near"])
def test_backends_sample_the_same_wide_maps(law, kind):
    """Units beyond the tiles of 1024 in which the compiled kernels mix columns."""
    case = Case(law, 2100, 2100 if law == "orthogonal" else 1100, 0.4, 2, 1, 2, kind, "generic")
    for a, b in zip(*(run_map(sampler(k), case, 2) for k in (cpu, reference)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9 * np.abs(b).max())


@BACKENDS
@pytest.mark.parametrize("law", CONDITIONAL)
@pytest.mark.parametrize(("dtype", "distance", "tolerance"), [("float64", 1e-6, 1e-3), ("float32", 1e-5, 3e-2)])
def test_outputs_of_nearly_equal_inputs_differ_as_they_should(kernels, law, dtype, distance, tolerance):
    """W (x_2 − x_1) has the scale of x_2 − x_1; and the cotangents know the direction x_2 − x_1."""
    n, count = 60, 400
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, n)).astype(dtype)
    x[1] = x[0] + (distance * rng.normal(size=n)).astype(dtype)
    engine = sampler(kernels, dtype)
    y, saved = engine.apply(kernels, Map(n, n, 2.0, 0.3, law), x[None], Site(9, 0, 0, count))
    d = np.broadcast_to(rng.normal(size=(1, n)).astype(dtype), (count, 1, n)).copy()
    back = engine.apply_transpose(kernels, saved, d)[:, 0].astype(np.float64)
    u = (x[1] - x[0]).astype(np.float64)
    image = (y[:, 1] - y[:, 0]).astype(np.float64)
    size = np.mean(norm(image) ** 2) / (2.0 * u @ u)
    assert size == pytest.approx(1.0, abs=tolerance + 5 * np.sqrt(2 / n / count))
    along = back @ u / norm(u)
    expected = 2.0 * norm(d[0, 0].astype(np.float64)) ** 2 / n
    assert np.mean(along**2) / expected == pytest.approx(1.0, abs=5 * np.sqrt(2 / count))
    right = np.einsum("rn,rn->r", d[:, 0].astype(np.float64), image) / norm(u)
    assert np.max(np.abs(along - right)) < tolerance * 30 * np.sqrt(expected)


def test_gram_schmidt_survives_what_the_gram_matrix_loses():
    """A root of columns 1e-12 apart, and exactly dependent ones: orthonormal or zero rows, and a = rᵀ q."""
    rng = np.random.default_rng(1)
    a = np.zeros((2, 6, 30))
    a[:, 0] = rng.normal(size=(2, 30))
    a[:, 1] = a[:, 0] + 1e-12 * rng.normal(size=(2, 30))
    a[:, 3] = 1e-30 * rng.normal(size=(2, 30))
    a[:, 4] = 2 * a[:, 0] - a[:, 3]
    a[:, 5] = 1e100 * rng.normal(size=(2, 30))
    q, r, _ = algebra.orthonormal(a)
    alive = np.array([1, 1, 0, 1, 0, 1])
    np.testing.assert_allclose(q @ q.swapaxes(1, 2), np.broadcast_to(np.diag(alive), (2, 6, 6)), atol=1e-14)
    assert np.array_equal(np.diagonal(r, axis1=1, axis2=2) > 0, np.broadcast_to(alive, (2, 6)))
    assert gap(r.swapaxes(1, 2) @ q, a, norm(a)[..., None]) < 1e-14


@BACKENDS
def test_tangents_after_cotangents_are_refused(kernels):
    for law in ("gaussian", "orthogonal"):
        engine = sampler(kernels)
        _, saved = engine.apply(kernels, Map(4, 4, 1.0, 0.0, law), np.ones((1, 1, 4)), Site(1, 0, 0, 2))
        engine.apply_transpose(kernels, saved, np.ones((2, 1, 4)))
        with pytest.raises(RuntimeError, match="before cotangents"):
            engine.apply_tangent(kernels, saved, np.ones((2, 1, 4)))


@BACKENDS
def test_non_finite_columns_stay_visible(kernels):
    """An infinite input or cotangent gives infinite images in its replicate, and leaves the others alone."""
    engine = sampler(kernels)
    x = np.random.default_rng(0).normal(size=(3, 2, 5))
    clean, _ = engine.apply(kernels, Map(5, 5, 1.0, 0.1, "gaussian"), x, Site(1, 0, 0, 3))
    x[1, 0, 2] = np.inf
    for law in ("gaussian", "orthogonal"):
        with np.errstate(all="ignore"):
            y, saved = engine.apply(kernels, Map(5, 5, 1.0, 0.1, law), x, Site(1, 0, 0, 3))
            d = np.ones((3, 1, 5))
            d[2, 0, 1] = np.nan
            back = engine.apply_transpose(kernels, saved, d)
        assert not np.isfinite(y[1, 0]).any()
        assert not np.isfinite(back[2]).any()
        assert np.isfinite(back[0]).all()
        if law == "gaussian":
            assert np.array_equal(y[[0, 2]], clean[[0, 2]])


# ---- known laws -----------------------------------------------------------------------------------------


def judge(p_values, independent=()):
    """The total level's verdict: "" or what is wrong. Bonferroni over all p-values; where one from each
    configuration is given, they are independent and must not crowd near 0 (one-sided Kolmogorov)."""
    p = np.asarray(p_values)
    assert np.isfinite(p).all()
    if p.min() < LEVEL / 2 / len(p):
        return f"smallest of {len(p)} p-values: {p.min():.3g}"
    if len(independent) and stats.kstest(independent, "uniform", alternative="greater").pvalue < LEVEL / 2:
        return "p-values crowd near 0"
    return ""


def functionals(case):
    """Coefficients (c, e, f) of linear functionals Σ c_a·y_a + Σ e_t·dy_t + Σ f_k·dx_k: at random over
    everything, over one part, over one column; and directed, c = ±δ and f = x, where the coupling is strongest."""
    rng = seeded(case, "functionals")
    x, t, d = case.arrays()
    zero = [np.zeros((len(x), case.n_out)), np.zeros((len(t), case.n_out)), np.zeros((len(d), case.n_in))]
    scales = [1 / (1e-9 + norm(a))[:, None] for a in (x, t, d)]

    def pick(*parts):
        return [
            rng.normal(size=z.shape) * s if i in parts else z for i, (z, s) in enumerate(zip(zero, scales, strict=True))
        ]

    yield pick(0, 1, 2)
    yield pick(0)
    yield pick(2)
    for sign in (-1, 1):  # the identity in disguise, and its opposite
        c, e, f = (z.copy() for z in zero)
        a, k = rng.integers(len(x)), rng.integers(len(d))
        c[a], f[k] = sign * d[k], x[a]
        yield [c, e, f]
    if len(x) > 1:  # a difference of neighbours, which for "near" is all that tells them apart
        c, e, f = (z.copy() for z in zero)
        a = rng.integers(1, len(x))
        c[a] = rng.normal(size=case.n_out)
        c[a - 1] = -c[a]
        yield [c, e, f]
    if len(d) > 1:
        c, e, f = (z.copy() for z in zero)
        k = rng.integers(1, len(d))
        f[k] = rng.normal(size=case.n_in)
        f[k - 1] = -f[k]
        yield [c, e, f]


def value(coefficients, arrays):
    return sum(np.einsum("cn,rcn->r", c, a) for c, a in zip(coefficients, arrays, strict=True))


def variance(case, coefficients):
    """(Var, its scale): W enters as ⟨W, Σ c_a x_aᵀ + e_t tᵀ + δ_k f_kᵀ⟩, b as b · Σ c_a."""
    c, e, f = coefficients
    x, t, d = case.arrays()
    m = c.T @ x + e.T @ t + d.T @ f
    size = sum(norm(u) @ norm(v) for u, v in ((c, x), (e, t), (f, d)))
    bias = case.bias * np.sum(c.sum(axis=0) ** 2)
    return 1.3 / case.n_in * np.sum(m**2) + bias, 1.3 / case.n_in * size**2 + case.bias * np.sum(norm(c)) ** 2


def gaussian_p_values(kernels, case, count):
    """One p-value for each functional that is not constant; a constant one must be 0."""
    arrays = run_map(sampler(kernels), case, count, split=case.tangents % 2 == 0)
    out = []
    for coefficients in functionals(case):
        var, scale = variance(case, coefficients)
        s = value(coefficients, arrays)
        if var <= 1e-20 * scale:
            out.append(1.0 if np.all(np.abs(s) <= 1e-8 * np.sqrt(scale)) else 0.0)
        else:
            out.append(stats.kstest(s / np.sqrt(var), "norm").pvalue)
            out.append(2 * min(stats.chi2.cdf(np.sum(s**2) / var, count), stats.chi2.sf(np.sum(s**2) / var, count)))
    return out


def haar_p_values(kernels, case, count):
    """Against explicit Haar matrices, the functionals and products of two; n = 1 is a fair sign."""
    pair = []
    for engine in (sampler(kernels), explicit.engine(cpu, np.dtype("float64"))):
        arrays = run_map(engine, case, count, start=0 if engine.name == "explicit" else 10**6)
        linear = [(value(c, arrays), np.sqrt(variance(case, c)[1])) for c in functionals(case)]
        y, _, dx = arrays
        corner = [(v, np.abs(v).max()) for v in (y[:, 0, 0], dx[:, 0, 0], dx[:, -1, -1])]
        pairs = [(linear[1], linear[2]), (linear[0], linear[0]), (corner[0], corner[1]), (corner[0], corner[2])]
        pair.append([*linear, *((a * b, s * t) for (a, s), (b, t) in pairs)])
    return [two_sample(a, b) for a, b in zip(*pair, strict=True)]


def two_sample(a, b):
    """Kolmogorov–Smirnov for two (values, scale); values equal up to rounding are made equal, so that
    atoms are ties."""
    scale = max(a[1], b[1], 1e-300)
    return stats.ks_2samp(*(np.round(v / scale, 12) for v, _ in (a, b)), method="asymp").pvalue


def map_verdict(kernels, law, examples, count):
    """Over configurations drawn by Hypothesis; judged once."""
    every, first = [], []

    @settings(max_examples=examples, database=None)
    @given(case=cases(weight_laws([law])))
    def collect(case):
        p = (gaussian_p_values if law == "gaussian" else haar_p_values)(kernels, case, count)
        every.extend(p)
        first.append(p[0])

    collect()
    return judge(every, first)


@pytest.mark.parametrize("law", CONDITIONAL)
@BACKENDS
def test_maps_have_their_law(kernels, law):
    """Gaussian: every linear functional of (W x + b, W t, Wᵀ δ) has its exact Gaussian law, which by
    Cramér and Wold is the whole joint law. Haar: the same functionals and their products, two-sample."""
    assert map_verdict(kernels, law, 40, 1500) == ""


# ---- whole networks, against explicit weights -----------------------------------------------------------


@dataclass(frozen=True)
class NetCase:
    """A network and its inputs."""

    net: mv.Network
    inputs: int
    kind: str
    tangents: int
    cotangent: str

    def plan(self, engine, key):
        x = vectors(self.kind, self.inputs, self.net.input_dim, seed_of(self))
        x /= np.maximum(norm(x).max() / np.sqrt(self.net.input_dim), 1e-300)
        return Plan(self.net, x, engine, stream_key(key, "licence"), self.cotangent, self.tangents)


def licensed(law):
    """Networks of one law, with every activation; Haar maps are square."""
    return networks(
        laws=law, square=law == "orthogonal", max_depth=3, max_width=64, readout=True, sigma_w2=1.7,
        sigma_b2=st.sampled_from([0.0, 0.3]), keep=st.sampled_from([1.0, 1.0, 0.8]),
    )  # fmt: skip


net_cases = st.builds(
    NetCase,
    licensed("gaussian") | licensed("gaussian") | licensed("orthogonal"),
    st.integers(1, 8),
    kinds(),
    st.integers(0, 2),
    st.sampled_from(["independent", "shared"]),
)


def net_statistics(case, engine, key, count):
    """(statistic, replicate): functionals of h^L, of the tangents, of ∂E/∂x; their products; Gram entries."""
    rng = seeded(case, "statistics")
    t = trace(case.plan(engine, key), 0, count)
    y, gx, delta = t.maps[-1].y, t.gx[:, 0], t.maps[0].gy[:, 0]
    h, x = t.maps[0].y, t.plan.x
    out = [
        dot(rng.normal(size=y.shape[1:]), y),
        dot(rng.normal(size=gx.shape[1:]), gx),
        dot(y[:, 0], y[:, -1]),
        dot(gx[:, 0], gx[:, -1]),
        dot(delta[:, 0], delta[:, -1]),
        dot(h, delta),
        dot(x, gx),
        dot(y[:, 0, :1], gx[:, 0, :1]),
    ]
    if case.tangents:
        dy = t.maps[-1].dy[:, 0]
        out += [dot(dy, y), dot(dy[:, 0], dy[:, -1]), dot(dy[:, 0, :1], gx[:, 0, :1])]
    if case.inputs > 1:
        out += [(norm(a[:, 1] - a[:, 0]), np.abs(a).max()) for a in (y, gx)]
    return out


def dot(a, b):
    """(Σ a b for each replicate, the scale of its rounding)."""
    product = a * b
    over = tuple(range(1, product.ndim))
    return product.sum(axis=over), np.abs(product).sum(axis=over).max()


def net_p_values(kernels, case, count):
    engines = sampler(kernels), explicit.engine(cpu, np.dtype("float64"))
    with np.errstate(all="ignore"):
        pair = [net_statistics(case, e, key, count) for key, e in enumerate(engines)]
    return [two_sample(a, b) for a, b in zip(*pair, strict=True)]


def net_verdict(kernels, examples, count, fixed=()):
    every, first = [], []

    @settings(max_examples=examples, database=None)
    @given(case=net_cases)
    def collect(case):
        p = net_p_values(kernels, case, count)
        every.extend(p)
        first.append(p[0])

    collect()
    for case in fixed:
        every.extend(net_p_values(kernels, case, count))
    return judge(every, first)


# Every activation once, on a small network, where finite-width effects are largest.
def every_activation(*widths, law="gaussian"):
    for i, name in enumerate(activations.names()):
        net = mv.mlp(widths[0], widths[1:], name, 1.7, 0.3 * (i % 2), law, readout=widths[-1])
        yield NetCase(net, 2 + i % 4, KINDS[i % len(KINDS)], i % 3, "independent")


def test_networks_have_the_law_of_explicit_weights():
    assert net_verdict(cpu, 40, 1200, every_activation(3, 4, 3, 2)) == ""


@pytest.mark.slow
@pytest.mark.parametrize("law", CONDITIONAL)
def test_maps_have_their_law_in_full(law):
    assert map_verdict(cpu, law, 400, 10_000) == ""


@pytest.mark.slow
def test_networks_have_the_law_of_explicit_weights_in_full():
    every = (every_activation(2, 3, 2), every_activation(30, 20, 40), every_activation(5, 5, 5, law="orthogonal"))
    assert net_verdict(cpu, 300, 6000, chain(*every)) == ""


def test_fresh_transposes_are_independent_of_the_forward_pass():
    """tied=False: δ·(W x) and (W'ᵀ δ)·x are independent, each with its Gaussian law."""
    case = Case("gaussian", 5, 7, 0.0, 2, 0, 2, "generic", "generic")
    x, _, d = case.arrays()
    y, _, dx = run_map(sampler(tied=False), case, 4000)
    left, right = y[:, 0] @ d[0], dx[:, 0] @ x[0]
    scale = np.sqrt(1.3 / 5) * norm(x[0]) * norm(d[0])
    for s in (left, right, (left + right) / np.sqrt(2), (left - right) / np.sqrt(2)):
        assert stats.kstest(s / scale, "norm").pvalue > LEVEL / 4


# ---- planted errors: the licence must be refused --------------------------------------------------------


def broken(**changes):
    """The reference kernels with some primitives replaced."""
    names = {name: getattr(reference, name) for name in reference.__all__}
    return SimpleNamespace(**{**names, **changes})


def no_projection(x, root, y, z, d, g, below, gain, offset):
    """(I − Q Qᵀ) left out."""
    q, _, _ = algebra.orthonormal(algebra._with_bias(x, gain, offset))
    _, s, _ = algebra.orthonormal(d)
    return gain * (algebra._times(s, g) + algebra._times(algebra._dots(z, d), q[..., :-1]))


def separate_cotangents(x, root, y, z, d, g, below, gain, offset):
    """Each cotangent column by its own norm, not by their joint covariance."""
    one = [slice(k, k + 1) for k in range(d.shape[1])]
    parts = [algebra.gaussian_transpose(x, root, y, z, d[:, k], g[:, k], below[:, k], gain, offset) for k in one]
    return np.concatenate(parts, axis=1)


def forgotten_bias(x, root, y, z, d, g, below, gain, offset):
    """The bias row left out of Q."""
    return algebra.gaussian_transpose(x, root, y, z, d, g, below, gain, 0.0 * offset)


def biased_back(x, root, y, z, d, g, below, gain, offset):
    """The bias row without normals of its own."""
    return algebra.gaussian_transpose(x, root, y, z, d, g, 0 * below, gain, offset)


def jitter(x, z, gain, offset):
    """A ridge of 1e-6 on the Gram matrix before its root."""
    a = algebra._with_bias(x, gain, offset)
    gram = algebra._dots(a, a)
    trace = np.trace(gram, axis1=1, axis2=2)[:, None, None]
    ridge = (1e-6 * trace + 1e-300) * np.eye(gram.shape[1])  # zero inputs have a root too
    r = np.linalg.cholesky(gram + ridge).swapaxes(1, 2)
    return algebra._times(r, z), algebra.Root(r, np.ones(len(x), bool))


def signed(x, z):
    """The frame by a QR without its sign: the first coordinate of each column has always the same sign."""
    _, r, _ = algebra.orthonormal(x)
    v, _, _ = algebra.orthonormal(algebra._where_new(z, r))
    return algebra._times(r, v * np.where(v[..., :1] > 0, -1.0, 1.0))


def free_frame(x, z, d, g):
    """T uniform, but not orthogonal to Q."""
    q, r, _ = algebra.orthonormal(x)
    v, _, _ = algebra.orthonormal(algebra._where_new(z, r))
    _, s, along = algebra.orthonormal(d, v)
    t, _, _ = algebra.orthonormal(algebra._where_new(g, s))
    return algebra._times(along, q) + algebra._times(s, t)


def gaussian_frame(x, z):
    """V with Gaussian columns of the right variance: not orthonormal."""
    _, r, _ = algebra.orthonormal(x)
    return algebra._times(r, z / np.sqrt(z.shape[-1]))


def fixed_frame(x, z, d, g):
    """T the same in every replicate."""
    return algebra.haar_transpose(x, z, d, np.broadcast_to(g[:1], g.shape))


PLANTED = {
    "no projection": ("gaussian", {"gaussian_transpose": no_projection}),
    "separate cotangents": ("gaussian", {"gaussian_transpose": separate_cotangents}),
    "bias row forgotten": ("gaussian", {"gaussian_transpose": forgotten_bias}),
    "bias row not drawn": ("gaussian", {"gaussian_transpose": biased_back}),
    "jitter": ("gaussian", {"gaussian_apply": jitter}),
    "signed frame": ("orthogonal", {"haar_apply": signed}),
    "frame not orthogonal to Q": ("orthogonal", {"haar_transpose": free_frame}),
    "Gaussian frame": ("orthogonal", {"haar_apply": gaussian_frame}),
    "fixed frame": ("orthogonal", {"haar_transpose": fixed_frame}),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_error_is_found(name):
    law, changes = PLANTED[name]
    assert map_verdict(broken(**changes), law, 40, 1500) != ""


# ---- through simulate -----------------------------------------------------------------------------------


def test_addresses_decide_and_nothing_else(monkeypatch):
    """Bit for bit: any threads, any chunking; near and dependent inputs among them."""
    net = mv.mlp(8, [12, 12, 5], "relu", 2.0, 0.1)
    x = vectors("near", 4, 8)
    runs = [mv.simulate(net, x, samples=300, threads=t, engine="conditional", tangents=1) for t in (1, 2, 3)]
    for size in (1, 7, 256):
        monkeypatch.setattr("mcverify.simulation.simulate.chunk_size", lambda *a, size=size: size)
        runs.append(mv.simulate(net, x, samples=300, threads=2, engine="conditional", tangents=1))
    for run in runs[1:]:
        assert run.equals(runs[0])


@pytest.mark.parametrize("law", CONDITIONAL)
def test_backends_sample_the_same_networks(law):
    """float32, one hidden layer: to rounding."""
    net, x = mv.mlp(40, [40, 40], "tanh", 1.5, 0.1, law), with_gram([[1.0, 0.4], [0.4, 0.5]], 40)
    a, b = (
        mv.simulate(net, x, samples=8, engine="conditional", backend=k, replicates=True) for k in ("cpu", "reference")
    )
    for name in ("q", "metric", "chi", "length", "grad_gram"):
        np.testing.assert_allclose(a[name], b[name], rtol=2e-4, atol=2e-5)


def test_engines_agree_where_theory_is_exact():
    """E q and E‖δ‖² of a ReLU network (exact at every width), by both engines and in Haar layers."""
    x = with_gram([[1.0, 0.4], [0.4, 0.5]], 16)
    for law in ("gaussian", "orthogonal"):
        net = mv.mlp(16, [16] * 4, "relu", 2.0, 0.0, law)
        runs = [mv.simulate(net, x, samples=6000, engine=e, rng=i) for i, e in enumerate(("explicit", "conditional"))]
        for name in ("q", "grad_gram", "length"):
            gap = (runs[0][name] - runs[1][name]) / np.hypot(runs[0][f"{name}_se"], runs[1][f"{name}_se"])
            assert float(np.abs(gap).max()) < 5.5, name


def test_auto_goes_by_counts():
    x = with_gram([[1.0, 0.4], [0.4, 0.5]], 8)
    chosen = {}
    for name, net in {
        "wide": mv.mlp(8, [200] * 2, "relu", 2.0),
        "uniform": mv.mlp(8, [200] * 2, "relu", 2.0, weights="uniform"),
        "rectangular": mv.mlp(8, [200] * 2, "relu", 2.0, weights="orthogonal"),
        "narrow": mv.mlp(8, [1], "relu", 2.0),
    }.items():
        run = mv.simulate(net, x, samples=2)
        assert run.equals(mv.simulate(net, x, samples=2, engine=run.attrs["engine"]))
        chosen[name] = run.attrs["engine"], run.attrs["engine_reason"]
    assert chosen["wide"][0] == "conditional"
    assert "same law as explicit weights" in chosen["wide"][1]
    assert chosen["uniform"] == ("explicit", "uniform weights have no conditional sampler")
    assert chosen["rectangular"][0] == "conditional"  # the square map; the other by explicit weights
    assert chosen["narrow"][0] == "explicit"
    asked = mv.simulate(mv.mlp(8, [20], "relu", weights="uniform"), x, samples=2, engine="conditional")
    assert asked.attrs["engine_reason"] == "asked for; 1 of 1 maps (uniform) by explicit weights"
    same = mv.simulate(mv.mlp(8, [20], "relu", weights="uniform"), x, samples=2, engine="explicit")
    assert asked.equals(same)


@pytest.mark.slow
def test_a_million_units():
    """Time and memory are linear in the width: a layer of 10⁶ units is a matter of a second."""
    n = 10**6
    run = mv.simulate(
        mv.mlp(n, [n] * 2, "tanh", 1.5), np.ones((2, n)) * [[1.0], [0.5]], samples=2, engine="conditional"
    )
    assert run.attrs["nonfinite"] == 0
    np.testing.assert_allclose(run.q.values[0], 1.5 * np.outer([1.0, 0.5], [1.0, 0.5]), rtol=0.01)
