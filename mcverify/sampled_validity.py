"""The boundaries of theory/validity.py held against sampled networks: at the boundary, and at half and twice its
widths, where a prediction must fail and must hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from mcverify.claims.experiment import cost
from mcverify.errors import InputError
from mcverify.inputs import checked, default_inputs
from mcverify.network import Network, check_network, describe
from mcverify.simulation import observables
from mcverify.simulation.executor import Progress
from mcverify.simulation.simulate import Seed, choose_engine, sample, seed_of
from mcverify.simulation.trace import Plan, Trace
from mcverify.streams import stream_key
from mcverify.theory.validity import Boundary, Deviation, boundaries, deviations, hidden, widened
from mcverify.validate import between

FloatArray = NDArray[np.float64]
Agreement = Literal["confirmed", "holds", "fails", "undecided", "not sampled"]

_FACTORS = (0.5, 1.0, 2.0)  # of the boundary's widths
_PART = 0.08  # of the margin, that the standard error of a mean is planned to be
_TYPICAL = 600  # networks for a root mean square: 3% of it, where a factor of two in width makes 30% at least
_WORK = 4e8  # generated weights, or their like, at one point: a second or two on one core
_LEAST, _MOST = 300, 200_000  # networks
_FEWEST = 100  # of them that have a correlation
_SURE = float(-ndtri(1e-3))  # standard errors by which a point must lie on its side of the margin


@dataclass(frozen=True)
class Point:
    """Sampled networks near a boundary: factor of all hidden widths, the widths themselves, the deviation measured with
    its standard error and the one that the first order predicts, how many networks that is of, and how many more were
    dropped since they have no such value, as no correlation where a layer is dead. measured and se are NaN where fewer
    than 100 are left."""

    factor: float
    widths: tuple[int, ...]
    measured: float
    se: float
    predicted: float
    networks: int
    dropped: int


@dataclass(frozen=True)
class Row:
    """A boundary with the points sampled about it. agreement: "confirmed" where the prediction fails at half the widths
    and holds at twice them, by three standard errors; "holds" where only the latter is sure: the first order may
    ask for more than is needed; "fails" where it does not hold at twice them; "not sampled" where it holds at any
    width, or where networks of the boundary's widths would take too long."""

    boundary: Boundary
    points: tuple[Point, ...]
    agreement: Agreement
    reason: str


@dataclass(frozen=True)
class Validity:
    """From which widths on the limit holds, quantity by quantity, and what sampled networks say of it."""

    network: str
    margin: float
    seed: int
    rows: tuple[Row, ...]
    deviations: tuple[Deviation, ...] = field(repr=False)
    widths: tuple[int, ...] = ()
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        """0, or 1 where a prediction fails at twice its boundary's widths, or 3 where sampling left one undecided or
        was interrupted."""
        said = {row.agreement for row in self.rows}
        return 1 if "fails" in said else 3 if "undecided" in said or self.interrupted else 0

    @property
    def dropped(self) -> int:
        """How many of the sampled networks were dropped."""
        return sum(p.dropped for row in self.rows for p in row.points)

    @property
    def sampled(self) -> int:
        """How many networks were sampled, with those."""
        return self.dropped + sum(p.networks for row in self.rows for p in row.points)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        rows = [asdict(row) for row in self.rows]
        return {
            "network": self.network, "margin": self.margin, "seed": self.seed, "widths": list(self.widths),
            "exit_code": self.exit_code, "rows": rows, "sampled": self.sampled, "dropped": self.dropped,
            "interrupted": self.interrupted,
        }  # fmt: skip


def parse_margin(text: str | float) -> float:
    """ "5%" or 0.05. Raises InputError for what is not in [1e-6, 1]: the widths for less are beyond any first order."""
    value: Any = text
    if isinstance(text, str):
        number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
        try:
            value = float(number) / (100 if percent else 1)
        except ValueError:
            raise InputError("margin", text, "must be like 5% or 0.05") from None
    between("margin", value, 1e-6, 1.0)
    return float(value)


