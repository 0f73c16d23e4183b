"""What a finite width does: the spread of lengths between networks.

Source: Roberts, Yaida & Hanin 2022, ch. 4, in the form of a recursion for V_l = Var Ĝ^l over the one-step
law; Hanin & Rolnick 2018 for positively homogeneous φ, where it is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mcverify.activations import Activation
from mcverify.expectations import gaussian
from mcverify.layers.dropout import Dropout
from mcverify.network import Network
from mcverify.theory.propagation import Prediction

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class LengthVariance:
    """Var M_l over networks, (layer, input), and a mark for each entry: "exact", "first order" (the next
    order in 1/width is left out), or "none" where this theory has no answer and the value is NaN."""

    value: FloatArray
    mark: NDArray[np.str_]


def length_variance(net: Network, p: Prediction) -> LengthVariance:
    """The variance between networks of M_l = ‖x^l‖²/n_l.

    Given the layer below, units are i.i.d. N(0, Ĝ), so Var M = ⟨Var φ²⟩/n + Var ⟨φ²⟩, at the random Ĝ: the
    first term at its mean q, the second by the slope d⟨φ²⟩/dq. For positively homogeneous φ both are
    quadratic in Ĝ and E Ĝ² = q² + V makes them exact, biases and dropout included. Other independent weight
    laws agree to first order; orthogonal weights have fluctuations of their own, which are not treated.
    """
    q = np.diagonal(p.gram, axis1=1, axis2=2)
    if len(net.input_shape) > 1 or not net.is_chain:  # positions that share their weights, blocks: not treated
        return LengthVariance(np.full(p.length.shape, np.nan), np.full(p.length.shape, "none", dtype="<U11"))
    value, mark = np.full(q.shape, np.nan), np.full(q.shape, "none", dtype="<U11")
    v, exact = np.zeros(q.shape[1]), True
    for l, (here, _, phi) in enumerate(net.gains()):
        m = net.random_map(here)
        if m.law == "orthogonal":
            break
        exact = exact and m.law == "gaussian"
        affine = phi is None or phi.slopes is not None
        now = exact and (l == 0 or affine)
        value[l], mark[l] = _spread(phi, q[l], v, m.fan_out, 1.0), "exact" if now else "first order"
        if l + 1 < len(net.maps):
            keep = _keep(net, here, net.maps[l + 1])
            v = net.random_map(net.maps[l + 1]).sigma_w2 ** 2 * _spread(phi, q[l], v, m.fan_out, keep)
            exact = now
    return LengthVariance(value, mark)


def _keep(net: Network, here: int, above: int) -> float:
    """The keep probability of the masks between two maps."""
    return float(np.prod([layer.keep for layer in net.layers[here:above] if isinstance(layer, Dropout)]))


def _spread(phi: Activation | None, q: FloatArray, v: FloatArray, width: int, keep: float) -> FloatArray:
    """Var of (1/n) Σ (φ m/ρ)² at a metric of mean q and variance v."""
    if phi is None:
        second, fourth, slope, homogeneous = q, 3 * q**2, np.ones_like(q), True
    else:
        second = gaussian.second_moment(phi, q).value
        fourth = gaussian.moment(phi, q, 4).value
        slope = gaussian.second_moment_slope(phi, q).value
        homogeneous = phi.slopes is not None
    # E m⁴/ρ⁴ = ρ⁻³ and (E m²/ρ²)² = ρ⁻².
    within = fourth / keep**3 - second**2 / keep**2
    if homogeneous:
        with np.errstate(invalid="ignore", divide="ignore"):
            within = np.where(q > 0, within * (1 + v / q**2), within)
    return np.asarray(within / width + (slope / keep) ** 2 * v)
