"""The activation table: φ, φ′, where they break, and what is known of them in closed form.

A row is plain data; a new activation is one new row of `_ROWS`. Expectations over Gaussian inputs are
computed elsewhere (`mcverify.expectations`) from what the row says.

At a kink φ′ takes the value PyTorch's backward pass uses: relu 0, leaky_relu its negative slope, elu and
selu the limit from the left, hard_tanh 0. sign has φ′ = 0 everywhere (its jump is listed in `jumps`). These
values matter only where h sits on the kink: discrete weight laws, or an input that is exactly 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from mcverify.errors import InputError, nearest
from mcverify.validate import positive

Array: TypeAlias = NDArray[Any]
Function: TypeAlias = Callable[[Any], Array]


class Term(NamedTuple):
    """coefficient · u^power · e^(rate·u)."""

    coefficient: float
    power: int
    rate: float


class Piece(NamedTuple):
    """φ on the open interval (low, high), as a sum of `Term`s."""

    low: float
    high: float
    terms: tuple[Term, ...]


@dataclass(frozen=True)
class Activation:
    """One activation function φ and what is known of it.

    `phi`, `dphi` and, where given, `d2phi` map an array to an array of the same shape; float32 stays float32,
    integers become float64. Rows of the table raise no overflow warning at any finite argument.
    """

    name: str
    """Canonical, with its parameter: "leaky_relu(0.2)"."""
    phi: Function
    dphi: Function
    kinks: tuple[float, ...] = ()
    """Increasing; every point where φ, φ′ or φ″ is discontinuous, jumps included."""
    jumps: tuple[tuple[float, float], ...] = ()
    """(point, φ(point+) − φ(point−)) for every discontinuity of φ itself."""
    slopes: tuple[float, float] | None = None
    """(negative side, positive side) where φ is positively homogeneous."""
    bounded: bool = False
    scale: float = 1.0
    """Length over which φ bends near 0, where quadrature panels start this small; inf where only kinks bend
    it.
    """
    d2phi: Function | None = None
    """φ″ away from kinks, where the row has it."""
    pieces: tuple[Piece, ...] = ()
    """φ piecewise exponential-polynomial, where it is: all its Gaussian integrals are elementary."""
    kernel: str = ""
    """Key of its closed two-point kernels in `expectations.closed_forms`, where there are any."""

    def __repr__(self) -> str:
        return f"Activation({self.name!r})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        if _is_row(self):  # rows travel by name: their functions are closures
            return activation, (self.name,)
        return super().__reduce_ex__(protocol)


def activation(spec: str | Activation) -> Activation:
    """The activation named by `spec`; an Activation is returned as it is.

    `spec` is a name, or a name with its parameter: "relu", "leaky_relu(0.2)", "elu" (alpha = 1). The same
    spec gives the same object. Raises InputError on an unknown name or an unusable parameter.
    """
    if isinstance(spec, Activation):
        return spec
    if not isinstance(spec, str):
        raise InputError("activation", spec, f"allowed: an Activation or one of {', '.join(_usage())}")
    return _parse(spec)


def custom_activation(
    name: str,
    phi: Callable[[Any], Any],
    dphi: Callable[[Any], Any],
    *,
    kinks: Sequence[float] = (),
    jumps: Sequence[tuple[float, float]] = (),
    scale: float = 1.0,
) -> Activation:
    """An activation from a user's own φ and φ′, which may take arrays or only scalars (as `math.tanh`
    does).

    `kinks`: points where φ or φ′ is not smooth. `jumps`: (point, height) where φ itself is discontinuous; these
    count as kinks too. `scale`: the length over which φ bends near 0, best stated where far from 1. Raises
    InputError where φ or φ′ is not finite on [−10, 10], or where φ′ disagrees with a central difference of φ away
    from the kinks.
    """
    if not name or not isinstance(name, str):
        raise InputError("name", name, "allowed: a non-empty string")
    jump_points, points = _breaks(kinks, jumps)
    functions = _elementwise(phi, "phi"), _elementwise(dphi, "dphi")
    made = Activation(name, *functions, points, jump_points, scale=positive("scale", scale))
    _check_derivative(made)
    return made


# ----------------------------------------------------------------------------------------- custom functions


def _breaks(kinks: Any, jumps: Any) -> tuple[tuple[tuple[float, float], ...], tuple[float, ...]]:
    """(point, height) of every jump, and all points in order. Raises InputError for what are none."""
    try:
        jump_points = tuple((float(point), float(height)) for point, height in jumps)
        points = tuple(sorted({float(k) for k in kinks} | {point for point, _ in jump_points}))
        if not np.isfinite([*points, *(height for _, height in jump_points)]).all():
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        allowed = "must be lists of finite numbers, and of pairs (point, height)"
        raise InputError("kinks or jumps", (kinks, jumps), allowed) from None
    return jump_points, points


def _elementwise(function: Callable[[Any], Any], field: str) -> Function:
    """`function` as one that maps arrays to arrays of the same shape and dtype."""
    vectorised = _accepts_arrays(function, field)

    def apply(u: Any) -> Array:
        x = _floating(u)
        if vectorised:
            return np.asarray(function(x)).astype(x.dtype, copy=False)
        entries = np.fromiter((function(float(v)) for v in x.flat), np.float64, x.size)
        return entries.reshape(x.shape).astype(x.dtype)

    return apply


def _accepts_arrays(function: Callable[[Any], Any], field: str) -> bool:
    """Whether `function` maps an array elementwise: it does what it does to each entry alone."""
    probe = np.array([-1.75, -0.5, 0.25, 1.5])
    try:
        alone = np.array([float(function(float(v))) for v in probe])
    except Exception as error:
        raise InputError(field, function, f"allowed: a function of one number ({error})") from error
    try:
        together = np.asarray(function(probe), dtype=np.float64)
    except Exception:  # math.tanh refuses arrays, `if u > 0` refuses to guess: both are scalar functions
        return False
    return together.shape == probe.shape and bool(np.allclose(together, alone, 1e-9, 1e-12, equal_nan=True))


def _check_derivative(made: Activation) -> None:
    outside = np.array([-10.0, -7.0, -4.5, 4.5, 7.0, 10.0])
    points = np.concatenate([np.linspace(-3.0, 3.0, 49) + 0.0123, outside])
    for field, function in (("phi", made.phi), ("dphi", made.dphi)):
        values = function(points)
        if not np.all(np.isfinite(values)):
            bad = points[~np.isfinite(values)][0]
            raise InputError(field, float(function(bad)), f"must be finite, at u = {bad:g} it is not")
    step = 1e-5
    for kink in made.kinks:
        points = points[np.abs(points - kink) > 10 * step]
    difference = (made.phi(points + step) - made.phi(points - step)) / (2 * step)
    claimed = made.dphi(points)
    size = np.abs(made.phi(points))
    # rounding of φ gives size·ε/step, curvature step²: both far below this
    off = np.abs(difference - claimed) > 1e-6 * (1.0 + np.abs(claimed) + size)
    if np.any(off):
        u, got, want = points[off][0], claimed[off][0], difference[off][0]
        told = f"at u = {u:g} a finite difference of phi gives {want:.8g}; list kinks in `kinks`"
        raise InputError("dphi", float(got), told)


# ---------------------------------------------------------------------------------------- functions of rows


def _floating(u: ArrayLike) -> Array:
    x = np.asarray(u)
    return x if x.dtype.kind == "f" else x.astype(np.float64)


_INV_SQRT_2PI = 1.0 / math.sqrt(2.0 * math.pi)
_TWO_OVER_SQRT_PI = 2.0 / math.sqrt(math.pi)


def _normal_density(x: Array) -> Array:
    return np.exp(-0.5 * x * x) * _INV_SQRT_2PI


def _gelu(u: Any) -> Array:
    x = _floating(u)
    return np.asarray(x * special.ndtr(x))


def _gelu_slope(u: Any) -> Array:
    x = _floating(u)
    near = np.clip(x, -40.0, 40.0)  # x² must not overflow; the density is 0 beyond
    return np.asarray(special.ndtr(x) + near * _normal_density(near))


def _gelu_curvature(u: Any) -> Array:
    near = np.clip(_floating(u), -40.0, 40.0)
    return np.asarray((2.0 - near * near) * _normal_density(near))


def _erf_slope(u: Any) -> Array:
    near = np.clip(_floating(u), -30.0, 30.0)
    return np.asarray(_TWO_OVER_SQRT_PI * np.exp(-near * near))


def _erf_curvature(u: Any) -> Array:
    near = np.clip(_floating(u), -30.0, 30.0)
    return np.asarray(-2.0 * near * _TWO_OVER_SQRT_PI * np.exp(-near * near))


def _tanh_slope(u: Any) -> Array:
    t = np.tanh(_floating(u))
    return 1.0 - t * t


def _tanh_curvature(u: Any) -> Array:
    t = np.tanh(_floating(u))
    return -2.0 * t * (1.0 - t * t)


def _sigmoid_slope(u: Any) -> Array:
    x = _floating(u)
    return np.asarray(special.expit(x) * special.expit(-x))


def _silu(u: Any) -> Array:
    x = _floating(u)
    return np.asarray(x * special.expit(x))


def _silu_slope(u: Any) -> Array:
    x = _floating(u)
    return np.asarray(special.expit(x) * (1.0 + x * special.expit(-x)))


def _silu_curvature(u: Any) -> Array:
    x = _floating(u)
    return np.asarray(_sigmoid_slope(x) * (2.0 - x * np.tanh(0.5 * x)))


def _step(u: Any) -> Array:
    x = _floating(u)
    return np.asarray((x > 0).astype(x.dtype))


def _zero(u: Any) -> Array:
    return np.zeros_like(_floating(u))


def _smooth(name: str, phi: Function, dphi: Function, d2phi: Function, **more: Any) -> Activation:
    return Activation(name, phi, dphi, d2phi=d2phi, **more)


def _leaky(name: str, negative: float) -> Activation:
    def phi(u: Any) -> Array:
        x = _floating(u)
        return np.where(x > 0, x, negative * x)

    def dphi(u: Any) -> Array:
        x = _floating(u)
        return np.where(x > 0, x.dtype.type(1.0), x.dtype.type(negative))

    pieces = (
        Piece(-math.inf, 0.0, (Term(negative, 1, 0.0),)),
        Piece(0.0, math.inf, (Term(1.0, 1, 0.0),)),
    )
    kinks = () if negative == 1.0 else (0.0,)
    slopes = (negative, 1.0)
    return Activation(name, phi, dphi, kinks, slopes=slopes, scale=math.inf, d2phi=_zero, pieces=pieces)


def _exponential_linear(name: str, gain: float, alpha: float) -> Activation:
    """gain·u above 0 and gain·alpha·(e^u − 1) below (Clevert 2016; SELU of Klambauer 2017)."""
    low = gain * alpha

    def phi(u: Any) -> Array:
        x = _floating(u)
        return np.where(x > 0, gain * x, low * np.expm1(np.minimum(x, 0.0)))

    def dphi(u: Any) -> Array:
        x = _floating(u)
        return np.where(x > 0, x.dtype.type(gain), low * np.exp(np.minimum(x, 0.0)))

    def d2phi(u: Any) -> Array:
        x = _floating(u)
        return np.where(x > 0, x.dtype.type(0.0), low * np.exp(np.minimum(x, 0.0)))

    pieces = (
        Piece(-math.inf, 0.0, (Term(low, 0, 1.0), Term(-low, 0, 0.0))),
        Piece(0.0, math.inf, (Term(gain, 1, 0.0),)),
    )
    return Activation(name, phi, dphi, (0.0,), d2phi=d2phi, pieces=pieces)


_HARD_TANH_PIECES = (
    Piece(-math.inf, -1.0, (Term(-1.0, 0, 0.0),)),
    Piece(-1.0, 1.0, (Term(1.0, 1, 0.0),)),
    Piece(1.0, math.inf, (Term(1.0, 0, 0.0),)),
)
_SIGN_PIECES = (Piece(-math.inf, 0.0, (Term(-1.0, 0, 0.0),)), Piece(0.0, math.inf, (Term(1.0, 0, 0.0),)))


def _hard_tanh_slope(u: Any) -> Array:
    x = _floating(u)
    return np.asarray((np.abs(x) < 1).astype(x.dtype))


# Klambauer et al. 2017, to the digits of their reference code
_SELU_GAIN, _SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717

# ------------------------------------------------------------------------------------------------ the table


def _linear(name: str) -> Activation:
    return Activation(
        name,
        lambda u: _floating(u).copy(),
        lambda u: np.ones_like(_floating(u)),
        slopes=(1.0, 1.0),
        scale=math.inf,
        d2phi=_zero,
        pieces=(Piece(-math.inf, math.inf, (Term(1.0, 1, 0.0),)),),
    )


_ROWS: dict[str, Callable[[str], Activation]] = {
    "linear": _linear,
    "relu": lambda n: Activation(
        n,
        lambda u: np.maximum(_floating(u), 0.0),
        _step,
        (0.0,),
        slopes=(0.0, 1.0),
        scale=math.inf,
        d2phi=_zero,
        pieces=(Piece(0.0, math.inf, (Term(1.0, 1, 0.0),)),),
    ),
    "tanh": lambda n: _smooth(n, lambda u: np.tanh(_floating(u)), _tanh_slope, _tanh_curvature, bounded=True),
    "erf": lambda n: _smooth(
        n,
        lambda u: special.erf(_floating(u)),
        _erf_slope,
        _erf_curvature,
        bounded=True,
        scale=0.7,
        kernel="erf",
    ),
    "sigmoid": lambda n: _smooth(
        n,
        lambda u: special.expit(_floating(u)),
        _sigmoid_slope,
        lambda u: -_sigmoid_slope(u) * np.tanh(0.5 * _floating(u)),
        bounded=True,
        scale=2.0,
    ),
    "softplus": lambda n: _smooth(
        n,
        lambda u: np.logaddexp(_floating(u), 0.0),
        lambda u: special.expit(_floating(u)),
        _sigmoid_slope,
        scale=2.0,
    ),
    "silu": lambda n: _smooth(n, _silu, _silu_slope, _silu_curvature, scale=2.0),
    "gelu": lambda n: _smooth(n, _gelu, _gelu_slope, _gelu_curvature, kernel="gelu"),
    "sin": lambda n: _smooth(
        n,
        lambda u: np.sin(_floating(u)),
        lambda u: np.cos(_floating(u)),
        lambda u: -np.sin(_floating(u)),
        bounded=True,
        kernel="sin",
    ),
    "sign": lambda n: Activation(
        n,
        lambda u: np.sign(_floating(u)),
        _zero,
        (0.0,),
        ((0.0, 2.0),),
        bounded=True,
        scale=math.inf,
        d2phi=_zero,
        pieces=_SIGN_PIECES,
        kernel="sign",
    ),
    "hard_tanh": lambda n: Activation(
        n,
        lambda u: np.clip(_floating(u), -1.0, 1.0),
        _hard_tanh_slope,
        (-1.0, 1.0),
        bounded=True,
        scale=math.inf,
        d2phi=_zero,
        pieces=_HARD_TANH_PIECES,
    ),
    "selu": lambda n: _exponential_linear(n, _SELU_GAIN, _SELU_ALPHA),
}


class _Family(NamedTuple):
    """A row with one parameter: how to build it, its usual value, and what is allowed."""

    build: Callable[[str, float], Activation]
    default: float
    minimum: float
    maximum: float
    allowed: str


_FAMILIES: dict[str, _Family] = {
    "leaky_relu": _Family(_leaky, 0.01, -1e50, 1e50, "a negative-side slope from -1e50 to 1e50"),
    "elu": _Family(lambda n, a: _exponential_linear(n, 1.0, a), 1.0, 0.0, 1e50, "an alpha from 0 to 1e50"),
}


def names() -> tuple[str, ...]:
    """The names `activation` knows, sorted; those of families take a parameter in brackets."""
    return tuple(sorted((*_ROWS, *_FAMILIES)))


def _usage() -> tuple[str, ...]:
    return tuple(f"{n}(a)" if n in _FAMILIES else n for n in names())


_SPEC = re.compile(r"\s*([A-Za-z_]\w*)\s*(?:\(([^()]*)\))?\s*")


@cache  # without limit: what compares by identity must stay the one object of its spec
def _parse(spec: str) -> Activation:
    match = _SPEC.fullmatch(spec)
    name = match.group(1) if match else spec
    if match is None or name not in names():
        raise InputError("activation", spec, f"allowed: {', '.join(_usage())}{nearest(name, list(names()))}")
    argument = match.group(2)
    if name in _ROWS:
        if argument is not None:
            raise InputError("activation", spec, f"{name} takes no parameter")
        return _ROWS[name](name) if spec == name else _parse(name)
    family = _FAMILIES[name]
    parameter = _parameter(spec, argument, family)
    canonical = f"{name}({_shortest(parameter)})"
    return family.build(canonical, parameter) if spec == canonical else _parse(canonical)


def _parameter(spec: str, argument: str | None, family: _Family) -> float:
    if argument is None:
        return family.default
    try:
        value = float(argument)
    except ValueError:
        value = math.nan
    if not family.minimum <= value <= family.maximum:
        raise InputError("activation", spec, f"allowed: {family.allowed} in the brackets")
    return value + 0.0  # −0 becomes 0


def _shortest(value: float) -> str:
    return short if float(short := f"{value:g}") == value else repr(value)


def _is_row(candidate: Activation) -> bool:
    try:
        return _parse(candidate.name) is candidate
    except InputError:
        return False
