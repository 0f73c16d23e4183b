"""The lengths of one input that these claims are about, and the networks they are taken in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mcverify.claims import mutations
from mcverify.claims.claim import FloatArray, Mutant, Predict
from mcverify.inputs import with_gram
from mcverify.network import Network, mlp
from mcverify.simulation import observables
from mcverify.simulation.trace import Trace

SOURCE = "Hanin & Rolnick 2018, arXiv:1803.01719"
INPUT_DIM = 8
WIDTHS = (12, 16, 20, 24, 32, 40)  # of a ladder's narrowest layer


def one_input(net: Network) -> FloatArray:
    """One input with ‖x‖²/n_0 = 1, of entries of different size."""
    return with_gram([[1.0]], net.input_dim)


def lengths(trace: Trace) -> FloatArray:
    """M_1 … M_L of the one input, (replicate, L)."""
    return observables.length(trace)[:, :, 0]


def log_lengths(trace: Trace) -> FloatArray:
    """log M_1 … log M_L, −∞ where a layer is dead, (replicate, L)."""
    with np.errstate(divide="ignore"):
        return np.log(lengths(trace))


def ratios(trace: Trace) -> FloatArray:
    """R_l = M_l/M_{l−1}, (replicate, L)."""
    m = lengths(trace)
    return m / np.concatenate([np.ones_like(m[:, :1]), m[:, :-1]], axis=1)


def last_square(trace: Trace) -> FloatArray:
    """M_L², (replicate, 1)."""
    return lengths(trace)[:, -1:] ** 2


def inverse_widths(net: Network) -> float:
    """Σ 1/n over the layers."""
    return float(np.sum(1 / np.array(net.widths)))


def relu(shape: Callable[[int], list[int]], sigma_w2: float = 2.0) -> Callable[[int], Network]:
    """width → a ReLU network of these widths."""
    return lambda width: mlp(INPUT_DIM, shape(width), "relu", sigma_w2)


def tapered(width: int) -> list[int]:
    """Four layers of two widths in turn."""
    return [width, 2 * width, width, 2 * width]


def product(of_width: Callable[[int], float]) -> Predict:
    """Π of_width(n_l) over the layers, (1,)."""
    return lambda net, x: np.array([np.prod([of_width(n) for n in net.widths])])


GAIN = Mutant("σ_w² off by 5%", mutations.weight_gain(1.05))
ORTHOGONAL = Mutant("orthogonal weights", mutations.weights("orthogonal"))
