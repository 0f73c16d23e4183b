"""Philox4x32-10 and the laws on the GPU: docs/streams.md, a block of four words to a thread.

Words are kept in uint32 and multiplied as uint64, so that nothing wraps around but what is masked. Sine and cosine of
float32 angles are polynomials on the reduced quarter turn (Moshier's, of the Cephes library, on |x| ≤ π/4); everything
of float64 is by the functions of the platform.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from mcverify.kernels.cuda.device import Device, Kernel, cuda, device, divided, empty, kernel, place
from mcverify.streams import LANES, Role, Site, role_number, tiles_per_row
from mcverify.weights import TRUNCATED_VARIANCE, weight_law

_u32, _u64, _f, _d = np.uint32, np.uint64, np.float32, np.float64
_M0, _M1, _W0, _W1 = _u64(0xD2511F53), _u64(0xCD9E8D57), _u64(0x9E3779B9), _u64(0xBB67AE85)
_LOW, _32 = _u64(0xFFFFFFFF), _u64(32)

UNIT, WORDS, MASK = "unit", "words", "mask"  # what else than a law may be made of words
LAWS = ("gaussian", "uniform", "truncated_normal", "rademacher")


@device
def philox(c0, c1, c2, c3, k0, k1):
    """The four words of a counter."""
    for _ in range(10):
        p0, p1 = _M0 * _u64(c0), _M1 * _u64(c2)
        c0 = _u32(_u32(_u32(p1 >> _32) ^ c1) ^ k0)
        c2 = _u32(_u32(_u32(p0 >> _32) ^ c3) ^ k1)
        c1, c3 = _u32(p1 & _LOW), _u32(p0 & _LOW)
        k0, k1 = _u32((_u64(k0) + _W0) & _LOW), _u32((_u64(k1) + _W1) & _LOW)
    return c0, c1, c2, c3


@device
def block(index, replicate, layer, role, k0, k1):
    """The words of a block of an address; index and replicate int64, the others uint32."""
    c1 = _u32((index >> 32) | (replicate >> 32) << 24) | _u32(role << _u32(16))
    return philox(_u32(index & 0xFFFFFFFF), _u32(c1), layer, _u32(replicate & 0xFFFFFFFF), k0, k1)


# ---- one or two words to numbers; float32 of words, float64 of pairs of them -------------------------------


@device
def _wide(low, high):
    return _u64(low) | (_u64(high) << _32)


@device
def _unit_32(w):
    return _f(w) * _f(2.0**-32) + _f(2.0**-33)


@device
def _unit_64(w):
    return (_d(w >> _u64(11)) + _d(0.5)) * _d(2.0**-53)


@device
def _signed_32(w):
    return _f(np.int64(w) - np.int64(2147483648)) * _f(2.0**-31) + _f(2.0**-32)


@device
def _signed_64(w):
    return (_d(w >> _u64(11)) - _d(2.0**52) + _d(0.5)) * _d(2.0**-52)


_S = tuple(map(_f, (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)))
_C = tuple(map(_f, (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)))
_S0, _S1, _S2 = _S
_C0, _C1, _C2 = _C
_QUARTER_TURN = _f(math.pi / 2)


@device
def _in_quadrant(s, c, quadrant):
    """(cos, sin) of quadrant quarter turns and an angle whose sine and cosine are s and c."""
    first, second = (s, c) if quadrant & 1 else (c, s)
    first = -first if (quadrant + 1) & 2 else first
    second = -second if quadrant & 2 else second
    return first, second


@device
def _box_muller_32(w, v):
    """Two normals; w the radius, v the angle."""
    r = _f(math.sqrt(_f(-2.0) * _f(math.log(_unit_32(w)))))
    turned = _u32((_u64(v) + _u64(1 << 29)) & _LOW)
    left = np.int32(np.int32(turned & _u32((1 << 30) - 1)) - np.int32(1 << 29))
    x = _QUARTER_TURN * (_f(left) * _f(2.0**-30) + _f(2.0**-31))
    z = x * x
    s = ((_S0 * z + _S1) * z + _S2) * z * x + x
    c = ((_C0 * z + _C1) * z + _C2) * z * z - _f(0.5) * z + _f(1.0)
    quadrant = np.int32(turned >> _u32(30))
    first, second = _in_quadrant(s, c, quadrant)
    return r * first, r * second


@device
def _box_muller_64(w, v):
    r = math.sqrt(_d(-2.0) * math.log(_unit_64(w)))
    turned = (v >> _u64(10)) + _u64(1 << 51)
    left = _d(turned & _u64((1 << 52) - 1)) - _d(2.0**51) + _d(0.5)
    x = _d(math.pi / 2) * (left * _d(2.0**-52))
    s, c = math.sin(x), math.cos(x)
    quadrant = np.int64((turned >> _u64(52)) & _u64(3))
    first, second = _in_quadrant(s, c, quadrant)
    return r * first, r * second


_ERF_ROOT_2, _TO_UNIT = _d(math.erf(math.sqrt(2.0))), _d(math.sqrt(2.0 / TRUNCATED_VARIANCE))
_HALF_ROOT_PI = _d(math.sqrt(math.pi) / 2)


@device
def _truncated(v):
    """√2 erf⁻¹(v erf √2) over its standard deviation: Giles' polynomial of the centre (GPU Computing Gems 2, 2012,
    ch. 10) without its last terms, and three steps of Newton's method on erf."""
    x = _d(v) * _ERF_ROOT_2
    w = -math.log((_d(1.0) - x) * (_d(1.0) + x)) - _d(2.5)
    p = _d(-3.5233877e-06)
    p = p * w + _d(-4.39150654e-06)
    p = p * w + _d(0.00021858087)
    p = p * w + _d(-0.00125372503)
    p = p * w + _d(-0.00417768164)
    p = p * w + _d(0.246640727)
    y = (p * w + _d(1.50140941)) * x
    for _ in range(3):
        y -= (math.erf(y) - x) * _HALF_ROOT_PI * math.exp(y * y)
    return _TO_UNIT * y


