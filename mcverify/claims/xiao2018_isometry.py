"""Xiao, Bahri, Sohl-Dickstein, Schoenholz & Pennington 2018, Dynamical isometry and a mean field theory of CNNs: what
orthogonal kernels are, how they weigh their taps, the Jacobian's spectrum with them, and 10,000 layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma, roots_gegenbauer
from scipy.stats import binom

from mcverify.claims import mutations
from mcverify.claims.claim import Claim, FloatArray, Inputs, Mutant, Rival
from mcverify.claims.poole2016 import phase_of
from mcverify.claims.schoenholz2017 import CRITICAL
from mcverify.inputs import with_gram
from mcverify.kernels import memory
from mcverify.layers import chain
from mcverify.layers.convolution import DELTA, Convolution
from mcverify.layers.layer import Signal
from mcverify.network import Network, cnn, mlp
from mcverify.random_map import explicit
from mcverify.random_map.engine import Engine
from mcverify.simulation import observables
from mcverify.simulation.trace import Trace, trace
from mcverify.streams import Site
from mcverify.theory.propagation import propagate
from mcverify.theory.spectrum import jacobian_moments

SOURCE = "Xiao et al. 2018, arXiv:1806.05393"

_GAUSSIAN = Mutant("Gaussian kernels", mutations.weights("gaussian"))
_DELTA = Mutant("delta-orthogonal kernels", mutations.weights(DELTA))


# ---- isometry -----------------------------------------------------------------------------------------


def _both_kernels(channels: int) -> Network:
    """A general and a delta-orthogonal convolution on a torus, nothing between them."""
    laws = ("orthogonal", DELTA)
    return Network([Convolution((4, 3), channels, channels, (3, 2), CRITICAL[0], 0.0, law) for law in laws])


def _norm_defect(trace: Trace) -> FloatArray:
    """log₁₀ |‖h‖²/(σ_w²‖x‖²) − 1| of every layer, over all positions, (replicate, layer); of 10⁻¹² where it is less."""
    out = []
    for layer, record in zip(trace.plan.net.layers, trace.tape, strict=True):
        assert isinstance(layer, Convolution)
        host = trace.plan.engine.kernels.host  # the defect is below what a sum in another order would leave
        before, after = ((host(v).astype(np.float64) ** 2).sum(axis=(1, 2)) for v in (record.x, record.y))
        out.append(np.abs(after / (layer.sigma_w2 * before) - 1))
    return np.asarray(np.log10(np.maximum(np.stack(out, axis=1), 1e-12)))


def _gaussian_defect(net: Network, x: FloatArray) -> FloatArray:
    """Its mean for Gaussian kernels: ‖h‖² is a sum over channels of quadratic forms in N(0, Ĝ), so that its relative
    variance is 2 tr Ĝ²/(n (tr Ĝ)²), and E log|z| = −(γ + log 2)/2 of a normal z."""
    out = []
    for q, channels in zip(propagate(mutations.weights("gaussian")(net), x).q, net.widths, strict=True):
        out.append(np.log(2 * np.trace(q @ q) / (channels * np.trace(q) ** 2)) - np.euler_gamma - np.log(2))
    return np.array(out) / (2 * np.log(10))


ISOMETRY = Claim(
    name="xiao2018_isometry.isometry",
    source=f"{SOURCE}, on orthogonal kernels",
    statement="Circular convolution with a delta-orthogonal or a general orthogonal kernel keeps every signal's "
    "squared norm, to less than 10⁻⁶ as float32 rounds.",
    mark="exact",
    networks=_both_kernels,
    widths=(16,),
    inputs=lambda net: with_gram([[1.0]], 4 * 3 * net.input_dim).reshape(1, 4, 3, -1),
    predict=lambda net, x: np.full(len(net.maps), -6.0),
    measure=_norm_defect,
    test="mean",
    one_sided=True,
    margin=0.5,
    margin_reason="10⁻⁶ is 17 units of float32's last place, for up to seven matrices of 16 reflections, whose "
    "roundings add up at random and average over 192 entries; a tenth of the distance to Gaussian kernels",
    labels=lambda net: ["general", "delta"],
    rival=Rival("Gaussian kernels, which keep norms on average alone", _gaussian_defect),
    mutants=(_GAUSSIAN, Mutant("σ_w² off by 0.01%", mutations.weight_gain(1.0001))),
)


# ---- the average over taps ----------------------------------------------------------------------------

GRID, KERNEL = (5, 4), (3, 2)
_OFFSETS = [(-1, 0), (-1, 1), (0, 0), (0, 1), (1, 0), (1, 1)]  # of KERNEL's taps, an even axis one more to the right


def _tap_energies(trace: Trace) -> FloatArray:
    """q^1/σ_w² where each tap sees the one position that is not zero, and the sum elsewhere, (replicate, tap + 1)."""
    q = np.diagonal(observables.q(trace)[:, 0], axis1=1, axis2=2) / trace.plan.net.random_map(0).sigma_w2
    grid = q.reshape(-1, *GRID)
    taps = np.stack([grid[:, -i % GRID[0], -j % GRID[1]] for i, j in _OFFSETS], axis=1)
    return np.concatenate([taps, q.sum(axis=1, keepdims=True) - taps.sum(axis=1, keepdims=True)], axis=1)


def _impulse(net: Network) -> FloatArray:
    """One input of length one at the first position, and zero elsewhere."""
    x = np.zeros((1, *net.input_shape))
    x[0, 0, 0] = 1.0
    return x


def _uniform(net: Network, x: FloatArray) -> FloatArray:
    return np.array([1 / 6] * 6 + [0.0])


def _binomial(net: Network, x: FloatArray) -> FloatArray:
    by_axis = [binom.pmf(np.arange(k), k - 1, 0.5) for k in KERNEL]
    return np.array([*np.outer(*by_axis).ravel(), 0.0])


GENERAL_TAPS = Claim(
    name="xiao2018_isometry.general_taps",
    source=f"{SOURCE}, on orthogonal kernels, with projections of rank Bin(c, ½), and on the average A",
    statement="Under general orthogonal kernels A weighs the taps of each axis binomially, exactly at 8 channels.",
    mark="exact",
    networks=lambda channels: Network([Convolution(GRID, channels, channels, KERNEL, CRITICAL[0], 0.0, "orthogonal")]),
    widths=(8,),
    inputs=_impulse,
    predict=_binomial,
    measure=_tap_energies,
    test="mean",
    margin=0.01,
    margin_reason="a quarter of the distance to the uniform average at any tap",
    labels=lambda net: [*(f"tap {i:+d}, {j:+d}" for i, j in _OFFSETS), "elsewhere"],
    rival=Rival("the uniform average of independent weights", _uniform),
    mutants=(_GAUSSIAN, _DELTA, Mutant("σ_w² off by 10%", mutations.weight_gain(1.1))),
)

DELTA_TAPS = replace(
    GENERAL_TAPS,
    name="xiao2018_isometry.delta_taps",
    source=f"{SOURCE}, on delta-orthogonal kernels and the average A",
    statement="Under delta-orthogonal kernels A is the identity: no position meets another.",
    networks=lambda channels: Network([Convolution(GRID, channels, channels, KERNEL, CRITICAL[0], 0.0, DELTA)]),
    predict=lambda net, x: np.array([float(o == (0, 0)) for o in _OFFSETS] + [0.0]),
    mutants=(
        _GAUSSIAN,
        Mutant("general orthogonal kernels", mutations.weights("orthogonal")),
        Mutant("the tap beside the centre", measure=lambda trace: np.roll(_tap_energies(trace), 1, axis=1)),
        Mutant("σ_w² off by 10%", mutations.weight_gain(1.1)),
    ),
)


# ---- the spectrum of the Jacobian ---------------------------------------------------------------------

DEPTH, POSITIONS = 10, 2


def _critical(law: str, depth: int) -> Callable[[int], Network]:
    """channels -> tanh network of that law and depth on a circle of two positions, at the critical point."""
    return lambda channels: cnn(
        (channels, POSITIONS), [channels] * depth, "tanh", *CRITICAL, law, kernel_size=POSITIONS
    )  # fmt: skip


def _at_fixed_point(inputs: int) -> Inputs:
    """Inputs whose pre-activations have length q* at both positions, with no correlation among them."""

    def x(net: Network) -> FloatArray:
        sigma_w2, sigma_b2 = CRITICAL
        gram = np.eye(inputs * POSITIONS) * (phase_of(CRITICAL).q - sigma_b2) / sigma_w2
        return with_gram(gram, net.input_dim).reshape(inputs, *net.input_shape)

    return x


def _log_ratio(t: Trace) -> FloatArray:
    """log m_2/m_1² of J = ∂h^L/∂x^0, (replicate, 1): ‖J Jᵀv‖²/‖Jᵀv‖⁴ for v of norm one, each norm the mean over inputs.

    For v uniform on the sphere ‖Jᵀv‖² has the mean m_1, the normalised trace of JJᵀ, and ‖J Jᵀv‖² that of its square;
    the logarithm of their ratio in each network is light-tailed where they are not, and has the same limit. The
    weights that pulled v back push the result forward, which the explicit engine permits; under another, networks are
    sampled again by it."""
    plan = t.plan
    if plan.engine.name != "explicit":
        plan = replace(plan, engine=explicit.engine(plan.engine.kernels, plan.engine.dtype))
        t = trace(plan, t.site.start, t.site.count)
    again = [replace(record) for record in t.tape[: plan.net.end]]
    v, back = again[-1].gy, t.gx
    assert v is not None
    assert back is not None
    forth = chain.tangent(again, plan.engine, back)
    square, m_1, m_2 = (
        (plan.engine.kernels.host(a).astype(np.float64) ** 2).reshape(len(a), len(plan.x), -1).sum(axis=-1)
        for a in (v, back, forth)
    )
    return np.log((m_2 / square).mean(axis=1) / (m_1 / square).mean(axis=1) ** 2)[:, None]


def _predicted_log_ratio(weights: str) -> FloatArray:
    """log m_2/m_1² of L maps with L − 1 activations between them, at q*."""
    return np.log1p([jacobian_moments(mlp(8, [8] * DEPTH, "tanh", *CRITICAL, weights)).spread])


DELTA_SPECTRUM = Claim(
    name="xiao2018_isometry.delta_spectrum",
    source=f"{SOURCE}, on dynamical isometry; Pennington, Schoenholz & Ganguli 2017, arXiv:1711.04735",
    statement="At the critical point the Jacobian of ten tanh layers of delta-orthogonal kernels is nearly an isometry:"
    " m_2/m_1² = 1 + 9(μ_2/μ_1² − 1).",
    mark="limit",
    networks=_critical(DELTA, DEPTH),
    widths=(16, 24, 32, 40, 48),
    inputs=_at_fixed_point(4),
    predict=lambda net, x: _predicted_log_ratio("orthogonal"),
    measure=_log_ratio,
    test="ladder",
    margin=0.01,
    margin_reason="a quarter of the distance to an isometry; Gaussian kernels are 240 margins off",
    labels=lambda net: ["log m_2/m_1²"],
    rival=Rival("an exact isometry, as if tanh were linear", lambda net, x: np.zeros(1)),
    knob=None,  # σ_w² cancels but for its shift of q*
    growth=0.2,  # nothing but slopes within 0.4% of one is corrected, so that 1/width comes without the depth
    mutants=(_GAUSSIAN, Mutant("linear in place of tanh", mutations.activation("linear"))),
)

GAUSSIAN_SPECTRUM = replace(
    DELTA_SPECTRUM,
    name="xiao2018_isometry.gaussian_spectrum",
    source=f"{SOURCE}, on dynamical isometry; Pennington, Schoenholz & Ganguli 2017, arXiv:1711.04735",
    statement="With Gaussian kernels the same Jacobian has m_2/m_1² = 1 + L + 9(μ_2/μ_1² − 1): no isometry, though its "
    "mean gain is the same.",
    networks=_critical("gaussian", DEPTH),
    widths=(32, 40, 48, 64, 96),
    growth=1.0,
    inputs=_at_fixed_point(4),
    predict=lambda net, x: _predicted_log_ratio("gaussian"),
    margin=0.2,
    margin_reason="a tenth of the distance to orthogonal kernels",
    rival=Rival("orthogonal kernels' value", lambda net, x: _predicted_log_ratio("orthogonal")),
    mutants=(_DELTA,),
)


# ---- ten thousand layers ------------------------------------------------------------------------------

BLOCK, BLOCKS, WINDOWS = 50, 200, 4  # the network is a block of layers, repeated; what is read, in windows of depth
_SPAN = 100  # layers, the unit of log-gains
_PART = 256  # networks at a time, so that a layer's arrays stay in the cache


def _ten_thousand_layers(trace: Trace) -> FloatArray:
    """In each quarter of 10,000 layers: the log-gain of a random tangent's squared norm over 100 layers, and the mean
    of log q/q* over positions, read every 50 layers, (replicate, 2·window).

    The block's layers go on at fresh addresses. A tangent is pushed along with the signal, since a backward pass would
    have to keep all layers; it has the Jacobian's gain all the same."""
    site, dx = trace.site, trace.tape[trace.plan.net.end - 1].gy
    assert dx is not None
    parts = [
        _pushed_through(
            trace, Site(site.key, site.layer, site.start + at, len(dx[at : at + _PART])), dx[at : at + _PART]
        )
        for at in range(0, len(dx), _PART)
    ]
    return np.concatenate(parts)


