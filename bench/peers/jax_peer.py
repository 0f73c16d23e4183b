"""JAX on the CPU: one jitted function, a scan over layers with a fresh key for each.

Weights are kept for the backward pass: drawing them again costs more than memory does. The default generator
(threefry) is also JAX's fastest here; rbg is five times slower.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.cases import Array, Case, Convolution, Runner, split

NAME = "JAX"
NORMALS = "JAX random.normal (jit)"
VERSION = jax.__version__


def normals(count: int, dtype: str) -> Callable[[], Any]:
    """A function that returns `count` normals."""
    with jax.enable_x64(dtype == "float64"):
        draw = jax.jit(lambda key: jax.random.normal(key, (count,), dtype)).lower(jax.random.key(0)).compile()
    key = jax.random.key(1)
    return lambda: draw(key).block_until_ready()


def product(side: int) -> Callable[[], Any]:
    """A function that multiplies two float32 matrices."""
    a, b = jax.random.normal(jax.random.key(0), (2, side, side))
    multiply = jax.jit(jnp.matmul)
    return lambda: multiply(a, b).block_until_ready()


def _phi(case: Case, h: Any) -> Any:
    return jnp.tanh(h) if case.activation == "tanh" else jnp.maximum(h, 0)


def _slope(case: Case, x: Any) -> Any:
    """φ′(h), from x = φ(h)."""
    return 1 - x * x if case.activation == "tanh" else (x > 0).astype(x.dtype)


def _network(case: Case, x0: Any, key: Any) -> tuple[Any, Any]:
    n = case.width
    up, down = jax.random.split(key)

    def layer(x: Any, key: Any) -> Any:
        for_w, for_b = jax.random.split(key)
        w = jax.random.normal(for_w, (n, n))
        h = case.gain * (x @ w)
        if case.bias:
            h += case.bias * jax.random.normal(for_b, (n,))
        x = _phi(case, h)
        return x, (x, w)

    _, (xs, ws) = jax.lax.scan(layer, x0, jax.random.split(up, case.depth))
    top = jax.random.normal(down, xs[0].shape) / np.sqrt(n)

    def back(d: Any, saved: Any) -> Any:
        x, w = saved
        d = case.gain * (d @ w.T) * _slope(case, x)
        return d, jnp.sum(d * d, axis=-1)

    _, norms = jax.lax.scan(back, top, (xs[:-1], ws[1:]), reverse=True)
    return jnp.mean(xs * xs, axis=-1), jnp.concatenate([norms, jnp.sum(top * top, axis=-1)[None]])


def _numbers(parts: list[tuple[Any, Any]]) -> tuple[Array, Array]:
    return np.concatenate([np.asarray(m) for m, _ in parts]), np.concatenate([np.asarray(g) for _, g in parts])


class _Keys:
    """Keys that are never handed out twice."""

    def __init__(self) -> None:
        self.given = 0

    def __call__(self, networks: int) -> Any:
        self.given += 1
        return jax.random.split(jax.random.fold_in(jax.random.key(2), self.given), networks)


def explicit(case: Case, each: str) -> Runner:
    """each="network": one at a time, XLA's own threads. each="core": two calls at once."""
    return _shared_out(partial(_network, case), case, each)


def _shared_out(network: Callable[[Any, Any], tuple[Any, Any]], case: Case, each: str) -> Runner:
    one = jax.jit(network)
    keys, x = _Keys(), jnp.asarray(case.x)

    def serial(own: Any) -> list[tuple[Any, Any]]:
        results = [jax.block_until_ready(one(x, key)) for key in own]
        return [(m[None], g[None]) for m, g in results]

    if each == "network":
        return lambda networks: _numbers(serial(keys(networks)))
    pool = ThreadPoolExecutor(2)

    def run(networks: int) -> tuple[Array, Array]:
        parts = pool.map(serial, [keys(share) for share in split(networks)])
        return _numbers([result for part in parts for result in part])

    return run


# ---- convolution ------------------------------------------------------------------------------------------


def _seen(x: Any) -> Any:
    """(input, row, column, channel) → the same with 9 · channel: the patch around every position of the circle."""
    steps = (1, 0, -1)
    return jnp.concatenate([jnp.roll(x, (i, j), (1, 2)) for i in steps for j in steps], axis=-1)


