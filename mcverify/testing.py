"""Assertions for tests, and how many networks they take. Needs no pytest; mcverify.pytest_plugin adds a fixture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import kurtosis, skew

from mcverify.checking import check, followed
from mcverify.levels import ALPHA
from mcverify.network import Network
from mcverify.network_file import DEFAULT_MARGIN
from mcverify.samplers.check import check_sampler
from mcverify.simulation.simulate import Seed
from mcverify.statistics.evidence import Evidence, mde
from mcverify.validate import between, count, positive
from mcverify.verdict import Report, Result
from mcverify.verification import verify

if TYPE_CHECKING:
    import xarray as xr

FloatArray = NDArray[np.float64]
Watch = Callable[[Report], None]

_DETAILED = 3  # results that a failure tells in full
_BINS, _BAR = 12, 40


def assert_confirmed(report: Report, values: Mapping[str, tuple[list[str], FloatArray]] | None = None) -> None:
    """Raise AssertionError unless every verdict is the expected one; undecided is no pass, nor is an empty report.

    values: result name → (labels, (replicate, component)), where every network's values are at hand."""
    __tracebackhide__ = True
    if report.exit_code != 0 or not report.results:
        raise AssertionError(explain(report, values))


def assert_network(
    net: Network, x: ArrayLike, *, margin: float | None = None, rng: Seed = 0, alpha: float = ALPHA,
    watch: Watch | None = None, **options: Any,
) -> Report:  # fmt: skip
    """Sample the network and raise AssertionError unless theory holds within the margin: `verify`, asserted.

    watch is called with the report before it is judged; options are those of `verify`."""
    __tracebackhide__ = True
    report = verify(net, x, margin=margin, rng=rng, alpha=alpha, **options)
    return _asserted(report, watch, None)


def assert_samples(
    prediction: xr.Dataset | Network, samples: Any, x: ArrayLike | None = None, *, margin: float = DEFAULT_MARGIN,
    alpha: float = ALPHA, cotangent: str | ArrayLike = "independent", watch: Watch | None = None,
) -> Report:  # fmt: skip
    """Raise AssertionError unless samples agree with the prediction within the margin: `check`, asserted."""
    __tracebackhide__ = True
    report = check(prediction, samples, x, margin=margin, alpha=alpha, cotangent=cotangent)
    values = None
    if report.exit_code != 0:
        series = followed(prediction, samples, x, cotangent=cotangent)
        values = {name: (s.labels, s.values) for name, s in series.items()}
    return _asserted(report, watch, values)


def assert_sampler(
    draw: Any, law: Any, *, rng: Seed = 0, alpha: float = ALPHA, watch: Watch | None = None, **options: Any
) -> Report:
    """Raise AssertionError unless a sampler has its documented law: `check_sampler`, asserted."""
    __tracebackhide__ = True
    return _asserted(check_sampler(draw, law, rng=rng, alpha=alpha, **options), watch, None)


def _asserted(report: Report, watch: Watch | None, values: Mapping[str, tuple[list[str], FloatArray]] | None) -> Report:
    __tracebackhide__ = True
    if watch is not None:
        watch(report)
    assert_confirmed(report, values)
    return report


def explain(report: Report, values: Mapping[str, tuple[list[str], FloatArray]] | None = None) -> str:
    """Why a report is no pass: each result with prediction, measurement, interval and, where every network's values
    are at hand, their four moments and a histogram."""
    wrong = [r for r in report.results if not r.as_expected]
    lines = [report.sentence or f"{len(wrong)} of {len(report.results)} verdicts are not as expected."]
    if not report.results:
        lines = ["Nothing was checked."]
    for r in wrong[:_DETAILED]:
        lines += ["", *_detail(r, (values or {}).get(r.name))]
    lines += [f"{r.name}: {r.verdict}: {r.message}" for r in wrong[_DETAILED:]]
    return "\n".join(lines)


def _detail(r: Result, values: tuple[list[str], FloatArray] | None) -> list[str]:
    lines = [f"{r.name}: {r.verdict}: {r.message}", f"  {r.statement}"]
    i = r.worst
    if i is None:
        return lines
    low, high = r.interval[i]
    lines += [
        f"  {r.labels[i]}",
        f"    prediction  {round(r.prediction[i], 12):.6g}, margin {r.margin[i]:.3g}",
        f"    measured    {r.estimate[i]:.6g} ± {r.se[i]:.2g}, 99.9% interval [{low:.6g}, {high:.6g}]",
        f"    networks    {sum(r.samples.values()):,}, which show a deviation of {r.mde[i]:.3g} with power 99%",
    ]
    if values is not None and r.labels[i] in values[0]:
        one = values[1][:, values[0].index(r.labels[i])]
        lines += _moments(one[np.isfinite(one)]) + _histogram(one[np.isfinite(one)], r.prediction[i])
    return lines


def _moments(v: FloatArray) -> list[str]:
    if len(v) < 2 or v.std() == 0:
        return []
    told = (
        f"mean {v.mean():.4g}, variance {v.var(ddof=1):.4g}, skewness {skew(v):.3g}, excess kurtosis {kurtosis(v):.3g}"
    )
    return [f"    one network {told}"]


def _histogram(v: FloatArray, prediction: float) -> list[str]:
    """A bar for each twelfth of the range, and a mark at the one that holds the prediction."""
    if len(v) < 2 or v.min() == v.max():
        return []
    counts, edges = np.histogram(v, _BINS)
    bars = np.ceil(_BAR * counts / counts.max()).astype(int)
    out = []
    for low, high, number, bar in zip(edges[:-1], edges[1:], counts, bars, strict=True):
        mark = "  ← prediction" if low <= prediction < high else ""
        out.append(f"    {low:>10.4g} | {'█' * bar} {number}{mark}")
    return out


def mde_of_mean(
    sd: float, samples: int, *, tests: int = 1, alpha: float = ALPHA, power: float = 0.99, margin: float = 0.0
) -> float:
    """The smallest deviation of a mean that `samples` replicates of standard deviation sd refute with this power, at
    level alpha over so many tests; beyond `margin`, where that much is tolerated."""
    _planned(sd, tests, alpha, power)
    count("samples", samples, least=2)
    one = np.ones(1)
    e = Evidence(one, one * sd / np.sqrt(samples), one, 0 * one, one * margin, samples, within=margin > 0)
    return float(mde(e, alpha / tests, power)[0])


def samples_for_mean(sd: float, deviation: float, *, tests: int = 1, alpha: float = ALPHA, power: float = 0.99) -> int:
    """How many replicates of standard deviation sd refute a deviation of their mean with this power: the inverse of
    `mde_of_mean`."""
    positive("deviation", deviation)
    _planned(sd, tests, alpha, power)
    at_two = mde_of_mean(sd, 2, tests=tests, alpha=alpha, power=power)
    return max(2, int(np.ceil(2 * (at_two / deviation) ** 2)))


def _planned(sd: float, tests: int, alpha: float, power: float) -> None:
    positive("sd", sd)
    count("tests", tests)
    between("alpha", alpha, 0.0, 1.0, open_low=True)
    between("power", power, 0.0, 0.999999, open_low=True)


def mde_of_report(report: Report) -> dict[str, float]:
    """For each result the deviation that it would have refuted with power 0.99, in its least sensitive component."""
    return {r.name: max(r.mde, default=float("nan")) for r in report.results}


def samples_for_report(report: Report) -> dict[str, int]:
    """For each result how many networks decide it, by what was measured; −1 where no number does."""
    return {r.name: r.samples_for_margin for r in report.results}
