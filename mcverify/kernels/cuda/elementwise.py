"""Entry by entry on the GPU: φ and φ′ of every row of the activation table, products, sums."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from mcverify import activations
from mcverify.activations import Activation
from mcverify.kernels.cuda.device import Device, Kernel, cuda, device, divided, empty, given, host, kernel, place

# ---- φ and φ′ as device functions: of a real type, and of what the row says -----------------------------------


@lru_cache(maxsize=2)
def _table(real: Any) -> dict[str, tuple[Any, Any]]:
    """(φ, φ′) of the smooth rows."""
    zero, half, one = real(0.0), real(0.5), real(1.0)
    root_half, density, erf_slope = real(math.sqrt(0.5)), real(1 / math.sqrt(2 * math.pi)), real(2 / math.sqrt(math.pi))

    @device
    def tanh(x):
        return real(math.tanh(x))

    @device
    def tanh_slope(x):
        t = real(math.tanh(x))
        return one - t * t

    @device
    def erf(x):
        return real(math.erf(x))

    @device
    def gauss(x):
        return erf_slope * real(math.exp(-x * x))

    @device
    def sigmoid(x):
        e = real(math.exp(-abs(x)))
        return (e if x < zero else one) / (one + e)

    @device
    def sigmoid_slope(x):
        e = real(math.exp(-abs(x)))
        return e / ((one + e) * (one + e))

    @device
    def softplus(x):
        return (zero if x < zero else x) + real(math.log1p(real(math.exp(-abs(x)))))

    @device
    def silu(x):
        return x * sigmoid(x)

    @device
    def silu_slope(x):
        return sigmoid(x) * (one + x * sigmoid(-x))

    @device
    def gelu(x):
        return x * (half * real(math.erfc(-x * root_half)))

    @device
    def gelu_slope(x):
        return half * real(math.erfc(-x * root_half)) + x * (density * real(math.exp(-half * x * x)))

    @device
    def sine(x):
        return real(math.sin(x))

    @device
    def cosine(x):
        return real(math.cos(x))

    @device
    def sign(x):
        return one if x > zero else (-one if x < zero else x)

    @device
    def flat(x):
        return zero

    @device
    def hard_tanh(x):
        return one if x > one else (-one if x < -one else x)

    @device
    def hard_tanh_slope(x):
        return one if abs(x) < one else zero

    return {
        "tanh": (tanh, tanh_slope), "erf": (erf, gauss), "sigmoid": (sigmoid, sigmoid_slope),
        "softplus": (softplus, sigmoid), "silu": (silu, silu_slope), "gelu": (gelu, gelu_slope),
        "sin": (sine, cosine), "sign": (sign, flat), "hard_tanh": (hard_tanh, hard_tanh_slope),
    }  # fmt: skip


def _homogeneous(real: Any, negative: float, positive: float) -> tuple[Any, Any]:
    below, above, zero = real(negative), real(positive), real(0.0)

    @device
    def phi(x):
        return x * (above if x > zero else below)

    @device
    def dphi(x):
        return above if x > zero else below

    return phi, dphi


def _exponential(real: Any, low: float, gain: float) -> tuple[Any, Any]:
    """gain·u above 0, low·(e^u − 1) below."""
    below, above, zero = real(low), real(gain), real(0.0)

    @device
    def phi(x):
        return above * x if x > zero else below * real(math.expm1(x))

    @device
    def dphi(x):
        return above if x > zero else below * real(math.exp(x))

    return phi, dphi


@lru_cache(maxsize=128)
def _functions(name: str, real: Any) -> tuple[Any, Any] | None:
    """(φ, φ′) of a row of the table; None for what the table does not know."""
    row = activations.activation(name)
    if row.slopes is not None:
        return _homogeneous(real, *row.slopes)
    if name.startswith(("elu", "selu")):
        return _exponential(real, row.pieces[0].terms[0].coefficient, row.pieces[1].terms[0].coefficient)
    return _table(real).get(name)


def _known(phi: Activation, real: Any) -> tuple[Any, Any] | None:
    """Not of activations of a user's own, even where one borrows a name."""
    try:
        return _functions(phi.name, real) if activations.activation(phi.name) is phi else None
    except ValueError:
        return None


# ---- kernels ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _applied(name: str, derivative: bool, real: Any) -> Kernel:
    found = _functions(name, real)
    assert found is not None
    f = found[derivative]

    @kernel("RRn", real)
    def applied(h, out, n):
        for i in range(cuda.grid(1), n, cuda.gridsize(1)):
            out[place(i)] = f(h[place(i)])

    return applied


@lru_cache(maxsize=256)
def _pulled(name: str, real: Any) -> Kernel:
    found = _functions(name, real)
    assert found is not None
    dphi = found[1]

    @kernel("RRRnnn", real)
    def pulled(h, d, out, n, directions, inner):
        """d, out (replicate, direction, inner), h (replicate, inner)."""
        for i in range(cuda.grid(1), n, cuda.gridsize(1)):
            there = i
            if directions > 1:
                row, at = divided(i, inner)
                replicate, _ = divided(row, directions)
                there = replicate * inner + at
            out[place(i)] = d[place(i)] * dphi(h[place(there)])

    return pulled


