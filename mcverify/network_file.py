"""Networks in TOML files: read with every key checked, and written.

[network]                       [[layer]]                 [inputs]            # optional
architecture = "mlp"            type = "dense"            gram = [[1.0, 0.5], [0.5, 1.0]]
input_dim = 64            or    fan_in = 64         and   # or: digits = 4
widths = [256, 256]             fan_out = 256             # or: values = [[…], …]
activation = "tanh"             [[layer]]
sigma_w2 = 1.5                  type = "activation"       [verify]            # optional
sigma_b2 = 0.05                 phi = "tanh"              margin = 0.005      # in per-layer gain
                                                          margin_in_all = 0.1 # in the log of the gain over all layers
[[layer]]                       [[layer.branch]]
type = "residual"               type = "dense"
repeat = 10                     fan_in = 256 …
"""

from __future__ import annotations

import inspect
import math
import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcverify import inputs
from mcverify.errors import InputError, nearest
from mcverify.layers.activation import Activation
from mcverify.layers.batchnorm import BatchNorm
from mcverify.layers.convolution import Convolution
from mcverify.layers.dense import Dense
from mcverify.layers.dropout import Dropout
from mcverify.layers.flatten import Flatten
from mcverify.layers.layer import Layer
from mcverify.layers.layernorm import LayerNorm
from mcverify.layers.pooling import GlobalAveragePool
from mcverify.layers.residual import Residual
from mcverify.network import Network, batchnorm_mlp, cnn, mlp, resnet
from mcverify.validate import MOST_LAYERS, between, count, positive

FloatArray = NDArray[np.float64]
Table = dict[str, Any]

LAYERS: dict[str, Callable[..., Layer]] = {
    "dense": Dense,
    "convolution": Convolution,
    "activation": Activation,
    "dropout": Dropout,
    "flatten": Flatten,
    "global_average_pool": GlobalAveragePool,
    "residual": Residual,
    "batchnorm": BatchNorm,
    "layernorm": LayerNorm,
}
# By name: the constructor, and what `depth` repeats: (one width, list of widths); "" where it is an argument itself.
ARCHITECTURES: dict[str, tuple[Callable[..., Network], str, str]] = {
    "mlp": (mlp, "width", "widths"),
    "batchnorm_mlp": (batchnorm_mlp, "width", "widths"),
    "resnet": (resnet, "", ""),
    "cnn": (cnn, "channel", "channels"),
}
DEFAULT_MARGIN = 0.005


@dataclass(frozen=True)
class NetworkFile:
    """What a file says: the network, its inputs (input, n_0) or (input, channels, *positions), and the margin in
    per-layer gain; margin_in_all: in the logarithm of the gain from the first layer to the last, None where that is
    not asked."""

    net: Network
    x: FloatArray
    margin: float = DEFAULT_MARGIN
    margin_in_all: float | None = None


def read(path: str | Path) -> NetworkFile:
    """Read a network file.

    Raises InputError naming the key, its value and what is allowed, with the nearest right key."""
    if not isinstance(path, str | Path):
        raise InputError("file", path, "must be a path")
    return parse(_toml(Path(path)), name=Path(path).stem)


def load(path: str | Path) -> Network:
    """The network of a file (see `read` for its inputs)."""
    return read(path).net


