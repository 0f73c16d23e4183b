"""What the CUDA backend is measured against on the same GPU: PyTorch and CuPy (cuRAND), each where it is installed.

PyTorch draws a batch of networks' weights by its own generator, into one buffer for each layer, and keeps them for the
backward pass, as its users would: so many networks at a time as memory holds.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

Run = Callable[[], object]


def cupy() -> Any:
    """The module, or None."""
    return _module("cupy")


def torch() -> Any:
    """The module where it sees a GPU, or None."""
    found = _module("torch")
    return found if found is not None and found.cuda.is_available() else None


def _module(name: str) -> Any:
    return importlib.import_module(name) if importlib.util.find_spec(name) is not None else None


def normals(count: int) -> Iterator[tuple[str, Run]]:
    """(who, what fills so many float32)."""
    if there := cupy():
        generator = there.random.Generator(there.random.Philox4x3210(1))
        yield "cuRAND (CuPy, Philox)", lambda: generator.standard_normal(count, dtype=there.float32)
    if there := torch():
        yield "PyTorch", there.empty(count, device="cuda").normal_


def dense(torch: Any, networks: int, width: int, depth: int, where: str = "cuda") -> Run:
    """tanh networks with fresh weights, 2 inputs, σ_w² = 1.5: batched products forward and backward by hand; the run
    returns mean squares and gradient norms of every layer."""
    x = torch.randn(networks, 2, width, device=where)
    gain = (1.5 / width) ** 0.5
    w = [torch.empty(networks, width, width, device=where) for _ in range(depth)]

    def run() -> Any:
        y, outputs, lengths, norms = x, [], [], []
        for weights in w:
            h = torch.bmm(y, weights.normal_(0.0, gain).transpose(1, 2))
            lengths.append((h * h).mean(-1))
            y = torch.tanh(h)
            outputs.append(y)
        d = torch.randn_like(y)
        for weights, out in zip(reversed(w), reversed(outputs), strict=True):
            d = torch.bmm(torch.addcmul(d, d * out, out, value=-1), weights)
            norms.append((d * d).sum(-1))
        return lengths, norms

    return run


def convolution(torch: Any, networks: int, channels: int, side: int, layers: int, where: str = "cuda") -> Run:
    """Circular 3 × 3 tanh networks, 2 inputs, as the groups of one convolution; gradients by autograd."""
    pad, convolve = torch.nn.functional.pad, torch.nn.functional.conv2d
    x = torch.randn(2, networks * channels, side, side, device=where)
    gain = (1.5 / (9 * channels)) ** 0.5
    w = [torch.empty(networks * channels, channels, 3, 3, device=where) for _ in range(layers)]

    def run() -> Any:
        y, hidden = x, []
        for weights in w:
            h = convolve(pad(y, (1, 1, 1, 1), mode="circular"), weights.normal_(0.0, gain), groups=networks)
            hidden.append(h.requires_grad_())
            y = torch.tanh(h)
        gradients = torch.autograd.grad(y, hidden, torch.randn_like(y))
        return [(h * h).mean() for h in hidden], [(g * g).sum() for g in gradients]

    return run


def networks_that_fit(torch: Any, wanted: int, bytes_each: int) -> int:
    """Of weights and what else is kept, in half of the free memory."""
    free, _ = torch.cuda.mem_get_info()
    return int(max(1, min(wanted, free // 2 // bytes_each)))


def release(torch: Any) -> None:
    """PyTorch keeps what it has freed."""
    torch.cuda.empty_cache()
