"""What the law of an initialiser says of its matrices, statement by statement, with the deviations that matter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mcverify.initialisers import FAN_MODES, fan
from mcverify.judgement import Statement
from mcverify.samplers.draws import Draws, overlap_spread
from mcverify.samplers.sentence import fraction
from mcverify.statistics import laws
from mcverify.statistics.evidence import Evidence
from mcverify.statistics.unit_laws import UNIT_LAWS, shares_under, sphere_coordinate
from mcverify.weights import LAWS

FloatArray = NDArray[np.float64]

REFERENCE_ENTRIES = 1_000_000  # what the margins below are made for
LEAST_DRAWS = 16
HAAR_DRAWS = 512  # what the bins of a law test take, one entry of each matrix, and what the margins below need

# What matters, in the unit of its statement; each is met by about a million entries.
MEAN_MARGIN = 0.01
KURTOSIS_MARGIN = 0.1
_HAAR_BINS = np.full(20, 0.05)  # a matrix gives one coordinate: coarser bins, for a few hundred matrices
SHARE_MARGIN = 0.0025
SUM_MARGIN = 0.2
OVERLAP_MARGIN = 0.1
SUCCESSIVE_MARGIN = 0.02
HAAR_MARGIN = 0.35
CORNER_WITHOUT_SIGNS = -math.sqrt(2 / math.pi)  # E √m Q_11 = −E|g| where Q_11 is always negative

_ROUNDING = 1e-5  # of statistics, from weights in float32
_REACH = 7.6  # standard errors that a margin must span for a decision, for a few components (evidence.py)


@dataclass(frozen=True)
class Documented:
    """What an initialiser's documentation says: a law of weights.LAWS with variance sigma_w2 / fan."""

    name: str
    law: str
    sigma_w2: float
    fan_mode: str
    source: str


