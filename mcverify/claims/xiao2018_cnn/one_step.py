"""One convolution, exact at every width: Σ^{l+1} = σ_w² A⋆E[φφ] + σ_b² given the layer below, at both borders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mcverify.claims import measures, mutations
from mcverify.claims.claim import Claim, FloatArray, Mutant, Networks, Rival
from mcverify.claims.xiao2018_cnn.circles import SOURCE, of_gram
from mcverify.layers import chain
from mcverify.layers.convolution import Convolution
from mcverify.layers.layer import State
from mcverify.network import Network, cnn
from mcverify.simulation.trace import Trace

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
    cotangent=None,
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
