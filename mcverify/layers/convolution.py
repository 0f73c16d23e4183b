"""The convolution: one random affine map on the patch around every position, of stride one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcverify.errors import InputError, nearest
from mcverify.expectations.matrix import SMALL
from mcverify.kernels.patches import fold, neighbours, patches
from mcverify.layers.layer import BoolArray, Grad, Law, Layer, Signal, State
from mcverify.random_map.engine import Engine, Map
from mcverify.streams import Site
from mcverify.validate import count, variance
from mcverify.weights import weight_law

FloatArray = NDArray[np.float64]
PADDINGS = ("circular", "zeros")


@dataclass(frozen=True)
class Convolution(Layer):
    """h(p) = Σ_β W_β x(p + β) + b at every position p of a grid, β over a kernel's taps, stride one.

    size: the grid, one number per axis; kernel: taps per axis, an even kernel one more to the right.
    W_β (channels_out, channels_in) has entries of variance sigma_w2 / (taps · channels_in), b has sigma_b2, one
    for each channel at all positions (Xiao et al. 2018, eq. 1). padding: "circular" or "zeros".
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

    def __post_init__(self) -> None:
        for field in ("size", "kernel"):
            given = getattr(self, field)
            axes = tuple(given) if isinstance(given, list | tuple) else (given,)
            for axis in axes:
                count(field, axis)
            object.__setattr__(self, field, axes)
        if not 1 <= len(self.size) <= 2:
            raise InputError("size", self.size, "must have one or two axes")
        if len(self.kernel) == 1:
            object.__setattr__(self, "kernel", self.kernel * len(self.size))
        if len(self.kernel) != len(self.size):
            raise InputError("kernel", self.kernel, f"must have as many axes as the grid {self.size}")
        if self.padding not in PADDINGS:
            hint = nearest(str(self.padding), list(PADDINGS))
            raise InputError("padding", self.padding, f"allowed: {', '.join(PADDINGS)}{hint}")
        if self.padding == "circular" and any(k > n for k, n in zip(self.kernel, self.size, strict=True)):
            raise InputError("kernel", self.kernel, f"must not be wider than the circle it lies on, {self.size}")
        count("channels_in", self.channels_in)
        count("channels_out", self.channels_out)
        variance("sigma_w2", self.sigma_w2)
        variance("sigma_b2", self.sigma_b2)
        if not weight_law(self.weights).independent:
            allowed = "must be a law of independent entries; orthogonal kernels are not there yet"
            raise InputError("weights", self.weights, allowed)

    @property
    def in_shape(self) -> tuple[int, ...]:
        return (*self.size, self.channels_in)

    @property
    def random_map(self) -> Map:
        """The map on patches: its fan-in is taps · channels_in."""
        fan_in = math.prod(self.kernel) * self.channels_in
        return Map(fan_in, self.channels_out, self.sigma_w2, self.sigma_b2, self.weights)

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
        """σ_w² A ⋆ S + σ_b², where A ⋆ averages S over the taps, both positions moving together (Xiao et al. 2018,
        eq. 3, with σ_b² outside A): an affine map, exact wherever S is under every tap.

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
        uncorrelated: exact only where such δ have no covariance."""
        folded = self._folded_local if grad.local else self._folded
        missing = folded((~grad.exact).astype(np.float64)) > 0
        if not grad.independent and grad.exact.any():
            missing |= self._pairs_of_taps((grad.cov != 0) | ~grad.exact)
        return replace(grad, cov=self.sigma_w2 * folded(grad.cov), exact=~missing, exchangeable=True)

    def _pairs_of_taps(self, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Whether any pair of different columns (p − β, p′ − β′) is among those given, (column, column).

        Local ones have none at different positions, so that only taps β = β′ meet them."""
        seen = neighbours(self.size, self.kernel, self.padding)
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

    def met(self, x: Signal) -> Signal:
        return patches(x, self.size, self.kernel, self.padding)

    def mean_met(self, values: FloatArray, axes: int = 1) -> FloatArray:
        """The mean over taps of values at p + β, or at (p + β, p′ + β); zero beyond the border."""
        seen = neighbours(self.size, self.kernel, self.padding)
        grid, total = self._by_position(values, axes), np.zeros(())
        for there in seen.T:
            inside = (there >= 0).astype(np.float64)
            part = grid[..., there] * inside
            if axes == 2:
                part = part[..., there, :, :] * inside[:, None, None]
            total = total + part
        return np.asarray(total / seen.shape[1]).reshape(values.shape)

    def _folded(self, cov: FloatArray) -> FloatArray:
        """The mean over taps of cov at (p − β, p′ − β): the adjoint of `mean_met`."""
        seen = neighbours(self.size, self.kernel, self.padding)
        grid = self._by_position(cov, 2)
        total = np.zeros_like(grid)
        for there in seen.T:
            own = np.flatnonzero(there >= 0)
            to = there[own]
            total[:, to[:, None], :, to] += grid[:, own[:, None], :, own]
        return (total / seen.shape[1]).reshape(cov.shape)

    def _folded_local(self, cov: FloatArray) -> FloatArray:
        """`_folded` of what is at equal positions alone, (position, input, input)."""
        seen = neighbours(self.size, self.kernel, self.padding)
        total = np.zeros_like(cov)
        for there in seen.T:
            own = np.flatnonzero(there >= 0)
            total[there[own]] += cov[own]
        return total / seen.shape[1]

    def _above(self, cov: FloatArray) -> FloatArray:
        """σ_w² A ⋆ cov + σ_b²: the same sums compiled, where there are many."""
        if len(cov) <= SMALL:
            return self.sigma_w2 * self.mean_met(cov, 2) + self.sigma_b2
        from mcverify.layers import taps_cpu

        return taps_cpu.mean(cov, self.size, self.kernel, self.padding, self.sigma_w2, self.sigma_b2)

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
        return engine.apply(engine.kernels, self.random_map, self.met(x), site)

    def tangent(self, engine: Engine, saved: Any, dx: Signal) -> Signal:
        seen = self.met(dx)
        flat = seen.reshape(seen.shape[0], -1, seen.shape[-1])
        out: Signal = engine.apply_tangent(engine.kernels, saved, flat)
        return out.reshape(*dx.shape[:-1], out.shape[-1])

    def backward(self, engine: Engine, saved: Any, dy: Signal) -> Signal:
        flat = dy.reshape(dy.shape[0], -1, dy.shape[-1])
        out: Signal = engine.apply_transpose(engine.kernels, saved, flat)
        return fold(out.reshape(*dy.shape[:-1], out.shape[-1]), self.size, self.kernel, self.padding)
