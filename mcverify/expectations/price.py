"""How Gaussian expectations move with the covariance, to second order.

A centred Gaussian density solves heat equations in its covariance (Price 1958): ∂/∂q_aa is ½∂²/∂u_a² and ∂/∂q_ab is
∂²/∂u_a∂u_b. Integrated by parts onto the density these need no derivative of φ, so that kinks and jumps are included;
with h_m the normalised Hermite polynomials and a_m(q) = E h_m(z) f(√q z),

    d^k⟨f⟩_q/dq^k = √(2k)! a_2k(q)/(2q)^k,
    E f^(i)(u_a) g^(k)(u_b) = q_aa^(−i/2) q_bb^(−k/2) Σ_m √((m+i)! (m+k)!)/m! · a_{m+i} b_{m+k} c^m.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import poch

from mcverify.activations import Activation
from mcverify.expectations import mehler
from mcverify.expectations.integrand import Integrand, power_of
from mcverify.expectations.pairs import pairs
from mcverify.expectations.quadrature import STRICT, doublings, integrate, kinked_nodes

Floats: TypeAlias = NDArray[np.float64]

_COUNTS = (48, 144, 320)  # Hermite coefficients to try
_RTOL = 1e-7  # what the series must reach, relative to the largest of its terms' sums: the corrections' own accuracy
_HERMITE = (  # He_0, He_2, He_4
    lambda z: np.ones_like(z),
    lambda z: z * z - 1.0,
    lambda z: (z * z - 6.0) * z * z + 3.0,
)


class Bend(NamedTuple):
    """A covariance E φ(u_a)φ(u_b) with its slopes (pair, 3) and second derivatives (pair, 3, 3) in (q_aa, q_ab, q_bb);
    NaN where the series does not converge, as at c = ±1 for φ with a kink."""

    value: Floats
    slope: Floats
    curvature: Floats


def heat(f: Integrand, q: Floats, orders: int = 2) -> Floats:
    """⟨f⟩_q and its derivatives in q up to `orders` ≤ 2, (orders + 1, *q); at q = 0 the derivatives are set to 0."""
    flat, out = q.reshape(-1), []
    for k in range(orders + 1):
        value = integrate(f, flat, 1e-12, _HERMITE[k])[0]
        with np.errstate(divide="ignore", invalid="ignore"):
            out.append(np.where(flat > 0, value / (2.0 * flat) ** k, value if k == 0 else 0.0))
    return np.stack(out).reshape(orders + 1, *q.shape)


def bend(phi: Activation, aa: Floats, ab: Floats, bb: Floats) -> Bend:
    """The covariance map's first two derivatives, for flat arrays of pairs; 0 where a variance is 0."""
    if phi.slopes is not None:
        return _homogeneous(phi.slopes, aa, ab, bb)
    f = power_of(phi, 1)
    at = {(i, k): _two_point(f, f, aa, ab, bb, i, k) for i, k in _DERIVATIVES}
    slope = np.stack([0.5 * at[2, 0], at[1, 1], 0.5 * at[0, 2]], axis=-1)
    rows = [
        [0.25 * at[4, 0], 0.5 * at[3, 1], 0.25 * at[2, 2]],
        [0.5 * at[3, 1], at[2, 2], 0.5 * at[1, 3]],
        [0.25 * at[2, 2], 0.5 * at[1, 3], 0.25 * at[0, 4]],
    ]
    return Bend(at[0, 0], slope, np.stack([np.stack(row, axis=-1) for row in rows], axis=-2))


_DERIVATIVES = ((0, 0), (2, 0), (1, 1), (0, 2), (4, 0), (3, 1), (2, 2), (1, 3), (0, 4))


def cross_moment(phi: Activation, aa: Floats, ab: Floats, bb: Floats) -> Floats:
    """E φ(u_a)³ φ(u_b), for flat arrays of pairs."""
    return _two_point(power_of(phi, 3), power_of(phi, 1), aa, ab, bb, 0, 0)


