"""Xiao, Bahri, Schoenholz & Pennington 2018, Training ultra-deep CNNs with critical initialization: how covariances
between positions move, which modes survive, and what that leaves of order and chaos in convolutional networks.

Products over 1,003 or 1,503 layers cannot be sampled often enough to decide on: what is claimed of such depths is
claimed of single layers, at the fixed point."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np

from mcverify.claims import generic, measures, mutations
from mcverify.claims.claim import Claim, FloatArray, Inputs, Mutant, Networks, Rival
from mcverify.claims.poole2016 import CHAOTIC, ORDERED, WIDTHS, phase_of
from mcverify.expectations import gaussian
from mcverify.inputs import with_gram
from mcverify.layers import chain
from mcverify.layers.activation import Activation
from mcverify.layers.convolution import Convolution
from mcverify.layers.layer import Grad, State
from mcverify.network import Network, cnn
from mcverify.simulation import observables
from mcverify.simulation.trace import Trace
from mcverify.theory.border import border_effect
from mcverify.theory.critical_line import critical_line, critical_sigma_w2
from mcverify.theory.propagation import propagate
from mcverify.theory.spatial import SpatialModes, spatial_modes
from mcverify.theory.zero_mode import log_gains

SOURCE = "Xiao et al. 2018, Training ultra-deep CNNs with critical initialization"
PAPERS_POINT = (1.05, 2e-5)
NARROW = (24, 32, 40, 48, 64, 96)  # channels, where there are many columns and few layers to sum over
Point = tuple[float, float]


def networks(point: Point, depth: int, positions: int, kernel: int = 3, padding: str = "circular") -> Networks:
    """channels -> tanh network on a line or circle of positions; as many input channels as positions."""
    return lambda width: cnn(
        (positions, positions), [width] * depth, "tanh", *point, kernel_size=kernel, padding=padding
    )  # fmt: skip


def of_gram(x: list[FloatArray]) -> FloatArray:
    """Inputs (input, position, channel), one for each Gram matrix between positions: by symmetric roots, so that
    near matrices give near inputs. As many channels as positions."""
    frame = with_gram(np.eye(len(x[0])), len(x[0]))
    out = []
    for gram in x:
        values, vectors = np.linalg.eigh(gram)
        out.append((vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T @ frame)
    return np.stack(out)


def homogeneous(q: float, c: float, positions: int) -> FloatArray:
    """q on the diagonal, c q off it."""
    return q * (c + (1 - c) * np.eye(positions))


def starting_at(point: Point, covariances: Callable[[int], list[FloatArray]]) -> Inputs:
    """Inputs whose first pre-activations have these covariances, if the average over taps does not change them."""
    sigma_w2, sigma_b2 = point

    def inputs(net: Network) -> FloatArray:
        return of_gram([(cov - sigma_b2) / sigma_w2 for cov in covariances(net.input_shape[0])])

    return inputs


def _blocks(cov: FloatArray, inputs: int) -> FloatArray:
    """(…, column, column) -> (…, input, position, position): each input with itself."""
    n = cov.shape[-1] // inputs
    apart = cov.reshape(*cov.shape[:-2], inputs, n, inputs, n)
    return np.moveaxis(np.diagonal(apart, axis1=-4, axis2=-2), -1, -3)


def _displaced(cov: FloatArray, d: int) -> FloatArray:
    """S_{α,α+d} on a circle, (…, position) from (…, position, position)."""
    at = np.arange(cov.shape[-1])
    return cov[..., at, (at + d) % len(at)]


def _profile(f: int, n: int, shift: float = 0.0, phase: float = 0.0) -> FloatArray:
    """cos(2πf(α + shift)/n − phase), (position,)."""
    return np.asarray(np.cos(2 * math.pi * f * (np.arange(n) + shift) / n - phase))


# ---- one step, exact at every width -------------------------------------------------------------------

_STEP_GRAM = np.array([[1.0, 0.6, 0.1, 0.3], [0.6, 0.5, 0.2, 0.0], [0.1, 0.2, 0.9, -0.3], [0.3, 0.0, -0.3, 0.4]])


def _step_networks(padding: str) -> Networks:
    return lambda width: cnn(
        (4, 4), [width, width + 8, width], "erf", 1.5, 0.3, kernel_size=3, padding=padding
    )  # fmt: skip


def _step_labels(net: Network) -> list[str]:
    pairs = [f"positions {a + 1} and {b + 1}" for a in range(4) for b in range(a, 4)]
    return [f"layer {l + 1}, {pair}" for l, _, _ in measures.one_step_layers(net) for pair in pairs]


def _one_step(trace: Trace) -> FloatArray:
    """(Ĝ^{l+1} − σ_w² A⋆E[φφ] − σ_b²)_{αα'} at Ĝ^l in units of a correlation, α ≤ α', (replicate, step·pair)."""
    residual = measures.one_step_residual(trace)
    a, b = np.triu_indices(residual.shape[-1])
    return residual[..., a, b].reshape(len(residual), -1)


def _other_step(change: Callable[[Convolution, FloatArray], FloatArray]) -> Callable[[Network, FloatArray], FloatArray]:
    """What the residual would be if a map gave change(layer, E[φφ]) instead; at the limit's own covariances."""

    def predict(net: Network, x: FloatArray) -> FloatArray:
        states = chain.propagate(net.layers, State.of_inputs(x))
        out = []
        for l, _, _ in measures.one_step_layers(net):
            at = net.maps[l]
            layer = net.layers[at]
            assert isinstance(layer, Convolution)
            right = states[at + 1].cov
            root = np.sqrt(np.diagonal(right))
            gap = (change(layer, states[at].cov) - right) / (root[:, None] * root)
            out.append(gap[np.triu_indices(len(gap))])
        return np.concatenate(out)

    return predict


def _bias_inside(layer: Convolution, products: FloatArray) -> FloatArray:
    """A ∘ C as printed: the biases averaged with the rest, as if zeros took their share of σ_b²."""
    return layer.mean_met(layer.sigma_w2 * products + layer.sigma_b2, 2)


def _indices_apart(layer: Convolution, products: FloatArray) -> FloatArray:
    """Both positions averaged over the taps, each by itself."""
    once = layer.mean_met(products)
    return layer.sigma_w2 * layer.mean_met(once.T).T + layer.sigma_b2


ONE_STEP = Claim(
    name="xiao2018_cnn.one_step",
    source=f"{SOURCE}, eq. 5",
    statement="Given a layer's covariances, the next layer's have mean σ_w² A⋆E[φφ] + σ_b², both positions moving "
    "together, exactly at 24 and 32 channels (circular, erf).",
    mark="exact",
    networks=_step_networks("circular"),
    widths=(24,),
    inputs=lambda net: of_gram([_STEP_GRAM]),
    predict=lambda net, x: np.zeros(20),
    measure=_one_step,
    test="mean",
    margin=0.005,
    margin_reason="in units of a correlation: a twentieth of what averaging both positions apart would change",
    labels=_step_labels,
    rival=Rival("the two positions averaged each by itself", _other_step(_indices_apart)),
    mutants=(
        Mutant("σ_w² off by 1 + 1/24", mutations.weight_gain(1 + 1 / 24)),
        Mutant("zeros beyond a border", mutations.padding("zeros")),
    ),
)

ONE_STEP_ZEROS = replace(
    ONE_STEP,
    name="xiao2018_cnn.one_step_zeros",
    statement="With zeros beyond the border the same holds with A over the taps inside, still divided by all, and "
    "σ_b² outside of it (erf).",
    networks=_step_networks("zeros"),
    margin_reason="in units of a correlation: a twentieth of what σ_b² inside A would change at the border",
    rival=Rival("σ_b² inside A, as in A∘C", _other_step(_bias_inside)),
    mutants=(
        Mutant("σ_w² off by 1 + 1/24", mutations.weight_gain(1 + 1 / 24)),
        Mutant("circular", mutations.padding("circular")),
    ),
)


# ---- trajectories and fixed points in the limit -------------------------------------------------------


def _reduced(cov: FloatArray) -> FloatArray:
    """What is compared of covariances (…, position, position): the mean length, its first mode, and the mean
    covariance of neighbours and of opposite positions, (…, 4)."""
    q, n = _displaced(cov, 0), cov.shape[-1]
    parts = [q, 2 * q * _profile(1, n), _displaced(cov, 1), _displaced(cov, n // 2)]
    return np.stack([p.mean(axis=-1) for p in parts], axis=-1)


def _reduced_labels(net: Network) -> list[str]:
    names = ("mean length", "first mode of lengths", "neighbours", "opposite positions")
    return [f"layer {l}, {name}" for l in range(2, len(net.maps) + 1) for name in names]


def _uneven(n: int) -> list[FloatArray]:
    """A Gram matrix whose lengths and overlaps vary along the circle."""
    root = 1.0 + 0.8 * _profile(1, n)
    angle = 0.7 * np.arange(n)
    return [2.0 * np.outer(root, root) * (0.8 * np.cos(angle[:, None] - angle) + 0.2 * np.eye(n))]


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
    inputs=lambda net: of_gram(_uneven(net.input_shape[0])),
    predict=lambda net, x: _reduced(propagate(net, x).q[1:]).ravel(),
    measure=lambda trace: _reduced(observables.metric(trace)[:, 1:]).reshape(trace.site.count, -1),
    test="ladder",
    engine="auto",
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
    return np.stack([_displaced(cov, 0).mean(axis=-1) / p.q, cov[..., a, b].mean(axis=-1) / p.q], axis=-1)


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


# ---- modes --------------------------------------------------------------------------------------------

_POSITIONS = 8
_AMPLITUDE = 0.06  # of a mode, in units of q*


@cache
def _modes() -> SpatialModes:
    return spatial_modes("tanh", *CHAOTIC, _POSITIONS)


def _mode_matrices(n: int) -> list[FloatArray]:
    """Σ* with small modes added and taken away: of the lengths, f = 1 and 2; of neighbours, f = 1, a quarter of a wave
    aside, where what the lengths feed does not fall."""
    p = phase_of(CHAOTIC)
    modes = np.diag(_profile(1, n) + _profile(2, n))
    at = np.arange(n)
    along = _profile(1, n, 0.5, math.pi / 2)
    modes[at, (at + 1) % n] = modes[(at + 1) % n, at] = along
    return [homogeneous(p.q, p.c, n) + sign * _AMPLITUDE * p.q * modes for sign in (1, -1)]


def _amplitudes(cov: FloatArray) -> FloatArray:
    """Of the difference between the two inputs, in units of q*: lengths f = 1 and 2, neighbours f = 1 aside; what is
    fed into neighbours and next neighbours by f = 1, (…, 5)."""
    two = _blocks(cov, 2)
    delta = (two[..., 0, :, :] - two[..., 1, :, :]) / (2 * phase_of(CHAOTIC).q)
    n = delta.shape[-1]
    parts = [
        _displaced(delta, 0) * _profile(1, n),
        _displaced(delta, 0) * _profile(2, n),
        _displaced(delta, 1) * _profile(1, n, 0.5, math.pi / 2),
        _displaced(delta, 1) * _profile(1, n, 0.5),
        _displaced(delta, 2) * _profile(1, n, 1.0),
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
    margin=0.1,
    margin_reason="less than half of −log λ_1 = 0.217, the distance to the mean's own rates",
    labels=lambda net: ["lengths", "neighbours"],
    rival=Rival("at the mean's rates", lambda net, x: _scale_rates(1.0)),
    mutants=(Mutant("relu in place of tanh", mutations.activation("relu")),
             Mutant("linear in place of tanh", mutations.activation("linear"))),
)  # fmt: skip


# ---- gradients ----------------------------------------------------------------------------------------

_BOUNDARY_BIAS = 0.05
_OUT = 4  # output channels where the cotangent is fixed


@cache
def _boundary() -> Point:
    """Where fully connected tanh networks of this σ_b² are critical."""
    return critical_sigma_w2("tanh", _BOUNDARY_BIAS), _BOUNDARY_BIAS


def _boundary_networks(padding: str) -> Networks:
    return lambda width: networks(_boundary(), 5, 4, padding=padding)(width)


def _boundary_inputs(net: Network) -> FloatArray:
    return starting_at(_boundary(), lambda n: [homogeneous(phase_of(_boundary()).q, 0.5, n)])(net)


def _border_chi(net: Network, x: FloatArray) -> FloatArray:
    chi = border_effect("tanh", *_boundary(), net.input_shape[:-1]).chi
    return np.full(len(net.maps) - 1, np.log(chi))


PHASE_BOUNDARY = Claim(
    name="xiao2018_cnn.phase_boundary",
    source=f"{SOURCE}, §2",
    statement="On the fully connected critical line a circular convolution is critical: the whole gradient's norm "
    "keeps its size, χ_1 = 1 (tanh, σ_b² = 0.05).",
    mark="limit",
    networks=_boundary_networks("circular"),
    widths=WIDTHS,
    inputs=_boundary_inputs,
    predict=lambda net, x: np.zeros(len(net.maps) - 1),
    measure=measures.log_gradient_gain,
    test="ladder",
    engine="auto",
    margin=0.02,
    margin_reason="less than half of what a border of zeros would change on this grid",
    labels=generic.layer_labels(1, 1),
    rival=Rival("positions shift the boundary, as zeros beyond a border do", _border_chi),
    mutants=(Mutant("σ_w² off by 10%", mutations.weight_gain(1.1)),
             Mutant("zeros beyond a border", mutations.padding("zeros"))),
)  # fmt: skip

_ZEROS = "whether the critical point survives zero padding"

ZEROS_AS_PRINTED = replace(
    PHASE_BOUNDARY,
    name="xiao2018_cnn.zero_padding_as_printed",
    source=f"{SOURCE}, §1 and §3: 'also apply to standard zero-padded boundary conditions'",
    statement="With zeros beyond the border of four positions, gradients keep their size at the same critical point.",
    mark="heuristic",
    networks=_boundary_networks("zeros"),
    rival=Rival("the zeros' own recursion", lambda net, x: propagate(net, x).gradient_gains),
    mutants=(Mutant("σ_w² off by a factor of 2", mutations.weight_gain(0.5)),),
    knob=None,
    expected="refuted",
    finding=_ZEROS,
)

ZEROS_MENDED = replace(
    ZEROS_AS_PRINTED,
    name="xiao2018_cnn.zero_padding",
    source=f"{SOURCE}, eq. 5 with A cut off at the border",
    statement="With zeros beyond the border of four positions, gradients shrink at the circle's critical point, by "
    "what the truncated average gives in each layer.",
    mark="limit",
    predict=lambda net, x: propagate(net, x).gradient_gains,
    rival=Rival("the circle's critical point is theirs", lambda net, x: np.zeros(len(net.maps) - 1)),
    mutants=(Mutant("circular", mutations.padding("circular")), Mutant("σ_w² off by 10%", mutations.weight_gain(1.1))),
    knob=mutations.weight_gain,
    expected="confirmed",
)


def _read_out(width: int) -> Network:
    """Three layers on a circle of seven, and a linear one of few channels."""
    base = networks(ORDERED, 3, 7)(width)
    return Network([*base.layers, Convolution((7,), width, _OUT, (3,), *ORDERED)])


def _two_lit() -> FloatArray:
    """The same cotangent at two neighbours, nothing elsewhere; unit norm in all, (1, position, channel)."""
    v = np.zeros((1, 7, _OUT))
    v[:, :2] = 1 / math.sqrt(2 * _OUT)
    return v


def _gradient_profile(g: FloatArray) -> FloatArray:
    """‖δ(α)‖² at every position and the mean of δ(α)·δ(α+1), (…, 8) from (…, 7, 7)."""
    return np.concatenate([_displaced(g, 0), 7 * _displaced(g, 1).mean(axis=-1, keepdims=True)], axis=-1)


def _blurred(net: Network, x: FloatArray) -> FloatArray:
    states = chain.propagate(net.layers, State.of_inputs(x))
    v = _two_lit()[0]
    down = chain.pull_back(net.layers, states, Grad(v @ v.T, np.ones((7, 7), bool)))
    return _gradient_profile(down[net.maps[1] + 1].cov)


def _measured_profile(trace: Trace) -> FloatArray:
    delta = trace.maps[1].gy
    assert delta is not None
    return _gradient_profile(trace.plan.engine.kernels.gram(delta[:, 0], delta[:, 0]))


def _evenly(net: Network, x: FloatArray) -> FloatArray:
    """The same total, the same at every position, and neighbours with nothing in common."""
    even = np.full(8, _blurred(net, x)[:7].mean())
    even[7] = 0.0
    return even


GRADIENT_BLUR = Claim(
    name="xiao2018_cnn.gradient_blur",
    source=f"{SOURCE}, §2; Schoenholz et al. 2017, §4, for convolutions",
    statement="Going down, E δ(α)δ(α') is averaged over the taps like Σ, and gains E[φ′φ′] at each pair of positions: "
    "a gradient that enters at two neighbours has spread so two layers below (tanh, uneven inputs).",
    mark="limit",
    networks=_read_out,
    widths=WIDTHS,
    inputs=lambda net: of_gram(_uneven(7)),
    cotangent=_two_lit(),
    predict=_blurred,
    measure=_measured_profile,
    test="ladder",
    engine="auto",
    growth=_OUT / max(WIDTHS),  # nothing is averaged over the few outputs, whose number is not a width of the series
    margin=0.03,
    margin_reason="a fifth of the largest share that an even spread would move",
    labels=lambda net: [*(f"layer 2, position {a}" for a in range(1, 8)), "layer 2, neighbours"],
    rival=Rival("gradients spread evenly at once", _evenly),
    mutants=(Mutant("σ_w² off by 50%", mutations.weight_gain(1.5)),
             Mutant("linear in place of tanh", mutations.activation("linear"))),
)  # fmt: skip


# ---- figure 1c ----------------------------------------------------------------------------------------

FIGURE_1C = (0.85, 0.90, 0.95, 1.05, 1.10, 1.15, 1.20, 1.25, 1.30, 1.35)  # σ_w² at σ_b² = 2e-5
TRAINED = (False, False, False, True, True, True, True, False, False, False)  # to the eye, in the figure
DEPTH_1C = 1003


def _points_1c() -> list[Point]:
    return [(s, PAPERS_POINT[1]) for s in FIGURE_1C]


def _unit_networks(width: int) -> Network:
    """One layer of σ_w² = 1 without biases: its pre-activations have the inputs' own covariance."""
    return cnn((3, 3), [width], "tanh")


def _shares(factors: FloatArray) -> FloatArray:
    """L/(L + 6ξ_c) from χ_c*, L = 1003: a half where L = 6ξ_c."""
    depths = DEPTH_1C * np.abs(np.log(factors)) / 6
    return np.asarray(depths / (1 + depths))


def _survival(trace: Trace) -> FloatArray:
    """σ_w² times the mean of φ′(u_α)φ′(u_α') over channels and pairs of positions, (replicate, point): what a layer
    leaves of a small difference in correlation."""
    kernels, above = trace.plan.engine.kernels, trace.tape[1].layer
    assert isinstance(above, Activation)
    slope = kernels.slope(above.phi, trace.maps[0].y)
    apart = slope.reshape(-1, 3, slope.shape[-1])
    pairs = _displaced(kernels.gram(apart, apart), 1).mean(axis=-1) / slope.shape[-1]
    return np.asarray(np.array(FIGURE_1C) * pairs.reshape(-1, len(FIGURE_1C)))


def shares_1c() -> FloatArray:
    """L/(L + 6ξ_c) in theory, for every σ_w² of the figure."""
    return np.array([DEPTH_1C / (DEPTH_1C + 6 * phase_of(p).xi_c) for p in _points_1c()])


SORTED_1C = Claim(
    name="xiao2018_cnn.figure_1c",
    source=f"{SOURCE}, fig. 1c",
    statement="At initialisation 6ξ_c sorts the ten σ_w² of fig. 1c as its training curves do: depth 1003 is below "
    "6ξ_c for 1.05, 1.10, 1.15, 1.20 and above it for 0.85, 0.90, 0.95, 1.25, 1.30, 1.35.",
    mark="exact",
    networks=_unit_networks,
    widths=(128,),
    inputs=lambda net: of_gram([homogeneous(phase_of(p).q, phase_of(p).c, 3) for p in _points_1c()]),
    predict=lambda net, x: shares_1c(),
    measure=_survival,
    combine=_shares,
    test="mean",
    margin=0.025,
    margin_reason="of L/(L + 6ξ_c): three quarters of the least distance from the half that sorts, 0.033 at 1.25",
    labels=lambda net: [f"σ_w² = {s:g}" for s in FIGURE_1C],
    rival=Rival("the scale of gradients, 1/|log χ_1|, for that of correlations", lambda net, x: _shares(
        np.array([phase_of(p).chi_1 for p in _points_1c()]))),
    mutants=(Mutant("σ_w² off by 5%", mutations.weight_gain(1.05)),
             Mutant("erf in place of tanh", mutations.activation("erf"))),
)  # fmt: skip


# ---- figure 3 -----------------------------------------------------------------------------------------

LENGTHS_3 = (0.01, 0.1, 0.3, 1.0, 3.0)  # q* of five points of the critical line, σ_b² increasing


@cache
def points_3() -> list[Point]:
    """(σ_w², σ_b²) of the five critical points."""
    line = critical_line("tanh", np.array(LENGTHS_3))
    return [(float(w), float(b)) for w, b in zip(line.sigma_w2, line.sigma_b2, strict=True)]


def _points_labels(net: Network) -> list[str]:
    return [f"σ_w² = {w:.4g}, σ_b² = {b:.2g}" for w, b in points_3()]


def _gains_3(trace: Trace) -> FloatArray:
    """‖δ^1‖²/‖δ^2‖² with each point's σ_w² in place of 1, (replicate, point)."""
    norms = np.diagonal(observables.grad_gram(trace), axis1=-2, axis2=-1)
    return np.asarray(norms[:, 0] / norms[:, 1] * np.array([w for w, _ in points_3()]))


def _spread_3(net: Network, x: FloatArray) -> FloatArray:
    """Channels times the variance of a layer's gain, positions being alike (c* = 1): (1 + 2/n)μ − 1 with
    μ = ⟨φ′⁴⟩/⟨φ′²⟩²."""
    q = np.array(LENGTHS_3)
    mu = gaussian.moment("tanh", q, 4, 1).value / gaussian.moment("tanh", q, 2, 1).value ** 2
    return np.asarray((1 + 2 / net.input_shape[0]) * mu - 1)


FIGURE_3 = Claim(
    name="xiao2018_cnn.figure_3",
    source=f"{SOURCE}, fig. 3 and §3",
    statement="Along the critical line the mean gradient norm is constant from layer to layer: at five points, q* from "
    "0.01 to 3, the gain is 1 (tanh).",
    mark="exact",
    networks=lambda width: cnn((4, 4), [width, width], "tanh"),
    widths=(48,),
    inputs=lambda net: of_gram([q * np.ones((4, 4)) for q in LENGTHS_3]),
    predict=lambda net, x: np.ones(len(LENGTHS_3)),
    measure=_gains_3,
    test="mean",
    sample="xiao2018_cnn.figure_3",
    engine="auto",
    margin=0.015,
    margin_reason="less than half of the distance to the rival at the second point already",
    labels=_points_labels,
    rival=Rival("σ_w² alone sets the gain, as in a linear network",
                lambda net, x: np.array([w for w, _ in points_3()])),
    mutants=(Mutant("σ_w² off by 5%", mutations.weight_gain(1.05)),
             Mutant("linear in place of tanh", mutations.activation("linear"))),
)  # fmt: skip

FIGURE_3_SPREAD = replace(
    FIGURE_3,
    name="xiao2018_cnn.figure_3_spread",
    statement="Its finite-width spread is not constant along the line: channels times the variance of a layer's gain "
    "is (1 + 2/n)⟨φ′⁴⟩/⟨φ′²⟩² − 1, which grows with q* (tanh, n = 4 positions).",
    mark="first order",
    predict=_spread_3,
    # The cotangent's averaged Gram matrix Γ is not quite diagonal: E tr Γ²/(tr Γ)² is 1/n + 0.35/channels here, and the
    # gain's variance has 2μ of it.
    remainder=lambda net, x: (_spread_3(net, x) + 1) / (1 + 2 / net.input_shape[0]) / net.widths[0],
    measure=lambda trace: trace.maps[0].y.shape[-1] * (_gains_3(trace) - 1) ** 2,
    margin=0.25,
    margin_reason="a sixth of what the spread grows by along the line",
    rival=Rival("the spread of a linear network at all five", lambda net, x: np.full(5, 2 / net.input_shape[0])),
    mutants=(Mutant("linear in place of tanh", mutations.activation("linear")),
             Mutant("σ_w² off by 50%", mutations.weight_gain(1.5))),
    knob=None,  # the spread moves with σ_w² only by the saturation of φ
)  # fmt: skip


# ---- finite width, where positions are alike ----------------------------------------------------------

_CHANNELS, _STRETCH = 64, 12
_ALIKE = np.ones((1, 3, _CHANNELS)) / math.sqrt(3 * _CHANNELS)


POSITIONS_ALIKE = Claim(
    name="xiao2018_cnn.positions_alike",
    source=f"{SOURCE}, §3 and fig. 1b, beyond its mean field",
    # Over 1,503 layers that would be a mean of −24 with a standard deviation of 10. The paper's network on digits is
    # far from it: correlations between positions take 258,000 layers to c*, and a norm summed over 64 positions that
    # are not alike fluctuates less. 48 such networks gave log gains of mean −1.6, variance 3.5 and quantiles (10%,
    # 50%, 90%) −4.1, −1.3, 0.5 for independent cotangents; −3.8, 4.7, −6.7, −3.5, −1.3 for one cotangent everywhere.
    statement="At (1.05, 2e-5) and 64 channels signals that are alike at all positions meet a dense map of width 64, "
    "the sum of the taps: log gradient norms lose some 1/64 a layer at first order though χ_1 = 1.",
    mark="first order",
    networks=networks(PAPERS_POINT, _STRETCH, 3),
    widths=(_CHANNELS,),
    inputs=starting_at(PAPERS_POINT, lambda n: [homogeneous(phase_of(PAPERS_POINT).q, 1.0, n)]),
    cotangent=_ALIKE,
    predict=lambda net, x: log_gains("tanh", *PAPERS_POINT, _CHANNELS, len(net.maps)).mean,
    # The next order of a series in depth/channels, whose first term is of order 1/channels a layer.
    remainder=lambda net, x: np.full(len(net.maps) - 1, len(net.maps) / _CHANNELS**2 / 2),
    measure=measures.log_gradient_gain,
    test="mean",
    engine="auto",
    margin=0.009,
    margin_reason="less than half of the first layers' first-order term",
    labels=generic.layer_labels(1, 1),
    rival=Rival("no finite-width term, log χ_1 = 4e-6",
                lambda net, x: np.full(len(net.maps) - 1, np.log(phase_of(PAPERS_POINT).chi_1))),
    mutants=(Mutant("σ_w² off by 5%", mutations.weight_gain(1.05)),
             Mutant("linear in place of tanh", mutations.activation("linear"))),
)  # fmt: skip

CLAIMS = (
    ONE_STEP, ONE_STEP_ZEROS, TRAJECTORY, FIXED_POINT, FIXED_POINT_OTHER, MODES, MODE_SCALES, GRADIENT_BLUR,
    PHASE_BOUNDARY, ZEROS_AS_PRINTED, ZEROS_MENDED, SORTED_1C, FIGURE_3, FIGURE_3_SPREAD, POSITIONS_ALIKE,
)  # fmt: skip
