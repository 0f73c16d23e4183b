"""Moments of the squared singular values of a network's Jacobian: by free probability, and exactly at finite width.

m_k = (1/n_0) E tr (JᵀJ)^k, in the limit from S-transforms as power series (theory/free_product.py), of each D from its
moments μ_k = ⟨φ′^{2k}⟩. Series are lists of coefficients of numbers of any kind, so that fractions stay exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mcverify.errors import Unpredictable
from mcverify.expectations import gaussian
from mcverify.network import Network
from mcverify.theory.free_product import Factor, chain_of, factors, variances
from mcverify.validate import count

FloatArray = NDArray[np.float64]
Series = list[Any]  # coefficients, the constant first


# ---- power series -------------------------------------------------------------------------------------


def times(a: Sequence[Any], b: Sequence[Any]) -> Series:
    """a · b to their common order."""
    return [sum(a[i] * b[k - i] for i in range(k + 1)) for k in range(len(a))]


def reciprocal(a: Sequence[Any]) -> Series:
    """1/a, a's constant not zero."""
    out = [1 / a[0]]
    for k in range(1, len(a)):
        out.append(-sum(a[i] * out[k - i] for i in range(1, k + 1)) / a[0])
    return out


def inverse(a: Sequence[Any]) -> Series:
    """b_1 … b_K of the inverse of Σ a_k z^k, from a_1 … a_K (Lagrange)."""
    step, out, power = reciprocal(a), [], [a[0] / a[0], *[a[0] * 0] * (len(a) - 1)]
    for k in range(1, len(a) + 1):
        power = times(power, step)
        out.append(power[k - 1] / k)
    return out


def s_transform(moments: Sequence[Any]) -> Series:
    """S of a law, to order K − 1, from its moments m_1 … m_K."""
    chi = inverse(moments)
    return [chi[0], *(chi[k] + chi[k - 1] for k in range(1, len(chi)))]


def _at(series: Sequence[Any], ratio: Any) -> Series:
    """The series at z · ratio."""
    return [c * ratio**k for k, c in enumerate(series)]


# ---- the limit ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class JacobianMoments:
    """m_1 … m_K of the squared singular values, (…, K): in the limit of infinite width."""

    moments: FloatArray

    @property
    def gain(self) -> FloatArray:
        """m_1 = χ^L: what a random direction's squared length is multiplied by."""
        return self.moments[..., 0]

    @property
    def spread(self) -> FloatArray:
        """m_2/m_1² − 1, the relative variance of the squared singular values: 0 for an isometry."""
        return self.moments[..., 1] / self.moments[..., 0] ** 2 - 1


def jacobian_moments(
    net: Network, x: ArrayLike | None = None, *, order: int = 4, activated: bool = False
) -> JacobianMoments:
    """Moments m_1 … m_order of the squared singular values of J = ∂h^L/∂x^0, each over n_0 directions, in the limit.

    net: dense maps of any widths (convolutions that are delta-orthogonal: J of each position), each with an activation
    or none. x: inputs as in `predict`, each with the q^l that it has at finite depth, (input, *positions, order); None
    for the fixed point q*, (order,). activated: J = ∂x^L/∂x^0, with the slopes of the last activation.
    Any independent weights are as Gaussian ones here. Source: Pennington, Schoenholz & Ganguli 2017, 2018.
    Raises InputError for unusable inputs, Unpredictable for a network that is no such chain or whose slopes are 0."""
    count("order", order)
    q = variances(net, x, activated)
    rows = [product_moments(factors(net, row, activated), order) for row in q.reshape(-1, q.shape[-1])]
    return JacobianMoments(np.array(rows, np.float64).reshape(*q.shape[:-1], order))


def slope_moments(factor: Factor, order: int) -> list[float]:
    """μ_k = ⟨φ′^{2k}⟩_q, k = 1 … order. Raises Unpredictable where they are 0."""
    assert factor.phi is not None
    mu = [float(gaussian.moment(factor.phi, factor.q, 2 * k, 1).value) for k in range(1, order + 1)]
    if mu[0] == 0:
        raise Unpredictable(f"the slopes of {factor.phi.name} are 0: the Jacobian is zero")
    return mu


def product_moments(chain: Sequence[Factor], order: int) -> Series:
    """m_1 … m_order of the product of these factors."""
    one = [1.0, *[0.0] * (order - 1)]
    geometric = [(-1.0) ** k for k in range(order)]  # 1/(1 + z)
    total = _at(geometric, chain[-1].above)  # χ(z)/z, without n_0/n_L
    for factor in chain:
        total = times(total, s_of_weights(factor, one, geometric))
        if factor.phi is not None:
            total = times(total, _at(s_transform(slope_moments(factor, order)), factor.above))
    return inverse([c * chain[-1].above for c in total])


def s_of_weights(factor: Factor, one: Series, geometric: Series) -> Series:
    """S_{WWᵀ}(z n_0/n_l): of independent entries 1/(σ_w²(1 + z n_0/n_{l−1})); of orthogonal rows 1/σ_w², of orthogonal
    columns, which leave directions out, (1 + z n_0/n_l)/(σ_w²(1 + z n_0/n_{l−1}))."""
    s = one
    if not factor.orthogonal or factor.above < factor.below:
        s = _at(geometric, factor.below)
    if factor.orthogonal and factor.above < factor.below:
        s = times(s, [1.0, factor.above, *one[2:]][: len(one)])
    return [c / factor.sigma_w2 for c in s]


# ---- exactly at finite width --------------------------------------------------------------------------


def exact_second_moments(net: Network, *, activated: bool = False) -> tuple[float, float]:
    """(m_1, m_2), exactly at finite width, of positively homogeneous φ (linear, relu, leaky_relu), at any input.

    Weights Gaussian, or orthogonal and square. A unit's sign is a fair coin that Wᵀ D² W does not see, as (w, b) and
    −(w, b) are equally likely: D is independent of it. So from the top down K ← Wᵀ D K D W with t = E tr K² and
    T = E (tr K)²; K is as likely in any rotated frame, so that E Σ_i K_ii² = (2t + T)/(n + 2); of D² it takes
    ν_k = E φ′^{2k}. Raises Unpredictable for other networks."""
    chain = chain_of(net, activated)
    n = net.widths[-1]
    t, whole, first = float(n), float(n * n), float(n)
    for layer, phi in reversed(chain):
        m = layer.random_map
        assert m is not None
        if phi is not None:
            if phi.slopes is None:
                raise Unpredictable(f"{phi.name} is not positively homogeneous: only the limit is known")
            nu_1, nu_2 = (sum(slope ** (2 * k) for slope in phi.slopes) / 2 for k in (1, 2))
            same = (nu_2 - nu_1**2) * (2 * t + whole) / (m.fan_out + 2)
            t, whole, first = nu_1**2 * t + same, nu_1**2 * whole + same, nu_1 * first
        if m.law == "gaussian":
            t, whole = ((m.fan_in + 1) * t + whole) / m.fan_in, whole + 2 * t / m.fan_in
        elif m.law != "orthogonal" or m.fan_in != m.fan_out:
            shape = f"{m.law} weights {m.fan_out} × {m.fan_in}"
            raise Unpredictable(f"{shape}: known exactly are Gaussian and square orthogonal ones")
        t, whole, first = m.sigma_w2**2 * t, m.sigma_w2**2 * whole, m.sigma_w2 * first
    return first / net.input_dim, t / net.input_dim
