"""Two-point expectations over tiles of a covariance matrix, compiled: rows are u_a, columns u_b.

The same formulas as `pairs`, `closed_forms` and `mehler`, written so that a compiler turns them into vector
instructions: no branch, angles by a polynomial. arctan x / x on |x| ≤ tan(π/8) is a polynomial in x² interpolated at
Chebyshev points, relatively 3e-18 off; sin ψ − ψ cos ψ below ψ = 1 its Taylor series, 1e-19 off.

The sides of a tile come column by column: q = mantissa / factor², a factor being a power of two, so that products of
variances neither over- nor underflow; then what a formula needs besides. A zero variance makes c = 0.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mcverify.expectations.pairs import CORRELATION_SLACK

Array = NDArray[Any]

_COMPILED: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}

_ARCTAN = (
    -0.017803896394812564, 0.03796390316111083, -0.05035049795312439, 0.05846866752275139, -0.06662950246036792,
    0.07692045194561481, -0.09090896801472813, 0.11111110744657099, -0.14285714279244968, 0.19999999999940837,
    -0.3333333333333312, 1.0,
)  # fmt: skip
_CUBIC = tuple((-1.0) ** (n + 1) * 2 * n / math.factorial(2 * n + 1) for n in range(10, 0, -1))
_TAN_PI_8 = math.sqrt(2.0) - 1.0
_LARGEST = 1.0 + CORRELATION_SLACK
_ROUNDING = 8.0 * float(np.finfo(np.float64).eps)
_SPLIT = 134217729.0  # 2^27 + 1


@njit(**_COMPILED)
def _polynomial(c: Any, x: Any) -> Any:
    value = c[0]
    for i in range(1, len(c)):
        value = value * x + c[i]
    return value


@njit(**_COMPILED)
def _first_quadrant(sin: Any, cos: Any) -> Any:
    """The angle in [0, π/2] of two numbers ≥ 0, one of them positive."""
    low, high = min(sin, cos), max(sin, cos)
    steep = low > _TAN_PI_8 * high
    x = (low - high if steep else low) / (low + high if steep else high)
    angle = x * _polynomial(_ARCTAN, x * x) + (0.25 * math.pi if steep else 0.0)
    return 0.5 * math.pi - angle if sin > cos else angle


@njit(**_COMPILED)
def _rounding_of(product: Any, a: Any, b: Any) -> Any:
    """a·b − product exactly, product being the rounded one (Dekker 1971)."""
    a1 = a * _SPLIT - (a * _SPLIT - a)
    b1 = b * _SPLIT - (b * _SPLIT - b)
    a2, b2 = a - a1, b - b1
    return ((a1 * b1 - product) + a1 * b2 + a2 * b1) + a2 * b2


@njit(**_COMPILED)
def _geometry(q_ab: Array, a: Any, factor_a: Any, b: Array, factor_b: Array, cos: Array, sin: Array) -> int:
    """cos θ and sin θ of one row, as in `pairs`; how many entries two variances do not allow, or are not finite."""
    beyond = 0
    for j in range(len(q_ab)):
        x = q_ab[j] * factor_a * factor_b[j]
        square = a * b[j]
        flat = square == 0.0
        root = 1.0 if flat else math.sqrt(square)
        beyond += not (abs(q_ab[j]) <= 0.0 if flat else abs(x) <= root * _LARGEST)
        cross = x * x
        determinant = (square - cross) + (_rounding_of(square, a, b[j]) - _rounding_of(cross, x, x))
        s = min(math.sqrt(max(determinant, 0.0)) / root, 1.0)
        c = max(-1.0, min(x / root, 1.0))
        c = math.copysign(1.0, c) if s == 0.0 else c
        cos[j], sin[j] = (0.0, 1.0) if flat else (c, s)
    return beyond


@njit(**_COMPILED)
def _arc_cosine_1(angle: Any, sin: Any, cos: Any) -> Any:
    """(sin ψ − ψ cos ψ)/2π."""
    series = angle * angle * angle * _polynomial(_CUBIC, angle * angle)
    return (series if angle < 1.0 else sin - angle * cos) / (2.0 * math.pi)


@njit(**_COMPILED)
def homogeneous(tile: Array, rows: Array, columns: Array, numbers: Any, value: Array, error: Array) -> int:
    """The arc-cosine kernels of positively homogeneous φ; numbers: s₋² + s₊², s₋ s₊, 1 for derivatives.

    rows, columns (3, n): mantissa, factor, variance. Returns what `_geometry` counts."""
    same, opposite, slopes = numbers
    cos, sin, sd = np.empty(tile.shape[1]), np.empty(tile.shape[1]), np.sqrt(columns[2])
    beyond = 0
    for i in range(tile.shape[0]):
        beyond += _geometry(tile[i], rows[0, i], rows[1, i], columns[0], columns[1], cos, sin)
        here, wrong, sd_a = value[i], error[i], math.sqrt(rows[2, i])
        for j in range(len(cos)):
            small = _first_quadrant(sin[j], abs(cos[j]))
            angle = small if cos[j] >= 0.0 else math.pi - small
            complement = math.pi - small if cos[j] >= 0.0 else small
            if slopes == 1.0:
                first, second = complement / (2.0 * math.pi), angle / (2.0 * math.pi)
                size, second = 1.0, -second
            else:
                size = sd_a * sd[j]
                first = _arc_cosine_1(complement, sin[j], -cos[j])
                second = _arc_cosine_1(angle, sin[j], cos[j]) if opposite != 0.0 else 0.0
            first, second = size * same * first, -2.0 * size * opposite * second
            here[j] = first + second
            wrong[j] = _ROUNDING * (abs(first) + abs(second))
    return beyond


@njit(**_COMPILED)
def erf(tile: Array, rows: Array, columns: Array, numbers: Any, value: Array, error: Array) -> int:
    """The arcsine kernel of erf, or that of its derivative; as `homogeneous`."""
    cos, sin = np.empty(tile.shape[1]), np.empty(tile.shape[1])
    beyond = 0
    for i in range(tile.shape[0]):
        beyond += _geometry(tile[i], rows[0, i], rows[1, i], columns[0], columns[1], cos, sin)
        here, wrong, q_aa = value[i], error[i], rows[2, i]
        root = math.sqrt(q_aa)
        for j in range(len(cos)):
            both = root * math.sqrt(columns[2, j])
            determinant = (both * sin[j]) * (both * sin[j])
            rest = math.sqrt(1.0 + 2.0 * (q_aa + columns[2, j]) + 4.0 * determinant)
            if numbers[2] == 1.0:
                here[j] = 4.0 / math.pi / rest
            else:
                x = 2.0 * both * cos[j]
                here[j] = math.copysign(2.0 / math.pi * _first_quadrant(abs(x), rest), x)
            wrong[j] = _ROUNDING * abs(here[j])
    return beyond


@njit(**_COMPILED)
def _power(x: Array, n: int, out: Array) -> None:
    """out ← |x|^n."""
    square = np.abs(x)
    out[:] = 1.0
    while n:
        if n & 1:
            for j in range(len(x)):
                out[j] *= square[j]
        for j in range(len(x)):
            square[j] *= square[j]
        n >>= 1


@njit(fastmath={"contract"}, **_COMPILED)
def _horner(rows: Array, columns: Array, x: Array, total: Array) -> None:
    """total ← Σ_k rows[k] columns[k] x^k; k < a multiple of four, taken at once."""
    total[:] = 0.0
    for k in range(len(rows) - 4, -1, -4):
        a, b, c, d = rows[k], rows[k + 1], rows[k + 2], rows[k + 3]
        row_a, row_b, row_c, row_d = columns[k], columns[k + 1], columns[k + 2], columns[k + 3]
        for j in range(len(x)):
            upper = (total[j] * x[j] + d * row_d[j]) * x[j] + c * row_c[j]
            total[j] = (upper * x[j] + b * row_b[j]) * x[j] + a * row_a[j]


@njit(**_COMPILED)
def mehler(
    tile: Array, rows: Any, columns: Any, even_rows: Array, odd_rows: Array, even: Array, odd: Array, count: int,
    target: float, value: Array, error: Array,
) -> int:  # fmt: skip
    """Mehler's series of `count` terms wherever the error so far is above target · √(E f_a² E f_b²).

    even, odd: (terms, n) coefficients, without rows where they all vanish. rows, columns (6, n): mantissa, factor,
    √E f², √tail, the coefficients' error, what is beyond the rule's reach. Returns what `_geometry` counts."""
    n = tile.shape[1]
    cos, sin, x, total, left = np.empty(n), np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    beyond = 0
    for i in range(tile.shape[0]):
        here, wrong, allowed = value[i], error[i], target * rows[2, i]
        open_ = 0
        for j in range(n):
            open_ += not (wrong[j] <= allowed * columns[2, j])
        if not open_:
            continue
        beyond += _geometry(tile[i], rows[0, i], rows[1, i], columns[0], columns[1], cos, sin)
        _power(cos, count, left)
        for j in range(n):
            norm = rows[2, i] * columns[2, j]
            left[j] *= rows[3, i] * columns[3, j]
            left[j] += rows[4, i] * columns[2, j] + columns[4, j] * rows[2, i]
            left[j] += rows[5, i] * columns[5, j] + _ROUNDING * norm
            x[j] = cos[j] * cos[j]
        _horner(even_rows[:, i], even, x, total)
        _horner(odd_rows[:, i], odd, x, sin)
        for j in range(n):
            better = left[j] < wrong[j]
            here[j] = total[j] + cos[j] * sin[j] if better else here[j]
            wrong[j] = left[j] if better else wrong[j]
    return beyond


@njit(**_COMPILED)
def mirror(tile: Array, out: Array, diagonal: bool) -> None:
    """out ← tile transposed; of a tile on the diagonal what lies above that alone, so that it may be out itself."""
    rows, columns = tile.shape
    for column in range(0, columns, 16):
        for row in range(0, rows, 16):
            for j in range(column, min(column + 16, columns)):
                for i in range(row, min(row + 16, rows, j if diagonal else rows)):
                    out[j, i] = tile[i, j]


@njit(**_COMPILED)
def how_many_open(error: Array, rows: Array, columns: Array, target: float, diagonal: bool) -> int:
    """Pairs of a tile, of one on the diagonal those above it, whose error is above the target; rows, columns: norms."""
    found = 0
    for a in range(len(rows)):
        row, allowed = error[a], target * rows[a]
        for b in range(a + 1 if diagonal else 0, len(row)):
            found += not (row[b] <= allowed * columns[b])
    return found
