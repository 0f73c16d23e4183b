"""The density of the singular values of a network's Jacobian, at any depth, in the limit.

With z = M(1/λ) the S-transforms of theory/free_product.py say

    λ = (1 + z_L)/z_L Π_l 1/(S_{D_l²}(z_l) S_{W_l W_lᵀ}(z_l))       1/S_{D²}(z) = z/((1 + z) ζ),  M_{D²}(ζ) = z

where M_{D²}(ζ) = E d²ζ/(1 − d²ζ) is a sum over the law of the slopes (theory/slope_law.py). No S-transform is inverted:
z and the ζ of each different layer are solved for together, by Newton's method in their logarithms, and the density
is −Im z/(πλ) at λ + i0. The right root is the one that starts on the negative axis, where all is real, and is followed
along |λ| = const to the positive one; the upper half-plane holds no branch point in between.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import PchipInterpolator
from scipy.optimize import brentq

from mcverify.errors import InputError, Unpredictable
from mcverify.expectations.quadrature import legendre
from mcverify.network import Network
from mcverify.theory.free_product import Factor, factors, variances
from mcverify.theory.slope_law import SlopeLaw, slope_law

FloatArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]

_ORDER = 12  # nodes of a panel of the density
# The highest coefficients of a panel's density above which it is cut in two, in probability, and how often at most: as
# deep as a hard edge needs, but where the slopes' law is a rule, no further than to what its discreteness leaves
# unresolved in the tails.
_PANEL = {True: (1e-6, 24), False: (1e-5, 4)}
# How often that rule's panels are cut. Between orthogonal maps ζ comes near the real line, and resolved must be poles a
# tenth of a standard deviation off it; Gaussian ones keep it away.
_SPLITS = {True: 2, False: 0}
_LEFT_OUT = 1e-8  # probability below the smallest value that is resolved
_DEFECT = 1e-4  # of all probability: above it the density is refused
_CONVERGED = 1e-11


@dataclass(frozen=True)
class JacobianDensity:
    """The law of the singular values s of J, over n_0 directions.

    singular_values, density: ascending points (node,) and the density of s there; probabilities: of a quadrature
    rule on these points, so that means are sums; cumulative: of the density up to these points. atoms: (value,
    probability) beside the density. largest: the upper edge of all. defect: 1 − all probability, what the numerical
    solution is off by."""

    singular_values: FloatArray
    density: FloatArray
    probabilities: FloatArray
    cumulative: FloatArray
    atoms: tuple[tuple[float, float], ...]
    largest: float
    defect: float

    def mean(self, f: Callable[[FloatArray], FloatArray]) -> float:
        """E f(s) of a smooth f."""
        total = float(self.probabilities @ f(self.singular_values)) if len(self.probabilities) else 0.0
        return total + sum(p * float(f(np.array([s]))[0]) for s, p in self.atoms)

    def moments(self, order: int = 4) -> FloatArray:
        """E s^{2k}, k = 1 … order."""
        return np.array([self.mean(lambda s, k=k: s ** (2 * k)) for k in range(1, order + 1)])  # type: ignore[misc]

    def cdf(self, s: ArrayLike) -> FloatArray:
        """P(singular value ≤ s), atoms included."""
        at = np.asarray(s, np.float64)
        out = np.zeros(at.shape)
        if len(self.cumulative):
            top, whole = self.largest, float(self.probabilities.sum())
            points = np.insert(np.sqrt(2 * np.log(top / self.singular_values[::-1])), 0, 0.0)  # smooth at the edge
            values = np.insert(self.cumulative[::-1], 0, whole)
            with np.errstate(divide="ignore"):
                v = np.sqrt(2 * np.log(top / np.clip(at, 0.0, top)))
            out = np.where(v <= points[-1], PchipInterpolator(points, values)(np.minimum(v, points[-1])), 0.0)
        for value, p in self.atoms:
            out = out + p * (at >= value)
        return out


def jacobian_density(net: Network, x: ArrayLike | None = None, *, activated: bool = False) -> JacobianDensity:
    """The law of the singular values of J = ∂h^L/∂x^0 in the limit, for networks as in `jacobian_moments`.

    x: one input, whose q^l at finite depth are taken; None for the fixed point q*. Orthogonal maps must be square.
    Raises InputError for unusable inputs, Unpredictable for other networks, for a single smooth activation between
    orthogonal maps (σ_w^L |φ′(√q z)| is known without), and where the density cannot be resolved."""
    q = variances(net, x, activated)
    if q.size != q.shape[-1]:
        raise InputError("x", f"{q.size // q.shape[-1]} inputs or positions", "must be one input, of one position")
    chain = factors(net, q.ravel(), activated)
    if any(f.orthogonal and f.above != f.below for f in chain):
        raise Unpredictable("orthogonal maps that are not square: their moments are known, not the density")
    orthogonal = all(f.orthogonal for f in chain)
    slopes = [f for f in chain if f.phi is not None and not _is_constant(f)]
    if orthogonal and len(slopes) < 2:
        return _without_density(chain)
    with np.errstate(all="ignore"):  # roots that are lost are found again, or counted in the defect
        return _resolved(chain)


# ---- atoms --------------------------------------------------------------------------------------------


def _law(factor: Factor, splits: int = 0) -> SlopeLaw:
    assert factor.phi is not None
    law = slope_law(factor.phi, factor.q, splits)
    if not law.values.any():
        raise Unpredictable(f"the slopes of {factor.phi.name} are 0: the Jacobian is zero")
    return law


def _is_constant(factor: Factor) -> bool:
    law = _law(factor)
    return law.exact and len(law.values) == 1


def _zeros(chain: Sequence[Factor]) -> float:
    """The share of directions that J takes to 0: J's rank is that of its narrowest factor."""
    ranks = [1.0]
    for f in chain:
        law = None if f.phi is None else _law(f)
        dead = 0.0 if law is None or not law.exact else float(law.probabilities[law.values == 0].sum())
        ranks.append((1 - dead) / f.above)
    return 1 - min(ranks)


