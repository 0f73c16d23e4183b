"""Taki 2017, Deep residual networks and weight initialization, §3 and appendix: what batch norm makes of residual
networks, where it stands last in the branch, x + BN(W f(x)) ("post"), or first, x + W f(BN(x)) ("pre").

His recursions take f for the identity, where they are right, and gradients grow like the depth. For ReLU he expects
the same; its gradients grow like a higher power. The batch is finite here, and permutation-symmetric: inputs of equal
length and correlation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mcverify.claims import mutations, wrong_norms
from mcverify.claims.blocks import block_labels
from mcverify.claims.claim import Claim, FloatArray, Mutant, Networks, Predict, Rival
from mcverify.claims.yang2019_batchnorm import BATCH, COUPLING, INPUT_DIM, WIDTHS, alike, log_growth, log_norm_growth
from mcverify.inputs import with_gram
from mcverify.layers.activation import Activation
from mcverify.layers.batchnorm import BatchNorm
from mcverify.layers.dense import Dense
from mcverify.layers.residual import Residual
from mcverify.network import Network
from mcverify.simulation import observables
from mcverify.simulation.trace import Trace
from mcverify.theory.batchnorm import batchnorm_residual_growth

SOURCE = "Taki 2017, arXiv:1709.02956"
BLOCKS = 3


def networks(placement: str, phi: str, sigma_w2: float, blocks: int = BLOCKS) -> Networks:
    """width -> a map and residual blocks; the first map keeps the inputs' lengths and correlations."""

    def of(n: int) -> Network:
        f, w = Activation(phi), Dense(n, n, sigma_w2)
        branch = [BatchNorm(), f, w] if placement == "pre" else [f, w, BatchNorm()]
        return Network([Dense(INPUT_DIM, n), *[Residual(branch)] * blocks])

    return of


def _moments(x: FloatArray) -> tuple[int, float, float]:
    """(B, q_0, c_0) of inputs that are alike."""
    gram = x @ x.T / x.shape[1]
    return len(x), float(gram[0, 0]), float(gram[0, 1] / gram[0, 0])


# ---- forward ------------------------------------------------------------------------------------------


def _mean_length(trace: Trace) -> FloatArray:
    """q^l less that of the first map, the mean over the batch, l = 2 … L, (replicate, L − 1)."""
    q = np.trace(observables.q(trace), axis1=-2, axis2=-1) / len(trace.plan.x)
    return np.asarray(q[:, 1:] - q[:, :1])


FORWARD = Claim(
    name="taki2017.batchnorm_forward",
    source=f"{SOURCE}, §3",
    statement="With the batch norm last in the branch E q_l = q_0 + l, exactly, at width 16 over 6 inputs of any "
    "lengths (relu; the mean over the batch).",
    mark="exact",
    networks=networks("post", "relu", 2.0),
    widths=(16,),
    inputs=lambda net: with_gram(np.diag([0.3, 0.6, 1.0, 1.0, 1.5, 2.0]), net.input_dim),
    predict=lambda net, x: np.arange(1.0, BLOCKS + 1),
    measure=_mean_length,
    test="mean",
    margin=0.05,
    margin_reason="a twentieth of what one block adds",
    labels=block_labels,
    rival=Rival("without batch norm, He's weights double the length in each block",
                lambda net, x: np.asarray(float((x**2).mean()) * (2.0 ** np.arange(1, BLOCKS + 1) - 1.0))),
    knob=wrong_norms.eps_knob,
    knob_of="ε",
    mutants=(
        Mutant("statistics over B − 1", wrong_norms.sample_variance(6)),
        Mutant("ε = 0.2", wrong_norms.eps(0.2)),
        Mutant("no batch norm", wrong_norms.left_out),
    ),
    neighbours=(
        Mutant("σ_w² of 0.5 and not 2", mutations.weight_gain(0.25)),
        Mutant("tanh in place of relu", mutations.activation("tanh")),
        Mutant("Rademacher weights", mutations.weights("rademacher")),
    ),
)  # fmt: skip


# ---- gradients: the identity --------------------------------------------------------------------------


def _identity(ratio: bool) -> Predict:
    """log(1 + r/(v_0 + l)) for block l from below, v the batch's variance; r = (B−2)/(B−3), or 1 as for B → ∞."""

    def predict(net: Network, x: FloatArray) -> FloatArray:
        B, q0, c0 = _moments(x)
        v0 = q0 * (1.0 - c0) * (B - 1.0) / B
        r = (B - 2.0) / (B - 3.0) if ratio else 1.0
        return np.log1p(r / (v0 + np.arange(len(net.maps) - 1)))

    return predict


IDENTITY_POST = Claim(
    name="taki2017.batchnorm_identity_post",
    source=f"{SOURCE}, §3; the finite batch derived here",
    statement="With the identity and the batch norm last in the branch, squared gradients gain 1 + r/(v_0 + l) in "
    "block l, r = (B−2)/(B−3) (B = 8): linear in depth, but for the finite batch.",
    mark="limit",
    networks=networks("post", "linear", 1.7),
    widths=WIDTHS,
    inputs=alike(BATCH, 0.8, 0.2),
    predict=_identity(ratio=True),
    measure=log_growth,
    test="ladder",
    engine="auto",
    margin=0.03,
    margin_reason="a third of what the finite batch adds in the first block",
    labels=block_labels,
    rival=Rival("r = 1, as for B → ∞", _identity(ratio=False)),
    knob=wrong_norms.eps_knob,
    knob_of="ε",
    mutants=(COUPLING, Mutant("relu in place of the identity", mutations.activation("relu"))),
    neighbours=(Mutant("σ_w² of 0.6 and not 1.7", mutations.weight_gain(0.6 / 1.7)),),
)  # fmt: skip

