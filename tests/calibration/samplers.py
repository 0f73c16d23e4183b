"""Null data with the law of random networks, many runs at a time, and the evidence that the program makes of it.

Given the layer below, the units of a layer are independent. Its second moment over what theory expects is therefore,
exactly and independently of all other layers, X = χ²_N/N in a linear network of width N, and
X = (2/N) χ²_K with K ~ Bin(N, ½) active units in a ReLU network: mean one, variance 2/N and 5/N. A product of them
over the layers is the heavy-tailed squared length at the output.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from mcverify.claims.plan import least_size
from mcverify.statistics.evidence import Evidence
from mcverify.statistics.watch import Watch, look

FloatArray = np.ndarray
Rng = np.random.Generator

SHAPES = ((64, 8), (16, 8), (16, 32))  # (width N, depth L): 5L/N = 0.625, 2.5, 10
SHARES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)  # the program's looks (claims/plan.py), and two beyond
LEAST = 1024  # networks that the program takes at least (claims/plan.py; a test holds them together)
CHUNK = 250_000  # numbers drawn at a time, so that they stay in the cache


@cache
def _relu_table(width: int) -> FloatArray:
    """2¹⁸ draws of X of a ReLU layer, scaled so that their mean is one: drawing from them is a null law of its own,
    with the mean exact and every other moment that of X to sampling error, at a fifth of a gamma's time."""
    rng = np.random.default_rng(width)
    table = 4 / width * rng.standard_gamma(rng.binomial(width, 0.5, 2**18) / 2)
    return (table / table.mean()).astype(np.float32)


def relu_ratios(rng: Rng, width: int, shape: tuple[int, ...]) -> FloatArray:
    """X of a ReLU layer, of the given shape."""
    return _relu_table(width)[rng.integers(0, 2**18, shape, dtype=np.uint32)]


def relu_least(width: int) -> int:
    """The networks that the program takes at least for means of X, whose skewness is 44/√(5³ N)."""
    return least_size(44 / np.sqrt(5**3 * width))


def linear_sums(rng: Rng, width: int, count: FloatArray) -> FloatArray:
    """The sum of `count` independent X of linear layers: χ² with so many times the freedom."""
    return 2 / width * rng.standard_gamma(width / 2 * np.asarray(count))


def relu_sums(rng: Rng, width: int, count: FloatArray) -> FloatArray:
    """The sum of `count` independent X of ReLU layers."""
    return 4 / width * rng.standard_gamma(rng.binomial(width * np.asarray(count), 0.5) / 2)


def relu_cumulant(width: int):
    """log E exp(λ (X − 1)) of a ReLU layer."""

    def cumulant(slope: FloatArray) -> FloatArray:
        room = 1 - 4 * slope / width
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(room > 0, width * np.log(0.5 + 0.5 / np.sqrt(np.maximum(room, 1e-300))) - slope, np.inf)

    return cumulant


def accrued(draw, runs: int, looks: tuple[int, ...], components: int) -> list[tuple[FloatArray, FloatArray]]:
    """For each look the (mean (run, k), its estimated covariance (run, k, k)) of so many samples of each run, where
    draw((runs, samples, k)) gives deviations."""
    size = max(1, CHUNK // (looks[-1] * components))
    parts = [_accrued(draw((min(size, runs - at), looks[-1], components)), looks) for at in range(0, runs, size)]
    return [
        (np.concatenate([p[i][0] for p in parts]), np.concatenate([p[i][1] for p in parts])) for i in range(len(looks))
    ]


def _accrued(deviations: FloatArray, looks: tuple[int, ...]) -> list[tuple[FloatArray, FloatArray]]:
    out, first, start = [], 0.0, 0
    second: FloatArray | float = 0.0
    for n in looks:
        part = deviations[:, start:n]
        first = first + np.einsum("rnk->rk", part, dtype=np.float64)
        second = second + np.swapaxes(part, 1, 2) @ part
        start = n
        mean = first / n
        out.append((mean, (second / n - mean[:, :, None] * mean[:, None, :]) / (n - 1)))
    return out


def of_samples(mean: FloatArray, covariance: FloatArray, samples: int, **more) -> Evidence:
    """Evidence that means (run, k) of deviations are zero, as claims/experiment.py makes it."""
    k = mean.shape[-1]
    fields = {"prediction": np.zeros(k), "remainder": np.zeros(k), "margin": np.ones(k), "weights": np.ones(k)} | more
    se = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
    return Evidence(mean, se, samples=samples, covariance=covariance, **fields)


def gaussian(estimate: FloatArray, se: float | FloatArray = 1.0, **more) -> Evidence:
    """Evidence of independent components (run, k) with known standard errors."""
    se = np.broadcast_to(se, estimate.shape)
    return of_samples(estimate, (se**2)[..., None] * np.eye(estimate.shape[-1]), 1, **more)


def guessed(rng: Rng, se: FloatArray | float, samples: int, shape: tuple[int, ...]) -> FloatArray:
    """Standard errors as so many Gaussian samples estimate them."""
    return se * np.sqrt(2 * rng.standard_gamma((samples - 1) / 2, shape) / (samples - 1))


def brownian(rng: Rng, runs: int, components: int, shares: tuple[float, ...]) -> list[FloatArray]:
    """Estimates (run, k) of zero after shares of the planned sample, where their standard error is one."""
    total, before, out = np.zeros((runs, components)), 0.0, []
    for share in shares:
        total = total + np.sqrt(share - before) * rng.standard_normal((runs, components))
        before = share
        out.append(total / share)
    return out


def watched(looks: list[Evidence], planned: int, se: FloatArray, alpha: float) -> Watch:
    """Watches tuned to alpha, after all looks. se (k,): the independent components' at the planned look."""
    with_mean = np.append(se, np.sqrt((se**2).sum()) / len(se)) if looks[0].pooled else se
    watch = Watch(with_mean, alpha, looks[0].weights)
    for at, e in enumerate(looks):
        watch = look(watch, e, planned=at == planned)
    return watch


def chunked(measure, numbers_per_run: int):
    """The same measure, with so few runs at a time that their numbers fit."""
    size = max(1, CHUNK // numbers_per_run)

    def of_all(rng: Rng, runs: int):
        parts = [measure(rng, min(size, runs - at)) for at in range(0, runs, size)]
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}

    return of_all
