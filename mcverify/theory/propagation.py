"""Second moments through a network: states upwards, gradient moments downwards, read at every map."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mcverify import results
from mcverify.activations import Activation
from mcverify.correlation import mean_correlation
from mcverify.errors import InputError
from mcverify.expectations import gaussian
from mcverify.layers import chain
from mcverify.layers.grid import on_first_grid, over_positions
from mcverify.layers.layer import Grad, State
from mcverify.network import Network

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Prediction:
    """Mean-field statistics at every map l = 1 … L, as arrays; `exact` masks say where they hold at any width."""

    covs: tuple[FloatArray, ...]  # of each layer (column, column), a column being an (input, *position); none if large
    covs_exact: tuple[NDArray[np.bool_], ...]
    columns: NDArray[np.intp]  # (layer,)
    correlations: FloatArray  # (layer,), the mean over pairs of different columns; NaN where there is but one
    local: tuple[FloatArray, ...]  # of each layer (position, input, input), the covariance at equal positions
    local_exact: tuple[NDArray[np.bool_], ...]
    length: FloatArray  # (layer, input), the mean over positions
    length_exact: NDArray[np.bool_]
    chi: FloatArray  # (layer, input)
    chi_exact: NDArray[np.bool_]
    grad_gram: FloatArray  # (layer, input, input), the sum over positions
    grad_exact: NDArray[np.bool_]
    heuristic: bool  # nothing makes the first map's output Gaussian as the hidden widths grow

    @property
    def q(self) -> FloatArray:
        """The covariances of all layers, (layer, column, column); NaN at layers of another grid than the first.

        Raises InputError where they are too large to be kept."""
        if not self.covs:
            raise InputError("x", f"{self.columns.max()} columns", "too many for the covariances of all layers")
        return np.stack(on_first_grid(self.covs))

    @property
    def q_local(self) -> FloatArray:
        """The covariances at equal positions, (layer, position, input, input); NaN at layers of another grid."""
        return np.stack(on_first_grid(self.local))

    @property
    def gram(self) -> FloatArray:
        """(layer, input, input), the mean over positions of the covariance at the same one."""
        return np.stack([cov.mean(axis=0) for cov in self.local])

    @property
    def gram_exact(self) -> NDArray[np.bool_]:
        return np.stack([exact.all(axis=0) for exact in self.local_exact])

    @property
    def length_gains(self) -> FloatArray:
        """log q^{l+1}/q^l, q the mean over positions, l = 1 … L − 1, the mean over inputs, (L − 1,); not finite where
        a q is zero."""
        q = np.diagonal(self.gram, axis1=1, axis2=2)
        with np.errstate(all="ignore"):
            return np.asarray(np.log(q[1:] / q[:-1]).mean(axis=1))

    @property
    def gradient_gains(self) -> FloatArray:
        """log of the gradient norm's gain from layer l + 1 to l, the mean over inputs, (L − 1,); not finite where
        gradients vanish."""
        g = np.diagonal(self.grad_gram, axis1=1, axis2=2)
        with np.errstate(all="ignore"):
            return np.asarray(np.log(g[:-1] / g[1:]).mean(axis=1))


@np.errstate(over="ignore")  # gradients that no float holds are ∞; lengths are refused (layers/chain.py)
def propagate(net: Network, x: FloatArray, cotangent: str | FloatArray = "independent") -> Prediction:
    """States upwards and gradient moments downwards, read at every map.

    Where results.holds_pairs says that the covariances of all layers are too large, none outlives its
    layer. Raises Unpredictable where a layer cannot treat the state it meets, InputError where not even one
    covariance fits."""
    columns = np.array([len(x) * p for p in net.positions])
    _fits_in_memory(int(columns.max()))
    kept = results.holds_pairs(len(net.maps), int(columns.max()))
    correlations = {}

    def read(boundary: int, state: State) -> None:
        if boundary - 1 in net.maps:
            correlations[boundary - 1] = mean_correlation(state.cov)

    positions = [math.prod(shape[:-1]) for shape in net.shapes]
    states = chain.Upwards(net.layers, State.of_inputs(x), positions, kept, read)
    grads = chain.pull_back_at(net.layers[: net.end], states.at, _seed(cotangent, len(x), net.shapes[net.end]))
    pre = [states.local[i + 1] for i in net.maps]
    out = [states.local[i] for i in net.outputs]
    met = [local_moments(grads[i + 1], p) for i, p in zip(net.maps, net.positions, strict=True)]
    chi, chi_exact = _chis(net, pre)
    return Prediction(
        covs=tuple(states.whole(i + 1).cov for i in net.maps) if kept else (),
        covs_exact=tuple(states.whole(i + 1).exact for i in net.maps) if kept else (),
        columns=columns,
        correlations=np.array([correlations[i] for i in net.maps]),
        local=tuple(s.cov for s in pre),
        local_exact=tuple(s.exact for s in pre),
        length=np.stack([s.q.mean(axis=0) for s in out]),
        length_exact=np.stack([np.diagonal(s.exact, axis1=1, axis2=2).all(axis=0) for s in out]),
        chi=chi,
        chi_exact=chi_exact,
        grad_gram=np.stack([cov.sum(axis=0) for cov, _ in met]),
        grad_exact=np.stack([exact.all(axis=0) for _, exact in met]),
        heuristic=states.local[-1].heuristic or grads[0].heuristic,
    )


def local_moments(grad: Grad, positions: int) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Gradient moments at equal positions, and whether they are exact, (position, input, input)."""
    if grad.local:
        return grad.cov, grad.exact
    cov, exact = (np.moveaxis(over_positions(v, positions), -1, 0) for v in (grad.cov, grad.exact))
    return cov, exact


