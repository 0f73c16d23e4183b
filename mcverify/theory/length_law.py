"""Exact laws of squared lengths in networks of positively homogeneous activations without biases.

For Gaussian weights of variance σ_w²/fan_in, M_l/M_{l−1} are independent from layer to layer, whatever the input:
(σ_w²/n_l)(p² χ²_K + m² χ²_{n_l−K}) with K ~ Bin(n_l, ½), for slopes p above 0 and m below (ReLU: 1 and 0). So are the
factors of ‖J u‖², of ‖Jᵀu‖² and of the entries of J: which units are on is a fair coin apart from how large they are,
since a row of weights and its negative are equally likely.

Source: Hanin & Rolnick 2018, "How to start training", Theorem 5 and its proof; Hanin 2018, "Which neural net
architectures give rise to exploding and vanishing gradients?"; Hanin & Nica 2020, "Products of many large random
matrices and gradients in deep neural networks".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mcverify.activations import Activation as Phi
from mcverify.activations import activation as look_up
from mcverify.errors import InputError, Unpredictable
from mcverify.layers.activation import Activation
from mcverify.layers.dense import Dense
from mcverify.network import Network, check_network
from mcverify.random_map.engine import Map
from mcverify.theory import log_product
from mcverify.theory.growth import exp
from mcverify.theory.layer_factor import Factor, draw_log
from mcverify.theory.log_product import Inversion
from mcverify.validate import between, count, positive
from mcverify.weights import LAWS, weight_law

FloatArray = NDArray[np.float64]
Seed = int | np.random.Generator | None
_HIGHEST = 1000.0  # order of a moment


@dataclass(frozen=True)
class LengthLaw:
    """The law over networks of scale · Π R, a product of independent factors; "law": exact at every width.

    It has an atom at 0, where a layer is dead (`dead`, its probability), and a density elsewhere. Methods are named
    as SciPy's; those of the logarithm end in _log, and stay finite where the value itself overflows. Probabilities
    are right to `error`, absolutely.
    what: in words; log_survival: log P(> 0).
    """

    what: str
    log_scale: float
    factors: tuple[Factor, ...]
    log_survival: float
    mark: str = "law"

    @property
    def dead(self) -> float:
        """P(0): that some layer has no unit on."""
        return abs(math.expm1(self.log_survival))

    @property
    def error(self) -> float:
        """What a probability may be off by."""
        return self._law.error

    @cached_property
    def log_cumulants(self) -> FloatArray:
        """κ_1 … κ_4 of the logarithm, given survival: its mean, variance, and what makes it other than normal."""
        kappa = log_product.cumulants(self.factors)
        kappa[0] += self.log_scale
        return kappa

    @property
    def log_mean(self) -> float:
        """Mean of the logarithm, given survival."""
        return float(self.log_cumulants[0])

    @property
    def log_var(self) -> float:
        """Variance of the logarithm, given survival."""
        return float(self.log_cumulants[1])

    def log_moment(self, order: float) -> float:
        """The logarithm of E value^order, of any real order from 0 to 1000.

        Raises InputError for a negative order, as 1/value may be infinite, and for larger ones, whose cost grows as
        their square."""
        between("order", order, 0.0, _HIGHEST)
        if order == 0:
            return 0.0
        return self.log_survival + order * self.log_scale + log_product.log_moment(self.factors, order)

    def moment(self, order: float) -> float:
        """E value^order, of any real order from 0 to 1000, the atom included."""
        return exp(self.log_moment(order))

    @property
    def mean(self) -> float:
        return self.moment(1)

    @property
    def var(self) -> float:
        return self.moment(2) - self.moment(1) ** 2

    def cdf(self, value: ArrayLike) -> FloatArray:
        """P(≤ value)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            log = np.log(np.maximum(value, 0.0))
        return np.where(np.asarray(value) < 0, 0.0, self.cdf_log(log))

    def sf(self, value: ArrayLike) -> FloatArray:
        """P(> value)."""
        return 1.0 - self.cdf(value)

    def pdf(self, value: ArrayLike) -> FloatArray:
        """The density away from 0; its integral is 1 − dead."""
        v = np.asarray(value, dtype=np.float64)
        there = np.where(v > 0, v, 1.0)
        return np.where(v > 0, self.pdf_log(np.log(there)) / there, 0.0)

    def ppf(self, p: ArrayLike) -> FloatArray:
        """The quantile at probability p; 0 for p ≤ dead."""
        with np.errstate(over="ignore"):
            return np.exp(self.ppf_log(p))

    def cdf_log(self, y: ArrayLike) -> FloatArray:
        """P(log value ≤ y), dead networks counting as −∞."""
        alive = self._law.cdf(np.asarray(y, dtype=np.float64) - self.log_scale)
        return np.asarray(self.dead + (1.0 - self.dead) * alive)

    def pdf_log(self, y: ArrayLike) -> FloatArray:
        """The density of the logarithm; its integral is 1 − dead."""
        return np.asarray((1.0 - self.dead) * self._law.pdf(np.asarray(y, dtype=np.float64) - self.log_scale))

    def ppf_log(self, p: ArrayLike) -> FloatArray:
        """The quantile of the logarithm; −∞ for p ≤ dead.

        Raises InputError for p outside [0, 1]."""
        p = np.asarray(p, dtype=np.float64)
        if not ((p >= 0) & (p <= 1)).all():
            raise InputError("p", p.tolist(), "must lie in [0, 1]")
        return np.asarray(self._law.ppf((p - self.dead) / (1.0 - self.dead)) + self.log_scale)

    def rvs(self, size: int | tuple[int, ...] = 1, random_state: Seed = None) -> FloatArray:
        """Samples, from χ², Beta and binomial draws; apart from the inversion that cdf goes by."""
        with np.errstate(over="ignore"):  # inf, as `moment` and `mean` have it
            return np.exp(self.rvs_log(size, random_state))

    def rvs_log(self, size: int | tuple[int, ...] = 1, random_state: Seed = None) -> FloatArray:
        """Samples of the logarithm, −∞ for dead networks."""
        shape = (size,) if isinstance(size, Integral) else size
        if not isinstance(shape, tuple) or not all(isinstance(n, Integral) and n >= 0 for n in shape):
            raise InputError("size", size, "must be a whole number, at least 0, or a tuple of them")
        try:
            rng = np.random.default_rng(random_state)
        except (TypeError, ValueError):
            raise InputError("random_state", random_state, "must seed numpy.random.default_rng") from None
        y = np.full(shape, self.log_scale)
        for f in self.factors:
            y += draw_log(f, shape, rng)
        # Layers outside the product may die as well.
        others = self.log_survival - log_product.log_survival(self.factors)
        return y if others > -1e-300 else np.where(rng.random(shape) < math.exp(others), y, -np.inf)

    @cached_property
    def _law(self) -> Inversion:
        return log_product.invert(self.factors)


