"""A chain of dense layers, stage by stage: what the expectations at each q^l are, and how they move with q."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mcverify.activations import Activation, activation
from mcverify.errors import Unpredictable
from mcverify.expectations import gaussian, price
from mcverify.expectations.integrand import power_of
from mcverify.layers.dense import Dense
from mcverify.layers.dropout import Dropout
from mcverify.network import Network

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Stage:
    """What stands between map l, of `width` units, and the map above, of σ_w² (1 where none follows), and expectations
    at q^l: (input,), or (3, input) of a value with its first two derivatives in q.

    keep: of all masks in between, ρ; shared: of those that all inputs share."""

    phi: Activation
    keep: float
    shared: float
    width: int
    sigma_w2: float
    second: FloatArray  # ⟨φ²⟩, (3, input)
    fourth: FloatArray  # ⟨φ⁴⟩
    slope_second: FloatArray  # ⟨φ′²⟩, (3, input)
    slope_fourth: FloatArray  # ⟨φ′⁴⟩
    both: FloatArray  # ⟨φ²φ′²⟩
    zeta: FloatArray  # ⟨z²φ′²⟩

    @property
    def gain(self) -> float:
        """σ_w²/ρ."""
        return self.sigma_w2 / self.keep

    @property
    def map(self) -> FloatArray:
        """Q − σ_b², Q′ and Q″, (3, input)."""
        return self.gain * self.second

    @property
    def chi(self) -> FloatArray:
        """χ, χ′ and χ″, (3, input)."""
        return self.gain * self.slope_second

    # Of one unit with its mask m/ρ, whose fourth moment is ρ⁻³ and whose squared second one is ρ⁻², (input,):

    @property
    def spread(self) -> FloatArray:
        """Var σ_w² x²."""
        return self.sigma_w2**2 * (self.fourth / self.keep**3 - self.second[0] ** 2 / self.keep**2)

    @property
    def slope_spread(self) -> FloatArray:
        """Var σ_w² φ′²ξ², ξ ~ N(0, 1) of its own."""
        return self.sigma_w2**2 * (3 * self.slope_fourth / self.keep**3 - self.slope_second[0] ** 2 / self.keep**2)

    @property
    def product(self) -> FloatArray:
        """E σ_w⁴ φ′²x²."""
        return self.sigma_w2**2 * self.both / self.keep**3

    @property
    def across(self) -> FloatArray:
        """Cov(σ_w² φ′², σ_w² x²)."""
        return self.product - self.chi[0] * self.map[0]


def stages(net: Network, q: FloatArray) -> list[Stage]:
    """The stages of a network whose lengths are q (layer, input).

    Raises Unpredictable for anything but a chain of dense layers with independent Gaussian weights, one activation and
    dropout at most between two."""
    for layer, _ in net.every_layer:
        m = layer.random_map
        if m is not None and not isinstance(layer, Dense):
            kind = type(layer).__name__.lower()
            raise Unpredictable(f"first-order corrections are known for dense layers, not for a {kind}")
        if m is not None and m.law != "gaussian":
            raise Unpredictable(f"first-order corrections are known for Gaussian weights, not for {m.law} ones")
    gains, out = net.gains(), []
    for l, (here, _, phi) in enumerate(gains):
        last = l + 1 == len(gains)
        above = len(net.layers) if last else gains[l + 1][0]
        masks = [v for v in net.layers[here:above] if isinstance(v, Dropout)]
        shared, own = (math.prod(v.keep for v in masks if v.shared == which) for which in (True, False))
        sigma_w2 = 1.0 if last else net.random_map(above).sigma_w2
        out.append(_stage(phi or activation("linear"), shared * own, shared, net.widths[l], sigma_w2, q[l]))
    return out


def _stage(phi: Activation, keep: float, shared: float, width: int, sigma_w2: float, q: FloatArray) -> Stage:
    slopes = price.heat(power_of(phi, 2, 1), q)
    both = gaussian.expect(lambda u: (phi.phi(u) * phi.dphi(u)) ** 2, q, phi.kinks, scale=phi.scale)
    return Stage(
        phi, keep, shared, width, sigma_w2,
        second=price.heat(power_of(phi, 2), q), fourth=np.asarray(gaussian.moment(phi, q, 4).value),
        slope_second=slopes, slope_fourth=np.asarray(gaussian.moment(phi, q, 4, 1).value),
        both=np.asarray(both.value), zeta=slopes[0] + 2.0 * q * slopes[1],  # ⟨z²f⟩ = ⟨f⟩ + 2q d⟨f⟩/dq
    )  # fmt: skip
