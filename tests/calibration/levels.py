"""False refutations, at α = 0.01 and in the tail at 1e-4."""

from __future__ import annotations

import numpy as np

from mcverify.statistics import sequential
from mcverify.statistics.evidence import p_value

from . import samplers
from .rows import ALPHA, MILLION, REPORTED, TAIL, FloatArray, Row, at_least, both, surely_at_most, targets
from .samplers import SHAPES, SHARES, Rng, watched

OF = "false refutations at α = 0.01, and in the tail at 1e-4"


# ---- Gaussian estimates ---------------------------------------------------------------------------------


def of_gaussian(components: int, shift: float = 0.0, **more):
    """Fixed-size tests and watches of estimates that are Gaussian, with known errors; shift: where the truth is."""

    def measure(rng: Rng, runs: int):
        looks = [
            samplers.gaussian(shift + x, share**-0.5, **more)
            for share, x in zip(SHARES, samplers.brownian(rng, runs, components, SHARES), strict=True)
        ]
        planned, se = SHARES.index(1.0), np.ones(components)
        return both("fixed", p_value(looks[planned])) | both("watch", lambda a: watched(looks, planned, se, a).p)

    return samplers.chunked(measure, 20 * components)


def gaussian_row(name: str, says: str, measure, *, exact: bool = False, seconds: float = 3) -> Row:
    return Row(
        f"level/gaussian/{name}", OF, says, MILLION, 50_000, measure,
        targets("fixed", exact=exact) | targets("watch"), "levels.py", seconds=seconds,
    )  # fmt: skip


# ---- networks: estimated errors -------------------------------------------------------------------------


def of_networks(width: int, depth: int, looks: tuple[int, ...]):
    """Per-layer ratios of ReLU networks: a component each, and their mean; errors are estimated."""

    def measure(rng: Rng, runs: int):
        accrued = samplers.accrued(lambda shape: samplers.relu_ratios(rng, width, shape) - 1, runs, looks, depth)
        two, one = (
            [samplers.of_samples(*a, n, one_sided=side) for a, n in zip(accrued, looks, strict=True)]
            for side in (False, True)
        )
        se, last = np.full(depth, np.sqrt(5 / width / looks[-1])), len(looks) - 1
        return (
            both("fixed", p_value(two[0]))
            | both("fixed, one-sided", p_value(one[0]))
            | both("watch", lambda a: watched(two, last, se, a).p)
        )

    return measure


def network_row(width: int, depth: int) -> Row:
    least = samplers.relu_least(width)
    looks = (least, 2 * least) if (width, depth) == (64, 8) else (least,)  # the rest would take too long
    # A million runs of the deepest would take a quarter of an hour: its tail is told, not asked for.
    runs = MILLION // 5 if (width, depth) == SHAPES[-1] else MILLION
    levels = targets("fixed", "fixed, one-sided", "watch")
    tails = dict.fromkeys((name for name in levels if name.endswith(f", {TAIL:g}")), REPORTED)
    return Row(
        f"level/networks/{width}x{depth}", OF,
        f"per-layer second moments of ReLU networks, N = {width}, L = {depth} (5L/N = {5 * depth / width:g}), "
        f"each layer and their mean; {least} networks, watch at {', '.join(map(str, looks))}",
        runs, 2_000, of_networks(width, depth, looks), levels if runs == MILLION else levels | tails, "levels.py",
        seconds=8e-9 * runs * looks[-1] * depth,
    )  # fmt: skip


# ---- networks: e-processes by the theory's law ----------------------------------------------------------

COUNTS = np.unique(np.geomspace(16, 4096, 16).astype(int))  # networks at which the sums are looked at


def of_sums(width: int, depth: int, sums, cumulant: sequential.Cumulant, variance: float):
    """The mean over layers against its exact (or bounded) moment-generating function, looked at often."""
    count = depth * COUNTS
    steps = np.diff(count, prepend=0)

    def measure(rng: Rng, runs: int):
        total = np.cumsum(sums(rng, width, np.broadcast_to(steps, (runs, len(steps)))) - steps, axis=1)

        def p(alpha: float) -> FloatArray:
            slope = sequential.slopes(variance, count[0], count[-1], alpha)
            return sequential.sequential_p(sequential.log_e_mean(total, count, cumulant, slope))

        return both("e-process", p)

    return samplers.chunked(measure, len(COUNTS) * 24)


