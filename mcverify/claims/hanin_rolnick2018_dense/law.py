"""The whole law of the last length."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from mcverify.claims import mutations, whole_law
from mcverify.claims.claim import Claim, FloatArray, Mutant, Rival
from mcverify.claims.hanin_rolnick2018_dense.lengths import (
    GAIN,
    INPUT_DIM,
    ORTHOGONAL,
    SOURCE,
    inverse_widths,
    log_lengths,
    one_input,
    relu,
)
from mcverify.network import Network, mlp
from mcverify.simulation.trace import Trace
from mcverify.theory.length_law import LengthLaw, length_law


@cache
def last_length(net: Network) -> LengthLaw:
    """The exact law of M_L."""
    return length_law(net)


def log_last(trace: Trace) -> FloatArray:
    """log M_L, (replicate,)."""
    return log_lengths(trace)[:, -1]


LAW = Claim(
    name="hanin_rolnick2018.whole_law",
    source=f"{SOURCE}, proof of Theorem 5; the law is theirs, its distribution function is not in print",
    statement="M_L is a product of independent (2/n_l) χ²_K, K ~ Bin(n_l, ½): the whole law, dead layers included, in "
    "12 layers of 5 to 9 units (ReLU).",
    mark="law",
    networks=relu(lambda width: [width, width + 2, width + 4] * 4),
    widths=(5,),
    inputs=one_input,
    predict=whole_law.expected(last_length),
    measure=whole_law.follows(last_length, log_last),
    test="mean",
    margin=whole_law.MARGIN,
    margin_reason=whole_law.MARGIN_REASON,
    labels=whole_law.labels,
    rival=Rival(
        "log-normal, N(−β/2, β) with β = 5 Σ 1/n",
        whole_law.log_normal(
            last_length, lambda net: -2.5 * inverse_widths(net), lambda net: 5 * inverse_widths(net)
        ),
    ),
    mutants=(GAIN, ORTHOGONAL, Mutant("uniform weights", mutations.weights("uniform"))),
)  # fmt: skip

LEAKY_LAW = replace(
    LAW,
    name="hanin_rolnick2018.leaky_law",
    statement="With leaky ReLU of slope 0.3 the factors are 2(χ²_K + α² χ²_{n−K})/((1 + α²)n): the whole law, in 12 "
    "layers of 5 to 9 units.",
    networks=lambda width: mlp(INPUT_DIM, [width, width + 2, width + 4] * 4, "leaky_relu(0.3)", 2 / 1.09),
)

ORTHOGONAL_LAW = replace(
    LAW,
    name="hanin_rolnick2018.orthogonal_law",
    statement="With Haar orthogonal weights of gain √2 the factors are 2 Beta(K/2, (n − K)/2): the whole law, in 8 "
    "layers of 12 units (ReLU).",
    networks=lambda width: mlp(width, [width] * 8, "relu", 2.0, weights="orthogonal"),
    widths=(12,),
    rival=Rival(
        "log-normal, N(−β/2, β) with β = 3 Σ 1/(n + 2)",
        whole_law.log_normal(last_length, lambda net: -1.5 * 8 / 14, lambda net: 3 * 8 / 14),
    ),
    mutants=(GAIN, Mutant("Gaussian weights", mutations.weights("gaussian"))),
)
