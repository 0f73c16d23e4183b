"""One layer's part in a squared length: a random factor, its transform and its samples.

A factor is what a layer of n units with slopes φ(z) = p z above 0 and m z below does to a squared length:

    R = gain · G · (low + (high − low) B),   high, low = the larger and the smaller of p² and m²

G is what the map does to the length, χ²_n/n for Gaussian weights; B, independent of it, is the share of ‖h‖² on the
units with the larger slope: h/‖h‖ is uniform on the sphere and the signs are fair coins, so that B is
Beta(K/2, (n − K)/2) with K ~ Bin(n, ½). With B = 0 and low = 0 the layer is dead.

E G^s is a ratio of gamma functions. E A^s, A = low + (high − low) B, is an integral over y = logit B, whose density is
analytic in a strip: the trapezoidal rule is exponentially accurate there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, loggamma, polygamma, psi

FloatArray = NDArray[np.float64]
Array = NDArray[Any]

FLOOR = 42.0  # densities are followed down to e^−42 = 6e-19 of their largest value
_SERIES = 24.0  # the argument from which Stirling's series holds log Γ to rounding
_ALL_K = 256  # units up to which all K are summed


@dataclass(frozen=True)
class Factor:
    """One layer's R, as above. ambient: the dimension N in which h is uniform in direction, and of which the n units
    are the first: G = (N/n) Beta(n/2, (N − n)/2), which is 1 for N = n, and χ²_n/n for N = ∞."""

    units: int
    gain: float
    high: float = 1.0
    low: float = 1.0
    ambient: float = math.inf

    @property
    def dies(self) -> bool:
        """Whether R can be 0."""
        return self.low == 0.0

    @property
    def log_survival(self) -> float:
        """log P(R > 0)."""
        return math.log1p(-(0.5**self.units)) if self.dies else 0.0

    @property
    def mean(self) -> float:
        """E R."""
        return self.gain * 0.5 * (self.high + self.low)


# ---- G: what a map does to a length -----------------------------------------------------------------------


def log_gamma_ratio(a: float, s: Array) -> Array:
    """log Γ(a + s)/Γ(a) − s log a for a > 0 and real or complex s, Re s > −a, without cancellation at large a."""
    s = np.asarray(s)
    if a < _SERIES:
        return np.asarray(loggamma(a + s) - gammaln(a) - s * math.log(a))
    r = s / a
    far = np.real(r) < -0.5  # so far left that a + s is small: Γ itself
    r = np.where(far, 0.0, r)
    series = (a + a * r - 0.5) * _log1p(r) - a * r + _stirling(a * (1 + r)) - _stirling(a)
    if far.any():
        series = np.where(far, loggamma(a + s) - gammaln(a) - s * math.log(a), series)
    return np.asarray(series)


def _log1p(z: Array) -> Array:
    """log(1 + z), complex z too, to rounding at small |z|."""
    if not np.iscomplexobj(z):
        return np.asarray(np.log1p(z))
    x, y = z.real, z.imag
    return np.asarray(0.5 * np.log1p(x * (2 + x) + y * y) + 1j * np.arctan2(y, 1 + x))


def _stirling(a: Any) -> Any:
    """What Stirling's series adds to (a − ½) log a − a + ½ log 2π (DLMF 5.11.1)."""
    w = 1 / (a * a)
    return (1 / 12 - w * (1 / 360 - w * (1 / 1260 - w * (1 / 1680 - w * (1 / 1188))))) / a


def log_g_moment(f: Factor, s: Array) -> Array:
    """log E G^s."""
    if f.ambient == f.units:
        return np.zeros_like(s)
    out = log_gamma_ratio(f.units / 2, s)
    return out if math.isinf(f.ambient) else out - log_gamma_ratio(f.ambient / 2, s)


def g_cumulants(f: Factor) -> FloatArray:
    """κ_1 … κ_4 of log G."""

    def of(a: float) -> FloatArray:
        return np.array([psi(a) - math.log(a), *(polygamma(k, a) for k in (1, 2, 3))])

    if f.ambient == f.units:
        return np.zeros(4)
    return of(f.units / 2) - (0.0 if math.isinf(f.ambient) else of(f.ambient / 2))


# ---- B: the share of the length on the units of the larger slope ------------------------------------------


@dataclass(frozen=True)
class Shares:
    """log A, A = low + (high − low) B, given R > 0, as points with weights: (point,) each."""

    log_weight: FloatArray
    log_a: FloatArray

    def log_moment(self, s: Array) -> Array:
        """log E[A^s | R > 0], of the shape of s."""
        flat = np.atleast_1d(s).ravel()
        exponent = flat[:, None] * self.log_a + self.log_weight
        top = exponent.real.max(axis=1)
        total = np.log(np.exp(exponent - top[:, None]).sum(axis=1)) + top
        return np.asarray(total.reshape(np.shape(s)))

    def cumulants(self) -> FloatArray:
        """κ_1 … κ_4 of log A."""
        w = np.exp(self.log_weight)
        mean = float(w @ self.log_a)
        second, third, fourth = (float(w @ (self.log_a - mean) ** k) for k in (2, 3, 4))
        return np.array([mean, second, third, fourth - 3 * second**2])


