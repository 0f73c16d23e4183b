"""The law of D² = φ′(√q z)², z ~ N(0, 1), as points and probabilities: exact for piecewise linear φ, else a rule."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from mcverify.activations import Activation
from mcverify.expectations.quadrature import graded_edges, levels_between, nodes, normal_density

FloatArray = NDArray[np.float64]
_REACH, _ORDER = 9.0, 12  # beyond 9 standard deviations lies 10⁻¹⁹


class SlopeLaw(NamedTuple):
    """Values of φ′² and their probabilities; exact: these are the law's own atoms."""

    values: FloatArray
    probabilities: FloatArray
    exact: bool


def slope_law(phi: Activation, q: float, splits: int = 0) -> SlopeLaw:
    """The law at variance q; the rule's panels are cut in 2^splits."""
    if q == 0 or _is_piecewise_linear(phi):
        return _atoms(phi, q)
    sd = np.sqrt(q)
    centres = np.unique(np.array([0.0, *phi.kinks])) / sd
    finest = np.minimum(np.where(centres == 0.0, phi.scale, min(phi.scale, 1.0)) / sd, 1.0)
    edges = graded_edges(centres[None], finest[None], levels_between(float(finest.min()), 1.0), _REACH, splits)
    z, w = nodes(edges[0], _ORDER)
    p = w * normal_density(z)
    d2 = np.asarray(phi.dphi(sd * z), np.float64) ** 2
    half = len(z) // 2
    if len(z) % 2 == 0 and np.array_equal(d2[:half], d2[::-1][:half]):  # even: the other half says the same
        d2, p = d2[half:], 2 * p[half:]
    kept = p > 0
    return SlopeLaw(d2[kept], p[kept] / p.sum(), False)


def _is_piecewise_linear(phi: Activation) -> bool:
    linear = bool(phi.pieces) and all(t.rate == 0 and t.power <= 1 for piece in phi.pieces for t in piece.terms)
    return linear or phi.slopes is not None


def _atoms(phi: Activation, q: float) -> SlopeLaw:
    """Of a slope that is constant between kinks."""
    if q == 0:
        return SlopeLaw(np.asarray(phi.dphi(np.zeros(1)), np.float64) ** 2, np.ones(1), True)
    ends = np.array([-np.inf, *phi.kinks, np.inf])
    inside = np.concatenate([[ends[1] - 1.0], (ends[1:-2] + ends[2:-1]) / 2, [ends[-2] + 1.0]]) if phi.kinks else [0.0]
    values, where = np.unique(np.asarray(phi.dphi(np.asarray(inside)), np.float64) ** 2, return_inverse=True)
    probabilities = np.asarray(np.bincount(where, np.diff(ndtr(ends / np.sqrt(q)))), np.float64)
    kept = probabilities > 0
    return SlopeLaw(values[kept], probabilities[kept], True)
