"""Two-point Gaussian expectations in closed form.

Each function takes `Pairs` and returns (value, sum of magnitudes of its terms): the rounding error is some
8ε of the second. Angles come from `Pairs`, so nothing cancels as c → ±1 beyond what is reported.

Sources: positively homogeneous φ, the arc-cosine kernels (Cho & Saul 2009); erf, the arcsine kernel
(Williams 1997); sign, Grothendieck's identity; sin, characteristic functions; GELU, derived here with
Stein's lemma.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mcverify.activations import Activation
from mcverify.expectations.pairs import Pairs

Floats: TypeAlias = NDArray[np.float64]
Result: TypeAlias = tuple[Floats, Floats]
Kernel: TypeAlias = Callable[[Pairs], Result]

_TWO_PI = 2.0 * math.pi


def _exact(value: Floats) -> Result:
    """A value whose terms do not cancel."""
    return value, np.abs(value)


# ------------------------------------------------------------------------------ positively homogeneous


def arc_cosine_0(psi: Floats) -> Floats:
    """E θ(u_a)θ(u_b) for unit variances, ψ = π − angle: ψ/2π."""
    return psi / _TWO_PI


def arc_cosine_1(psi: Floats) -> Floats:
    """E relu(u_a) relu(u_b) for unit variances: (sin ψ − ψ cos ψ)/2π, by its series where that cancels."""
    series = psi**3 / 3.0 * _alternating(psi * psi, [2 * n * (2 * n + 1) * (n - 1) / n for n in range(2, 11)])
    return np.where(psi < 1.0, series, np.sin(psi) - psi * np.cos(psi)) / _TWO_PI


def arc_cosine_2(psi: Floats) -> Floats:
    """E relu(u_a)² relu(u_b)² for unit variances: (ψ(1 + 2cos²ψ) − 3 sin ψ cos ψ)/2π, likewise."""
    y = 2.0 * psi
    ratios = [2 * n * (2 * n + 1) * (n - 2) / (n - 1) for n in range(3, 14)]
    plain = psi * (2.0 + np.cos(y)) - 1.5 * np.sin(y)
    return np.where(psi < 1.0, y**5 / 120.0 * _alternating(y * y, ratios), plain) / _TWO_PI


def _alternating(x: Floats, ratios: list[float]) -> Floats:
    """1 − x/r₁(1 − x/r₂(1 − …)): a Taylor series given by the ratios of its coefficients."""
    out = np.ones_like(x)
    for ratio in reversed(ratios):
        out = 1.0 - x / ratio * out
    return out


def _homogeneous(act: Activation, which: str) -> Kernel:
    negative, positive = act.slopes or (1.0, 1.0)
    same, opposite = negative * negative + positive * positive, negative * positive

    def covariance(p: Pairs) -> Result:
        # φ = s₊ relu(u) − s₋ relu(−u)
        size = p.sd_a * p.sd_b
        terms = same * arc_cosine_1(p.complement), -2.0 * opposite * arc_cosine_1(p.angle)
        return size * (terms[0] + terms[1]), size * (np.abs(terms[0]) + np.abs(terms[1]))

    def derivative(p: Pairs) -> Result:
        terms = same * arc_cosine_0(p.complement), 2.0 * opposite * arc_cosine_0(p.angle)
        return terms[0] + terms[1], np.abs(terms[0]) + np.abs(terms[1])

    def product(p: Pairs) -> Result:
        fourth = negative**4 + positive**4
        across = 2.0 * opposite * opposite * arc_cosine_2(p.angle)
        return _exact((p.sd_a * p.sd_b) ** 2 * (fourth * arc_cosine_2(p.complement) + across))

    return {"covariance": covariance, "derivative": derivative, "product": product}[which]


# ------------------------------------------------------------------------------------------- linear


def _linear(which: str) -> Kernel:
    return {
        "covariance": lambda p: _exact(p.sd_a * p.sd_b * p.cos),
        "derivative": lambda p: _exact(np.ones(len(p))),
        "product": lambda p: _exact((p.sd_a * p.sd_b) ** 2 * (1.0 + 2.0 * p.cos**2)),
    }[which]


# ---------------------------------------------------------------------------------------------- erf


def _determinant(p: Pairs) -> Floats:
    """q_aa·q_bb − q_ab² without cancellation."""
    return np.asarray((p.sd_a * p.sd_b * p.sin) ** 2)


def _erf_covariance(p: Pairs) -> Result:
    rest = np.sqrt(1.0 + 2.0 * (p.q_aa + p.q_bb) + 4.0 * _determinant(p))
    return _exact(2.0 / math.pi * np.arctan2(2.0 * p.q_ab, rest))


def _erf_derivative(p: Pairs) -> Result:
    return _exact(4.0 / math.pi / np.sqrt(1.0 + 2.0 * (p.q_aa + p.q_bb) + 4.0 * _determinant(p)))


# --------------------------------------------------------------------------------------------- sign


def _sign_covariance(p: Pairs) -> Result:
    return _exact(2.0 / math.pi * np.arctan2(p.cos, p.sin))


# ---------------------------------------------------------------------------------------------- sin


def _apart(p: Pairs) -> Floats:
    """Var(u_a ∓ u_b), the smaller of the two (the sign of q_ab), to full relative accuracy."""
    along = (p.q_aa - p.q_bb) / (p.sd_a + p.sd_b)
    return along**2 + 2.0 * p.sd_a * p.sd_b * p.sin**2 / (1.0 + np.abs(p.cos))


def _sin_covariance(p: Pairs) -> Result:
    # e^{−(q_aa+q_bb)/2} sinh q_ab, its exponents combined
    apart = _apart(p)
    value = -0.5 * np.sign(p.q_ab) * np.exp(-0.5 * apart) * np.expm1(-2.0 * np.abs(p.q_ab))
    return value, np.abs(value) * (1.0 + apart)


def _sin_derivative(p: Pairs) -> Result:
    # e^{−(q_aa+q_bb)/2} cosh q_ab
    apart = _apart(p)
    value = 0.5 * np.exp(-0.5 * apart) * (1.0 + np.exp(-2.0 * np.abs(p.q_ab)))
    return value, value * (1.0 + apart)


def _sin_product(p: Pairs) -> Result:
    # 4 sin² sin² = (1 − cos 2u_a)(1 − cos 2u_b); dependence adds 2(e^{−q_aa−q_bb} sinh 2q_ab)² to its mean
    apart = _apart(p)
    alone = np.expm1(-2.0 * p.q_aa) * np.expm1(-2.0 * p.q_bb)
    joint = 0.5 * (np.exp(-apart) * np.expm1(-4.0 * np.abs(p.q_ab))) ** 2
    return 0.25 * (alone + joint), 0.25 * (alone + joint * (1.0 + 2.0 * apart))


# --------------------------------------------------------------------------------------------- GELU


def _gelu_parts(p: Pairs) -> tuple[Floats, Floats, Floats, Floats]:
    """det(I + Σ), E of the two normal densities, E Φ(u_a)Φ(u_b), det Σ."""
    determinant = _determinant(p)
    whole = 1.0 + p.q_aa + p.q_bb + determinant
    density = 1.0 / (_TWO_PI * np.sqrt(whole))
    both = np.arctan2(np.sqrt(whole), -p.q_ab) / _TWO_PI
    return whole, density, both, determinant


def _gelu_covariance(p: Pairs) -> Result:
    # Stein's lemma on u_a, then on the densities, whose mean product is D:
    # E φφ = D[det Σ + q_ab²(1/(1+q_aa) + 1/(1+q_bb))] + q_ab E ΦΦ
    _, density, both, determinant = _gelu_parts(p)
    first = density * (determinant + p.q_ab**2 * (1.0 / (1.0 + p.q_aa) + 1.0 / (1.0 + p.q_bb)))
    second = p.q_ab * both
    return first + second, first + np.abs(second)


def _gelu_derivative(p: Pairs) -> Result:
    # Price's theorem: the derivative of the covariance in q_ab
    whole, density, both, _ = _gelu_parts(p)
    rest = p.q_ab * density * (1.0 / (1.0 + p.q_aa) + 1.0 / (1.0 + p.q_bb) + 1.0 / whole)
    return both + rest, both + np.abs(rest)


_KERNELS: dict[str, dict[str, Kernel]] = {
    "erf": {"covariance": _erf_covariance, "derivative": _erf_derivative},
    "sin": {"covariance": _sin_covariance, "derivative": _sin_derivative, "product": _sin_product},
    "sign": {
        "covariance": _sign_covariance,
        "derivative": lambda p: _exact(np.zeros(len(p))),
        "product": lambda p: _exact(np.ones(len(p))),
    },
    "gelu": {"covariance": _gelu_covariance, "derivative": _gelu_derivative},
}


def kernel(act: Activation, which: str) -> Kernel | None:
    """The closed form of "covariance", "derivative" or "product" for pairs of positive variance, or None."""
    if act.slopes is not None:
        return _linear(which) if act.slopes == (1.0, 1.0) else _homogeneous(act, which)
    return _KERNELS.get(act.kernel, {}).get(which)
