"""The 1,503 layers of figure 1b in whole networks, on a digit: what their gradient norms add up to."""

from __future__ import annotations

import math

import numpy as np

from mcverify.claims import mutations
from mcverify.claims.claim import Claim, FloatArray, Mutant, Rival
from mcverify.claims.poole2016 import phase_of
from mcverify.claims.xiao2018_cnn.circles import PAPERS_POINT, SOURCE
from mcverify.claims.xiao2018_cnn.finite_width import digit, gain, gradient
from mcverify.layers.convolution import DELTA
from mcverify.network import cnn
from mcverify.simulation.trace import Trace

_DEPTH, _CHANNELS = 1503, 64
_STRETCHES, _LOOKED_AT = 64, 8  # of a network; layers of each whose fluctuation is measured, evenly spread
_ROOT = 2**0.25 * math.gamma(0.75) / math.sqrt(math.pi)  # E√|z|, z ~ N(0, 1)
_ENDS = np.linspace(0, _DEPTH - 1, _STRETCHES + 1).round().astype(int)


def _fluctuation(trace: Trace, l: int) -> FloatArray:
    """√|log r| over its mean for a Gaussian log r, r being a layer's gain over its mean, of the variance 2ρ/c, with
    ρ = tr A(Γ)²/(tr Γ)² of this network's own gradient above, (replicate,). A root has no skewness to speak of."""
    kernels, layer = trace.plan.engine.kernels, trace.plan.net.layers[trace.plan.net.maps[l + 1]]
    driven = gradient(trace, l + 1)
    gamma = kernels.gram(driven, driven)
    rho = (layer.mean_met(gamma, 2) ** 2).sum(axis=(1, 2)) / np.trace(gamma, axis1=1, axis2=2) ** 2
    return np.asarray(np.sqrt(np.abs(np.log(gain(trace, l))) / np.sqrt(2 * rho / _CHANNELS)) / _ROOT)


def _stretches(trace: Trace) -> FloatArray:
    """Of each stretch the mean fluctuation, and what it adds to log ‖δ^1‖²/‖δ^L‖², (replicate, stretch, 2)."""
    squares = trace.plan.engine.kernels.squares
    norms = np.stack([squares(gradient(trace, int(l))).sum(axis=-1) for l in _ENDS], axis=-1)
    looked_at = np.linspace(_ENDS[:-1], _ENDS[1:], _LOOKED_AT, endpoint=False, axis=-1).astype(int)
    fluctuation = [np.mean([_fluctuation(trace, int(l)) for l in layers], axis=0) for layers in looked_at]
    return np.stack([np.stack(fluctuation, axis=-1), np.log(norms[:, :-1] / norms[:, 1:])], axis=-1)


def _quantiles(rows: FloatArray) -> str:
    """What is told of whole networks: their log gains, from the rows (stretch, 2)."""
    whole = rows[:, 1].reshape(-1, _STRETCHES).sum(axis=1)
    quantiles = ", ".join(f"{v:.1f}" for v in np.quantile(whole, (0.1, 0.5, 0.9)))
    return (f"log ‖δ^1‖²/‖δ^{_DEPTH}‖² of {len(whole)} networks: mean {whole.mean():.1f}, "
            f"variance {whole.var(ddof=1):.1f}, quantiles {quantiles} at 0.1, 0.5, 0.9")  # fmt: skip


def _mean_field() -> float:
    """What χ_1 alone adds in a stretch."""
    return (_DEPTH - 1) / _STRETCHES * math.log(phase_of(PAPERS_POINT).chi_1)


WHOLE_DEPTH = Claim(
    name="xiao2018_cnn.whole_depth",
    source=f"{SOURCE}, §3 and fig. 1b, beyond its mean field",
    statement="In whole networks of 1,503 layers and 64 channels at (1.05, 2e-5), on an 8 × 8 digit, a layer's log "
    "gradient gain has the variance 2ρ/64, ρ of the network's own gradient; the gains' sum is mean field's but for "
    "parts of first order that nearly cancel: gradients that are alike at all positions would lose 24.",
    mark="first order",
    networks=lambda width: cnn((1, 8, 8), [width] * _DEPTH, "tanh", *PAPERS_POINT),
    widths=(_CHANNELS,),
    inputs=digit,
    predict=lambda net, x: np.array([1.0, _mean_field()]),
    # Of the fluctuation: ⟨φ′⁴⟩/⟨φ′²⟩² is 1 + 8q*², and |log r| has another 1/channels. Of the sum: signals, shorter for
    # their fluctuations, lift χ by about ρ/64 a layer with a ρ of their own; what fluctuates lowers logarithms by ρ/64;
    # and weights that are the same both ways lower gains in which gradients and signals overlap. At the ρ that 1,500
    # layers lead to these are some 5, 3 and 1; by how much they cancel is not derived: by half of the first at least.
    remainder=lambda net, x: np.array([0.02, 2.5 / _STRETCHES]),
    measure=_stretches,
    # Errors as of independent stretches are on the safe side for the sum, as a stretch's gains vary more than its share
    # of the whole's (a third of the variance over 60 networks); for the fluctuation, whose stretches are all but
    # independent (1.2 ± 0.2), they are right to a fifth, where the margin is fifty of them.
    stretches=_STRETCHES,
    told=_quantiles,
    test="mean",
    margin=0.15,
    margin_reason="of the sum, less than half of what gradients alike at all positions lose in a stretch, 0.38; of "
    "the fluctuation, less than a factor of two in ρ, where positions alike and independent ones are 64 apart",
    labels=lambda net: ["√ of a layer's fluctuation, over its mean", "sum over a stretch of 23 layers"],
    rival=Rival("mean field alone, gains of χ_1 that do not fluctuate",
                lambda net, x: np.array([0.0, _mean_field()])),
    mutants=(Mutant("delta-orthogonal kernels", mutations.weights(DELTA)),
             Mutant("σ_w² short by 10%", mutations.weight_gain(0.9))),
    knob=None,  # a network takes too long for a bisection
)  # fmt: skip