def validity(
    net: Network, x: ArrayLike | None = None, margin: float | str = 0.05, *, rng: Seed = 0, confirm: bool = True,
    backend: str = "auto", threads: int | None = None, progress: Progress | None = None,
) -> Validity:  # fmt: skip
    """The smallest widths, the layers and the depth at which the limit's lengths, correlations and gradient norms hold
    within `margin`: for the mean over networks, and for a typical network, whose root mean square deviation counts.

    margin: relative to the limit, for correlations absolute; a number or "5%". Without x the network gets two inputs of
    unit length and correlation ½. confirm: sample networks at the boundaries, at half and at twice their widths.
    To first order in 1/width. Raises InputError before any work starts, and Unpredictable where first-order corrections
    are not known (theory/corrections.py says for which networks they are)."""
    check_network(net)
    allowed, seed = parse_margin(margin), seed_of(rng)
    points = default_inputs(net.input_shape) if x is None else checked(x, net.input_shape)
    every = {d.quantity: d for d in deviations(net, points)}
    found = boundaries(net, points, allowed)
    plans = [_planned(net, points, b, every[b.quantity]) if confirm else [] for b in found]
    watch = _Watch(progress, sum(work for plan in plans for *_, work in plan))
    rows, interrupted = [], False
    for b, plan in zip(found, plans, strict=True):
        measured: list[Point] = []
        try:
            for factor, networks, work in () if interrupted else plan:
                key = stream_key(seed, f"validity/{b.quantity}/{b.kind}/{factor!r}")
                take = partial(_point, net, points, b, every[b.quantity], factor, networks, key, backend, threads)
                measured.append(take(watch.within(work, networks)))
        except KeyboardInterrupt:
            interrupted = True
        cut: tuple[Agreement, str] = ("not sampled", "interrupted")
        rows.append(Row(b, tuple(measured), *(cut if interrupted and plan else _agreement(b, measured, confirm))))
    return Validity(
        describe(net), allowed, seed, tuple(rows), tuple(every.values()), tuple(hidden(net)), interrupted=interrupted
    )  # fmt: skip


@dataclass
class _Watch:
    """Progress in units of work over all points."""

    progress: Progress | None
    total: float
    done: float = 0.0

    def within(self, work: float, networks: int) -> Progress:
        before = self.done
        self.done += work

        def tell(done: int, _: int) -> None:
            if self.progress is not None:
                self.progress(int(before + work * done / networks), int(self.total))

        return tell


def _planned(net: Network, x: FloatArray, b: Boundary, d: Deviation) -> list[tuple[float, int, float]]:
    """(factor, networks, work) of every point; none where they would take too long, or where there is no boundary."""
    if not b.factor > 0:
        return []
    out, widths = [], set()
    for times in _FACTORS:
        factor = b.factor * times
        other = widened(net, factor)
        if tuple(hidden(other)) in widths:
            continue
        widths.add(tuple(hidden(other)))
        networks = _TYPICAL
        if b.kind == "mean":
            variance = float(d.variance[b.layer - d.first, b.item]) / factor
            networks = int(np.clip(variance / (_PART * b.margin) ** 2, _LEAST, _MOST))
        each = cost(other, len(x), "auto")
        networks = min(networks, int(_WORK / each))
        if networks < _LEAST:
            return []
        out.append((factor, networks, networks * each))
    return out


