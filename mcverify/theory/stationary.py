"""Convolutions on a circle whose inputs have a translation-invariant covariance: one covariance for each displacement.

Averaging over taps moves both positions together, so that S_ab(p, p′) = S_ab(p′ − p) stays what it is: every
displacement follows the recursion of a dense network (Xiao et al. 2018), and so do gradients, whose moments are
translation invariant as well. Arrays are (input, input, displacement), displacements flat and the first of them 0;
above a readout that one alone is left.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mcverify import results
from mcverify.errors import InputError, Unpredictable
from mcverify.expectations import gaussian
from mcverify.layers.activation import Activation
from mcverify.layers.convolution import Convolution
from mcverify.layers.dense import Dense
from mcverify.layers.dropout import Dropout
from mcverify.layers.flatten import Flatten
from mcverify.layers.grid import on_first_grid
from mcverify.layers.layer import Grad, Layer, State
from mcverify.layers.pooling import GlobalAveragePool
from mcverify.network import Network, describe
from mcverify.theory.propagation import chi_is_exact

if TYPE_CHECKING:
    import xarray as xr

FloatArray = NDArray[np.float64]


def predict_stationary(net: Network, cov: ArrayLike, *, cotangent: str = "independent") -> xr.Dataset:
    """What `predict` says, for inputs given by a translation-invariant covariance, in time and memory of one image.

    net: convolutions with circular padding, activations, dropout, and a readout by flatten or global average.
    cov (input, input_2, *displacement): (1/n_0) Σ_i x_ia(p) x_ib(p + d) of the inputs, the same at every p;
    displacements run around the circle, so that cov[a, b, d] = cov[b, a, −d]. cotangent: "independent" or "shared".
    Returns a Dataset as `predict` does, with q_displaced and c_displaced (layer, input, input_2, *displacement), NaN at
    layers of another grid, in place of q and c, and without length_var.
    Raises InputError for unusable arguments, Unpredictable for a network that is not treated.
    """
    if not isinstance(cotangent, str) or cotangent not in ("independent", "shared"):
        raise InputError("cotangent", cotangent, "allowed: independent, shared")
    s = _checked(net, cov)
    states, shapes = [s], net.shapes
    for layer in net.layers:
        states.append(_up(layer, states[-1]))
    between = np.eye(len(s.cov)) if cotangent == "independent" else np.ones(s.cov.shape[:2])
    grad = _at_zero(between / math.prod(shapes[net.end][:-1]), states[net.end].cov.shape[-1])
    grads = [grad]
    for i in range(net.end - 1, -1, -1):
        grads.append(_down(net.layers[i], states[i], grads[-1]))
    return _dataset(net, states, grads[::-1], cotangent)


def _checked(net: Network, given: ArrayLike) -> State:
    """The inputs' state. Raises InputError for an array that is no such covariance of the network's inputs."""
    try:
        cov = np.asarray(given, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InputError("cov", type(given).__name__, "must be an array of numbers") from None
    size = net.input_shape[:-1]
    if not size:
        raise Unpredictable("predict_stationary is for networks with positions; predict treats this one")
    if cov.ndim != 2 + len(size) or cov.shape[0] != cov.shape[1] or cov.shape[2:] != size:
        raise InputError("cov", cov.shape, f"must have the shape (input, input, {', '.join(map(str, size))})")
    axes = tuple(range(2, cov.ndim))
    backwards = np.roll(np.flip(cov, axes), 1, axes).swapaxes(0, 1)
    if not np.isfinite(cov).all() or not np.allclose(cov, backwards, rtol=1e-9, atol=1e-12 * np.abs(cov).max()):
        raise InputError("cov", "an array", "must be finite, with cov[a, b, d] = cov[b, a, −d]")
    flat = cov.reshape(*cov.shape[:2], -1)
    return State(flat, "input", True, np.ones(flat.shape, bool))


def _same(cov: NDArray[Any]) -> NDArray[np.bool_]:
    """Where both columns are one, (input, input, displacement)."""
    out = np.zeros(cov.shape, bool)
    out[..., 0] = np.eye(len(cov), dtype=bool)
    return out


def _at_zero(moments: FloatArray, displacements: int) -> Grad:
    """Gradient moments without covariance between different positions."""
    cov = np.zeros((*moments.shape, displacements))
    cov[..., 0] = moments
    return Grad(cov, np.ones(cov.shape, bool))


def _variances(s: State) -> FloatArray:
    return np.diagonal(s.cov[..., 0]).copy()


def _dense(layer: Layer) -> Dense:
    """The dense layer whose recursion a random map's displacements follow."""
    if isinstance(layer, Convolution) and layer.padding != "circular":
        raise Unpredictable(
            f"padding {layer.padding}: a border is not translation invariant; make it circular, or call predict"
        )
    m = layer.random_map
    if m is None or not isinstance(layer, Convolution | Dense):
        raise Unpredictable(f"{type(layer).__name__.lower()} has no stationary form; call predict")
    return Dense(m.fan_in, m.fan_out, m.sigma_w2, m.sigma_b2, m.law)


