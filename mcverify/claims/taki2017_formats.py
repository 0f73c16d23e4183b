"""Taki 2017, Deep residual networks and weight initialization, §2.3: how deep a number format lets a network be.

The stream is stored here, in the format's significand bits: networks give what their blocks' maps add, in units of its
standard deviation, so that what is held is the law of rounded streams, and not the variance of weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mcverify.claims.claim import Claim, FloatArray, Mutant, Rival
from mcverify.claims.poole2016 import INPUT_DIM, with_lengths
from mcverify.claims.taki2017 import SOURCE
from mcverify.network import Network, resnet
from mcverify.simulation.trace import Trace
from mcverify.theory.number_format import SIGNIFICAND_BITS, kept_growth, moved_variance

_UNIT = with_lengths([[1.0]])


def rounded(x: FloatArray, bits: int) -> FloatArray:
    """x to the nearest number of so many significand bits, to even; the exponent is not limited."""
    mantissa, exponent = np.frexp(x)
    return np.asarray(np.ldexp(np.rint(np.ldexp(mantissa, bits)), exponent - bits))


def _increments(trace: Trace) -> list[FloatArray]:
    """What the blocks' maps give over its standard deviation, (replicate, unit) each. Given all below, they are i.i.d.
    N(0, 1), since a row of W meets one input: what another stream of this length would be given."""
    host, out = trace.plan.engine.kernels.host, []
    for record in trace.maps[1:]:
        inner = record.saved[-1]
        x, y = (np.asarray(host(v), np.float64)[:, 0] for v in (inner.x, inner.y))
        out.append(y / np.sqrt(inner.layer.random_map.sigma_w2 * (x**2).mean(axis=1, keepdims=True)))
    return out


def _stem(trace: Trace) -> FloatArray:
    """What the first map gives, (replicate, unit)."""
    return np.asarray(trace.plan.engine.kernels.host(trace.maps[0].y), np.float64)[:, 0]


_LOADS = (1.0, 16.0, 64.0)
_FORMATS = ("bfloat16", "float16")


def _moved(trace: Trace, extra_bits: int = 0) -> FloatArray:
    """E (Δx)²/s² in one block of each format and load, (replicate, format·load)."""
    x, (z,) = _stem(trace), _increments(trace)
    out = []
    for name in _FORMATS:
        stored = rounded(x, SIGNIFICAND_BITS[name] + extra_bits)
        for load in _LOADS:
            s = 2.0 ** -SIGNIFICAND_BITS[name] / math.sqrt(load)
            moved = rounded(stored + s * z, SIGNIFICAND_BITS[name] + extra_bits) - stored
            out.append((moved**2).mean(axis=1) / s**2)
    return np.stack(out, axis=1)


def _moved_by_formula(net: Network, x: FloatArray) -> FloatArray:
    bits = [SIGNIFICAND_BITS[name] for name in _FORMATS]
    return np.array([moved_variance(2.0**-p / math.sqrt(load), p) for p in bits for load in _LOADS])


ONE_BLOCK = Claim(
    name="taki2017.depth_limit_one_block",
    source=f"{SOURCE}, §2.3: 'loss of trailing digits', made a law",
    statement="A block of Var w = c/(nL) moves units stored in bfloat16 or float16 by E(Δx)² = s² Σ_e P(e) V(s/h_e), "
    "at L/(c 4^p) = 1, 16, 64.",
    mark="heuristic",
    networks=lambda width: resnet(INPUT_DIM, width, 1, "linear"),
    widths=(128,),
    inputs=_UNIT,
    predict=_moved_by_formula,
    measure=_moved,
    test="mean",
    relative=True,
    remainder=lambda net, x: 0.005 * _moved_by_formula(net, x),
    margin=0.02,
    margin_reason="a fifth of the least that rounding changes; the formula itself leaves half a percent",
    labels=lambda net: [f"{name}, load {load:g}" for name in _FORMATS for load in _LOADS],
    rival=Rival("nothing is lost", lambda net, x: np.ones(len(_FORMATS) * len(_LOADS))),
    knob=None,  # increments are taken at unit variance
    mutants=(Mutant("one bit more", measure=lambda t: _moved(t, extra_bits=1)),),
)

_GROWTH_C = 0.25
_STREAMS = ((4, 64), (5, 256))  # significand bits and blocks, both at L/(c 4^p) = 1


def _stream_growth(trace: Trace, extra_bits: int = 0) -> FloatArray:
    """‖x^L‖²/‖x^0‖² of streams stored in 4 and 5 bits, and of an exact one of as many blocks as the latter,
    (replicate, stream): each takes its blocks' increments from the network's own."""
    increments, x = _increments(trace), _stem(trace)

    def growth(depth: int, stored: Callable[[FloatArray], FloatArray]) -> FloatArray:
        stream = first = stored(x)
        for z in increments[:depth]:
            s = np.sqrt(_GROWTH_C / depth * (stream**2).mean(axis=1, keepdims=True))
            stream = stored(stream + s * z)
        return np.asarray((stream**2).mean(axis=1) / (first**2).mean(axis=1))

    out = [growth(depth, lambda v, bits=bits: rounded(v, bits + extra_bits)) for bits, depth in _STREAMS]  # type: ignore[misc]
    return np.stack([*out, growth(_STREAMS[-1][1], lambda v: v)], axis=1)


def _share_kept(means: FloatArray) -> FloatArray:
    """log growth over what an exact stream's is, (stream,)."""
    depths = np.array([depth for _, depth in _STREAMS] + [_STREAMS[-1][1]])
    return np.asarray(np.log(means) / (depths * np.log1p(_GROWTH_C / depths)))


