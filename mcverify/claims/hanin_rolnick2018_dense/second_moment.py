"""Failure mode 2: the second moment of the last length, a product over layers for every kind of weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mcverify.claims import mutations
from mcverify.claims.claim import Claim, FloatArray, Mutant, Rival
from mcverify.claims.hanin_rolnick2018_dense.lengths import (
    GAIN,
    INPUT_DIM,
    ORTHOGONAL,
    SOURCE,
    last_square,
    one_input,
    product,
    relu,
    tapered,
)
from mcverify.network import Network, mlp
from mcverify.theory.length_moments import ratio_moments

SECOND_MOMENT = Claim(
    name="hanin_rolnick2018.second_moment",
    source=f"{SOURCE}, Theorem 5, with its constant worked out",
    statement="The second moment of a He-initialised ReLU network's length is Π(1 + 5/n_l), exactly.",
    mark="exact",
    networks=relu(tapered),
    widths=(48,),
    inputs=one_input,
    predict=product(lambda n: 1 + 5 / n),
    measure=last_square,
    test="mean",
    relative=True,
    margin=0.03,
    margin_reason="a fifth of the distance to the linear network's",
    labels=lambda net: ["E M_L²"],
    rival=Rival("a linear network's, Π(1 + 2/n_l)", product(lambda n: 1 + 2 / n)),
    mutants=(GAIN, ORTHOGONAL),
)

LEAKY_SECOND_MOMENT = replace(
    SECOND_MOMENT,
    name="hanin_rolnick2018.leaky_second_moment",
    statement="With leaky ReLU of slope 0.3 at criticality it is Π(1 + (6(1 + α⁴)/(1 + α²)² − 1)/n_l), exactly.",
    networks=lambda width: mlp(INPUT_DIM, tapered(width), "leaky_relu(0.3)", 2 / 1.09),
    widths=(32,),
    predict=product(lambda n: 1 + (6 * (1 + 0.3**4) / 1.09**2 - 1) / n),
    margin_reason="two fifths of the distance to ReLU's",
    rival=Rival("ReLU's, Π(1 + 5/n_l)", product(lambda n: 1 + 5 / n)),
    mutants=(GAIN, ORTHOGONAL),
)

ORTHOGONAL_SECOND_MOMENT = replace(
    SECOND_MOMENT,
    name="hanin_rolnick2018.orthogonal_second_moment",
    statement="With Haar orthogonal weights of gain √2 it is Π(1 + 3/(n + 2)), exactly (ReLU).",
    networks=lambda width: mlp(width, [width] * 4, "relu", 2.0, weights="orthogonal"),
    widths=(32,),
    predict=product(lambda n: 1 + 3 / (n + 2)),
    margin=0.02,
    margin_reason="a ninth of the distance to Gaussian weights'",
    rival=Rival("Gaussian weights', Π(1 + 5/n)", product(lambda n: 1 + 5 / n)),
    mutants=(GAIN, Mutant("Gaussian weights", mutations.weights("gaussian"))),
)


def _uniform_ratio(net: Network, x: FloatArray) -> FloatArray:
    return np.array([ratio_moments(x[0], net.widths[0], "relu", 2.0, net.random_map(0).law).second])


UNIFORM_STEP = Claim(
    name="hanin_rolnick2018.weight_kurtosis",
    source=f"{SOURCE}, Theorem 5, where the weights' fourth moment enters",
    statement="The second moment of one layer's ratio is 1 + (5 + 2(μ4 − 3) Σx⁴/(Σx²)²)/n, exactly (uniform weights, "
    "fan-in 2).",
    mark="exact",
    networks=lambda width: mlp(2, [width], "relu", 2.0, weights="uniform"),
    widths=(8,),
    inputs=one_input,
    predict=_uniform_ratio,
    measure=last_square,
    test="mean",
    relative=True,
    margin=0.02,
    margin_reason="a quarter of the distance to what Gaussian weights give",
    labels=lambda net: ["E R²"],
    rival=Rival("the weights' law is forgotten: 1 + 5/n", product(lambda n: 1 + 5 / n)),
    mutants=(GAIN, Mutant("Gaussian weights", mutations.weights("gaussian"))),
)
