"""Samples measured by anyone: every replicate's lengths, Gram matrices and gradient norms, read and checked.

What each variable means, for one sampled network (a replicate), its layers l = 1 … L (every dense map with the
activation behind it) and its inputs a, b:

- length     (replicate, layer, input)         (1/n_l) Σ_i (x^l_ia)², of the activations: what φ gives, or h^L if none
- q          (replicate, layer, input, input)  (1/n_l) Σ_i h^l_ia h^l_ib, of the pre-activations
- metric     (replicate, layer, input, input)  σ_b² + (σ_w²/n_{l−1}) Σ_i x^{l−1}_ia x^{l−1}_ib; not random at layer 1
- c          (replicate, layer, input, input)  q_ab/√(q_aa q_bb), of the same network's q
- gram       (replicate, layer, input, input)  of networks with positions, the mean of q_ab over equal ones
- grad_norm2 (replicate, layer, input)         Σ_i (∂E/∂h^l_ia)², a sum over units
- grad_gram  (replicate, layer, input, input)  Σ_i ∂E/∂h^l_ia ∂E/∂h^l_ib

E = Σ_a v_a · h^L_a with v_a independent of the weights and E‖v_a‖² = 1: entries N(0, 1/n_L), drawn anew for each
input (cotangent "independent") or once for all ("shared"), or an array of one's own. In PyTorch: `h.backward(v)`.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mcverify import results
from mcverify.errors import InputError, nearest

if TYPE_CHECKING:
    import xarray as xr

FloatArray = NDArray[np.float64]

VARIABLES = ("q", "metric", "c", "gram", "length", "grad_norm2", "grad_gram")  # the signal's first, then the gradient's
PREDICTED_BY = {"metric": "q"}  # the metric is the mean of q given the layer below, so both have one prediction
_OTHERS = ("chi", "tangent_gram")  # what a stored simulation also holds; nothing is said of it
_BETWEEN_POSITIONS = ("q", "metric", "c", "q_local", "c_local")  # of networks with positions; gram is their mean
_DISTINCT = 0.9  # copies of networks inflate the sample: at this share a standard error is 5% too small
# What NumPy raises for a file that is cut, foreign or pickled.
_DAMAGED = OSError, ValueError, EOFError, KeyError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error
_ROUNDING = 1e-3  # of a Gram matrix in half precision or better: what symmetry and |c| ≤ 1 are held to


@dataclass(frozen=True)
class Samples:
    """Every replicate of each variable, (replicate, layer, input[, input]) in float64, and what is told of them."""

    values: dict[str, FloatArray]
    replicates: int
    left_out: tuple[str, ...] = ()
    facts: Mapping[str, Any] | None = None


def read(samples: Any, prediction: xr.Dataset) -> Samples:
    """Samples from a mapping or Dataset of variables, or the path of a netCDF or .npz file, fit for a prediction.

    Raises InputError, one line, for a file that cannot be read, an unknown name, a variable that the prediction
    lacks, a shape other than the prediction's with one leading axis, numbers of replicates that differ or are
    below two, values that no network can give, replicates that are copies, and a cotangent other than predicted.
    Values that are not finite are let through: they are counted by whoever judges."""
    given, facts = _opened(samples)
    stored = facts.get("kind") == "simulation"
    others = (*_OTHERS, *(_BETWEEN_POSITIONS if "gram" in prediction else ()))
    names = [name for name in given if not (stored and name in others)]
    for name in names:
        if name in others and name not in _OTHERS:
            raise InputError(f"samples.{name}", "between positions", "give gram instead, the mean over equal ones")
        if name not in VARIABLES:
            raise InputError("samples", name, f"unknown variable; allowed: {', '.join(VARIABLES)}{_near(name)}")
        if PREDICTED_BY.get(name, name) not in prediction:
            held = " ".join(str(v) for v in prediction if not str(v).endswith("_mark"))
            raise InputError("prediction", held, f"has no {name}, which was sampled")
    if not names:
        raise InputError("samples", list(given), f"must hold at least one of {', '.join(VARIABLES)}")
    told = facts.get("cotangent"), prediction.attrs.get("cotangent")
    if None not in told and told[0] != told[1] and any(name.startswith("grad") for name in names):
        raise InputError("samples.cotangent", told[0], f"the prediction is for cotangent {told[1]!r}")
    values = {name: _array(name, given[name], prediction) for name in VARIABLES if name in names}
    counts = {name: len(v) for name, v in values.items()}
    if len(set(counts.values())) > 1:
        raise InputError("samples", counts, "must have the same number of replicates in every variable")
    _independent(values)
    return Samples(values, next(iter(counts.values())), tuple(str(n) for n in given if n not in names), facts)


def predicted(prediction: xr.Dataset, name: str) -> FloatArray:
    """What is predicted of a sampled variable, (layer, input[, input])."""
    values = prediction[PREDICTED_BY.get(name, name)].transpose(*results.DIMS[name]).values
    return np.asarray(values, dtype=np.float64)


def _near(name: Any) -> str:
    return nearest(str(name), list(VARIABLES))


def _opened(samples: Any) -> tuple[Mapping[Any, Any], Mapping[str, Any]]:
    """The variables by name, and the attributes of a stored result."""
    import xarray as xr

    if isinstance(samples, str | Path):
        path = Path(samples)
        if not path.is_file():
            raise InputError("file", str(path), "no such file")
        if path.suffix == ".npz":
            return _npz(path), {}
        try:
            samples = results.load(path)
        except (RuntimeError, KeyError, EOFError) as error:  # what a damaged netCDF file raises beside OSError
            raise InputError("file", str(path), f"must be a result stored by mcverify ({error})") from None
    if isinstance(samples, xr.Dataset):
        if "replicate" not in samples.dims:
            allowed = "must have the dimension `replicate`: every network's values, as by simulate(…, replicates=True)"
            raise InputError("samples", [str(d) for d in samples.dims], allowed)
        return dict(samples.items()), samples.attrs
    if not isinstance(samples, Mapping):
        allowed = "must be a mapping of variable name to array, a Dataset, or the path of a netCDF or .npz file"
        raise InputError("samples", type(samples).__name__, allowed)
    return samples, {}


def _npz(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as opened:
            return {name: opened[name] for name in opened.files}
    except _DAMAGED as error:
        told = " ".join(str(error).split())
        raise InputError("file", str(path), f"must be an .npz file of arrays of numbers ({told})") from None


def _array(name: str, value: Any, prediction: xr.Dataset) -> FloatArray:
    """(replicate, …) in float64, of the prediction's shape."""
    field, dims = f"samples.{name}", ("replicate", *results.DIMS[name])
    if hasattr(value, "dims"):
        if set(value.dims) != set(dims):
            raise InputError(field, value.dims, f"must have the dimensions {dims}")
        for dim in set(value.coords) & set(prediction.coords) & set(dims):
            if not np.array_equal(value.coords[dim], prediction.coords[dim]):
                raise InputError(f"{field}.{dim}", value.coords[dim].values.tolist(), "must be as in the prediction")
        value = value.transpose(*dims).values
    try:
        array = np.asarray(np.ma.filled(value, np.nan) if np.ma.isMaskedArray(value) else value)
        if array.dtype.kind not in "fiu":
            raise TypeError
        array = array.astype(np.float64)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(field, type(value).__name__, f"must be an array of real numbers, {dims}") from None
    shape = predicted(prediction, name).shape
    if array.ndim != len(dims) or array.shape[1:] != shape:
        sizes = ["replicates", f"{shape[0]} layers", *(f"{n} inputs" for n in shape[1:])]
        expected = f"({', '.join(sizes)})"
        raise InputError(field, f"shape {array.shape}", f"must have the prediction's, {expected}")
    if len(array) < 2:
        raise InputError(field, f"{len(array)} replicates", "must have at least 2: one network has no spread")
    _possible(field, name, array)
    return array


