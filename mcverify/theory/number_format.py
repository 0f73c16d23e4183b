"""How deep a residual network may be before a number format swallows its blocks' increments (Taki 2017, §2.3).

A block adds an increment of standard deviation s = √(c q/L) to a stream of variance q that is stored with p
significand bits. Neighbours in the binade [2^e, 2^{e+1}) are h_e = 2^{e−p+1} apart: what is added to a unit is a
multiple of that. All depends on L/(c 4^p) alone, but for which part of a binade √q lies in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from mcverify.errors import InputError
from mcverify.validate import count, one_of, positive

FloatArray = NDArray[np.float64]

SIGNIFICAND_BITS = {"bfloat16": 8, "float16": 11, "float32": 24, "float64": 53}
SMALLEST_NORMAL = {"bfloat16": 2.0**-126, "float16": 2.0**-14, "float32": 2.0**-126, "float64": 2.0**-1022}

HALF_LOST_LOAD = 1.35
"""The L/(c 4^p) at which `kept_growth` is a half: 1.34 to 1.37 for p = 4, 5 and c = ¼, 1."""

_MOST_STATES = 4000


@dataclass(frozen=True)
class DepthLimit:
    """What storing a residual stream in a format does to blocks of Var w = c/(nL).

    load: L/(c 4^p). half_lost_at: the number of blocks at which half of the log growth is lost. moved: E(Δx)²/s² in the
    first block, for units N(0, 1): below 1 where increments are swallowed. subnormal_weights: whether a weight's
    standard deviation is below the format's smallest normal number."""

    format: str
    load: float
    half_lost_at: float
    moved: float
    subnormal_weights: bool


def depth_limit(format: str, fan_in: int, depth: int, c: float = 1.0) -> DepthLimit:
    """What a residual stream in "bfloat16", "float16", "float32" or "float64" does to Taki's initialisation.

    fan_in: inputs of a unit of a block's map, as for `taki_initialisation`. Limit of infinite width for units N(0, 1)
    at the first block; half_lost_at goes by the collapse on L/(c 4^p) (see `kept_growth`), to a few percent. Raises
    InputError for another format, or numbers out of range."""
    one_of("format", format, SIGNIFICAND_BITS)
    fan_in, depth, c = count("fan_in", fan_in), count("depth", depth), positive("c", c)
    bits = SIGNIFICAND_BITS[format]
    return DepthLimit(
        format=format,
        load=depth / (c * 4.0**bits),
        half_lost_at=HALF_LOST_LOAD * c * 4.0**bits,
        moved=moved_variance(math.sqrt(c / depth), bits),
        subnormal_weights=math.sqrt(c / (fan_in * depth)) < SMALLEST_NORMAL[format],
    )


def moved_variance(s: float, bits: int, q: float = 1.0) -> float:
    """E(Δx)²/s² for one unit x ~ N(0, q) stored with `bits` significand bits, to which N(0, s²) is added.

    Σ_e P(e) V(s/h_e), with V(t) = E round(tz)²/t²: within a binade; what leaves it is rounded otherwise, half a percent
    at most where s is well below √q. Limits of a format's exponent are left out. Raises InputError for numbers that are
    not positive."""
    positive("s", s)
    positive("q", q)
    count("bits", bits)
    sigma = math.sqrt(q)
    # Below the last binade h_e < s/64 or so, where V = 1; above the first P(e) is nothing.
    e = np.arange(math.floor(math.log2(s)) + bits - 9, math.ceil(math.log2(sigma)) + 5)
    if not len(e):
        return 1.0
    share = 2.0 * (ndtr(-(2.0**e) / sigma) - ndtr(-(2.0 ** (e + 1)) / sigma))
    return float(1.0 + share @ (np.array([_rounded_variance(s / 2.0 ** (k - bits + 1)) for k in e]) - 1.0))


def _rounded_variance(t: float) -> float:
    """V(t) = E round(tz)²/t² = t⁻² Σ_k 2(2k − 1) Φ̄((k − ½)/t), z a standard normal."""
    k = np.arange(1.0, math.ceil(10.0 * t) + 2)
    return float((2.0 * (2.0 * k - 1.0)) @ ndtr(-(k - 0.5) / t) / t**2)


def kept_growth(bits: int, depth: int, c: float = 1.0) -> float:
    """log q_L/q_0 over L log(1 + c/L), which an exact stream has: identity blocks of Var w = c/(nL), q_0 = 1, the
    stream stored with `bits` significand bits. Limit of infinite width.

    A unit is a Markov chain on the format's numbers: x ← round(x + N(0, c q/L)), q = E x². Near 1 where L ≪ c 4^p,
    and a function of L/(c 4^p) to a few hundredths. It falls faster than `moved_variance`, since below a power of two
    numbers are twice as dense as above: rounding draws units down there. Numbers finer than s/16 are left out, which is
    worth 1/3000. Raises InputError for numbers out of range, and where the format has too many numbers to be followed
    (above some 8 bits)."""
    count("bits", bits)
    count("depth", depth)
    positive("c", c)
    s = math.sqrt(c / depth)
    grid = _numbers(bits, finest=s / 16.0, largest=6.0 * math.exp(c / 2.0))
    if len(grid) > _MOST_STATES:
        raise InputError("bits", bits, f"the stream has {len(grid)} numbers, more than {_MOST_STATES}: take fewer bits")
    edges = 0.5 * (grid[1:] + grid[:-1])
    share = _shares(edges)
    for _ in range(depth):
        step = math.sqrt(c / depth * float(share @ grid**2))
        share = share @ _shares((edges[None] - grid[:, None]) / step)
    return math.log(float(share @ grid**2)) / (depth * math.log1p(c / depth))


def _shares(edges: FloatArray) -> FloatArray:
    """The probabilities of the intervals between edges (…, edge) of a standard normal, (…, edge + 1)."""
    below = np.concatenate([np.zeros((*edges.shape[:-1], 1)), ndtr(edges), np.ones((*edges.shape[:-1], 1))], axis=-1)
    return np.diff(below, axis=-1)


def _numbers(bits: int, finest: float, largest: float) -> FloatArray:
    """All numbers of the format up to `largest`, in order; below the binade where they are `finest` apart they are so
    everywhere, as subnormal ones are."""
    least = math.floor(math.log2(finest)) + bits - 1
    above = [np.arange(2.0 ** (bits - 1), 2.0**bits) * 2.0 ** (e - bits + 1)
             for e in range(least, math.ceil(math.log2(largest)))]  # fmt: skip
    positive_ones = np.concatenate([np.arange(1.0, 2.0 ** (bits - 1)) * 2.0 ** (least - bits + 1), *above])
    return np.concatenate([-positive_ones[::-1], [0.0], positive_ones])
