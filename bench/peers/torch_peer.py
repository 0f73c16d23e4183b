"""PyTorch on the CPU: weights by normal_ in place, products in kept buffers, the backward pass by hand.

By hand because autograd would keep more and gains nothing: the derivative is one product and one mask a layer.
Convolutions are conv2d and conv_transpose2d on planes, which is faster here than channels last or a product of patches;
vmap over networks makes the grouped convolution that "grouped" writes itself.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (as everybody calls it)

from bench.cases import Array, Case, Convolution, Runner, split

NAME = "PyTorch"
NORMALS = "PyTorch normal_"
VERSION = torch.__version__

Tensor = torch.Tensor


def normals(count: int, dtype: str) -> Callable[[], Any]:
    """A function that fills `count` normals in place."""
    out = torch.empty(count, dtype=getattr(torch, dtype))
    generator = torch.Generator().manual_seed(1)
    return lambda: out.normal_(generator=generator)


def product(side: int) -> Callable[[], Any]:
    """A function that multiplies two float32 matrices."""
    a, b = torch.randn(2, side, side)
    out = torch.empty(side, side)
    return lambda: torch.mm(a, b, out=out)


class _Worker:
    """One network after another in buffers of its own."""

    def __init__(self, case: Case, seed: int) -> None:
        self.case, self.rng = case, torch.Generator().manual_seed(seed)
        self.input = torch.from_numpy(case.x)
        self.w = torch.empty(case.depth, case.width, case.width)
        self.x = torch.empty(case.depth, case.inputs, case.width)

    @torch.inference_mode()
    def __call__(self, networks: int) -> tuple[Array, Array]:
        both = [self._network() for _ in range(networks)]
        return torch.stack([m for m, _ in both]).numpy(), torch.stack([g for _, g in both]).numpy()

    def _network(self) -> tuple[Tensor, Tensor]:
        case, n = self.case, self.case.width
        gain, bias, tanh = float(case.gain), float(case.bias), case.activation == "tanh"
        x = self.input
        for w, out in zip(self.w, self.x, strict=True):
            w.normal_(std=gain, generator=self.rng)
            torch.mm(x, w, out=out)
            if bias:
                out += torch.empty(n).normal_(std=bias, generator=self.rng)
            x = out.tanh_() if tanh else out.relu_()
        norms = torch.empty(case.depth, case.inputs)
        d = torch.empty_like(x).normal_(std=n**-0.5, generator=self.rng)
        norms[-1] = d.square().sum(-1)
        for l in range(case.depth - 1, 0, -1):
            x = self.x[l - 1]
            d = torch.mm(d, self.w[l].T)
            d = torch.addcmul(d, d, x.square(), value=-1) if tanh else d.mul_(x > 0)
            norms[l - 1] = d.square().sum(-1)
        return self.x.square().mean(-1), norms


class _ConvolutionWorker(_Worker):
    """`group` networks at a time, side by side as groups of channels, in buffers of their own."""

    def __init__(self, case: Convolution, seed: int, group: int = 1) -> None:
        self.case, self.rng, self.group = case, torch.Generator().manual_seed(seed), group
        self.input = torch.from_numpy(case.x).repeat(1, group, 1, 1)
        self.w = torch.empty(case.depth, group * case.width, case.width, 3, 3)
        self.x = torch.empty(case.depth, *self.input.shape)

    @torch.inference_mode()
    def __call__(self, networks: int) -> tuple[Array, Array]:
        both = [self._networks() for _ in range(-(-networks // self.group))]
        lengths, norms = (torch.cat([b[i] for b in both]).numpy() for i in (0, 1))
        return lengths, norms

    def _squares(self, a: Tensor) -> Tensor:
        """(layer, network, input): sums over channels and positions."""
        return a.square().unflatten(2, (self.group, -1)).sum((-1, -2, -3)).transpose(1, 2)

    def _networks(self) -> tuple[Tensor, Tensor]:
        case, tanh, bias = self.case, self.case.activation == "tanh", float(self.case.bias)
        x, around = self.input, (1, 1, 1, 1)
        for w, out in zip(self.w, self.x, strict=True):
            w.normal_(std=float(case.gain), generator=self.rng)
            b = torch.empty(len(w)).normal_(std=bias, generator=self.rng) if bias else None
            h = F.conv2d(F.pad(x, around, mode="circular"), w, b, groups=self.group)
            x = torch.tanh(h, out=out) if tanh else torch.clamp(h, min=0, out=out)
        d = torch.empty_like(x).normal_(std=(case.width * case.side**2) ** -0.5, generator=self.rng)
        norms = [self._squares(d[None])]
        for l in range(case.depth - 1, 0, -1):
            # On a circle the adjoint is the transpose on the circle continued by one, its own border cut off.
            d = F.conv_transpose2d(F.pad(d, around, mode="circular"), self.w[l], padding=2, groups=self.group)
            x = self.x[l - 1]
            d = torch.addcmul(d, d, x.square(), value=-1) if tanh else d.mul_(x > 0)
            norms.append(self._squares(d[None]))
        lengths = self._squares(self.x) / (case.width * case.side**2)
        return lengths.transpose(0, 1), torch.cat(norms[::-1]).transpose(0, 1)


def convolution(case: Convolution, each: str) -> Runner:
    """each="network", "core": as `explicit`; "grouped": eight networks in one convolution, on each core."""
    return _shared_out(lambda seed: _ConvolutionWorker(case, seed, 8 if each == "grouped" else 1), each)


def explicit(case: Case, each: str) -> Runner:
    """each="network": one at a time, PyTorch's own two threads. each="core": a network to a core."""
    return _shared_out(lambda seed: _Worker(case, seed), each)


def _shared_out(make: Callable[[int], _Worker], each: str) -> Runner:
    if each == "network":
        worker = make(1)

        def one_by_one(networks: int) -> tuple[Array, Array]:
            torch.set_num_threads(2)
            return worker(networks)

        return one_by_one

    pool, workers = ThreadPoolExecutor(2), [make(seed) for seed in (1, 2)]

    def work(worker: _Worker, share: int) -> tuple[Array, Array]:
        torch.set_num_threads(1)  # of this worker's operations
        return worker(share)

    def run(networks: int) -> tuple[Array, Array]:
        torch.set_num_threads(1)
        parts = list(pool.map(work, workers, split(networks)))
        torch.set_num_threads(2)
        return np.concatenate([m for m, _ in parts]), np.concatenate([g for _, g in parts])

    return run