def _homogeneous(slopes: tuple[float, float], aa: Floats, ab: Floats, bb: Floats) -> Bend:
    """φ = A u + B|u|: A² q_ab + B² K, K = E|u_a u_b| = (2/π)(√D + q_ab arcsin c), D = q_aa q_bb − q_ab²."""
    even, odd = (0.5 * (slopes[1] - slopes[0])) ** 2, (0.5 * (slopes[1] + slopes[0])) ** 2
    if even == 0.0:
        zero = np.zeros((len(ab), 3))
        return Bend(odd * ab, zero + np.array([0.0, odd, 0.0]), zero[..., None] + np.zeros(3))
    constant = (aa == 0) | (bb == 0)
    aa, bb = np.where(constant, 1.0, aa), np.where(constant, 1.0, bb)
    given = pairs(aa, ab, bb)[0]
    root, scale = given.sd_a * given.sd_b * given.sin, even / math.pi
    value = odd * ab + 2.0 * scale * (root + ab * (0.5 * math.pi - given.angle))
    value[constant] = 0.0
    own = odd + 2.0 * scale * (0.5 * math.pi - given.angle)
    slope = np.stack([scale * root / aa, own, scale * root / bb], axis=-1)
    slope[constant] = 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        mixed_a, mixed_b, across = -scale * ab / (aa * root), -scale * ab / (bb * root), 0.5 * scale / root
        own_a = scale * (0.5 * bb / (aa * root) - root / aa**2)
        own_b = scale * (0.5 * aa / (bb * root) - root / bb**2)
        rows = [[own_a, mixed_a, across], [mixed_a, 2.0 * scale / root, mixed_b], [across, mixed_b, own_b]]
    curvature = np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
    curvature[root == 0] = np.nan
    curvature[constant] = 0.0
    return Bend(value, slope, curvature)


def _two_point(f: Integrand, g: Integrand, aa: Floats, ab: Floats, bb: Floats, i: int, k: int) -> Floats:
    """E f^(i)(u_a) g^(k)(u_b), (pair,); NaN where the largest number of coefficients does not suffice."""
    constant = (aa == 0) | (bb == 0)
    c = np.clip(np.where(constant, 0.0, ab) / np.sqrt(np.where(constant, 1.0, aa * bb)), -1.0, 1.0)
    out = np.full(ab.shape, np.nan)
    if i + k:
        out[constant] = 0.0
    for count in _COUNTS:
        todo = np.flatnonzero(np.isnan(out))
        if not todo.size:
            break
        a, b = _coefficients(f, aa[todo], count)[i:], _coefficients(g, bb[todo], count)[k:]
        terms = min(len(a), len(b))
        m = np.arange(terms)[:, None]
        # √((m+i)! (m+k)!)/m!
        weight = np.sqrt(poch(m + 1.0, i) * poch(m + 1.0, k)) * c[todo] ** m
        parts = weight * a[:terms] * b[:terms]
        total, part = parts.sum(axis=0), parts[: 2 * terms // 3].sum(axis=0)
        size = np.abs(parts).sum(axis=0) + 1e-300
        scaled = total * aa[todo] ** (-0.5 * i) * bb[todo] ** (-0.5 * k)
        out[todo] = np.where(np.abs(total - part) <= _RTOL * size, scaled, np.nan)
    return out


def _coefficients(f: Integrand, q: Floats, count: int) -> Floats:
    """a_m(q), m < count, (count, pair)."""
    sds, where = np.unique(np.sqrt(q), return_inverse=True)
    out = np.empty((count, sds.size))
    if f.breaks_only_at_zero:
        spectrum = mehler.coefficients(f, sds, count, STRICT)
        out[0::2], out[1::2] = spectrum.even, spectrum.odd
    else:
        levels = doublings(sds, f.scale)
        for at, level in enumerate(levels):
            row = sds[at : at + 1]
            z, p = kinked_nodes(f, row, int(level), STRICT.fine, 1, STRICT.reach)
            out[:, at] = _hermite(z[0], count) @ (p[0] * f(row[:, None] * z)[0])
    return out[:, where]


def _hermite(z: Floats, count: int) -> Floats:
    """h_m(z), m < count, (count, nodes)."""
    table = np.empty((count, z.size))
    table[0], table[1] = 1.0, z
    for m in range(1, count - 1):
        table[m + 1] = (z * table[m] - math.sqrt(m) * table[m - 1]) / math.sqrt(m + 1)
    return table
