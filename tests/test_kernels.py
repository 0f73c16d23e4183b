"""The random primitives: every C path against the reference, and the laws of the maps.

Statistical checks ask for p-values of at least 1e-10 and number fewer than 300: a correct generator under
a fresh seed would fail this file with probability below 1e-7.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import special, stats

from mcverify import _native
from mcverify.errors import InputError
from mcverify.kernels import cpu, reference
from mcverify.strategies import weight_laws, width
from mcverify.streams import Role, Site, stream_key
from mcverify.weights import LAWS

P_MIN = 1e-10
DTYPES = [np.float32, np.float64]
BOTH = [reference, cpu]
INDEPENDENT = [name for name, law in LAWS.items() if law.independent]
SITE = Site(stream_key(11, "kernels"), 3, 2**32 - 2, 3)

# The largest and the mean difference from the reference in units of its last place: what docs/streams.md
# promises, and a tenth more than the mean measured there (a coefficient that is slightly off shows there).
ULPS = {
    ("gaussian", np.float32): (6.0, 0.53),
    ("gaussian", np.float64): (7.0, 0.41),
    ("truncated_normal", np.float32): (6.0, 0.53),
    ("truncated_normal", np.float64): (8.0, 0.78),
    ("uniform", np.float32): (0.0, 0.0),
    ("uniform", np.float64): (0.0, 0.0),
    ("rademacher", np.float32): (0.0, 0.0),
    ("rademacher", np.float64): (0.0, 0.0),
}

Array = NDArray[Any]


@pytest.fixture(params=_native.paths())
def path(request: pytest.FixtureRequest) -> Iterator[str]:
    before = _native.path()
    _native.set_path(request.param)
    yield request.param
    _native.set_path(before)


def each_path() -> Iterator[str]:
    """Every instruction set in turn, for tests that Hypothesis calls many times."""
    before = _native.path()
    try:
        for name in _native.paths():
            _native.set_path(name)
            yield name
    finally:
        _native.set_path(before)


def test_paths_are_listed_fastest_first_and_others_refused() -> None:
    names = _native.paths()
    assert names[-1] == "portable"
    assert list(names) == [name for name in ("avx512", "avx2", "portable") if name in names]
    with pytest.raises(ValueError, match="sse9"):
        _native.set_path("sse9")


# ---- draws --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("law", INDEPENDENT)
def test_draws_agree_with_the_reference_in_ulps(law: str, dtype: Any, path: str) -> None:
    ours = cpu.draw(SITE, Role.WEIGHT, law, 100, 999, dtype)
    theirs = reference.draw(SITE, Role.WEIGHT, law, 100, 999, dtype)
    assert ours.dtype == theirs.dtype == dtype
    assert np.isfinite(ours).all()
    ulps = np.abs(ours.astype(np.float64) - theirs) / np.spacing(np.abs(theirs))
    largest, mean = ULPS[law, dtype]
    assert ulps.max() <= largest
    assert ulps.mean() <= mean


@pytest.mark.parametrize("dtype", DTYPES)
def test_orthogonal_draws_agree_with_the_reference(dtype: Any, path: str) -> None:
    for rows, cols in [(1, 1), (2, 2), (70, 70), (5, 66), (66, 5), (1, 3), (3, 1)]:
        ours = cpu.draw(SITE, Role.WEIGHT, "orthogonal", rows, cols, dtype)
        theirs = reference.draw(SITE, Role.WEIGHT, "orthogonal", rows, cols, dtype)
        assert ours.shape == theirs.shape == (3, rows, cols)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=60 * np.finfo(dtype).eps)


# ---- random maps: against the explicit matrix -----------------------------------------------------------

SHAPES = [(1, 1, 1), (5, 7, 3), (130, 70, 9), (70, 130, 4), (3, 1100, 2), (1100, 3, 5), (64, 64, 8), (2, 65, 17)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("law", list(LAWS))
def test_maps_are_the_explicit_matrix(law: str, dtype: Any, path: str) -> None:
    rng = np.random.default_rng(1)
    for n_out, n_in, columns in SHAPES:
        if law == "orthogonal" and max(n_out, n_in) > 200:
            n_out, n_in = min(n_out, 200), min(n_in, 200)
        w = cpu.draw(SITE, Role.WEIGHT, law, n_out, n_in, dtype).astype(np.float64)
        for replicates in (1, SITE.count):
            x = rng.standard_normal((replicates, columns, n_in)).astype(dtype)
            d = rng.standard_normal((replicates, columns, n_out)).astype(dtype)
            y = cpu.random_matmul(SITE, Role.WEIGHT, law, n_out, x)
            z = cpu.random_matmul_transpose(SITE, Role.WEIGHT, law, n_in, d)
            assert y.dtype == z.dtype == dtype
            eps = np.finfo(dtype).eps
            for result, v, matrix in [(y, x, w.swapaxes(1, 2)), (z, d, w)]:
                if law == "orthogonal":
                    scale = 20 * np.sqrt(max(n_in, n_out)) * np.linalg.norm(v, axis=-1, keepdims=True)
                else:
                    scale = 8 * (np.abs(v) @ np.abs(matrix))
                assert (np.abs(result - v @ matrix) <= eps * scale).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("law", INDEPENDENT)
@pytest.mark.parametrize(("n_out", "n_in"), [(1, 1), (9, 130), (130, 9), (3, 1100)])
def test_maps_of_unit_vectors_are_the_matrix_to_the_bit(law: str, dtype: Any, n_out: int, n_in: int, path: str) -> None:
    w = cpu.draw(SITE, Role.WEIGHT, law, n_out, n_in, dtype)
    y = cpu.random_matmul(SITE, Role.WEIGHT, law, n_out, np.eye(n_in, dtype=dtype)[None])
    np.testing.assert_array_equal(y.swapaxes(1, 2), w)
    z = cpu.random_matmul_transpose(SITE, Role.WEIGHT, law, n_in, np.eye(n_out, dtype=dtype)[None])
    np.testing.assert_array_equal(z, w)


@settings(deadline=None, max_examples=80)
@given(
    law=weight_laws(),
    dtype=st.sampled_from(DTYPES),
    n_out=width(max_width=140),
    n_in=width(max_width=140),
    columns=st.integers(1, 9),
    replicates=st.sampled_from([1, 3]),
    seed=st.integers(0, 2**32),
)
def test_backends_agree(law: str, dtype: Any, n_out: int, n_in: int, columns: int, replicates: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    site = Site(stream_key(seed), 1, 0, 3)
    x = rng.standard_normal((replicates, columns, n_in)).astype(dtype)
    d = rng.standard_normal((replicates, columns, n_out)).astype(dtype)
    y = reference.random_matmul(site, Role.WEIGHT, law, n_out, x)
    z = reference.random_matmul_transpose(site, Role.WEIGHT, law, n_in, d)
    tolerance = 100 * np.finfo(dtype).eps * np.sqrt(max(n_in, n_out))
    for _ in each_path():
        np.testing.assert_allclose(cpu.random_matmul(site, Role.WEIGHT, law, n_out, x), y, atol=tolerance)
        back = cpu.random_matmul_transpose(site, Role.WEIGHT, law, n_in, d)
        np.testing.assert_allclose(back, z, atol=tolerance)


@pytest.mark.parametrize("kernels", BOTH)
@pytest.mark.parametrize("law", list(LAWS))
def test_transpose_is_the_adjoint(law: str, kernels: Any, path: str) -> None:
    rng = np.random.default_rng(2)
    x, d = rng.standard_normal((3, 6, 90)), rng.standard_normal((3, 6, 75))
    y = kernels.random_matmul(SITE, Role.WEIGHT, law, 75, x)
    z = kernels.random_matmul_transpose(SITE, Role.WEIGHT, law, 90, d)
    scale = np.linalg.norm(y, axis=-1) * np.linalg.norm(d, axis=-1)
    gap = np.abs(np.einsum("rci,rci->rc", y, d) - np.einsum("rcj,rcj->rc", x, z))
    assert (gap <= 20 * np.finfo(float).eps * scale).all()


# ---- what a result does not depend on -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("law", list(LAWS))
def test_other_columns_and_replicates_change_no_bit(law: str, dtype: Any, path: str) -> None:
    rng = np.random.default_rng(3)
    n_out, n_in, columns = 37, 150, 11
    x = rng.standard_normal((3, columns, n_in)).astype(dtype)
    d = rng.standard_normal((3, columns, n_out)).astype(dtype)
    y = cpu.random_matmul(SITE, Role.WEIGHT, law, n_out, x)
    z = cpu.random_matmul_transpose(SITE, Role.WEIGHT, law, n_in, d)
    for part in (slice(0, 1), slice(2, 7), slice(5, 11)):
        np.testing.assert_array_equal(cpu.random_matmul(SITE, Role.WEIGHT, law, n_out, x[:, part]), y[:, part])
        again = cpu.random_matmul_transpose(SITE, Role.WEIGHT, law, n_in, d[:, part])
        np.testing.assert_array_equal(again, z[:, part])
    for r in range(3):
        site = Site(SITE.key, SITE.layer, SITE.start + r, 1)
        np.testing.assert_array_equal(cpu.random_matmul(site, Role.WEIGHT, law, n_out, x[r : r + 1])[0], y[r])
        back = cpu.random_matmul_transpose(site, Role.WEIGHT, law, n_in, d[r : r + 1])
        np.testing.assert_array_equal(back[0], z[r])


def test_threads_change_no_bit() -> None:
    x = np.random.default_rng(4).standard_normal((1, 3, 300)).astype(np.float32)
    sites = [Site(stream_key(12), 0, 20 * i, 20) for i in range(16)]

    def run(site: Site) -> Array:
        return cpu.random_matmul(site, Role.WEIGHT, "gaussian", 200, x)

    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(run, sites))
    for site, y in zip(sites, threaded, strict=True):
        np.testing.assert_array_equal(run(site), y)


def test_read_only_and_strided_arguments(path: str) -> None:
    x = np.random.default_rng(5).standard_normal((3, 4, 40))
    y = cpu.random_matmul(SITE, Role.WEIGHT, "gaussian", 6, x)
    strided = np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2)
    strided.flags.writeable = False
    np.testing.assert_array_equal(cpu.random_matmul(SITE, Role.WEIGHT, "gaussian", 6, strided), y)


# ---- edges and refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kernels", BOTH)
@pytest.mark.parametrize("law", list(LAWS))
def test_empty_sizes(kernels: Any, law: str) -> None:
    none, two = Site(1, 2, 3, 0), Site(1, 2, 3, 2)
    assert kernels.draw(none, Role.WEIGHT, law, 3, 4, np.float32).shape == (0, 3, 4)
    assert kernels.words(none, Role.WEIGHT, 3, 4, np.float32).shape == (0, 3, 4)
    assert kernels.random_matmul(none, Role.WEIGHT, law, 3, np.ones((1, 2, 4))).shape == (0, 2, 3)
    assert kernels.random_matmul_transpose(none, Role.WEIGHT, law, 3, np.ones((0, 2, 4))).shape == (0, 2, 3)
    assert kernels.draw(two, Role.WEIGHT, law, 0, 4, np.float32).shape == (2, 0, 4)
    assert kernels.draw(two, Role.WEIGHT, law, 4, 0, np.float32).shape == (2, 4, 0)
    assert kernels.random_matmul(two, Role.WEIGHT, law, 3, np.ones((1, 0, 4))).shape == (2, 0, 3)
    assert kernels.random_matmul(two, Role.WEIGHT, law, 0, np.ones((1, 2, 4))).shape == (2, 2, 0)
    np.testing.assert_array_equal(
        kernels.random_matmul(two, Role.WEIGHT, law, 3, np.ones((1, 2, 0))), np.zeros((2, 2, 3))
    )
    np.testing.assert_array_equal(
        kernels.random_matmul_transpose(two, Role.WEIGHT, law, 3, np.ones((1, 2, 0))), np.zeros((2, 2, 3))
    )


@pytest.mark.parametrize("kernels", BOTH)
def test_unusable_arguments_are_refused_by_name(kernels: Any) -> None:
    site, good = Site(0, 0, 0, 3), np.ones((3, 2, 4))
    for call, field in [
        (lambda: kernels.random_matmul(site, Role.WEIGHT, "gaussian", 2, good[:2]), "x.shape"),
        (lambda: kernels.random_matmul(site, Role.WEIGHT, "gaussian", 2, good[0]), "x.shape"),
        (lambda: kernels.random_matmul(site, Role.WEIGHT, "gaussian", 2, good.astype(int)), "x.dtype"),
        (lambda: kernels.random_matmul_transpose(site, Role.WEIGHT, "gaussian", 2, good[:2]), "d.shape"),
        (lambda: kernels.random_matmul(site, Role.WEIGHT, "normal", 2, good), "weights"),
        (lambda: kernels.random_matmul(site, Role.WEIGHT, "gaussian", 2**50, good), "(rows, cols)"),
        (lambda: kernels.random_matmul(site, 300, "gaussian", 2, good), "role"),
    ]:
        with pytest.raises(InputError) as refusal:
            call()
        assert refusal.value.field == field


# ---- Haar matrices ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n_out", "n_in"), [(200, 200), (150, 200), (200, 150), (1, 1), (1, 50), (50, 1)])
def test_orthogonal_to_rounding(dtype: Any, n_out: int, n_in: int, path: str) -> None:
    m, k = max(n_out, n_in), min(n_out, n_in)
    w = cpu.draw(SITE, Role.WEIGHT, "orthogonal", n_out, n_in, dtype).astype(np.float64) / np.sqrt(m)
    gram = w @ w.swapaxes(1, 2) if n_out < n_in else w.swapaxes(1, 2) @ w
    assert np.abs(gram - np.eye(k)).max() < 16 * np.finfo(dtype).eps


N, DRAWS = 5, 2 * 10**5


@pytest.fixture(scope="module", params=BOTH, ids=["reference", "cpu"])
def haar(request: pytest.FixtureRequest) -> Array:
    count = DRAWS if request.param is cpu else 4000
    site = Site(stream_key(21, "haar"), 0, 0, count)
    return np.asarray(request.param.draw(site, Role.WEIGHT, "orthogonal", N, N, np.float64) / np.sqrt(N))


def mean_p(values: Array, expected: float) -> float:
    """p-value of a mean, its standard error from the sample."""
    score = (values.mean() - expected) / (values.std() / np.sqrt(values.size))
    return float(2 * special.ndtr(-abs(score)))


def test_haar_entries_have_their_exact_marginal(haar: Array) -> None:
    """(1 + Q_ij)/2 ~ Beta((n−1)/2, (n−1)/2): signs included, so a missing correction of the sign shows."""
    marginal = stats.beta((N - 1) / 2, (N - 1) / 2, loc=-1, scale=2)
    for i in range(N):
        for j in range(N):
            assert stats.kstest(haar[:, i, j], marginal.cdf).pvalue > P_MIN, (i, j)


def test_haar_traces(haar: Array) -> None:
    """Diaconis and Shahshahani (J. Appl. Probab. 31A, 1994): E (tr Q)^k is that of N(0, 1) for small k, and
    tr Q² has mean 1 and variance 2."""
    trace = np.trace(haar, axis1=1, axis2=2)
    square = np.trace(haar @ haar, axis1=1, axis2=2)
    for k, expected in [(1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)]:
        assert mean_p(trace**k, expected) > P_MIN, k
    assert mean_p(square, 1.0) > P_MIN
    assert mean_p((square - 1.0) ** 2, 2.0) > P_MIN
    assert mean_p(trace * square, 0.0) > P_MIN


def test_haar_joint_moments(haar: Array) -> None:
    """Fourth moments over two rows and columns (Weingarten calculus), for all pairs of neighbours."""
    n = N
    for i in range(n - 1):
        a, b = haar[:, i, i], haar[:, i + 1, i + 1]
        c, d = haar[:, i, i + 1], haar[:, i + 1, i]
        assert mean_p(a * a * b * b, (n + 1) / ((n - 1) * n * (n + 2))) > P_MIN
        assert mean_p(a * a * c * c, 1 / (n * (n + 2))) > P_MIN
        assert mean_p(a * b * c * d, -1 / ((n - 1) * n * (n + 2))) > P_MIN
        for product in (a * b, c * d, a * c, a * d):
            assert mean_p(product, 0.0) > P_MIN


def test_haar_determinant_is_a_fair_coin(haar: Array) -> None:
    det = np.linalg.det(haar)
    np.testing.assert_allclose(np.abs(det), 1.0, rtol=1e-12)
    assert stats.binomtest(int(np.count_nonzero(det > 0)), det.size, 0.5).pvalue > P_MIN
    # ... whatever the first entry: a determinant tied to the reflections' signs would show
    assert mean_p(det * haar[:, 0, 0], 0.0) > P_MIN


def test_haar_against_another_sampler(haar: Array) -> None:
    other = stats.ortho_group.rvs(N, size=20000, random_state=np.random.default_rng(6))
    for name, f in {
        "trace": lambda q: np.trace(q, axis1=1, axis2=2),
        "trace of the square": lambda q: np.trace(q @ q, axis1=1, axis2=2),
        "largest entry": lambda q: q.max(axis=(1, 2)),
        "block determinant": lambda q: np.linalg.det(q[:, :2, :2]),
    }.items():
        assert stats.ks_2samp(f(haar), f(other)).pvalue > P_MIN, name


def test_haar_of_one_dimension_is_a_sign() -> None:
    q = cpu.draw(Site(stream_key(22), 0, 0, 20000), Role.WEIGHT, "orthogonal", 1, 1, np.float32)
    np.testing.assert_array_equal(np.abs(q), 1.0)
    assert stats.binomtest(int(np.count_nonzero(q > 0)), q.size, 0.5).pvalue > P_MIN


@pytest.mark.parametrize(("n_out", "n_in"), [(3, 7), (7, 3)])
def test_rectangular_haar_entries(n_out: int, n_in: int) -> None:
    site = Site(stream_key(23), 0, 0, 20000)
    w = cpu.draw(site, Role.WEIGHT, "orthogonal", n_out, n_in, np.float64) / np.sqrt(7)
    marginal = stats.beta(3, 3, loc=-1, scale=2)
    for i in range(n_out):
        for j in range(n_in):
            assert stats.kstest(w[:, i, j], marginal.cdf).pvalue > P_MIN, (i, j)
    for i, j in [(0, 1), (1, 2)]:
        a, b, c, d = w[:, i, i], w[:, j, j], w[:, i, j], w[:, j, i]
        assert mean_p(a * b * c * d, -1 / (6 * 7 * 9)) > P_MIN
        assert mean_p(a * b, 0.0) > P_MIN
