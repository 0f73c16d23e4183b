"""The stored form of a result: an xarray Dataset that says where it came from; netCDF in and out."""

from __future__ import annotations

import math
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy
from numpy.typing import NDArray

from mcverify import _native
from mcverify.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

# The dimensions of every variable a result may hold.
DIMS: dict[str, tuple[str, ...]] = {
    "q": ("layer", "input", "input_2"),
    "metric": ("layer", "input", "input_2"),
    "gram": ("layer", "input", "input_2"),
    "c": ("layer", "input", "input_2"),
    "q_local": ("layer", "input", "input_2"),
    "c_local": ("layer", "input", "input_2"),
    "q_displaced": ("layer", "input", "input_2"),
    "c_displaced": ("layer", "input", "input_2"),
    "chi": ("layer", "input"),
    "length": ("layer", "input"),
    "grad_norm2": ("layer", "input"),
    "grad_gram": ("layer", "input", "input_2"),
    "tangent_gram": ("layer", "input", "direction", "direction_2"),
}


def provenance(**facts: Any) -> dict[str, Any]:
    """Versions, platform and command, with the facts of this result; values that netCDF can hold."""
    from mcverify import __version__

    base = {
        "mcverify": __version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "instructions": _native.path(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "command": " ".join(Path(a).name if i == 0 else a for i, a in enumerate(sys.argv)) or "python",
    }
    return base | {k: v if isinstance(v, int | float | str) else str(v) for k, v in facts.items()}


def holds_pairs(layers: int, columns: int) -> bool:
    """Whether a result holds what is between all pairs of columns, (inputs × positions): where that takes up to a
    gigabyte, with what it is computed from. The rule of predictions and simulations alike."""
    return pairs_bytes(layers, columns) <= 1e9


def pairs_bytes(layers: int, columns: int) -> int:
    """q and c with their marks, or q, the metric and the sums behind c with their moments."""
    return 8 * 12 * layers * columns**2


def left_out(layers: int, columns: int) -> dict[str, str]:
    """The attribute that says what a result does not hold, if anything."""
    if holds_pairs(layers, columns):
        return {}
    size = pairs_bytes(layers, columns) / 1e9
    return {"left_out": f"what is between different positions: of {columns} columns it would take {size:.0f} GB"}


# What holds every position of an input beside it, and how the axes of a grid are called.
_BY_COLUMN = ("q", "metric", "c")
_BY_POSITION = ("q_local", "c_local", "q_displaced", "c_displaced")
_AXES = {0: (), 1: ("position",), 2: ("row", "column")}


def dataset(
    variables: Mapping[str, NDArray[Any]], attrs: Mapping[str, Any], grid: tuple[int, ...] = ()
) -> xr.Dataset:  # fmt: skip
    """A Dataset of named variables; `NAME_se`, `NAME_mark`, `NAME_var` and `NAME_remainder` share the dimensions of
    NAME, and an array with one more leading axis holds every replicate. Layers are numbered from 1. grid: the sizes of
    the positions' axes: (layer, column, column) becomes (layer, input, *positions, input_2, *positions_2), and what is
    local (layer, position, input, input) becomes (layer, input, input_2, *positions)."""
    import xarray as xr

    data = {}
    for name, values in variables.items():
        base = name.removesuffix("_se").removesuffix("_mark").removesuffix("_var").removesuffix("_remainder")
        dims = DIMS[base]
        if grid and base in _BY_COLUMN:
            axes = _AXES[len(grid)]
            dims = ("layer", "input", *axes, "input_2", *(f"{axis}_2" for axis in axes))
            values = values.reshape(*values.shape[:-2], *(-1, *grid), *(values.shape[-1] // math.prod(grid), *grid))
        if base in _BY_POSITION:
            ending = "_displacement" if base.endswith("displaced") else ""
            dims = (*dims, *(f"{axis}{ending}" for axis in _AXES[len(grid)]))
            values = np.moveaxis(values, -3, -1)
            values = values.reshape(*values.shape[:-1], *grid)
        data[name] = (dims if values.ndim == len(dims) else ("replicate", *dims), values)
    out = xr.Dataset(data, attrs=dict(attrs))
    return out.assign_coords(layer=np.arange(1, out.sizes["layer"] + 1))


def save(result: xr.Dataset, path: str | Path) -> None:
    """Write a result as netCDF (by h5netcdf)."""
    result.to_netcdf(path, engine="h5netcdf")


def load(path: str | Path) -> xr.Dataset:
    """Read a stored result. Raises InputError for a file that is missing or no netCDF file."""
    import xarray as xr

    try:
        with xr.open_dataset(path, engine="h5netcdf") as opened:
            return opened.load()
    except (OSError, ValueError) as error:
        raise InputError("file", str(path), f"must be a result stored by mcverify ({error})") from None


def as_dict(result: xr.Dataset) -> dict[str, Any]:
    """Plain data, for JSON: attributes, and each variable with its dimensions and nested lists."""
    variables = {str(name): {"dims": list(v.dims), "values": v.values.tolist()} for name, v in result.items()}
    return {"attrs": dict(result.attrs), "variables": variables}