def _pushed_through(trace: Trace, site: Site, dx: Signal) -> FloatArray:
    """Its replicates at `site`, with tangents dx."""
    engine, layers, x = trace.plan.engine, [record.layer for record in trace.tape], trace.tape[0].x
    gains, lengths = [], []
    for _ in range(BLOCKS):
        before = _log_square(engine, dx)
        for layer in layers:
            with memory.scratch():  # or the kernels would keep what all layers took
                h, saved = layer.forward(engine, x, site)
                below, x, dx = x, h.copy(), layer.tangent(engine, saved, dx).copy()
            site = site.above(layer.sites)
        after = _log_square(engine, dx)
        q = engine.kernels.squares(below) / below.shape[-1]  # below the last tanh
        gains.append((after - before) * _SPAN / BLOCK)
        lengths.append(np.log(q / phase_of(CRITICAL).q).mean(axis=1))
        shrink = np.exp(-after / 2).astype(dx.dtype)[:, None, None, None]
        dx = engine.kernels.multiply(dx, engine.kernels.given(shrink))
    quarters = [np.stack(v, axis=1).reshape(len(dx), WINDOWS, -1).mean(axis=-1) for v in (gains, lengths)]
    return np.concatenate(quarters, axis=1)


def _log_square(engine: Engine, dx: Signal) -> FloatArray:
    return np.asarray(np.log((engine.kernels.host(dx).astype(np.float64) ** 2).sum(axis=(1, 2, 3))))