def _atoms(chain: Sequence[Factor]) -> tuple[tuple[float, float], ...]:
    """At 0, and where every factor has an atom and these must overlap: probabilities that sum above their number
    less one (Bercovici & Voiculescu 1998)."""
    out, zeros = [], _zeros(chain)
    if zeros > 0:
        out.append((0.0, zeros))
    if all(f.orthogonal for f in chain):
        value, p = float(np.prod([f.sigma_w2 for f in chain])), 1.0
        for law in (_law(f) for f in chain if f.phi is not None):
            at = int(np.argmax(np.where(law.values > 0, law.probabilities, 0.0)))
            value, p = value * law.values[at], p - (1 - law.probabilities[at]) if law.exact else 0.0
        if p > 0:
            out.append((float(np.sqrt(value)), float(p)))
    return tuple(out)


def _without_density(chain: Sequence[Factor]) -> JacobianDensity:
    """Orthogonal maps with at most one activation whose slopes vary: J has its slopes' law."""
    laws = [_law(f) for f in chain if f.phi is not None and not _is_constant(f)]
    if laws and not laws[0].exact:
        raise Unpredictable("one smooth activation between orthogonal maps: the singular values are σ_w^L |φ′(√q z)|")
    gain = float(np.prod([f.sigma_w2 * (_law(f).values[0] if f.phi is not None and _is_constant(f) else 1.0)
                          for f in chain]))  # fmt: skip
    pairs = zip(laws[0].values, laws[0].probabilities, strict=True) if laws else [(1.0, 1.0)]
    atoms = tuple((float(np.sqrt(gain * v)), float(p)) for v, p in pairs)
    none = np.zeros(0)
    return JacobianDensity(none, none, none, none, atoms, max(s for s, _ in atoms), 0.0)


# ---- the equations ------------------------------------------------------------------------------------


class Point(NamedTuple):
    """log z (point,) and the log ζ of each different law (law, point)."""

    log_z: ComplexArray
    log_zeta: ComplexArray


