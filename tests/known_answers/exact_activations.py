"""The activation functions in arbitrary precision, with what a quadrature needs to know of each.

Every function maps u to the pair (φ(u), φ'(u)), written from its definition with mpmath alone: nothing here or in the
other scripts of this folder may import the package, whose answers the tables judge.

Importing this module sets mpmath's working precision for all scripts; a part that needs more asks for it locally.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from mpmath import mp, mpf

WORKING_DIGITS = 36
mp.dps = WORKING_DIGITS

SELU_SCALE = "1.0507009873554804934193349852946"
SELU_ALPHA = "1.6732632423543772848170429916717"


class Continuation(NamedTuple):
    """How an analytic φ behaves off the real line, which limits the step of the trapezoid rule.

    pole: the nearest singularity lies at |Im u| = parameter;
    gauss: |φ(x + iy)| grows like exp(parameter y²);
    exp: |φ(x + iy)| grows like exp(parameter |y|).
    """

    kind: str
    parameter: mpf


@dataclass(frozen=True)
class Activation:
    """φ with its derivative, its kinks, whether it is odd, and its continuation (None for a function with kinks)."""

    value_and_slope: Callable[[mpf], tuple[mpf, mpf]]
    kinks: tuple[int, ...] = ()
    odd: bool = False
    continuation: Continuation | None = None

    def __call__(self, u: mpf) -> tuple[mpf, mpf]:
        return self.value_and_slope(u)


def leaky_slope() -> mpf:
    """The slope of leaky_relu below zero, at the precision in force."""
    return mpf(1) / 5


def _linear(u: mpf) -> tuple[mpf, mpf]:
    return u, mpf(1)


def _relu(u: mpf) -> tuple[mpf, mpf]:
    return (u, mpf(1)) if u > 0 else (mpf(0), mpf(0))


def _leaky_relu(u: mpf) -> tuple[mpf, mpf]:
    slope = leaky_slope()
    return (u, mpf(1)) if u > 0 else (slope * u, slope)


def _tanh(u: mpf) -> tuple[mpf, mpf]:
    t = mp.tanh(u)
    return t, 1 - t * t


def _tanh_cubed(u: mpf) -> tuple[mpf, mpf]:
    """tanh(u³): zero slope at zero, hence three fixed points of its variance map."""
    t = mp.tanh(u**3)
    return t, 3 * u * u * (1 - t * t)


def _erf(u: mpf) -> tuple[mpf, mpf]:
    return mp.erf(u), 2 / mp.sqrt(mp.pi) * mp.exp(-u * u)


def _sigmoid(u: mpf) -> tuple[mpf, mpf]:
    """Written with exp(-|u|), which cannot overflow."""
    e = mp.exp(-abs(u))
    r = 1 / (1 + e)
    return (r, e * r * r) if u >= 0 else (e * r, e * r * r)


def _softplus(u: mpf) -> tuple[mpf, mpf]:
    e = mp.exp(-abs(u))
    log = mp.log1p(e) if e < mpf("1e-5") else mp.log(1 + e)
    return (u + log, 1 / (1 + e)) if u >= 0 else (log, e / (1 + e))


def _gelu(u: mpf) -> tuple[mpf, mpf]:
    """u Φ(u), the exact form."""
    cdf = mp.erfc(-u / mp.sqrt(2)) / 2
    return u * cdf, cdf + u * mp.exp(-u * u / 2) / mp.sqrt(2 * mp.pi)


def _silu(u: mpf) -> tuple[mpf, mpf]:
    s, d = _sigmoid(u)
    return u * s, s + u * d


def _elu(u: mpf) -> tuple[mpf, mpf]:
    return (u, mpf(1)) if u > 0 else (mp.expm1(u), mp.exp(u))


def _selu(u: mpf) -> tuple[mpf, mpf]:
    scale, alpha = mpf(SELU_SCALE), mpf(SELU_ALPHA)
    return (scale * u, scale) if u > 0 else (scale * alpha * mp.expm1(u), scale * alpha * mp.exp(u))


def _sin(u: mpf) -> tuple[mpf, mpf]:
    return mp.sin(u), mp.cos(u)


def _hard_tanh(u: mpf) -> tuple[mpf, mpf]:
    if abs(u) > 1:
        return mp.sign(u), mpf(0)
    return u, mpf(1)


def _sign(u: mpf) -> tuple[mpf, mpf]:
    """φ' is the almost-everywhere derivative, zero; the value at zero itself never matters."""
    return (mpf(1) if u > 0 else mpf(-1)), mpf(0)


def _pole(distance: mpf) -> Continuation:
    return Continuation("pole", distance)


ACTIVATIONS = {
    "linear": Activation(_linear, odd=True, continuation=Continuation("exp", mpf(0))),
    "relu": Activation(_relu, kinks=(0,)),
    "leaky_relu": Activation(_leaky_relu, kinks=(0,)),
    "tanh": Activation(_tanh, odd=True, continuation=_pole(mp.pi / 2)),
    "erf": Activation(_erf, odd=True, continuation=Continuation("gauss", mpf(1))),
    "sigmoid": Activation(_sigmoid, continuation=_pole(+mp.pi)),
    "softplus": Activation(_softplus, continuation=_pole(+mp.pi)),
    "gelu": Activation(_gelu, continuation=Continuation("gauss", mpf(1) / 2)),
    "silu": Activation(_silu, continuation=_pole(+mp.pi)),
    "elu": Activation(_elu, kinks=(0,)),
    "selu": Activation(_selu, kinks=(0,)),
    "sin": Activation(_sin, odd=True, continuation=Continuation("exp", mpf(1))),
    "hard_tanh": Activation(_hard_tanh, kinks=(-1, 1), odd=True),
    "sign": Activation(_sign, kinks=(0,), odd=True),
    # The nearest poles of tanh(u³) have |u| = (π/2)^(1/3) and lie 30° off the real line.
    "tanh_cubed": Activation(_tanh_cubed, odd=True, continuation=_pole((mp.pi / 2) ** (mpf(1) / 3) / 2)),
}