def sum_rows(width: int, depth: int) -> list[Row]:
    ways = {
        "linear": (samplers.linear_sums, sequential.chi_square_cumulant(width), 2 / width),
        "relu": (samplers.relu_sums, samplers.relu_cumulant(width), 5 / width),
        "bernstein": (samplers.relu_sums, sequential.sub_exponential_cumulant(5 / width, 4 / width), 5 / width),
    }
    return [
        Row(
            f"level/e-mean/{name}/{width}x{depth}", OF,
            f"mixture of exp(λS − tψ(λ)), {name}, N = {width}, L = {depth}: looked at {len(COUNTS)} times",
            MILLION, 50_000, of_sums(width, depth, *way), targets("e-process"), "levels.py", seconds=20,
        )
        for name, way in ways.items()
        if name != "bernstein" or (width, depth) == SHAPES[1]  # one shape of them, for time
    ]  # fmt: skip


# ---- networks: products over depth ----------------------------------------------------------------------

PRODUCTS = 64  # networks in one run


def of_products(width: int, depth: int):
    """Squared lengths at the output, heavy-tailed: looked at after every network."""
    second = (1 + 5 / width) ** depth

    def measure(rng: Rng, runs: int):
        x = samplers.relu_ratios(rng, width, (runs, PRODUCTS, depth)).prod(axis=-1)
        upper, lower = sequential.log_e_upper(x), sequential.log_e_lower(x, second)
        return both("above", sequential.sequential_p(upper)) | both("below", sequential.sequential_p(lower))

    return samplers.chunked(measure, PRODUCTS * max(depth, 24))


def product_row(width: int, depth: int) -> Row:
    # The lower side is valid but blind, by its own account: it is asked for no false alarms, and `lower_side` shows
    # that it can fire.
    blind = {f"below, {ALPHA:g}": surely_at_most(0.013)}
    return Row(
        f"level/products/{width}x{depth}", OF,
        f"products over depth of ReLU networks, N = {width}, L = {depth}: {PRODUCTS} networks, looked at after each",
        MILLION, 10_000, of_products(width, depth), targets("above", "below") | blind, "levels.py",
        seconds=MILLION * PRODUCTS * (24e-9 * depth + 0.6e-6),
    )  # fmt: skip


def lower_side(width: int, depth: int, samples: int):
    """Outputs of a fifth of their length."""

    def measure(rng: Rng, runs: int):
        x = 0.2 * samplers.relu_ratios(rng, width, (runs, samples, depth)).prod(axis=-1)
        p = sequential.sequential_p(sequential.log_e_lower(x, (1 + 5 / width) ** depth))
        return {"found": p <= ALPHA}

    return samplers.chunked(measure, samples * max(depth, 24))


ROWS = [
    gaussian_row("one", "one Gaussian estimate", of_gaussian(1), exact=True),
    gaussian_row("eight", "eight Gaussian estimates and their mean", of_gaussian(8), seconds=60),
    gaussian_row("one-sided", "one Gaussian estimate against a bound", of_gaussian(1, one_sided=True), exact=True),
    gaussian_row("remainder", "truth at the edge of the declared remainder, four estimates",
                 of_gaussian(4, 2.0, remainder=np.full(4, 2.0)), seconds=30),
    gaussian_row("within", "truth at the margin of a claim that is the margin itself",
                 of_gaussian(1, 5.0, within=True, margin=np.full(1, 5.0)), exact=True),
    *[network_row(*shape) for shape in SHAPES],
    *[row for shape in SHAPES for row in sum_rows(*shape)],
    *[product_row(*shape) for shape in SHAPES],
    Row("level/products/lower-side", OF, "the e-process below can fire: outputs of a fifth of their length, N = 64, "
        "L = 8, 128 networks", 10_000, 1_000, lower_side(64, 8, 128), {"found": at_least(0.95)}, "levels.py",
        seconds=2),
]  # fmt: skip