# ---- which law --------------------------------------------------------------------------------------------


def length_law(net: Network, m0: float = 1.0, *, layer: int | None = None, below: int = 0) -> LengthLaw:
    """The law of M_l = ‖x^l‖²/n_l for one input with ‖x^0‖²/n_0 = m0; of the ratio M_l/M_below where below > 0.

    layer: l, the last by default. Gaussian weights, or orthogonal ones, which are Haar on the square or its first
    rows or columns; linear, ReLU, leaky ReLU and other φ of two slopes; no bias, no dropout.
    Raises InputError for a layer that is not there, and Unpredictable, saying what can be asked instead, for a
    network outside this."""
    positive("m0", m0)
    layer = _layer(net, layer)
    count("below", below, least=0)
    if below >= layer:
        raise InputError("below", below, f"must be under the layer, {layer}: a ratio over no layer is 1")
    if below and m0 != 1.0:
        raise InputError("m0", m0, "says nothing of a ratio M_l/M_below: leave it at 1")
    factors = tuple(steps_up(net)[below:layer])
    what = f"M_{layer}/M_{below}" if below else f"M_{layer}"
    # A ratio is asked where M_below > 0: what dies below is left out.
    return LengthLaw(what, math.log(m0), factors, log_product.log_survival(factors))


def tangent_law(net: Network) -> LengthLaw:
    """The law of ‖J u‖²/‖u‖² for a fixed direction u of the input, J = ∂h^L/∂x^0 at any input, h^L the last map's
    output. Scope and errors as for `length_law`."""
    steps = _steps(net)
    top, _ = steps[-1]
    factors = (*(_up(*step) for step in steps[:-1]), _up(top, (1.0, 1.0)))
    scale = math.log(top.fan_out / net.input_dim)
    return LengthLaw("‖J u‖²/‖u‖²", scale, factors, log_product.log_survival(factors))


def gradient_law(net: Network, *, layer: int = 0) -> LengthLaw:
    """The law of ‖Jᵀu‖²/‖u‖² for a fixed output direction u, J = ∂h^L/∂x^0 at any input; from layer l ≥ 1 on that of
    ‖δ^l‖²/‖u‖², δ^l = ∂(u·h^l)/∂h^l.

    Independent Gaussian weights: those of an orthogonal map tie what is on to the gradient that comes down.
    Otherwise scope and errors as for `length_law`."""
    count("layer", layer, least=0)
    steps = _independent(net, "gradient_law")
    if layer >= len(steps):
        raise InputError("layer", layer, f"must be below the last layer, {len(steps)}: there the gradient is u itself")
    factors = tuple(_down(steps, j) for j in range(max(layer, 1), len(steps)))
    if layer == 0:
        factors = (Factor(net.input_dim, steps[0][0].sigma_w2), *factors)
    name = "‖Jᵀu‖²/‖u‖²" if layer == 0 else f"‖δ^{layer}‖²/‖u‖²"
    return LengthLaw(name, 0.0, factors, _survival(steps))


def entry_law(net: Network) -> LengthLaw:
    """The law of Z², Z = ∂h^L_p/∂x^0_q any single entry of the Jacobian; Z itself is as often negative as positive.

    Scope and errors as for `gradient_law`."""
    steps = _independent(net, "entry_law")
    factors = (Factor(1, steps[0][0].sigma_w2 / net.input_dim), *(_down(steps, j) for j in range(1, len(steps))))
    return LengthLaw("(∂h_p/∂x_q)²", 0.0, factors, _survival(steps))


