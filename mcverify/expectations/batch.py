"""φ(g·BN(h)) over any batch: which of the forms at hand treats it.

    a permutation-symmetric batch       any φ, any B                                             sphere
    linear and positively homogeneous φ any batch covariance                                     batch_gaussian
    any other φ                         the large-batch limit and its first-order correction     batch_gaussian

The first two are exact for Gaussian h; what the last leaves is of second order in tr C²/(tr C)², C the covariance of
the centred batch.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mcverify.activations import Activation
from mcverify.expectations import batch_gaussian, sphere

Floats: TypeAlias = NDArray[np.float64]

_ALIKE = 1e-10
"""Entries that differ by less, relatively, are alike: rounding over many layers stays below, and so does what it does
to the value."""


class Found(NamedTuple):
    """Moments (B, B); remainder: relative size of the first-order term of a large-batch limit, 0 where exact."""

    value: Floats
    remainder: float


def propagate(act: Activation, S: Floats, *, eps: float, gain: float) -> Found:
    """E φ(g·y_a)φ(g·y_b), y = BN(h), h ~ N(0, S)."""
    across, size = _across(S), len(S)
    if across > 0.0:
        own, cross = sphere.propagate(act, size, variance_across=across, eps=eps, gain=gain)
        return Found(_matrix(size, float(own.value), float(cross.value)), 0.0)
    if act.slopes is not None:
        return Found(gain**2 * np.asarray(batch_gaussian.propagate(act, S, eps=eps).value), 0.0)
    limit = batch_gaussian.limit(act, S, eps=eps, gain=gain)
    return Found(limit.value + limit.correction, _share(limit))


def pull_back(act: Activation, S: Floats, G: Floats, *, eps: float, gain: float) -> Found:
    """E Σ_i δ_ia δ_ib at h from the same G at φ(g·y), where δ does not depend on h.

    In the large-batch limit the trace is right to first order; what yyᵀ/B takes away is taken evenly from 1^⊥, as it
    is in a symmetric batch."""
    across, size = _across(S), len(S)
    pair = _pair(G)
    if across > 0.0 and pair is not None:
        m = sphere.pull_back(act, size, *pair, variance_across=across, eps=eps, gain=gain)
        return Found(float(m.value) * _centring(size), 0.0)
    if act.slopes is not None:
        return Found(gain**2 * np.asarray(batch_gaussian.pull_back(act, S, G, eps=eps).value), 0.0)
    limit, added = batch_gaussian.limit_pull_back(act, S, G, eps=eps, gain=gain)
    even = (added - float(np.trace(limit.correction))) / (size - 1.0) * _centring(size)
    return Found(limit.value + limit.correction + even, max(_share(limit), abs(added) / float(np.trace(limit.value))))


def _share(limit: batch_gaussian.Limit) -> float:
    return float(np.abs(limit.correction).max() / np.abs(limit.value).max())


def _centring(size: int) -> Floats:
    return np.asarray(np.eye(size) - 1.0 / size)


def _matrix(size: int, own: float, cross: float) -> Floats:
    return np.asarray((own - cross) * np.eye(size) + cross)


def _pair(M: Floats) -> tuple[float, float] | None:
    """(diagonal, off it) of a matrix that has but two values."""
    size = len(M)
    own = float(np.trace(M)) / size
    cross = (float(M.sum()) - size * own) / (size * (size - 1.0))
    return (own, cross) if np.abs(M - _matrix(size, own, cross)).max() <= _ALIKE * np.abs(M).max() else None


def _across(S: Floats) -> float:
    """λ where the centred batch has the covariance λ(I − 11ᵀ/B), else 0."""
    C = S - S.mean(axis=0) - S.mean(axis=1)[:, None] + S.mean()
    pair = _pair(C) if np.abs(C).max() > 1e-9 * np.abs(S).max() else None
    return 0.0 if pair is None else pair[0] - pair[1]
