"""Ways to make a simulated network wrong: the building blocks of mutants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mcverify.layers.activation import Activation
from mcverify.layers.convolution import Convolution
from mcverify.layers.dense import Dense
from mcverify.layers.dropout import Dropout
from mcverify.layers.layer import Layer
from mcverify.network import Network

Change = Callable[[Network], Network]


def _dense(change: Callable[[Dense], Dense]) -> Change:
    """Change every dense layer; what is measured is read by the parameters of the claim's own network."""
    return lambda net: net.map_layers(lambda _, v: change(v) if isinstance(v, Dense) else v)


def _maps(change: Callable[[Any], Layer]) -> Change:
    """Change every dense layer and convolution."""
    return lambda net: net.map_layers(lambda _, v: change(v) if isinstance(v, Dense | Convolution) else v)


def weight_gain(factor: float) -> Change:
    """σ_w² multiplied."""
    return _maps(lambda v: replace(v, sigma_w2=v.sigma_w2 * factor))


def fan_out_scaling(net: Network) -> Network:
    """Weights of variance σ_w²/fan_out for σ_w²/fan_in."""
    return _dense(lambda v: replace(v, sigma_w2=v.sigma_w2 * v.fan_in / v.fan_out))(net)


def no_bias(net: Network) -> Network:
    """σ_b² dropped."""
    return _maps(lambda v: replace(v, sigma_b2=0.0))(net)


def weights(law: str) -> Change:
    """Another weight law, or kernel, of the same variance."""
    return _maps(lambda v: replace(v, weights=law))


def activation(phi: str) -> Change:
    """Another activation."""
    return lambda net: net.map_layers(lambda _, v: Activation(phi) if isinstance(v, Activation) else v)


def no_dropout(net: Network) -> Network:
    """Dropout left out: nothing is masked."""
    return net.map_layers(lambda _, v: Dropout(1.0) if isinstance(v, Dropout) else v)


def unscaled_dropout(net: Network) -> Network:
    """Masks without the 1/ρ: the surviving units keep their size, so σ_w² above a mask loses ρ²."""
    layers: list[Layer] = []
    for v in net.layers:
        below = layers[-1] if layers else None
        if isinstance(v, Dense) and isinstance(below, Dropout):
            v = replace(v, sigma_w2=v.sigma_w2 * below.keep**2)
        layers.append(v)
    return Network(layers, net.name)
