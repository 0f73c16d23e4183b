"""What the claims on convolutions share: tanh networks on circles of positions, inputs of given covariances between
positions, and how covariances are read."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from mcverify.claims.claim import FloatArray, Inputs, Networks
from mcverify.inputs import with_gram
from mcverify.network import Network, cnn

SOURCE = "Xiao et al. 2018, Training ultra-deep CNNs with critical initialization"
PAPERS_POINT = (1.05, 2e-5)
Point = tuple[float, float]


def networks(point: Point, depth: int, positions: int, kernel: int = 3, padding: str = "circular") -> Networks:
    """channels -> tanh network on a line or circle of positions; as many input channels as positions."""
    return lambda width: cnn(
        (positions, positions), [width] * depth, "tanh", *point, kernel_size=kernel, padding=padding
    )  # fmt: skip


def of_gram(x: list[FloatArray]) -> FloatArray:
    """Inputs (input, position, channel), one for each Gram matrix between positions: by symmetric roots, so that
    near matrices give near inputs. As many channels as positions."""
    frame = with_gram(np.eye(len(x[0])), len(x[0]))
    out = []
    for gram in x:
        values, vectors = np.linalg.eigh(gram)
        out.append((vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T @ frame)
    return np.stack(out)


def homogeneous(q: float, c: float, positions: int) -> FloatArray:
    """q on the diagonal, c q off it."""
    return q * (c + (1 - c) * np.eye(positions))


def starting_at(point: Point, covariances: Callable[[int], list[FloatArray]]) -> Inputs:
    """Inputs whose first pre-activations have these covariances, if the average over taps does not change them."""
    sigma_w2, sigma_b2 = point

    def inputs(net: Network) -> FloatArray:
        return of_gram([(cov - sigma_b2) / sigma_w2 for cov in covariances(net.input_shape[0])])

    return inputs


def blocks(cov: FloatArray, inputs: int) -> FloatArray:
    """(…, column, column) -> (…, input, position, position): each input with itself."""
    n = cov.shape[-1] // inputs
    apart = cov.reshape(*cov.shape[:-2], inputs, n, inputs, n)
    return np.moveaxis(np.diagonal(apart, axis1=-4, axis2=-2), -1, -3)


def displaced(cov: FloatArray, d: int) -> FloatArray:
    """S_{α,α+d} on a circle, (…, position) from (…, position, position)."""
    at = np.arange(cov.shape[-1])
    return cov[..., at, (at + d) % len(at)]


def profile(f: int, n: int, shift: float = 0.0, phase: float = 0.0) -> FloatArray:
    """cos(2πf(α + shift)/n − phase), (position,)."""
    return np.asarray(np.cos(2 * math.pi * f * (np.arange(n) + shift) / n - phase))


def uneven(n: int) -> list[FloatArray]:
    """A Gram matrix whose lengths and overlaps vary along the circle."""
    root = 1.0 + 0.8 * profile(1, n)
    angle = 0.7 * np.arange(n)
    return [2.0 * np.outer(root, root) * (0.8 * np.cos(angle[:, None] - angle) + 0.2 * np.eye(n))]