@lru_cache(maxsize=16)
def numbers(what: str, wide: bool) -> Any:
    """The device function from a block's four words to its draws: four float32, or two float64."""

    if wide:

        @device
        def gaussian(a, b, c, d):
            return _box_muller_64(_wide(a, b), _wide(c, d))

        @device
        def uniform(a, b, c, d):
            return _signed_64(_wide(a, b)) * _d(math.sqrt(3.0)), _signed_64(_wide(c, d)) * _d(math.sqrt(3.0))

        @device
        def truncated_normal(a, b, c, d):
            return _truncated(_signed_64(_wide(a, b))), _truncated(_signed_64(_wide(c, d)))

        @device
        def rademacher(a, b, c, d):
            return _d(1.0) if b >> _u32(31) else _d(-1.0), _d(1.0) if d >> _u32(31) else _d(-1.0)

        @device
        def unit(a, b, c, d):
            return _unit_64(_wide(a, b)), _unit_64(_wide(c, d))

        @device
        def words(a, b, c, d):
            return _wide(a, b), _wide(c, d)

    else:

        @device
        def gaussian(a, b, c, d):
            first, second = _box_muller_32(a, b)
            third, fourth = _box_muller_32(c, d)
            return first, second, third, fourth

        @device
        def uniform(a, b, c, d):
            return (
                _signed_32(a) * _ROOT_3, _signed_32(b) * _ROOT_3, _signed_32(c) * _ROOT_3, _signed_32(d) * _ROOT_3
            )  # fmt: skip

        @device
        def truncated_normal(a, b, c, d):
            return (
                _f(_truncated(_signed_32(a))), _f(_truncated(_signed_32(b))), _f(_truncated(_signed_32(c))),
                _f(_truncated(_signed_32(d))),
            )  # fmt: skip

        @device
        def _coin(w):
            return _f(1.0) if w >> _u32(31) else _f(-1.0)

        @device
        def rademacher(a, b, c, d):
            return _coin(a), _coin(b), _coin(c), _coin(d)

        @device
        def unit(a, b, c, d):
            return _unit_32(a), _unit_32(b), _unit_32(c), _unit_32(d)

        @device
        def words(a, b, c, d):
            return a, b, c, d

    return {
        "gaussian": gaussian, "uniform": uniform, "truncated_normal": truncated_normal, "rademacher": rademacher,
        UNIT: unit, WORDS: words,
    }[what]  # fmt: skip


