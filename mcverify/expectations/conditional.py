"""Two-dimensional expectations as nested one-dimensional ones: E f(u_a)·E[f(u_b) | u_a].

Given u_a = sd_a·z, u_b is Gaussian with mean sd_b·cos θ·z and standard deviation s = sd_b·sin θ. The inner
expectation is elementary where f is piecewise exponential-polynomial, Gauss–Hermite where f is smooth on
the scale s, and else a composite rule with panels cut where the kinks of f fall for that mean. As a
function of z it is smooth on the scale tan θ about kink/(sd_b·cos θ), so the outer panels shrink to that
scale there: this is what keeps kinked f honest as c → ±1. At c = ±1 the inner expectation is f itself, and
the outer rule has edges on both sets of kinks.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mcverify.expectations import pieces as piecewise
from mcverify.expectations.integrand import EPS, Integrand
from mcverify.expectations.pairs import Pairs
from mcverify.expectations.quadrature import (
    DISTRUST,
    Accuracy,
    cut_off,
    graded_edges,
    levels_between,
    nodes,
    normal_density,
)

Floats: TypeAlias = NDArray[np.float64]
Spread: TypeAlias = tuple[Floats, Floats]

_BLOCK = 1 << 17
_SMOOTH = 0.6
"""Gauss–Hermite serves where the inner standard deviation is below this many length scales of f."""


def nest(
    f: Integrand, pairs: Pairs, rules: Accuracy, *, splits: int = 0, elementary: bool = True
) -> tuple[Floats, Floats]:
    """E f(u_a) f(u_b) and its error, for every pair; all variances positive.

    `splits` halves every panel that often. `elementary=False` forbids the closed inner expectation.
    """
    pairs = pairs.larger_first()
    value, error = np.empty(len(pairs)), np.empty(len(pairs))
    kind, levels = _kinds(f, pairs, elementary and bool(f.pieces)), _outer_levels(f, pairs)
    keys = kind * 1024 + levels
    for key in np.unique(keys):
        group = np.flatnonzero(keys == key)
        panels = 2 * rules.reach + (1 + 2 * len(f.kinks)) * (2 * (key % 1024) + 3)
        step = max(1, int(_BLOCK / (panels * rules.fine * 2**splits)))
        for start in range(0, group.size, step):
            rows = group[start : start + step]
            some = pairs[rows]
            (fine, size, rounding), (coarse, _, _) = (
                _nested(f, some, rules, which, int(key // 1024), int(key % 1024), splits) for which in (0, 1)
            )
            value[rows] = fine
            error[rows] = DISTRUST * np.abs(fine - coarse) + 8 * EPS * size + rounding
            error[rows] += cut_off(f, some.sd_a, rules.reach) * cut_off(f, some.sd_b, rules.reach)
    return value, error


_DIRECT, _ELEMENTARY, _HERMITE, _COMPOSITE = range(4)


def _kinds(f: Integrand, pairs: Pairs, elementary: bool) -> NDArray[np.int64]:
    """How the inner expectation of each pair is found."""
    sd = pairs.sd_b * pairs.sin
    smooth = np.full(len(pairs), not f.kinks) & (sd <= _SMOOTH * f.scale)
    rest = np.full(len(pairs), _ELEMENTARY) if elementary else np.where(smooth, _HERMITE, _COMPOSITE)
    return np.where(sd == 0.0, _DIRECT, rest).astype(np.int64)


def _nested(
    f: Integrand, pairs: Pairs, rules: Accuracy, which: int, kind: int, levels: int, splits: int
) -> tuple[Floats, Floats, Floats]:
    """Value, sum of magnitudes, and what rounding of the inner expectation adds; by the fine (0) or coarse
    (1) rule.
    """
    order = (rules.fine, rules.coarse)[which]
    centres, finest = _outer_centres(f, pairs)
    z, w = nodes(graded_edges(centres, finest, levels, rules.reach, splits), order)
    keep = w > 0.0  # panels clipped to nothing
    row, flat = np.nonzero(keep)[0], z[keep]
    mean, sd = (pairs.sd_b * pairs.cos)[row] * flat, (pairs.sd_b * pairs.sin)[row]
    rounding = np.zeros(flat.shape)
    if kind == _DIRECT:
        inner = f(mean)
    elif kind == _ELEMENTARY:
        inner, magnitude = piecewise.smoothed(f.pieces, mean, sd)
        rounding = 8 * EPS * magnitude
    elif kind == _HERMITE:
        x, weights = hermite(rules.hermite[which])
        values = f(mean[:, None] + sd[:, None] * x)
        inner, rounding = values @ weights, 4 * EPS * (np.abs(values) @ weights)
    else:
        inner, magnitude = _composite(f, mean, sd, rules, order, splits)
        rounding = 4 * EPS * magnitude
    outer = w[keep] * normal_density(flat) * f(pairs.sd_a[row] * flat)
    terms, count = outer * inner, len(pairs)
    value, size, added = (
        np.bincount(row, x, count).astype(np.float64) for x in (terms, np.abs(terms), np.abs(outer) * rounding)
    )
    return value, size, added


def _blur(pairs: Pairs) -> Floats:
    """Scale, in z, on which the inner expectation smooths a kink of f."""
    return np.asarray(pairs.sin / np.maximum(np.abs(pairs.cos), 1e-300))


def _outer_levels(f: Integrand, pairs: Pairs) -> NDArray[np.int64]:
    """Doublings from the finest panel of the outer rule to 1, rounded up to a multiple of 4."""
    finest = f.scale / pairs.sd_a
    if f.kinks:
        finest = np.minimum(finest, np.where(pairs.sin > 0.0, _blur(pairs), 1.0))
    exact = np.ceil(-np.log2(np.minimum(finest, 1.0)))
    return (4 * np.ceil(0.25 * exact)).astype(np.int64)


def _outer_centres(f: Integrand, pairs: Pairs) -> tuple[Floats, Floats]:
    """Where, in z, the outer integrand varies, and over what length: 0, the kinks, the kinks seen through
    u_b.
    """
    own = f.scale / pairs.sd_a
    blur = np.where(pairs.sin > 0.0, np.minimum(_blur(pairs), 4.0), own)
    seen = pairs.sd_b * np.where(pairs.cos == 0.0, 1e-300, pairs.cos)
    centres, finest = [np.zeros(len(pairs))], [np.minimum(own, blur) if 0.0 in f.kinks else own]
    for kink in f.kinks:
        if kink != 0.0:
            through_b = np.sign(seen) * np.clip(kink / np.maximum(np.abs(seen), 1e-300), -1e3, 1e3)
            centres += [kink / pairs.sd_a, through_b]
            finest += [own, blur]
    return np.stack(centres, axis=1), np.stack(finest, axis=1)


def _composite(f: Integrand, mean: Floats, sd: Floats, rules: Accuracy, order: int, splits: int) -> Spread:
    """E f(mean + sd·x) and E|f| elementwise, panels cut at the kinks of f, graded about them and 0."""
    points = np.array(sorted({0.0, *f.kinks}))
    levels = levels_between(f.scale / float(sd.max()), 1.0)
    out, size = np.empty(mean.shape), np.empty(mean.shape)
    panels = 2 * rules.reach + points.size * (2 * levels + 3)
    step = max(1, int(_BLOCK / (panels * order * 2**splits)))
    for start in range(0, mean.size, step):
        m, s = mean[start : start + step, None], sd[start : start + step, None]
        centres = (points - m) / s
        edges = graded_edges(centres, np.broadcast_to(f.scale / s, centres.shape), levels, rules.reach, splits)
        x, w = nodes(edges, order)
        terms = f(m + s * x) * (w * normal_density(x))
        out[start : start + step], size[start : start + step] = terms.sum(axis=1), np.abs(terms).sum(axis=1)
    return out, size


@lru_cache(maxsize=16)
def hermite(order: int) -> tuple[Floats, Floats]:
    """Gauss–Hermite nodes and weights for the standard normal."""
    x, w = np.polynomial.hermite_e.hermegauss(order)
    return x, w / math.sqrt(2.0 * math.pi)
