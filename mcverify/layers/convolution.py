"""The convolution: one random affine map around every position, of stride one; of independent entries or orthogonal."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcverify.errors import InputError, nearest
from mcverify.expectations.matrix import SMALL
from mcverify.kernels.patches import Window, neighbours
from mcverify.kernels.primitives import Kernels
from mcverify.layers.grid import axes, checked_size
from mcverify.layers.layer import BoolArray, Grad, Law, Layer, Signal, State
from mcverify.random_map.engine import Engine, Map
from mcverify.random_map.orthogonal_kernel import compose, compose_transpose, energies, factors
from mcverify.streams import Site
from mcverify.validate import count, variance
from mcverify.weights import LAWS, weight_law

FloatArray = NDArray[np.float64]
PADDINGS = ("circular", "zeros")
NORMALISATIONS = ("mean_field", "isometry")
DELTA = "delta_orthogonal"


@dataclass(frozen=True)
class Convolution(Layer):
    """h(p) = Σ_β W_β x(p + β) + b at every position p of a grid, β over a kernel's taps, stride one.

    size: the grid, one number per axis; kernel: taps per axis, an even kernel one more to the right.
    b has variance sigma_b2, one for each channel at all positions. padding: "circular" or "zeros".
    weights: the law of W_β (channels_out, channels_in).
    - A law of independent entries: of variance sigma_w2 / (taps · channels_in) (Xiao et al. 2018, eq. 1).
    - "delta_orthogonal": zero but for the centre tap, σ_w times a Haar orthogonal matrix.
    - "orthogonal": σ_w times the general orthogonal kernel (random_map/orthogonal_kernel.py), on a circle alone.
    normalisation, of orthogonal kernels with channels_out > channels_in: "mean_field" has entries of the variance that
    independent ones have, summed over taps sigma_w2 / channels_in, so that lengths and gradients follow the mean-field
    maps with sigma_w2; "isometry" divides that by channels_out / channels_in, so that ‖h‖ = σ_w ‖x‖, and gradients
    shrink by as much. At equal channels both are an isometry.
    Raises InputError naming the field; also for a circular kernel wider than its grid, which would see a position
    twice.
    """

    size: tuple[int, ...]
    channels_in: int
    channels_out: int
    kernel: tuple[int, ...]
    sigma_w2: float = 1.0
    sigma_b2: float = 0.0
    weights: str = "gaussian"
    padding: str = "circular"
    normalisation: str = "mean_field"

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", checked_size(self.size))
        object.__setattr__(self, "kernel", axes("kernel", self.kernel))
        if len(self.kernel) == 1:
            object.__setattr__(self, "kernel", self.kernel * len(self.size))
        if len(self.kernel) != len(self.size):
            raise InputError("kernel", self.kernel, f"must have as many axes as the grid {self.size}")
        _one_of("padding", self.padding, PADDINGS)
        if self.padding == "circular" and any(k > n for k, n in zip(self.kernel, self.size, strict=True)):
            raise InputError("kernel", self.kernel, f"must not be wider than the circle it lies on, {self.size}")
        self._check(count, "channels_in", "channels_out")
        self._check(variance, "sigma_w2", "sigma_b2")
        _one_of("weights", self.weights, (*LAWS, DELTA))
        _one_of("normalisation", self.normalisation, NORMALISATIONS)
        self._check_orthogonal()

    def _check_orthogonal(self) -> None:
        if self._is_general and max(self.kernel) > 1 and self.padding != "circular":
            allowed = f'must be "circular" for an orthogonal kernel; beside zeros only {DELTA} is an isometry'
            raise InputError("padding", self.padding, allowed)
        if self.normalisation == "isometry":
            if self.independent:
                allowed = f'must be "mean_field" for {self.weights} weights, which are no isometry'
                raise InputError("normalisation", self.normalisation, allowed)
            if self.channels_out < self.channels_in:
                allowed = f"must be at least channels_in = {self.channels_in}: fewer channels cannot keep every length"
                raise InputError("channels_out", self.channels_out, allowed)

    @cached_property
    def independent(self) -> bool:
        """Whether the entries of the kernel are."""
        return self.weights != DELTA and weight_law(self.weights).independent

    @property
    def keeps_apart(self) -> bool:
        """Whether no position meets another: the map is a dense one at each of them."""
        return self.weights == DELTA or math.prod(self.kernel) == 1

    @property
    def _is_general(self) -> bool:
        return self.weights != DELTA and not self.independent

    @property
    def in_shape(self) -> tuple[int, ...]:
        return (*self.size, self.channels_in)

    @property
    def sites(self) -> int:
        """One for the map, and one for each two-tap factor of a general orthogonal kernel."""
        return 1 + self.random_map.frames

    @cached_property  # asked for several times by every chunk of a simulation
    def random_map(self) -> Map:
        """Of independent entries, the map on patches: its fan-in is taps · channels_in. Of orthogonal kernels, the
        Haar matrix on channels."""
        if self.independent:
            fan_in = math.prod(self.kernel) * self.channels_in
            return Map(fan_in, self.channels_out, self.sigma_w2, self.sigma_b2, self.weights, window=self._window)
        isometry = self.normalisation == "isometry"
        sigma_w2 = self.sigma_w2 * self.channels_in / self.channels_out if isometry else self.sigma_w2
        frames = len(factors(self.kernel)) if self._is_general else 0
        return Map(self.channels_in, self.channels_out, sigma_w2, self.sigma_b2, "orthogonal", frames)

    @property
    def energies(self) -> FloatArray:
        """E tr(W_βᵀ W_β) in proportion, (tap,), in the order of `neighbours`: how A weighs the taps. They hold at every
        number of channels. Source: Xiao et al. 2018, eq. 3, for independent entries."""
        if self.independent:
            return np.ones(math.prod(self.kernel))
        if self._is_general:
            return energies(self.kernel)
        out = np.zeros(self.kernel)
        out[tuple((k - 1) // 2 for k in self.kernel)] = 1.0
        return out.ravel()

    @property
    def _window(self) -> Window:
        return Window(self.size, self.kernel, self.padding)

    def widened(self, factor: int, *, first: bool) -> Convolution:
        channels_in = self.channels_in * (1 if first else factor)
        return replace(self, channels_in=channels_in, channels_out=self.channels_out * factor)

    def shape(self, in_shape: tuple[int, ...]) -> tuple[int, ...]:
        if in_shape != self.in_shape:
            raise InputError(
                "size, channels_in", self.in_shape, f"must match the {in_shape} that the layer before gives"
            )
        return (*self.size, self.channels_out)

    def propagate(self, state: State) -> State:
        """σ_w² A ⋆ S + σ_b², where A ⋆ averages S over the taps by their energies, both positions moving together (Xiao
        et al. 2018, eq. 3, with σ_b² outside A): an affine map, exact wherever S is under every tap.

        Beyond a border of zeros there is nothing to add: A ⋆ still divides by all taps."""
        cov, exact = self._above(state.cov), self._exact_above(state.exact)
        law: Law = "gaussian" if self.weights == "gaussian" else "symmetric"
        from_input = state.law == "input"
        return replace(
            state, cov=cov, exact=exact, law=law, fixed=from_input,
            may_vanish=state.may_vanish and self.sigma_b2 == 0,
            heuristic=state.heuristic or (from_input and law == "symmetric"),
        )  # fmt: skip

    def pull_back(self, state: State, grad: Grad) -> Grad:
        """The adjoint: σ_w² times the mean over taps of δ's covariance at p − β, for δ independent of W.

        Where φ′ made δ depend on W, one unit's δ at two positions meets two taps, whose weights are then no longer
        uncorrelated: exact only where such δ have no covariance, and nowhere for orthogonal kernels, all of whose
        entries depend on one another."""
        folded = self._folded_local if grad.local else self._folded
        missing = folded((~grad.exact).astype(np.float64)) > 0
        if not grad.independent and not self.independent:
            missing[:] = True
        elif not grad.independent and grad.exact.any():
            missing |= self._pairs_of_taps((grad.cov != 0) | ~grad.exact)
        return replace(grad, cov=self.random_map.sigma_w2 * folded(grad.cov), exact=~missing, exchangeable=True)

    def _pairs_of_taps(self, among: BoolArray) -> BoolArray:
        """Whether any pair of different columns (p − β, p′ − β′) is among those given, (column, column).

        Local ones have none at different positions, so that only taps β = β′ meet them."""
        seen = neighbours(*self._window)
        found = among & ~np.eye(among.shape[-1], dtype=bool)
        if among.ndim == 3:
            return self._folded_local(found.astype(np.float64)) > 0
        for axis in (0, 1):
            grid = np.moveaxis(found, axis, -1).reshape(len(found), -1, len(seen))
            out = np.zeros_like(grid)
            for there in seen.T:
                own = np.flatnonzero(there >= 0)
                out[:, :, there[own]] |= grid[:, :, own]
            found = np.moveaxis(out.reshape(len(found), -1), -1, axis)
        return found

    def met(self, kernels: Kernels, x: Signal) -> Signal:
        """Patches, for an orthogonal kernel each tap's part times the root of its energy, since its fan-in is that of
        one tap."""
        if self.independent:
            return kernels.patches(x, self._window)
        if not self._is_general:
            return x
        roots = np.repeat(np.sqrt(self.energies), self.channels_in)
        return kernels.multiply(kernels.patches(x, self._window), kernels.given(roots.astype(x.dtype)[None, None]))

    def mean_met(self, values: FloatArray, axes: int = 1) -> FloatArray:
        """The mean over taps of values at p + β, or at (p + β, p′ + β); zero beyond the border."""
        grid, total = self._by_position(values, axes), np.zeros(())
        for there, energy in self._taps():
            inside = energy * (there >= 0)
            part = grid[..., there] * inside
            if axes == 2:
                part = part[..., there, :, :] * (inside > 0)[:, None, None]
            total = total + part
        return np.asarray(total / self.energies.sum()).reshape(values.shape)

    def _folded(self, cov: FloatArray) -> FloatArray:
        """The mean over taps of cov at (p − β, p′ − β): the adjoint of `mean_met`, compiled where there are many."""
        if len(cov) > SMALL:
            return cov if self.keeps_apart else self._folded_compiled(cov)
        grid = self._by_position(cov, 2)
        total = np.zeros_like(grid)
        for there, energy in self._taps():
            own = np.flatnonzero(there >= 0)
            to = there[own]
            total[:, to[:, None], :, to] += energy * grid[:, own[:, None], :, own]
        return (total / self.energies.sum()).reshape(cov.shape)

    def _folded_compiled(self, cov: FloatArray) -> FloatArray:
        """`_folded` as the sum over a turned kernel's taps; even ones get a tap of no weight."""
        from mcverify.layers import taps_cpu

        turned = np.flip(self.energies.reshape(self.kernel))
        weights = np.pad(turned, [(0, 1 - k % 2) for k in self.kernel]) / self.energies.sum()
        window = Window(self.size, weights.shape, self.padding)
        return taps_cpu.weighted_sum(cov, window, weights.ravel(), 0.0)

    def _taps(self) -> list[tuple[NDArray[np.intp], float]]:
        """Where each tap looks, (position,), −1 for nothing, and its energy: those that have any."""
        seen = neighbours(*self._window)
        return [(there, float(e)) for there, e in zip(seen.T, self.energies, strict=True) if e > 0]

    def _folded_local(self, cov: FloatArray) -> FloatArray:
        """`_folded` of what is at equal positions alone, (position, input, input)."""
        total = np.zeros_like(cov)
        for there, energy in self._taps():
            own = np.flatnonzero(there >= 0)
            total[there[own]] += energy * cov[own]
        return np.asarray(total / self.energies.sum())

    def _above(self, cov: FloatArray) -> FloatArray:
        """σ_w² A ⋆ cov + σ_b²: the same sums compiled, where there are many."""
        m = self.random_map
        if len(cov) <= SMALL:
            return m.sigma_w2 * self.mean_met(cov, 2) + m.sigma_b2
        if self.keeps_apart:
            return m.sigma_w2 * cov + m.sigma_b2
        from mcverify.layers import taps_cpu

        weights = m.sigma_w2 * self.energies / self.energies.sum()
        return taps_cpu.weighted_sum(cov, self._window, weights, m.sigma_b2)

    def _exact_above(self, exact: BoolArray) -> BoolArray:
        """Whether all entries under the taps are exact; the entry itself is always among them."""
        if exact.all():
            return exact
        diagonal = np.diagonal(exact)
        if np.count_nonzero(exact) == np.count_nonzero(diagonal):
            return np.diag(self.mean_met((~diagonal).astype(np.float64)) == 0)
        return self.mean_met((~exact).astype(np.float64), 2) == 0

    def _by_position(self, values: FloatArray, axes: int) -> FloatArray:
        """(…, input, position) or (…, input, position, input, position)."""
        positions = math.prod(self.size)
        inputs = values.shape[-1] // positions
        return values.reshape(*values.shape[:-axes], *(inputs, positions) * axes)

    def forward(self, engine: Engine, x: Signal, site: Site) -> tuple[Signal, Any]:
        y, saved = engine.apply(engine.kernels, self.random_map, self._spread(engine, site, x), site)
        return y, (saved, site)

    def tangent(self, engine: Engine, saved: Any, dx: Signal) -> Signal:
        drawn, site = saved
        flat = self._spread(engine, site, _columns(dx))
        out: Signal = engine.apply_tangent(engine.kernels, drawn, flat)
        return out.reshape(*dx.shape[:-1], out.shape[-1])

    def backward(self, engine: Engine, saved: Any, dy: Signal) -> Signal:
        drawn, site = saved
        out: Signal = self._gather(engine, site, engine.apply_transpose(engine.kernels, drawn, _columns(dy)))
        return out.reshape(*dy.shape[:-1], out.shape[-1])

    def _spread(self, engine: Engine, site: Site, x: Signal) -> Signal:
        """The columns that the random map takes, (replicate, column, units)."""
        return compose(engine.kernels, self.size, self.kernel, site, x) if self._is_general else x

    def _gather(self, engine: Engine, site: Site, d: Signal) -> Signal:
        """The adjoint of `_spread`."""
        if not self._is_general:
            return d
        return compose_transpose(engine.kernels, self.size, self.kernel, site, d, tied=engine.tied)


def _columns(v: Signal) -> Signal:
    """(replicate, direction, column, units) as columns: all directions see one W."""
    return v.reshape(v.shape[0], -1, v.shape[-1])


def _one_of(field: str, value: str, names: tuple[str, ...]) -> None:
    if value not in names:
        raise InputError(field, value, f"allowed: {', '.join(names)}{nearest(str(value), list(names))}")
