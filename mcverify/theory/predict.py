"""What theory says of a network, layer by layer, and how true each figure is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mcverify import inputs, results
from mcverify.errors import InputError
from mcverify.expectations import gaussian
from mcverify.layers import chain
from mcverify.layers.layer import Grad, State
from mcverify.network import Network, describe

if TYPE_CHECKING:
    import xarray as xr

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Prediction:
    """Mean-field statistics at every map l = 1 … L, as arrays; `exact` masks say where they hold at any width."""

    q: FloatArray  # (layer, input, input)
    q_exact: NDArray[np.bool_]
    length: FloatArray  # (layer, input)
    length_exact: NDArray[np.bool_]
    chi: FloatArray  # (layer, input)
    grad_gram: FloatArray  # (layer, input, input)
    grad_exact: NDArray[np.bool_]


def propagate(net: Network, x: FloatArray, cotangent: str | FloatArray = "independent") -> Prediction:
    """States upwards and gradient moments downwards, read at every map.

    Raises Unpredictable where a layer cannot treat the state it meets."""
    states = chain.propagate(net.layers, State.of_inputs(x))
    grads = chain.pull_back(net.layers[: net.end], states[: net.end + 1], _seed(cotangent, len(x)))
    pre = [states[i + 1] for i in net.maps]
    out = [states[i + 2] if phi is not None else states[i + 1] for i, _, phi in net.gains()]
    return Prediction(
        q=np.stack([s.cov for s in pre]),
        q_exact=np.stack([s.exact for s in pre]),
        length=np.stack([s.q for s in out]),
        length_exact=np.stack([np.diagonal(s.exact) for s in out]),
        chi=np.stack([_chi(states[i + 1], gain, phi) for i, gain, phi in net.gains()]),
        grad_gram=np.stack([grads[i + 1].cov for i in net.maps]),
        grad_exact=np.stack([grads[i + 1].exact for i in net.maps]),
    )


def _seed(cotangent: str | FloatArray, inputs: int) -> Grad:
    """Moments of the output cotangent itself."""
    if isinstance(cotangent, str):
        cov = np.eye(inputs) if cotangent == "independent" else np.ones((inputs, inputs))
    else:
        cov = cotangent @ cotangent.T
    return Grad(cov, np.ones(cov.shape, bool))


def _chi(state: State, gain: float, phi: Any) -> FloatArray:
    """χ^l = σ_w² ⟨φ′²⟩ at the finite-depth q^l (Schoenholz et al. 2017, eq. 12)."""
    if phi is None:
        return np.full(len(state.cov), gain)
    return gain * np.asarray(gaussian.derivative_second_moment(phi, state.q).value)


def _marks(exact: NDArray[np.bool_]) -> NDArray[Any]:
    return np.where(exact, "exact", "limit")


def predict(net: Network, x: ArrayLike, *, cotangent: str | FloatArray = "independent") -> xr.Dataset:
    """The mean-field prediction of everything `simulate` measures.

    net: the network; x: inputs (input, n_0); cotangent as in `simulate`.
    Returns a Dataset over layer (1 … L) and input: q (layer, input, input_2), c, chi (layer, input), length,
    grad_norm2 = E‖∂E/∂h^l_a‖², grad_gram; NAME_mark says of each entry whether it is "exact" at every finite
    width or a "limit" with an error of O(1/width). Source: Poole et al. 2016; Schoenholz et al. 2017.
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
