"""Two-dimensional expectations by Mehler's expansion in the correlation, many pairs at a time.

With h_k the normalised Hermite polynomials and a_k(q) = E h_k(z) f(√q z),

    E f(u_a) f(u_b) = Σ_k a_k(q_aa) a_k(q_bb) c^k.

Coefficients belong to single variances, so B inputs need B coefficient vectors and not B² quadratures; the
sum is one Horner scheme over all pairs. By Cauchy–Schwarz what is left out beyond K terms is at most |c|^K
√(t_a t_b) with t = E f² − Σ_{k<K} a_k², which is the error reported: no guess about how fast the series
converges.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mcverify import threads
from mcverify.expectations.integrand import EPS, Integrand
from mcverify.expectations.pairs import Pairs
from mcverify.expectations.quadrature import DISTRUST, Accuracy, cut_off, doublings, half_line, weighted_sum

Floats: TypeAlias = NDArray[np.float64]

_BLOCK = 1 << 16
_ONE_CORE = 1 << 20
"""Twice the multiplications in a matrix product that BLAS does on one core: the others are busy with other blocks."""


class Spectrum(NamedTuple):
    """Hermite coefficients of f(√q z) for U variances: by parity, (K/2, U) each, and E f², tail, quadrature
    error and √ of what lies beyond the rule's reach."""

    even: Floats
    odd: Floats
    power: Floats
    tail: Floats
    error: Floats
    lost: Floats


def expand(f: Integrand, pairs: Pairs, rtol: float, rules: Accuracy) -> tuple[Floats, Floats, Floats]:
    """E f(u_a) f(u_b), its error and its scale √(E f_a² E f_b²), for every pair; f may break at 0 only.

    The error is large where the series converges slowly; the caller treats those pairs otherwise.
    """
    value, error, scale = np.zeros(len(pairs)), np.full(len(pairs), np.inf), np.zeros(len(pairs))
    todo, reached = np.arange(len(pairs)), 0
    for count in rules.ladder:
        if reached:
            todo = todo[promising(error[todo], pairs.cos[todo], scale[todo], rtol, reached, count)]
            if not todo.size:
                break
        value[todo], error[todo], scale[todo] = _sum(f, pairs[todo], count, rules)
        reached = count
    return value, error, scale


def promising(error: Floats, cos: Floats, scale: Floats, rtol: float, reached: int, count: int) -> NDArray[np.bool_]:
    """Which unresolved pairs `count` terms may resolve, judging by what `reached` terms left.

    Hermite coefficients of a function analytic in a strip fall like e^(−r√k), besides the factor |c|^k.
    """
    with np.errstate(divide="ignore"):
        bend = np.log(np.abs(cos))
        left = np.log(np.maximum(error / np.maximum(scale, 1e-300), 1e-300)) - reached * bend
    foreseen = np.minimum(left, 0.0) * math.sqrt(count / reached) + count * bend
    return np.asarray((error > rtol * scale) & ~(foreseen > math.log(rtol) + 4.0))


def _sum(f: Integrand, pairs: Pairs, count: int, rules: Accuracy) -> tuple[Floats, Floats, Floats]:
    sds, where = np.unique(np.concatenate([pairs.sd_a, pairs.sd_b]), return_inverse=True)
    a, b = where[: len(pairs)], where[len(pairs) :]
    spectrum = coefficients(f, sds, count, rules)
    value = np.zeros(len(pairs))
    if spectrum.even.any():
        value += _horner(spectrum.even, a, b, pairs.cos**2)
    if spectrum.odd.any():
        value += pairs.cos * _horner(spectrum.odd, a, b, pairs.cos**2)
    norm = np.sqrt(spectrum.power)
    scale = norm[a] * norm[b]
    # roots apart: the product of two tails underflows at tiny variances
    tail = np.sqrt(spectrum.tail)
    error = np.abs(pairs.cos) ** count * tail[a] * tail[b]
    error += spectrum.error[a] * norm[b] + spectrum.error[b] * norm[a]
    error += spectrum.lost[a] * spectrum.lost[b] + 8 * EPS * scale
    return value, error, scale