IDENTITY_PRE = replace(
    IDENTITY_POST,
    name="taki2017.batchnorm_identity_pre",
    source=f"{SOURCE}, appendix; the finite batch derived here",
    statement="With the identity, the batch norm first in the branch and σ_w² = 1, squared gradients gain "
    "1 + r/(v_0 + l) in block l, r = (B−2)/(B−3) (B = 8), as with the batch norm last.",
    networks=networks("pre", "linear", 1.0),
    neighbours=(Mutant("σ_w² of 0.6 everywhere, the first map's too", mutations.weight_gain(0.6)),),
)


# ---- gradients: ReLU ----------------------------------------------------------------------------------

POST, PRE = (f"growth of gradients in ReLU ResNets with the batch norm {where}" for where in ("last", "first"))
_CORRELATION, _HE = 0.3, 2.0


def _linear_in_depth(net: Network, x: FloatArray) -> FloatArray:
    """log (q_0 + l + 1)/(q_0 + l)."""
    _, q0, _ = _moments(x)
    return np.log1p(1.0 / (q0 + np.arange(len(net.maps) - 1)))


def _power(placement: str, *, correlated: bool = True) -> Predict:
    """The gains of E‖δ^l_a‖² from block to block; correlated: by the inputs' c_0 and not 0."""

    def predict(net: Network, x: FloatArray) -> FloatArray:
        B, q0, c0 = _moments(x)
        depth, c0 = len(net.maps) - 1, c0 if correlated else 0.0
        growth = batchnorm_residual_growth("relu", depth, placement, B, q0=q0, c0=c0, sigma_w2=_HE)
        return np.asarray(np.log(growth[:-1] / growth[1:]))

    return predict


_LINEAR_MUTANTS = (Mutant("no batch norm", wrong_norms.left_out),)
_POWER_MUTANTS = (COUPLING, Mutant("linear in place of relu", mutations.activation("linear")))


def _pair(placement: str, where: str, finding: str, statement: str, rival: Rival) -> tuple[Claim, Claim]:
    """The source's linear growth, and the one that holds."""
    right = Claim(
        name=f"taki2017.batchnorm_relu_{placement}",
        source=f"derived here, for {SOURCE}, {where}",
        statement=statement,
        mark="limit",
        networks=networks(placement, "relu", _HE),
        widths=WIDTHS,
        inputs=alike(BATCH, 1.0, _CORRELATION),
        predict=_power(placement),
        measure=log_norm_growth,
        test="ladder",
        engine="auto",
        sample=f"taki2017.batchnorm_relu_{placement}",
        margin=0.04,
        margin_reason="a third of the distance to linear growth in the last block, less in the others",
        labels=block_labels,
        rival=rival,
        knob=wrong_norms.eps_knob,
        knob_of="ε",
        mutants=_POWER_MUTANTS,
        finding=finding,
        quantity="log of the gain of squared gradients",
    )
    source = replace(
        right,
        name=f"taki2017.batchnorm_relu_{placement}_linear",
        source=f"{SOURCE}, {where}",
        statement="Squared gradients of a ReLU network grow linearly in depth, by 1 + 1/(q_0 + l) in block l, as with "
        "the identity (B = 8).",
        mark="heuristic",
        predict=_linear_in_depth,
        rival=Rival("like a higher power", _power(placement)),
        margin_reason="as of the one that holds",
        mutants=_LINEAR_MUTANTS,
        expected="refuted",
    )
    return source, right


POST_LINEAR, POST_POWER = _pair(
    "post", "§3 and appendix (“universal for batch normalized ResNets”)", POST,
    "With the batch norm last, squared gradients of a ReLU network gain 1 + r/(q_l(½ − J(c_l))) in block l, r about ½ "
    "and c_l = (c_0 q_0 − l/(B−1))/q_l: like L^{π/(π−1)}, more steeply while inputs are correlated (B = 8).",
    Rival("as if inputs were uncorrelated", _power("post", correlated=False)),
)  # fmt: skip
PRE_LINEAR, PRE_POWER = _pair(
    "pre", "appendix", PRE,
    "With the batch norm first, squared gradients of a ReLU network gain 1 + a/(l + const) in block l, a the growth "
    "per layer of a plain network: like L^{π/(π−1)} for large batches, L^1.79 at B = 8.",
    Rival("linear in depth", _linear_in_depth),
)  # fmt: skip


def _not_quite_gaussian(net: Network, x: FloatArray) -> FloatArray:
    """x^l, l > 0, is a sum with normalised units and taken for Gaussian. Drawn as it is at B = 8, its Λ is within 0.15%
    of the Gaussian one, and the slopes' covariance within 1%, of which 1/B counts (tests/test_batchnorm_theory.py)."""
    return np.full(len(net.maps) - 1, 0.003)


POST_POWER = replace(POST_POWER, remainder=_not_quite_gaussian)

CLAIMS = [FORWARD, IDENTITY_POST, IDENTITY_PRE, POST_LINEAR, POST_POWER, PRE_LINEAR, PRE_POWER]