def _up(layer: Layer, s: State) -> State:
    """The state above a layer."""
    if isinstance(layer, Activation):
        layer.needs_gaussian(s)
        q, slopes = _variances(s), layer.phi.slopes
        cov = np.array(gaussian.covariance(layer.phi, q[:, None, None], s.cov, q[None, :, None]).value)
        cov[_same(cov)] = gaussian.second_moment(layer.phi, q).value
        linear = slopes is not None and slopes[0] == slopes[1]
        whole_law = s.law == "gaussian" and s.fixed
        exact = s.exact & (whole_law | linear | (_same(cov) & (slopes is not None)))
        dies = slopes is not None and 0.0 in slopes
        return replace(s, cov=cov, law="unknown", fixed=False, exact=exact, may_vanish=s.may_vanish or dies)
    if isinstance(layer, Dropout):
        cov = np.where(_same(s.cov) | layer.shared, s.cov / layer.keep, s.cov)
        return replace(s, cov=cov, law="unknown", fixed=False, may_vanish=s.may_vanish or layer.keep < 1.0)
    if isinstance(layer, Flatten):
        return replace(s, cov=s.cov[..., :1], exact=s.exact[..., :1], law="mixture", fixed=False)
    if isinstance(layer, GlobalAveragePool):
        return replace(s, cov=s.cov.mean(axis=-1, keepdims=True), exact=np.all(s.exact, axis=-1)[..., None])
    return _dense(layer).propagate(s)


def _down(layer: Layer, s: State, g: Grad) -> Grad:
    """Gradient moments below a layer, s being the state there."""
    if isinstance(layer, Activation):
        q, slopes = _variances(s), layer.phi.slopes
        factor = np.array(gaussian.derivative_covariance(layer.phi, q[:, None, None], s.cov, q[None, :, None]).value)
        factor[_same(factor)] = gaussian.derivative_second_moment(layer.phi, q).value
        linear = slopes is not None and slopes[0] == slopes[1]
        coin = slopes is not None and s.law == "gaussian" and not s.may_vanish
        exact = g.exact & (linear | ((_same(factor) | (g.cov == 0)) & coin))
        return replace(g, cov=g.cov * factor, exact=exact, independent=g.independent and linear)
    if isinstance(layer, Dropout):
        return replace(g, cov=np.where(_same(g.cov) | layer.shared, g.cov / layer.keep, g.cov))
    positions = s.cov.shape[-1]
    if isinstance(layer, Flatten):
        below = _at_zero(g.cov[..., 0] / positions, positions)
        return replace(g, cov=below.cov, exact=np.repeat(g.exact, positions, axis=-1))
    if isinstance(layer, GlobalAveragePool):
        everywhere = np.repeat(g.cov / positions**2, positions, axis=-1)
        return replace(g, cov=everywhere, exact=np.repeat(g.exact, positions, axis=-1))
    out = _dense(layer).pull_back(s, g)
    if isinstance(layer, Convolution) and not g.independent and not layer.independent:
        return replace(out, exact=np.zeros_like(out.exact))
    if isinstance(layer, Convolution) and not g.independent and g.exact.any():
        found = ((g.cov != 0) | ~g.exact) & ~_same(g.cov)
        out = replace(out, exact=out.exact & ~_between_taps(layer, found))
    return out


def _between_taps(layer: Convolution, found: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether any pair of different columns that two taps see is among those found."""
    grid = found.reshape(*found.shape[:2], *layer.size)
    out = np.zeros_like(grid)
    for apart in itertools.product(*(range(1 - k, k) for k in layer.kernel)):
        out |= np.roll(grid, apart, tuple(range(2, grid.ndim)))
    return out.reshape(found.shape)


def _dataset(net: Network, states: list[State], grads: list[Grad], cotangent: str) -> xr.Dataset:
    heuristic = states[-1].heuristic
    pre = [states[i + 1] for i in net.maps]
    out = [states[i + 2 if phi is not None else i + 1] for i, _, phi in net.gains()]

    def marks(exact: NDArray[np.bool_]) -> NDArray[Any]:
        return np.where(exact, "exact", "heuristic" if heuristic else "limit")

    chi, chi_exact = [], []
    for s, (_, gain, phi) in zip(pre, net.gains(), strict=True):
        q = _variances(s)
        slopes = np.ones(len(q)) if phi is None else gaussian.derivative_second_moment(phi, q).value
        chi.append(gain * slopes)
        chi_exact.append(np.full(len(q), chi_is_exact(s, phi)))
    q = np.stack(on_first_grid([np.moveaxis(s.cov, -1, 0) for s in pre]))
    q_exact = np.stack(on_first_grid([np.moveaxis(s.exact, -1, 0) for s in pre], False))
    d = np.sqrt(np.diagonal(q[:, 0], axis1=1, axis2=2))
    with np.errstate(all="ignore"):
        c = q / (d[:, None, :, None] * d[:, None, None, :])
    same = np.broadcast_to(np.moveaxis(_same(pre[0].cov), -1, 0), q.shape)
    grid = np.isfinite(q)
    grad_gram = np.stack([p * grads[i + 1].cov[..., 0] for i, p in zip(net.maps, net.positions, strict=True)])
    grad_exact = np.stack([grads[i + 1].exact[..., 0] for i in net.maps])
    a = np.arange(q.shape[-1])
    variables: dict[str, NDArray[Any]] = {
        "q_displaced": q, "q_displaced_mark": np.where(grid, marks(q_exact), "none"),
        "c_displaced": c, "c_displaced_mark": np.where(grid, marks(same), "none"),
        "chi": np.stack(chi), "chi_mark": marks(np.stack(chi_exact)),
        "length": np.stack([_variances(s) for s in out]),
        "length_mark": marks(np.stack([np.diagonal(s.exact[..., 0]) for s in out])),
        "gram": np.stack([s.cov[..., 0] for s in pre]), "gram_mark": marks(np.stack([s.exact[..., 0] for s in pre])),
        "grad_gram": grad_gram, "grad_gram_mark": marks(grad_exact),
        "grad_norm2": grad_gram[:, a, a], "grad_norm2_mark": marks(grad_exact[:, a, a]),
    }  # fmt: skip
    attrs = results.provenance(kind="stationary prediction", network=describe(net), cotangent=cotangent)
    return results.dataset(variables, attrs, net.input_shape[:-1])
