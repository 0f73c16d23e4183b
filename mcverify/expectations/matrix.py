"""Expectations over all pairs of many Gaussian pre-activations at once: from their covariance matrix to another.

What `gaussian.covariance` gives for every pair, with the same accuracy, for thousands of columns: only the pairs of
different columns a < b are computed, tile by tile on all cores, and no temporary is larger than the result. Positively
homogeneous φ and erf by compiled closed forms; φ that break at most at 0 by Mehler's series, whose coefficients
belong to columns; the pairs it does not resolve, and all other φ, as `gaussian` does them. Small matrices go
there too: they are done before a compiled function is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mcverify import threads
from mcverify.activations import Activation, activation
from mcverify.expectations import closed_forms, gaussian, mehler
from mcverify.expectations.gaussian import Expectation
from mcverify.expectations.integrand import EPS, Integrand, power_of
from mcverify.expectations.pairs import even_exponent, pairs, variances
from mcverify.expectations.quadrature import accuracy, integrate

Floats: TypeAlias = NDArray[np.float64]
Where: TypeAlias = NDArray[np.intp]
Which: TypeAlias = Literal["covariance", "derivative"]
Compute: TypeAlias = Callable[[Floats, slice, slice, Floats, Floats], int]
"""(tile of the matrix, its rows, its columns, values out, errors out) → how many entries are no covariances."""
Unresolved: TypeAlias = Callable[[Floats, slice, slice], int]
"""(a tile's errors, its rows, its columns) → how many pairs a < b of it are above the target."""

SMALL = 128
"""Columns up to which `gaussian` does the whole matrix."""
_TILE = 128
_PAIRS = 1 << 17  # at once, where `gaussian` does them


def covariance(act: str | Activation, cov: Floats, *, rtol: float = 1e-12) -> Expectation:
    """E φ(u_a)φ(u_b) of u ~ N(0, cov): symmetric (column, column), of which a ≤ b is read."""
    return Expectation(*_expect(activation(act), "covariance", cov, rtol))


def derivative_covariance(act: str | Activation, cov: Floats, *, rtol: float = 1e-12) -> Expectation:
    """E φ′(u_a)φ′(u_b) of u ~ N(0, cov), likewise."""
    return Expectation(*_expect(activation(act), "derivative", cov, rtol))


def values(act: str | Activation, which: Which, cov: Floats, *, rtol: float = 1e-12) -> Floats:
    """The values of one of these alone, which takes less time and memory; of a stack of matrices, too."""
    return _expect(activation(act), which, cov, rtol, errors=False)[0]


def _expect(act: Activation, which: Which, cov: Floats, rtol: float, errors: bool = True) -> tuple[Floats, Floats]:
    q = variances("q", np.diagonal(cov, axis1=-2, axis2=-1))
    if cov.ndim > 2 or len(cov) <= SMALL:
        value, error = np.empty((2, *cov.shape))
        a, b = np.triu_indices(q.shape[-1], 1)
        if a.size:
            found = _pairwise(act, which)(q[..., a], cov[..., a, b], q[..., b], rtol=rtol)
            for out, above in zip((value, error), found, strict=True):
                out[..., a, b] = out[..., b, a] = above
    else:
        value, error = large(act, which, cov, rtol, errors=errors)
    single = gaussian.second_moment if which == "covariance" else gaussian.derivative_second_moment
    diagonal = np.arange(q.shape[-1])
    for out, own in zip((value, error), single(act, q, rtol=rtol), strict=True):
        if out.size:
            out[..., diagonal, diagonal] = own
    return value, error


def _pairwise(act: Activation, which: Which) -> Callable[..., Expectation]:
    return partial(gaussian.covariance if which == "covariance" else gaussian.derivative_covariance, act)


def large(
    act: Activation, which: Which, cov: Floats, rtol: float = 1e-12, *, errors: bool = True
) -> tuple[Floats, Floats]:
    """Values and errors off the diagonal; without `errors` there may be none, and the second array is empty."""
    value = np.empty(cov.shape)
    f = power_of(act, 1, int(which == "derivative"))
    compiled = _closed(act, which, cov)
    if act.slopes == (1.0, 1.0):
        value[:] = cov if which == "covariance" else 1.0
        return value, np.zeros(cov.shape if errors else (0, 0))
    if compiled is not None:
        error = np.empty(cov.shape) if errors else None
        _over_tiles(compiled, cov, value, error)
        _beside_zeros(f, cov, rtol, value, error)
        return value, np.empty((0, 0)) if error is None else error
    error = np.empty(cov.shape) if errors else np.zeros(cov.shape)  # zeros take no memory before they are written
    if closed_forms.kernel(act, which) is None and f.breaks_only_at_zero:
        left = _series(f, cov, rtol, value, error, errors=errors)
        _one_by_one(_pairwise(act, which), left, cov, rtol, value, error)
    else:
        _by_strips(_pairwise(act, which), cov, rtol, value, error)
    return value, error if errors else np.empty((0, 0))


# ------------------------------------------------------------------------------------------------ tiles


def _over_tiles(
    compute: Compute, cov: Floats, value: Floats, error: Floats | None, *, unresolved: Unresolved | None = None,
    again: bool = False, errors: bool = True,
) -> list[int]:  # fmt: skip
    """Both halves of the results from tiles on and above the diagonal, or `again` of those tiles that are unresolved;
    the first rows of strips that still are. Without `errors` only what is unresolved, above the diagonal, is sure to
    stand in `error`, which must be 0 elsewhere. Raises InputError for what is no covariance."""
    from mcverify.expectations import tiles_cpu

    left = set()

    def strip(start: int) -> None:
        rows = slice(start, min(start + _TILE, len(cov)))
        for first in range(start, len(cov), _TILE):
            at = rows, slice(first, min(first + _TILE, len(cov)))
            off = np.full(value[at].shape, np.inf) if error is None or not again else error[at].copy()
            if again and unresolved is not None and not unresolved(off, *at):
                continue
            # Copies, of entries one after another: a strided row keeps the compiler from vector instructions.
            tile, inner = cov[at].copy(), value[at].copy() if again else np.empty(off.shape)
            if compute(tile, *at, inner, off):
                q = np.diagonal(cov)
                pairs(q[rows, None], tile, q[at[1]])  # raises, with the first such entry
            open_ = unresolved is not None and bool(unresolved(off, *at))
            value[at] = inner
            tiles_cpu.mirror(inner, value[at[::-1]], first == start)
            if error is not None and (errors or again or open_):
                error[at] = off
                tiles_cpu.mirror(off, error[at[::-1]], first == start)
            if open_:
                left.add(start)

    threads.each(strip, range(0, len(cov), _TILE))
    return sorted(left)


def _sides(cov: Floats, *more: Floats) -> Floats:
    """(2 + …, column): mantissa and factor of every variance, as `tiles_cpu` has them, and what comes with them."""
    q = np.diagonal(cov)
    exponent = even_exponent(q)
    return np.stack([np.ldexp(q, -exponent), np.ldexp(1.0, -exponent // 2), *more])


def _closed(act: Activation, which: Which, cov: Floats) -> Compute | None:
    """The compiled closed form, where there is one."""
    if act.slopes in (None, (1.0, 1.0)) and act.kernel != "erf":
        return None
    from mcverify.expectations import tiles_cpu

    sides = _sides(cov, np.diagonal(cov))
    negative, positive = act.slopes or (0.0, 0.0)
    numbers = (negative * negative + positive * positive, negative * positive, float(which == "derivative"))
    kernel = tiles_cpu.erf if act.kernel == "erf" else tiles_cpu.homogeneous

    def compute(tile: Floats, rows: slice, columns: slice, *out: Floats) -> int:
        return int(kernel(tile, sides[:, rows].copy(), sides[:, columns].copy(), numbers, *out))

    return compute


def _beside_zeros(f: Integrand, cov: Floats, rtol: float, value: Floats, error: Floats | None) -> None:
    """Pairs of which one is the constant 0: f(0)·E f of the other."""
    q = np.diagonal(cov)
    zero = np.flatnonzero(q == 0.0)
    if zero.size:
        at_zero = float(f(np.zeros(1))[0])
        mean, off = integrate(f, q, rtol)
        mean[zero], off[zero] = at_zero, 0.0
        value[zero], value[:, zero] = at_zero * mean, at_zero * mean[:, None]
        if error is not None:
            error[zero], error[:, zero] = abs(at_zero) * off, abs(at_zero) * off[:, None]


# ----------------------------------------------------------------------------------------------- series


def _series(
    f: Integrand, cov: Floats, rtol: float, value: Floats, error: Floats, *, errors: bool
) -> tuple[Where, Where]:
    """Mehler's series with as many terms as its ladder allows while it gets on; the pairs a < b that it leaves."""
    from mcverify.expectations import tiles_cpu

    q = np.diagonal(cov)
    sds, where = np.unique(np.sqrt(q), return_inverse=True)
    rules, target = accuracy(rtol), max(rtol, 64 * EPS)
    # Coefficients belong to columns and cost little here, further sums over all pairs much: first a few more terms, and
    # better rules, than single pairs take.
    ladder = (rules.ladder[0] * 4 // 3, *rules.ladder[1:])
    rules = rules._replace(fine=rules.fine + 4, coarse=rules.coarse + 4, ladder=ladder)
    for count, more in zip(rules.ladder, (*rules.ladder[1:], 0), strict=True):
        s = mehler.coefficients(f, sds, count, rules)
        norm, again = np.sqrt(s.power)[where], count > rules.ladder[0]

        def unresolved(off: Floats, rows: slice, columns: slice) -> int:
            return int(tiles_cpu.how_many_open(off, norm[rows], norm[columns], target, rows == columns))  # noqa: B023, called at once

        sum_ = _sum_of(s, where, cov, count, target)
        strips = _over_tiles(sum_, cov, value, error, unresolved=unresolved, again=again, errors=errors)

        def promising(a: Where, b: Where) -> bool:
            cos, size = cov[a, b] / np.maximum(np.sqrt(q[a] * q[b]), 1e-300), norm[a] * norm[b]  # noqa: B023
            return bool(mehler.promising(error[a, b], cos, size, rtol, count, more).any())  # noqa: B023

        if not more or not any(promising(a, b) for a, b in _open_pairs(error, norm, target, strips)):
            break
    a, b = np.concatenate([np.empty((2, 0), np.intp), *_open_pairs(error, norm, target, strips)], axis=1)
    return a, b


def _sum_of(s: mehler.Spectrum, where: Where, cov: Floats, count: int, target: float) -> Compute:
    """The compiled series with the coefficients of every column."""
    from mcverify.expectations import tiles_cpu

    even, odd = (np.ascontiguousarray(half[: len(half) * bool(half.any()), where]) for half in (s.even, s.odd))
    sides = _sides(cov, np.sqrt(s.power)[where], np.sqrt(s.tail)[where], s.error[where], s.lost[where])

    def compute(tile: Floats, rows: slice, columns: slice, value: Floats, error: Floats) -> int:
        whole = sides[:, rows], sides[:, columns], even[:, rows], odd[:, rows], even[:, columns], odd[:, columns]
        both = [part.copy() for part in whole]
        return int(tiles_cpu.mehler(tile, *both, count, target, value, error))

    return compute


def _open_pairs(error: Floats, norm: Floats, target: float, strips: list[int]) -> Iterator[NDArray[np.intp]]:
    """(2, n): a < b of pairs whose error is above the target, strip by strip."""
    for start in strips:
        rows = slice(start, min(start + _TILE, len(error)))
        above = np.stack(np.nonzero(~(error[rows, start:] <= target * norm[rows, None] * norm[start:])))
        yield above[:, above[0] < above[1]] + start


def _one_by_one(
    pairwise: Callable[..., Expectation], left: tuple[Where, Where], cov: Floats, rtol: float, value: Floats,
    error: Floats,
) -> None:  # fmt: skip
    """The pairs that the series leaves, as `gaussian` does them."""
    q = np.diagonal(cov)
    for start in range(0, left[0].size, _PAIRS):
        a, b = (x[start : start + _PAIRS] for x in left)
        got = pairwise(q[a], cov[a, b], q[b], rtol=rtol)
        better = got.error < error[a, b]
        a, b = a[better], b[better]
        value[a, b] = value[b, a] = got.value[better]
        error[a, b] = error[b, a] = got.error[better]


def _by_strips(pairwise: Callable[..., Expectation], cov: Floats, rtol: float, value: Floats, error: Floats) -> None:
    """Everything as `gaussian` does it, some rows at a time."""
    from mcverify.expectations import tiles_cpu

    q = np.diagonal(cov)
    rows = max(1, _PAIRS // len(q))

    def strip(start: int) -> None:
        cut, rest = slice(start, min(start + rows, len(q))), slice(start, None)
        value[cut, rest], error[cut, rest] = pairwise(q[cut, None], cov[cut, rest], q[rest], rtol=rtol)
        for out in (value, error):
            tiles_cpu.mirror(out[cut, rest], out[rest, cut], True)

    threads.each(strip, range(0, len(q), rows))
