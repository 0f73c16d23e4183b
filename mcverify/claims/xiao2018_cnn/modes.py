"""Near Σ* every Fourier mode of the positions moves by itself, with a depth scale of its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np

from mcverify.claims import mutations
from mcverify.claims.claim import Claim, FloatArray, Mutant, Rival
from mcverify.claims.poole2016 import CHAOTIC, phase_of
from mcverify.claims.xiao2018_cnn.circles import SOURCE, blocks, displaced, homogeneous, networks, profile, starting_at
from mcverify.simulation import observables
from mcverify.theory.propagation import propagate
from mcverify.theory.spatial import SpatialModes, spatial_modes

NARROW = (24, 32, 40, 48, 64, 96)  # channels, where there are many columns and few layers to sum over

_POSITIONS = 8
_AMPLITUDE = 0.06  # of a mode, in units of q*


@cache
def _modes() -> SpatialModes:
    return spatial_modes("tanh", *CHAOTIC, _POSITIONS)


def _mode_matrices(n: int) -> list[FloatArray]:
    """Σ* with small modes added and taken away: of the lengths, f = 1 and 2; of neighbours, f = 1, a quarter of a wave
    aside, where what the lengths feed does not fall."""
    p = phase_of(CHAOTIC)
    modes = np.diag(profile(1, n) + profile(2, n))
    at = np.arange(n)
    along = profile(1, n, 0.5, math.pi / 2)
    modes[at, (at + 1) % n] = modes[(at + 1) % n, at] = along
    return [homogeneous(p.q, p.c, n) + sign * _AMPLITUDE * p.q * modes for sign in (1, -1)]


def _amplitudes(cov: FloatArray) -> FloatArray:
    """Of the difference between the two inputs, in units of q*: lengths f = 1 and 2, neighbours f = 1 aside; what is
    fed into neighbours and next neighbours by f = 1, (…, 5)."""
    two = blocks(cov, 2)
    delta = (two[..., 0, :, :] - two[..., 1, :, :]) / (2 * phase_of(CHAOTIC).q)
    n = delta.shape[-1]
    parts = [
        displaced(delta, 0) * profile(1, n),
        displaced(delta, 0) * profile(2, n),
        displaced(delta, 1) * profile(1, n, 0.5, math.pi / 2),
        displaced(delta, 1) * profile(1, n, 0.5),
        displaced(delta, 2) * profile(1, n, 1.0),
    ]
    return np.stack([2 * part.mean(axis=-1) for part in parts], axis=-1)


_FED_BY = (0, 1, 2, 0, 0)  # whose amplitude in the layer below each of `_amplitudes` is compared with


def _response(cov: FloatArray) -> FloatArray:
    """Amplitudes at layer 2 over those at layer 1 that drive them, (…, 5) from (…, layer, column, column)."""
    a = _amplitudes(cov)
    return np.asarray(a[..., 1, :] / a[..., 0, _FED_BY])


def _linear_response(rate: Callable[[int], float]) -> FloatArray:
    m = _modes()
    fed = [2 * math.cos(math.pi * d / _POSITIONS) * m.kappa * rate(1) for d in (1, 2)]
    return np.array([m.phase.slope_q * rate(1), m.phase.slope_q * rate(2), m.phase.chi_c * rate(1), *fed])


def _mode_rate(f: int) -> float:
    return float(_modes().eigenvalues[f].real)


MODES = Claim(
    name="xiao2018_cnn.modes",
    source=f"{SOURCE}, §2, A and C together; linearised here",
    statement="Near Σ* a mode f moves by λ_f dQ/dq in the lengths and λ_f χ_c* in the correlations, and lengths feed "
    "covariances at displacement d by λ_f κ(1 + e^{2πifd/n}), one layer on (tanh, chaotic).",
    mark="exact",
    networks=networks(CHAOTIC, 2, _POSITIONS),
    widths=(64,),
    inputs=starting_at(CHAOTIC, _mode_matrices),
    predict=lambda net, x: _linear_response(_mode_rate),
    remainder=lambda net, x: np.abs(_response(propagate(net, x).q) - _linear_response(_mode_rate)),
    measure=lambda trace: _response(observables.metric(trace)),
    test="mean",
    engine="auto",
    cotangent=None,
    margin=0.015,
    margin_reason="less than a tenth of what a mode's own λ_f changes in the correlations",
    labels=lambda net: ["lengths, f = 1", "lengths, f = 2", "neighbours, f = 1",
                        "fed to neighbours", "fed to next neighbours"],
    rival=Rival("every mode moves as the mean does", lambda net, x: _linear_response(lambda f: 1.0)),
    knob=mutations.weight_gain,
    mutants=(Mutant("relu in place of tanh", mutations.activation("relu")),
             Mutant("zeros beyond a border", mutations.padding("zeros"))),
)  # fmt: skip


def _decay(means: FloatArray) -> FloatArray:
    """Log decay per layer of amplitudes (layer·2,), over the layers there are, (2,)."""
    a = means.reshape(-1, 2)
    return np.asarray(np.log(np.abs(a[-1] / a[0])) / (len(a) - 1))


def _long_waves(cov: FloatArray) -> FloatArray:
    """Amplitudes of f = 1 of the lengths and, aside, of neighbours, layer by layer, (…, layer·2)."""
    a = _amplitudes(cov)[..., [0, 2]]
    return a.reshape(*a.shape[:-2], -1)


def _scale_rates(factor: float) -> FloatArray:
    p = _modes().phase
    return np.log(factor * np.array([p.slope_q, p.chi_c]))


MODE_SCALES = Claim(
    name="xiao2018_cnn.mode_depth_scales",
    source=f"{SOURCE}, §2, A and C together; linearised here",
    statement="The longest wave of a circle of eight decays by λ_1 dQ/dq a layer in the lengths and by λ_1 χ_c* in the "
    "correlations, over several layers: a depth scale of its own (tanh, chaotic).",
    mark="limit",
    networks=networks(CHAOTIC, 3, _POSITIONS),
    widths=NARROW,
    inputs=starting_at(CHAOTIC, _mode_matrices),
    predict=lambda net, x: _scale_rates(_mode_rate(1)),
    remainder=lambda net, x: np.abs(_decay(_long_waves(propagate(net, x).q)) - _scale_rates(_mode_rate(1))),
    measure=lambda trace: _long_waves(observables.metric(trace)),
    combine=_decay,
    test="ladder",
    engine="auto",
    cotangent=None,
    margin=0.1,
    margin_reason="less than half of −log λ_1 = 0.217, the distance to the mean's own rates",
    labels=lambda net: ["lengths", "neighbours"],
    rival=Rival("at the mean's rates", lambda net, x: _scale_rates(1.0)),
    mutants=(Mutant("relu in place of tanh", mutations.activation("relu")),
             Mutant("linear in place of tanh", mutations.activation("linear"))),
)  # fmt: skip
