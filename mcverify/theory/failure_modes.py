"""The two ways in which an initialisation fails, in words and figures (Hanin & Rolnick 2018).

Failure mode 1: the mean length, or gradient, is not kept, but falls or grows by a factor a layer.
Failure mode 2: the mean is kept, but single networks scatter about it by what grows with Σ 1/width: exactly known for
positively homogeneous activations without biases (length_law.py), to first order otherwise (finite_width.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from mcverify.activations import Activation
from mcverify.errors import Unpredictable
from mcverify.layers.dense import Dense
from mcverify.layers.dropout import Dropout
from mcverify.layers.layer import Layer
from mcverify.network import Network
from mcverify.theory.finite_width import length_variance
from mcverify.theory.growth import exp
from mcverify.theory.length_law import LengthLaw, gradient_law, length_law
from mcverify.theory.phase import phase
from mcverify.theory.propagation import Prediction
from mcverify.weights import LAWS

LARGEST_CHANGE = 10.0
"""Of a mean length or gradient over the whole network: beyond it failure mode 1."""
LARGEST_SPREAD = 0.5
"""Of single networks, relative to their mean: beyond it failure mode 2. A convention: there is no threshold."""
_NINE_IN_TEN = (0.05, 0.5, 0.95)
_ROUNDING = 1e-12  # of a logarithm's moments, over hundreds of layers
_SAMPLES = 20_000  # for quantiles: 5% to within half a percentage point


@dataclass(frozen=True)
class Spread:
    """Of a positive quantity over networks, relative to its mean: standard deviation, and the quantiles 5%, 50%, 95%.

    dead: the probability that it is 0. how: "exact law", "law of Gaussian weights" in place of others, or "first
    order"; with ", sampled" where the quantiles come from samples of a law that has no density to be followed."""

    relative: float
    low: float
    median: float
    high: float
    dead: float
    how: str

    @property
    def failing(self) -> bool:
        return self.relative > LARGEST_SPREAD

    def widening(self, layers: int) -> int:
        """By what to multiply all widths of so many layers, alike, for a spread that does not fail: the square of the
        spread is Π(1 + a/width) − 1."""
        share = math.expm1(math.log1p(self.relative**2) / layers)
        return math.ceil(layers * share / math.log1p(LARGEST_SPREAD**2))


@dataclass(frozen=True)
class Rates:
    """Mean change of lengths q going up, and of gradients ‖δ‖² coming down, as factors: a layer, and in all."""

    length: float
    length_total: float
    gradient: float
    gradient_total: float

    @property
    def failing(self) -> bool:
        """Whether either leaves [1/10, 10] over the whole network."""
        totals = self.length_total, self.gradient_total
        return not all(1 / LARGEST_CHANGE <= t <= LARGEST_CHANGE for t in totals)


def rates(p: Prediction) -> Rates | None:
    """None for a single map, and where lengths or gradients are zero."""
    steps = len(p.length_gains)
    up, down = (float(np.sum(v)) for v in (p.length_gains, p.gradient_gains))
    if not steps or not math.isfinite(up) or not math.isfinite(down):
        return None
    return Rates(math.exp(up / steps), exp(up), math.exp(down / steps), exp(down))


def length_spread(net: Network, p: Prediction, layer: int | None = None) -> Spread | None:
    """Of M_l over networks, the last by default, of the input where it is largest; None where no theory here treats
    it."""
    law = _law(net, lambda given: length_law(given, layer=layer))
    if law is not None:
        return _of_law(law, _how(net))
    at = len(net.maps) - 1 if layer is None else layer - 1
    spread = length_variance(net, p)
    with np.errstate(all="ignore"):
        relative = float(np.max(np.sqrt(spread.value[at]) / p.length[at]))
    return _log_normal(relative) if math.isfinite(relative) else None


def gradient_spread(net: Network, layer: int = 1) -> Spread | None:
    """Of ‖δ^l‖² over networks, for one direction of the output; None where its law is not known, and at the last
    layer."""
    if len(net.maps) <= layer:
        return None
    law = _law(net, lambda given: gradient_law(given, layer=layer))
    return None if law is None else _of_law(law, _how(net))


def _law(net: Network, ask: Callable[[Network], LengthLaw]) -> LengthLaw | None:
    """Of Gaussian weights in place of other independent ones, which spread alike to first order in 1/width but for the
    first map: its 5/n is 5 + 2(μ4 − 3) Σx⁴/(Σx²)² over n, so that n_0 has to be large and no entry of x dominate."""
    try:
        return ask(_gaussian(net))
    except Unpredictable:
        return None


def _gaussian(net: Network) -> Network:
    def changed(_: int, layer: Layer) -> Layer:
        if isinstance(layer, Dense) and LAWS[layer.weights].independent:
            return replace(layer, weights="gaussian")
        return layer

    return net.map_layers(changed)


def _how(net: Network) -> str:
    laws = {net.random_map(i).law for i in net.maps}
    return "exact law" if laws <= {"gaussian", "orthogonal"} else "law of Gaussian weights"


