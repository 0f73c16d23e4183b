"""What a layer is: its parameters, how its statistics move (theory), and how to sample it (simulation).

Signals are held units-last, as columns: a column is an (input, *position), the last position running fastest,
and just the input where there are no positions. The arrays of a sampling run are

    signal     (replicate, column, units)
    tangents   (replicate, direction, column, units)
    cotangents (replicate, direction, column, units)

so that every random map sees contiguous units and any number of columns. In theory a signal is its
second moment over columns:

    State.cov  (column, column):  E (1/n) Σ_i s_ia s_ib
    Grad.cov   (column, column):  E Σ_i δ_ia δ_ib   (a sum over units, not a mean)

or of both only what is between inputs at equal positions, (position, input, input): a `local` moment. It is all that
there is of a gradient whose covariance between different positions is exactly 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mcverify.activations import Activation as Phi
from mcverify.errors import Unpredictable
from mcverify.kernels.primitives import Kernels
from mcverify.layers.grid import over_positions
from mcverify.random_map.engine import Engine, Map
from mcverify.streams import Site

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Signal = NDArray[Any]

Law = Literal["input", "gaussian", "symmetric", "sum", "batch_sum", "sphere", "mixture", "unknown"]

GAUSSIAN: tuple[Law, ...] = ("gaussian", "symmetric", "sum")
"""Laws that are Gaussian, at least as widths grow."""

_OTHERS = {
    "input": "the inputs themselves", "unknown": "the image of another nonlinearity",
    "mixture": "units of several positions", "sphere": "normalised batches",
    "batch_sum": "a sum with normalised batches of 3 columns at most",
}  # fmt: skip


@dataclass(frozen=True)
class Batch:
    """What units normalised over a batch are made of: y = gain · BN(h) + shift, h ~ N(0, cov), (column, column)."""

    cov: FloatArray
    eps: float
    gain: float
    shift: float


@dataclass(frozen=True)
class State:
    """Second moments of a signal, what is known of its law, and which entries are exact at finite width.

    law: "input", the given points themselves; "gaussian", units i.i.d. N(0, Ĝ) given the layer below;
    "symmetric", units sign-symmetric and Gaussian only in the limit (weights of another law);
    "sum", of Gaussians that are not independent of one another's scale: Gaussian only in the limit, and not symmetric;
    "sphere", normalised over the batch that `batch` tells;
    "batch_sum", a sum with such units in it: Gaussian only as the batch grows, with an excess kurtosis of −6/(B + 1) at
    most;
    "mixture", units of different positions side by side, of different variances;
    "unknown", the image of a nonlinearity.
    fixed: Ĝ is not random, which holds for the first map's output alone.
    exact: per entry of cov, true where the expectation holds at every finite width.
    may_vanish: the whole signal may be exactly zero with positive probability (a dead or wholly masked layer),
    where φ′ is no longer decided by a coin of its own.
    heuristic: some expectation was taken as Gaussian though nothing makes it so as the hidden widths grow: the
    first map's output under non-Gaussian weights, Gaussian only as n_0 grows with no entry of x dominating; or a large
    batch was taken for infinite.
    batch: given by "sphere" alone, and by whole states.
    alike: columns may be exchanged without changing the law, at every width: inputs without positions, of equal lengths
    and correlations, below a Gaussian first map.
    """

    cov: FloatArray
    law: Law
    fixed: bool
    exact: BoolArray
    may_vanish: bool = False
    heuristic: bool = False
    batch: Batch | None = None
    alike: bool = False

    def __post_init__(self) -> None:
        if self.law != "sphere":
            object.__setattr__(self, "batch", None)

    @staticmethod
    def of_inputs(x: FloatArray) -> State:
        """The state of inputs x (input, *positions, n_0)."""
        flat = x.reshape(-1, x.shape[-1])
        cov = flat @ flat.T / x.shape[-1]
        return State(cov, "input", True, np.ones(cov.shape, bool), alike=x.ndim == 2 and equally_correlated(cov))

    @property
    def q(self) -> FloatArray:
        """The diagonal of cov, (column,); (position, input) of a local state."""
        return np.diagonal(self.cov, axis1=-2, axis2=-1).copy()

    def local(self, positions: int) -> State:
        """The state between inputs at equal positions."""
        cov, exact = (np.moveaxis(over_positions(v, positions), -1, 0).copy() for v in (self.cov, self.exact))
        return replace(self, cov=cov, exact=exact, batch=None)

    def needs_gaussian(self, who: str) -> None:
        """Raises Unpredictable for a law that is not Gaussian, at least in the limit of wide layers and large batches:
        those of 3 columns, whose normalised units have an unbounded density, are none."""
        if self.law not in GAUSSIAN and not (self.law == "batch_sum" and self.cov.shape[-1] > 3):
            raise Unpredictable(
                f"{who} acts on {_OTHERS[self.law]}, whose law is not Gaussian; put a random map before it"
            )


def equally_correlated(cov: FloatArray) -> bool:
    """Whether a covariance has but two values, on its diagonal and off it, to rounding."""
    own, apart = np.diagonal(cov), cov[~np.eye(len(cov), dtype=bool)]
    return all(np.ptp(v) <= 1e-10 * float(np.abs(cov).max()) for v in (own, apart) if v.size)


@dataclass(frozen=True)
class Grad:
    """Second moments of ∂E/∂signal, summed over units, and which entries are exact at finite width.

    exchangeable: all units are alike, and different ones uncorrelated, as below a random map.
    independent: δ does not depend on the weights below, as it does once φ′ was met.
    pending: a φ whose φ′ is still to be met, together with the batch norm below it. heuristic: as of a state."""

    cov: FloatArray
    exact: BoolArray
    exchangeable: bool = True
    independent: bool = True
    pending: Phi | None = None
    heuristic: bool = False

    @property
    def local(self) -> bool:
        """Whether cov holds equal positions alone."""
        return self.cov.ndim == 3

    def whole(self, columns: int) -> Grad:
        """The moments between all columns, (column, column): zero, exactly, between different positions."""
        if not self.local:
            return self
        positions, inputs = len(self.cov), self.cov.shape[-1]
        cov, exact = np.zeros((inputs, positions) * 2), np.ones((inputs, positions) * 2, bool)
        for p in range(positions):
            cov[:, p, :, p], exact[:, p, :, p] = self.cov[p], self.exact[p]
        return replace(self, cov=cov.reshape(columns, columns), exact=exact.reshape(columns, columns))

    def between_inputs(self) -> tuple[FloatArray, BoolArray]:
        """cov and exact (input, input) where an input is one column: local moments and whole ones are then the same."""
        inputs = self.cov.shape[-1]
        return self.cov.reshape(inputs, inputs), self.exact.reshape(inputs, inputs)


@dataclass(frozen=True)
class Layer(ABC):
    """A frozen record of parameters with six methods."""

    elementwise = False  # acts on each unit alone, so that a cotangent is placed below it
    needs_whole = False  # pulls back by the state between all columns, even where the gradient above is local

    def _check(self, check: Callable[[str, Any], Any], *fields: str) -> None:
        """Put parameters through a check, which gives each back as Python's own number."""
        for field in fields:
            object.__setattr__(self, field, check(field, getattr(self, field)))

    @property
    def in_shape(self) -> tuple[int, ...] | None:
        """(*positions, units) of what the layer takes, where its parameters say."""
        return None

    @property
    def sites(self) -> int:
        """How many addresses, one after another, the layer's draws take."""
        return 1

    @property
    def odd(self) -> bool:
        """A mask or a normalisation that turns with its input's sign: above a random map its mean is zero."""
        return False

    @property
    def random_map(self) -> Map | None:
        """The random map on columns that this layer samples, if it is one."""
        return None

    @property
    def inner(self) -> tuple[Layer, ...]:
        """The layers that this one holds."""
        return ()

    def with_inner(self, layers: Sequence[Layer]) -> Layer:
        """The layer with others in place of those that it holds."""
        return self

    def met(self, kernels: Kernels, x: Signal) -> Signal:
        """Columns whose Gram matrix over the map's fan_in, times σ_w², has the output's conditional mean given the
        layer's input: what the random map meets, or, for a convolution, patches."""
        return x

    def mean_met(self, values: FloatArray, axes: int = 1) -> FloatArray:
        """(…, column) or, with axes=2, (…, column, column) moments of the input, as the map's columns have them."""
        return values

    def widened(self, factor: int, *, first: bool) -> Layer:
        """The layer with every width multiplied; the first layer of a network keeps its fan-in."""
        return self

    @abstractmethod
    def shape(self, in_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The output shape (*positions, units) for an input shape; InputError where it does not fit."""

    @abstractmethod
    def propagate(self, state: State) -> State:
        """The output's state. Raises Unpredictable for a state that the layer's theory cannot treat."""

    @abstractmethod
    def pull_back(self, state: State, grad: Grad) -> Grad:
        """Gradient moments at the input, from those at the output and the state at the input, local where they are."""

    @abstractmethod
    def forward(self, engine: Engine, x: Signal, site: Site) -> tuple[Signal, Any]:
        """(output, saved): one fresh layer for each replicate of the site, applied to x."""

    @abstractmethod
    def tangent(self, engine: Engine, saved: Any, dx: Signal) -> Signal:
        """Directional derivatives of the sampled layer: tangents at the output."""

    @abstractmethod
    def backward(self, engine: Engine, saved: Any, dy: Signal) -> Signal:
        """Cotangents at the input of the sampled layer, from cotangents at its output."""
