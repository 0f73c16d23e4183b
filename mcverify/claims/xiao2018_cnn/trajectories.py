"""Σ^l in the limit: its trajectory from uneven inputs, and the fixed point, whatever the kernel and the size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mcverify.claims import mutations
from mcverify.claims.claim import Claim, FloatArray, Mutant, Rival
from mcverify.claims.poole2016 import ORDERED, WIDTHS, phase_of
from mcverify.claims.xiao2018_cnn.circles import (
    SOURCE,
    displaced,
    homogeneous,
    networks,
    of_gram,
    profile,
    starting_at,
    uneven,
)
from mcverify.layers.convolution import Convolution
from mcverify.network import Network
from mcverify.simulation import observables
from mcverify.theory.propagation import propagate


def _reduced(cov: FloatArray) -> FloatArray:
    """What is compared of covariances (…, position, position): the mean length, its first mode, and the mean
    covariance of neighbours and of opposite positions, (…, 4)."""
    q, n = displaced(cov, 0), cov.shape[-1]
    parts = [q, 2 * q * profile(1, n), displaced(cov, 1), displaced(cov, n // 2)]
    return np.stack([p.mean(axis=-1) for p in parts], axis=-1)


def _reduced_labels(net: Network) -> list[str]:
    names = ("mean length", "first mode of lengths", "neighbours", "opposite positions")
    return [f"layer {l}, {name}" for l in range(2, len(net.maps) + 1) for name in names]


def _unmixed(net: Network, x: FloatArray) -> FloatArray:
    """The trajectory if layers above the first did not mix positions."""
    narrow = net.map_layers(lambda i, v: replace(v, kernel=(1,)) if i and isinstance(v, Convolution) else v)
    return _reduced(propagate(narrow, x).q[1:]).ravel()


TRAJECTORY = Claim(
    name="xiao2018_cnn.trajectory",
    source=f"{SOURCE}, eq. 5",
    statement="From inputs that vary along the circle, Σ^l follows Σ^{l+1} = A⋆C(Σ^l) at finite depth (tanh).",
    mark="limit",
    networks=networks(ORDERED, 4, 6),
    widths=WIDTHS,
    inputs=lambda net: of_gram(uneven(net.input_shape[0])),
    predict=lambda net, x: _reduced(propagate(net, x).q[1:]).ravel(),
    measure=lambda trace: _reduced(observables.metric(trace)[:, 1:]).reshape(trace.site.count, -1),
    test="ladder",
    engine="auto",
    cotangent=None,
    margin=0.02,
    margin_reason="a sixth of what mixing the positions changes in the first mode",
    labels=_reduced_labels,
    rival=Rival("layers do not mix positions", _unmixed),
    mutants=(Mutant("σ_w² off by 10%", mutations.weight_gain(1.1)),
             Mutant("zeros beyond a border", mutations.padding("zeros"))),
)  # fmt: skip

STRONG = (9.0, 0.5)  # (σ_w², σ_b²) of a tanh network with c* well below 1


def _off_fixed_point(n: int) -> list[FloatArray]:
    """Lengths and correlations both off, by a seventh and by 0.1."""
    p = phase_of(STRONG)
    return [homogeneous(0.85 * p.q, p.c + 0.1, n)]


def _ends(cov: FloatArray) -> FloatArray:
    """Mean length and mean correlation of positions in units of theirs at Σ*, (…, 2)."""
    p, n = phase_of(STRONG), cov.shape[-1]
    a, b = np.triu_indices(n, 1)
    return np.stack([displaced(cov, 0).mean(axis=-1) / p.q, cov[..., a, b].mean(axis=-1) / p.q], axis=-1)


def _fixed_point_claim(name: str, positions: int, kernel: int, widths: tuple[int, ...]) -> Claim:
    return Claim(
        name=f"xiao2018_cnn.{name}",
        source=f"{SOURCE}, §2",
        statement=f"On a circle of {positions} positions with {kernel} taps Σ ends at the fully connected network's q* "
        "on the diagonal and c* q* off it (tanh, 8 layers).",
        mark="limit",
        networks=networks(STRONG, 8, positions, kernel),
        widths=widths,
        inputs=starting_at(STRONG, _off_fixed_point),
        predict=lambda net, x: np.array([1.0, phase_of(STRONG).c]),
        remainder=lambda net, x: np.abs(_ends(propagate(net, x).q[-1]) - np.array([1.0, phase_of(STRONG).c])),
        measure=lambda trace: _ends(observables.metric(trace)[:, -1]),
        test="ladder",
        engine="auto",
        cotangent=None,
        growth=0.5,  # near a fixed point the last few layers count
        margin=0.04,
        margin_reason="a fifth of c*'s distance from 1 or less",
        labels=lambda net: ["length over q*", "covariance over q*"],
        rival=Rival("positions end alike, c* = 1", lambda net, x: np.ones(2)),
        mutants=(Mutant("σ_w² off by 30%", mutations.weight_gain(1.3)),
                 Mutant("zeros beyond a border", mutations.padding("zeros"))),
    )  # fmt: skip


FIXED_POINT = _fixed_point_claim("fixed_point", 4, 3, WIDTHS)
FIXED_POINT_OTHER = _fixed_point_claim("fixed_point_elsewhere", 6, 5, WIDTHS)
