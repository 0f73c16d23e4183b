"""Second moments through a network: states upwards, gradient moments downwards, read at every map."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mcverify.activations import Activation
from mcverify.correlation import mean_correlation
from mcverify.expectations import gaussian
from mcverify.layers import chain
from mcverify.layers.grid import on_first_grid, over_positions
from mcverify.layers.layer import Grad, State
from mcverify.network import Network

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Prediction:
    """Mean-field statistics at every map l = 1 … L, as arrays; `exact` masks say where they hold at any width."""

    covs: tuple[FloatArray, ...]  # of each layer (column, column), a column being an (input, *position)
    covs_exact: tuple[NDArray[np.bool_], ...]
    gram: FloatArray  # (layer, input, input), the mean over positions of the covariance at the same one
    gram_exact: NDArray[np.bool_]
    length: FloatArray  # (layer, input), the mean over positions
    length_exact: NDArray[np.bool_]
    chi: FloatArray  # (layer, input)
    chi_exact: NDArray[np.bool_]
    grad_gram: FloatArray  # (layer, input, input), the sum over positions
    grad_exact: NDArray[np.bool_]
    heuristic: bool  # nothing makes the first map's output Gaussian as the hidden widths grow

    @property
    def q(self) -> FloatArray:
        """The covariances of all layers, (layer, column, column); NaN at layers of another grid than the first."""
        return np.stack(on_first_grid(self.covs))

    @property
    def correlations(self) -> FloatArray:
        """The mean correlation over pairs of different columns, (layer,); NaN where there is but one."""
        return np.array([mean_correlation(cov) for cov in self.covs])

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


def propagate(net: Network, x: FloatArray, cotangent: str | FloatArray = "independent") -> Prediction:
    """States upwards and gradient moments downwards, read at every map.

    Raises Unpredictable where a layer cannot treat the state it meets."""
    states = chain.propagate(net.layers, State.of_inputs(x))
    grads = chain.pull_back(net.layers[: net.end], states[: net.end + 1], _seed(cotangent, len(x), net.shapes[net.end]))
    inputs = len(x)
    pre = [states[i + 1] for i in net.maps]
    out = [states[i + 2] if phi is not None else states[i + 1] for i, _, phi in net.gains()]
    each = list(zip(net.maps, net.positions, strict=True))
    return Prediction(
        covs=tuple(s.cov for s in pre),
        covs_exact=tuple(s.exact for s in pre),
        gram=np.stack([over_positions(states[i + 1].cov, p).mean(axis=-1) for i, p in each]),
        gram_exact=np.stack([over_positions(states[i + 1].exact, p).all(axis=-1) for i, p in each]),
        length=np.stack([s.q.reshape(inputs, -1).mean(axis=1) for s in out]),
        length_exact=np.stack([np.diagonal(s.exact).reshape(inputs, -1).all(axis=1) for s in out]),
        chi=np.stack([_chi(states[i + 1], gain, phi).reshape(inputs, -1).mean(axis=1) for i, gain, phi in net.gains()]),
        chi_exact=np.stack([np.full(len(x), _chi_is_exact(states[i + 1], phi)) for i, _, phi in net.gains()]),
        grad_gram=np.stack([over_positions(grads[i + 1].cov, p).sum(axis=-1) for i, p in each]),
        grad_exact=np.stack([over_positions(grads[i + 1].exact, p).all(axis=-1) for i, p in each]),
        heuristic=states[-1].heuristic,
    )




def _seed(cotangent: str | FloatArray, inputs: int, shape: tuple[int, ...]) -> Grad:
    """Moments of the output cotangent itself; shape: that of the output, (*positions, n_L)."""
    if isinstance(cotangent, str):
        between = np.eye(inputs) if cotangent == "independent" else np.ones((inputs, inputs))
        positions = math.prod(shape[:-1])
        cov = np.asarray(np.kron(between, np.eye(positions) / positions), np.float64)
    else:
        flat = cotangent.reshape(-1, shape[-1])
        cov = flat @ flat.T
    return Grad(cov, np.ones(cov.shape, bool), exchangeable=isinstance(cotangent, str))


def _chi(state: State, gain: float, phi: Activation | None) -> FloatArray:
    """χ^l = σ_w² ⟨φ′²⟩ at the finite-depth q^l (Schoenholz et al. 2017, eq. 12)."""
    if phi is None:
        return np.full(len(state.cov), gain)
    return gain * np.asarray(gaussian.derivative_second_moment(phi, state.q).value)


def _chi_is_exact(state: State, phi: Activation | None) -> bool:
    """Whether E σ_w² φ′(h)² is exact: at the first map, and where φ′² is a coin that does not depend on q."""
    if phi is None:
        return True
    return state.law == "gaussian" and (state.fixed or (phi.slopes is not None and not state.may_vanish))
