"""Spatial modes of a circular convolutional network: how the covariance between positions settles.

    Σ'_{αα'} = σ_w² Σ_β v_β E[φ(u_{α+β}) φ(u_{α'+β})] + σ_b²,   u ~ N(0, Σ)          (Xiao et al. 2018, eq. 5)

v_β ≥ 0 is the share of the weights' variance that tap β has, Σ v_β = 1. On a circle (a torus) the fixed point Σ* is q*
on the diagonal and c* q* off it, whatever the kernel and the size. Around it every displacement d moves by
itself but for what the diagonal feeds it, and the average over taps is diagonal in Fourier modes e^{2πi f·α/n} of
the base position α. With δ(α, α + d) = Σ_f δ_f(d) e^{2πi f·α/n},

    λ_f = Σ_β v_β e^{2πi f·β/n}
    δ_f(0)' = λ_f (dQ/dq) δ_f(0)
    δ_f(d)' = λ_f [χ_c* δ_f(d) + κ (1 + e^{2πi f·d/n}) δ_f(0)],   κ = ½ σ_w² E[φ″(u_a) φ(u_b)],   d ≠ 0.

κ is σ_w² times the derivative of E[φ(u_a) φ(u_b)] in q_aa at fixed q_ab. At fixed correlation both variances and q_ab
move, so that σ_w² dE/dq|_c = 2κ + c χ_c, which needs no φ″; at c* = 1 it reads dQ/dq = 2κ + χ_1. All here are limits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mcverify.activations import Activation
from mcverify.activations import activation as look_up
from mcverify.errors import InputError, nearest
from mcverify.expectations import gaussian
from mcverify.layers.grid import checked_size
from mcverify.theory.phase import phase
from mcverify.theory.phase_record import Phase, depth_scale
from mcverify.validate import count

Floats = NDArray[np.float64]
Taps = str | ArrayLike

TAPS = ("uniform", "binomial", "centre")
_STEP = 0.05  # in log q: E[φφ] is analytic in log q in a strip of half-width π/2, which leaves (0.05 · 2/π)^8 ≈ 1e-12
_DIFFERENCE = np.array([4 / 5, -1 / 5, 4 / 105, -1 / 280])  # the central first derivative of eighth order
_ZERO = 64 * float(np.finfo(np.float64).eps)


def offsets(taps: int) -> NDArray[np.intp]:
    """Where an axis' taps sit: −⌊(K − 1)/2⌋ … ⌊K/2⌋, an even kernel one further to the right."""
    return np.arange(taps) - (taps - 1) // 2


