"""Which moments of gradients exist in a network with batch norm.

At eps = 0 a batch norm divides gradients by the batch's variance, which comes near 0 the more often the fewer
directions of the batch differ. Where r do, the mean of 1/variance needs r > 2 and its second moment r > 4: more than 3
and 5 columns, if all directions differ (Yang et al. 2019, arXiv:1902.08129, for B > 3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mcverify.errors import InputError
from mcverify.layers.activation import Activation
from mcverify.layers.batchnorm import BatchNorm
from mcverify.layers.convolution import Convolution
from mcverify.layers.dense import Dense
from mcverify.layers.dropout import Dropout
from mcverify.layers.layer import Layer
from mcverify.layers.residual import Residual
from mcverify.network import Network

FloatArray = NDArray[np.float64]

_ROUNDING = 1e-7
"""Differences between inputs below this, relatively, are lost in single precision."""


def check_batches(net: Network, x: FloatArray, *, errors: bool) -> None:
    """Raises InputError where a batch norm at eps = 0 meets equal columns only, and, with `errors`, where squared
    gradients have no finite mean, or no finite variance, so that means of them have no standard error.

    x (input, *positions, n_0). What is known before sampling: no network has more directions that differ."""
    for rank, columns in directions(net, x):
        told = f"{columns} columns" + (f" that differ in {rank} directions" if rank + 1 < columns else "")
        if rank == 0:
            told = "1 column" if columns == 1 else f"{columns} equal columns"
            raise InputError("x", told, "must be at least 2 that differ: batch norm divides 0 by 0 at eps = 0")
        if errors and rank <= 4:
            what = "3: else gradients have no finite mean"
            if rank > 2:
                what = "5: else gradients have no finite variance, so that no standard error exists"
            allowed = f"batch norm at eps = 0 needs more than {what}; give more inputs, or an eps above 0"
            raise InputError("x", told, allowed)


def directions(net: Network, x: FloatArray) -> list[tuple[int, int]]:
    """For every batch norm at eps = 0: in how many directions its batch can differ, the rank of the centred columns,
    and how many columns it has."""
    flat = x.reshape(-1, x.shape[-1])
    apart = flat - flat.mean(axis=0)
    rank = int(np.linalg.matrix_rank(apart, tol=_ROUNDING * max(float(np.linalg.norm(flat)), 1e-300)))
    masked = any(isinstance(v, Dropout) and v.keep < 1.0 and not v.shared for v, _ in net.every_layer)
    different = len(x) if masked else len(np.unique(x.reshape(len(x), -1), axis=0))
    return [(r, len(x) * p) for r, p in _walk(net.layers, net.input_shape, rank, different)[0]]


def _walk(
    layers: Sequence[Layer], shape: tuple[int, ...], rank: int, inputs: int
) -> tuple[list[tuple[int, int]], int]:  # fmt: skip
    """(rank, positions) at each batch norm, and the rank above all layers. inputs: how many are different."""
    met: list[tuple[int, int]] = []
    for layer in layers:
        positions = math.prod(layer.shape(shape)[:-1])
        most = inputs * positions - 1
        if isinstance(layer, BatchNorm):
            met += [(rank, positions)] if layer.eps == 0.0 else []
        elif isinstance(layer, Residual):
            inside, branch = _walk(layer.branch, shape, rank, inputs)
            met, rank = met + inside, min(most, rank + branch)
        else:
            rank = min(most, _above(layer, rank, most))
        shape = layer.shape(shape)
    return met, rank


def _above(layer: Layer, rank: int, most: int) -> int:
    """The rank above a layer that is neither a batch norm nor a block, if it is not more than `most`."""
    if isinstance(layer, Dense):
        return min(rank, layer.fan_in)
    if isinstance(layer, Activation) and layer.phi.slopes is not None and layer.phi.slopes[0] == layer.phi.slopes[1]:
        return rank
    if isinstance(layer, Dropout):
        return rank if layer.keep == 1.0 or layer.shared else most
    if isinstance(layer, Convolution):
        alike = rank == 0 and layer.padding == "circular"
        return 0 if alike else math.prod(layer.kernel) * layer.channels_in
    return 0 if rank == 0 else most  # equal columns stay equal