class Equations:
    """log λ as a function of z and ζ, and M_{D²}(ζ) = z for each different law of slopes."""

    def __init__(self, chain: Sequence[Factor]) -> None:
        slopes = [f for f in chain if f.phi is not None]
        varying = [f for f in slopes if not _is_constant(f)]
        each = Counter((f.phi, f.q, f.above) for f in varying)
        first = {(f.phi, f.q, f.above): f for f in varying}
        splits = _SPLITS[all(f.orthogonal for f in chain)]
        self.laws = [_law(f, splits) for f in first.values()]
        self.above = np.array([key[2] for key in first])
        self.number = np.array([float(each[key]) for key in first])
        self.gaussian = [f.below for f in chain if not f.orthogonal]
        self.last = chain[-1].above
        gains = [f.sigma_w2 for f in chain] + [_law(f).values[0] for f in slopes if _is_constant(f)]
        self.constant = float(np.log(gains).sum())

    def excess(self, at: Point) -> tuple[ComplexArray, ComplexArray]:
        """log λ without the terms in ζ, and its slope in log z."""
        z: ComplexArray = np.exp(at.log_z)
        value: ComplexArray = self.constant + np.log(1 + self.last * z) - np.log(self.last) - at.log_z
        slope: ComplexArray = self.last * z / (1 + self.last * z) - 1
        for r in self.gaussian:
            value, slope = value + np.log(1 + r * z), slope + r * z / (1 + r * z)
        for n, r in zip(self.number.tolist(), self.above.tolist(), strict=True):
            value = value + n * (np.log(r) + at.log_z - np.log(1 + r * z))
            slope = slope + n / (1 + r * z)
        return value, slope

    def generating(self, i: int, log_zeta: ComplexArray) -> tuple[ComplexArray, ComplexArray]:
        """log(M(ζ)/ζ) of law i, whose argument stays within ±π, and the slope of log M in log ζ."""
        law, zeta = self.laws[i], np.exp(log_zeta)[..., None]
        inside = 1 / (1 - law.values * zeta)
        weighted = (law.probabilities * law.values) * inside
        total = weighted.sum(axis=-1)
        rate = (weighted * inside).sum(axis=-1) / total
        return np.asarray(np.log(total), np.complex128), np.asarray(rate, np.complex128)

    def step(self, at: Point, log_lambda: NDArray[Any]) -> tuple[Point, FloatArray]:
        """One step of Newton's, and how far the equations were from holding before it, (point,)."""
        value, slope = self.excess(at)
        off, rate = np.empty_like(at.log_zeta), np.empty_like(at.log_zeta)
        for i, r in enumerate(self.above):
            made, rate[i] = self.generating(i, at.log_zeta[i])
            off[i] = made + at.log_zeta[i] - at.log_z - np.log(r)
        n = self.number[:, None]
        numerator = log_lambda - value + (n * (at.log_zeta - off / rate)).sum(axis=0)
        change = numerator / (slope - (n / rate).sum(axis=0))
        change = change / np.maximum(1.0, np.abs(change))  # beside an edge, where λ(z) is flat
        missing = np.abs(value - (n * at.log_zeta).sum(axis=0) - log_lambda)
        worst = np.maximum(missing, np.abs(off).max(axis=0, initial=0.0))
        return Point(at.log_z + change, at.log_zeta + (change - off) / rate), worst

    def solve(self, at: Point, log_lambda: NDArray[Any], steps: int) -> tuple[Point, FloatArray]:
        """Newton's method to convergence, and what is left, (point,)."""
        for _ in range(steps):
            at, worst = self.step(at, log_lambda)
            if not worst.max() > _CONVERGED:
                break
        return at, worst


def _upper_edge(equations: Equations) -> float:
    """log λ_+: the least λ(z) of z > 0, where M(1/λ) ceases to be analytic."""
    tops = np.array([law.values.max() for law in equations.laws])

    def at(log_z: float) -> tuple[float, float]:
        """log λ and its slope in log z."""
        where = Point(np.array([log_z], complex), _real_zeta(equations, tops, log_z)[:, None].astype(complex))
        value, slope = equations.excess(where)
        for i, n in enumerate(equations.number):
            _, rate = equations.generating(i, where.log_zeta[i])
            value, slope = value - n * where.log_zeta[i], slope - n / rate
        return float(value.real[0]), float(slope.real[0])

    low, high = -30.0, 30.0
    if at(high)[1] < -1e-9:
        return at(high)[0]
    return at(brentq(lambda u: at(u)[1] + 1e-12, low, high, xtol=1e-13))[0]