GROWTH_KEPT = Claim(
    name="taki2017.depth_limit_growth",
    source=f"{SOURCE}, §2.3",
    statement="At L = c 4^p blocks of Var w = c/(nL) a stream stored with p significand bits keeps 64% of its log "
    "growth (p = 4, 5; c = 1/4), an unrounded one all of it.",
    mark="limit",
    networks=lambda width: resnet(INPUT_DIM, width, _STREAMS[-1][1], "linear", 1e-3),
    widths=(128,),
    inputs=_UNIT,
    predict=lambda net, x: np.array([*(kept_growth(bits, depth, _GROWTH_C) for bits, depth in _STREAMS), 1.0]),
    measure=_stream_growth,
    combine=_share_kept,
    test="within",
    sample="taki2017.depth_limit",
    engine="auto",
    margin=0.06,
    margin_reason="a sixth of what is lost",
    labels=lambda net: [*(f"{bits} bits, {depth} blocks" for bits, depth in _STREAMS), "no rounding"],
    rival=Rival("nothing is lost", lambda net, x: np.ones(3)),
    knob=None,  # increments are taken at unit variance
    mutants=(Mutant("one bit more", measure=lambda t: _stream_growth(t, extra_bits=1)),),
)

COLLAPSE = replace(
    GROWTH_KEPT,
    name="taki2017.depth_limit_collapse",
    statement="What a stream keeps of its log growth is a function of L/(c 4^p): the same with one bit and four times "
    "the blocks more.",
    predict=lambda net, x: np.zeros(1),
    combine=lambda means: -np.diff(_share_kept(means)[:2]),
    margin=0.08,
    margin_reason="an eighth of what is kept",
    labels=lambda net: ["4 bits less 5 bits"],
    rival=Rival("a function of L/c, whatever the bits", lambda net, x: _apart_by_depth()),
    mutants=(Mutant("4 bits for both", measure=lambda t: _four_bits_for_both(t)),),
)


def _apart_by_depth() -> FloatArray:
    """What 4 bits keep of 64 blocks less what they keep of 256."""
    bits, _ = _STREAMS[0]
    kept = [kept_growth(bits, depth, _GROWTH_C) for _, depth in _STREAMS]
    return np.array([kept[0] - kept[1]])


def _four_bits_for_both(trace: Trace) -> FloatArray:
    at_four, one_less = _stream_growth(trace), _stream_growth(trace, extra_bits=-1)
    return np.stack([at_four[:, 0], one_less[:, 1], at_four[:, 2]], axis=1)


CLAIMS = (ONE_BLOCK, GROWTH_KEPT, COLLAPSE)
