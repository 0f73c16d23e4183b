"""One-dimensional Gaussian expectations by composite Gauss–Legendre rules, with an estimate of the error.

Gauss–Hermite rules are poor where φ(√q z) bends on a scale of 1/√q or has a kink. Here the line is cut into
panels that shrink geometrically towards 0 (and towards each kink) until they are as short as φ's own length
scale, so that every singularity of the analytic pieces stays about a panel length away and each panel
converges geometrically. Two rules of different order on the same panels give the estimate; unresolved
integrals are refined.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mcverify import threads
from mcverify.expectations.integrand import EPS, Integrand

Floats: TypeAlias = NDArray[np.float64]
Weight: TypeAlias = Callable[[Floats], Floats]

_SQRT_2PI = math.sqrt(2.0 * math.pi)
_BLOCK = 1 << 17  # array elements per evaluation: stays in cache
_REFINEMENTS = 5
DISTRUST = 10.0
"""The error reported over the difference of two rules: under-resolved, both may be wrong by as much."""


class Accuracy(NamedTuple):
    """Node counts and ranges that go with a requested relative tolerance."""

    fine: int
    coarse: int
    reach: float
    """The standard normal is cut at ± this."""
    hermite: tuple[int, int]
    """Gauss–Hermite orders (fine, coarse) where f is smooth on the scale of the Gaussian."""
    ladder: tuple[int, ...]
    """Numbers of Hermite coefficients to try."""


STRICT = Accuracy(14, 10, 10.0, (40, 30), (48, 144, 320))
LOOSE = Accuracy(8, 6, 8.0, (20, 14), (24, 80, 240))


def accuracy(rtol: float) -> Accuracy:
    """The rules for a relative tolerance."""
    return STRICT if rtol < 1e-8 else LOOSE


@lru_cache(maxsize=64)
def legendre(order: int) -> tuple[Floats, Floats]:
    """Gauss–Legendre nodes and weights on [−1, 1]."""
    x, w = np.polynomial.legendre.leggauss(order)
    return x, w


def normal_density(z: Floats) -> Floats:
    """(2π)^(−1/2) e^(−z²/2)."""
    return np.asarray(np.exp(-0.5 * z * z) / _SQRT_2PI)


class Rule(NamedTuple):
    """Nodes z and weights p, the Gaussian density included."""

    z: Floats
    p: Floats


@lru_cache(maxsize=256)
def half_line(levels: int, order: int, splits: int, reach: float) -> Rule:
    """A rule for z > 0: panels [0, 2^−levels], doubling up to 1, then of length 1, each cut in 2^splits."""
    edges = np.concatenate([[0.0], 2.0 ** np.arange(-levels, 0), np.arange(1.0, reach + 1.0)])
    parts = np.arange(2**splits) / 2**splits
    edges = np.append((edges[:-1, None] + np.diff(edges)[:, None] * parts).ravel(), edges[-1])
    z, w = nodes(edges, order)
    return Rule(z, w * normal_density(z))


def nodes(edges: Floats, order: int) -> tuple[Floats, Floats]:
    """Gauss–Legendre nodes and plain weights on the panels between `edges` (…, E): both (…, (E−1)·order)."""
    x, w = legendre(order)
    half = 0.5 * np.diff(edges, axis=-1)[..., None]
    middle = 0.5 * (edges[..., 1:] + edges[..., :-1])[..., None]
    shape = (*edges.shape[:-1], -1)
    return (middle + half * x).reshape(shape), (half * w).reshape(shape)


def levels_between(finest: float, widest: float) -> int:
    """How many doublings lead from `finest` to at least `widest`."""
    return 0 if finest >= widest else math.ceil(math.log2(widest) - math.log2(finest))


def graded_edges(centres: Floats, finest: Floats, levels: int, reach: float, splits: int = 0) -> Floats:
    """Panel edges on [−reach, reach], row by row: a unit grid plus, about each centre, distances
    finest·2^j.

    centres, finest: (M, C). Returns (M, E), increasing; edges that fall outside collapse onto the ends,
    where they make panels of length 0.
    """
    rows = centres.shape[0]
    unit = np.linspace(-reach, reach, int(2 * reach) + 1)
    middle = np.clip(centres, -2 * reach, 2 * reach)[..., None]
    step = np.minimum(finest, 4 * reach)[..., None] * 2.0 ** np.arange(levels + 1)
    about = np.concatenate([middle, middle - step, middle + step], axis=-1).reshape(rows, -1)
    edges = np.concatenate([np.broadcast_to(unit, (rows, unit.size)), np.clip(about, -reach, reach)], axis=1)
    edges.sort(axis=1)
    for _ in range(splits):
        halves = np.empty((rows, 2 * edges.shape[1] - 1))
        halves[:, ::2], halves[:, 1::2] = edges, 0.5 * (edges[:, 1:] + edges[:, :-1])
        edges = halves
    return edges


def integrate(f: Integrand, q: Floats, rtol: float, weight: Weight | None = None) -> tuple[Floats, Floats]:
    """E w(z)·f(√q z) for each q of a flat array, and its error; w = 1 unless given.

    Refines until the error is below rtol·E|w f| or rounding; what remains is in the error. It cannot see a
    feature that falls between all nodes: kinks must be declared, and f must vary over no less than about
    `f.scale`.
    """
    value, error = np.zeros(q.shape), np.full(q.shape, np.inf)
    todo = np.arange(q.size)
    for attempt in range(_REFINEMENTS):
        got, spread, size = _attempt(f, q[todo], accuracy(rtol), attempt, weight)
        better = spread < error[todo]
        value[todo[better]], error[todo[better]] = got[better], spread[better]
        todo = todo[error[todo] > max(rtol, 64 * EPS) * size]
        if not todo.size:
            break
    return value, error


def _attempt(
    f: Integrand, q: Floats, rules: Accuracy, attempt: int, weight: Weight | None
) -> tuple[Floats, Floats, Floats]:
    """Value, error and E|w f| at one level of refinement."""
    out = np.empty((3, q.size))
    reach = min(rules.reach * 2.0**attempt, 36.0)
    sd = np.sqrt(q)
    levels = doublings(sd, f.scale) + 2 * attempt
    blocks: list[tuple[int, NDArray[np.intp]]] = []
    for level in map(int, np.unique(levels) if q.size > 1 else levels):
        group = np.flatnonzero(levels == level)
        panels = (int(reach) + level + 1) * 2**attempt * (1 + 3 * (not f.breaks_only_at_zero))
        step = max(1, _BLOCK // (2 * panels * rules.fine))
        blocks += [(level, group[start : start + step]) for start in range(0, group.size, step)]

    def block(which: tuple[int, NDArray[np.intp]]) -> None:
        level, rows = which
        fine, size = _apply(f, sd[rows], level, rules.fine, attempt, reach, weight)
        coarse, _ = _apply(f, sd[rows], level, rules.coarse, attempt, reach, weight)
        tail = _beyond(f, sd[rows], reach, weight)
        out[:, rows] = fine, DISTRUST * np.abs(fine - coarse) + 4 * EPS * size + tail, size

    threads.each(block, blocks)
    return out[0], out[1], out[2]


def doublings(sd: Floats, scale: float) -> NDArray[np.int64]:
    """Doublings from the length scale of f to one standard deviation, rounded up to even."""
    ratio = np.log2(np.maximum(sd / scale, 1.0))
    return (2 * np.ceil(0.5 * ratio)).astype(np.int64)


def _apply(
    f: Integrand, sd: Floats, level: int, order: int, splits: int, reach: float, weight: Weight | None
) -> tuple[Floats, Floats]:
    """(E w f, E|w f|) for each sd, on one rule."""
    if f.breaks_only_at_zero:
        half = half_line(level, order, splits, reach)
        z, p = np.concatenate([-half.z, half.z]), np.concatenate([half.p, half.p])
        values = f(sd[:, None] * z)
        p = p if weight is None else p * weight(z)
        return weighted_sum(p, values.T), weighted_sum(np.abs(p), np.abs(values).T)
    z, p = kinked_nodes(f, sd, level, order, splits, reach)
    terms = f(sd[:, None] * z) * (p if weight is None else p * weight(z))
    return terms.sum(axis=1), np.abs(terms).sum(axis=1)


def weighted_sum(p: Floats, values: Floats) -> Floats:
    """Σ_n p_n values[n], (U,). Without BLAS: it would start threads for this, and they spin for tens of milliseconds on
    cores that have work to do."""
    return np.einsum("n,nu->u", p, values)


def kinked_nodes(f: Integrand, sd: Floats, level: int, order: int, splits: int, reach: float) -> tuple[Floats, Floats]:
    """Nodes and weights (density included) for each sd, (M, N), with panel edges on the kinks of f."""
    safe = np.maximum(sd, 1e-150)[:, None]
    centres = np.array([0.0, *f.kinks]) / safe
    finest = np.broadcast_to(f.scale / safe, centres.shape)
    z, w = nodes(graded_edges(centres, finest, level, reach, splits), order)
    return z, w * normal_density(z)


def _beyond(f: Integrand, sd: Floats, reach: float, weight: Weight | None) -> Floats:
    """What lies beyond ±reach, as long as f grows slower than the density falls."""
    ends = np.array([-reach, reach])
    size = np.abs(f(sd[:, None] * ends)).sum(axis=1)
    return np.asarray(size * float(normal_density(ends)[0]) * (1.0 if weight is None else reach * reach))


def cut_off(f: Integrand, sd: Floats, reach: float) -> Floats:
    """√ of what E f² over |z| > reach can be, (M,): by Cauchy–Schwarz two of them bound what a pair loses."""
    values = f(sd[:, None] * np.array([-reach, reach]))
    # the Gaussian tail is under p(reach)/reach; room for f growing beyond like a low power
    return np.asarray(2.0 * np.abs(values).max(axis=1) * math.sqrt(float(normal_density(np.array(reach)))))