def shares(f: Factor, frequency: float, floor: float = FLOOR) -> Shares:
    """The trapezoidal rule for E A^s at |s| ≤ frequency, out to where the density has fallen by e^−floor."""
    if f.high == f.low:
        return Shares(np.zeros(1), np.array([math.log(f.high)]))
    # The atoms K = n (A = high) and, where it is no death, K = 0 (A = low).
    atom = -f.units * math.log(2)
    log_weight, log_a = [np.array([atom])], [np.array([math.log(f.high)])]
    if not f.dies:
        log_weight.append(np.array([atom]))
        log_a.append(np.array([math.log(f.low)]))
    if f.units > 1:
        density = _logit_density(f.units)
        reach = _reach(density, floor)
        # Aliases of the density lie 2π/step away: beyond its own bandwidth and that of A^s together.
        points = math.ceil(reach * (13.0 + 2.6 * math.sqrt(f.units) + frequency) / math.pi)
        y = np.linspace(-reach, reach, 2 * points + 1)
        log_f = density(y)
        total = float(np.logaddexp.reduce(log_f))
        log_weight.append(log_f - total + math.log1p(-2 * 0.5**f.units))
        log_a.append(_log_share(f, y))
    return Shares(np.concatenate(log_weight) - f.log_survival, np.concatenate(log_a))


def _log_share(f: Factor, y: FloatArray) -> FloatArray:
    """log(low + (high − low) B) at B = 1/(1 + e^−y)."""
    log_b = -np.logaddexp(0.0, -y)
    if f.dies:
        return np.asarray(math.log(f.high) + log_b)
    return np.asarray(np.log(f.low + (f.high - f.low) * np.exp(log_b)))


def _logit_density(n: int) -> Callable[[FloatArray], FloatArray]:
    """y -> log density of logit B given 0 < K < n, up to a constant: Σ_K w_K e^{k y/2} cosh(y/2)^{−n/2}, k = K − n/2.

    From n = 256 on only every few K, a fifth of √n apart: the sum over a smooth bell is a trapezoidal rule itself."""
    if n <= _ALL_K:
        big = np.arange(1, n)
        log_w = -(gammaln(big + 1) + gammaln(big / 2) + gammaln(n - big + 1) + gammaln((n - big) / 2))
    else:
        step, window = max(1, int(0.2 * math.sqrt(n))), 7 * math.sqrt(n)
        big = n // 2 + step * np.arange(-int(window / step), int(window / step) + 1)
        big = big[(big > 0) & (big < n)]
        # log of 1/(K! Γ(K/2)) by Stirling, the part that cancels between K and n − K left out.
        r = (big - n / 2) / (n / 2)
        log_w = -0.75 * n * (np.log1p(-r * r) + 2 * r * np.arctanh(r))
        for side in (big, n - big):
            log_w = log_w - (0.25 - 0.025 / side.astype(float) ** 2) / side
    log_w -= log_w.max()
    k = big - n / 2

    def density(y: FloatArray) -> FloatArray:
        z = np.abs(np.atleast_1d(y))
        # log cosh(z/2), to rounding at small z and without overflow at large
        near = np.log1p(2 * np.sinh(np.minimum(z, 1) / 4) ** 2)
        log_cosh = np.where(z < 1, near, z / 2 + np.log1p(np.exp(-z)) - math.log(2))
        exponent = 0.5 * z[:, None] * k + log_w
        return np.asarray(np.logaddexp.reduce(exponent, axis=1) - 0.5 * n * log_cosh)

    return density


def _reach(density: Callable[[FloatArray], FloatArray], floor: float) -> float:
    """Where a symmetric, falling log density is `floor` below its middle."""
    middle, low, high = float(density(np.zeros(1))[0]), 0.0, 1.0
    while middle - float(density(np.array([high]))[0]) < floor:
        low, high = high, 2 * high
    for _ in range(12):
        y = 0.5 * (low + high)
        low, high = (y, high) if middle - float(density(np.array([y]))[0]) < floor else (low, y)
    return high


# ---- samples ----------------------------------------------------------------------------------------------


def draw_log(f: Factor, size: tuple[int, ...], rng: np.random.Generator) -> FloatArray:
    """Samples of log R, −∞ where the layer dies."""
    out = np.full(size, math.log(f.gain * f.high))
    if f.ambient != f.units:
        out += _draw_log_g(f, size, rng)
    if f.high != f.low:
        on = rng.binomial(f.units, 0.5, size)
        above, below = _squares(on, rng), _squares(f.units - on, rng)
        with np.errstate(divide="ignore"):
            out += np.log((above + f.low / f.high * below) / (above + below))
    return out


def _squares(k: NDArray[np.intp], rng: np.random.Generator) -> FloatArray:
    """½ χ²_k, 0 for k = 0."""
    return np.where(k > 0, rng.standard_gamma(np.maximum(k, 1) / 2), 0.0)


def _draw_log_g(f: Factor, size: tuple[int, ...], rng: np.random.Generator) -> FloatArray:
    seen = rng.standard_gamma(f.units / 2, size)
    if math.isinf(f.ambient):
        return np.log(seen / (f.units / 2))
    whole = seen + rng.standard_gamma((f.ambient - f.units) / 2, size)
    return np.asarray(np.log(seen / whole * (f.ambient / f.units)))
