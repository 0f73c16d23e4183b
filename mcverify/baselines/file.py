"""A baseline as a file: what a claim's networks measured when it was recorded, as text to be reviewed.

One TOML file a claim, the keys in a fixed order and every number in full precision. A checksum of all that follows
it tells an edited or truncated file. A baseline of more than TEXT_NUMBERS numbers keeps its arrays in a netCDF file
beside it.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mcverify import results
from mcverify.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

FORMAT = 1
TEXT_NUMBERS = 400  # thirty measured values on a line each, a screen that a reviewer reads; beyond it nobody would
_ARRAYS = {
    "mean": ("value",),
    "covariance": ("value", "value_2"),
    "edges": ("value", "edge"),
    "counts": ("value", "bin"),
}
_HEAD = "# Written by `mcverify baseline record`, and not to be edited: see docs/baselines.md of mcverify."


@dataclass(frozen=True)
class AtWidth:
    """What the networks of one width measured: m values a network, and from them k components.

    network: in words; samples: networks sampled, of which left_out had a dead layer; digest: of every measured
    value, in the order of replicates; margin (k,): the difference that a comparison of this size excludes;
    mean (m,); covariance (m, m), of which only the diagonal where the components are the means themselves;
    edges (m, bins − 1), counts (m, bins): how many values lie in each bin between edges fixed beforehand."""

    network: str
    samples: int
    left_out: int
    digest: str
    margin: FloatArray
    mean: FloatArray
    covariance: FloatArray
    edges: FloatArray
    counts: IntArray


@dataclass(frozen=True)
class Baseline:
    """A claim's baseline. verdict: of its theory check when it was recorded; labels (k) of components; gram of the
    inputs (input, input); recorded: seed, engine, versions, platform; full: whether covariances are kept whole."""

    claim: str
    verdict: str
    labels: list[str]
    gram: FloatArray
    recorded: dict[str, str]
    widths: dict[int, AtWidth]
    full: bool

    @property
    def numbers(self) -> int:
        """How many numbers the text would hold in its arrays."""
        m = len(next(iter(self.widths.values())).mean)
        spread = m * (m + 1) // 2 if self.full else m
        each = [v.mean.size + spread + v.edges.size + v.counts.size for v in self.widths.values()]
        return sum(each) + self.gram.size


def path_of(folder: str | Path, claim: str) -> Path:
    """Where a claim's baseline is kept."""
    return Path(folder) / f"{claim}.toml"


# ---- writing ------------------------------------------------------------------------------------------


