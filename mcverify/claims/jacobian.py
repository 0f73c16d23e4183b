"""Networks, measurements and rivals that claims on the Jacobian's singular values share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from mcverify.claims.claim import FloatArray, Inputs, Measure, Networks, Predict
from mcverify.inputs import with_gram
from mcverify.network import Network, mlp
from mcverify.simulation import spectrum
from mcverify.simulation.trace import Trace
from mcverify.theory.phase import critical_sigma_w2, phase
from mcverify.theory.spectral_density import JacobianDensity, jacobian_density
from mcverify.theory.spectrum import exact_second_moments, jacobian_moments

Point = tuple[float, float]
Where = Callable[[], Point]  # computed when it is asked for, so that listing the claims stays quick
PROBES = 4


@cache
def critical(phi: str, sigma_b2: float) -> Point:
    """(σ_w², σ_b²) on the critical line."""
    return critical_sigma_w2(phi, sigma_b2), sigma_b2


def square(phi: str, where: Where, weights: str, depth: int) -> Networks:
    """width -> network of that many units in every layer, its input too."""
    return lambda width: mlp(width, [width] * depth, phi, *where(), weights)


def at_fixed_point(phi: str, where: Where) -> Inputs:
    """One input whose pre-activations have length q*."""

    def inputs(net: Network) -> FloatArray:
        sigma_w2, sigma_b2 = where()
        return with_gram([[(phase(phi, sigma_w2, sigma_b2).q - sigma_b2) / sigma_w2]], net.input_dim)

    return inputs


def one_input(net: Network) -> FloatArray:
    """One input of unit length."""
    return with_gram([[1.0]], net.input_dim)


# ---- moments ------------------------------------------------------------------------------------------


def first_two(*, activated: bool) -> Measure:
    """Unbiased estimates of m_1 and m_2, (replicate, 2)."""
    return lambda t: _moments(t, activated=activated)[:, :2]


def _moments(t: Trace, *, activated: bool) -> FloatArray:
    return spectrum.moments(t.plan, t.site.start, t.site.count, PROBES, activated=activated).mean(axis=1)


def log_ratio(t: Trace) -> FloatArray:
    """log m_2/m_1² of each network, (replicate, 1): light-tailed where the moments are not, with the same limit."""
    m = _moments(t, activated=False)
    return np.log(m[:, 1:2] / m[:, :1] ** 2)


def predicted_log_ratio(net: Network, x: FloatArray) -> FloatArray:
    """log m_2/m_1² in the limit, at the input's own q^l."""
    return np.log1p(np.atleast_1d(jacobian_moments(net, x).spread))


def exact(*, activated: bool) -> Predict:
    """E m_1 and E m_2 at the network's own width."""
    return lambda net, x: np.array(exact_second_moments(net, activated=activated))


def limit(*, activated: bool) -> Predict:
    """m_1 and m_2 as the width grows: the nearest rival of what is exact."""
    return lambda net, x: jacobian_moments(net, activated=activated).moments[:2]


# ---- the whole law ------------------------------------------------------------------------------------

QUANTILES = (0.15, 0.4, 0.7, 0.95)


@cache
def _density(phi: str, point: Point, weights: str, depth: int) -> JacobianDensity:
    """At q*: the same at every width."""
    return jacobian_density(mlp(8, [8] * depth, phi, *point, weights))


@cache
def scales(phi: str, point: Point, weights: str, depth: int) -> tuple[float, ...]:
    """c at some quantiles of the law above its atom at zero."""
    law = _density(phi, point, weights, depth)
    s = np.linspace(0.0, law.largest, 4001)[1:]
    p = law.cdf(s)
    at_zero = sum(mass for value, mass in law.atoms if value == 0)
    return tuple(float(s[np.searchsorted(p, at_zero + (1 - at_zero) * u)]) for u in QUANTILES)


def shares(phi: str, where: Where, weights: str, depth: int) -> Measure:
    """The mean over all singular values s of c²/(c² + s²), for each scale c: smooth stand-ins for the distribution
    function, whose corrections are powers of 1/width, (replicate, scale)."""

    def measure(t: Trace) -> FloatArray:
        s2 = spectrum.singular_values(t.plan, t.site.start, t.site.count)[:, 0] ** 2
        return np.stack([_share(s2, c).mean(axis=1) for c in scales(phi, where(), weights, depth)], axis=1)

    return measure


def _share(s2: FloatArray, c: float) -> FloatArray:
    return np.asarray(c**2 / (c**2 + s2))


def shares_of(law: Callable[[], JacobianDensity], at: Callable[[], Sequence[float]]) -> Predict:
    """The same of a law in the limit."""
    return lambda net, x: np.array([law().mean(lambda s, c=c: _share(s**2, c)) for c in at()])  # type: ignore[misc]


def predicted_shares(phi: str, where: Where, weights: str, depth: int, of: tuple[str, str] | None = None) -> Predict:
    """The limit's shares at the scales of that network; of: another (φ, weights) whose law they are taken of."""
    other_phi, other_weights = of or (phi, weights)
    return shares_of(
        lambda: _density(other_phi, where(), other_weights, depth), lambda: scales(phi, where(), weights, depth)
    )


def scale_labels(net: Network) -> list[str]:
    """Which quantile each scale is."""
    return [f"c at the {100 * u:g}% quantile" for u in QUANTILES]