@cache
def _length_on_the_sphere(channels: int) -> float:
    """log q/q* at the fixed point of q ↦ σ_w²⟨φ²⟩ + σ_b² under the law that an orthogonal matrix gives its outputs, a
    uniform point of the sphere of squared radius q·c, in the place of the Gaussian law."""
    sigma_w2, sigma_b2 = CRITICAL
    t, weights = roots_gegenbauer(80, channels / 2 - 1)

    def excess(q: float) -> float:
        return float(sigma_w2 * weights @ np.tanh(np.sqrt(channels * q) * t) ** 2 / weights.sum() + sigma_b2 - q)

    return float(np.log(brentq(excess, 1e-3, 1.0) / phase_of(CRITICAL).q))


def _followed(net: Network, gain: float) -> FloatArray:
    return np.array([gain * _SPAN] * WINDOWS + [_length_on_the_sphere(net.input_dim)] * WINDOWS)


def _gaussian_kernels(net: Network, x: FloatArray) -> FloatArray:
    """A vector's mean log-gain by independent Gaussian entries, E log(χ²_m/m) with m = channels · positions."""
    m = net.input_dim * POSITIONS
    return _followed(net, float(digamma(m / 2) - np.log(m / 2)))


def _window_labels(net: Network) -> list[str]:
    ends = [(i * BLOCK * BLOCKS // WINDOWS + 1, (i + 1) * BLOCK * BLOCKS // WINDOWS) for i in range(WINDOWS)]
    return [f"{what}, layers {a} to {b}" for what in ("gradient", "length") for a, b in ends]


TEN_THOUSAND = Claim(
    name="xiao2018_isometry.ten_thousand_layers",
    source=f"{SOURCE}, abstract: networks of 10,000 layers and more",
    statement="Through 10,000 tanh layers of delta-orthogonal kernels with 16 channels gradients keep their size, and "
    "lengths keep to the fixed point of the sphere's law, 12% above q*.",
    mark="limit",
    networks=_critical(DELTA, BLOCK),
    widths=(16,),
    inputs=_at_fixed_point(1),
    predict=lambda net, x: _followed(net, float(np.log(phase_of(CRITICAL).chi_1))),
    measure=_ten_thousand_layers,
    test="within",
    engine="auto",
    margin=0.05,
    margin_reason="e^{±5} in a squared norm over all layers, where Gaussian kernels leave e^{−314}; and less than half "
    "the distance of the length from the limit's q*",
    labels=_window_labels,
    rival=Rival("gains as with Gaussian kernels of that width", _gaussian_kernels),
    knob=None,  # each size would take 10,000 layers of a thousand networks
    mutants=(_GAUSSIAN,),
)

CLAIMS = (ISOMETRY, GENERAL_TAPS, DELTA_TAPS, DELTA_SPECTRUM, GAUSSIAN_SPECTRUM, TEN_THOUSAND)
