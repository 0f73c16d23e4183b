"""What finite widths do to means: first-order corrections to the limit, for any activation and any widths.

Given the layer below, the units of h^l are i.i.d. N(0, Ĝ^l), and Ĝ^{l+1} is a mean over them. So with F the covariance
map on G = (q_aa, q_ab, q_bb), J and H its first two derivatives, and S the covariance of one unit's products,

    E Ĝ = q + k,    k′ = J k + ½ tr(H C),    Var Ĝ = C,    C′ = J C Jᵀ + S/n_l,

from Ĝ^1, which is not random. The empirical q has the same mean and, given Ĝ, the variance (G_aa G_bb + G_ab²)/n_l.
Gradients: theory/gradient_corrections.py.

The remainder, what the next order may add, is taken as SAFETY times the parts of the first-order shift, added without
regard to sign, times the small parameter of the expansion: the metric's relative variance, which is of order
depth/width. tests/test_corrections.py holds it against networks of width 16, 32 and 64.

Source: Roberts, Yaida & Hanin 2022, ch. 4, as a delta method over the one-step law.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mcverify.expectations import gaussian, price
from mcverify.network import Network
from mcverify.theory.gradient_corrections import gradients
from mcverify.theory.propagation import Prediction
from mcverify.theory.shift import SAFETY, Lengths, Shift
from mcverify.theory.stages import Stage, stages

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class FirstOrder:
    """Corrections to a prediction. NaN between inputs whose covariance map has no second derivative (c = ±1 at a
    kink)."""

    metric: Shift  # Ĝ^l_ab, (layer, input, input); q^l_ab has the same mean
    q_var: FloatArray  # Var q^l_ab, (layer, input, input)
    c: Shift  # Ĝ^l_ab/√(Ĝ_aa Ĝ_bb) of a network, (layer, input, input)
    c_of_means: FloatArray  # the shift of E q_ab/√(E q_aa E q_bb), (layer, input, input)
    length: Shift  # M_l = ‖x^l‖²/n_l, (layer, input)
    grad_norm2: Shift  # ‖δ^l‖², (layer, input)


def first_order(net: Network, p: Prediction, *, drawn: bool = True) -> FirstOrder:
    """The corrections to a prediction of this network. drawn: whether the output cotangent is, rather than given.

    Raises Unpredictable for anything but a chain of dense layers with independent Gaussian weights, one activation and
    dropout at most between two."""
    q = np.diagonal(p.q, axis1=1, axis2=2)
    chain = stages(net, q)
    top = np.diagonal(p.grad_gram, axis1=1, axis2=2)[-1]
    with np.errstate(all="ignore"):  # NaN where lengths leave the floats' range
        own = _lengths(chain, q)
        covariances, gradient = _covariances(chain, p.q, own), gradients(chain, q, top, own, drawn)
        return FirstOrder(*covariances, length=_length(chain, own), grad_norm2=gradient)


def _lengths(chain: list[Stage], q: FloatArray) -> Lengths:
    """Ĝ^l_aa of every layer."""
    v = k = bound = np.zeros_like(q[0])
    out = [(v, k, bound)]
    for s in chain[:-1]:
        _, slope, curvature = s.map
        k = slope * k + 0.5 * curvature * v
        bound = np.abs(slope) * bound + 0.5 * np.abs(curvature) * v
        v = slope**2 * v + s.spread / s.width
        out.append((v, k, bound))
    v, k, bound = (np.stack(each) for each in zip(*out, strict=True))
    relative = np.divide(v, q**2, out=np.zeros_like(v), where=q > 0)
    return Lengths(v, k, bound, np.maximum.accumulate(relative, axis=0))


def _length(chain: list[Stage], own: Lengths) -> Shift:
    """M_l, of mean ⟨φ²⟩ at the random Ĝ^l; its variance as in finite_width."""
    second, slope, curvature = np.stack([s.second for s in chain], axis=1)
    bound = np.abs(slope) * own.bound + 0.5 * np.abs(curvature) * own.v
    within = (np.stack([s.fourth for s in chain]) - second**2) / _widths(chain)
    value = slope * own.k + 0.5 * curvature * own.v
    return Shift(value, SAFETY * own.small * bound, within + slope**2 * own.v)


def _widths(chain: list[Stage]) -> FloatArray:
    """(layer, 1)."""
    return np.array([s.width for s in chain], float)[:, None]


# ---- pairs of inputs ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pairs:
    """Pairs of inputs a < b at one layer, (pair,) each. k, bound and cov are of (Ĝ_aa, Ĝ_ab, Ĝ_bb): the shift of the
    mean and a bound on its parts, (pair, 3), and the covariance, (pair, 3, 3). q: the limit, (pair, 3). small: as of
    Lengths. same: whether a and b are one input twice."""

    q: FloatArray
    k: FloatArray
    bound: FloatArray
    cov: FloatArray
    small: FloatArray
    same: NDArray[np.bool_]


def _covariances(chain: list[Stage], q: FloatArray, own: Lengths) -> tuple[Shift, FloatArray, Shift, FloatArray]:
    """metric, q_var, c and c_of_means of FirstOrder."""
    a, b = np.triu_indices(q.shape[-1], 1)
    three = q[:, [a, a, b], [a, b, b]].swapaxes(1, 2)  # (layer, pair, 3)
    nothing = np.zeros(three.shape[1:])
    same = (three[0, :, 0] == three[0, :, 1]) & (three[0, :, 1] == three[0, :, 2])
    at = [_Pairs(three[0], nothing, nothing, np.zeros((*nothing.shape, 3)), nothing[:, 0], same)]
    for l, s in enumerate(chain[:-1]):
        at.append(_above(s, at[-1], three[l + 1], own, l + 1))

    def between(diagonal: FloatArray, pairs: list[FloatArray]) -> FloatArray:
        out, inputs = np.zeros_like(q), np.arange(q.shape[-1])
        out[:, inputs, inputs] = diagonal
        out[:, a, b] = out[:, b, a] = np.stack(pairs)
        return out

    metric = Shift(
        between(own.k, [p.k[:, 1] for p in at]),
        between(SAFETY * own.small * own.bound, [SAFETY * p.small * p.bound[:, 1] for p in at]),
        between(own.v, [p.cov[:, 1, 1] for p in at]),
    )
    lengths = np.diagonal(q, axis1=1, axis2=2)
    q_var = metric.variance + (lengths[:, :, None] * lengths[:, None, :] + q**2) / _widths(chain)[:, :, None]
    each = [_correlation(p) for p in at]
    zero = np.zeros_like(own.k)
    value, rest, variance, of_means = (between(zero, list(v)) for v in zip(*each, strict=True))
    return metric, q_var, Shift(value, rest, variance), of_means


def _above(s: Stage, at: _Pairs, q: FloatArray, own: Lengths, l: int) -> _Pairs:
    """The pairs one layer up, where the limit is q and layer index l."""
    a, b = np.triu_indices(own.k.shape[-1], 1)
    bend = price.bend(s.phi, *at.q.T)
    gain = s.sigma_w2 / s.shared  # masks of two inputs multiply to 1 on the average, a shared one to 1/ρ
    slope, curvature = gain * bend.slope, gain * bend.curvature
    varies = at.cov.any(axis=(1, 2))
    moved = np.where(varies, 0.5 * np.einsum("pij,pji->p", curvature, at.cov), 0.0)
    k = np.stack([own.k[l, a], np.einsum("pi,pi->p", slope, at.k) + moved, own.k[l, b]], axis=1)
    parts = np.einsum("pi,pi->p", np.abs(slope), at.bound) + np.abs(moved)
    bound = np.stack([own.bound[l, a], parts, own.bound[l, b]], axis=1)
    jacobian = np.zeros_like(at.cov)
    jacobian[:, 0, 0], jacobian[:, 1], jacobian[:, 2, 2] = s.map[1, a], slope, s.map[1, b]
    cov = jacobian @ at.cov @ np.swapaxes(jacobian, 1, 2) + _unit_covariance(s, *at.q.T) / s.width
    same = at.same & (s.keep == s.shared)  # masks of their own would tell them apart
    k[same], bound[same], cov[same] = (v[l, a[same], *none] for v, none in (
        (own.k, (None,)), (own.bound, (None,)), (own.v, (None, None))
    ))  # fmt: skip
    small = np.maximum(at.small, _relative(s, at, q, cov))
    small = np.maximum(np.where(same, 0.0, small), np.maximum(own.small[l, a], own.small[l, b]))
    return _Pairs(q, k, bound, cov, small, same)


def _relative(s: Stage, at: _Pairs, q: FloatArray, cov: FloatArray) -> FloatArray:
    """Var Ĝ_ab above, relative to the lengths; and where φ has kinks, so that the map bends on the scale of 1 − |c|,
    Var c below, relative to that, (pair,)."""
    lengths = q[:, 0] * q[:, 2]
    out = np.divide(cov[:, 1, 1], lengths, out=np.zeros_like(lengths), where=lengths > 0)
    if s.phi.kinks:
        c, slope, _ = _ratio(at.q)
        apart = np.maximum(1 - np.abs(c), 1e-12) ** 2
        out = np.fmax(out, np.einsum("pi,pij,pj->p", slope, at.cov, slope) / apart)
    return np.asarray(out)


def _unit_covariance(s: Stage, aa: FloatArray, ab: FloatArray, bb: FloatArray) -> FloatArray:
    """S: the covariance of σ_w² (x_a², x_a x_b, x_b²) of one unit, (pair, 3, 3). E m_a²m_b²/ρ⁴ and E m_a³m_b/ρ⁴ are ρ⁻²
    for masks of two inputs, ρ⁻³ for a shared one, and E m_a m_b/ρ² is 1 and ρ⁻¹."""
    a, b = np.triu_indices(len(s.fourth), 1)
    fourth = 1.0 / (s.keep**2 * s.shared)
    cov = np.asarray(gaussian.covariance(s.phi, aa, ab, bb).value) / s.shared
    both = np.asarray(gaussian.product_second_moment(s.phi, aa, ab, bb).value) * fourth
    second = s.second[0] / s.keep
    out = np.empty((len(ab), 3, 3))
    out[:, 1, 1] = both - cov**2
    out[:, 0, 2] = out[:, 2, 0] = both - second[a] * second[b]
    out[:, 0, 1] = out[:, 1, 0] = price.cross_moment(s.phi, aa, ab, bb) * fourth - second[a] * cov
    out[:, 1, 2] = out[:, 2, 1] = price.cross_moment(s.phi, bb, ab, aa) * fourth - second[b] * cov
    out *= s.sigma_w2**2
    out[:, 0, 0], out[:, 2, 2] = s.spread[a], s.spread[b]
    return out


def _correlation(p: _Pairs) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Of a network's own c: the shift of its mean, the remainder, and its variance; and the shift of the ratio of
    means, (pair,) each."""
    _, slope, curvature = _ratio(p.q)
    of_means = np.einsum("pi,pi->p", slope, p.k)
    moved = 0.5 * np.einsum("pij,pji->p", curvature, p.cov)
    bound = np.einsum("pi,pi->p", np.abs(slope), p.bound) + np.abs(moved)
    variance = np.maximum(np.einsum("pi,pij,pj->p", slope, p.cov, slope), 0.0)  # at c = 1 it cancels
    return of_means + moved, SAFETY * p.small * bound, variance, of_means


def _ratio(q: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """c = q_ab/√(q_aa q_bb) with its first two derivatives in the three, (pair,), (pair, 3) and (pair, 3, 3)."""
    aa, ab, bb = q.T
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.sqrt(aa * bb)
        c = ab / root
        slope = np.stack([-0.5 * c / aa, 1 / root, -0.5 * c / bb], axis=-1)
        cross_a, cross_b, both = -0.5 / (aa * root), -0.5 / (bb * root), 0.25 * c / root**2
        rows = [
            [0.75 * c / aa**2, cross_a, both],
            [cross_a, np.zeros_like(c), cross_b],
            [both, cross_b, 0.75 * c / bb**2],
        ]
    return c, slope, np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
