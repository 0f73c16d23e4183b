"""What a border of zeros does to a convolutional network: lengths, gradients, and where it is critical.

Beyond the border there is nothing to add, and the average still divides by all taps: A becomes the truncated matrix

    T_{α,α+β} = v_β where α + β is on the grid,      q(α)' = σ_w² Σ_α' T_αα' ⟨φ²⟩_{q(α')} + σ_b².

T has a leading eigenvalue λ_1 < 1, in 1-D with three uniform taps (1 + 2 cos(π/(n + 1)))/3. A positively homogeneous
φ without biases keeps its mean length as λ_1^l instead of at 1, so that it is critical at 1/λ_1 times the σ_w² of a
circle: exact at every width. Else the fixed point is a profile q*(α), lower near the border, and what decides is the
leading eigenvalue χ of σ_w² T diag ⟨φ′²⟩_{q*(α)}: total gradient norms move by it, and so do small differences between
two inputs. All but the first are limits. v_β as in theory/spatial.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from mcverify.activations import Activation
from mcverify.activations import activation as look_up
from mcverify.errors import InputError
from mcverify.layers.grid import checked_size
from mcverify.theory.critical_line import NoCriticalPoint, critical_points, critical_sigma_w2
from mcverify.theory.fixed_points import fixed_points, settle
from mcverify.theory.roots import refine
from mcverify.theory.spatial import Taps, offsets, tap_energies
from mcverify.theory.variance_map import VarianceMap, checked

Floats = NDArray[np.float64]

LARGEST = 1600  # positions whose average over taps is held as a matrix
_PLAIN, _NEWTON = 30, 60
_SETTLED = 1e-13


@dataclass(frozen=True)
class Border:
    """A convolutional network with zeros beyond its border.

    leading: λ_1 of the truncated average. q: the fixed point's profile q*(α), in the shape of the grid; nan where there
    is none in (0, ∞). chi: the leading eigenvalue of σ_w² T diag⟨φ′²⟩, the χ_1 of this network."""

    leading: float
    q: Floats
    chi: float

    @property
    def edge_to_middle(self) -> float:
        """The smallest length over the largest."""
        return float(self.q.min() / self.q.max())


def truncated_average(size: int | Sequence[int], energies: Floats) -> Floats:
    """T, (position, position)."""
    grid = checked_size(size)
    out = np.zeros((*grid, *grid))
    for tap in product(*map(range, energies.shape)):
        shift = [int(offsets(k)[t]) for k, t in zip(energies.shape, tap, strict=True)]
        for at in product(*map(range, grid)):
            there = tuple(a + s for a, s in zip(at, shift, strict=True))
            if all(0 <= t < n for t, n in zip(there, grid, strict=True)):
                out[at + there] += energies[tap]
    return out.reshape(math.prod(grid), -1)


def leading_eigenvalue(average: Floats, weights: Floats | float = 1.0) -> float:
    """The largest eigenvalue of T diag(weights), real and not negative since no entry is (Perron)."""
    root = np.sqrt(np.broadcast_to(weights, len(average)))
    alike = root[:, None] * average * root  # similar to it, and symmetric where T is
    if np.array_equal(average, average.T):
        return float(np.linalg.eigvalsh(alike)[-1])
    return float(np.abs(np.linalg.eigvals(alike)).max())


def _bordered(size: int | Sequence[int]) -> tuple[int, ...]:
    """A grid whose average over taps may be held as a matrix. Raises InputError for a larger one."""
    grid = checked_size(size)
    if math.prod(grid) > LARGEST:
        allowed = f"must have at most {LARGEST:,} positions; on a larger grid the border matters less"
        raise InputError("size", grid, allowed)
    return grid


def border_effect(
    activation: str | Activation,
    sigma_w2: float,
    sigma_b2: float,
    size: int | Sequence[int],
    kernel: int | Sequence[int] = 3,
    *,
    taps: Taps = "uniform",
    keep: float = 1.0,
    q0: float = 1.0,
) -> Border:
    """A zero-padded convolutional network with many channels; arguments as in `spatial_modes`.

    Raises InputError for unusable parameters."""
    grid = _bordered(size)
    average = truncated_average(grid, tap_energies(len(grid), kernel, taps))
    q_map = checked(activation, sigma_w2, sigma_b2, keep)
    q = _profile(q_map, average, q0)
    return Border(leading_eigenvalue(average), q.reshape(grid), _chi(q_map, average, q))


def border_critical_sigma_w2(
    activation: str | Activation,
    sigma_b2: float,
    size: int | Sequence[int],
    kernel: int | Sequence[int] = 3,
    *,
    taps: Taps = "uniform",
) -> float:
    """The σ_w² at which χ = 1 with zeros beyond the border, at this σ_b²: above that of a circle.

    Raises InputError for unusable parameters, NoCriticalPoint (an InputError) where the circle has none, or where none
    is found up to 1/λ_1² of the circle's."""
    grid = _bordered(size)
    average = truncated_average(grid, tap_energies(len(grid), kernel, taps))
    circle, leading = critical_sigma_w2(activation, sigma_b2), leading_eigenvalue(average)
    if look_up(activation).slopes is not None or critical_points(activation, sigma_b2)[0][0] == 0.0:
        return circle / leading  # lengths are small, or their size does not matter: a linear problem

    def excess(sigma_w2: float) -> float:
        q_map = checked(activation, sigma_w2, sigma_b2, 1.0)
        found = _chi(q_map, average, _profile(q_map, average, 1.0)) - 1.0
        if math.isnan(found):
            raise NoCriticalPoint("sigma_b2", sigma_b2, f"no profile q* was found at sigma_w2 = {sigma_w2:.8g}")
        return found

    low, high = 0.999 * circle, 1.001 * circle / leading**2
    if not (excess(low) <= 0.0 <= excess(high)):
        words = f"no sigma_w2 between {low:g} and {high:g} makes this network with zeros beyond its border critical"
        raise NoCriticalPoint("sigma_b2", sigma_b2, words)
    return refine(excess, low, high, rtol=1e-12)


def _chi(q_map: VarianceMap, average: Floats, q: Floats) -> float:
    gain = q_map.homogeneous_gain
    if gain is not None:  # φ′² has one mean at every q
        return gain * leading_eigenvalue(average)
    if q_map.activation.jumps or not np.isfinite(q).all():
        return math.nan
    return leading_eigenvalue(average, q_map.gradient_factor(q))


def _profile(q_map: VarianceMap, average: Floats, q0: float) -> Floats:
    """q*(α) from σ_w²/ρ T⟨φ²⟩_q + σ_b² = q, by steps of the map and then Newton's; nan where that ends nowhere."""
    nowhere, one = np.full(len(average), math.nan), np.ones(len(average))
    if fixed_points(q_map).continuum:
        return nowhere
    circle = settle(q_map, q0)
    if circle is None or not 0.0 < circle.value < math.inf:
        return nowhere
    q: Floats = circle.value * one
    inside = q_map.sigma_b2 * (one - average @ one)  # T(Q − σ_b²) + σ_b² = TQ + `inside`
    for step in range(_PLAIN + _NEWTON):
        change = average @ q_map(q) + inside - q
        if step >= _PLAIN:
            change = np.asarray(np.linalg.solve(np.eye(len(q)) - average * q_map.slope(q), change), np.float64)
        q = q + change
        if not (np.isfinite(q).all() and (q > 1e-12 * circle.value).all()):
            return nowhere
        if np.abs(change).max() <= _SETTLED * q.max():
            return np.asarray(q)
    return nowhere
