"""The generator and its addresses: published known answers, layout, range errors, statistical quality.

All draws are from fixed keys. Every statistical check asks for a p-value of at least 1e-10; there are fewer
than 1,000, so a correct generator under a fresh seed would fail this file with probability below 1e-7 as
far as the limit laws used for the p-values hold (for eighth moments the tail is up to 3 times theirs):
below 1e-6 in all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
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
from mcverify.strategies import sites
from mcverify.streams import Role, Site, counters, philox, role_number, stream_key, tiles_per_row

P_MIN = 1e-10
KNOWN = json.loads((Path(__file__).parent / "known_answers" / "philox4x32_10.json").read_text())
DTYPES = [np.float32, np.float64]
WORDS = 6  # _native's name for raw words

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


def hexes(words: Any) -> list[str]:
    return [f"{int(w):08x}" for w in words]


def from_hex(words: list[str]) -> list[int]:
    return [int(w, 16) for w in words]


def block_by_c(counter: list[int], key: list[int]) -> list[str]:
    """The four words of one counter, found where the layout puts them: every counter is an address."""
    block = counter[0] | (counter[1] & 0xFFFF) << 32
    role, replicate = counter[1] >> 16 & 0xFF, counter[3] | (counter[1] >> 24) << 32
    tile = np.empty((1, 1, 64), dtype=np.float32)
    _native.draw(key[0] | key[1] << 32, counter[2], role, replicate, WORDS, block // 16, tile)
    return hexes(tile.view(np.uint32).reshape(4, 16)[:, block % 16])


# ---- known answers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", KNOWN["published"]["vectors"])
def test_reference_gives_the_published_words(vector: dict[str, list[str]]) -> None:
    key = from_hex(vector["key"])
    words = philox(from_hex(vector["counter"]), key[0] | key[1] << 32)
    assert hexes(words) == vector["words"]


@pytest.mark.parametrize("vector", KNOWN["published"]["vectors"])
def test_c_gives_the_published_words(vector: dict[str, list[str]], path: str) -> None:
    assert block_by_c(from_hex(vector["counter"]), from_hex(vector["key"])) == vector["words"]


def generated_vectors(kernels: Any) -> list[dict[str, Any]]:
    """What the layout and the uniforms are, at addresses that use every field; stored in the JSON."""
    vectors = []
    for seed, stream, phase, role, layer, replicate, rows, cols, dtype in [
        (0, "", "main", Role.WEIGHT, 0, 0, 1, 3, "float32"),
        (1, "taki2017", "confirmation", Role.BIAS, 7, 12345, 3, 130, "float32"),
        (2, "xiao2018", "mutant", Role.BACKWARD_WEIGHT, 2**32 - 1, 2**40 - 1, 2, 64, "float32"),
        (1, "taki2017", "main", Role.COTANGENT, 1002, 2**32, 3, 70, "float64"),
        (2, "", "main", Role.INPUT, 2**31, 2**39 + 5, 2, 33, "float64"),
    ]:
        site = Site(stream_key(seed, stream, phase), layer, replicate, 1)
        words = kernels.words(site, role, rows, cols, dtype)[0]
        uniforms = kernels.uniforms(site, role, rows, cols, dtype)[0]
        width = 2 * words.dtype.itemsize
        entries = sorted({(0, 0), (0, cols - 1), (rows - 1, 0), (rows - 1, cols // 2), (rows - 1, cols - 1)})
        vectors.append(
            {
                "seed": seed,
                "stream": stream,
                "phase": phase,
                "key": f"{site.key:016x}",
                "role": int(role),
                "layer": layer,
                "replicate": replicate,
                "rows": rows,
                "cols": cols,
                "dtype": dtype,
                "entries": [
                    {
                        "row": row,
                        "col": col,
                        "word": f"{int(words[row, col]):0{width}x}",
                        "uniform_bits": f"{int(uniforms[row, col].view(words.dtype)):0{width}x}",
                    }
                    for row, col in entries
                ],
            }
        )
    return vectors


def test_reference_reproduces_its_vectors() -> None:
    assert generated_vectors(reference) == KNOWN["generated"]["vectors"]


def test_c_reproduces_the_reference_vectors(path: str) -> None:
    assert generated_vectors(cpu) == KNOWN["generated"]["vectors"]


# ---- layout -------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    site=sites(),
    role=st.sampled_from(Role),
    rows=st.integers(0, 4),
    cols=st.integers(0, 200),
    dtype=st.sampled_from(DTYPES),
)
def test_words_and_uniforms_are_the_same_bits_everywhere(
    site: Site, role: Role, rows: int, cols: int, dtype: Any
) -> None:
    words = reference.words(site, role, rows, cols, dtype)
    uniforms = reference.uniforms(site, role, rows, cols, dtype)
    for _ in each_path():
        np.testing.assert_array_equal(cpu.words(site, role, rows, cols, dtype), words)
        np.testing.assert_array_equal(cpu.uniforms(site, role, rows, cols, dtype), uniforms)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_million_uniforms_are_the_same_bits(dtype: Any, path: str) -> None:
    """Enough to meet small words, where the added half and the rounding show (1 in 512 in float32)."""
    site = Site(stream_key(8), 1, 0, 1)
    expected = reference.uniforms(site, Role.MASK, 16, 2**16, dtype)
    np.testing.assert_array_equal(cpu.uniforms(site, Role.MASK, 16, 2**16, dtype), expected)


@settings(deadline=None, max_examples=40)
@given(
    first=st.integers(0, 2**44 - 3) | st.integers(2**28 - 2, 2**28 + 1),  # a tile is 2^4 blocks of 2^48
    role=st.integers(0, 255),
    start=st.integers(0, 2**40 - 1),
)
def test_every_block_index_reaches_the_counter(first: int, role: int, start: int) -> None:
    blocks = np.arange(first * 16, (first + 2) * 16, dtype=np.uint64).reshape(2, 16)
    words = philox(counters(99, role, start, blocks), 2**63 + 5)
    expected = np.moveaxis(words, -1, -2).reshape(-1)
    for _ in each_path():
        tiles = np.empty((1, 1, 128), dtype=np.float32)
        _native.draw(2**63 + 5, 99, role, start, WORDS, first, tiles)
        np.testing.assert_array_equal(tiles.view(np.uint32).reshape(-1), expected)


def test_counter_layout_is_the_documented_one() -> None:
    words = counters(0x01234567, 0x89, 0xAB_CDEF0123, 0x4567_89ABCDEF)
    assert hexes(words) == ["89abcdef", "ab894567", "01234567", "cdef0123"]


@pytest.mark.parametrize(("dtype", "per_tile"), [(np.float32, 64), (np.float64, 32)])
def test_layout_of_one_draw_at_a_time(dtype: Any, per_tile: int) -> None:
    site, rows, cols = Site(3, 4, 5, 2), 2, 100
    words = reference.words(site, Role.MASK, rows, cols, dtype)
    tiles = -(-cols // per_tile)
    for r, row, col in [(0, 0, 0), (1, 0, 17), (0, 1, 63), (1, 1, 64), (1, 1, 99)]:
        tile, rest = divmod(col, per_tile)
        j, lane = divmod(rest, 16)
        block = philox(counters(4, Role.MASK, 5 + r, (row * tiles + tile) * 16 + lane), 3)
        word = int(block[j]) if per_tile == 64 else int(block[2 * j]) | int(block[2 * j + 1]) << 32
        assert int(words[r, row, col]) == word


def test_draws_do_not_depend_on_how_replicates_are_chunked(path: str) -> None:
    whole = cpu.draw(Site(1, 2, 2**32 - 2, 4), Role.WEIGHT, "gaussian", 3, 70, np.float32)
    parts = [cpu.draw(Site(1, 2, 2**32 - 2 + r, 1), Role.WEIGHT, "gaussian", 3, 70, np.float32) for r in range(4)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_uniforms_at_the_ends_of_their_range() -> None:
    """Rounded exactly as docs/streams.md says: never 0, and 1 only by rounding."""
    top = 2**32 - 1
    unit = reference._unit(np.array([0, 1, 2**31, top - 128, top - 127, top], dtype=np.uint32))
    assert unit.dtype == np.float32
    assert unit.tolist() == [2.0**-33, 3 * 2.0**-33, 0.5, 1 - 2.0**-24, 1.0, 1.0]
    wide = reference._unit(np.array([0, 2**11, 2**63, 2**64 - 1], dtype=np.uint64))
    assert wide.tolist() == [2.0**-54, 3 * 2.0**-54, 0.5, 1.0]
    signed = reference._signed_unit(np.array([0, 2**63 - 1, 2**63, 2**64 - 1], dtype=np.uint64))
    assert signed.tolist() == [-1 + 2.0**-53, -(2.0**-53), 2.0**-53, 1 - 2.0**-53]


# ---- keys and range errors ------------------------------------------------------------------------------


def test_stream_key_is_pinned_and_unambiguous() -> None:
    assert stream_key(0) == int(KNOWN["generated"]["vectors"][0]["key"], 16)
    names = ["", "a", "ab", "b", "main"]
    keys = {stream_key(seed, s, p) for seed in (0, 1, 10, 2**70) for s in names for p in names}
    assert len(keys) == 4 * 5 * 5
    assert all(0 <= key < 2**64 for key in keys)
    assert stream_key(np.int64(3), "x") == stream_key(3, "x")


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: stream_key(-1), "seed"),
        (lambda: stream_key(1.5), "seed"),  # type: ignore[arg-type]
        (lambda: Site(2**64, 0, 0, 1), "site.key"),
        (lambda: Site(-1, 0, 0, 1), "site.key"),
        (lambda: Site(0, 2**32, 0, 1), "site.layer"),
        (lambda: Site(0, 0, 2**40, 0), "site.start"),
        (lambda: Site(0, 0, 0, -1), "site.count"),
        (lambda: Site(0, 0, 2**40 - 1, 2), "site.start + site.count"),
        (lambda: Site(0, 0, np.int64(2**40 - 1), np.int64(2)), "site.start + site.count"),
        (lambda: role_number(256), "role"),
        (lambda: tiles_per_row(-1, 1, np.float32), "rows"),
        (lambda: tiles_per_row(1, 1.0, np.float32), "cols"),  # type: ignore[arg-type]
        (lambda: tiles_per_row(2**24, 2**26 + 1, np.float32), "(rows, cols)"),
        (lambda: tiles_per_row(2**25, 2**25, np.float64), "(rows, cols)"),
        (lambda: tiles_per_row(1, 1, np.int32), "dtype"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(make: Any, field: str) -> None:
    with pytest.raises(InputError) as refusal:
        make()
    assert refusal.value.field == field
    assert "\n" not in str(refusal.value)


def test_the_largest_that_fit_are_not_refused() -> None:
    Site(2**64 - 1, 2**32 - 1, 2**40 - 1, 1)
    assert tiles_per_row(2**24, 2**26, np.float32) == 2**20
    assert tiles_per_row(10**6, 10**6, np.float64) == 31250


@pytest.mark.parametrize("kernels", [reference, cpu])
def test_both_backends_refuse(kernels: Any) -> None:
    site = Site(0, 0, 0, 1)
    for call, field in [
        (lambda: kernels.draw(site, 256, "gaussian", 1, 1, np.float32), "role"),
        (lambda: kernels.draw(site, Role.WEIGHT, "gaussian", 2**40, 2**20, np.float32), "(rows, cols)"),
        (lambda: kernels.draw(site, Role.WEIGHT, "orthogonal", 1, 1, np.int64), "dtype"),
        (lambda: kernels.draw(site, Role.WEIGHT, "gauss", 1, 1, np.float32), "weights"),
        (lambda: kernels.uniforms(site, Role.WEIGHT, 1, -1, np.float32), "cols"),
        (lambda: kernels.words(site, Role.WEIGHT, 1, 1, np.float16), "dtype"),
    ]:
        with pytest.raises(InputError) as refusal:
            call()
        assert refusal.value.field == field


# ---- quality of the normals -----------------------------------------------------------------------------


def normals(dtype: Any) -> Array:
    """2^24 draws (float32), or 10^7 or so (float64), in 16 replicates of 256 rows."""
    cols = 4096 if dtype == np.float32 else 2560
    return cpu.draw(Site(stream_key(20261121, "quality"), 5, 0, 16), Role.WEIGHT, "gaussian", 256, cols, dtype)


@pytest.fixture(scope="module", params=DTYPES, ids=["float32", "float64"])
def z(request: pytest.FixtureRequest) -> Array:
    return normals(request.param)


def two_sided(score: float) -> float:
    return float(2 * special.ndtr(-abs(score)))


def double_factorial(k: int) -> float:
    return float(special.factorial2(k)) if k > 0 else 1.0


def test_moments_to_the_eighth(z: Array) -> None:
    sums = np.zeros(9)
    for part in z:
        wide = part.astype(np.float64).ravel()
        power = np.ones_like(wide)
        for k in range(1, 9):
            power *= wide
            sums[k] += power.sum()
    for k in range(1, 9):
        expected = 0.0 if k % 2 else double_factorial(k - 1)
        error = np.sqrt((double_factorial(2 * k - 1) - expected**2) / z.size)
        assert two_sided((sums[k] / z.size - expected) / error) > P_MIN, f"moment {k}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_mean_and_variance_of_many(dtype: Any) -> None:
    """2^27 draws: sees a mean off by 6e-4 standard deviations, or a variance off by 8e-4."""
    part, parts = np.empty((1, 1, 2**20), dtype=dtype), 2**7
    sums = squares = 0.0
    for r in range(parts):
        _native.draw(stream_key(20261121, "many"), 0, int(Role.WEIGHT), r, 0, 0, part)
        wide = part.ravel().astype(np.float64, copy=False)
        sums += float(wide.sum())
        squares += float(wide @ wide)
    n = parts * part.size
    assert two_sided(sums / np.sqrt(n)) > P_MIN
    assert two_sided((squares - n) / np.sqrt(2.0 * n)) > P_MIN


def test_tails(z: Array) -> None:
    for threshold in (3.0, 4.0, 5.0):
        for count in (np.count_nonzero(z > threshold), np.count_nonzero(z < -threshold)):
            p = stats.binomtest(int(count), z.size, float(special.ndtr(-threshold))).pvalue
            assert p > P_MIN, f"beyond {threshold}: {count}"
    assert np.abs(z).max() > 4.9  # 1e-10 or less that 10^7 draws stay below


def test_bins(z: Array) -> None:
    bins = 1024
    edges = special.ndtri(np.arange(1, bins) / bins).astype(z.dtype)
    counts = np.zeros(bins)
    for part in z:
        counts += np.histogram(part, bins=np.concatenate(([-np.inf], edges, [np.inf])))[0]
    assert stats.chisquare(counts).pvalue > P_MIN


def correlation_p(x: Array) -> tuple[float, float]:
    """p-values that the columns of x, standardised with known mean 0 and variance 1, are uncorrelated: of
    the largest correlation (Bonferroni) and of their sum of squares (χ²)."""
    n, k = x.shape
    scores = (x.T @ x / np.sqrt(n))[np.triu_indices(k, 1)]
    pairs = scores.size
    return two_sided(float(np.abs(scores).max())) * pairs, float(stats.chi2.sf(scores @ scores, pairs))


def check_independent(x: Array) -> None:
    """Columns of standard normals: neither they nor their squares correlate."""
    wide = x.astype(np.float64)
    for name, values in [("values", wide), ("squares", (wide**2 - 1) / np.sqrt(2.0))]:
        largest, together = correlation_p(values)
        assert largest > P_MIN, name
        assert together > P_MIN, name


def test_within_a_tile(z: Array) -> None:
    """All lanes, all words of a block, and the two members of a Box–Muller pair."""
    per_tile = 64 if z.dtype == np.float32 else 32
    check_independent(z.reshape(-1, per_tile))


def test_across_neighbouring_tiles_rows_and_replicates(z: Array) -> None:
    per_tile = 64 if z.dtype == np.float32 else 32
    tiles = z.reshape(16, 256, -1, per_tile)
    check_independent(np.moveaxis(tiles[:, :, :40], 2, -1).reshape(-1, 40))  # tiles of a row
    check_independent(np.moveaxis(z[:, :128], 1, -1).reshape(-1, 128))  # rows
    check_independent(np.moveaxis(z, 0, -1).reshape(-1, 16))  # replicates
    flat = z.reshape(-1).astype(np.float64)
    for lag in (1, 2, 15, 16, 17, 32, 48, 63, 64, 65):
        assert two_sided(float(flat[:-lag] @ flat[lag:]) / np.sqrt(flat.size)) > P_MIN, f"lag {lag}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_across_addresses_that_differ_in_one_bit(dtype: Any) -> None:
    key, layer, start = stream_key(20261121, "addresses"), 2**20, 2**33
    sites = [
        (Site(key, layer, start, 1), Role.WEIGHT, 0),
        *((Site(key ^ 1 << bit, layer, start, 1), Role.WEIGHT, 0) for bit in (0, 31, 32, 63)),
        *((Site(key, layer ^ 1 << bit, start, 1), Role.WEIGHT, 0) for bit in (0, 1, 16, 31)),
        *((Site(key, layer, start ^ 1 << bit, 1), Role.WEIGHT, 0) for bit in (0, 8, 24, 31, 32, 39)),
        *((Site(key, layer, start, 1), role, 0) for role in (1, 2, 4, 64, 128)),
        *((Site(key, layer, start, 1), Role.WEIGHT, 1 << bit) for bit in (20, 27, 28, 35, 43)),
    ]
    draws = np.empty((len(sites), 1, 1, 2**18), dtype=dtype)
    for (site, role, first), out in zip(sites, draws, strict=True):
        _native.draw(site.key, site.layer, int(role), site.start, 0, first, out)
    check_independent(draws.reshape(len(sites), -1).T)


def test_words_have_even_bits() -> None:
    words = cpu.words(Site(stream_key(3), 0, 0, 1), Role.WEIGHT, 1, 2**21, np.float32).ravel()
    for bit in range(32):
        ones = int(np.count_nonzero(words >> np.uint32(bit) & np.uint32(1)))
        assert stats.binomtest(ones, words.size, 0.5).pvalue > P_MIN, f"bit {bit}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_uniforms_are_uniform(dtype: Any) -> None:
    u = cpu.uniforms(Site(stream_key(4), 1, 0, 1), Role.MASK, 1, 2**20, dtype).ravel().astype(np.float64)
    assert stats.kstest(u, "uniform").pvalue > P_MIN
    assert u.min() > 0.0


# ---- the other laws -------------------------------------------------------------------------------------


def truncated_cdf(x: Array) -> Array:
    scale = np.sqrt(1 - 4 * stats.norm.pdf(2.0) / (stats.norm.cdf(2.0) - stats.norm.cdf(-2.0)))
    return np.asarray(stats.truncnorm.cdf(x * scale, -2.0, 2.0))


def uniform_cdf(x: Array) -> Array:
    return np.asarray(stats.uniform.cdf(x, -np.sqrt(3.0), 2 * np.sqrt(3.0)))


CDFS = {"gaussian": stats.norm.cdf, "uniform": uniform_cdf, "truncated_normal": truncated_cdf}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("law", ["gaussian", "uniform", "truncated_normal", "rademacher"])
def test_variance_kurtosis_and_distribution(law: str, dtype: Any) -> None:
    from mcverify.weights import weight_law

    site = Site(stream_key(5, law), 1, 0, 1)
    w = cpu.draw(site, Role.WEIGHT, law, 1, 2**20, dtype).ravel().astype(np.float64)
    if law in CDFS:
        assert stats.kstest(w, CDFS[law]).pvalue > P_MIN
    else:
        np.testing.assert_array_equal(np.abs(w), 1.0)
    kurtosis = weight_law(law).kurtosis
    for power, expected in [(1, 0.0), (2, 1.0), (3, 0.0), (4, kurtosis)]:
        values = w**power
        spread = values.std()
        if spread == 0.0:  # even powers of ±1
            assert values[0] == expected
        else:
            score = (values.mean() - expected) / (spread / np.sqrt(w.size))
            assert two_sided(score) > P_MIN, f"moment {power}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_signs_are_independent(dtype: Any) -> None:
    w = cpu.draw(Site(stream_key(6), 1, 0, 1), Role.WEIGHT, "rademacher", 1, 2**21, dtype)
    tiles = w.reshape(-1, 64 if dtype == np.float32 else 32).astype(np.float64)
    largest, together = correlation_p(tiles)
    assert largest > P_MIN
    assert together > P_MIN
    sums = np.cumsum(w.ravel())
    assert two_sided(float(sums[-1]) / np.sqrt(w.size)) > P_MIN


def test_roles_are_not_renumbered() -> None:
    """A role's number is part of every address: changing one changes published results."""
    assert [role.value for role in Role] == list(range(10))