def _of_law(law: LengthLaw, how: str) -> Spread:
    mean = law.log_moment(1)
    excess = law.log_moment(2) - 2 * mean
    relative = math.sqrt(math.expm1(min(excess, 700.0))) if excess > _ROUNDING else 0.0
    try:
        at = law.ppf_log(np.array(_NINE_IN_TEN))
    except Unpredictable:  # one value, as of linear φ on square orthogonal maps, or too rough to be inverted
        at = np.quantile(law.rvs_log(_SAMPLES, 0), _NINE_IN_TEN, method="inverted_cdf")
        how += ", sampled"
    low, median, high = (float(v) for v in np.exp(at - mean))
    return Spread(relative, low, median, high, law.dead, how)


def _log_normal(relative: float) -> Spread:
    s2 = math.log1p(relative**2)
    low, median, high = (math.exp(-s2 / 2 + math.sqrt(s2) * NormalDist().inv_cdf(u)) for u in _NINE_IN_TEN)
    return Spread(relative, low, median, high, 0.0, "first order")


# ---- in words -------------------------------------------------------------------------------------------


def in_words(net: Network, p: Prediction) -> list[str]:
    """A sentence on each of the failure modes, for a network whose maps follow one another."""
    out, found = [], rates(p)
    if found is not None:
        out.append(f"Failure mode 1, a mean that is not kept to a factor ten: {_first(net, p, found)}.")
    spread = length_spread(net, p)
    if spread is not None:
        out.append(f"Failure mode 2, networks that scatter about the mean: {_second(net, spread)}.")
    return out


def _first(net: Network, p: Prediction, r: Rates) -> str:
    told = f"lengths change by a factor {r.length_total:.3g} in all, gradients by {r.gradient_total:.3g}"
    if not r.failing:
        return f"no, {told}"
    each = f"lengths {_change(r.length)} a layer, gradients {_change(r.gradient)}"
    return f"yes, {each}; {told}{_cause(net, p)}"


def _change(factor: float) -> str:
    if abs(factor - 1) < 5e-4:
        return "keep their size"
    return f"{'fall' if factor < 1 else 'grow'} by a factor {factor:.3g}"


def _cause(net: Network, p: Prediction) -> str:
    """Why: σ_w² alone for positively homogeneous φ, and for others inputs that start away from the fixed point."""
    maps, phis = [net.random_map(i) for i in net.maps], {phi for _, _, phi in net.gains() if phi is not None}
    sigmas = {m.sigma_w2 for m in maps[1:]}
    if len(phis) != 1 or len(sigmas) != 1:
        return ""
    (phi,), (sigma_w2,) = phis, sigmas
    critical = critical_of(phi)
    if critical is None:
        return _start(net, p, phi)
    if abs(sigma_w2 / critical - 1) < 1e-9:
        return ""
    side = "below" if sigma_w2 < critical else "above"
    text = f": σ_w² = {sigma_w2:.4g} is {side} the {critical:.4g} at which {phi.name} keeps lengths"
    bias = maps[-1].sigma_b2
    if bias > 0 and sigma_w2 < critical:
        text += f"; biases hold lengths at a floor, q = {bias / (1 - sigma_w2 / critical):.3g}, but not gradients"
    return text


def _start(net: Network, p: Prediction, phi: Activation) -> str:
    """What of the change is the way to the fixed point, where that itself keeps gradients to a hundredth a layer."""
    top, first = net.random_map(net.maps[-1]), float(np.diagonal(p.gram[0]).mean())
    found = phase(phi, sigma_w2=top.sigma_w2, sigma_b2=top.sigma_b2, q0=max(first, 1e-300))
    dropout = any(isinstance(layer, Dropout) for layer in net.layers)
    if dropout or not 0 < found.q < math.inf or abs(found.chi_1 - 1) > 0.01 or abs(first / found.q - 1) < 0.1:
        return ""
    return (
        f": inputs start at q = {first:.3g} and lengths go to q* = {found.q:.3g}, where gradients are kept "
        f"(χ_1 = {found.chi_1:.6g}); the first layers make the change, the variances do not"
    )


def critical_of(phi: Activation) -> float | None:
    """The σ_w² at which a positively homogeneous φ keeps mean lengths and gradients, 2/(p² + m²); None for others."""
    if phi.slopes is None or not any(phi.slopes):
        return None
    return 2.0 / sum(s * s for s in phi.slopes)


def _second(net: Network, s: Spread) -> str:
    of_mean = f"9 in 10 networks end with a length between {s.low:.2g} and {s.high:.2g} of the mean"
    if not s.failing:
        return f"no, lengths scatter by ±{s.relative:.2g} of it at the last layer; {of_mean} ({s.how})"
    text = f"yes, {of_mean}, half of all below {s.median:.2g} ({s.how})"
    down = gradient_spread(net)
    if down is not None:
        text += f"; gradients ‖δ^1‖² between {down.low:.2g} and {down.high:.2g}, half below {down.median:.2g}"
    if s.dead > 1e-3:
        text += f"; in {s.dead:.2g} of all networks a layer is dead"
    times = s.widening(len(net.maps))
    return f"{text}. Widths {times} times as large would bring the scatter down to ±{LARGEST_SPREAD:g}"