def _real_zeta(equations: Equations, tops: FloatArray, log_z: float) -> FloatArray:
    """log ζ of each law with M(ζ) = z for z > 0, by bisection below the pole at 1/max d²: (law,)."""
    out = []
    for i, (top, r) in enumerate(zip(tops, equations.above, strict=True)):

        def excess(y: float, i: int = i, top: float = top, r: float = r) -> float:
            v = -np.logaddexp(0.0, -y) - np.log(top)  # ζ = 1/((1 + e^{−y}) max d²)
            made, _ = equations.generating(i, np.array([v], complex))
            return float(made.real[0] + v - log_z - np.log(r))

        y = brentq(excess, -60.0, 34.0, xtol=1e-12) if excess(34.0) > 0 else 34.0
        out.append(-np.logaddexp(0.0, -y) - np.log(top))
    return np.array(out)


# ---- following the root -------------------------------------------------------------------------------

# Of λ, from the negative axis to the positive one.
_ANGLES = np.concatenate([np.linspace(np.pi, 0.1, 24)[1:], 0.1 * 0.4 ** np.arange(1, 17)])
_FINER = 3  # times that angles are halved where the root was lost
_STEP = 0.25  # in log λ along the negative axis


class NegativeAxis(NamedTuple):
    """The root on the negative axis at points of descending log |λ|."""

    log_size: FloatArray  # (point,)
    root: Point


def _negative_axis(equations: Equations, log_edge: float, zeros: float) -> NegativeAxis:
    """From far outside to where all but _LEFT_OUT of the spectrum lies above |λ|: 1 + z is about what lies below."""
    mu = np.array([law.values @ law.probabilities for law in equations.laws])
    size = log_edge + 12.0
    log_m1 = equations.constant + equations.number @ np.log(mu)
    log_z = log_m1 - size
    at = Point(np.array([log_z - np.pi * 1j]), (log_z + np.log(equations.above / mu) - np.pi * 1j)[:, None])
    sizes, found = [], []
    while True:
        at, worst = equations.solve(at, np.array([size + np.pi * 1j]), 50)
        if not worst[0] < 1e-7:
            break
        sizes.append(size)
        found.append(at)
        if 1 - zeros + np.exp(at.log_z[0]).real < _LEFT_OUT:
            break
        size -= _STEP
    if len(found) < 60:
        raise Unpredictable("the equation for the density could not be followed along the negative axis")
    root = Point(np.concatenate([p.log_z for p in found]), np.concatenate([p.log_zeta for p in found], axis=1))
    return NegativeAxis(np.array(sizes), root)


def _on_axis(equations: Equations, start: NegativeAxis, log_size: FloatArray, finer: int = 0) -> Point:
    """The root at λ + i0, log λ = log_size; NaN where it could not be followed."""
    order = start.log_size[::-1]

    def between(v: ComplexArray) -> ComplexArray:
        return np.asarray(np.interp(log_size, order, v[::-1].real) - np.pi * 1j)

    log_zeta = np.array([between(v) for v in start.root.log_zeta]).reshape(-1, len(log_size))
    at = Point(between(start.root.log_z), log_zeta)
    at, _ = equations.solve(at, log_size + np.pi * 1j, 20)
    marks = np.arange(len(_ANGLES) * 2**finer) / 2**finer
    for angle in np.interp(marks, np.arange(len(_ANGLES)), _ANGLES):
        at, _ = equations.solve(at, log_size + angle * 1j, 2)
    at, worst = equations.solve(at, log_size + 0j, 40)
    lost = ~(worst < 1e-7) | (at.log_z.imag > 1e-7) | (at.log_z.imag < -np.pi - 1e-7)
    if lost.any() and finer < _FINER:
        again = _on_axis(equations, start, log_size[lost], finer + 1)
        at.log_z[lost], at.log_zeta[:, lost] = again
    elif lost.any():
        at.log_z[lost] = np.nan
    return at