def steps_up(net: Network) -> list[Factor]:
    """The factors R_1 … R_L of a network's lengths. Raises Unpredictable as `length_law` does."""
    return [_up(*step) for step in _steps(net)]


def slopes_of(activation: str | Phi) -> tuple[float, float]:
    """φ's slopes (below 0, above 0). Raises Unpredictable for φ of other than two slopes."""
    phi = look_up(activation)
    if phi.slopes is None:
        raise Unpredictable(
            f"exact laws are those of two slopes (linear, relu, leaky_relu), {phi.name} has none; ask predict for "
            "length_var, to first order in 1/width"
        )
    if not any(phi.slopes):
        raise Unpredictable(f"{phi.name} is zero everywhere")
    return phi.slopes


Step = tuple[Map, tuple[float, float]]
_SPHERICAL = ("gaussian", "orthogonal")  # whose image of a fixed vector is uniform in direction
_WITHOUT_ATOMS = tuple(law.name for law in LAWS.values() if law.independent and not law.atoms)


def _up(m: Map, slopes: tuple[float, float]) -> Factor:
    """What a map and the φ above it do to ‖x‖²/n."""
    high, low = max(s * s for s in slopes), min(s * s for s in slopes)
    ambient = math.inf if m.law == "gaussian" else float(max(m.fan_in, m.fan_out))
    return Factor(m.fan_out, m.sigma_w2, high, low, ambient)


def _down(steps: Sequence[Step], j: int) -> Factor:
    """What Wᵀ of map j + 1 and φ′ of layer j do to ‖δ‖²: units n_j, of variance σ_w²/n_j each."""
    m, slopes = steps[j][0], steps[j - 1][1]
    high, low = max(s * s for s in slopes), min(s * s for s in slopes)
    return Factor(m.fan_in, m.sigma_w2, high, low)


def _survival(steps: Sequence[Step]) -> float:
    """log P(no layer below the last map is dead): a dead layer stops every gradient."""
    return log_product.log_survival([_up(m, slopes) for m, slopes in steps[:-1]])


def _layer(net: Network, layer: int | None) -> int:
    check_network(net)
    layer = len(net.maps) if layer is None else layer
    count("layer", layer)
    if layer > len(net.maps):
        raise InputError("layer", layer, f"must be a layer of the network, 1 to {len(net.maps)}")
    return layer


def plain_steps(net: Network) -> list[Step]:
    """Each map with the slopes above it, of any independent weights without atoms. Raises Unpredictable."""
    return _steps(net, _WITHOUT_ATOMS)


def _independent(net: Network, name: str) -> list[Step]:
    steps = _steps(net)
    if any(m.law != "gaussian" for m, _ in steps):
        raise Unpredictable(f"{name} needs independent Gaussian weights; for orthogonal maps ask tangent_law")
    return steps


def _steps(net: Network, laws: Sequence[str] = _SPHERICAL) -> list[Step]:
    """Each map, of one of the laws, with the slopes (below 0, above 0) of the φ above it, (1, 1) for none.

    Raises Unpredictable for what has no exact law here."""
    check_network(net)
    out: list[Step] = []
    for i, v in enumerate(net.layers):
        where = f"layer {i + 1}"
        if isinstance(v, Dense):
            out.append((_checked(v.random_map, where, laws), (1.0, 1.0)))
        elif isinstance(v, Activation):
            if isinstance(net.layers[i - 1], Activation):
                raise Unpredictable(f"{where}: a second activation above one map; put a map in between")
            out[-1] = (out[-1][0], slopes_of(v.phi))
        else:
            kind = type(v).__name__.lower()
            raise Unpredictable(
                f"{where}: exact laws are those of dense maps and activations alone, not of {kind}; ask predict for "
                "length_var, or simulate"
            )
    return out


def _checked(m: Map, where: str, laws: Sequence[str]) -> Map:
    if m.sigma_b2 > 0:
        raise Unpredictable(
            f"{where}: with a bias (σ_b² = {m.sigma_b2:g}) lengths are no products of independent ratios; "
            "ask predict for length_var, exact for the second moment"
        )
    if m.sigma_w2 == 0:
        raise Unpredictable(f"{where}: σ_w² = 0 makes every length 0")
    if m.law in laws:
        return m
    if m.law == "orthogonal":
        raise Unpredictable(f"{where}: orthogonal weights are not independent; ask length_law or tangent_law")
    if weight_law(m.law).atoms:
        raise Unpredictable(
            f"{where}: {m.law} weights put atoms at h = 0, where no unit's side is a fair coin; ask ratio_moments for "
            "one layer's length, or gaussian or uniform weights of this variance"
        )
    raise Unpredictable(
        f"{where}: with {m.law} weights a length's law depends on the input's entries; ask ratio_moments for one "
        "layer's length, entry_moments for the Jacobian, or gaussian weights of this variance"
    )
