"""Orthogonal convolution kernels, composed on the signal and never formed.

Xiao, Bahri, Sohl-Dickstein, Schoenholz & Pennington 2018 (arXiv:1806.05393), after Kautsky & Turcajová: an orthogonal
kernel is the composition of two-tap factors y(p) = P x(p) + (1 − P) x(p + e), each with a symmetric projection P of
its own, and of one orthogonal matrix on the channels. An axis of k taps has k − 1 factors; in 2-D a factor along
either axis in turn makes the four taps {PQ, P(1 − Q), (1 − P)Q, (1 − P)(1 − Q)} of the paper. Each factor is an
isometry on a circle, since P and 1 − P are orthogonal to one another.

P = U D Uᵀ, U Haar and D a diagonal of fair coins, so that its rank is Bin(c, ½). Factor j of a layer has the site
j + 1 above the layer's own: U is its weight, D the row 0 of its mask (uniform < ½), and row 1 of fresh ones for an
untied backward pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcverify.kernels.patches import Grid
from mcverify.kernels.primitives import Kernels
from mcverify.streams import Role, Site

Array = NDArray[Any]


@dataclass(frozen=True)
class Factor:
    """P at a position itself, 1 − P one step (+1 or −1) along an axis."""

    axis: int
    step: int


@lru_cache(maxsize=64)
def factors(kernel: Grid) -> tuple[Factor, ...]:
    """Σ (k − 1) factors in the order in which a signal meets them, the axes in turn, steps to the right and to the left
    in turn: the taps then lie at −⌊(k − 1)/2⌋ … ⌊k/2⌋, as in kernels/patches.py."""
    pairs = [(j, axis) for j in range(max(kernel) - 1) for axis, k in enumerate(kernel) if j < k - 1]
    return tuple(Factor(axis, -1 if j % 2 else 1) for j, axis in pairs)


def energies(kernel: Grid) -> NDArray[np.float64]:
    """E tr(K_βᵀ K_β)/c of the composition, (tap,): each factor goes either way with probability ½, whatever came
    before, so that the tap is binomial along each axis, exactly at every c."""
    out = np.ones(1)
    for k in kernel:
        out = np.kron(out, [math.comb(k - 1, j) / 2 ** (k - 1) for j in range(k)])
    return out


def compose(kernels: Kernels, size: Grid, kernel: Grid, site: Site, x: Array) -> Array:
    """All factors of `kernel` on a circular grid, (replicate or 1, column, c) → (replicate, column, c)."""
    for j, factor in enumerate(factors(kernel)):
        x = _mixed(kernels, site.above(j + 1), x, kernels.shifted(x, size, factor.axis, factor.step), Role.WEIGHT)
    return x


def compose_transpose(
    kernels: Kernels, size: Grid, kernel: Grid, site: Site, d: Array, *, tied: bool = True
) -> Array:  # fmt: skip
    """The adjoint of `compose`; of a composition of its own where not tied."""
    role = Role.WEIGHT if tied else Role.BACKWARD_WEIGHT
    for j, factor in reversed(list(enumerate(factors(kernel)))):
        d = _mixed(kernels, site.above(j + 1), d, kernels.shifted(d, size, factor.axis, -factor.step), role)
    return d


def _mixed(kernels: Kernels, site: Site, here: Array, there: Array, role: Role) -> Array:
    """P here + (1 − P) there, as there + P (here − there)."""
    c, dtype = here.shape[-1], here.dtype
    row = int(role != Role.WEIGHT)
    coins = kernels.columns(kernels.mask(site, Role.MASK, 0.5, 1 + row, c, dtype), row)  # 2 or 0
    along = kernels.random_matmul_transpose(site, role, "orthogonal", c, kernels.add(here, there, -1.0))
    along = kernels.affine(kernels.multiply(along, coins), 0.5 / c)  # the law's matrix is √c U
    return kernels.add(there, kernels.random_matmul(site, role, "orthogonal", c, along), 1.0)
