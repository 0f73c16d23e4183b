"""Two jointly Gaussian numbers: validation, and correlation and its complement without cancellation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mcverify.errors import InputError

Floats: TypeAlias = NDArray[np.float64]

CORRELATION_SLACK = 1e-9
"""|q_ab| may exceed √(q_aa·q_bb) by this much, relatively, and is then clipped; beyond, it is refused."""


def variances(field: str, q: ArrayLike) -> Floats:
    """`q` as float64. Raises InputError unless every entry is finite and ≥ 0."""
    out = np.asarray(q, dtype=np.float64)
    fine = np.isfinite(out) & (out >= 0.0)
    if not fine.all():
        raise InputError(field, float(out[~fine].flat[0]), "must be finite and at least 0")
    return out


@dataclass(frozen=True)
class Pairs:
    """Flat arrays, one entry per pair (u_a, u_b): standard deviations, c = cos θ and sin θ.

    sin θ = √(1 − c²) has full relative accuracy even at c = ±(1 − 1e-15), given the three numbers as they
    are. A pair with a zero variance has c = 0.
    """

    sd_a: Floats
    sd_b: Floats
    cos: Floats
    sin: Floats
    q_aa: Floats
    q_ab: Floats
    q_bb: Floats

    def __len__(self) -> int:
        return int(self.cos.size)

    def __getitem__(self, index: Any) -> Pairs:
        return Pairs(*(getattr(self, name)[index] for name in self.__dataclass_fields__))

    @property
    def degenerate(self) -> NDArray[np.bool_]:
        """Whether one of the two is the constant 0."""
        return np.asarray((self.sd_a == 0.0) | (self.sd_b == 0.0))

    @property
    def angle(self) -> Floats:
        """θ in [0, π]."""
        return np.arctan2(self.sin, self.cos)

    @property
    def complement(self) -> Floats:
        """π − θ, accurate where it is small."""
        return np.arctan2(self.sin, -self.cos)

    def larger_first(self) -> Pairs:
        """Each pair with its larger variance as a (every expectation here is symmetric)."""
        sd_a, sd_b = np.maximum(self.sd_a, self.sd_b), np.minimum(self.sd_a, self.sd_b)
        q_aa, q_bb = np.maximum(self.q_aa, self.q_bb), np.minimum(self.q_aa, self.q_bb)
        return Pairs(sd_a, sd_b, self.cos, self.sin, q_aa, self.q_ab, q_bb)


def pairs(q_aa: ArrayLike, q_ab: ArrayLike, q_bb: ArrayLike) -> tuple[Pairs, tuple[int, ...]]:
    """Broadcast, validated, flattened; and the broadcast shape.

    Raises InputError on a negative or non-finite variance and on |q_ab| > (1 + 1e-9)·√(q_aa·q_bb).
    """
    cross = np.asarray(q_ab, dtype=np.float64)
    if not np.isfinite(cross).all():
        raise InputError("q_ab", float(cross[~np.isfinite(cross)].flat[0]), "must be finite")
    broadcast = np.broadcast_arrays(variances("q_aa", q_aa), cross, variances("q_bb", q_bb))
    aa, ab, bb = (np.ascontiguousarray(x).reshape(-1) for x in broadcast)
    return _geometry(aa, ab, bb), broadcast[0].shape


def _geometry(aa: Floats, ab: Floats, bb: Floats) -> Pairs:
    # exact scaling by even powers of two: no product over- or underflows
    exp_a, exp_b = even_exponent(aa), even_exponent(bb)
    a, b = np.ldexp(aa, -exp_a), np.ldexp(bb, -exp_b)
    x = np.ldexp(ab, -(exp_a + exp_b) // 2)
    flat = (aa == 0.0) | (bb == 0.0)
    root = np.where(flat, 1.0, np.sqrt(a * b))
    too_large = np.where(flat, ab != 0.0, np.abs(x) > root * (1.0 + CORRELATION_SLACK))
    if too_large.any():
        i = int(np.argmax(too_large))
        bound = float(np.sqrt(aa[i]) * np.sqrt(bb[i]))
        raise InputError("q_ab", float(ab[i]), f"must satisfy |q_ab| ≤ √(q_aa·q_bb) = {bound:.17g}")
    high, low = _two_product(a, b)
    cross_high, cross_low = _two_product(x, x)
    determinant = np.where(flat, 1.0, np.maximum((high - cross_high) + (low - cross_low), 0.0))
    cos = np.where(flat, 0.0, np.clip(x / root, -1.0, 1.0))
    sin = np.minimum(np.sqrt(determinant) / root, 1.0)
    sd_a, sd_b = np.sqrt(aa), np.sqrt(bb)
    clipped = np.where((sin == 0.0) & (np.abs(x) > root), np.sign(cos) * sd_a * sd_b, ab)
    return Pairs(sd_a, sd_b, np.where(sin == 0.0, np.sign(cos), cos), sin, aa, clipped, bb)


def even_exponent(q: Floats) -> NDArray[np.int32]:
    """n such that q·2^−n lies in [¼, 1), even."""
    exponent = np.frexp(q)[1].astype(np.int32)
    return exponent + (exponent & 1)


_SPLIT = 134217729.0  # 2^27 + 1


def _two_product(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """a·b as an unevaluated sum high + low, exactly (Dekker 1971, Veltkamp's splitting)."""
    high = a * b
    a1 = a * _SPLIT - (a * _SPLIT - a)
    b1 = b * _SPLIT - (b * _SPLIT - b)
    a2, b2 = a - a1, b - b1
    return high, ((a1 * b1 - high) + a1 * b2 + a2 * b1) + a2 * b2
