"""A network's prediction in words: which phase, how far signals and gradients travel, what width costs."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mcverify.activations import Activation
from mcverify.layers.dropout import Dropout
from mcverify.layers.pooling import GlobalAveragePool
from mcverify.network import Network
from mcverify.theory.critical_line import NoCriticalPoint, critical_sigma_w2
from mcverify.theory.finite_width import length_variance
from mcverify.theory.phase import Phase, phase
from mcverify.theory.propagation import Prediction

FloatArray = NDArray[np.float64]
Hidden = tuple[Activation, float, float, float]  # φ, σ_w², σ_b², keep


def hidden_layers(net: Network) -> list[Hidden]:
    """The distinct kinds of layer above the first map, in order: each has a phase of its own.

    A map on the mean over positions, which is no image of φ, has none."""
    kinds: list[Hidden] = []
    gains = net.gains()
    for (here, _, phi), (above, _, _) in pairwise(gains):
        m = net.random_map(above)
        between = net.layers[here:above]
        keep = math.prod(v.keep for v in between if isinstance(v, Dropout))
        if phi is not None and not any(isinstance(v, GlobalAveragePool) for v in between):
            kinds.append((phi, m.sigma_w2, m.sigma_b2, keep))
    return list(dict.fromkeys(kinds))


def diagnose(net: Network, p: Prediction) -> list[str]:
    """Sentences on the network, most important first. Limit statements, but for what says otherwise."""
    kinds = hidden_layers(net)
    out = []
    if len(kinds) == 1:
        phi, sigma_w2, sigma_b2, keep = kinds[0]
        found = phase(phi, sigma_w2, sigma_b2, keep)
        out.append(found.message)
        out += _depth(net, found)
        out += _transient(net, p, found)
    elif kinds:
        out.append(f"{len(kinds)} different kinds of hidden layer: no single phase; follow the table layer by layer.")
    out += _gradients(net, p)
    out += _advice(kinds, p)
    out += _width(net, p)
    return out


def _depth(net: Network, found: Phase) -> list[str]:
    if not (math.isfinite(found.xi_c) and found.xi_c > 0):
        return []
    ratio = len(net.maps) / found.xi_c
    verdict = "well within" if ratio < 1 else "within" if ratio < 6 else "beyond"
    return [f"Depth {len(net.maps)} is {ratio:.2g} ξ_c, {verdict} the 6 ξ_c to which networks have been seen to train."]


def _transient(net: Network, p: Prediction, found: Phase) -> list[str]:
    """From which layer on the phase's own numbers hold for these inputs."""
    if not (math.isfinite(found.q) and math.isfinite(found.chi_1) and found.chi_1 > 0):
        return []
    off = np.abs(p.chi / found.chi_1 - 1).max(axis=1) > 0.1
    if not off.any():
        return []
    q = p.gram[0, 0, 0]
    last = int(np.flatnonzero(off)[-1]) + 1
    until = f"from layer {last + 1} on" if last < len(off) else "in no layer of this network"
    return [f"The inputs start at q = {q:.3g}, away from q* = {found.q:.3g}: χ^l is within a tenth of χ_1 {until}."]


def _gradients(net: Network, p: Prediction) -> list[str]:
    if len(net.maps) < 2:
        return []
    with np.errstate(divide="ignore", invalid="ignore"):
        total = float(p.gradient_gains.sum())
    if not math.isfinite(total):
        return ["Gradient norms are zero or infinite in the limit."]
    per_layer = math.exp(total / (len(net.maps) - 1))
    return [
        f"From layer {len(net.maps)} to layer 1 the gradient norm ‖δ‖² changes by a factor {math.exp(total):.3g}, "
        f"{per_layer - 1:+.2%} per layer on average."
    ]


def _advice(kinds: list[Hidden], p: Prediction) -> list[str]:
    """What σ_w² would keep gradients, where a percent a layer is exceeded and there is such a σ_w²."""
    if len(kinds) != 1 or len(p.columns) < 2:
        return []
    phi, sigma_w2, sigma_b2, keep = kinds[0]
    if keep < 1.0 or abs(float(np.mean(p.gradient_gains))) < 0.01 or phase(*kinds[0]).name == "critical":
        return []
    try:
        critical = critical_sigma_w2(phi, sigma_b2)
    except NoCriticalPoint as error:
        return [f"No σ_w² makes it critical at this σ_b²: {error}"]
    return [f"At σ_b² = {sigma_b2:g} the critical σ_w² is {critical:.10g}, instead of {sigma_w2:g}."]


def _width(net: Network, p: Prediction) -> list[str]:
    """What a finite width costs: limits err by Σ 1/width, and networks differ from one another."""
    beta = sum(1 / n for n, (_, _, phi) in zip(net.widths, net.gains(), strict=True) if phi is not None)
    text = f"Σ 1/width over hidden layers is {beta:.3g}: limits err by about that much."
    spread = length_variance(net, p)
    relative = np.sqrt(spread.value[-1]) / p.length[-1]
    if np.isfinite(relative).all():
        how = "exact" if (spread.mark[-1] == "exact").all() else "to first order"
        text += (
            f" At the last layer the lengths of single networks scatter by ±{relative.max():.2g} of their mean ({how})."
        )
    return [text]
