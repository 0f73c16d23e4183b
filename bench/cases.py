"""What is computed: one definition, for mcverify and for every peer.

A case is a network x ↦ h¹, x¹ = φ(h¹), … with B inputs: a multilayer perceptron with weights N(0, σ_w²/n) and
biases N(0, σ_b²), or a circular convolution of K taps on P positions, n its channels, with weights N(0, σ_w²/Kn).
The work is, for each of some networks with weights of its own: the lengths M_l = ‖x^l‖²/n of every layer and input (the
mean over positions), and the gradient norms ‖∂E/∂h^l‖² of E = Σ_a v_a·h^L_a, v_a Gaussian of unit expected norm.
Everything is float32. A runner is a function networks → (lengths, gradient norms), each (network, layer, input).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcverify.inputs import with_gram

Array = NDArray[Any]
Runner = Callable[[int], tuple[Array, Array]]

# Tiny sizes, to see that everything runs; its figures mean nothing.
QUICK = os.environ.get("MCVERIFY_BENCH_QUICK") == "1"

# Both at criticality, so that 50 layers neither vanish nor explode.
TAPS = 9
VARIANCES = {"tanh": (1.05, 2e-5), "relu": (2.0, 0.0)}

# What is predicted on a large grid: closed forms (ReLU, erf) and quadrature (tanh), each at or near criticality.
PREDICTED = {"relu": (2.0, 0.0), "erf": (0.82, 2e-5), "tanh": (1.05, 2e-5)}


@dataclass(frozen=True)
class Case:
    """A network and its inputs."""

    activation: str
    inputs: int
    width: int = 200 if QUICK else 1000
    depth: int = 10 if QUICK else 50

    @property
    def fan_in(self) -> int:
        """Weights that meet in one unit."""
        return self.width

    @property
    def columns(self) -> int:
        """Columns that a layer's matrix is multiplied with."""
        return self.inputs

    @property
    def sigma_w2(self) -> float:
        """Variance of a weight times the fan-in."""
        return VARIANCES[self.activation][0]

    @property
    def sigma_b2(self) -> float:
        """Variance of a bias."""
        return VARIANCES[self.activation][1]

    @property
    def gain(self) -> np.float32:
        """√(σ_w²/fan-in)."""
        return np.float32(np.sqrt(self.sigma_w2 / self.fan_in))

    @property
    def bias(self) -> np.float32:
        """σ_b."""
        return np.float32(np.sqrt(self.sigma_b2))

    @cached_property
    def x(self) -> Array:
        """(input, n) with ‖x_a‖²/n = 1: two of correlation ½, more at random."""
        if self.inputs == 2:
            return with_gram([[1.0, 0.5], [0.5, 1.0]], self.width).astype(np.float32)
        x = np.random.default_rng(7).standard_normal((self.inputs, self.width))
        return (x / np.sqrt((x**2).mean(axis=1, keepdims=True))).astype(np.float32)

    # What one network needs at the least. The gradient norms stop at h¹: one backward map less than forward.

    @property
    def weights(self) -> int:
        """Normals when every weight is drawn in each pass and none is kept, as mcverify does."""
        return (2 * self.depth - 1) * self.fan_in * self.width

    @property
    def conditional_normals(self) -> int:
        """Normals of the conditional algorithm: for each column n in a layer, and its fan-in on the way back."""
        return (self.depth * self.width + (self.depth - 1) * self.fan_in) * self.columns

    @property
    def flops(self) -> int:
        """Multiplications and additions of the products with W and Wᵀ."""
        return 2 * self.weights * self.columns

    @property
    def bytes(self) -> int:
        """Activations, written once on the way up and read once on the way down."""
        return 2 * 4 * self.depth * self.width * self.columns


@dataclass(frozen=True)
class Convolution(Case):
    """A network of convolutions of 3 × 3 taps on a circular grid; width is the number of channels."""

    width: int = 16 if QUICK else 64
    depth: int = 5 if QUICK else 20
    side: int = 4 if QUICK else 8

    @property
    def fan_in(self) -> int:
        return TAPS * self.width

    @property
    def columns(self) -> int:
        return self.inputs * self.side**2

    @cached_property
    def x(self) -> Array:
        """(input, channel, row, column), independent, with Σ_i x_i(p)²/n = 1 at every position."""
        shape = (self.inputs, self.width, self.side, self.side)
        x = np.random.default_rng(7).standard_normal(shape)
        return (x / np.sqrt((x**2).mean(axis=1, keepdims=True))).astype(np.float32)


def split(networks: int, ways: int = 2) -> list[int]:
    """Networks shared out among workers, as evenly as can be; no empty shares."""
    return [share for i in range(ways) if (share := networks // ways + (i < networks % ways))]