def tap_energies(axes: int, kernel: int | Sequence[int] = 3, taps: Taps = "uniform") -> Floats:
    """v_β, one axis for each of the grid's, summing to 1.

    kernel: taps of all axes, or of each. taps: "uniform", weights of one variance; "binomial", v_β ∝ C(K − 1, β)
    along each axis; "centre", all on the tap that looks straight down; or an array of v_β, which gives the
    kernel itself. Raises InputError for what is none of these."""
    if not isinstance(taps, str):
        try:
            given = np.asarray(taps, dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            raise InputError("taps", taps, f"allowed: {', '.join(TAPS)}, or an array of numbers") from None
        fits = given.ndim == axes and given.size and np.isfinite(given).all() and (given >= 0).all() and given.any()
        if not fits:
            allowed = f"must be an array of {axes} axes of numbers, none negative and not all 0"
            raise InputError("taps", f"array of shape {given.shape}", allowed)
        return np.asarray(given / given.sum())
    if taps not in TAPS:
        raise InputError("taps", taps, f"allowed: {', '.join(TAPS)}, or an array{nearest(taps, list(TAPS))}")
    sizes = tuple(kernel) if isinstance(kernel, Sequence) else (kernel,) * axes
    for axis in sizes:
        count("kernel", axis)
    if len(sizes) != axes:
        raise InputError("kernel", sizes, f"must have as many axes as the grid, {axes}")
    out = np.ones(())
    for k in sizes:
        out = np.multiply.outer(out, _along_an_axis(taps, k))
    return np.asarray(out)


def _along_an_axis(taps: str, k: int) -> Floats:
    if taps == "uniform":
        return np.full(k, 1.0 / k)
    if taps == "binomial":
        return np.array([math.comb(k - 1, i) for i in range(k)]) / 2.0 ** (k - 1)
    return (offsets(k) == 0).astype(np.float64)


def mode_eigenvalues(size: int | Sequence[int], energies: Floats) -> NDArray[np.complex128]:
    """λ_f for every frequency f, in the shape of the grid; those below rounding are 0."""
    grid = checked_size(size)
    placed = np.zeros(grid)
    places = np.meshgrid(*(offsets(k) % n for k, n in zip(energies.shape, grid, strict=True)), indexing="ij")
    np.add.at(placed, tuple(places), energies)
    found = np.conj(np.fft.fftn(placed))
    for part in (found.real, found.imag):
        part[np.abs(part) < _ZERO] = 0.0
    return np.asarray(found)


@dataclass(frozen=True)
class SpatialModes:
    """A circular convolutional network near its fixed point.

    phase: q*, c*, χ_c*, dQ/dq, which are those of the fully connected network. size: the grid. energies: v_β.
    eigenvalues: λ_f, in the shape of the grid, f = 0 first, as numpy.fft orders them; real for symmetric taps.
    kappa: what the diagonal feeds off it; nan where there is no q* in (0, ∞)."""

    phase: Phase
    size: tuple[int, ...]
    energies: Floats
    eigenvalues: NDArray[np.complex128]
    kappa: float

    @property
    def xi_q(self) -> Floats:
        """The depth scale −1/log|λ_f dQ/dq| of each mode of the lengths, in the shape of the grid."""
        return _scales(self.phase.slope_q * np.abs(self.eigenvalues))

    @property
    def xi_c(self) -> Floats:
        """The depth scale −1/log|λ_f χ_c*| of each mode of the correlations at one displacement. Along half an even
        circle, d = n/2, only modes of even f exist."""
        return _scales(self.phase.chi_c * np.abs(self.eigenvalues))

    @property
    def fixed_point(self) -> Floats:
        """Σ*, (position, position)."""
        positions = math.prod(self.size)
        return self.phase.q * (self.phase.c + (1 - self.phase.c) * np.eye(positions))

    @property
    def slowest(self) -> tuple[int, ...]:
        """The frequency, of those beside f = 0, that decays slowest; (0, …) on a single position."""
        return self._pick(np.argmax)

    @property
    def fastest(self) -> tuple[int, ...]:
        """The frequency that decays fastest."""
        return self._pick(np.argmin)

    def _pick(self, choose: Callable[[Floats], np.intp]) -> tuple[int, ...]:
        # Rounded, so that of equal ones the lowest frequency is taken.
        sizes = np.asarray(np.abs(self.eigenvalues).ravel()[1:].round(12), np.float64)
        at = int(choose(sizes)) + 1 if sizes.size else 0
        return tuple(int(i) for i in np.unravel_index(at, self.size))

    def linearised(self, delta: ArrayLike, layers: int = 1) -> Floats:
        """A small change (position, position) of Σ* after so many layers, to first order; delta symmetric."""
        positions, axes = math.prod(self.size), tuple(range(len(self.size)))
        base, partner = _displaced(self.size)
        by_displacement = np.asarray(delta, dtype=np.float64)[base, partner]  # (position, displacement)
        modes = np.fft.fftn(by_displacement.reshape(*self.size, positions), axes=axes).reshape(positions, positions)
        factor = self.eigenvalues.reshape(positions, 1)
        own = np.where(np.arange(positions) == 0, self.phase.slope_q, self.phase.chi_c)
        feed = self.kappa * (1 + _shifts(self.size))
        feed[:, 0] = 0.0
        for _ in range(layers):
            modes = factor * (own * modes + feed * modes[:, :1])
        back = np.fft.ifftn(modes.reshape(*self.size, positions), axes=axes).reshape(positions, positions)
        out = np.empty((positions, positions))
        out[base, partner] = back.real
        return out


def _scales(rates: Floats) -> Floats:
    return np.array([depth_scale(float(r)) for r in rates.ravel()]).reshape(rates.shape)


def _displaced(size: tuple[int, ...]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(α, α + d) for every base position and displacement, (position, displacement) each."""
    points = np.array(list(product(*map(range, size))))
    partner = np.ravel_multi_index(tuple(((points[:, None] + points) % size).transpose(2, 0, 1)), size)
    return np.broadcast_to(np.arange(len(points))[:, None], partner.shape), np.asarray(partner)


def _shifts(size: tuple[int, ...]) -> NDArray[np.complex128]:
    """e^{2πi f·d/n}, (frequency, displacement)."""
    points = np.array(list(product(*map(range, size))))
    return np.asarray(np.exp(2j * math.pi * (points[:, None] * points / np.array(size)).sum(axis=-1)))


def spatial_modes(
    activation: str | Activation,
    sigma_w2: float,
    sigma_b2: float,
    size: int | Sequence[int],
    kernel: int | Sequence[int] = 3,
    *,
    taps: Taps = "uniform",
    keep: float = 1.0,
    q0: float = 1.0,
) -> SpatialModes:
    """The spatial modes of a circular convolutional network with many channels (a limit; Xiao et al. 2018, §2).

    activation, sigma_w2, sigma_b2, keep, q0: as in `phase`. size: the grid, a number or one for each of two axes.
    kernel, taps: how the weights' variance is shared by the taps, see `tap_energies`: "uniform" for independent
    weights, "centre" and "binomial" for orthogonal kernels. Raises InputError for unusable parameters."""
    grid = checked_size(size)
    energies = tap_energies(len(grid), kernel, taps)
    if any(k > n for k, n in zip(energies.shape, grid, strict=True)):
        raise InputError("kernel", energies.shape, f"must not be wider than the circle it lies on, {grid}")
    found = phase(activation, sigma_w2, sigma_b2, keep, q0=q0)
    kappa = _kappa(look_up(activation), found)
    return SpatialModes(found, grid, energies, mode_eigenvalues(grid, energies), kappa)


def _kappa(act: Activation, at: Phase) -> float:
    """κ = ½ (σ_w² dE[φ_a φ_b]/dq at fixed correlation − c* χ_c*)."""
    if not (0.0 < at.q < math.inf and math.isfinite(at.chi_c)):
        return math.nan
    logs = _STEP * np.arange(1, 5)
    q = at.q * np.exp(np.concatenate([logs, -logs]))
    pairs = gaussian.covariance(act, q, at.c * q, q, rtol=1e-14).value
    slope = float((pairs[:4] - pairs[4:]) @ _DIFFERENCE) / (_STEP * at.q)
    return 0.5 * (at.sigma_w2 * slope - at.c * at.chi_c)
