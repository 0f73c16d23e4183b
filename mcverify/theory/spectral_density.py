"""The density of the singular values of a network's Jacobian, at any depth, in the limit: −Im z/(πλ) at λ + i0, z the
root (theory/spectral_root.py) of the equations of free products (theory/spectral_equations.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import PchipInterpolator

from mcverify.errors import InputError, Unpredictable
from mcverify.expectations.quadrature import legendre
from mcverify.network import Network
from mcverify.theory.free_product import Factor, factors, variances
from mcverify.theory.spectral_equations import Equations, is_constant, slopes_of, upper_edge
from mcverify.theory.spectral_root import mass_rate, negative_axis

FloatArray = NDArray[np.float64]

_ORDER = 12  # nodes of a panel of the density
# The highest coefficients of a panel's density above which it is cut in two, in probability, and how often at most: as
# deep as a hard edge needs, but where the slopes' law is a rule, no further than to what its discreteness leaves
# unresolved in the tails.
_PANEL = {True: (1e-6, 24), False: (1e-5, 4)}
_DEFECT = 1e-4  # of all probability: above it the density is refused


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
    slopes = [f for f in chain if f.phi is not None and not is_constant(f)]
    if orthogonal and len(slopes) < 2:
        return _without_density(chain)
    with np.errstate(all="ignore"):  # roots that are lost are found again, or counted in the defect
        return _resolved(chain)


# ---- atoms --------------------------------------------------------------------------------------------


def _zeros(chain: Sequence[Factor]) -> float:
    """The share of directions that J takes to 0: J's rank is that of its narrowest factor."""
    ranks = [1.0]
    for f in chain:
        law = None if f.phi is None else slopes_of(f)
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
        for law in (slopes_of(f) for f in chain if f.phi is not None):
            at = int(np.argmax(np.where(law.values > 0, law.probabilities, 0.0)))
            value, p = value * law.values[at], p - (1 - law.probabilities[at]) if law.exact else 0.0
        if p > 0:
            out.append((float(np.sqrt(value)), float(p)))
    return tuple(out)


def _without_density(chain: Sequence[Factor]) -> JacobianDensity:
    """Orthogonal maps with at most one activation whose slopes vary: J has its slopes' law."""
    laws = [slopes_of(f) for f in chain if f.phi is not None and not is_constant(f)]
    if laws and not laws[0].exact:
        raise Unpredictable("one smooth activation between orthogonal maps: the singular values are σ_w^L |φ′(√q z)|")
    gain = float(np.prod([f.sigma_w2 * (slopes_of(f).values[0] if f.phi is not None and is_constant(f) else 1.0)
                          for f in chain]))  # fmt: skip
    pairs = zip(laws[0].values, laws[0].probabilities, strict=True) if laws else [(1.0, 1.0)]
    atoms = tuple((float(np.sqrt(gain * v)), float(p)) for v, p in pairs)
    none = np.zeros(0)
    return JacobianDensity(none, none, none, none, atoms, max(s for s, _ in atoms), 0.0)


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
    log_edge = upper_edge(equations)
    start = negative_axis(equations, log_edge, _zeros(chain))
    end = float(np.sqrt(log_edge - start.log_size[-1]))
    edges = np.linspace(0.0, end, 1 + max(12, int(np.ceil(2 * end))))
    low, high, done = edges[:-1], edges[1:], []
    tolerance, deepest = _PANEL[all(law.exact for law in equations.laws)]
    for left in range(deepest, -1, -1):
        v = (low + high)[:, None] / 2 + (high - low)[:, None] / 2 * x
        rate = 2 * v * mass_rate(equations, start, log_edge - v.ravel() ** 2).reshape(v.shape)
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
