"""The Jacobian of a network as a product of free factors, J = [D^L] W^L D^{L−1} W^{L−1} … D^1 W^1.

In the limit of infinite width at fixed ratios of widths the factors are asymptotically free, D^l diagonal with the law
of φ′(√q^l z), z ~ N(0, 1) (Pennington, Schoenholz & Ganguli 2017, 2018). Source of what follows from it: Voiculescu's
S-transform, S(z) = (1 + z) χ(z)/z with χ inverse to M(ζ) = Σ m_k ζ^k. Where widths differ each layer counts in its own
dimension, at z_l = z n_0/n_l:

    χ_{JᵀJ}(z) = z_L/(1 + z_L) Π_l S_{D_l²}(z_l) S_{W_l W_lᵀ}(z_l)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mcverify import inputs
from mcverify.activations import Activation as Phi
from mcverify.errors import InputError, Unpredictable
from mcverify.layers.activation import Activation
from mcverify.layers.convolution import Convolution
from mcverify.layers.dense import Dense
from mcverify.layers.layer import Layer
from mcverify.network import Network, check_network
from mcverify.theory.phase import phase
from mcverify.theory.propagation import propagate

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Factor:
    """One layer's D W. sigma_w2: fan_in times the variance of W's entries; orthogonal: W is Haar, else its entries are
    independent; above, below: n_0 over the layer's fan_out and fan_in; phi: None without D; q: of the pre-activation.
    """

    sigma_w2: float
    orthogonal: bool
    above: float
    below: float
    phi: Phi | None
    q: float


def chain_of(net: Network, activated: bool) -> list[tuple[Layer, Phi | None]]:
    """Each map with the φ that follows it, None above the last unless `activated`.

    Raises Unpredictable where anything but dense maps, or convolutions that keep positions apart, and activations
    stands in the network; InputError where an activation is asked for that is not there."""
    check_network(net)
    out: list[tuple[Layer, Phi | None]] = []
    for i, layer in enumerate(net.layers):
        if isinstance(layer, Activation) and out[-1][1] is None:
            out[-1] = out[-1][0], layer.phi
        elif isinstance(layer, Dense) or (isinstance(layer, Convolution) and layer.keeps_apart):
            out.append((layer, None))
        else:
            words = "must be a dense map or a delta-orthogonal convolution, or one activation after it"
            kind = type(layer).__name__.lower()
            raise Unpredictable(f"layer {i + 1} is a {kind} layer; for the Jacobian's spectrum it {words}")
    if activated and out[-1][1] is None:
        raise InputError("activated", activated, "must be False: no activation follows the last map")
    if not activated:
        out[-1] = out[-1][0], None
    return out


def factors(net: Network, q: FloatArray, activated: bool) -> list[Factor]:
    """The layers' factors at pre-activations of variance q (layer,)."""
    out, n0 = [], net.input_dim
    for (layer, phi), variance in zip(chain_of(net, activated), q, strict=True):
        m = layer.random_map
        assert m is not None
        if m.sigma_w2 == 0:
            raise Unpredictable("sigma_w2 is 0: the Jacobian is zero")
        orthogonal = m.law == "orthogonal"
        out.append(Factor(m.sigma_w2, orthogonal, n0 / m.fan_out, n0 / m.fan_in, phi, float(variance)))
    return out


def variances(net: Network, x: ArrayLike | None, activated: bool) -> FloatArray:
    """q^l of every input and position, (input, *positions, layer); without x at the fixed point, (layer,).

    Raises InputError where x is needed: the fixed point is that of one φ, σ_w² and σ_b² throughout; Unpredictable
    where there is none."""
    chain_of(net, activated)
    if x is None:
        return np.full(len(net.maps), _fixed_point(net))
    checked = inputs.checked(x, net.input_shape)
    local = propagate(net, checked).local  # of each layer (position, input, input)
    q = np.stack([np.diagonal(v, axis1=1, axis2=2).T for v in local], axis=-1)
    return q.reshape(len(checked), *net.input_shape[:-1], -1)


def _fixed_point(net: Network) -> float:
    """q*, or 1 where φ is positively homogeneous throughout and no q matters."""
    phis = {phi for _, phi in chain_of(net, False) if phi is not None} | {
        layer.phi for layer in net.layers if isinstance(layer, Activation)
    }
    if all(phi.slopes is not None for phi in phis):
        return 1.0
    maps = {(m.sigma_w2, m.sigma_b2) for m in map(net.random_map, net.maps)}
    if len(phis) > 1 or len(maps) > 1:
        raise InputError("x", None, "must be given: activations, sigma_w2 or sigma_b2 differ between layers")
    found = phase(next(iter(phis)), *next(iter(maps)))
    if not math.isfinite(found.q):
        raise Unpredictable(f"no fixed point q* to take the Jacobian at: {found.message}")
    return found.q
