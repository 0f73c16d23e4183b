"""What is found, and what is not confirmed: detection of a gain, power at the MDE, truths at the margin, and the
samples that looking early saves."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

from mcverify.statistics import sequential
from mcverify.statistics.evidence import confirms, mde, p_value
from mcverify.statistics.watch import Watch, look

from . import samplers
from .rows import REPORTED, Row, at_least, at_most, margin, not_below
from .samplers import LEAST, SHARES, Rng, watched

# ---- a variance gain of 1 ± 1/N in every layer ----------------------------------------------------------

DETECTION = 1e-5
LOOKS = (250, 500, 1000, 2000)
NETWORKS = tuple((n, depth) for n in (16, 32, 64) for depth in (8, 16, 32))


def of_gain(width: int, depth: int):
    """Per-layer second moments of ReLU networks whose variances have a gain, up or down."""
    theory = np.full(depth, np.sqrt(5 / width / LOOKS[-1]))

    def measure(rng: Rng, runs: int):
        def draw(shape: tuple[int, ...]):
            sign = rng.choice([-1, 1], shape[0])[:, None, None]
            return (1 + sign / width) * samplers.relu_ratios(rng, width, shape) - 1

        accrued = samplers.accrued(draw, runs, LOOKS, depth)
        looks = [samplers.of_samples(*a, n) for a, n in zip(accrued, LOOKS, strict=True)]
        watch = watched(looks, len(LOOKS) - 1, theory, DETECTION)
        return {"fixed": p_value(looks[-1]) <= DETECTION, "watch": watch.p <= DETECTION}

    return measure


def gain_row(width: int, depth: int) -> Row:
    return Row(
        f"detection/{width}x{depth}", "detection at α = 1e-5 of a variance gain 1 ± 1/N in every layer",
        f"ReLU networks, N = {width}, L = {depth}, 2,000 samples", 10_000, 500, of_gain(width, depth),
        {"fixed": at_least(0.99), "watch": at_least(0.95)}, "power.py", seconds=0.6 * depth + 2,
    )  # fmt: skip


# ---- power at the reported MDE --------------------------------------------------------------------------


def of_mde(components: int, alpha: float, **more):
    """A deviation of one component by what this run's MDE says; errors estimated from LEAST networks or more. The
    watch's MDE is that of its test at the planned size, as verification.py reports it."""

    def measure(rng: Rng, runs: int):
        shares = (0.25, 0.5, 1.0)
        paths = samplers.brownian(rng, runs, components, shares)
        guesses = [samplers.guessed(rng, share**-0.5, int(4 * LEAST * share), (runs, components)) for share in shares]
        at_planned = samplers.gaussian(paths[-1], guesses[-1], **more)
        out = {}
        for name, a in (("fixed", alpha), ("watch", alpha / 2)):
            shift = np.zeros((runs, components))
            shift[:, 0] = mde(at_planned, a)[:, 0]
            looks = [samplers.gaussian(x + shift, se, **more) for x, se in zip(paths, guesses, strict=True)]
            p = p_value(looks[-1]) if name == "fixed" else watched(looks, 2, np.ones(components), alpha).p
            out[name] = p <= alpha
        return out

    return samplers.chunked(measure, 20 * components)


def mde_row(name: str, says: str, measure) -> Row:
    return Row(f"power/{name}", "power at the reported MDE", f"{says}, MDE of power 0.99", 200_000, 20_000, measure,
               {"fixed": not_below(0.99), "watch": not_below(0.99)}, "power.py", seconds=2)  # fmt: skip


# ---- truth at the margin --------------------------------------------------------------------------------

WIDE = 40.0  # standard errors: the other side of the margin is out of sight


def of_margin(components: int, **more):
    """The first component at its margin (for a bound: at the bound), the others in the middle."""
    shift = np.zeros(components)
    shift[0] = 0.0 if more.get("one_sided") else WIDE

    def measure(rng: Rng, runs: int):
        paths = samplers.brownian(rng, runs, components, SHARES)
        wide, planned = np.full(components, WIDE), SHARES.index(1.0)
        looks = []
        for share, x in zip(SHARES, paths, strict=True):
            se = samplers.guessed(rng, share**-0.5, int(8 * LEAST * share), x.shape)
            looks.append(samplers.gaussian(x + shift, se, margin=wide, **more))
        watch = watched(looks, planned, np.ones(components), 1e-3)
        return {"fixed": confirms(looks[planned]), "watch": watch.confirmed}

    return samplers.chunked(measure, 30 * components)


def of_skewed_margin(width: int, side: int):
    """The second moment of one ReLU layer, as few networks as the program takes, its truth at either margin: errors
    are estimated from the same skewed samples."""
    least = samplers.relu_least(width)
    wide = WIDE * np.sqrt(5 / width / least)

    def measure(rng: Rng, runs: int):
        def draw(shape: tuple[int, ...]):
            return samplers.relu_ratios(rng, width, shape) - 1 + side * wide

        ((mean, covariance),) = samplers.accrued(draw, runs, (least,), 1)
        e = samplers.of_samples(mean, covariance, least, margin=np.full(1, wide))
        watch = look(Watch(np.full(1, wide / WIDE), 1e-3), e, planned=True)
        return {"fixed": confirms(e), "watch": watch.confirmed}

    return measure


