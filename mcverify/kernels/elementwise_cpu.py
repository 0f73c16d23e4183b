"""φ and φ′ of float32 signals, compiled; NumPy for float64, for activations of the user's own, and where it is
as fast.

Errors are a few units in the last place, relative to the value or, near the zeros of φ and in the tails of φ′,
to its scale. The polynomials are weighted minimax fits in double precision, highest power first: e^r on |r| ≤ ½ ln 2 to
2e-9, erf(x)/x in x² on |x| ≤ 1 to 2e-9, ln(1 + e)/e on (0, 1] to 3e-8, and e^{a²} erfc(a) / t in
t = 1/(1 + 0.6 a) to 8e-8 for every a ≥ 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mcverify import activations
from mcverify.activations import Activation
from mcverify.kernels import arrays, memory
from mcverify.kernels.linear_cpu import packed

Array = NDArray[Any]

_COMPILED: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"contract"}}

_f = np.float32
_LOG2_E, _LN2_HIGH, _LN2_LOW = _f(1.4426950408889634), _f(0.693359375), _f(-2.12194440e-4)
_HALF, _ONE, _TWO, _ZERO = _f(0.5), _f(1.0), _f(2.0), _f(0.0)
_ROOT_HALF, _SLOPE_OF_ERF, _DENSITY = _f(math.sqrt(0.5)), _f(2 / math.sqrt(math.pi)), _f(1 / math.sqrt(2 * math.pi))
_EXP = tuple(map(_f, (1.383684181e-03, 8.374815781e-03, 4.166822564e-02, 1.666642017e-01, 4.999999208e-01, 1.0, 1.0)))
_ERF = tuple(
    map(_f, (7.853857612e-05, -8.010192493e-04, 5.188327557e-03, -2.685381187e-02, 1.128358515e-01, -3.761262582e-01,
             1.128379166))
)  # fmt: skip
_ERFC = tuple(
    map(_f, (8.272773557e-02, -4.048728917e-01, 7.524020373e-01, -5.682773409e-01, 4.925610617e-02, -2.464880312e-02,
             1.589622452e-01, 2.774211728e-01, 3.385160591e-01, 3.385137568e-01))
)  # fmt: skip
_LOG = tuple(
    map(_f, (5.232624064e-03, -2.950495746e-02, 7.822549375e-02, -1.366320693e-01, 1.910598849e-01, -2.484297755e-01,
             3.331909622e-01, -4.999949311e-01, 1.0))
)  # fmt: skip


# ---- scalars, float32 -----------------------------------------------------------------------------------


@njit(**_COMPILED)
def _polynomial(c: Any, x: Any) -> Any:
    value = c[0]
    for i in range(1, len(c)):
        value = value * x + c[i]
    return value


@njit(**_COMPILED)
def _exp(x: Any) -> Any:
    """e^x for x ≤ 0; below −87 about 1e-38. NaN stays."""
    x = _f(-87.0) if x < _f(-87.0) else x
    n = np.floor(x * _LOG2_E + _HALF)
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    power = np.int32((np.int32(n) + 127) << 23).view(np.float32)
    return _polynomial(_EXP, r) * power


@njit(**_COMPILED)
def _erfc_factor(a: Any) -> Any:
    """e^{a²} erfc(a) for a ≥ 0."""
    t = _ONE / (_ONE + _f(0.6) * a)
    return t * _polynomial(_ERFC, t)


@njit(**_COMPILED)
def _sigmoid(x: Any) -> Any:
    e = _exp(-abs(x))
    return (_ONE if x > _ZERO else e) / (_ONE + e)


@njit(**_COMPILED)
def _erf(x: Any) -> Any:
    a = abs(x)
    inner = a * _polynomial(_ERF, x * x)
    outer = _ONE - _exp(-x * x) * _erfc_factor(a)
    size = inner if a < _ONE else outer
    return -size if x < _ZERO else size


@njit(**_COMPILED)
def _normal_cdf(x: Any) -> Any:
    tail = _HALF * _exp(-_HALF * x * x) * _erfc_factor(_ROOT_HALF * abs(x))
    return _ONE - tail if x > _ZERO else tail


# ---- out ← φ(h), then out ← φ′(h) d; all (n,) --------------------------------------------------------------


@njit(**_COMPILED)
def _erf_phi(h: Array, out: Array) -> None:
    for u in range(len(h)):
        out[u] = _erf(h[u])


@njit(**_COMPILED)
def _sigmoid_phi(h: Array, out: Array) -> None:
    for u in range(len(h)):
        out[u] = _sigmoid(h[u])


@njit(**_COMPILED)
def _softplus_phi(h: Array, out: Array) -> None:
    for u in range(len(h)):
        e = _exp(-abs(h[u]))
        out[u] = (_ZERO if h[u] < _ZERO else h[u]) + e * _polynomial(_LOG, e)


@njit(**_COMPILED)
def _silu_phi(h: Array, out: Array) -> None:
    for u in range(len(h)):
        out[u] = h[u] * _sigmoid(h[u])


@njit(**_COMPILED)
def _gelu_phi(h: Array, out: Array) -> None:
    for u in range(len(h)):
        out[u] = h[u] * _normal_cdf(h[u])


@njit(**_COMPILED)
def _slopes_phi(h: Array, out: Array, negative: Any, positive: Any) -> None:
    for u in range(len(h)):
        out[u] = h[u] * (positive if h[u] > _ZERO else negative)


@njit(**_COMPILED)
def _tanh_pull(h: Array, d: Array, out: Array) -> None:
    """h is tanh(h) here."""
    for u in range(len(h)):
        out[u] = d[u] * (_ONE - h[u] * h[u])


@njit(**_COMPILED)
def _erf_pull(h: Array, d: Array, out: Array) -> None:
    for u in range(len(h)):
        out[u] = d[u] * (_SLOPE_OF_ERF * _exp(-h[u] * h[u]))


@njit(**_COMPILED)
def _sigmoid_pull(h: Array, d: Array, out: Array) -> None:
    for u in range(len(h)):
        e = _exp(-abs(h[u]))
        out[u] = d[u] * (e / ((_ONE + e) * (_ONE + e)))


@njit(**_COMPILED)
def _softplus_pull(h: Array, d: Array, out: Array) -> None:
    for u in range(len(h)):
        out[u] = d[u] * _sigmoid(h[u])


@njit(**_COMPILED)
def _silu_pull(h: Array, d: Array, out: Array) -> None:
    for u in range(len(h)):
        out[u] = d[u] * (_sigmoid(h[u]) * (_ONE + h[u] * _sigmoid(-h[u])))


@njit(**_COMPILED)
def _gelu_pull(h: Array, d: Array, out: Array) -> None:
    for u in range(len(h)):
        density = _DENSITY * _exp(-_HALF * h[u] * h[u])
        out[u] = d[u] * (_normal_cdf(h[u]) + h[u] * density)


@njit(**_COMPILED)
def _slopes_pull(h: Array, d: Array, out: Array, negative: Any, positive: Any) -> None:
    for u in range(len(h)):
        out[u] = d[u] * (positive if h[u] > _ZERO else negative)


@njit(**_COMPILED)
def _hard_tanh_pull(h: Array, d: Array, out: Array) -> None:
    for u in range(len(h)):
        out[u] = d[u] * (_ONE if abs(h[u]) < _ONE else _ZERO)


# ---- the primitives -------------------------------------------------------------------------------------

_PHI: dict[str, Callable[..., Any]] = {
    "tanh": lambda h, out: np.tanh(h, out=out),
    "sin": lambda h, out: np.sin(h, out=out),
    "erf": _erf_phi,
    "sigmoid": _sigmoid_phi,
    "softplus": _softplus_phi,
    "silu": _silu_phi,
    "gelu": _gelu_phi,
    "hard_tanh": lambda h, out: np.clip(h, -_ONE, _ONE, out=out),
}
_PULL: dict[str, Callable[..., Any]] = {
    "tanh": lambda h, d, out: _tanh_pull(np.tanh(h, out=out), d, out),
    "sin": lambda h, d, out: np.multiply(np.cos(h, out=out), d, out=out),
    "erf": _erf_pull,
    "sigmoid": _sigmoid_pull,
    "softplus": _softplus_pull,
    "silu": _silu_pull,
    "gelu": _gelu_pull,
    "hard_tanh": _hard_tanh_pull,
}


def _known(phi: Activation, table: dict[str, Callable[..., Any]]) -> Callable[..., Any] | None:
    """The row's function in a table; None for what is not in it, or only borrows its name."""
    found = table.get(phi.name)
    return found if found is not None and activations.activation(phi.name) is phi else None


