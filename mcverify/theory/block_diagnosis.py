"""Residual and batch-normalised networks in words: what grows, how fast, why, and what would keep it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mcverify.activations import Activation as Phi
from mcverify.errors import InputError
from mcverify.layers.activation import Activation
from mcverify.layers.batchnorm import BatchNorm
from mcverify.layers.layer import Layer
from mcverify.layers.layernorm import LayerNorm
from mcverify.layers.residual import Residual
from mcverify.network import Network
from mcverify.theory.batchnorm import batchnorm_gradient_growth
from mcverify.theory.growth import exp
from mcverify.theory.propagation import Prediction

FloatArray = NDArray[np.float64]

LARGEST_GROWTH = 10.0
"""Over all blocks; beyond it a remedy is told."""
STEADY = 0.9
"""Growth is exponential in the depth where the last block's logarithm is this share of the middle block's at least: for
a power of the depth it is a half, for e^√depth 0.7."""


def block_words(net: Network, p: Prediction) -> list[str]:
    """Sentences on a network that is no chain of maps and activations."""
    blocks = [l for l, i in enumerate(net.maps) if l > 0 and isinstance(net.layers[i], Residual)]
    out = _residual(net, p, blocks) if blocks else []
    trunk = [v for v in net.layers if isinstance(v, BatchNorm)]
    if trunk and not blocks:
        out += _plain(net, p)
    elif trunk:
        out.append("Batch norm on the trunk resets lengths there, and with them the growth of what follows.")
    if any(isinstance(v, LayerNorm) for v, _ in net.every_layer):
        out.append("Layer norm gives every input the same length there, whatever lies below.")
    return out


# ---- residual blocks ------------------------------------------------------------------------------------


def _residual(net: Network, p: Prediction, blocks: list[int]) -> list[str]:
    q, g = (np.diagonal(v, axis1=1, axis2=2).mean(axis=1) for v in (p.gram, p.grad_gram))
    with np.errstate(all="ignore"):
        up, down = (np.log([v[b] / v[a] for a, b in ends]) for v, ends in ((q, _below(blocks)), (g, _above(blocks))))
    if not (np.isfinite(up).all() and np.isfinite(down).all()):
        return ["Lengths or gradients are zero or infinite at a block."]
    count = f"{len(blocks)} residual block{'s' * (len(blocks) > 1)}"
    out = [f"{count}: lengths gain {_growth(up)}; gradients, on their way down, {_growth(down)}."]
    kinds = list(dict.fromkeys(_kind(v) for v in (net.layers[net.maps[l]] for l in blocks) if isinstance(v, Residual)))
    told = {
        "": _without_norm,
        "before φ": _pre,
        "after the last map": _post,
    }
    for kind in kinds:
        out += told[kind](net, up, down, blocks)
    return out


def _below(blocks: list[int]) -> list[tuple[int, int]]:
    return [(l - 1, l) for l in blocks]


def _above(blocks: list[int]) -> list[tuple[int, int]]:
    return [(l, l - 1) for l in blocks]


def _growth(logs: FloatArray) -> str:
    """`a factor 2 a block, 1.27e+30 in all`, or from the first block to the last where they differ."""
    total = f"{exp(float(logs.sum())):.3g} in all"
    first, last = math.exp(logs[0]), math.exp(logs[-1])
    if len(logs) == 1:
        return f"a factor {first:.4g}"
    if abs(logs.max() - logs.min()) < 1e-3:
        return f"a factor {math.exp(float(logs.mean())):.4g} a block, {total}"
    return f"a factor {first:.4g} in the first block and {last:.4g} in the last, {total}"


def _kind(block: Residual) -> str:
    """Where batch norm stands in the branch: "" for nowhere."""
    places = [i for i, v in enumerate(block.branch) if isinstance(v, BatchNorm)]
    if not places:
        return ""
    last_map = max(i for i, v in enumerate(block.branch) if v.random_map is not None or v.inner)
    return "after the last map" if places[-1] > last_map else "before φ"


def _without_norm(net: Network, up: FloatArray, down: FloatArray, blocks: list[int]) -> list[str]:
    """What scale or variance would keep growth at e, (1 + g)^L with g = 1/L: Taki's c/(nL). By the block that adds
    most: where others add less of their trunk, as with biases or bounded φ, growth then stays below e."""
    faster, number = max(up, down, key=lambda logs: float(logs.sum())), len(blocks)
    if float(faster.sum()) < math.log(LARGEST_GROWTH):
        return ["That is of order one: the branches are small enough for this depth."]
    each = math.expm1(float(max(up.max(), down.max())))
    block = net.layers[net.maps[blocks[0]]]
    assert isinstance(block, Residual)
    share = 1.0 / (each * number)
    pace, most = "exponential in the depth: each block adds", ""
    if faster[-1] < STEADY * faster[(number - 1) // 2]:
        pace, most = "slower than exponential, as blocks add less and less: at most", " or less"
    last = next(v for v in reversed(block.branch) if v.random_map is not None or v.inner)
    m = last.random_map
    biased = m is not None and m.sigma_b2 > 0
    variance = f"the variance of its last weights{' and biases' * biased} times {share:.3g}"
    if m is not None and not biased:
        variance += f", from {m.sigma_w2:.4g} to {m.sigma_w2 * share:.3g} = {m.sigma_w2 / each:.3g}/L"
    return [
        f"That is {pace} {each:.3g} of its trunk. For growth by e{most} in all it must add 1/L: {variance} (Taki 2017: "
        f"Var w = c/(nL)), or scale = {block.scale * math.sqrt(share):.3g}."
    ]


def _pre(net: Network, up: FloatArray, down: FloatArray, blocks: list[int]) -> list[str]:
    return [
        "Batch norm before φ in the branch: each block adds the same length, so that lengths grow in proportion to the "
        "depth and gradients as a power of it, not exponentially (Taki 2017)."
    ]


def _post(net: Network, up: FloatArray, down: FloatArray, blocks: list[int]) -> list[str]:
    return [
        "Batch norm after the branch's last map: each block adds a length of gain² · scale², whatever σ_w², so that "
        "lengths grow in proportion to the depth and gradients as a power of it, not exponentially (Taki 2017)."
    ]


# ---- batch norm without a trunk -------------------------------------------------------------------------


def _plain(net: Network, p: Prediction) -> list[str]:
    """Gradient explosion: measured by the prediction, and the theory's own number for a symmetric batch."""
    norm = next(v for v in net.layers if isinstance(v, BatchNorm))
    columns = p.grad_gram.shape[-1] * math.prod(norm.size)
    with np.errstate(all="ignore"):
        each = math.exp(float(p.gradient_gains.mean())) if len(net.maps) > 1 else math.nan
    text = "Batch norm in a plain network makes gradients grow with depth, whatever σ_w² (Yang et al. 2019)"
    if math.isfinite(each):
        text += f": here by a factor {each:.4g} a layer"
    phi = _above_norm(net.layers)
    if phi is not None and columns > 3:
        try:
            known = batchnorm_gradient_growth(phi, columns, gain=norm.gain)
        except InputError:
            return [text + "."]
        text += f"; {known:.4g} for a batch of {columns} equally correlated columns, and {phi.name}"
    return [text + ". Residual blocks around it make that a power of the depth."]


def _above_norm(layers: Sequence[Layer]) -> Phi | None:
    for below, above in pairwise(layers):
        if isinstance(below, BatchNorm) and isinstance(above, Activation):
            return above.phi
    return None
