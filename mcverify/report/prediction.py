"""Predictions, phases and comparisons as text for a terminal, and as plain data for JSON."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mcverify import results
from mcverify.errors import Unpredictable
from mcverify.inputs import checked
from mcverify.network import Network, describe
from mcverify.theory.diagnosis import diagnose
from mcverify.theory.phase import Phase
from mcverify.theory.propagation import Prediction, propagate

if TYPE_CHECKING:
    import xarray as xr

    from mcverify.theory.initialiser_table import InitialiserRow

FloatArray = NDArray[np.float64]
_ROWS = 24  # a deeper network's table shows its first and last layers


def finite(value: Any) -> Any:
    """JSON has no NaN or infinity: None, or a word, in their place."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "infinity" if value > 0 else "-infinity"
    return value


def phase_text(p: Phase) -> str:
    """A phase, one quantity a line, and its message."""
    rows = [
        ("phase", p.name),
        ("q*", f"{p.q:.10f}" if math.isfinite(p.q) and 1e-4 < p.q < 1e6 else f"{p.q:.10g}"),
        ("c*", f"{p.c:.10g}"),
        ("χ_1", f"{p.chi_1:.10f}"),
        ("χ_c*", f"{p.chi_c:.10f}"),
        ("dQ/dq", f"{p.slope_q:.10f}"),
        ("ξ_q", f"{p.xi_q:.6g} layers"),
        ("ξ_c", f"{p.xi_c:.6g} layers"),
    ]
    head = f"{p.activation}, σ_w² = {p.sigma_w2:g}, σ_b² = {p.sigma_b2:g}" + f", keep {p.keep:g}" * (p.keep < 1)
    lines = [
        head,
        *(f"  {name:<6} {value.replace('nan layers', 'none').replace('nan', 'none')}" for name, value in rows),
        p.message,
    ]
    if len(p.q_fixed_points) > 1:
        lines.append("fixed points of the variance:")
        lines += [f"  q = {f.value:.10g}, slope {f.slope:.6g}, {f.stability}" for f in p.q_fixed_points]
    return "\n".join(lines)


def as_dict(net: Network, x: FloatArray) -> dict[str, Any]:
    """The prediction as plain data: words, and every variable by layer."""
    x = checked(x, net.input_shape)
    p = propagate(net, x)
    numbers = {k: getattr(p, k).tolist() for k in ("length", "chi", "grad_gram")}
    exact = {k: getattr(p, k).tolist() for k in ("length_exact", "grad_exact")}
    if p.covs:
        numbers["q"], exact["q_exact"] = [v.tolist() for v in p.covs], [v.tolist() for v in p.covs_exact]
    else:
        numbers["q_local"], exact["q_local_exact"] = ([v.tolist() for v in vs] for vs in (p.local, p.local_exact))
    words = {"network": describe(net), "words": diagnose(net, p), **_left_out(p)}
    return {**words, **finite(numbers), **exact}


def _left_out(p: Prediction) -> dict[str, str]:
    return results.left_out(len(p.columns), int(p.columns.max()))


def _shown(layers: int) -> list[int]:
    """Which layers a table shows, −1 for a gap."""
    if layers <= _ROWS:
        return list(range(layers))
    half = _ROWS // 2
    return [*range(half), -1, *range(layers - half, layers)]


def show(net: Network, x: FloatArray, console: Console) -> None:
    """The prediction in words, then layer by layer for the first input."""
    x = checked(x, net.input_shape)
    p = propagate(net, x)
    console.print(describe(net), highlight=False)
    console.print()
    for sentence in diagnose(net, p):
        console.print(f"• {sentence}", highlight=False)
    console.print()
    console.print(_table(net, p, len(x)))
    where = "Input 1" if len(net.input_shape) == 1 else "Input 1, the mean over positions (‖δ‖²: the sum)"
    console.print(f"{where}; c is the mean over pairs. * exact at every width; all else holds as width → ∞.")
    for told in _left_out(p).values():
        console.print(f"Left out of a stored prediction is {told}.", highlight=False)