def _point(
    net: Network, x: FloatArray, b: Boundary, d: Deviation, factor: float, networks: int, key: int, backend: str,
    threads: int | None, progress: Progress,
) -> Point:  # fmt: skip
    """Sample networks at a factor, and read the boundary's component."""
    other = widened(net, factor)
    engine, _ = choose_engine("auto", backend, "float32", other, len(x))
    at = b.layer - d.first, b.item
    measure = partial(_MEASURES[b.quantity], layer=at[0], item=at[1])
    plan = Plan(other, x, engine, key)
    _, kept = sample(plan, {"y": measure}, 0, networks, threads, progress, keep=True)
    y = np.concatenate(kept["y"])
    if len(y) < networks:  # Ctrl-C ends a sample where it stands
        raise KeyboardInterrupt
    y = y[np.isfinite(y)]  # a dead network has no correlation
    limit = d.limit[at]
    value, se = _deviation(y - limit if b.quantity == "correlation" else y / limit - 1, b.kind)
    # At widths rounded up, which a factor does not quite tell.
    rounded = next(v for v in deviations(other, x) if v.quantity == b.quantity)
    predicted = float(rounded.size(b.kind)[at])
    return Point(factor, tuple(hidden(other)), value, se, predicted, len(y), networks - len(y))


def _deviation(away: FloatArray, kind: str) -> tuple[float, float]:
    """(value, se) of the mean's size, or the root mean square, of what single networks deviate by; NaN of too few."""
    if len(away) < _FEWEST:
        return math.nan, math.nan
    if kind == "mean":
        return abs(float(away.mean())), float(away.std() / math.sqrt(len(away)))
    square = away**2
    value = math.sqrt(float(square.mean()))
    return value, float(square.std() / math.sqrt(len(away))) / (2 * value) if value > 0 else 0.0


def _length(trace: Trace, layer: int, item: int) -> FloatArray:
    """Ĝ^l_aa, (replicate,); layer counts from 2."""
    return observables.metric_lengths(trace)[:, layer + 1, item]


def _correlation(trace: Trace, layer: int, item: int) -> FloatArray:
    """The correlation of Ĝ^l, (replicate,)."""
    g = observables.metric(trace)[:, layer + 1]
    a, b = (int(v[item]) for v in np.triu_indices(len(trace.plan.x), 1))
    return np.asarray(g[:, a, b] / np.sqrt(g[:, a, a] * g[:, b, b]))


def _gradient(trace: Trace, layer: int, item: int) -> FloatArray:
    """‖δ^l‖² for a cotangent of unit norm, (replicate,)."""
    g = observables.grad_gram(trace)[:, :, item, item]
    return np.asarray(g[:, layer] / g[:, -1])


_MEASURES: dict[str, Callable[..., FloatArray]] = {
    "length": _length,
    "correlation": _correlation,
    "gradient norm": _gradient,
}


def _errors(gap: float, se: float) -> float:
    """A gap in standard errors; of networks that are all alike, there is none."""
    return gap / se if se > 0 else math.copysign(math.inf, gap)


def _agreement(b: Boundary, points: list[Point], confirm: bool) -> tuple[Agreement, str]:
    """What the points say of the boundary."""
    if math.isnan(b.factor):
        return "not sampled", "not known: a correlation that does not exist, or is ±1 where φ has kinks"
    if b.factor == 0:
        return "not sampled", "holds at every width"
    if not points:
        return "not sampled", f"networks of width {max(b.widths):,} would take too long" if confirm else "not asked for"
    known = [p for p in points if math.isfinite(p.measured)]
    below = [p for p in known if p.factor < b.factor]
    above = [p for p in known if p.factor > b.factor]
    if not below or not above:
        return "not sampled", "the boundary lies at the smallest widths that there are, or where most networks are dead"
    fails = min(_errors(p.measured - b.margin, p.se) for p in below)
    holds = min(_errors(b.margin - p.measured, p.se) for p in above)
    if holds < -_SURE:
        return "fails", "fails at twice these widths still, which are too narrow for the first order"
    if fails > _SURE and holds > _SURE:
        return "confirmed", "fails at half these widths and holds at twice them"
    if holds > _SURE:
        half = "at half of them already" if fails < -_SURE else "at half of them comes too near the margin to say"
        return "holds", f"holds at twice these widths, and {half}"
    return "undecided", "networks at twice these widths are too near the margin"