def _toml(path: Path) -> Table:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError("file", str(path), "no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("file", str(path), f"cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError("file", str(path), f"is not valid TOML: {error}") from None


def parse(document: Table, name: str = "network") -> NetworkFile:
    """A NetworkFile from the tables of a TOML document."""
    _keys("", document, ["network", "layer", "inputs", "verify"])
    if ("network" in document) == ("layer" in document):
        raise InputError("file", sorted(document), "must have either a [network] table or [[layer]] tables")
    if "network" in document:
        net = _constructed(document["network"], name)
    else:
        layers = _listed(document["layer"], "layer")
        if layers and layers[0].in_shape is not None:
            _fit(layers, document["layer"], "layer", layers[0].in_shape)
        net = Network(layers, name)
    verify = _table("verify", document.get("verify", {}))
    _keys("verify", verify, ["margin", "margin_in_all"])
    margin, in_all = verify.get("margin", DEFAULT_MARGIN), verify.get("margin_in_all")
    between("verify.margin", margin, 0.0, 1.0, open_low=True)
    if in_all is not None:
        positive("verify.margin_in_all", in_all)
    x = _inputs(document.get("inputs", {}), net.input_shape)
    return NetworkFile(net, x, float(margin), None if in_all is None else float(in_all))


def _table(where: str, value: Any) -> Table:
    if not isinstance(value, dict):
        raise InputError(where, value, "must be a table")
    return value


def _keys(where: str, table: Table, known: list[str]) -> None:
    for key in table:
        if key not in known:
            field = f"{where}.{key}" if where else key
            raise InputError(field, table[key], f"unknown key; allowed: {', '.join(known)}{nearest(key, known)}")


def _required(where: str, table: Table, keys: list[str]) -> None:
    for key in keys:
        if key not in table:
            raise InputError(f"{where}.{key}", None, "is required")


def _constructed(table: Any, name: str) -> Network:
    table = dict(_table("network", table))
    kind = table.pop("architecture", "mlp")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        known = list(ARCHITECTURES)
        raise InputError("network.architecture", kind, f"allowed: {', '.join(known)}{nearest(str(kind), known)}")
    make, one, several = ARCHITECTURES[kind]
    parameters = inspect.signature(make).parameters
    more = [one, "depth"] if one else []
    _keys("network", table, ["architecture", *(p for p in parameters if p != "name"), *more])
    if any(key in table for key in more):
        if several in table and several != one:
            raise InputError(f"network.{several}", table[several], f"give either {several}, or {one} and depth")
        _required("network", table, [one, "depth"])
        count("network.depth", table["depth"], most=MOST_LAYERS)
        table[several] = [table.pop(one)] * table.pop("depth")
    _required("network", table, [k for k, p in parameters.items() if p.default is p.empty])
    return _prefixed("network", lambda: make(**table, name=name))


def _listed(tables: Any, where: str) -> list[Layer]:
    """The layers of a list of tables: `repeat` says how often one stands, `branch` holds the tables of a block."""
    if not isinstance(tables, list):
        name = re.sub(r"\[\d+\]", "", where)
        raise InputError(where, tables, f"must be a list of tables: write [[{name}]]")
    layers: list[Layer] = []
    for i, given in enumerate(tables):
        here = f"{where}[{i}]"
        table = dict(_table(here, given))
        kind, times = table.pop("type", None), table.pop("repeat", 1)
        if not isinstance(kind, str) or kind not in LAYERS:
            raise InputError(f"{here}.type", kind, f"allowed: {', '.join(LAYERS)}{nearest(str(kind), list(LAYERS))}")
        count(f"{here}.repeat", times, most=MOST_LAYERS)
        make = LAYERS[kind]
        parameters = inspect.signature(make).parameters
        _keys(here, table, ["type", "repeat", *parameters])
        _required(here, table, [k for k, p in parameters.items() if p.default is p.empty])
        if "branch" in table:
            table["branch"] = _listed(table["branch"], f"{here}.branch")
        layers += [_prefixed(here, lambda make=make, table=table: make(**table))] * times  # type: ignore[misc]
    return layers


def _fit(layers: Sequence[Layer], tables: list[Table], where: str, shape: tuple[int, ...]) -> None:
    """Raises InputError naming the table whose layer does not take the shape that it is given."""
    places = [i for i, table in enumerate(tables) for _ in range(table.get("repeat", 1))]
    for layer, i in zip(layers, places, strict=True):
        here = f"{where}[{i}]"
        if layer.inner:
            _fit(layer.inner, tables[i]["branch"], f"{here}.branch", shape)
        shape = _prefixed(here, lambda layer=layer, shape=shape: layer.shape(shape))  # type: ignore[misc]


def _prefixed(where: str, make: Callable[[], Any]) -> Any:
    """Make something, and let an error's field say which table it stands in."""
    try:
        return make()
    except InputError as error:
        raise InputError(f"{where}.{error.field}", error.value, error.allowed) from None


def _inputs(table: Any, shape: tuple[int, ...]) -> FloatArray:
    """Inputs for a network whose input has that shape, (*positions, n_0), with channels before positions."""
    table = _table("inputs", table)
    _keys("inputs", table, ["gram", "digits", "values"])
    if len(table) > 1:
        raise InputError("inputs", sorted(table), "give one of gram, digits, values")
    if "digits" in table:
        if shape not in ((64,), (8, 8, 1)):
            given, allowed = (*shape[-1:], *shape[:-1]), "must be 64, or (1, 8, 8), for the digits"
            raise InputError("network's input", given if shape[:-1] else shape[0], allowed)
        x = _prefixed("inputs", lambda: inputs.digits(table["digits"])).reshape(-1, *shape)
    elif "values" in table:
        x = _prefixed("inputs", lambda: inputs.checked(table["values"], shape))
    elif "gram" in table:
        x = _prefixed("inputs", lambda: inputs.with_gram(table["gram"], math.prod(shape))).reshape(-1, *shape)
    else:
        x = inputs.default_inputs(shape)
    return np.moveaxis(x, -1, 1)


def dumps(net: Network) -> str:
    """The network as TOML text, a [[layer]] table for each layer; `parse` reads it back.

    Raises InputError for an activation of the user's own, which text cannot carry."""
    return "\n\n".join(_tables(net.layers, "layer", "layer")) + "\n"


def _tables(layers: Sequence[Layer], name: str, where: str) -> list[str]:
    """A table [[name]] for each layer, followed by those of its branch."""
    names = {kind: name for name, kind in LAYERS.items()}
    out = []
    for i, layer in enumerate(layers):
        lines = [f"[[{name}]]", f'type = "{names[type(layer)]}"']
        for f in fields(layer):
            value = getattr(layer, f.name)
            if isinstance(layer, Activation):
                value = _written(layer, f"{where}[{i}].phi")
            if f.name != "branch":
                lines.append(f"{f.name} = {_toml_value(value)}")
        out += ["\n".join(lines), *_tables(layer.inner, f"{name}.branch", f"{where}[{i}].branch")]
    return out


def _written(layer: Activation, field: str) -> str:
    """The activation's name. Raises InputError where that does not say which it is."""
    from mcverify.activations import activation

    try:
        activation(layer.phi.name)
    except InputError:
        raise InputError(field, layer.phi.name, "a custom activation cannot be written to TOML") from None
    return layer.phi.name


def _toml_value(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return str([int(v) for v in value])
    return repr(float(value)) if isinstance(value, float | np.floating) else str(int(value))
