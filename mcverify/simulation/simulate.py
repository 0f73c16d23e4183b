"""Sample a network many times and report the moments of what theory predicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mcverify import inputs, results
from mcverify.batches import check_batches
from mcverify.errors import InputError
from mcverify.kernels import memory
from mcverify.kernels.backends import backend as find_backend
from mcverify.network import Network, check_network, describe
from mcverify.random_map import choice
from mcverify.random_map.engine import Engine
from mcverify.simulation import observables
from mcverify.simulation.executor import Progress, chunk_size, in_chunks
from mcverify.simulation.moments import Moments
from mcverify.simulation.trace import Cotangent, Plan, Trace, trace
from mcverify.streams import stream_key
from mcverify.validate import count

if TYPE_CHECKING:
    import xarray as xr

FloatArray = NDArray[np.float64]
Seed = int | Sequence[int] | np.random.Generator | np.random.BitGenerator | np.random.SeedSequence | None


def seed_of(rng: Seed) -> int:
    """A 64-bit seed from whatever numpy.random.default_rng takes (SPEC 7). An int is the seed itself, so that
    it can be written down; None is fresh entropy; a Generator is drawn from."""
    if isinstance(rng, int | np.integer) and not isinstance(rng, bool):
        if not 0 <= rng < 2**64:
            raise InputError("rng", int(rng), "must be between 0 and 2**64 - 1")
        return int(rng)
    if isinstance(rng, np.random.SeedSequence):
        return int(rng.generate_state(1, np.uint64)[0])
    allowed = "must be an int, a numpy Generator, BitGenerator or SeedSequence, a list of ints, or None"
    if isinstance(rng, bool | str | float):
        raise InputError("rng", rng, allowed)
    try:
        return int(np.random.default_rng(rng).integers(2**64, dtype=np.uint64))
    except (TypeError, ValueError):
        raise InputError("rng", rng, allowed) from None


def choose_engine(
    engine: str, backend: str, dtype: str, net: Network | None = None, inputs: int = 1, *,
    tangents: int = 0, tied: bool = True,
) -> tuple[Engine, str]:  # fmt: skip
    """(engine, backend name). "auto" goes by counts for `net`, and is explicit where no network is given.

    Raises InputError for a name that is not offered."""
    if dtype not in ("float32", "float64"):
        raise InputError("dtype", dtype, "allowed: float32, float64")
    name, kernels = find_backend(backend)
    maps = [] if net is None else net.sampled_maps
    loads = [choice.Load(c, c * tangents, c) for c in (inputs * p for _, p in maps)]
    return choice.choose(engine, kernels, np.dtype(dtype), [m for m, _ in maps], loads, tied=tied), name


Observable = Callable[[Trace], FloatArray]


def sample(
    plan: Plan,
    measures: dict[str, Observable],
    start: int,
    samples: int,
    threads: int | None = None,
    progress: Progress | None = None,
    keep: bool = False,
) -> tuple[dict[str, Moments], dict[str, list[FloatArray]]]:
    """Moments of each measure over replicates start … start + samples − 1, and every value when kept.

    An interrupt (Ctrl-C) ends it with the replicates measured so far, if there are two; the moments' count
    says how many."""
    copies = len(plan.x) * (2 + plan.tangents)
    kernels = plan.engine.kernels
    chunk = chunk_size(plan.net, copies, plan.engine.dtype.itemsize, plan.engine.name, kernels.room())

    def work(first: int, number: int) -> dict[str, FloatArray]:
        # Overflow and NaN are counted and named in the result; a warning on a worker thread helps nobody.
        with np.errstate(all="ignore"), memory.reused():
            t = trace(plan, first, number)
            return {name: np.array(measure(t), np.float64) for name, measure in measures.items()}

    moments = {name: Moments() for name in measures}
    kept: dict[str, list[FloatArray]] = {name: [] for name in measures}
    done = 0
    try:
        for number, values in in_chunks(work, start, samples, chunk, kernels.workers(threads)):
            with np.errstate(all="ignore"):
                for name, value in values.items():
                    moments[name].add(value)
                    if keep:
                        kept[name].append(value)
            done += number
            if progress is not None:
                progress(done, samples)
    except KeyboardInterrupt:
        if done < 2:
            raise
    with np.errstate(all="ignore"):
        return {name: m.finish() for name, m in moments.items()}, kept


def simulate(
    net: Network,
    x: ArrayLike,
    samples: int = 1000,
    rng: Seed = 0,
    engine: str = "auto",
    backend: str = "auto",
    *,
    cotangent: Cotangent = "independent",
    tangents: int = 0,
    tied: bool = True,
    replicates: bool = False,
    dtype: str = "float32",
    threads: int | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Sample `samples` networks and measure what `predict` predicts, with standard errors.

    net: the network; x: inputs (input, n_0), or (input, channels, *positions). rng: a seed, following SPEC 7.
    cotangent: see Plan; E = Σ_a v_a·h^L_a.
    tangents: how many random input directions to push through (adds tangent_gram). tied=False gives the
    backward pass fresh weights. replicates=True returns every replicate instead of means.
    dtype is that of weights and activations; moments are in float64.

    Returns a Dataset over layer (1 … L), input (and input_2, direction): q, metric, c, chi, length,
    length_var, grad_norm2, grad_gram, each with NAME_se. Monte Carlo: no mark, only standard errors.
    Where what is between all positions takes too much memory, q_local and c_local as in `predict`, and no metric.
    Replicates with non-finite values are counted in the attribute `nonfinite`.
    An interrupt returns what is there; the attribute `samples` then falls short of `samples_asked`.
    Raises InputError before any work starts; also for a batch norm at eps = 0 over so few columns that gradients have
    no finite mean or variance, unless replicates are asked for.
    """
    check_network(net)
    count("samples", samples, least=2)
    count("tangents", tangents, least=0)
    if threads is not None:
        count("threads", threads)
    x = inputs.checked(x, net.input_shape)
    check_batches(net, x, errors=not replicates)
    inputs.checked_cotangent(cotangent, len(x), net.shapes[net.end])
    layers, columns = len(net.maps), len(x) * max(net.positions)
    pairs = results.holds_pairs(layers, columns)
    covariance = observables.q if pairs else observables.q_local
    seed = seed_of(rng)
    chosen, backend_name = choose_engine(engine, backend, dtype, net, len(x), tangents=tangents, tied=tied)
    plan = Plan(net, x, chosen, stream_key(seed, "simulate"), cotangent, tangents)
    measures: dict[str, Observable] = {"q": observables.q, "metric": observables.metric} if pairs else {}
    measures |= {
        "length": observables.length,
        "grad_gram": observables.grad_gram,
    }
    if net.is_chain:
        measures["chi"] = observables.chi
    if tangents:
        measures["tangent_gram"] = observables.tangent_gram
    if len(net.input_shape) > 1:
        measures["gram"] = observables.gram
    if not pairs:
        measures["q_local"] = observables.q_local
    measures["q_cross"] = lambda t: _cross(covariance(t))
    everywhere = ("length", "grad_gram", "tangent_gram", "gram" if "gram" in measures else "q")
    moments, kept = sample(plan, measures, 0, samples, threads, progress, replicates)
    done = moments["length"].count
    attrs = results.provenance(
        kind="simulation", network=describe(net), samples=done, samples_asked=samples, seed=str(seed),
        engine=chosen.name,
        engine_reason=chosen.reason,
        backend=backend_name, dtype=dtype, weights_backward="tied" if tied else "fresh",
        cotangent=cotangent if isinstance(cotangent, str) else "array",
        # Where layers stand on different grids q and the metric are NaN by design; gram is there for every layer.
        nonfinite=max(m.nonfinite for name, m in moments.items() if name in everywhere),
        **results.left_out(layers, columns),
    )  # fmt: skip
    if replicates:
        every = {name: np.concatenate(v) for name, v in kept.items() if name != "q_cross"}
        every["grad_norm2"] = np.diagonal(every["grad_gram"], axis1=-2, axis2=-1)
        return results.dataset(every, attrs, net.input_shape[:-1])
    return results.dataset(_summary(moments), attrs, net.input_shape[:-1])