def _convolve(x: Any, w: Any) -> Any:
    """x (input, row, column, c), w (3, 3, c, c')."""
    around = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="wrap")
    return jax.lax.conv_general_dilated(around, w, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _as_product(x: Any, w: Any) -> Any:
    """The same by patches: vmapped, a convolution of XLA's on the CPU becomes many times slower, a product does not."""
    return _seen(x) @ w.reshape(-1, w.shape[-1])


def _convolutions(case: Convolution, convolve: Callable[[Any, Any], Any], x0: Any, key: Any) -> tuple[Any, Any]:
    n, positions = case.width, case.side**2
    up, down = jax.random.split(key)

    def squares(a: Any) -> Any:
        return jnp.sum(a * a, axis=(-1, -2, -3))

    def layer(x: Any, key: Any) -> Any:
        for_w, for_b = jax.random.split(key)
        w = jax.random.normal(for_w, (3, 3, n, n))
        h = case.gain * convolve(x, w)
        if case.bias:
            h += case.bias * jax.random.normal(for_b, (n,))
        x = _phi(case, h)
        return x, (x, w)

    _, (xs, ws) = jax.lax.scan(layer, x0, jax.random.split(up, case.depth))
    top = jax.random.normal(down, x0.shape) / np.sqrt(n * positions)

    def back(d: Any, saved: Any) -> Any:
        x, w = saved
        d = case.gain * convolve(d, w[::-1, ::-1].swapaxes(2, 3)) * _slope(case, x)
        return d, squares(d)

    _, norms = jax.lax.scan(back, top, (xs[:-1], ws[1:]), reverse=True)
    return squares(xs) / (n * positions), jnp.concatenate([norms, squares(top)[None]])


def convolution(case: Convolution, each: str) -> Runner:
    """each="network", "core": as `explicit`; "grouped": jit(vmap) over eight networks, two such calls at once."""
    x = jnp.asarray(case.x.transpose(0, 2, 3, 1))
    if each != "grouped":
        return _shared_out(lambda _, key: _convolutions(case, _convolve, x, key), case, each)
    return _batches(jax.vmap(partial(_convolutions, case, _as_product, x)), 8)


# ---- the conditional algorithm ----------------------------------------------------------------------------


def _root(g: Any) -> Any:
    """The lower triangular root of a 2 × 2 matrix, entry by entry."""
    a = jnp.sqrt(g[0, 0])
    b = g[1, 0] / a
    return a, b, jnp.sqrt(g[1, 1] - b * b)


def _mix(root: Any, z: Any) -> Any:
    a, b, c = root
    return jnp.stack([a * z[0], b * z[0] + c * z[1]])


def _gram(a: Any, b: Any) -> Any:
    """Inner products of two rows with two rows; sums that XLA fuses, where a product would not be."""
    return jnp.stack([jnp.stack([jnp.sum(a[i] * b[j]) for j in range(2)]) for i in range(2)])


def _conditional(case: Case, x0: Any, key: Any) -> tuple[Any, Any]:
    n, gain, bias = case.width, case.gain, case.bias
    up, for_g, for_b, top = jax.random.split(key, 4)

    def layer(x: Any, key: Any) -> Any:
        root = _root(gain**2 * _gram(x, x) + bias**2)
        z = jax.random.normal(key, (2, n))
        x = _phi(case, _mix(root, z))
        return x, (x, z, root)

    _, (xs, zs, roots) = jax.lax.scan(layer, x0, jax.random.split(up, case.depth))

    def back(d: Any, saved: Any) -> Any:
        # Wᵀδ = Q (Zᵀδ) + (1 − Q Qᵀ) g with Q = A R⁻¹, g = K ξ: a combination of A and of ξ.
        x, z, (a, b, c), xi, for_bias = saved
        k = _root(_gram(d, d))
        onto = gain * _gram(xi, x) + bias * for_bias
        right = jnp.stack([onto[:, 0] / a, (onto[:, 1] - onto[:, 0] * (b / a)) / c], axis=1)
        f = _gram(d, z) - _mix(k, right)
        last = f[:, 1] / c
        along = gain * jnp.stack([(f[:, 0] - last * b) / a, last], axis=1)
        mixed = _mix(k, xi) + jnp.stack([along[i, 0] * x[0] + along[i, 1] * x[1] for i in range(2)])
        d = gain * mixed * _slope(case, x)
        return d, jnp.sum(d * d, axis=-1)

    d = jax.random.normal(top, (2, n)) / np.sqrt(n)
    # Drawn before the scan, not in it: XLA would draw them twice, once for each use.
    fresh = (jax.random.normal(for_g, (case.depth - 1, 2, n)), jax.random.normal(for_b, (case.depth - 1, 2, 1)))
    _, norms = jax.lax.scan(back, d, (xs[:-1], zs[1:], [r[1:] for r in roots], *fresh), reverse=True)
    return jnp.mean(xs * xs, axis=-1), jnp.concatenate([norms, jnp.sum(d * d, axis=-1)[None]])


def conditional(case: Case, batch: int = 8) -> Runner:
    """jit(vmap(scan)) over a batch of networks; two such calls at once, so that both cores work."""
    assert case.inputs == 2
    return _batches(jax.vmap(partial(_conditional, case, jnp.asarray(case.x))), batch)


def _batches(networks: Callable[[Any], tuple[Any, Any]], batch: int) -> Runner:
    """A function of a batch of keys, two calls of it at once."""
    batched, keys, pool = jax.jit(networks), _Keys(), ThreadPoolExecutor(2)

    def run(networks: int) -> tuple[Array, Array]:
        own = [keys(batch) for _ in range(-(-networks // batch))]
        return _numbers(list(pool.map(lambda k: jax.block_until_ready(batched(k)), own)))

    return run
