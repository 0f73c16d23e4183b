"""A network's prediction in words: which phase, how far signals and gradients travel, what width costs."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mcverify.activations import Activation
from mcverify.layers.convolution import Convolution
from mcverify.layers.dropout import Dropout
from mcverify.layers.pooling import GlobalAveragePool
from mcverify.network import Network
from mcverify.theory import failure_modes
from mcverify.theory.block_diagnosis import block_words
from mcverify.theory.border import LARGEST, border_critical_sigma_w2, border_effect
from mcverify.theory.critical_line import NoCriticalPoint, critical_sigma_w2
from mcverify.theory.phase import Phase, phase
from mcverify.theory.phase_record import depth_scale
from mcverify.theory.propagation import Prediction
from mcverify.theory.spatial import spatial_modes

FloatArray = NDArray[np.float64]
Hidden = tuple[Activation, float, float, float]  # φ, σ_w² over the keep of shared masks, σ_b², keep of independent ones


def hidden_layers(net: Network) -> list[Hidden]:
    """The distinct kinds of layer above the first map, in order: each has a phase of its own.

    A map on the mean over positions, which is no image of φ, has none."""
    kinds: list[Hidden] = []
    gains = net.gains() if net.is_chain else []
    for (here, _, phi), (above, _, _) in pairwise(gains):
        m = net.random_map(above)
        between = net.layers[here:above]
        masks = [v for v in between if isinstance(v, Dropout)]
        shared, keep = (math.prod(v.keep for v in masks if v.shared == which) for which in (True, False))
        if phi is not None and not any(isinstance(v, GlobalAveragePool) for v in between):
            kinds.append((phi, m.sigma_w2 / shared, m.sigma_b2, keep))
    return list(dict.fromkeys(kinds))


def diagnose(net: Network, p: Prediction) -> list[str]:
    """Sentences on the network, most important first. Limit statements, but for what says otherwise."""
    if not net.is_chain:
        return [*block_words(net, p), *_gradients(net, p)]
    kinds = hidden_layers(net)
    out, grid = [], _grid(net)
    bordered = grid is not None and grid.padding == "zeros"
    if len(kinds) == 1:
        phi, sigma_w2, sigma_b2, keep = kinds[0]
        found = phase(phi, sigma_w2, sigma_b2, keep)
        out.append(found.message)
        if bordered:
            assert grid is not None
            out += _border(net, grid, kinds[0], found)
        else:
            out += [*_depth(net, found), *([] if grid is None else _modes(grid, kinds[0]))]
            out += _transient(net, p, found)
    elif kinds:
        out.append(f"{len(kinds)} different kinds of hidden layer: no single phase; follow the table layer by layer.")
    out += _gradients(net, p)
    out += [] if bordered or _masks_are_shared(net) else _advice(kinds, p)
    out += _width(net)
    return out + failure_modes.in_words(net, p)


def _masks_are_shared(net: Network) -> bool:
    """Whether the σ_w² of a phase is not that of the network's weights."""
    return any(isinstance(v, Dropout) and v.shared for v in net.layers)


def _depth(net: Network, found: Phase) -> list[str]:
    if not (math.isfinite(found.xi_c) and found.xi_c > 0):
        return []
    ratio = len(net.maps) / found.xi_c
    verdict = "well within" if ratio < 1 else "within" if ratio < 6 else "beyond"
    return [f"Depth {len(net.maps)} is {ratio:.2g} ξ_c, {verdict} the 6 ξ_c to which networks have been seen to train."]


def _grid(net: Network) -> Convolution | None:
    """The convolution above the first map, where all maps there but a readout's are of one kernel on one grid."""
    above = [net.layers[i] for i in net.maps[1:]]
    grids = [v for v in above if isinstance(v, Convolution)]
    kinds = {(v.size, v.kernel, v.padding, v.weights) for v in grids}
    return grids[0] if len(kinds) == 1 and above[: len(grids)] == grids and len(above) <= len(grids) + 1 else None


def _modes(grid: Convolution, kind: Hidden) -> list[str]:
    """How fast differences between positions vanish on a circle or torus."""
    phi, sigma_w2, sigma_b2, keep = kind
    modes = spatial_modes(phi, sigma_w2, sigma_b2, grid.size, taps=_taps(grid), keep=keep)
    if math.prod(grid.size) == 1 or not math.isfinite(modes.kappa):
        return []
    slow, fast = modes.slowest, modes.fastest
    if abs(modes.eigenvalues[slow]) == 1.0:
        return ["The kernel does not mix positions: all spatial modes have the phase's own depth scales."]
    told = [
        f"{_frequency(f)} over {modes.xi_c[f]:.3g} layers in correlation, {modes.xi_q[f]:.3g} in length"
        for f in (slow, fast)
    ]
    where = "×".join(map(str, grid.size))
    return [
        f"On the circle of {where} positions a difference between them decays slowest at frequency {told[0]}, and "
        f"fastest at {told[1]}; the mean over positions alone keeps the phase's own depth scales."
    ]


def _taps(grid: Convolution) -> FloatArray:
    """v_β, an axis for each of the grid's."""
    return grid.energies.reshape(grid.kernel)


def _frequency(f: tuple[int, ...]) -> str:
    return str(f[0]) if len(f) == 1 else str(f)


def _border(net: Network, grid: Convolution, kind: Hidden, found: Phase) -> list[str]:
    """What zeros beyond the border change, the phase being that of a circle."""
    phi, sigma_w2, sigma_b2, keep = kind
    if math.prod(grid.size) > LARGEST:
        return ["That is for a circle; what zeros beyond the border change is not computed on so large a grid."]
    border = border_effect(phi, sigma_w2, sigma_b2, grid.size, taps=_taps(grid), keep=keep)
    text = f"That is for a circle. Zeros beyond the border shrink the mean over taps by {border.leading:.6g} a layer"
    if math.isfinite(border.edge_to_middle):
        text += f", lengths end at {border.edge_to_middle:.3g} of the middle's at the border"
    if math.isfinite(border.chi):
        scale = depth_scale(min(border.chi, 1 / border.chi)) if border.chi > 0 else 0.0
        text += f", and gradients change by χ = {border.chi:.6g} per layer: e-fold in {scale:.3g}"
    out = [text + "."]
    if keep < 1.0 or found.name == "discontinuous":
        return out
    try:
        critical = border_critical_sigma_w2(phi, sigma_b2, grid.size, taps=_taps(grid))
        circle = critical_sigma_w2(phi, sigma_b2)
    except NoCriticalPoint:
        return out
    return [*out, f"With this border the critical σ_w² at σ_b² = {sigma_b2:g} is {critical:.6g}, not {circle:.6g}."]


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
        f"{per_layer - 1:+.2%} per layer on average{_shared_out(net)}."
    ]


def _shared_out(net: Network) -> str:
    """What of the gradient's change is but a mean over positions."""
    pools = [math.prod(v.size) for v in net.layers if isinstance(v, GlobalAveragePool)]
    return f"; a factor 1/{pools[0]} of that comes from averaging over positions" if pools else ""


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


def _width(net: Network) -> list[str]:
    """What a finite width costs: limits are off by about Σ 1/width where that is small."""
    total = sum(1 / n for n, (_, _, phi) in zip(net.widths, net.gains(), strict=True) if phi is not None)
    so = "at these widths limits may be far off" if total >= 1 else "limits are off by relative errors of that order"
    return [f"Σ 1/width over hidden layers is {total:.3g}: {so}."]
