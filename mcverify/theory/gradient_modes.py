"""How many ways a gradient's positions vary on a circle or torus: what its norm loses at finite width depends on it.

Given δ^{l+1}, the entries of δ^l before φ′ are Gaussian over the c channels, with covariance M = (σ_w²/c) A(Γ) between
positions, Γ_{αα'} = Σ_i δ_i(α)δ_i(α'). The norm's gain therefore has a relative variance 2ρ/c, with

    ρ = tr A(Γ)² / (tr Γ)²,

the inverse of a number of modes: 1 where all positions are alike, 1/P where P of them have nothing in common; and
log gains lose ρ/c at first order. Γ itself is random, of a Wishart law with c degrees given the Γ above,

    E[Γ'_{γγ'} Γ'_{ηη'} | Γ] = N_{γγ'} N_{ηη'} + (N_{γη} N_{γ'η'} + N_{γη'} N_{γ'η})/c,    N = A(Γ),

which leaves ρ to grow: A takes what differs along the circle, but not what is the same all along it, and the sums over
products at a fixed displacement gain 1/c in each layer. That is exact for linear networks; φ′ that differ between
positions take some 3a₃²(1 − c_d²) of a displacement's share in a layer, a₃ being φ's cubic Hermite coefficient, which
near a critical point of small q* is slow.

Σ_d Γ_d e^{ikd} is the gradient's power at the spatial frequency k. Each power is multiplied in each layer by a factor
of its own, of mean 1 and variance 1/c (2/c for a real frequency), independent between frequencies whose overlap over
channels is only by chance; over many times c layers a few of them win, the norm's log is that of a sum of log-normals,
and second moments no longer tell it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mcverify.errors import InputError
from mcverify.validate import count

Floats = NDArray[np.float64]
_MOST = 256  # positions: third powers of them are held


def mode_shares(size: Sequence[int], kernel: Sequence[int], channels: int, depth: int) -> Floats:
    """E tr A(Γ^l)² / E (tr Γ^l)² for l = L, L − 1, … of a linear network, (depth − 1,), the gradient at L being white,
    as the independent cotangent is: what the gains from l to l − 1 vary by is 2/c of it.

    size: of the circle or torus; kernel: taps along each axis. Raises InputError for more than 256 positions."""
    count("channels", channels)
    count("depth", depth, least=2)
    positions = math.prod(size)
    if positions > _MOST:
        raise InputError("size", tuple(size), f"must be at most {_MOST} positions: their third power is held")
    at = np.stack(np.unravel_index(np.arange(positions), size))
    add = _index((at[:, :, None] + at[:, None, :]), size)
    less = _index((at[:, :, None] - at[:, None, :]), size)
    mix = _mixing(at, size, kernel)
    # E N_{α,α+d} N_{α+x,α+x+e} in (x, d, e), and of Γ likewise.
    x, d, e = np.ogrid[:positions, :positions, :positions]
    first, second = (d, x, less[add[x, e], d]), (d, add[x, e], less[x, d])
    moments = np.zeros((positions,) * 3)
    moments[:, 0, 0] = 1.0
    out = []
    for _ in range(depth - 1):
        gamma = moments + (moments[first] + moments[second]) / channels
        moments = np.tensordot(mix, gamma, 1)
        shares = np.einsum("dd->", moments[0]) / gamma[:, 0, 0].sum()
        out.append(float(shares))
    return np.array(out)


def _index(at: NDArray[np.intp], size: Sequence[int]) -> NDArray[np.intp]:
    return np.asarray(np.ravel_multi_index(tuple(at), tuple(size), mode="wrap"))


def _mixing(at: NDArray[np.intp], size: Sequence[int], kernel: Sequence[int]) -> Floats:
    """What the mean over two kernels makes of a function of the distance between their places, (position, position)."""
    taps = np.stack(np.unravel_index(np.arange(math.prod(kernel)), kernel))
    apart = (taps[:, :, None] - taps[:, None, :]).reshape(len(size), -1)
    positions = at.shape[1]
    out = np.zeros((positions, positions))
    for shift in apart.T:
        out[np.arange(positions), _index(at + shift[:, None], size)] += 1 / apart.shape[1]
    return out