@lru_cache(maxsize=2)
def _sum(real: Any) -> Kernel:
    @kernel("RRdRn", real)
    def add(a, b, scale, out, n):
        s = real(scale)
        for i in range(cuda.grid(1), n, cuda.gridsize(1)):
            out[i] = a[i] + s * b[i]

    return add


@lru_cache(maxsize=4)
def _affine(real: Any, biased: bool) -> Kernel:
    @kernel("RdRdnnn", real)
    def affine(y, gain, b, scale, n, columns, units):
        """y (replicate, columns, units), b (replicate, units)."""
        g, s = real(gain), real(scale)
        for i in range(cuda.grid(1), n, cuda.gridsize(1)):
            value = g * y[i]
            if biased:
                column, unit = divided(i, units)
                replicate, _ = divided(column, columns)
                value += s * b[replicate * units + unit]
            y[i] = value

    return affine


@lru_cache(maxsize=2)
def _product(real: Any) -> Kernel:
    @kernel("RRRnnnnnnnnnnnn", real)
    def multiply(a, b, out, n, n1, n2, n3, a0, a1, a2, a3, b0, b1, b2, b3):
        """out (n0, n1, n2, n3), n entries; a and b by their steps along each axis, 0 where they are repeated."""
        for i in range(cuda.grid(1), n, cuda.gridsize(1)):
            rest, i3 = divided(i, n3)
            rest, i2 = divided(rest, n2)
            i0, i1 = divided(rest, n1)
            out[i] = a[i0 * a0 + i1 * a1 + i2 * a2 + i3 * a3] * b[i0 * b0 + i1 * b1 + i2 * b2 + i3 * b3]

    return multiply


# ---- the primitives -----------------------------------------------------------------------------------------


def _on_host(f: Callable[..., Any], *arrays: Device) -> Device:
    """By NumPy, there and back: activations of a user's own are functions of the host."""
    return given(np.asarray(f(*map(host, arrays)), arrays[0].dtype))


def activate(phi: Activation, h: Device) -> Device:
    """φ(h)."""
    if _known(phi, h.real) is None:
        return _on_host(phi.phi, h)
    out = empty(h.shape, h.dtype)
    _applied(phi.name, False, h.real).over(h.size, h.data, out.data, h.size)
    return out


def slope(phi: Activation, h: Device) -> Device:
    """φ′(h)."""
    if _known(phi, h.real) is None:
        return _on_host(phi.dphi, h)
    out = empty(h.shape, h.dtype)
    _applied(phi.name, True, h.real).over(h.size, h.data, out.data, h.size)
    return out


def slope_times(phi: Activation, h: Device, d: Device) -> Device:
    """φ′(h) d, one h for every direction of d (replicate, direction, …); h may stand for all replicates."""
    if _known(phi, h.real) is None or len(h) != len(d):
        return multiply(d, slope(phi, h).reshape(len(h), 1, *h.shape[1:]))
    out, inner = empty(d.shape, d.dtype), h.size // max(len(h), 1)
    _pulled(phi.name, h.real).over(d.size, h.data, d.data, out.data, d.size, d.shape[1], inner)
    return out


def add(a: Device, b: Device, scale: float) -> Device:
    """a + scale · b; a may stand for all replicates of b."""
    if a.shape != b.shape:
        a = multiply(a, given(np.ones((len(b), *[1] * (b.ndim - 1)), b.dtype)))
    out = empty(a.shape, a.dtype)
    _sum(a.real).over(a.size, a.data, b.data, float(scale), out.data, a.size)
    return out


def affine(y: Device, gain: float, b: Device | None = None, scale: float = 0.0) -> Device:
    """y ← gain · y + scale · b, in place; y (replicate, columns, units), b (replicate, 1, units)."""
    columns, units = y.shape[-2:]
    arguments = y.data, float(gain), (y if b is None else b).data, float(scale), y.size, columns, units
    _affine(y.real, b is not None).over(y.size, *arguments)
    return y


def multiply(a: Device, b: Device) -> Device:
    """a · b, broadcasting over up to four axes."""
    shape = np.broadcast_shapes(a.shape, b.shape)
    out = empty(shape, a.dtype)
    full = (1,) * (4 - len(shape)) + shape
    steps = [s for v in (a, b) for s in _steps(v.shape)]
    _product(a.real).over(out.size, a.data, b.data, out.data, out.size, *full[1:], *steps)
    return out


def _steps(shape: tuple[int, ...]) -> list[int]:
    """How far apart neighbours along four axes are, 0 where the axis is repeated."""
    full = (1,) * (4 - len(shape)) + shape
    return [0 if full[i] == 1 else math.prod(full[i + 1 :]) for i in range(4)]


def every() -> list[Kernel]:
    """All kernels here, of the table's rows as they are named without a parameter."""
    reals = (np.float32, np.float64)
    rows = [name for name in activations.names() if _functions(name, np.float64) is not None]
    made = [_applied(name, derivative, r) for name in rows for derivative in (False, True) for r in reals]
    made += [_pulled(name, r) for name in rows for r in reals]
    return made + [k for r in reals for k in (_sum(r), _affine(r, True), _affine(r, False), _product(r))]