def _possible(field: str, name: str, array: FloatArray) -> None:
    """Mean squares are not negative; Gram matrices are symmetric, with |c| ≤ 1."""
    square = array.ndim == 4
    diagonal = np.diagonal(array, axis1=-2, axis2=-1) if square else array
    with np.errstate(invalid="ignore", over="ignore"):
        if np.any(diagonal < 0):
            raise InputError(field, float(diagonal[diagonal < 0][0]), "mean squares cannot be negative")
        if not square:
            return
        unit = np.sqrt(diagonal[..., :, None] * diagonal[..., None, :])
        if np.any(np.abs(array - np.swapaxes(array, -1, -2)) > _ROUNDING * unit):
            raise InputError(field, "an asymmetric matrix", "must be symmetric in its two axes of inputs")
        if np.any(np.abs(array) > (1 + _ROUNDING) * unit):
            raise InputError(field, "a correlation beyond ±1", "is no Gram matrix")
        if name == "c" and np.any(np.abs(diagonal - 1) > _ROUNDING):
            raise InputError(field, float(diagonal.max()), "the correlation of an input with itself must be 1")


def _independent(values: Mapping[str, FloatArray]) -> None:
    """Copies of a network are not more networks. Raises InputError where too many replicates are equal."""
    rows = np.concatenate([v.reshape(len(v), -1) for v in values.values()], axis=1)
    distinct = len({row.tobytes() for row in rows})
    if distinct < _DISTINCT * len(rows):
        told = f"{distinct} distinct among {len(rows)} replicates"
        raise InputError("samples", told, "every replicate must be a network drawn independently of the others")
