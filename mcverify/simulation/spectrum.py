"""The singular values of sampled Jacobians J = ∂h^L/∂x^0: moments from a few random directions, or all of them.

For directions g_t, independent and uniform on the sphere ‖g‖² = n_0, and K = JᵀJ, pushing gives a_t = J g_t, and
pulling these back b_t = K g_t. As E ggᵀ = 1, for every J exactly E a_t·a_t = tr K and E b_t·b_t = tr K², and over pairs
s ≠ t E (a_s·a_t)(b_s·b_t) = tr K³ and E (b_s·b_t)² = tr K⁴; m_1 and m_2 of an isometry are left to no chance. Tangents
come before cotangents, so that the conditional engine's weights, which are never drawn, serve as well as explicit ones:
the cost is that of a few more columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mcverify import inputs, results
from mcverify.errors import InputError
from mcverify.kernels import memory
from mcverify.layers import chain
from mcverify.layers.batchnorm import BatchNorm
from mcverify.layers.chain import Record
from mcverify.layers.convolution import Convolution
from mcverify.network import Network, check_network, describe
from mcverify.simulation.executor import Progress, chunk_size, in_chunks
from mcverify.simulation.moments import Moments
from mcverify.simulation.simulate import Seed, choose_engine, seed_of
from mcverify.simulation.trace import Plan
from mcverify.streams import Role, Site, stream_key
from mcverify.validate import count

if TYPE_CHECKING:
    import xarray as xr

FloatArray = NDArray[np.float64]
ORDER = 4


# ---- of one chunk -------------------------------------------------------------------------------------


def moments(plan: Plan, start: int, number: int, probes: int, *, activated: bool = False) -> FloatArray:
    """Unbiased estimates of m_k = tr (JᵀJ)^k/n_0, k = 1 … 4, of replicates start …: (replicate, input, 4); n_0 counts
    an input's positions. A function of their addresses alone, and of the weights that `trace` gives them."""
    tape, g = _tape(plan, start, number, activated), _directions(plan, start, number, probes)
    a = chain.tangent(tape, plan.engine, g)
    b = chain.backward(tape, plan.engine, a)
    once, twice = (_gram(plan.engine.kernels.host(v), len(plan.x)) for v in (a, b))
    same, pairs = np.eye(probes, dtype=bool), ~np.eye(probes, dtype=bool)
    k = [once[..., same], twice[..., same], (once * twice)[..., pairs], (twice**2)[..., pairs]]
    return np.stack([v.mean(axis=-1) for v in k], axis=-1) / plan.x[0].size


def singular_values(plan: Plan, start: int, number: int, *, activated: bool = False) -> FloatArray:
    """All singular values, ascending: (replicate, input, value); where no position meets another, of each position's
    own Jacobian, (replicate, input · position, value)."""
    j = jacobians(plan, start, number, activated=activated)
    return np.asarray(np.linalg.svd(j, compute_uv=False)[..., ::-1], np.float64)


def jacobians(plan: Plan, start: int, number: int, *, activated: bool = False) -> FloatArray:
    """Jᵀ of each input or, where no position meets another, of each column: (replicate, input or column, in, out)."""
    tape, n0 = _tape(plan, start, number, activated), plan.x.shape[-1]
    columns, blocks = plan.x[..., 0].size, len(plan.x) if _positions_meet(plan.net) else plan.x[..., 0].size
    met = columns // blocks  # columns that one Jacobian takes in
    basis = np.eye(met * n0, dtype=plan.engine.dtype).reshape(-1, 1, met, n0)
    dx = np.broadcast_to(basis, (len(basis), blocks, met, n0)).reshape(1, -1, columns, n0)
    kernels = plan.engine.kernels
    dy = kernels.host(chain.tangent(tape, plan.engine, kernels.given(np.repeat(dx, number, axis=0))))
    return np.swapaxes(dy.astype(np.float64).reshape(number, len(basis), blocks, -1), 1, 2)


def _tape(plan: Plan, start: int, number: int, activated: bool) -> list[Record]:
    """A forward pass through what the Jacobian is of."""
    layers = (plan.sampled or plan.net).layers
    columns = plan.x.reshape(-1, plan.x.shape[-1]).astype(plan.engine.dtype)
    layers = layers if activated else layers[: plan.net.end]
    x = plan.engine.kernels.given(columns[None])
    return chain.forward(layers, plan.engine, x, Site(plan.key, 0, start, number))


def _directions(plan: Plan, start: int, number: int, probes: int) -> NDArray[Any]:
    """Uniform on each input's sphere, (replicate, direction, column, n_0)."""
    columns, n0, site = plan.x[..., 0].size, plan.x.shape[-1], Site(plan.key, 0, start, number)
    kernels = plan.engine.kernels
    draws = kernels.draw(site, Role.TANGENT, "gaussian", probes * columns, n0, plan.engine.dtype)
    by_input = kernels.host(draws).reshape(-1, probes, len(plan.x), plan.x[0].size)
    by_input *= np.sqrt(plan.x[0].size / np.einsum("rtai,rtai->rta", by_input, by_input))[..., None]
    return kernels.given(by_input.reshape(-1, probes, columns, n0))


