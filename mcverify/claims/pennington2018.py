"""Pennington, Schoenholz & Ganguli 2018, The emergence of spectral universality in deep networks: the whole law of the
Jacobian's singular values by S-transforms, and which activations can come near an isometry."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mcverify.claims import jacobian, mutations
from mcverify.claims.claim import Claim, FloatArray, Mutant, Rival
from mcverify.claims.pennington2017 import FAR
from mcverify.network import Network
from mcverify.theory.spectrum import exact_second_moments

SOURCE = "Pennington, Schoenholz & Ganguli 2018, arXiv:1802.09979"
DEPTH = 10

_GAUSSIAN = Mutant("Gaussian weights", mutations.weights("gaussian"))
_ORTHOGONAL = Mutant("orthogonal weights", mutations.weights("orthogonal"))


# ---- ReLU ---------------------------------------------------------------------------------------------


RELU_GAUSSIAN = Claim(
    name="pennington2018.relu_gaussian",
    source=f"{SOURCE}, on ReLU: a relative variance of 2L, here exactly at finite width",
    statement="Five critical ReLU layers of 32 units with Gaussian weights: m_1 = 1 and m_2 = 11 and what finite width "
    "adds, no isometry.",
    mark="exact",
    networks=jacobian.square("relu", lambda: (2.0, 0.0), "gaussian", 5),
    widths=(32,),
    inputs=jacobian.one_input,
    predict=jacobian.exact(activated=True),
    measure=jacobian.first_two(activated=True),
    test="mean",
    relative=True,
    margin=0.04,
    margin_reason="a third of the distance to the limit",
    labels=lambda net: ["m_1", "m_2"],
    rival=Rival("the moments of infinite width", jacobian.limit(activated=True)),
    mutants=(_ORTHOGONAL, Mutant("leaky_relu(0.1)", mutations.activation("leaky_relu(0.1)"))),
)

RELU_ORTHOGONAL = replace(
    RELU_GAUSSIAN,
    name="pennington2018.relu_orthogonal",
    source=f"{SOURCE}, on ReLU: a relative variance of L with orthogonal weights, here exactly at finite width",
    statement="With orthogonal weights the same network has m_2 = 6 and what finite width adds: no isometry either.",
    networks=jacobian.square("relu", lambda: (2.0, 0.0), "orthogonal", 5),
    margin=0.05,
    margin_reason="a third of the distance to the limit, a seventeenth of that to an isometry",
    mutants=(_GAUSSIAN, Mutant("leaky_relu(0.1)", mutations.activation("leaky_relu(0.1)"))),
)


def _exact_ratio(net: Network, x: FloatArray) -> FloatArray:
    m_1, m_2 = exact_second_moments(net, activated=True)
    return np.array([m_2 / m_1**2])


RELU_ANY_VARIANCES = replace(
    RELU_ORTHOGONAL,
    name="pennington2018.relu_any_variances",
    source=f"{SOURCE}, on ReLU: no initialisation comes near an isometry",
    statement="Off criticality and with biases (σ_w² = 1.6, σ_b² = 0.3) m_2/m_1² of ReLU is what it was: no σ_w², σ_b² "
    "brings it nearer to an isometry.",
    networks=jacobian.square("relu", lambda: (1.6, 0.3), "orthogonal", 5),
    predict=_exact_ratio,
    combine=lambda means: means[1:] / means[:1] ** 2,
    labels=lambda net: ["m_2/m_1²"],
    rival=Rival("an isometry", lambda net, x: np.ones(1)),
    knob=None,  # that σ_w² does not matter is what is claimed
    neighbours=(Mutant("no biases", mutations.no_bias),),
)


# ---- sigmoidal activations near the critical line -----------------------------------------------------


def _near(phi: str, sigma_b2: float, told: str, margin: float) -> Claim:
    """Ten orthogonal layers on the critical line at a small σ_b²."""

    def where() -> jacobian.Point:
        return jacobian.critical(phi, sigma_b2)

    return Claim(
        name=f"pennington2018.{phi}",
        source=f"{SOURCE}, on hard-tanh, erf and tanh near the critical point at q* → 0",
        statement=f"On the critical line at σ_b² = {sigma_b2:g} ten orthogonal {told}.",
        mark="limit",
        networks=jacobian.square(phi, where, "orthogonal", DEPTH),
        widths=(32, 48, 64, 96, 128),
        inputs=jacobian.at_fixed_point(phi, where),
        predict=jacobian.predicted_log_ratio,
        measure=jacobian.log_ratio,
        test="ladder",
        margin=margin,
        margin_reason="a seventh of the distance to an isometry, or less",
        labels=lambda net: ["log m_2/m_1²"],
        rival=Rival("an exact isometry", lambda net, x: np.zeros(1)),
        knob=None,  # σ_w² cancels but for its shift of q*
        engine="auto",
        growth=0.5,
        mutants=(_GAUSSIAN, Mutant("linear activations", mutations.activation("linear"))),
    )


NEAR = (
    _near("tanh", 1e-4, "tanh layers are near an isometry: m_2/m_1² = 1 + 9(μ_2/μ_1² − 1) = 1.10", 0.01),
    _near("erf", 1e-4, "erf layers are near an isometry: m_2/m_1² = 1 + 9(μ_2/μ_1² − 1) = 1.10", 0.01),
    _near("hard_tanh", 1e-3, "hard-tanh layers are near an isometry: m_2/m_1² = 1 + 9(1/p − 1) = 1.08, p the share of "
          "units that are not saturated", 0.01),
)  # fmt: skip


# ---- the whole law ------------------------------------------------------------------------------------


def _law(
    name: str, phi: str, point: jacobian.Point, weights: str, depth: int, told: str, rival: tuple[str, str],
    margin: float,
) -> Claim:  # fmt: skip
    """Means of c²/(c² + s²) at scales c from quantile to quantile, as the width grows."""

    def where() -> jacobian.Point:
        return point

    others = {"gaussian": _GAUSSIAN, "orthogonal": _ORTHOGONAL}
    return Claim(
        name=f"pennington2018.{name}",
        source=f"{SOURCE}: S_{{JJᵀ}} = Π S_{{D²}} S_{{WWᵀ}}",
        statement=f"The singular values of {told} have the law that S-transforms say.",
        mark="limit",
        networks=jacobian.square(phi, where, weights, depth),
        widths=(12, 16, 20, 24, 32, 40),
        inputs=jacobian.one_input if phi in ("linear", "relu") else jacobian.at_fixed_point(phi, where),
        predict=jacobian.predicted_shares(phi, where, weights, depth),
        measure=jacobian.shares(phi, where, weights, depth),
        test="ladder",
        margin=margin,
        margin_reason="less than half the distance to the rival's law",
        labels=jacobian.scale_labels,
        rival=Rival(" with ".join(rival) + " weights", jacobian.predicted_shares(phi, where, weights, depth, rival)),
        knob=None if phi == "hard_tanh" else mutations.weight_gain,
        mutants=(others["orthogonal" if weights == "gaussian" else "gaussian"],),
    )


LAWS = (
    replace(
        _law("fuss_catalan", "linear", (1.0, 0.0), "gaussian", 3, "a product of three Gaussian matrices",
             ("relu", "gaussian"), 0.02),
        neighbours=(Mutant("uniform weights", mutations.weights("uniform")),),
    ),
    _law("relu_law", "relu", (2.0, 0.0), "gaussian", 3, "three Gaussian ReLU layers", ("linear", "gaussian"), 0.04),
    _law("tanh_law", "tanh", FAR, "orthogonal", 4, "four orthogonal tanh layers at σ_w² = 2",
         ("hard_tanh", "orthogonal"), 0.025),
)  # fmt: skip

CLAIMS = (RELU_GAUSSIAN, RELU_ORTHOGONAL, RELU_ANY_VARIANCES, *NEAR, *LAWS)