def activate(phi: Activation, h: Array) -> Array:
    """φ(h)."""
    if h.dtype != np.float32 or not h.flags.c_contiguous:
        return np.asarray(phi.phi(h))
    known = _known(phi, _PHI)
    if known is None and phi.slopes is None:
        return np.asarray(phi.phi(h))
    out = memory.empty(h.shape, h.dtype)
    if known is not None:
        known(h.ravel(), out.ravel())
    else:
        _slopes_phi(h.ravel(), out.ravel(), *map(_f, phi.slopes or ()))
    return out


@njit(cache=True, nogil=True)  # products are rounded before they are added, as NumPy does
def _affine(y: Array, gain: Any, b: Array, scale: Any) -> None:
    for r in range(y.shape[0]):
        for c in range(y.shape[1]):
            out, bias = y[r, c], b[r, 0]
            for u in range(len(out)):
                out[u] = gain * out[u] + scale * bias[u]


def affine(y: Array, gain: float, b: Array | None = None, scale: float = 0.0) -> Array:
    """y ← gain · y + scale · b, in place and in one pass; y (replicate, columns, units), b (replicate, 1, units)."""
    packs = b is not None and y.ndim == 3 and y.flags.carray and b.dtype == y.dtype
    if b is None or not packs or b.shape != (len(y), 1, y.shape[2]):  # NumPy broadcasts what else there is, or refuses
        return arrays.affine(y, gain, b, scale)
    _affine(y, y.dtype.type(gain), packed(b), y.dtype.type(scale))
    return y


def slope(phi: Activation, h: Array) -> Array:
    """φ′(h)."""
    if h.dtype != np.float32 or (_known(phi, _PULL) is None and phi.slopes is None):
        return np.asarray(phi.dphi(h))
    return slope_times(phi, h, np.ones((len(h), 1, *h.shape[1:]), h.dtype))[:, 0]


def slope_times(phi: Activation, h: Array, d: Array) -> Array:
    """φ′(h) d. h (replicate, …), d (replicate, direction, …)."""
    packed = h.dtype == d.dtype == np.float32 and h.flags.c_contiguous and d.flags.c_contiguous
    known = _known(phi, _PULL)
    alone = d.shape[1] == 1 and len(h) == len(d)  # an h for each row of d
    if not packed or not alone or (known is None and phi.slopes is None):
        out = memory.empty(np.broadcast_shapes(d.shape, (len(h), 1, *h.shape[1:])), d.dtype)
        return np.multiply(d, slope(phi, h)[:, None], out=out)
    out = memory.empty(d.shape, d.dtype)
    if known is not None:
        known(h.ravel(), d.ravel(), out.ravel())
    else:
        _slopes_pull(h.ravel(), d.ravel(), out.ravel(), *map(_f, phi.slopes or ()))
    return out