def _fits_in_memory(columns: int) -> None:
    """Raises InputError where one layer's covariance, with what it is made from, takes more than four gigabytes."""
    needed = 8 * 5 * columns**2
    if needed > 4e9:
        allowed = (
            f"one covariance between all (inputs × positions) takes {needed / 1e9:.0f} GB to work with: give "
            "fewer inputs or a smaller grid, or ask predict_stationary for translation-invariant inputs"
        )
        raise InputError("x", f"{columns} columns", allowed)


def _seed(cotangent: str | FloatArray, inputs: int, shape: tuple[int, ...]) -> Grad:
    """Moments of the output cotangent itself; shape: that of the output, (*positions, n_L). Local, unless its entries
    are given at several positions."""
    positions = math.prod(shape[:-1])
    if isinstance(cotangent, str):
        between = np.eye(inputs) if cotangent == "independent" else np.ones((inputs, inputs))
        cov = np.repeat(between[None] / positions, positions, axis=0)
    else:
        flat = cotangent.reshape(-1, shape[-1])
        cov = flat @ flat.T
        cov = cov[None] if positions == 1 else cov
    return Grad(cov, np.ones(cov.shape, bool), exchangeable=isinstance(cotangent, str))


def _chis(net: Network, pre: list[State]) -> tuple[FloatArray, NDArray[np.bool_]]:
    """χ^l, the mean over positions, and whether it is exact, (layer, input); NaN for a network that is no chain."""
    inputs = pre[0].cov.shape[-1]
    if not net.is_chain:
        return np.full((len(pre), inputs), np.nan), np.zeros((len(pre), inputs), bool)
    each = [(state, gain, phi) for state, (_, gain, phi) in zip(pre, net.gains(), strict=True)]
    exact = [np.full(inputs, chi_is_exact(state, phi)) for state, _, phi in each]
    return np.stack([_chi(*at).mean(axis=0) for at in each]), np.stack(exact)


def _chi(state: State, gain: float, phi: Activation | None) -> FloatArray:
    """χ^l = σ_w² ⟨φ′²⟩ at the finite-depth q^l (Schoenholz et al. 2017, eq. 12)."""
    if phi is None:
        return np.full(state.q.shape, gain)
    return gain * np.asarray(gaussian.derivative_second_moment(phi, state.q).value)


def chi_is_exact(state: State, phi: Activation | None) -> bool:
    """Whether E σ_w² φ′(h)² is exact: at the first map, and where φ′² is a coin that does not depend on q."""
    if phi is None:
        return True
    return state.law == "gaussian" and (state.fixed or (phi.slopes is not None and not state.may_vanish))
