"""Samples that anyone measured, against a prediction: per-layer gains, reference layers and correlations.

Lengths and gradient norms are products over depth, heavy-tailed, and never averaged deep down. What is averaged is
a layer's own factor, the logarithm of its ratio to the layer before, and a ratio to the prediction at the one layer
where there is no layer before: the first for signals, the last for gradients.

The prediction is the limit of infinite width, and what networks of finite width add to it is of order 1/width and not
known for every quantity. So a statement is "within the margin": only what exceeds the margin refutes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri
from scipy.stats import t as student

from mcverify import inputs, results
from mcverify import samples as sampled
from mcverify.batches import check_batches
from mcverify.claims.plan import DEAD_SHARE
from mcverify.correlation import correlation
from mcverify.errors import InputError
from mcverify.judgement import Statement, judge
from mcverify.levels import ALPHA
from mcverify.network import Network
from mcverify.network_file import DEFAULT_MARGIN
from mcverify.samples import Samples
from mcverify.statistics.evidence import CONFIRM_LEVEL, Evidence
from mcverify.theory.predict import predict
from mcverify.validate import between
from mcverify.verdict import Report, Result

if TYPE_CHECKING:
    import xarray as xr

FloatArray = NDArray[np.float64]

LEAST = 256
"""Replicates below which nothing is decided. A mean's tail at z is off by exp(|γ| z³/3√N), γ the skewness of one
replicate; at the level of a single component in the call it must be off by less than a factor of two."""
_TAIL_FACTOR = 2.0
_CONSTANT = 1e-12  # a spread below this is rounding: nothing was drawn
_REFERENCE_SE = 1e-6  # of a reference value that is not random: the rounding of float32

_MEANS = {
    "q": "mean square of the pre-activations", "metric": "metric", "gram": "mean square of the pre-activations",
    "length": "length", "grad_norm2": "gradient norm", "grad_gram": "gradient norm",
}  # fmt: skip
_TOPICS = {
    "q": "pre-activations", "metric": "metrics", "c": "correlations", "gram": "pre-activations", "length": "lengths",
    "grad_norm2": "gradient norms", "grad_gram": "gradients",
}  # fmt: skip
_CORRELATED = {
    "q": "pre-activations", "metric": "the metric", "c": "pre-activations", "gram": "pre-activations",
    "grad_gram": "gradients",
}  # fmt: skip


@dataclass(frozen=True)
class Series:
    """One statement's data: each replicate's value of k components, (replicate, k), and what is predicted, (k,).

    kind: "reference" (ratios to `unit`, what is predicted at the reference layer), "gain" (logarithms of ratios of
    neighbours) or "correlation". fixed: components that may be the same in all networks, as a given input is.
    left_out: networks without a logarithm, since a layer of theirs is zero."""

    variable: str
    kind: str
    labels: list[str]
    values: FloatArray
    predicted: FloatArray
    fixed: NDArray[np.bool_]
    unit: FloatArray
    left_out: int = 0

    @property
    def name(self) -> str:
        """VARIABLE.KIND, as the result is called."""
        return f"{self.variable}.{self.kind}"

    @property
    def spread(self) -> FloatArray:
        """The standard deviation of one replicate, (k,); NaN below two."""
        if len(self.values) < 2:
            return np.full(len(self.labels), np.nan)
        with np.errstate(all="ignore"):
            return np.asarray(self.values.std(axis=0, ddof=1))

    @property
    def still(self) -> NDArray[np.bool_]:
        """Components that were not drawn: the same in all networks but for rounding."""
        return np.asarray(self.spread <= np.where(self.fixed, _REFERENCE_SE, _CONSTANT))


def check(
    prediction: xr.Dataset | Network,
    samples: Any,
    x: ArrayLike | None = None,
    *,
    margin: float = DEFAULT_MARGIN,
    alpha: float = ALPHA,
    cotangent: str | ArrayLike = "independent",
) -> Report:
    """Verdicts on networks measured by anyone: a PyTorch hook, another simulator, a file.

    prediction: the Dataset of `predict(net, x)`, or the Network itself with its inputs x (input, n_0) and, for
    gradients, the cotangent as in `predict`. samples: a mapping or xarray.Dataset of variable → (replicate, layer,
    input[, input]), or the path of a netCDF file stored by mcverify or of an .npz file; replicates are networks
    drawn independently, as many as were planned beforehand. mcverify.samples says what each variable means: q,
    metric, c, length, grad_norm2, grad_gram, one or more of them. margin: in per-layer gain, and absolute in
    correlations. alpha: the chance that the call refutes anything that holds within the margin (Holm).

    Statements, one result each: VARIABLE.reference (a ratio to the prediction at the first layer, for gradients the
    last), VARIABLE.gain (logarithms of the gain from layer to layer) and VARIABLE.correlation, with a component for
    every layer and input or pair. `report.sentence` names the first layer that departs. A statement on fewer than
    256 networks, or fewer than their skewness asks for, is undecided, and so is one on values that are not finite
    or do not vary.
    Raises InputError for what cannot be read or does not fit the prediction, Unpredictable as `predict` does.
    """
    between("margin", margin, 0.0, 1.0, open_low=True)
    between("alpha", alpha, 0.0, 1.0, open_low=True)
    expected = _prediction(prediction, x, cotangent)
    given = sampled.read(samples, expected)
    if isinstance(prediction, Network) and x is not None and any(name.startswith("grad") for name in given.values):
        check_batches(prediction, inputs.checked(x, prediction.input_shape), errors=True)
    series = _all(expected, given)
    network = str(expected.attrs.get("network", ""))
    statements = [_statement(s, margin, alpha) for s in series]
    judged = judge(statements, alpha, network)
    level = min(alpha, CONFIRM_LEVEL) / len(series)
    done = [_told(s, r, level) for s, r in zip(series, judged, strict=True)]
    facts = results.provenance(
        kind="check", network=network, margin=margin, alpha=alpha, samples=given.replicates,
        not_checked=", ".join(given.left_out),
    )  # fmt: skip
    return Report(done, alpha, 0, facts, sentence=sentence(done, margin))


def followed(
    prediction: xr.Dataset | Network, samples: Any, x: ArrayLike | None = None, *,
    cotangent: str | ArrayLike = "independent",
) -> dict[str, Series]:  # fmt: skip
    """What `check` tests with these arguments: each result's name, and every network's values behind it."""
    expected = _prediction(prediction, x, cotangent)
    return {s.name: s for s in _all(expected, sampled.read(samples, expected))}


def _all(prediction: xr.Dataset, given: Samples) -> list[Series]:
    pairs = ((name, v, sampled.predicted(prediction, name)) for name, v in given.values.items())
    return [s for pair in pairs for s in _of_variable(*pair)]


def _prediction(prediction: Any, x: ArrayLike | None, cotangent: str | ArrayLike) -> xr.Dataset:
    import xarray as xr

    if isinstance(prediction, Network):
        if x is None:
            raise InputError("x", None, "is needed beside a network: the inputs that were sampled")
        return predict(prediction, x, cotangent=cotangent)
    if not isinstance(prediction, xr.Dataset):
        raise InputError("prediction", type(prediction).__name__, "must be what predict(net, x) returns, or a Network")
    if x is not None:
        raise InputError("x", "an array", "goes with a network; this prediction was made for its own inputs")
    if prediction.attrs.get("kind") == "simulation" or "replicate" in prediction.dims:
        raise InputError(
            "prediction", "a simulation", "must be what predict(net, x) returns: it has no error of its own"
        )
    return prediction


def _of_variable(name: str, values: FloatArray, predicted: FloatArray) -> list[Series]:
    """The statements on one variable. Layers are listed from the reference layer on.

    Raises InputError where there are none: one input has no correlations."""
    layers = np.arange(1, len(predicted) + 1)
    gradient, square = name.startswith("grad"), predicted.ndim == 3
    if gradient:
        values, predicted, layers = values[:, ::-1], predicted[::-1], layers[::-1]
    own = np.diagonal(values, axis1=-2, axis2=-1) if square else values
    alive = ~(own == 0).any(axis=(1, 2))
    dead, inputs = int((~alive).sum()), own.shape[2]
    # The metric of given inputs and the norm of a given cotangent are the same in every network.
    may_be_fixed = gradient or name == "metric"
    out: list[Series] = []
    with np.errstate(all="ignore"):
        if name != "c":
            theirs = np.diagonal(predicted, axis1=-2, axis2=-1) if square else predicted
            labels = [[f"layer {l}, input {a + 1}" for a in range(inputs)] for l in layers]
            ones = np.ones_like(theirs[:1])
            out.append(_flat(name, "reference", labels[:1], own[:, :1] / theirs[0], ones, may_be_fixed, theirs[0], 0))
            if len(layers) > 1:
                gains, expected = np.log(own[alive, 1:] / own[alive, :-1]), np.log(theirs[1:] / theirs[:-1])
                out.append(_flat(name, "gain", labels[1:], gains, expected, False, ones, dead))
        if square and inputs > 1:
            a, b = np.triu_indices(inputs, 1)
            pairs = [[f"layer {l}, inputs {i + 1} and {j + 1}" for i, j in zip(a, b, strict=True)] for l in layers]
            c, expected = correlation(values[alive])[..., a, b], correlation(predicted)[..., a, b]
            out.append(_flat(name, "correlation", pairs, c, expected, may_be_fixed, expected[:1], dead))
    if not out:
        raise InputError(f"samples.{name}", f"{inputs} input", "says nothing: a correlation takes two inputs")
    return out


def _flat(
    name: str, kind: str, labels: list[list[str]], values: FloatArray, predicted: FloatArray, may_be_fixed: bool,
    unit: FloatArray, left_out: int,
) -> Series:  # fmt: skip
    """All layers as components; only those of the reference layer, the first listed, may be fixed."""
    flat = [label for layer in labels for label in layer]
    fixed = np.zeros(len(flat), bool)
    fixed[: len(labels[0])] = may_be_fixed
    return Series(name, kind, flat, values.reshape(len(values), -1), predicted.reshape(-1), fixed, unit, left_out)


def _statement(s: Series, margin: float, alpha: float) -> Statement:
    n, k = len(s.values), len(s.labels)
    # Student's quantile over the normal's, far in the tail: exact for Gaussian replicates.
    level = min(CONFIRM_LEVEL, alpha) / (2 * k)
    widening = float(student.isf(level, max(n - 1, 1)) / -ndtri(level))
    se = np.where(s.still, np.where(s.fixed, _REFERENCE_SE, np.nan), widening * s.spread / np.sqrt(max(n, 1)))
    estimate = s.values.mean(axis=0) if n else np.full(k, np.nan)
    evidence = Evidence(
        estimate=estimate, se=se, prediction=s.predicted, remainder=np.zeros(k), margin=np.full(k, margin), samples=n,
        within=True,
    )  # fmt: skip
    return Statement(
        name=s.name, statement=_words(s),
        source="the mean-field recursion (Poole et al. 2016; Schoenholz et al. 2017)", mark="limit",
        labels=s.labels, evidence=evidence, margin_reason="the per-layer gain asked for",
        nonfinite=int((~np.isfinite(s.values)).any(axis=1).sum()),
    )  # fmt: skip


def _words(s: Series) -> str:
    if s.kind == "correlation":
        return f"The correlation of {_CORRELATED[s.variable]} between inputs is within the margin of the limit's."
    if s.kind == "reference":
        where = "last" if s.variable.startswith("grad") else "first"
        return f"At the {where} layer the {_MEANS[s.variable]} is within the margin of the limit's."
    return f"The gain of the {_MEANS[s.variable]} from layer to layer is within the margin of the limit's."


def _told(s: Series, r: Result, level: float) -> Result:
    """The result, undecided where nothing can be said, and with the layer and the finite width in its message."""
    left_out = f"; {s.left_out} networks had a dead layer and are left out" if s.left_out else ""
    open_because = _undecidable(s, level)
    if open_because:
        return replace(r, verdict="undecided", message=open_because + left_out)
    if r.verdict != "refuted":
        return replace(r, message=r.message + left_out)
    at = _first(r)
    return replace(r, message=f"{_departure(s, r, at)}{_finite_width(s, r, at)}{left_out}")


def _undecidable(s: Series, level: float) -> str:
    """Why no verdict is possible at this level of a statement, or nothing."""
    n, dead = len(s.values), s.left_out / (len(s.values) + s.left_out)
    bad = np.flatnonzero(~np.isfinite(s.predicted))
    if len(bad):
        return f"{s.labels[bad[0]]}: theory gives zero, so there is nothing to be in proportion to"
    if not np.isfinite(s.values).all():
        rows = int((~np.isfinite(s.values)).any(axis=1).sum())
        return f"{rows} networks have values that are not finite, so no mean exists"
    if dead > DEAD_SHARE:
        return f"{dead:.0%} of the networks have a dead layer: the others are not typical"
    if n < LEAST:
        return f"a mean of {n} networks is not taken as Gaussian: {LEAST} are needed"
    constant = np.flatnonzero(s.still & ~s.fixed)
    if len(constant):
        return f"{s.labels[constant[0]]}: the same value in all networks, so nothing was sampled that could be tested"
    needed = _needed(s, level)
    if n < needed:
        return f"single networks are too skewed for a mean of {n:,} to be taken as Gaussian: {needed:,} are needed"
    return ""


def _needed(s: Series, level: float) -> int:
    """The replicates at which the mean's tails are Gaussian to a factor of two, at a component's share of the level,
    two-sided (see LEAST)."""
    drawn = s.values[:, ~s.still]
    z = (drawn - drawn.mean(axis=0)) / drawn.std(axis=0)
    skewness = float(np.abs((z**3).mean(axis=0)).max(initial=0.0))
    reach = -float(ndtri(level / (2 * max(1, drawn.shape[1]))))
    return max(LEAST, int(np.ceil((skewness * reach**3 / (3 * np.log(_TAIL_FACTOR))) ** 2)))


def _layer(label: str) -> int:
    return int(label.split()[1].rstrip(","))


def _beyond(r: Result) -> list[int]:
    """The components that lie beyond the margin by three standard errors; the worst where there is none."""
    rows = enumerate(zip(r.estimate, r.prediction, r.margin, r.se, strict=True))
    return [i for i, (e, p, m, se) in rows if abs(e - p) - m > 3 * se] or [r.worst or 0]


def _first(r: Result) -> int:
    """The component at the lowest layer beyond the margin."""
    return min(_beyond(r), key=lambda i: _layer(r.labels[i]))


def _departure(s: Series, r: Result, at: int) -> str:
    """`Layer 2, input 1: the gain of the length is 0.1667, predicted 1: -83%`."""
    label, e, p = r.labels[at], r.estimate[at], r.prediction[at]
    where = label[0].upper() + label[1:]
    if s.kind == "correlation":
        return f"{where}: the correlation of {_CORRELATED[s.variable]} is {e:.4f}, predicted {p:.4f}"
    if s.kind == "reference":
        unit = s.unit[at]
        return f"{where}: the {_MEANS[s.variable]} is {e * unit:.4g}, predicted {unit:.4g}: {_percent(e - 1)}"
    gain, expected = np.exp(e), np.exp(p)
    error = _percent(float(np.expm1(e - p)))
    return f"{where}: the gain of the {_MEANS[s.variable]} is {gain:.4g}, predicted {expected:.4g}: {error}"


def _percent(error: float) -> str:
    return f"{error:+.0%}" if abs(error) >= 0.1 else f"{error:+.2%}"


def _finite_width(s: Series, r: Result, at: int) -> str:
    """Whether the deviation could be what a finite width does.

    Networks differ only because they are finite, so their spread measures the effect: a mean logarithm lies below
    the logarithm of the mean by half its variance, and a mean correlation off by half of Var c/(1 − c²), to first
    order in 1/width; the mean itself may move as much. Twice that is taken as possible. A reference value is
    exact or nearly so at any width: nothing is said of it."""
    variance = float(s.spread[at] ** 2)
    deviation = abs(r.estimate[at] - r.prediction[at])
    if s.kind == "reference":
        return ""
    if s.kind == "gain":
        size, told = variance / 2, f"{variance / 2:.2%}"
    else:
        size = variance / (2 * max(1 - r.prediction[at] ** 2, 1e-12))
        told = f"{size:.4f}"
    could = "could be no more than" if deviation <= 2 * size else "is too large for"
    return f"; this {could} the finite width, whose effect is of the order of {told} here"


def sentence(done: Sequence[Result], margin: float) -> str:
    """One sentence: the first layer to depart from the prediction, if any, and what is not decided."""
    topics = {r.name: f"{_TOPICS[r.name.split('.')[0]]} ({r.name.split('.')[1]})" for r in done}
    undecided = [r for r in done if r.verdict == "undecided"]
    rest = f" Undecided: {'; '.join(f'{topics[r.name]}, {r.message}' for r in undecided[:1])}" if undecided else ""
    if len(undecided) > 1:
        rest += f"; and {len(undecided) - 1} more"
    rest += "." if rest else ""
    refuted = [r for r in done if r.verdict == "refuted"]
    if refuted:
        first = min(refuted, key=lambda r: _layer(r.labels[_first(r)]))
        others = sorted({_layer(r.labels[i]) for r in refuted for i in _beyond(r)})
        others.remove(_layer(first.labels[_first(first)]))
        more = f"; so do{'es' * (len(others) == 1)} layer{'s' * (len(others) > 1)} " if others else ""
        more += ", ".join(map(str, others))
        return f"{first.message}{more}.{rest}"
    if len(undecided) == len(done):
        return f"Nothing was decided.{rest}"
    told = ", ".join(dict.fromkeys(topics[r.name].partition(" (")[0] for r in done if r.verdict == "confirmed"))
    return f"No layer departs from the prediction by more than {margin:.2%} in {told}.{rest}"