def write(baseline: Baseline, folder: str | Path) -> Path:
    """Write a baseline into a folder, which is made if need be; returns the text file.

    Raises InputError for numbers that are not finite, and where the folder cannot be written."""
    _check_finite(baseline.claim, baseline)
    path = path_of(folder, baseline.claim)
    arrays = path.with_suffix(".nc") if baseline.numbers > TEXT_NUMBERS else None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if arrays is not None:
            results.save(_dataset(baseline), path.with_suffix(".nc.partial"))
            os.replace(path.with_suffix(".nc.partial"), arrays)
        else:
            path.with_suffix(".nc").unlink(missing_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(dumps(baseline, arrays), encoding="utf-8")
        os.replace(partial, path)  # a file is whole or not there
    except OSError as error:
        raise InputError("folder", str(folder), f"cannot be written: {error.strerror}") from None
    return path


def dumps(baseline: Baseline, arrays: Path | None = None) -> str:
    """The baseline as TOML text; with `arrays`, of what is not in that netCDF file."""
    lines = [f"claim = {_text(baseline.claim)}", f"verdict = {_text(baseline.verdict)}"]
    lines += [f"labels = {_list(baseline.labels)}", f"full_covariance = {str(baseline.full).lower()}"]
    if arrays is None:
        lines.append(f"gram = {_list(baseline.gram)}")
    else:
        lines += [f"arrays = {_text(arrays.name)}", f"arrays_digest = {_text(_arrays_digest(_dataset(baseline)))}"]
    lines += ["", "[recorded]", *(f"{key} = {_text(value)}" for key, value in baseline.recorded.items())]
    for width, v in baseline.widths.items():
        lines += ["", "[[widths]]", f"width = {width}", f"network = {_text(v.network)}", f"samples = {v.samples}"]
        lines += [f"left_out = {v.left_out}", f"digest = {_text(v.digest)}", f"margin = {_list(v.margin)}"]
        if arrays is None:
            lines += _values(v, baseline.labels, baseline.full)
    body = "\n".join(lines) + "\n"
    return f"{_HEAD}\nformat = {FORMAT}\nchecksum = {_text(_digest(body.encode()))}\n{body}"


def _values(v: AtWidth, labels: list[str], full: bool) -> list[str]:
    """A line for each measured value, and one for each row of a covariance; values that are components say which."""
    lines = ["measured = ["]
    for i, mean in enumerate(v.mean):
        spread = "" if full else f"variance = {_list(v.covariance[i, i])}, "
        bins = f"edges = {_list(v.edges[i])}, counts = {_list(v.counts[i])}"
        lines.append(f"    {{ mean = {_list(mean)}, {spread}{bins} }}," + ("" if full else f"  # {labels[i]}"))
    lines.append("]")
    if full:
        rows = [f"    {_list(v.covariance[i, : i + 1])}," for i in range(len(v.mean))]
        lines += ["covariance = [", *rows, "]"]
    return lines


def _list(value: Any) -> str:
    """Numbers and texts as TOML; repr gives a float the digits that bring it back."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list):
        return "[" + ", ".join(_list(v) for v in value) + "]"
    return _text(value) if isinstance(value, str) else repr(value)


def _text(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()


def _dataset(b: Baseline) -> xr.Dataset:
    import xarray as xr

    data: dict[str, Any] = {"gram": (("input", "input_2"), b.gram)}
    for width, v in b.widths.items():
        data |= {f"{name}_{width}": (dims, getattr(v, name)) for name, dims in _ARRAYS.items()}
    return xr.Dataset(data, attrs={"claim": b.claim, "format": FORMAT})


def _arrays_digest(dataset: xr.Dataset) -> str:
    parts = [
        str(name).encode() + np.ascontiguousarray(dataset[name].values).tobytes() for name in sorted(dataset, key=str)
    ]
    return _digest(b"".join(parts))


# ---- reading ------------------------------------------------------------------------------------------


def read(path: str | Path) -> Baseline:
    """Read a baseline. Raises InputError, naming the file, for one that is missing, truncated, edited, of a newer
    format, without its netCDF file, or with numbers that are not finite."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except FileNotFoundError:
        raise InputError("baseline", str(path), "no such file: record it with `mcverify baseline record`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("baseline", str(path), f"cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError("baseline", str(path), f"is truncated or no baseline: {error}") from None
    version = document.get("format")
    if isinstance(version, int) and version > FORMAT:
        raise InputError("baseline", str(path), f"has format {version}: this mcverify reads {FORMAT}, a newer one will")
    if version != FORMAT or not isinstance(version, int) or isinstance(version, bool):
        raise InputError("baseline", str(path), f"is no baseline of format {FORMAT}")
    _, mark, rest = text.partition("\nchecksum = ")
    body = rest.partition("\n")[2]
    if not mark or document.get("checksum") != _digest(body.encode()):
        raise InputError("baseline", str(path), "was edited or truncated, as its checksum tells: record it again")
    try:
        baseline = _parse(document, path)
        _check_possible(baseline)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("baseline", str(path), f"has a missing or wrong entry: {error}") from None
    _check_finite(str(path), baseline)
    return baseline


def _parse(document: Mapping[str, Any], path: Path) -> Baseline:
    full = document["full_covariance"]
    stored = None if "arrays" not in document else _read_arrays(document, path)
    widths = {}
    for table in document["widths"]:
        width = table["width"]
        if stored is None:
            arrays = _arrays(table, full)
        else:
            arrays = {name: stored[f"{name}_{width}"].values for name in _ARRAYS}
        margin = np.array(table["margin"], dtype=np.float64)
        widths[width] = AtWidth(
            table["network"], table["samples"], table["left_out"], table["digest"], margin, **arrays
        )  # fmt: skip
    gram = np.array(document["gram"] if stored is None else stored["gram"].values, dtype=np.float64)
    recorded = {key: str(value) for key, value in document["recorded"].items()}
    return Baseline(document["claim"], document["verdict"], list(document["labels"]), gram, recorded, widths, full)


def _arrays(table: Mapping[str, Any], full: bool) -> dict[str, Any]:
    rows = table["measured"]
    m = len(rows)
    covariance = np.zeros((m, m))
    if full:
        for i, row in enumerate(table["covariance"]):
            covariance[i, : i + 1] = covariance[: i + 1, i] = row
    else:
        np.fill_diagonal(covariance, [row["variance"] for row in rows])
    mean, edges = (np.array([row[name] for row in rows], dtype=np.float64) for name in ("mean", "edges"))
    return {
        "mean": mean, "covariance": covariance, "edges": edges,
        "counts": np.array([row["counts"] for row in rows], dtype=np.int64),
    }  # fmt: skip


def _read_arrays(document: Mapping[str, Any], path: Path) -> xr.Dataset:
    beside = path.with_name(document["arrays"])
    if not beside.exists():
        raise InputError("baseline", str(path), f"needs {beside.name} beside it, which is missing")
    stored = results.load(beside)
    if _arrays_digest(stored) != document["arrays_digest"]:
        raise InputError("baseline", str(beside), f"does not belong to {path.name}: record it again")
    return stored


def _check_finite(where: str, baseline: Baseline) -> None:
    for width, v in baseline.widths.items():
        for name in ("margin", "mean", "covariance", "edges"):
            if not np.isfinite(getattr(v, name)).all():
                raise InputError("baseline", where, f"has a {name} at width {width} that is not finite")


def _check_possible(baseline: Baseline) -> None:
    """Raises ValueError for what no recording gives, whatever its checksum says."""
    if not baseline.recorded["seed"].isdecimal():
        raise ValueError(f"seed {baseline.recorded['seed']!r}")
    for width, v in baseline.widths.items():
        for name, number in (("width", width), ("samples", v.samples), ("left_out", v.left_out)):
            if not isinstance(number, int) or isinstance(number, bool) or number < 0:
                raise ValueError(f"{name} {number!r}")
        kept = v.counts.sum(axis=1)
        if (v.counts < 0).any() or (kept != v.samples - v.left_out).any():
            raise ValueError(f"counts at width {width} that are not of its networks")
        if (np.diagonal(v.covariance) < 0).any() or (v.margin < 0).any() or (np.diff(v.edges) < 0).any():
            raise ValueError(f"a variance, margin or bin at width {width} that is none")
