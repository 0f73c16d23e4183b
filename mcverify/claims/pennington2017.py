"""Pennington, Schoenholz & Ganguli 2017, Resurrecting the sigmoid in deep learning through dynamical isometry: what
Gaussian and orthogonal weights make of the Jacobian's singular values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mcverify.claims import jacobian, mutations
from mcverify.claims.claim import Claim, FloatArray, Mutant, Rival
from mcverify.claims.schoenholz2017 import CRITICAL
from mcverify.network import Network
from mcverify.simulation import spectrum
from mcverify.simulation.trace import Trace

SOURCE = "Pennington, Schoenholz & Ganguli 2017, arXiv:1711.04735"
DEPTH = 10
FAR = (2.0, 0.05)  # tanh, in the chaotic phase

_GAUSSIAN = Mutant("Gaussian weights", mutations.weights("gaussian"))
_ORTHOGONAL = Mutant("orthogonal weights", mutations.weights("orthogonal"))
_LINEAR = Mutant("linear in place of tanh", mutations.activation("linear"))


# ---- linear networks, at finite width -----------------------------------------------------------------

GAUSSIAN_LINEAR = Claim(
    name="pennington2017.gaussian_linear",
    source=f"{SOURCE}, §2: products of Gaussian matrices, here exactly at finite width",
    statement="Six Gaussian matrices of 32 units: m_1 = 1, and m_2 is above the limit's 7, as t ← ((n + 1)t + T)/n and"
    " T ← T + 2t/n say.",
    mark="exact",
    networks=jacobian.square("linear", lambda: (1.0, 0.0), "gaussian", 6),
    widths=(32,),
    inputs=jacobian.one_input,
    predict=jacobian.exact(activated=False),
    measure=jacobian.first_two(activated=False),
    test="mean",
    relative=True,
    margin=0.03,
    margin_reason="a third of the distance to the limit",
    labels=lambda net: ["m_1", "m_2"],
    rival=Rival("the Fuss–Catalan moments of infinite width", jacobian.limit(activated=False)),
    mutants=(_ORTHOGONAL, Mutant("σ_w² off by 3%", mutations.weight_gain(1.03))),
)


def _log_spread(t: Trace) -> FloatArray:
    """log₁₀ (m_2/m_1² − 1) by all singular values, of 10⁻¹⁴ where it is less, (replicate, 1)."""
    s2 = spectrum.singular_values(t.plan, t.site.start, t.site.count)[:, 0] ** 2
    spread = s2.var(axis=1) / s2.mean(axis=1) ** 2
    return np.log10(np.maximum(spread, 1e-14))[:, None]


ORTHOGONAL_LINEAR = Claim(
    name="pennington2017.orthogonal_linear",
    source=f"{SOURCE}, §2 (Saxe et al. 2013)",
    statement="Five orthogonal matrices: all singular values are σ_w⁵, their squares' relative variance less than 10⁻¹¹"
    " as float32 rounds.",
    mark="exact",
    networks=jacobian.square("linear", lambda: (1.3, 0.0), "orthogonal", 5),
    widths=(16,),
    inputs=jacobian.one_input,
    predict=lambda net, x: np.full(1, -11.0),
    measure=_log_spread,
    test="mean",
    one_sided=True,
    margin=0.5,
    margin_reason="10⁻¹¹ is the square of 50 units of float32's last place, for five matrices of 16 reflections",
    labels=lambda net: ["log₁₀ of the relative variance"],
    rival=Rival("Gaussian matrices: a relative variance of 5", lambda net, x: np.log10([float(len(net.maps))])),
    knob=None,  # a factor of all singular values
    mutants=(_GAUSSIAN, Mutant("leaky_relu(0.999)", mutations.activation("leaky_relu(0.999)"))),
)


# ---- tanh, at its critical point and far from it ------------------------------------------------------


def _isometry(net: Network, x: FloatArray) -> FloatArray:
    return np.zeros(1)


TANH_ORTHOGONAL = Claim(
    name="pennington2017.tanh_orthogonal",
    source=f"{SOURCE}, §3: σ²_{{JJᵀ}} = L(μ_2/μ_1² − 1 − s_1), s_1 = 0 for orthogonal weights",
    statement="At the critical point ten orthogonal tanh layers are nearly an isometry: the squared singular values' "
    "relative variance is 9(μ_2/μ_1² − 1) = 0.038.",
    mark="limit",
    networks=jacobian.square("tanh", lambda: CRITICAL, "orthogonal", DEPTH),
    widths=(32, 48, 64, 96, 128),
    inputs=jacobian.at_fixed_point("tanh", lambda: CRITICAL),
    predict=jacobian.predicted_log_ratio,
    measure=jacobian.log_ratio,
    test="ladder",
    margin=0.004,
    margin_reason="a tenth of the distance to an isometry",
    labels=lambda net: ["log m_2/m_1²"],
    rival=Rival("an exact isometry, as if tanh were linear", _isometry),
    knob=None,  # σ_w² cancels but for its shift of q*
    engine="auto",
    growth=0.2,  # nothing but slopes within 0.4% of one is corrected, so that 1/width comes without the depth
    mutants=(_GAUSSIAN, _LINEAR),
)

TANH_GAUSSIAN = replace(
    TANH_ORTHOGONAL,
    name="pennington2017.tanh_gaussian",
    source=f"{SOURCE}, §3: s_1 = −1 for Gaussian weights",
    statement="With Gaussian weights the same network has m_2/m_1² = 11.04: no isometry, though its mean gain is the "
    "same.",
    networks=jacobian.square("tanh", lambda: CRITICAL, "gaussian", DEPTH),
    widths=(48, 64, 96, 128, 192),
    margin=0.2,
    margin_reason="a tenth of the distance to orthogonal weights",
    rival=Rival("orthogonal weights' value", lambda net, x: jacobian.predicted_log_ratio(
        mutations.weights("orthogonal")(net), x)),
    growth=1.0,
    mutants=(_ORTHOGONAL,),
)  # fmt: skip

FAR_FROM_CRITICAL = replace(
    TANH_ORTHOGONAL,
    name="pennington2017.orthogonal_is_not_isometry",
    source=f"{SOURCE}, §3: orthogonal weights alone are no dynamical isometry",
    statement="Far from the critical point, at σ_w² = 2, ten orthogonal tanh layers are no isometry: m_2/m_1² = 1 + "
    "9(μ_2/μ_1² − 1) = 4.3.",
    networks=jacobian.square("tanh", lambda: FAR, "orthogonal", DEPTH),
    inputs=jacobian.at_fixed_point("tanh", lambda: FAR),
    margin=0.1,
    margin_reason="a fourteenth of the distance to an isometry",
    growth=1.0,
    mutants=(_GAUSSIAN, _LINEAR),
)


CLAIMS = (GAUSSIAN_LINEAR, ORTHOGONAL_LINEAR, TANH_ORTHOGONAL, TANH_GAUSSIAN, FAR_FROM_CRITICAL)
