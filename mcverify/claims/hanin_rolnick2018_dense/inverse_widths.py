"""Σ 1/n: what second moments depend on to first order, beyond it, and between which bounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mcverify.claims import mutations
from mcverify.claims.claim import Claim, FloatArray, Mutant, Rival
from mcverify.claims.hanin_rolnick2018_dense.lengths import (
    GAIN,
    ORTHOGONAL,
    SOURCE,
    WIDTHS,
    inverse_widths,
    last_square,
    one_input,
    relu,
)
from mcverify.claims.hanin_rolnick2018_dense.second_moment import SECOND_MOMENT
from mcverify.simulation.trace import Trace


def _excess_over_first_order(trace: Trace) -> FloatArray:
    return (last_square(trace) - 1) / (5 * inverse_widths(trace.plan.net))


FIRST_ORDER = Claim(
    name="hanin_rolnick2018.first_order",
    source=f"{SOURCE}, Theorem 5",
    statement="To first order in 1/width the variance of M_L is 5 Σ 1/n_l, however that sum is shared by the layers "
    "(ReLU, one layer four times the other).",
    mark="first order",
    networks=relu(lambda width: [width, 4 * width]),
    widths=WIDTHS,
    inputs=one_input,
    predict=lambda net, x: np.ones(1),
    measure=_excess_over_first_order,
    test="ladder",
    order=1,  # a polynomial of degree 1 in 1/width
    growth=0.1,
    margin=0.15,
    margin_reason="a quarter of the distance to a linear network's coefficient 2",
    labels=lambda net: ["variance over 5 Σ 1/n"],
    rival=Rival("a linear network's 2 Σ 1/n_l", lambda net, x: np.array([0.4])),
    mutants=(Mutant("σ_w² off by 5%", mutations.weight_gain(1.05)), ORTHOGONAL),
)  # fmt: skip


BEYOND_FIRST_ORDER = replace(
    SECOND_MOMENT,
    name="hanin_rolnick2018.beyond_first_order",
    source=f"{SOURCE}, Theorem 5: 'the sum of the reciprocals of layer widths', read as the whole of it",
    statement="Beyond first order the widths' shape counts, −(25/2) Σ 1/n² in the logarithm: layers of 8 and 24 "
    "units have a second moment of 1.964, three equal ones of the same Σ 1/n one of 2.086.",
    networks=relu(lambda width: [width, 3 * width]),
    widths=(8,),
    margin=0.015,
    margin_reason="a quarter of the distance to equal layers",
    rival=Rival("equal layers of the same Σ 1/n", lambda net, x: np.array([(1 + 5 * inverse_widths(net) / 3) ** 3])),
    mutants=(GAIN, ORTHOGONAL),
)

_SHALLOW, _NARROW = 4, 32  # layers and their width, whose Σ 1/n the bounds are at

BOUNDS = Claim(
    name="hanin_rolnick2018.bounds",
    source=f"{SOURCE}, Theorem 5: exponential in Σ 1/n from both sides",
    statement="exp(½ Σ 1/n_l) ≤ E M_L² ≤ exp(5 Σ 1/n_l) (ReLU).",
    mark="bound",
    networks=relu(lambda width: [width] * _SHALLOW),
    widths=(_NARROW,),
    inputs=one_input,
    predict=lambda net, x: np.zeros(2),
    measure=last_square,
    combine=lambda means: np.log(means[0]) * np.array([1.0, -1.0]) + np.array([-5.0, 0.5]) * _SHALLOW / _NARROW,
    test="mean",
    one_sided=True,
    margin=0.02,
    margin_reason="half of the distance to the nearer bound",
    labels=lambda net: ["above the upper bound", "below the lower bound"],
    rival=Rival("lengths do not vary", lambda net, x: np.array([-5.0, 0.5]) * inverse_widths(net)),
    mutants=(
        Mutant("σ_w² off by 10%", mutations.weight_gain(1.1)),
        Mutant("σ_w² short by 20%", mutations.weight_gain(0.8)),
    ),
)
