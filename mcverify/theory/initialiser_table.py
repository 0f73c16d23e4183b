"""All named initialisers on one architecture: which of the two failure modes each is in, and at what rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mcverify.activations import Activation
from mcverify.initialisers import INITIALISERS
from mcverify.inputs import default_inputs
from mcverify.network import Network, mlp
from mcverify.theory.failure_modes import Rates, Spread, gradient_spread, length_spread, rates
from mcverify.theory.propagation import propagate


@dataclass(frozen=True)
class InitialiserRow:
    """What an initialiser makes of an architecture.

    sigma_w2, sigma_b2: of the last map below the readout, in this package's terms, Var w = sigma_w2/fan_in. rates: of
    mean lengths and gradients, None where they vanish; length, gradient: the spread of single networks at the last
    layer, and of gradients at the first, None where it is not known.
    verdict: "right", or the failure modes, "FM1", "FM2" or "FM1, FM2"."""

    name: str
    law: str
    sigma_w2: float
    sigma_b2: float
    rates: Rates | None
    length: Spread | None
    gradient: Spread | None
    verdict: str


def diagnose_initialisers(
    activation: str | Activation, widths: Sequence[int], input_dim: int | None = None
) -> list[InitialiserRow]:
    """Every initialiser by name on an mlp of these widths, at an input of unit length: the right ones first, then by
    how far from it they change gradients.

    input_dim: the first width by default. Failure mode 1 is a mean length or gradient that changes by more than ten
    over the network, 2 a spread of single networks beyond half their mean (failure_modes.py). Source: Hanin & Rolnick
    2018. Raises InputError as `mlp` does."""
    mlp(1, widths, activation)  # says what is wrong with them
    n_0 = int(widths[0]) if input_dim is None else input_dim
    rows = [_row(name, mlp(n_0, widths, activation, initialiser=name)) for name in INITIALISERS]
    return sorted(rows, key=lambda r: (r.verdict != "right", "FM1" in r.verdict, _distance(r)))


def _row(name: str, net: Network) -> InitialiserRow:
    p = propagate(net, default_inputs(net.input_shape)[:1])
    found, length = rates(p), length_spread(net, p)
    first = (found is None and len(net.maps) > 1) or (found is not None and found.failing)
    modes = ["FM1"] * first + ["FM2"] * (length is not None and length.failing)
    m = net.random_map(net.maps[-1])
    return InitialiserRow(
        name, m.law, m.sigma_w2, m.sigma_b2, found, length, gradient_spread(net), ", ".join(modes) or "right"
    )


def _distance(r: InitialiserRow) -> float:
    return math.inf if r.rates is None else abs(math.log(max(r.rates.gradient, 1e-300)))
