"""What theory says of a network, layer by layer, and how true each figure is."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mcverify import inputs, results
from mcverify.correlation import correlation
from mcverify.errors import InputError
from mcverify.layers.grid import on_first_grid
from mcverify.network import Network, check_network, describe
from mcverify.theory.corrections import FirstOrder, first_order
from mcverify.theory.finite_width import length_variance
from mcverify.theory.propagation import propagate

if TYPE_CHECKING:
    import xarray as xr

FloatArray = NDArray[np.float64]


@np.errstate(over="ignore")  # lengths that no float holds are ∞
def predict(
    net: Network, x: ArrayLike, *, cotangent: str | ArrayLike = "independent", order: int = 0
) -> xr.Dataset:  # fmt: skip
    """The mean-field prediction of everything `simulate` measures.

    net: the network; x: inputs (input, n_0), or (input, channels, *positions); cotangent as in `simulate`.
    Returns a Dataset over layer (1 … L) and input: q (layer, input, input_2), c, chi (layer, input), length,
    length_var (the variance between networks), grad_norm2 = E‖∂E/∂h^l_a‖², grad_gram. With positions q and c are
    between all of them (NaN at layers of another grid), and gram (layer, input, input_2) is the mean of q over equal
    ones. Where q and c of all layers would take more than a gigabyte, only q_local and c_local (layer, input, input_2,
    *positions) are there, between inputs at equal positions, and the attribute `left_out` says so; one layer's
    covariance must fit still, in up to 4 GB (some 10,000 inputs × positions). NAME_mark says of each entry whether it
    is "exact" at every finite width, "first order" in 1/width (the error is O(1/width²)), or
    a "limit" (O(1/width)); all that is not exact is "heuristic" under non-Gaussian weights, whose first map's
    output is Gaussian only as n_0 grows and no entry of x dominates. Source: Poole et al. 2016; Schoenholz et al. 2017.
    order: 0 for the limit of infinite width; 1 for what these widths add to q, c, length and grad_norm2 to first order
    (see theory/corrections.py), with NAME_remainder, the size of what the next order may add, and the variances
    between networks q_var (of the empirical q) and grad_norm2_var. chi and grad_gram off its diagonal stay limits.
    Raises InputError for unusable inputs, Unpredictable where theory has no answer, to the order asked for.
    """
    if not isinstance(order, Integral) or order not in (0, 1):
        raise InputError("order", order, "allowed: 0 (the limit of infinite width) or 1 (first order in 1/width)")
    check_network(net)
    x = inputs.checked(x, net.input_shape)
    p = propagate(net, x, inputs.checked_cotangent(cotangent, len(x), net.shapes[net.end]))
    diagonal = np.arange(len(x))

    def marks(exact: NDArray[np.bool_]) -> NDArray[Any]:
        return np.where(exact, "exact", "heuristic" if p.heuristic else "limit")

    ending, q, q_exact = ("", p.q, p.covs_exact) if p.covs else ("_local", p.q_local, p.local_exact)
    variables: dict[str, NDArray[Any]] = {
        f"q{ending}": q, f"q{ending}_mark": _where(q, marks(np.stack(on_first_grid(q_exact, False)))),
        f"c{ending}": correlation(q),
        f"c{ending}_mark": _where(correlation(q), marks(np.broadcast_to(np.eye(q.shape[-1], dtype=bool), q.shape))),
        "chi": p.chi, "chi_mark": _where(p.chi, marks(p.chi_exact)),
        "length": p.length, "length_mark": marks(p.length_exact),
        "grad_gram": p.grad_gram, "grad_gram_mark": marks(p.grad_exact),
        "grad_norm2": p.grad_gram[:, diagonal, diagonal],
        "grad_norm2_mark": marks(p.grad_exact[:, diagonal, diagonal]),
    }  # fmt: skip
    spread = length_variance(net, p)
    variables |= {"length_var": spread.value, "length_var_mark": spread.mark}
    attrs = results.provenance(
        kind="prediction", network=describe(net), order=order,
        cotangent=cotangent if isinstance(cotangent, str) else "array",
        **results.left_out(len(net.maps), int(p.columns.max())),
    )  # fmt: skip
    if order:
        variables |= _first_order(variables, first_order(net, p, drawn=isinstance(cotangent, str)))
    if not net.is_chain:  # as in simulate: χ^l is the gain of one activation between two maps
        del variables["chi"], variables["chi_mark"]
    if len(net.input_shape) > 1:
        variables |= {"gram": p.gram, "gram_mark": marks(p.gram_exact)}
    return results.dataset(variables, attrs, net.input_shape[:-1])


def _first_order(limit: dict[str, NDArray[Any]], found: FirstOrder) -> dict[str, NDArray[Any]]:
    """What takes the place of the limit's variables, and stands beside them; what is exact stays."""
    shifts = {
        "q": (found.metric.value, found.metric.remainder), "c": (found.c_of_means, found.c.remainder),
        "length": (found.length.value, found.length.remainder),
        "grad_norm2": (found.grad_norm2.value, found.grad_norm2.remainder),
    }  # fmt: skip
    out: dict[str, NDArray[Any]] = {"q_var": found.q_var, "grad_norm2_var": found.grad_norm2.variance}
    for name, (shift, remainder) in shifts.items():
        exact = limit[f"{name}_mark"] == "exact"
        value = np.where(exact, limit[name], limit[name] + shift)
        if name == "c":  # −∞ where squares of lengths are below all floats
            value = np.where(np.isfinite(value), value, np.nan)
        out[name], out[f"{name}_remainder"] = value, np.where(exact, 0.0, remainder)
        out[f"{name}_mark"] = np.where(exact, "exact", _where(value, np.full(value.shape, "first order")))
    gram, diagonal = limit["grad_gram"].copy(), np.arange(limit["grad_gram"].shape[-1])
    marks = limit["grad_gram_mark"].astype("<U11")
    gram[:, diagonal, diagonal], marks[:, diagonal, diagonal] = out["grad_norm2"], out["grad_norm2_mark"]
    return out | {"grad_gram": gram, "grad_gram_mark": marks}


def _where(values: FloatArray, marks: NDArray[Any]) -> NDArray[Any]:
    """The marks where there are values, elsewhere "none"."""
    return np.where(np.isnan(values), "none", marks)