def _mass_rate(equations: Equations, start: NegativeAxis, log_size: FloatArray) -> FloatArray:
    """dP/d log λ = −Im z/π at each log λ."""
    at = _on_axis(equations, start, log_size)
    rate = -np.exp(at.log_z).imag / np.pi
    return np.where(np.isfinite(rate), np.maximum(rate, 0.0), 0.0)


# ---- the density --------------------------------------------------------------------------------------


class Panels(NamedTuple):
    """Panels in v, log λ = log λ_+ − v², which takes the edge's square root away: (panel,) and (panel, node)."""

    low: FloatArray
    high: FloatArray
    rate: FloatArray  # dP/dv at the nodes


@cache
def _interpolation() -> tuple[FloatArray, FloatArray]:
    """(node, node) each: from values at the nodes of [−1, 1] to Legendre coefficients, and to integrals from −1 to each
    node."""
    x, _ = legendre(_ORDER)
    coefficients = np.asarray(np.linalg.inv(np.polynomial.legendre.legvander(x, _ORDER - 1)), np.float64)
    integrals = np.polynomial.legendre.legint(coefficients, lbnd=-1, axis=0)
    return coefficients, np.asarray(np.polynomial.legendre.legvander(x, _ORDER) @ integrals, np.float64)


def _resolved(chain: Sequence[Factor]) -> JacobianDensity:
    """Panels are cut in two until the density on each is a polynomial."""
    equations, (x, _), (coefficients, _) = Equations(chain), legendre(_ORDER), _interpolation()
    log_edge = _upper_edge(equations)
    start = _negative_axis(equations, log_edge, _zeros(chain))
    end = float(np.sqrt(log_edge - start.log_size[-1]))
    edges = np.linspace(0.0, end, 1 + max(12, int(np.ceil(2 * end))))
    low, high, done = edges[:-1], edges[1:], []
    tolerance, deepest = _PANEL[all(law.exact for law in equations.laws)]
    for left in range(deepest, -1, -1):
        v = (low + high)[:, None] / 2 + (high - low)[:, None] / 2 * x
        rate = 2 * v * _mass_rate(equations, start, log_edge - v.ravel() ** 2).reshape(v.shape)
        tail = np.abs(rate @ coefficients[-3:].T).sum(axis=1) * (high - low)
        again = (tail > tolerance) & (left > 0)
        done.append(Panels(low[~again], high[~again], rate[~again]))
        middle = (low + high)[again] / 2
        low, high = np.concatenate([low[again], middle]), np.concatenate([middle, high[again]])
        if not again.any():
            break
    every = Panels(*(np.concatenate([getattr(p, name) for p in done]) for name in Panels._fields))
    return _record(every, log_edge, _atoms(chain))


def _record(every: Panels, log_edge: float, atoms: tuple[tuple[float, float], ...]) -> JacobianDensity:
    """Panels, in any order, as the law of singular values."""
    (x, w), (_, integrals) = legendre(_ORDER), _interpolation()
    order = np.argsort(every.low)
    low, high, rate = every.low[order, None], every.high[order, None], every.rate[order]
    v, half = (low + high) / 2 + (high - low) / 2 * x, (high - low) / 2
    p = rate * w * half
    above = np.cumsum(p.sum(axis=1)) - p.sum(axis=1)  # s falls as v grows
    total = float(p.sum())
    s = np.exp((log_edge - v**2) / 2)
    below = total - above[:, None] - (rate @ integrals.T) * half
    defect = 1 - total - sum(mass for _, mass in atoms)
    if not abs(defect) < _DEFECT:
        raise Unpredictable(f"the density could not be resolved: its probabilities sum to {1 - defect:.6g}")
    s, density, p, below = (np.asarray(a.ravel()[::-1], np.float64) for a in (s, rate / (v * s), p, below))
    below = np.maximum.accumulate(np.maximum(below, 0.0))  # between a hard edge's nodes it overshoots
    return JacobianDensity(s, density, p, below, atoms, float(np.exp(log_edge / 2)), defect)