def margin_row(name: str, says: str, measure, seconds: float = 0.5) -> Row:
    return Row(f"margin/{name}", "truth placed at the margin", says, 200_000, 10_000, measure,
               {"fixed": margin(), "watch": margin()}, "power.py", seconds=seconds)  # fmt: skip


# ---- samples that looking early saves -------------------------------------------------------------------

HORIZON = 1.3
OF_SIZE = "samples until a 1/N error is refuted, over the fixed size of power 0.99 (horizon 1.3)"


def fixed_size(alpha: float, variance: float, error: float) -> float:
    """Samples at which the mean's two-sided test at alpha has power 0.99."""
    return variance * (float(ndtri(1 - alpha / 2) + ndtri(0.99)) / error) ** 2


def of_size_watch(width: int, alpha: float):
    """One ReLU layer's second moment with a gain 1 + 1/N, looked at as claims/plan.py says, the planned size at the
    horizon."""
    error, variance = 1 / width, 5 / width * (1 + 1 / width) ** 2
    size = fixed_size(alpha, variance, error)
    ends = np.ceil(HORIZON * size * np.array([0.125, 0.25, 0.5, 1.0])).astype(int)
    steps = np.diff(ends, prepend=0)

    def measure(rng: Rng, runs: int):
        gain = 1 + np.where(np.arange(runs) % 2, 1, -1)[:, None] * error
        sums = samplers.relu_sums(rng, width, np.broadcast_to(steps, (runs, len(steps))))
        mean = gain * np.cumsum(sums, axis=1) / ends - 1
        spent, open_ = np.full(runs, float(ends[-1])), np.ones(runs, dtype=bool)
        watch = Watch(np.full(1, np.sqrt(5 / width / ends[-1])), alpha)
        for at, n in enumerate(ends):
            se = gain * samplers.guessed(rng, np.sqrt(5 / width / n), n, (runs, 1))
            watch = look(watch, samplers.gaussian(mean[:, at, None], se), planned=at == len(ends) - 1)
            spent[open_ & (watch.p <= alpha)] = n
            open_ &= watch.p > alpha
        return {"size": spent / size, "found": ~open_}

    return measure


def of_size_often(width: int, alpha: float):
    """The same error by the mixture of exp(λS − tψ(λ)) with the exact ψ, looked at after every hundredth of the fixed
    size."""
    error, variance = 1 / width, 5 / width * (1 + 1 / width) ** 2
    size = fixed_size(alpha, variance, error)
    ends = np.unique(np.ceil(size * np.arange(0.01, HORIZON + 0.005, 0.01)).astype(int))
    steps = np.diff(ends, prepend=0)
    slope = sequential.slopes(5 / width, 0.25 * size, HORIZON * size, alpha)

    def measure(rng: Rng, runs: int):
        gain = 1 + np.where(np.arange(runs) % 2, 1, -1)[:, None] * error
        sums = samplers.relu_sums(rng, width, np.broadcast_to(steps, (runs, len(steps))))
        total = gain * np.cumsum(sums, axis=1) - ends
        log_e = sequential.log_e_mean(total, ends, samplers.relu_cumulant(width), slope)
        reached = log_e >= np.log(1 / alpha)
        found = reached.any(axis=1)
        return {"size": np.where(found, ends[reached.argmax(axis=1)], ends[-1]) / size, "found": found}

    return samplers.chunked(measure, len(ends) * 30)


def size_rows(width: int, alpha: float) -> list[Row]:
    says = f"one ReLU layer's second moment, N = {width}, α = {alpha:g}"
    return [
        Row(f"size/often/{width}/{alpha:g}", OF_SIZE, f"{says}: e-process with the exact law, looked at often", 20_000,
            2_000, of_size_often(width, alpha),
            {"size": at_most(0.65), "found": at_least(0.95)}, "power.py", seconds=2),
        Row(f"size/watch/{width}/{alpha:g}", OF_SIZE, f"{says}: watch at 1/8, 1/4, 1/2 and 1 of the horizon", 20_000,
            2_000, of_size_watch(width, alpha), {"size": REPORTED, "found": at_least(0.95)}, "power.py", seconds=2),
    ]  # fmt: skip


ROWS = [
    *[gain_row(*shape) for shape in NETWORKS],
    mde_row("one", "one component", of_mde(1, 1e-3)),
    mde_row("eight", "eight components and their mean", of_mde(8, 1e-3)),
    mde_row("one-sided", "one component against a bound", of_mde(1, 1e-3, one_sided=True)),
    mde_row("catalogue", "four components at the level of one claim of eighteen", of_mde(4, 1e-3 / 18)),
    margin_row("one", "one Gaussian component", of_margin(1)),
    margin_row("five", "five Gaussian components", of_margin(5), 2),
    margin_row("one-sided", "one Gaussian component at its bound", of_margin(1, one_sided=True)),
    *[
        margin_row(f"networks/{n}/{'above' if side > 0 else 'below'}",
                   f"a ReLU layer, N = {n}, {samplers.relu_least(n)} networks, "
                   f"truth at the {'upper' if side > 0 else 'lower'} margin", of_skewed_margin(n, side), 5)
        for n in (16, 64) for side in (1, -1)
    ],
    *[row for n in (16, 64) for alpha in (1e-5, 1e-3) for row in size_rows(n, alpha)],
]  # fmt: skip
