"""Ways to make a simulated network wrong: the building blocks of mutants."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from mcverify.layers.activation import Activation
from mcverify.layers.convolution import Convolution
from mcverify.layers.dense import Dense
from mcverify.layers.dropout import Dropout
from mcverify.layers.layer import Layer
from mcverify.layers.residual import Residual
from mcverify.network import Network

Change = Callable[[Network], Network]


def _maps(change: Callable[[Dense | Convolution], Layer]) -> Change:
    """Change every random map; what is measured is read by the parameters of the claim's own network."""
    return lambda net: net.map_layers(lambda _, v: change(v) if isinstance(v, Dense | Convolution) else v)


def weight_gain(factor: float) -> Change:
    """σ_w² multiplied."""
    return _maps(lambda v: replace(v, sigma_w2=v.sigma_w2 * factor))


def one_gain(at: int, factor: float) -> Change:
    """σ_w² of one map of a chain multiplied, at = −1 the last: unlike all, it moves the gain over all layers."""

    def change(net: Network) -> Network:
        first = [i for i, v in enumerate(net.layers) if isinstance(v, Dense | Convolution)][at]
        wrong = weight_gain(factor)(Network(net.layers[first : first + 1])).layers
        return Network([*net.layers[:first], *wrong, *net.layers[first + 1 :]], net.name)

    return change


def branch_gain(factor: float) -> Change:
    """The variance of what residual blocks add multiplied."""
    root = math.sqrt(factor)
    return lambda net: net.map_layers(lambda _, v: Residual(v.branch, v.scale * root) if isinstance(v, Residual) else v)


def fan_out_scaling(net: Network) -> Network:
    """Weights of variance σ_w²/fan_out for σ_w²/fan_in."""
    return _maps(lambda v: replace(v, sigma_w2=v.sigma_w2 * v.random_map.fan_in / v.random_map.fan_out))(net)


def no_bias(net: Network) -> Network:
    """σ_b² dropped."""
    return _maps(lambda v: replace(v, sigma_b2=0.0))(net)


def weights(law: str) -> Change:
    """Another weight law, or kernel, of the same variance."""
    return _maps(lambda v: replace(v, weights=law))


def padding(kind: str) -> Change:
    """Another border of every convolution."""
    return lambda net: net.map_layers(lambda _, v: replace(v, padding=kind) if isinstance(v, Convolution) else v)


def activation(phi: str) -> Change:
    """Another activation."""
    return lambda net: net.map_layers(lambda _, v: Activation(phi) if isinstance(v, Activation) else v)


def no_dropout(net: Network) -> Network:
    """Dropout left out: nothing is masked."""
    return net.map_layers(lambda _, v: Dropout(1.0) if isinstance(v, Dropout) else v)


def independent_masks(net: Network) -> Network:
    """A mask for each input in place of one for all."""
    return net.map_layers(lambda _, v: replace(v, shared=False) if isinstance(v, Dropout) else v)


def unscaled_dropout(net: Network) -> Network:
    """Masks without the 1/ρ: the surviving units keep their size, so σ_w² above a mask loses ρ²."""
    layers: list[Layer] = []
    for v in net.layers:
        below = layers[-1] if layers else None
        if isinstance(v, Dense | Convolution) and isinstance(below, Dropout):
            v = replace(v, sigma_w2=v.sigma_w2 * below.keep**2)
        layers.append(v)
    return Network(layers, net.name)