def enough(law: str, fan_out: int, fan_in: int, entries: int) -> int:
    """The number of matrices: `entries` in all, and so many that each margin spans the standard errors it needs."""
    size = fan_out * fan_in
    if law == "orthogonal":
        return max(HAAR_DRAWS, -(-entries // size))
    share = entries / REFERENCE_ENTRIES  # who asks for fewer gets fewer, and may stay undecided
    rows = max(overlap_spread(fan_out, fan_in, 1 / fan_in**2)[0], overlap_spread(fan_in, fan_out, 1 / fan_out**2)[0])
    pairs = 2 / min(fan_out, fan_in)  # the standard deviation of n mean r², less what is below 1/n
    needed = max((_REACH * rows / SUM_MARGIN) ** 2, (_REACH * pairs / OVERLAP_MARGIN) ** 2)
    return max(LEAST_DRAWS, -(-entries // size), math.ceil(min(1.0, share) * needed))


def other_fans(documented: Documented, fan_out: int, fan_in: int) -> list[tuple[str, float]]:
    """(mode, its variance over the documented one) for the modes that are other on this shape."""
    own = fan(documented.fan_mode, fan_in, fan_out)
    always = {"fan_max"} if documented.fan_mode in ("fan_in", "fan_out") else set()  # the one or the other anyway
    modes = [m for m in FAN_MODES if m != documented.fan_mode and m not in always]
    if documented.fan_mode == "fan_max":
        modes = [m for m in modes if fan(m, fan_in, fan_out) != own]
    return [(m, own / fan(m, fan_in, fan_out)) for m in modes]


def statements(documented: Documented, draws: Draws, margin: float, rng: np.random.Generator) -> list[Statement]:
    """Everything that the documented law says, in the order in which it is told. rng randomises atoms."""
    common = [_variance(documented, draws, margin), _mean(documented, draws), _successive(documented, draws)]
    if documented.law == "orthogonal":
        return [*common, _orthogonality(documented, draws), _haar(documented, draws)]
    shape = [_kurtosis(documented, draws), _distribution(documented, draws, rng)]
    return [*common, *shape, _independence(documented, draws)]


def _statement(
    documented: Documented, name: str, text: str, labels: Sequence[str], evidence: Evidence, margin_reason: str,
    rival_name: str = "", rival: Sequence[float] = (),
) -> Statement:  # fmt: skip
    return Statement(
        f"{documented.name}.{name}", text, documented.source, "law", labels, evidence, margin_reason, rival_name, rival
    )


def _evidence(
    draws: Draws, estimate: ArrayLike, se: ArrayLike, prediction: ArrayLike, margin: ArrayLike,
    lack_of_fit: float | None = None,
) -> Evidence:  # fmt: skip
    """Errors with what float32 rounds in them; no remainder: a law has none."""
    value, wanted = np.array(estimate, float), np.array(prediction, float)
    error = np.hypot(np.array(se, float), _ROUNDING * np.maximum(1.0, np.abs(value)))
    fits, lack = (0, 1.0) if lack_of_fit is None else (1, lack_of_fit)
    return Evidence(value, error, wanted, np.zeros_like(value), np.array(margin, float), draws.size, lack, fits=fits)


def _error(draws: Draws, entry_variance: float, by_draw: FloatArray) -> float:
    """The standard error of a mean over entries: as for independent entries, or as the matrices differ from one
    another where that is more. The first keeps the level for a right sampler; the second lets a statement on
    single entries stand where entries depend on one another."""
    with np.errstate(all="ignore"):
        return max(
            math.sqrt(max(0.0, entry_variance) / draws.size), float(by_draw.std(ddof=1)) / math.sqrt(len(by_draw))
        )


def _variance(documented: Documented, draws: Draws, margin: float) -> Statement:
    _, m2, m4, *_ = draws.moments.mean(axis=0)
    independent = m4 - m2**2 if documented.law != "orthogonal" else 0.0
    unit = documented.sigma_w2
    evidence = _evidence(
        draws, [unit * m2], [unit * _error(draws, independent, draws.moments[:, 1])], [unit], [margin * unit]
    )
    others = other_fans(documented, draws.fan_out, draws.fan_in)
    mode, ratio = min(others, key=lambda o: abs(math.log(o[1])), default=("", 1.0))
    reason = f"it is the factor by which each layer multiplies lengths: {margin:.1%} a layer"
    if mode:
        reason += f"; the variance by {mode} is {abs(ratio - 1):.0%} away"
    return _statement(
        documented, "variance", f"Var w = {fraction(unit, documented.fan_mode)}.", [f"Var w · {documented.fan_mode}"],
        evidence, reason, f"scaled by {mode}" if mode else "", [unit * ratio] if mode else [],
    )  # fmt: skip


def _mean(documented: Documented, draws: Draws) -> Statement:
    m1 = draws.moments[:, 0]
    m2 = draws.moments[:, 1].mean()
    evidence = _evidence(draws, [m1.mean()], [_error(draws, m2 - m1.mean() ** 2, m1)], [0.0], [MEAN_MARGIN])
    share = MEAN_MARGIN**2 * draws.fan_in
    reason = f"a mean of {MEAN_MARGIN:g} σ adds at most {share:.2%} to the mean square of h, for constant inputs"
    return _statement(
        documented, "mean", "E w = 0.", ["E w / σ"], evidence, reason, "the weights' absolute values",
        [math.sqrt(2 / math.pi)],
    )  # fmt: skip


def _kurtosis(documented: Documented, draws: Draws) -> Statement:
    """By the delta method: the influence of an entry is (z⁴ − m4)/m2² − 2κ (z² − m2)/m2."""
    _, m2, m4, m6, m8 = draws.moments.mean(axis=0)
    with np.errstate(all="ignore"):
        k = m4 / m2**2
        entry = (m8 - m4**2) / m2**4 - 4 * k * (m6 - m4 * m2) / m2**3 + 4 * k**2 * (m4 - m2**2) / m2**2
        by_draw = (draws.moments[:, 2] - m4) / m2**2 - 2 * k * (draws.moments[:, 1] - m2) / m2
    wanted = LAWS[documented.law].kurtosis
    evidence = _evidence(draws, [k], [_error(draws, entry, by_draw)], [wanted], [KURTOSIS_MARGIN])
    other = min((r for r in LAWS.values() if r.kurtosis != wanted), key=lambda r: abs(r.kurtosis - wanted))
    return _statement(
        documented, "kurtosis", f"E w⁴ = {wanted:.4g} (E w²)².", ["kurtosis"], evidence,
        "less than half the distance to any other law",
        f"{other.name} weights", [other.kurtosis],
    )  # fmt: skip


def _distribution(documented: Documented, draws: Draws, rng: np.random.Generator) -> Statement:
    law = UNIT_LAWS[documented.law]
    test = laws.law_test(laws.pit(draws.entries, law.cdf, law.below, rng))
    n = len(draws.entries)
    se = np.sqrt(laws.BINS * (1 - laws.BINS) / n)
    evidence = _evidence(draws, test.shares, se, laws.BINS, np.full(len(se), SHARE_MARGIN), lack_of_fit=test.p)
    name, rival = _nearest_law(documented.law)
    edges = np.concatenate([[0.0], np.cumsum(laws.BINS)])
    labels = [f"quantiles {a:.0%} to {b:.0%}" for a, b in pairwise(edges)]
    return _statement(
        documented, "distribution",
        f"w follows the {documented.law} law of its documented variance: quantile bins, Kolmogorov–Smirnov, "
        "variance of normal scores, χ².",
        labels, evidence,
        f"{SHARE_MARGIN:.2%} of all weights; {name} weights differ by more than twice that somewhere",
        f"{name} weights", rival.tolist(),
    )  # fmt: skip


@cache
def _nearest_law(name: str) -> tuple[str, FloatArray]:
    """The law whose shares (bin,) of this one's bins are least off, and those."""
    rivals = {r: shares_under(UNIT_LAWS[name], other) for r, other in UNIT_LAWS.items() if r != name}
    nearest = min(rivals, key=lambda r: float(np.abs(rivals[r] - laws.BINS).max()))
    return nearest, rivals[nearest]


def _independence(documented: Documented, draws: Draws) -> Statement:
    """Rows and columns together: dependent rows also change how columns overlap, as W Wᵀ and Wᵀ W have one norm."""
    estimate, se, labels = [], [], []
    for side, values, N, n in (
        ("rows", draws.rows, draws.fan_out, draws.fan_in),
        ("columns", draws.columns, draws.fan_in, draws.fan_out),
    ):
        spread = overlap_spread(N, n, float(values[:, 2].mean()))
        observed = values[:, :2].std(axis=0, ddof=1)
        estimate += values[:, :2].mean(axis=0).tolist()
        se += (np.maximum(spread, observed) / math.sqrt(len(values))).tolist()
        labels += [f"excess square norm of the sum of {side}", f"mean square overlap of {side}, in units of 1/length"]
    paired = [1.0, 1.0 + (draws.fan_in - 1) / (draws.fan_out - 1), 0.0, 2.0]
    return _statement(
        documented, "independence", "Rows are independent of one another, and so are columns.", labels,
        _evidence(draws, estimate, se, [0.0, 1.0] * 2, [SUM_MARGIN, OVERLAP_MARGIN] * 2),
        f"the variance of a mean over units changes by at most {SUM_MARGIN:.0%}, and the spread of lengths between "
        f"networks by at most {OVERLAP_MARGIN:.0%} in variance",
        "rows drawn in equal pairs", paired,
    )  # fmt: skip


def _successive(documented: Documented, draws: Draws) -> Statement:
    r = draws.successive
    size = draws.fan_out * draws.fan_in
    se = max(math.sqrt(1 / size), float(r.std(ddof=1))) / math.sqrt(len(r))
    evidence = _evidence(
        draws, [r.mean(), draws.repeated / draws.draws], [se, 0.0], [0.0, 0.0], [SUCCESSIVE_MARGIN, 0.5 / draws.draws]
    )
    return _statement(
        documented, "fresh", "Successive draws are independent.",
        ["correlation with the draw before", "share that equals an earlier draw"], evidence,
        f"{SUCCESSIVE_MARGIN:.0%} of correlation, half of one repeated draw: what makes samples fewer than they look",
        "a frozen seed", [1.0, 1.0 - 1.0 / draws.draws],
    )  # fmt: skip


def _orthogonality(documented: Documented, draws: Draws) -> Statement:
    longer = max(draws.fan_out, draws.fan_in)
    tolerance = 100 * 2.0**-23 * math.sqrt(longer)
    estimate = float(draws.gram_error.max())
    one = np.ones(1)
    evidence = Evidence(one * estimate, one * 1e-12, one * 0.0, one * 0.0, one * tolerance, draws.size, within=True)
    product = "W Wᵀ" if draws.fan_out <= draws.fan_in else "Wᵀ W"
    return _statement(
        documented, "orthogonality", f"{product} is a multiple of the identity, to rounding.",
        ["largest entry of the scaled product less the identity"], evidence,
        f"100 roundings of float32 along {longer} entries, which QR stays well within",
        "independent gaussian entries", [1.0 / math.sqrt(longer)],
    )  # fmt: skip


def _haar(documented: Documented, draws: Draws) -> Statement:
    """Entries at fixed places, one of each matrix, since those of one matrix depend on one another."""
    cdf = sphere_coordinate(max(draws.fan_out, draws.fan_in)).cdf
    tests = [laws.law_test(laws.pit(draws.haar[:, i], cdf), _HAAR_BINS) for i in range(3)]
    lack = min(1.0, len(tests) * min(t.p for t in tests))
    means, observed = draws.haar.mean(axis=0), draws.haar.std(axis=0, ddof=1)
    se = np.maximum(1.0, observed) / math.sqrt(draws.draws)
    k = len(means)
    evidence = _evidence(draws, means, se, [0.0] * k, [HAAR_MARGIN] * k, lack_of_fit=lack)
    return _statement(
        documented, "haar", "W is a multiple of a Haar matrix: it prefers no direction.",
        ["√m Q_11", "√m Q_kk", "√m uᵀQv", "√(m/k) tr Q"], evidence,
        f"less than half of what QR without its signs shows: √m Q_11 has mean {CORNER_WITHOUT_SIGNS:.2f} then",
        "QR with the signs of its factor left as they come", [CORNER_WITHOUT_SIGNS, 0.0, 0.0, CORNER_WITHOUT_SIGNS],
    )  # fmt: skip