def _gram(v: NDArray[Any], inputs: int) -> FloatArray:
    """(replicate, direction, column, units) → (replicate, input, direction, direction)."""
    apart = np.swapaxes(v.astype(np.float64).reshape(*v.shape[:2], inputs, -1), 1, 2)
    return np.asarray(apart @ np.swapaxes(apart, -1, -2))


def _positions_meet(net: Network) -> bool:
    return any(not (isinstance(v, Convolution) and v.keeps_apart) for v, shape in net.every_layer
               if v.random_map is not None and len(shape) > 1)  # fmt: skip


# ---- of many networks ---------------------------------------------------------------------------------


def simulate_jacobian_moments(
    net: Network, x: ArrayLike, samples: int = 1000, rng: Seed = 0, engine: str = "auto", backend: str = "auto", *,
    probes: int = 4, activated: bool = False, dtype: str = "float32", threads: int | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:  # fmt: skip
    """Moments m_1 … m_4 of the squared singular values of J = ∂h^L/∂x^0 in sampled networks, without any SVD.

    net, x, samples, rng, engine, backend, dtype, threads as in `simulate`; probes: random directions per network and
    input, at least two; activated: J = ∂x^L/∂x^0. Returns a Dataset over (input, order): moments, with moments_se. Each
    is the mean of an unbiased estimate, over n_0 directions (and all positions).
    Raises InputError before any work starts; batch norm, which makes one Jacobian of all inputs, is not treated."""
    count("probes", probes, least=2)
    x, plan, attrs = _plan(net, x, samples, rng, engine, backend, dtype, threads, probes)
    engine_name, kernels = plan.engine.name, plan.engine.kernels
    chunk = chunk_size(net, len(x) * (2 + 2 * probes), plan.engine.dtype.itemsize, engine_name, kernels.room())

    def work(first: int, number: int) -> FloatArray:
        with np.errstate(all="ignore"), memory.reused():
            return moments(plan, first, number, probes, activated=activated)

    total, done = Moments(), 0
    for number, values in in_chunks(work, 0, samples, chunk, kernels.workers(threads)):
        total.add(values)
        done += number
        if progress is not None:
            progress(done, samples)
    total.finish()
    dims, told = ("input", "order"), {"samples": total.count, "probes": probes, "nonfinite": total.nonfinite}
    variables = {"moments": (dims, total.mean), "moments_se": (dims, total.standard_error)}
    return _dataset(variables, {**attrs, **told}, order=np.arange(1, ORDER + 1))


def simulate_singular_values(
    net: Network, x: ArrayLike, samples: int = 100, rng: Seed = 0, engine: str = "explicit", backend: str = "auto", *,
    activated: bool = False, dtype: str = "float32", threads: int | None = None,
) -> xr.Dataset:  # fmt: skip
    """All singular values of J in sampled networks: n_0 directions are pushed through each.

    Arguments as in `simulate_jacobian_moments`. Returns a Dataset with singular_values (replicate, input, value),
    ascending; where no position meets another (delta-orthogonal convolution) (replicate, input, position, value), each
    position having a Jacobian of its own. Raises InputError before any work starts."""
    x, plan, attrs = _plan(net, x, samples, rng, engine, backend, dtype, threads, 0)
    directions = x.shape[-1] * (x[0].size // x.shape[-1] if _positions_meet(net) else 1)
    engine_name, kernels = plan.engine.name, plan.engine.kernels
    chunk = chunk_size(net, len(x) * (2 + directions), plan.engine.dtype.itemsize, engine_name, kernels.room())

    def work(first: int, number: int) -> FloatArray:
        with np.errstate(all="ignore"), memory.reused():
            return singular_values(plan, first, number, activated=activated)

    values = np.concatenate([v for _, v in in_chunks(work, 0, samples, chunk, kernels.workers(threads))])
    dims: tuple[str, ...] = ("replicate", "input", "value")
    if values.shape[1] > len(x):
        dims = ("replicate", "input", "position", "value")
        values = values.reshape(len(values), len(x), -1, values.shape[-1])
    return _dataset({"singular_values": (dims, values)}, attrs)


def _plan(
    net: Network, x: ArrayLike, samples: int, rng: Seed, engine: str, backend: str, dtype: str, threads: int | None,
    probes: int,
) -> tuple[FloatArray, Plan, dict[str, Any]]:  # fmt: skip
    """(inputs, plan, attributes)."""
    check_network(net)
    count("samples", samples, least=2)
    if threads is not None:
        count("threads", threads)
    if any(isinstance(layer, BatchNorm) for layer, _ in net.every_layer):
        raise InputError("net", describe(net), "must be without batch norm, which makes one Jacobian of all inputs")
    checked, seed = inputs.checked(x, net.input_shape), seed_of(rng)
    chosen, name = choose_engine(engine, backend, dtype, net, len(checked), tangents=probes)
    plan = Plan(net, checked, chosen, stream_key(seed, "jacobian"))
    attrs = results.provenance(
        kind="simulation", network=describe(net), seed=str(seed), engine=chosen.name, engine_reason=chosen.reason,
        backend=name, dtype=dtype, samples=samples,
    )  # fmt: skip
    return checked, plan, attrs


def _dataset(variables: dict[str, Any], attrs: dict[str, Any], **coordinates: NDArray[Any]) -> xr.Dataset:
    import xarray as xr

    return xr.Dataset(variables, attrs=attrs, coords=coordinates)