def _horner(coefficients_: Floats, a: NDArray[np.intp], b: NDArray[np.intp], x: Floats) -> Floats:
    """Σ_k A[k, a] A[k, b] x^k, in blocks of pairs that stay in cache."""
    out = np.empty(a.size)
    step = max(1, _BLOCK // coefficients_.shape[0])
    for start in range(0, a.size, step):
        cut = slice(start, start + step)
        products = coefficients_[:, a[cut]] * coefficients_[:, b[cut]]
        total = products[-1].copy()
        for row in products[-2::-1]:
            total *= x[cut]
            total += row
        out[cut] = total
    return out


def coefficients(f: Integrand, sds: Floats, count: int, rules: Accuracy) -> Spectrum:
    """The first `count` Hermite coefficients of f(sd·z) for each sd, f breaking at 0 only."""
    matrices, vectors = np.empty((2, count // 2, sds.size)), np.empty((4, sds.size))
    out = Spectrum(*matrices, *vectors)
    levels = doublings(sds, f.scale)
    blocks: list[tuple[int, NDArray[np.intp]]] = []
    for level in map(int, np.unique(levels)):
        group = np.flatnonzero(levels == level)
        nodes = rules.fine * (level + 2 * int(rules.reach))
        step = max(1, min(_BLOCK // nodes, _ONE_CORE // (count * nodes)))
        blocks += [(level, group[start : start + step]) for start in range(0, group.size, step)]

    def block(which: tuple[int, NDArray[np.intp]]) -> None:
        level, rows = which
        even, odd, power = _project(f, sds[rows], count, level, rules.fine, rules.reach)
        even_, odd_, power_ = _project(f, sds[rows], count, level, rules.coarse, rules.reach)
        out.even[:, rows], out.odd[:, rows], out.power[rows] = even, odd, power
        found = (even * even).sum(axis=0) + (odd * odd).sum(axis=0)
        out.tail[rows] = np.maximum(power - found, 0.0) + np.abs(power - power_) + 8 * EPS * power
        away = ((even - even_) ** 2).sum(axis=0) + ((odd - odd_) ** 2).sum(axis=0)
        out.error[rows] = DISTRUST * np.sqrt(away)

    threads.each(block, blocks)
    out.lost[:] = cut_off(f, sds, rules.reach)
    return out


def _project(
    f: Integrand, sds: Floats, count: int, level: int, order: int, reach: float
) -> tuple[Floats, Floats, Floats]:
    """Even and odd coefficients (count/2, U) and E f² (U,) on one rule."""
    even_rows, odd_rows, z, p = _hermite_rows(count, level, order, reach)
    u = z[:, None] * sds
    above, below = f(np.stack([u, -u]))
    even, odd = (
        rows @ part if part.any() else np.zeros((len(rows), sds.size))
        for rows, part in ((even_rows, above + below), (odd_rows, above - below))
    )
    return even, odd, weighted_sum(p, above * above + below * below)


@lru_cache(maxsize=24)
def _hermite_rows(count: int, level: int, order: int, reach: float) -> tuple[Floats, Floats, Floats, Floats]:
    """Weights times h_k at the nodes of the half line: even k, odd k, then the nodes and plain weights."""
    # h_k oscillates with wave number √k: shorter panels for many coefficients
    z, p = half_line(level, order, 0 if count <= 64 else 1, reach)
    table = np.empty((count, z.size))
    table[0], table[1] = 1.0, z
    for k in range(1, count - 1):
        table[k + 1] = (z * table[k] - math.sqrt(k) * table[k - 1]) / math.sqrt(k + 1)
    table *= p
    return np.ascontiguousarray(table[0::2]), np.ascontiguousarray(table[1::2]), z, p
