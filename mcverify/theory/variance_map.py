"""The variance map Q(q) of a fully connected network.

Notation of Poole et al. 2016 (eq. 3) and Schoenholz et al. 2017 (eqs. 3, 12 and §5 for dropout):

    Q(q) = (σ_w²/ρ) ⟨φ²⟩_q + σ_b²          ⟨f⟩_q = E f(√q z),  z ~ N(0, 1),  ρ the keep probability
    χ(q) = (σ_w²/ρ) ⟨φ′²⟩_q                 the factor of E‖δ‖² per layer, on the way down
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mcverify.activations import Activation
from mcverify.activations import activation as look_up
from mcverify.expectations import gaussian
from mcverify.validate import share, variance

Floats = NDArray[np.float64]

_EPSILON = float(np.finfo(float).eps)


@dataclass(frozen=True)
class VarianceMap:
    """q ↦ Q(q) and its kin. Arrays in, arrays of the same shape out, as accurate as `gaussian`."""

    activation: Activation
    sigma_w2: float
    sigma_b2: float
    keep: float = 1.0

    @property
    def gain(self) -> float:
        """σ_w²/ρ."""
        return self.sigma_w2 / self.keep

    @property
    def homogeneous_gain(self) -> float | None:
        """Q(q) = gain · q + σ_b² where φ is positively homogeneous, else None."""
        if self.activation.slopes is None:
            return None
        negative, positive = self.activation.slopes
        return 0.5 * self.gain * (negative * negative + positive * positive)

    def __call__(self, q: ArrayLike) -> Floats:
        """Q(q)."""
        return self.gain * gaussian.second_moment(self.activation, q).value + self.sigma_b2

    def slope(self, q: ArrayLike) -> Floats:
        """dQ/dq = (σ_w²/ρ)/(2q) ⟨(z² − 1) φ²⟩, kinks and jumps included."""
        return self.gain * gaussian.second_moment_slope(self.activation, q).value

    def gradient_factor(self, q: ArrayLike) -> Floats:
        """χ(q) = (σ_w²/ρ) ⟨φ′²⟩_q (almost everywhere derivative: jumps do not count)."""
        return self.gain * gaussian.derivative_second_moment(self.activation, q).value

    def error(self, q: ArrayLike) -> Floats:
        """Bound on the numerical error of Q(q)."""
        at = gaussian.second_moment(self.activation, q)
        return self.gain * at.error + 4 * _EPSILON * (self.gain * np.abs(at.value) + self.sigma_b2)

    def gradient_factor_error(self, q: float, q_error: float) -> float:
        """Bound on the error of χ(q) at a q known to ± q_error."""
        here = gaussian.derivative_second_moment(self.activation, q)
        own = self.gain * float(here.error) + 4 * _EPSILON * self.gain * float(here.value)
        steepness = float(gaussian.derivative_second_moment_slope(self.activation, q).value)
        return own + abs(self.gain * steepness) * q_error

    def excess(self, q: float) -> float:
        """Q(q)/q − 1: positive where q grows from layer to layer."""
        return float(self(q)) / q - 1.0


def checked(activation: str | Activation, sigma_w2: float, sigma_b2: float, keep: float) -> VarianceMap:
    """The map of these parameters. Raises InputError for unusable ones."""
    act = look_up(activation)
    return VarianceMap(act, variance("sigma_w2", sigma_w2), variance("sigma_b2", sigma_b2), share("keep", keep))
