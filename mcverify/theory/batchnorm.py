"""What batch norm does to gradients: exponential growth in plain networks, a power of the depth in residual ones.

The batch is permutation-symmetric: at h different inputs have covariance κ, and λ is the eigenvalue q − κ on 1^⊥; its
variance is v = λ(B−1)/B. All is a limit in the width, at eps = 0, and holds for one batch size B:

    plain, … W φ(g·BN(h)):        a = [B/(Λ(B−3))]·T/(B−1) a layer                       (expectations/sphere.py)
    x + W φ(g·BN(x))  ("pre"):    λ_l = λ_0 + l σ_w² Λ, and the branch adds about a/l: gradients grow like L^a
    x + BN(W φ(x))    ("post"):   q_l = q_0 + l, κ_l = κ_0 − l/(B−1), exactly; the branch adds
                                  (B−2)/((B−3)(B−1)Λ_l) · [(B−1)⟨φ′²⟩ + ⟨φ′_aφ′_b⟩] on 1^⊥

a is the same number: (B−2)/(B−3) for the identity, π/(π−1) for relu at B → ∞, whatever σ_w² and the width. In "post"
the x of other φ than the identity is Gaussian only as B grows. Yang et al. 2019 (arXiv:1902.08129) for plain networks;
Taki 2017, §3 and appendix, for residual ones with the identity; those with φ and the finite B are derived here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral

import numpy as np
from numpy.typing import NDArray

from mcverify.activations import Activation
from mcverify.activations import activation as look_up
from mcverify.errors import InputError, Unpredictable
from mcverify.expectations import gaussian, sphere
from mcverify.validate import MOST_LAYERS, between, count, one_of, positive

Floats = NDArray[np.float64]

PLACEMENTS = ("pre", "post")
_TRUSTED = 1e-6  # relative error of an integral over the sphere, which is 1e-12 unless φ oscillates


def batchnorm_gradient_growth(activation: str | Activation, batch: float = math.inf, *, gain: float = 1.0) -> float:
    """Growth per layer of E‖∂E/∂h‖² going down a plain network of maps, batch norm and φ; and the power of the depth by
    which gradients grow in residual networks with the batch norm before φ.

    batch: how many inputs, above 3, or math.inf. gain: the batch norm's, in φ(gain·BN(h)): towards 0 smooth φ become
    linear and the growth falls to that of linear φ, (B−2)/(B−3), the least there is. A limit in the width, whatever
    σ_w² and σ_b². Source: Yang et al. 2019. Raises InputError for a φ that does not tell the inputs apart, and
    Unpredictable for one that oscillates too fast to be integrated."""
    phi = look_up(activation)
    gain = positive("gain", gain)
    if not _unbounded(batch):
        found = sphere.gradient_growth(phi, _checked(batch), gain=gain)
        if not found.error <= _TRUSTED * found.value:
            off = float(found.error / found.value)
            raise Unpredictable(f"{phi.name} turns too often at gain {gain:g}: its integral is off by {off:.1g}")
        return float(found.value)
    return gain**2 * _slopes(phi, gain) / _told_apart(phi, _spread(phi, gain))


def batchnorm_residual_growth(
    activation: str | Activation, depth: int, placement: str, batch: float = math.inf, *,
    q0: float = 1.0, c0: float = 0.0, sigma_w2: float = 1.0, gain: float = 1.0,
) -> Floats:  # fmt: skip
    """E‖∂E/∂x^l‖² of one input over that at l = L, (L + 1,), l = 0 … L, for `depth` = L blocks and cotangents that are
    independent between inputs.

    placement: "pre", x + W φ(gain·BN(x)), or "post", x + BN(W φ(x)), where sigma_w2 and gain do not count. x^0 has the
    length q0, and the correlation c0 between any two inputs. batch: above 3, or math.inf. A limit in the width; in
    "post" it takes x for Gaussian, an error of order 1/batch unless φ is linear."""
    phi = look_up(activation)
    count("depth", depth, most=MOST_LAYERS)
    for name, value in (("q0", q0), ("sigma_w2", sigma_w2), ("gain", gain)):
        positive(name, value)
    between("c0", c0, -1.0, 1.0)
    one_of("placement", placement, PLACEMENTS)
    size = batch if _unbounded(batch) else _checked(batch)
    if not -1.0 / (size - 1.0) <= c0 < 1.0:
        raise InputError("c0", c0, f"must be in [-1/(batch - 1), 1) at batch {batch:g}: inputs that differ")
    added = _pre(phi, size, q0 * (1.0 - c0), sigma_w2, gain) if placement == "pre" else _post(phi, size, q0, c0)
    grad, out = np.array([1.0, 0.0]), [1.0]  # of one input, and between two
    for l in range(depth - 1, -1, -1):
        grad = grad + added(l, *grad)
        out.append(float(grad[0]))
    return np.array(out[::-1])


Added = Callable[[int, float, float], Floats]
"""(l, own, cross) -> what block l adds to the gradient moments of one input, and between two, (2,)."""


def _pre(phi: Activation, batch: float, across: float, sigma_w2: float, gain: float) -> Added:
    """across: λ_0."""
    if batch == math.inf:
        told, slopes = sigma_w2 * _told_apart(phi, _spread(phi, gain)), sigma_w2 * gain**2 * _slopes(phi, gain)
        return lambda l, own, cross: np.array([slopes * own / (across + l * told), 0.0])
    size = int(batch)
    told = sigma_w2 * _told_apart(phi, float(sphere.contrast(phi, size, gain=gain).value))

    def added(l: int, own: float, cross: float) -> Floats:
        pair = (sigma_w2 * own, sigma_w2 * cross)
        m = float(sphere.pull_back(phi, size, *pair, variance_across=across + l * told, gain=gain).value)
        return m * np.array([1.0 - 1.0 / size, -1.0 / size])

    return added


def _post(phi: Activation, batch: float, q0: float, c0: float) -> Added:
    def added(l: int, own: float, cross: float) -> Floats:
        q, between_two = q0 + l, c0 * q0 - l / (batch - 1.0)
        second = float(gaussian.second_moment(phi, q).value)
        told = _told_apart(phi, second - float(gaussian.covariance(phi, q, between_two, q).value))
        slopes = float(gaussian.derivative_second_moment(phi, q).value)
        if batch == math.inf:
            return np.array([slopes * own / told, 0.0])
        m = float(sphere.pull_back("linear", int(batch), own, cross, variance_across=told).value)
        both = float(gaussian.derivative_covariance(phi, q, between_two, q).value)
        return m * np.array([slopes * (1.0 - 1.0 / batch), -both / batch])

    return added


def _unbounded(batch: float) -> bool:
    return isinstance(batch, float) and batch == math.inf


def _checked(batch: float) -> int:
    if not isinstance(batch, Integral) or isinstance(batch, bool) or batch > 2**53:
        raise InputError("batch", batch, "must be a whole number above 3, or math.inf")
    sphere.inverse_variance(int(batch))  # says what does not exist at 3 and below
    return int(batch)


def _slopes(phi: Activation, gain: float) -> float:
    """⟨φ′(gz)²⟩."""
    return float(gaussian.derivative_second_moment(phi, gain**2).value)


def _spread(phi: Activation, gain: float) -> float:
    """Var φ(gz), the large-batch Λ."""
    return float(gaussian.second_moment(phi, gain**2).value - gaussian.covariance(phi, gain**2, 0.0, gain**2).value)


def _told_apart(phi: Activation, contrast: float) -> float:
    if contrast <= 0.0:
        raise InputError("activation", phi.name, "must tell inputs apart: its images of a batch are all alike")
    return contrast