def _table(net: Network, p: Prediction, inputs: int) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("layer", "width", "q", "length", "c", "χ", "‖δ‖²"):
        table.add_column(name, justify="right")
    c = p.correlations
    for l in _shown(len(net.maps)):
        if l < 0:
            table.add_row(*["⋯"] * 7)
            continue
        star = ["*" if e else " " for e in (p.gram_exact[l, 0, 0], p.length_exact[l, 0], p.grad_exact[l, 0, 0])]
        table.add_row(
            str(l + 1), str(net.widths[l]), f"{p.gram[l, 0, 0]:.6g}{star[0]}", f"{p.length[l, 0]:.6g}{star[1]}",
            "–" if inputs * net.positions[l] == 1 else f"{c[l]:.6f}",
            "–" if np.isnan(p.chi[l, 0]) else f"{p.chi[l, 0]:.6f}", f"{p.grad_gram[l, 0, 0]:.6g}{star[2]}",
        )  # fmt: skip
    return table


def initialisers_table(rows: list[InitialiserRow]) -> Table:
    """A row an initialiser: its variances, the mean's rates a layer, the spread of single networks, the verdict."""
    out = Table(box=None, header_style="bold", pad_edge=False)
    figures = ("σ_w²", "σ_b²", "length/layer", "‖δ‖²/layer", "length in all", "scatter")
    for name in ("initialiser", "weights", *figures, ""):
        out.add_column(name, justify="right" if name in figures else "left", no_wrap=True)
    for r in rows:
        told = ["–"] * 3
        if r.rates is not None:
            told = [f"× {r.rates.length:.4g}", f"× {r.rates.gradient:.4g}", f"× {r.rates.length_total:.3g}"]
        scatter = "–" if r.length is None else f"± {r.length.relative:.2g}"
        style = "green" if r.verdict == "right" else "bold red"
        out.add_row(r.name, r.law, f"{r.sigma_w2:.4g}", f"{r.sigma_b2:.3g}", *told, scatter, Text(r.verdict, style))
    return out


def series(net: Network, x: FloatArray) -> tuple[dict[str, FloatArray], str]:
    """(layer,) of each variable for the first input; NaN, and why, where theory cannot treat the network."""
    try:
        p = propagate(net, x)
    except Unpredictable as error:
        return {name: np.full(len(net.maps), np.nan) for name in ("q", "length", "chi", "grad_norm2")}, str(error)
    first = p.gram[:, 0, 0], p.length[:, 0], p.chi[:, 0], p.grad_gram[:, 0, 0]
    return dict(zip(("q", "length", "chi", "grad_norm2"), first, strict=True)), ""


def means(measured: xr.Dataset, name: str) -> tuple[FloatArray, FloatArray]:
    """(layer,) the means of a variable over networks, for the first input, and their standard errors. Of networks with
    positions q is the mean over them, as the Gram matrix has it."""
    stored = "gram" if name == "q" and "gram" in measured else name
    pick = (slice(None), 0, 0) if name == "q" else (slice(None), 0)
    return measured[stored].values[pick], measured[f"{stored}_se"].values[pick]


def compare(net: Network, x: FloatArray, measured: xr.Dataset, console: Console) -> None:
    """Measured means with standard errors beside the prediction, for the first input; without one where theory cannot
    treat the network."""
    console.print(describe(net), highlight=False)
    predicted, why = series(net, checked(x, net.input_shape))
    predicted = {name: v for name, v in predicted.items() if name in measured}
    if console.width < 120:
        del predicted["length"]
    signs = {"q": "q", "length": "length", "chi": "χ", "grad_norm2": "‖δ‖²"}
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("layer", justify="right")
    for name in predicted:
        table.add_column(f"{signs[name]} measured", justify="right", no_wrap=True)
        table.add_column("theory", justify="right", no_wrap=True)
    found = {name: means(measured, name) for name in predicted}
    for l in _shown(len(net.maps)):
        row = ["⋯"] * (1 + 2 * len(predicted)) if l < 0 else [str(l + 1)]
        for name, values in predicted.items() if l >= 0 else ():
            mean, se = (v[l] for v in found[name])
            row += [f"{mean:.4g} ± {se:.1g}", "–" if np.isnan(values[l]) else f"{values[l]:.5g}"]
        table.add_row(*row)
    console.print(table)
    a = measured.attrs
    console.print(
        f"{a['samples']} networks, engine {a['engine']}, backend {a['backend']}, seed {a['seed']}; "
        f"input 1; ± is one standard error. Predictions are of infinite width: see `mcverify verify` for verdicts.",
        highlight=False,
    )
    if why:
        console.print(f"Theory has no answer: {why}.", highlight=False)
    if a["nonfinite"]:
        console.print(f"{a['nonfinite']} networks gave non-finite values: the means they enter do not exist.")