def _cross(q: FloatArray) -> FloatArray:
    """q_aa, q_bb and their sum and differences with q_ab: enough for the covariance of (q_aa, q_ab, q_bb).

    Var(u + v) − Var(u) − Var(v) = 2 Cov(u, v), read off the moments of sums."""
    diagonal = np.diagonal(q, axis1=-2, axis2=-1)
    aa, bb = diagonal[..., :, None], diagonal[..., None, :]
    return np.stack(np.broadcast_arrays(aa + q, bb + q, aa + bb), axis=-1)


def _summary(moments: dict[str, Moments]) -> dict[str, NDArray[Any]]:
    """Means and standard errors of every variable."""
    out: dict[str, NDArray[Any]] = {}
    for name, m in moments.items():
        if name != "q_cross" and m.mean is not None:
            out[name], out[f"{name}_se"] = m.mean, m.standard_error
    out["length_var"] = moments["length"].variance
    for suffix in ("", "_se"):
        out[f"grad_norm2{suffix}"] = np.diagonal(out[f"grad_gram{suffix}"], axis1=-2, axis2=-1)
    name = "" if "q" in moments else "_local"
    out[f"c{name}"], out[f"c{name}_se"] = _correlation(moments[f"q{name}"], moments["q_cross"])
    return out


def _correlation(of_q: Moments, of_sums: Moments) -> tuple[FloatArray, FloatArray]:
    """c = E q_ab / √(E q_aa E q_bb), a ratio of means, with its standard error by the delta method."""
    q, var, sums = of_q.mean, of_q.variance, of_sums.variance
    assert q is not None
    q_diagonal, v_diagonal = (np.diagonal(v, axis1=-2, axis2=-1) for v in (q, var))
    q_aa, q_bb = q_diagonal[..., :, None], q_diagonal[..., None, :]
    v_aa, v_bb = v_diagonal[..., :, None], v_diagonal[..., None, :]
    with np.errstate(all="ignore"):
        c = q / np.sqrt(q_aa * q_bb)
        d_ab, d_aa, d_bb = 1 / np.sqrt(q_aa * q_bb), -c / (2 * q_aa), -c / (2 * q_bb)
        cov_aa, cov_bb = (sums[..., 0] - v_aa - var) / 2, (sums[..., 1] - v_bb - var) / 2
        cov_diagonal = (sums[..., 2] - v_aa - v_bb) / 2
        v = d_ab**2 * var + d_aa**2 * v_aa + d_bb**2 * v_bb
        v += 2 * (d_ab * d_aa * cov_aa + d_ab * d_bb * cov_bb + d_aa * d_bb * cov_diagonal)
        se = np.sqrt(np.maximum(v, 0) / of_q.count)
    diagonal = np.arange(c.shape[-1])
    alive = q_diagonal > 0
    c[..., diagonal, diagonal], se[..., diagonal, diagonal] = np.where(alive, 1.0, np.nan), np.where(alive, 0.0, np.nan)
    return c, se
