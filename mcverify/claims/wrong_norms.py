"""Normalisations made wrong, for mutants: by their parameters, and batch norms by what they leave out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from mcverify.claims.mutations import Change
from mcverify.layers.batchnorm import BatchNorm
from mcverify.layers.dropout import Dropout
from mcverify.layers.layer import Layer, Signal
from mcverify.layers.layernorm import LayerNorm
from mcverify.network import Network
from mcverify.random_map.engine import Engine
from mcverify.streams import Site


def _norms(change: Callable[[Any], Layer], kinds: Any = BatchNorm | LayerNorm) -> Change:
    return lambda net: net.map_layers(lambda _, v: change(v) if isinstance(v, kinds) else v)


def are_in(net: Network) -> bool:
    """Whether anything is normalised, so that σ_w² may move nothing."""
    return any(isinstance(v, BatchNorm | LayerNorm) for v, _ in net.every_layer)


def eps(value: float) -> Change:
    """ε in place of what it is."""
    return _norms(lambda v: replace(v, eps=value))


def eps_knob(factor: float) -> Change:
    """ε = factor − 1: relative to the variance, where that is 1."""
    return eps(factor - 1.0)


def square(factor: float) -> Change:
    """y² multiplied."""
    return _norms(lambda v: replace(v, gain=v.gain * math.sqrt(factor)))


def sample_variance(batch: int) -> Change:
    """Statistics over B − 1."""
    return square((batch - 1.0) / batch)


def left_out(net: Network) -> Network:
    """Nothing normalised."""
    return _norms(lambda v: Dropout(1.0))(net)


def detached(net: Network) -> Network:
    """Derivatives take mean and spread for constants."""
    return _norms(lambda v: _Detached(**asdict(v)), BatchNorm)(net)


def uncentred(net: Network) -> Network:
    """Divided by the root mean square, no mean subtracted."""
    return _norms(lambda v: _Uncentred(**asdict(v)), BatchNorm)(net)


@dataclass(frozen=True)
class _Detached(BatchNorm):
    def forward(self, engine: Engine, x: Signal, site: Site) -> tuple[Signal, Any]:
        y, (_, inverse) = super().forward(engine, x, site)
        return y, inverse

    def tangent(self, engine: Engine, saved: Any, dx: Signal) -> Signal:
        return np.asarray(self.gain * saved[:, None] * dx).astype(dx.dtype)


@dataclass(frozen=True)
class _Uncentred(BatchNorm):
    def forward(self, engine: Engine, x: Signal, site: Site) -> tuple[Signal, Any]:
        inverse = 1.0 / np.sqrt((x.astype(np.float64) ** 2).mean(axis=-2, keepdims=True) + self.eps)
        unit = x * inverse
        return (self.gain * unit + self.shift).astype(x.dtype), (unit, inverse)

    def tangent(self, engine: Engine, saved: Any, dx: Signal) -> Signal:
        unit, inverse = (v[:, None] for v in saved)
        out = dx - unit * (unit * dx).mean(axis=-2, keepdims=True)
        return np.asarray(self.gain * inverse * out).astype(dx.dtype)
