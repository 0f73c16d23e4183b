"""What theory says of a network, layer by layer, and how true each figure is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mcverify import inputs, results
from mcverify.errors import InputError
from mcverify.network import Network, describe
from mcverify.theory.finite_width import length_variance
from mcverify.theory.propagation import Prediction, propagate

if TYPE_CHECKING:
    import xarray as xr

FloatArray = NDArray[np.float64]


def _marks(exact: NDArray[np.bool_]) -> NDArray[Any]:
    return np.where(exact, "exact", "limit")


def predict(net: Network, x: ArrayLike, *, cotangent: str | FloatArray = "independent") -> xr.Dataset:
    """The mean-field prediction of everything `simulate` measures.

    net: the network; x: inputs (input, n_0); cotangent as in `simulate`.
    Returns a Dataset over layer (1 … L) and input: q (layer, input, input_2), c, chi (layer, input), length,
    length_var (the variance between networks), grad_norm2 = E‖∂E/∂h^l_a‖², grad_gram; NAME_mark says of each
    entry whether it is "exact" at every finite width, "first order" in 1/width (the error is O(1/width²)), or
    a "limit" (O(1/width)). Source: Poole et al. 2016; Schoenholz et al. 2017.
    Raises InputError for unusable inputs, Unpredictable where theory has no answer.
    """
    x = inputs.checked(x, net.input_dim)
    if isinstance(cotangent, str) and cotangent not in ("independent", "shared"):
        raise InputError("cotangent", cotangent, "must be 'independent', 'shared' or an array (inputs, n_L)")
    p = propagate(net, x, cotangent if isinstance(cotangent, str) else np.asarray(cotangent, dtype=float))
    q = np.diagonal(p.q, axis1=1, axis2=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        c = p.q / np.sqrt(q[:, :, None] * q[:, None, :])
    diagonal = np.arange(len(x))
    variables: dict[str, NDArray[Any]] = {
        "q": p.q, "q_mark": _marks(p.q_exact),
        "c": c, "c_mark": _marks(np.broadcast_to(np.eye(len(x), dtype=bool), c.shape)),
        "chi": p.chi, "chi_mark": _marks(_chi_exact(net, p)),
        "length": p.length, "length_mark": _marks(p.length_exact),
        "grad_gram": p.grad_gram, "grad_gram_mark": _marks(p.grad_exact),
        "grad_norm2": p.grad_gram[:, diagonal, diagonal],
        "grad_norm2_mark": _marks(p.grad_exact[:, diagonal, diagonal]),
    }  # fmt: skip
    spread = length_variance(net, p)
    variables |= {"length_var": spread.value, "length_var_mark": spread.mark}
    attrs = results.provenance(
        kind="prediction", network=describe(net), cotangent=cotangent if isinstance(cotangent, str) else "array"
    )
    return results.dataset(variables, attrs)


def _chi_exact(net: Network, p: Prediction) -> NDArray[np.bool_]:
    """E σ_w² φ′(h)² is exact at the first map, and for φ′² whose mean does not depend on q at all."""
    exact = np.zeros(p.chi.shape, bool)
    for layer, (i, _, phi) in enumerate(net.gains()):
        gaussian_units = net.dense(i).weights == "gaussian"
        exact[layer] = phi is None or (gaussian_units and (layer == 0 or phi.slopes is not None))
    return exact
