"""The law of a product of independent layer factors, numerically: the inversion of its characteristic function.

E Π R^{it} is the product of the factors' own transforms. Davies' (1973) midpoint rule inverts it with exponential
accuracy, but where it decays as a power of t alone, as it does for narrow orthogonal maps. All is done for the
logarithm, given that no layer dies.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from mcverify.errors import Unpredictable
from mcverify.theory.layer_factor import FLOOR, Factor, g_cumulants, log_g_moment, shares

FloatArray = NDArray[np.float64]
Array = NDArray[Any]

_ROUNDING = 1e-14  # |φ(t)| below which there is but rounding
_LARGEST = 1 << 12  # frequencies
_ERROR = 1e-7  # of a probability, beyond which a law is not given


@dataclass(frozen=True)
class Inversion:
    """What gives the law of X = log Π R given Π R > 0: characteristic function of X − mean at the frequencies
    t = (j + ½) step, mean and cumulants of X, the ends beyond which nothing is left, and the error of a probability."""

    step: float
    phi: NDArray[np.complex128]
    cumulants: FloatArray
    low: float
    high: float
    error: float

    @property
    def t(self) -> FloatArray:
        return _frequencies(self.step, len(self.phi))

    def cdf(self, x: ArrayLike) -> FloatArray:
        """P(X ≤ x | survival) (Gil-Pelaez 1951; Davies 1973, eq. 3)."""
        out = 0.5 - self._sum(x, self.phi / self.t).imag / math.pi
        z = np.asarray(x, dtype=np.float64) - self.cumulants[0]
        return np.where(z <= self.low, 0.0, np.where(z >= self.high, 1.0, np.clip(out, 0.0, 1.0)))

    def pdf(self, x: ArrayLike) -> FloatArray:
        """The density of X at x, given survival."""
        z = np.asarray(x, dtype=np.float64) - self.cumulants[0]
        inside = (z > self.low) & (z < self.high)
        return np.where(inside, np.maximum(self._sum(x, self.phi).real / math.pi, 0.0), 0.0)

    def _sum(self, x: ArrayLike, terms: Array) -> Array:
        """step Σ_j e^{−i t_j (x − mean)} terms_j, of the shape of x."""
        z = np.asarray(x, dtype=np.float64) - self.cumulants[0]
        flat = np.clip(z.ravel(), self.low, self.high)
        rows = max(1, (1 << 20) // len(terms))
        parts = [np.exp(-1j * np.outer(flat[i : i + rows], self.t)) @ terms for i in range(0, len(flat), rows)]
        return np.asarray(self.step * np.concatenate(parts or [np.zeros(0, complex)])).reshape(z.shape)

    def ppf(self, p: ArrayLike) -> FloatArray:
        """x with P(X ≤ x | survival) = p, to rounding; −∞ at p ≤ 0 and ∞ at p ≥ 1."""
        target = np.asarray(p, dtype=np.float64).ravel()
        low = np.full(target.shape, self.low + self.cumulants[0])
        high = np.full(target.shape, self.high + self.cumulants[0])
        x = np.clip(self.cumulants[0] + math.sqrt(self.cumulants[1]) * _normal_quantile(target), low, high)
        for _ in range(80):  # Newton's method, kept between bounds that close in
            value = self.cdf(x) - target
            low, high = np.where(value < 0, x, low), np.where(value < 0, high, x)
            with np.errstate(divide="ignore", invalid="ignore"):
                step = x - value / self.pdf(x)
            new = np.where((step > low) & (step < high), step, 0.5 * (low + high))
            moved, x = np.abs(new - x).max(initial=0.0), new
            if moved < 1e-13 * max(1.0, math.sqrt(self.cumulants[1])):
                break
        x = np.where(target <= 0, -np.inf, np.where(target >= 1, np.inf, x))
        return np.asarray(x.reshape(np.shape(p)))


def _normal_quantile(p: FloatArray) -> FloatArray:
    return np.asarray(ndtri(np.clip(p, 1e-300, 1 - 1e-16)))


def log_survival(factors: Sequence[Factor]) -> float:
    """log P(Π R > 0)."""
    return math.fsum(f.log_survival for f in factors)


def cumulants(factors: Sequence[Factor]) -> FloatArray:
    """κ_1 … κ_4 of log Π R given survival."""
    total = np.zeros(4)
    for f, times in Counter(factors).items():
        one = g_cumulants(f) + shares(f, 13.0).cumulants()
        one[0] += math.log(f.gain)
        total += times * one
    return total


def log_moment(factors: Sequence[Factor], order: float) -> float:
    """log E[(Π R)^order | survival], order ≥ 0."""
    total, s = 0.0, np.array([float(order)])
    for f, times in Counter(factors).items():
        # Tilted by A^order the density's upper side is what counts.
        a = shares(f, order + 13.0, FLOOR + order * math.log(2 * f.high / (f.high + f.low)))
        total += times * float((log_g_moment(f, s) + a.log_moment(s)).item() + order * math.log(f.gain))
    return total


def invert(factors: Sequence[Factor]) -> Inversion:
    """The law of log Π R given survival, ready to be read.

    Raises Unpredictable where the product is not random, and where its characteristic function falls so slowly that a
    probability would be off by more than 1e-7 (orthogonal maps of few units)."""
    kappa = cumulants(factors)
    sd = math.sqrt(max(kappa[1], 0.0))
    counted = Counter(factors)
    if sd < 1e-9:
        raise Unpredictable("given that no layer dies the length is not random: it has one value and no density")
    low, high = _ends(counted, kappa, sd)
    step, top = 2 * math.pi / (high - low), 9.0 / sd
    while True:
        size = min(_LARGEST, math.ceil(top / step))
        left = float(np.abs(_characteristic(counted, _frequencies(step, size)[-2:], kappa[0])).max())
        if left < _ROUNDING or size == _LARGEST:
            break
        top *= 1.5
    if left > _ERROR:
        raise Unpredictable(
            f"the law of these orthogonal maps is too rough to be inverted: a probability would be off by {left:.1g}; "
            "ask for moments or samples (rvs)"
        )
    phi = _characteristic(counted, _frequencies(step, size), kappa[0])
    return Inversion(step, phi, kappa, low, high, max(left, 1e-14 * math.sqrt(size)))


def _frequencies(step: float, size: int) -> FloatArray:
    return np.asarray(step * (np.arange(size) + 0.5), dtype=np.float64)


def _characteristic(counted: Counter[Factor], t: FloatArray, mean: float) -> NDArray[np.complex128]:
    """E exp(it(X − mean)) given survival, (t,)."""
    s = 1j * t
    total = -s * mean
    for f, times in counted.items():
        total = total + times * (log_g_moment(f, s) + _log_transform(f, t) + s * math.log(f.gain))
    return np.asarray(np.exp(total))


def _log_transform(f: Factor, t: FloatArray) -> Array:
    """log E[A^{it} | survival], t in pieces so that no table grows large."""
    points = shares(f, float(t.max()))
    rows = max(1, (1 << 20) // len(points.log_a))
    with np.errstate(divide="ignore"):
        return np.concatenate([points.log_moment(1j * t[i : i + rows]) for i in range(0, len(t), rows)])


def _ends(counted: Counter[Factor], kappa: FloatArray, sd: float) -> tuple[float, float]:
    """Where the tails of X − mean fall below e^−40, by Chernoff's bound minimised over orders."""
    tables = [(f, times, shares(f, 13.0)) for f, times in counted.items()]

    def bound(s: FloatArray) -> float:
        growth = -s * kappa[0]
        for f, times, table in tables:
            growth = growth + times * (log_g_moment(f, s) + table.log_moment(s) + s * math.log(f.gain))
        ends = (growth + 40.0) / np.abs(s)
        return float(ends[np.isfinite(ends)].min())

    orders = np.geomspace(0.02, 100.0, 120) / sd
    random = [f.units for f in counted if f.ambient != f.units]
    left = orders[orders < 0.49 * min(random)] if random else orders
    return -bound(-np.append(left, 0.49 * min(random) if random else left[-1])), bound(orders)
