"""What finite widths add to a prediction, as a table for a terminal and as plain data."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from mcverify import results
from mcverify.network import Network
from mcverify.report.prediction import finite
from mcverify.theory.predict import predict

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

_ROWS = 24  # a deeper network's table shows its first and last layers
_SHOWN = (("q", "q"), ("c", "c"), ("length", "length"), ("grad_norm2", "‖δ‖²"))


def as_dict(net: Network, x: NDArray[Any]) -> dict[str, Any]:
    """Every variable to first order, with its remainder and mark, as `mcverify predict --order 1 --json` prints it."""
    return finite(results.as_dict(predict(net, x, order=1)))


def show(net: Network, p: xr.Dataset, console: Console) -> None:
    """Each mean at the network's own widths, layer by layer for the first input, and c between the first two.

    p: predict(net, x, order=1)."""
    layers = p.sizes["layer"]
    table = Table(box=None, header_style="bold", pad_edge=False)
    names = [(name, sign) for name, sign in _SHOWN if name != "c" or p.sizes["input"] > 1]
    for name in ("layer", "width", *(sign for _, sign in names)):
        table.add_column(name, justify="right", no_wrap=True)
    gap = range(_ROWS // 2, layers - _ROWS // 2) if layers > _ROWS else range(0)
    for l in range(layers):
        if l not in gap:
            table.add_row(str(l + 1), str(net.widths[l]), *(_cell(p, name, l) for name, _ in names))
        elif l == gap[0]:
            table.add_row(*["⋯"] * (2 + len(names)))
    console.print("To first order in 1/width:", highlight=False)
    console.print(table)
    told = "Input 1; c between inputs 1 and 2. " if p.sizes["input"] > 1 else "Input 1. "
    console.print(f"{told}± what the next order may add; * exact at every width.", highlight=False)


def _cell(p: xr.Dataset, name: str, l: int) -> str:
    at = {"q": (l, 0, 0), "c": (l, 0, 1)}.get(name, (l, 0))
    value, rest = float(p[name].values[at]), float(p[f"{name}_remainder"].values[at])
    if str(p[f"{name}_mark"].values[at]) == "exact":
        return f"{value:.6g}*"
    return "–" if math.isnan(value) else f"{value:.6g} ± {rest:.1g}"