_ROOT_3 = _f(math.sqrt(3.0))


# ---- matrices of draws --------------------------------------------------------------------------------------


@lru_cache(maxsize=32)
def _fill(what: str, wide: bool) -> Kernel:
    """out (replicate, rows, cols): a thread to a block of words."""
    made = numbers(UNIT if what == MASK else what, wide)
    real = {WORDS: np.uint64 if wide else np.uint32}.get(what, np.float64 if wide else np.float32)
    masks, each = what == MASK, 2 if wide else 4
    scale = np.float64 if wide else np.float32

    @kernel(("L" if wide else "U") + "nnnnnwwwwd" if what == WORDS else "Rnnnnnwwwwd", real)
    def fill(out, count, rows, cols, tiles, start, layer, role, k0, k1, keep):
        of_row, width = tiles * 16, 16 * each
        for i in range(cuda.grid(1), count * rows * of_row, cuda.gridsize(1)):
            row, lane = divided(i, of_row)
            replicate, at = divided(row, rows)
            a, b, c, d = block(at * of_row + lane, start + replicate, layer, role, k0, k1)
            drawn = made(a, b, c, d)
            first = (lane >> 4) * width + (lane & 15)
            for j in range(each):
                col = first + 16 * j
                if col < cols:
                    value = drawn[j]
                    if masks:
                        value = scale(1.0 / keep) if value < scale(keep) else scale(0.0)
                    out[place(row * cols + col)] = value

    return fill


def address(site: Site, role: Role) -> tuple[Any, ...]:
    """(layer, role, key low, key high) as kernels take them."""
    return (
        np.uint32(site.layer), np.uint32(role_number(role)), np.uint32(site.key & 0xFFFFFFFF), np.uint32(site.key >> 32)
    )  # fmt: skip


def _filled(site: Site, role: Role, what: str, rows: int, cols: int, dtype: Any, keep: float = 1.0) -> Device:
    tiles = tiles_per_row(rows, cols, dtype)  # refuses another type and too many draws
    wide = np.dtype(dtype) == np.float64
    kind = dtype if what != WORDS else np.uint64 if wide else np.uint32
    out = empty((site.count, rows, cols), kind)
    arguments = out.data, site.count, rows, cols, tiles, int(site.start), *address(site, role), float(keep)
    _fill(what, wide).over(site.count * rows * tiles * LANES, *arguments)
    return out


def words(site: Site, role: Role, rows: int, cols: int, dtype: Any) -> Device:
    """(replicate, rows, cols): the word behind each draw, uint32 for float32 and uint64 for float64."""
    return _filled(site, role, WORDS, rows, cols, dtype)


def uniforms(site: Site, role: Role, rows: int, cols: int, dtype: Any) -> Device:
    """(replicate, rows, cols) uniforms in (0, 1): never 0; 1 when the last value rounds up to it."""
    return _filled(site, role, UNIT, rows, cols, dtype)


def mask(site: Site, role: Role, keep: float, rows: int, cols: int, dtype: Any) -> Device:
    """(replicate, rows, cols): 1/keep where the uniform is below keep, 0 elsewhere."""
    return _filled(site, role, MASK, rows, cols, dtype, keep)


def independent(site: Site, role: Role, law: str, rows: int, cols: int, dtype: Any) -> Device:
    """(replicate, rows, cols) draws of a law of independent entries."""
    return _filled(site, role, weight_law(law).name, rows, cols, dtype)


def every() -> list[Kernel]:
    """All kernels here."""
    return [_fill(what, wide) for what in (*LAWS, UNIT, WORDS, MASK) for wide in (False, True)]

