"""Which engine: by counting what each has to do for a network, never by timing it.

The unit of cost is one normal drawn; what a multiply-add costs of that was measured on one core. Away from a few
units the engines differ by factors of a hundred for a few columns. A convolution has a column for every position and
input: there they cross where channels are about four times the columns (measured with 3 × 3 taps: 32 columns at 120
channels, 64 at 230, 128 at 500), and the counts' ratio is right to some 1.8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mcverify.errors import InputError, nearest
from mcverify.kernels.primitives import Kernels
from mcverify.random_map import conditional, explicit
from mcverify.random_map.engine import Engine, Map

ENGINES = ("auto", "explicit", "conditional")

# A multiply-add, per normal:
_BY_WEIGHT = 0.03  # of a weight, in the type of the signal
_MULTIPLY_ADD = 0.05  # of two columns, accumulated in float64
_SMALL = 0.35  # in roots and triangular solves of the columns' Gram matrices


@dataclass(frozen=True)
class Load:
    """What a map is asked for: columns forward (inputs, then tangents) and columns of its transpose."""

    inputs: int
    tangents: int = 0
    cotangents: int = 0

    @property
    def met(self) -> int:
        """All columns that the map itself meets."""
        return self.inputs + self.tangents

    @property
    def passes(self) -> int:
        """Forward, and whichever of tangents and cotangents there are."""
        return 1 + (self.tangents > 0) + (self.cotangents > 0)


def explicit_cost(m: Map, load: Load) -> float:
    """Every weight is drawn once for each pass, and multiplied with every column."""
    one = _haar_cost(load) if m.law == "orthogonal" else load.passes + _BY_WEIGHT * (load.met + load.cotangents)
    return m.fan_in * m.fan_out * one + _frames_cost(m, load)


def _haar_cost(load: Load) -> float:
    """Per entry: half as many normals, and each column reflected twice as dearly as multiplied."""
    return 0.5 * load.passes + 4 * _MULTIPLY_ADD * (load.met + load.cotangents)


def _frames_cost(m: Map, load: Load) -> float:
    """A projection is a Haar matrix there and back, with explicit weights under either engine."""
    return 2 * m.frames * m.fan_in**2 * _haar_cost(load)


def conditional_cost(m: Map, load: Load) -> float:
    """Normals for each column, and dots and mixtures of all columns with one another.

    Tangents repeat the normals and the root of the inputs."""
    c, k = load.met, load.cotangents
    again = load.inputs if load.tangents else 0
    draws = (c + again) * m.fan_out + k * m.fan_in
    if m.law == "orthogonal" and k:
        draws += c * m.fan_out
    algebra = (c * c + again * again) * (m.fan_in + m.fan_out) + k * (c + k) * (2 * m.fan_in + m.fan_out)
    small = (c**3 + again**3 + k**3) / 6 + c * k * (c + k / 2)
    return draws + _MULTIPLY_ADD * algebra + _SMALL * small + _frames_cost(m, load)


def choose(
    engine: str, kernels: Kernels, dtype: np.dtype[np.floating], maps: Sequence[Map], loads: Sequence[Load], *,
    tied: bool = True,
) -> Engine:  # fmt: skip
    """The engine of that name; "auto" is the cheaper one, explicit where they do the same. loads: one for each map.

    Raises InputError for an unknown name."""
    if engine not in ENGINES:
        raise InputError("engine", engine, f"allowed: {', '.join(ENGINES)}{nearest(str(engine), list(ENGINES))}")
    able = [m for m in maps if conditional.sampler(m) is not explicit]
    if engine != "auto":
        reason = "asked for"
        if engine == "conditional" and len(able) < len(maps):
            laws = ", ".join(sorted({_kind(m) for m in maps if m not in able}))
            reason += f"; {len(maps) - len(able)} of {len(maps)} maps ({laws}) by explicit weights"
    else:
        engine, reason = _cheaper(maps, able, loads)
    build = explicit.engine if engine == "explicit" else conditional.engine
    return build(kernels, dtype, tied=tied, reason=reason)


def work(engine: str, maps: Sequence[Map], loads: Sequence[Load]) -> float:
    """The cost of one network under an engine of that name, in normals drawn."""
    each = list(zip(maps, loads, strict=True))
    weights = sum(explicit_cost(m, load) for m, load in each)
    if engine == "explicit":
        return weights
    without = sum(_least(m, load) for m, load in each)
    return without if engine == "conditional" else min(weights, without)


def _least(m: Map, load: Load) -> float:
    """A map's cost under the conditional engine, which leaves some laws to explicit weights."""
    return explicit_cost(m, load) if conditional.sampler(m) is explicit else conditional_cost(m, load)


def _cheaper(maps: Sequence[Map], able: Sequence[Map], loads: Sequence[Load]) -> tuple[str, str]:
    """(engine, reason) by the counts."""
    if not able:
        laws = ", ".join(sorted({_kind(m) for m in maps}))
        return "explicit", f"{laws} weights have no conditional sampler"
    weights, without = work("explicit", maps, loads), work("conditional", maps, loads)
    if without < weights:
        return "conditional", f"same law as explicit weights at an estimated 1/{weights / without:.3g} of the work"
    return "explicit", f"drawing weights is an estimated 1/{without / weights:.3g} of the conditional sampler's work"


def _kind(m: Map) -> str:
    return "rectangular orthogonal" if m.law == "orthogonal" else m.law
