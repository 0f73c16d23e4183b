"""NumPy as a careful user writes it: float32 draws into kept buffers, one generator to a thread.

Filling and multiplying release the interpreter's lock, so threads scale; that is the recipe of NumPy's own page on
multithreaded generation. SFC64 is the fastest of NumPy's bit generators here.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from bench.cases import Case, Runner, split

Array = NDArray[Any]

NAME = "NumPy"
NORMALS = "NumPy Generator.standard_normal (SFC64)"
VERSION = np.__version__


def _generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(seed))


def normals(count: int, dtype: str) -> Callable[[], Any]:
    """A function that fills `count` normals in place."""
    rng, out = _generator(1), np.empty(count, dtype)
    return lambda: rng.standard_normal(out=out, dtype=out.dtype.type)


def product(side: int) -> Callable[[], Any]:
    """A function that multiplies two float32 matrices."""
    a, b = _generator(1).standard_normal((2, side, side), np.float32)
    out = np.empty_like(a)
    return lambda: np.matmul(a, b, out=out)


def _phi(case: Case, h: Array, out: Array) -> Array:
    return np.tanh(h, out=out) if case.activation == "tanh" else np.maximum(h, 0, out=out)


def _pull(case: Case, d: Array, x: Array) -> Array:
    """d · φ′(h), read off x = φ(h)."""
    d *= (1 - x * x) if case.activation == "tanh" else (x > 0)
    return d


def _squares(a: Array) -> Array:
    return np.einsum("...i,...i->...", a, a)


class _Worker:
    """One network after another in buffers of its own; `fill` says how weights are drawn."""

    def __init__(self, case: Case, fill: Callable[[Array], None], rng: np.random.Generator) -> None:
        self.case, self.fill, self.rng = case, fill, rng
        self.w = np.empty((case.depth, case.width, case.width), np.float32)
        self.x = np.empty((case.depth, case.inputs, case.width), np.float32)

    def __call__(self, networks: int) -> tuple[Array, Array]:
        both = [self._network() for _ in range(networks)]
        return np.stack([m for m, _ in both]), np.stack([g for _, g in both])

    def _network(self) -> tuple[Array, Array]:
        case, n = self.case, self.case.width
        x = case.x
        for w, out in zip(self.w, self.x, strict=True):
            self.fill(w)
            h = x @ w
            h *= case.gain
            if case.bias:
                h += case.bias * self.rng.standard_normal(n, np.float32)
            x = _phi(case, h, out)
        norms = np.empty((case.depth, case.inputs), np.float32)
        d = self.rng.standard_normal(x.shape, np.float32) / np.float32(np.sqrt(n))
        norms[-1] = _squares(d)
        for l in range(case.depth - 1, 0, -1):
            d = d @ self.w[l].T
            d *= case.gain
            norms[l - 1] = _squares(_pull(case, d, self.x[l - 1]))
        return _squares(self.x) / n, norms


def explicit(case: Case, each: str) -> Runner:
    """each="network": one network at a time, both cores fill and multiply. each="core": a network to a core."""
    pool = ThreadPoolExecutor(2)
    if each == "network":
        rngs = [_generator(seed) for seed in (1, 2)]

        def fill(w: Array) -> None:
            halves = zip(rngs, (w[: len(w) // 2], w[len(w) // 2 :]), strict=True)
            list(pool.map(lambda job: job[0].standard_normal(out=job[1], dtype=np.float32), halves))

        return _Worker(case, fill, _generator(3))

    workers = []
    for seed in (1, 2):
        rng = _generator(seed)
        workers.append(_Worker(case, lambda w, rng=rng: rng.standard_normal(out=w, dtype=np.float32), rng))

    def run(networks: int) -> tuple[Array, Array]:
        with threadpool_limits(1, user_api="blas"):
            parts = list(pool.map(lambda worker, share: worker(share), workers, split(networks)))
        return np.concatenate([m for m, _ in parts]), np.concatenate([g for _, g in parts])

    return run


# ---- the conditional algorithm, a batch of networks at a time (two inputs: the roots are written out) -------


def _root(g: Array) -> tuple[Array, Array, Array]:
    """The lower triangular root of 2 × 2 matrices (network, 2, 2), entry by entry, each (network, 1)."""
    a = np.sqrt(g[:, 0, 0])
    b = g[:, 1, 0] / a
    return a[:, None], b[:, None], np.sqrt(g[:, 1, 1] - b * b)[:, None]


def _gram(a: Array, b: Array) -> Array:
    return a @ b.swapaxes(-1, -2)


class _Batch:
    """A batch of networks, carried through all layers in buffers that stay in the cache."""

    def __init__(self, case: Case, batch: int, seed: int) -> None:
        self.case, self.rng, shape = case, _generator(seed), (batch, 2, case.width)
        self.x = np.empty((case.depth + 1, *shape), np.float32)
        self.z = np.empty((case.depth, *shape), np.float32)
        self.d, self.g, self.t = (np.empty(shape, np.float32) for _ in range(3))

    def _mix(self, root: tuple[Array, Array, Array], z: Array, out: Array) -> Array:
        a, b, c = root
        np.multiply(a, z[:, 0], out=out[:, 0])
        np.multiply(b, z[:, 0], out=out[:, 1])
        out[:, 1] += np.multiply(c, z[:, 1], out=self.t[:, 0])
        return out

    def __call__(self) -> tuple[Array, Array]:
        case, n = self.case, np.float32(self.case.width)
        gain2, bias2 = np.float32(case.sigma_w2 / case.width), np.float32(case.sigma_b2)
        batch = len(self.d)
        length, norms = (np.empty((batch, case.depth, 2), np.float32) for _ in range(2))
        self.x[0] = case.x
        roots, metric = [], _gram(self.x[0], self.x[0])
        for l in range(case.depth):
            self.rng.standard_normal(out=self.z[l], dtype=np.float32)
            roots.append(_root(gain2 * metric + bias2))
            x = _phi(case, self._mix(roots[l], self.z[l], self.d), self.x[l + 1])
            metric = _gram(x, x)
            length[:, l] = np.diagonal(metric, axis1=1, axis2=2) / n
        d = self.rng.standard_normal(out=self.d, dtype=np.float32)
        d /= np.sqrt(n)
        between = _gram(d, d)
        norms[:, -1] = np.diagonal(between, axis1=1, axis2=2)
        for l in range(case.depth - 1, 0, -1):
            # Wᵀδ = Q (Zᵀδ) + (1 − Q Qᵀ) g with Q = A R⁻¹; g = K ξ; so it is a combination of A and of ξ.
            x, xi = self.x[l], self.rng.standard_normal(out=self.g, dtype=np.float32)
            k, (a, b, c) = _root(between), roots[l]
            onto = _gram(xi, x)  # ξ's part along A, its bias entry included
            onto *= case.gain
            if case.bias:
                onto += case.bias * self.rng.standard_normal((batch, 2, 1), np.float32)
            right = np.stack([onto[:, :, 0] / a, (onto[:, :, 1] - onto[:, :, 0] * (b / a)) / c], axis=2)  # onto · R⁻¹
            mixed = np.stack([k[0] * right[:, 0], k[1] * right[:, 0] + k[2] * right[:, 1]], axis=1)
            f = _gram(d, self.z[l]) - mixed
            last = f[:, :, 1] / c
            along = np.stack([(f[:, :, 0] - last * b) / a, last], axis=2)  # f · R⁻ᵀ
            d = self._mix(k, xi, self.d)
            d += (case.gain * along) @ x
            d *= case.gain
            between = _gram(_pull(case, d, x), d)
            norms[:, l - 1] = np.diagonal(between, axis1=1, axis2=2)
        return length, norms


def conditional(case: Case, batch: int = 8) -> Runner:
    """A batch at a time on each core."""
    assert case.inputs == 2
    pool = ThreadPoolExecutor(2)
    workers = [_Batch(case, batch, seed) for seed in (1, 2)]

    def run(networks: int) -> tuple[Array, Array]:
        def share(job: tuple[_Batch, int]) -> list[tuple[Array, Array]]:
            return [job[0]() for _ in range(-(-job[1] // batch))]

        with threadpool_limits(1, user_api="blas"):
            parts = [part for parts in pool.map(share, zip(workers, split(networks), strict=False)) for part in parts]
        return np.concatenate([m for m, _ in parts]), np.concatenate([g for _, g in parts])

    return run
