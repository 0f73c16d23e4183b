"""What a claim is: a published statement made checkable, as a value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mcverify.claims.mutations import weight_gain
from mcverify.network import Network
from mcverify.simulation.trace import Cotangent, Trace

FloatArray = NDArray[np.float64]
Verdict = Literal["confirmed", "refuted", "undecided"]
Mark = Literal["exact", "law", "first order", "limit", "bound", "heuristic"]
Test = Literal["mean", "within", "ladder"]
Networks = Callable[[int], Network]
Inputs = Callable[[Network], FloatArray]
Predict = Callable[[Network, FloatArray], FloatArray]
Measure = Callable[[Trace], FloatArray]
Labels = Callable[[Network], list[str]]
Told = Callable[[FloatArray], str]


@dataclass(frozen=True)
class Mutant:
    """A simulation changed, on the simulated side alone: the prediction keeps the claim's own network.

    As a claim's mutant it is wrong, and must be refuted; as its neighbour it is another way to sample the same law,
    and must be confirmed. network: what is sampled instead; measure: what is done to the sample instead;
    engine: the engine that samples instead."""

    name: str
    network: Callable[[Network], Network] | None = None
    measure: Measure | None = None
    engine: str | None = None


@dataclass(frozen=True)
class Rival:
    """The nearest other theory: what it predicts for the same measurement."""

    name: str
    predict: Predict


def identity(means: FloatArray) -> FloatArray:
    """The measured means themselves."""
    return means


@dataclass(frozen=True)
class Claim:
    """A statement with everything that decides it.

    networks(width) -> Network, of which `widths` are sampled: one, or at least five for a ladder.
    inputs(net) -> x (input, n_0).
    predict(net, x) -> (component,), the claimed value of each component.
    measure(trace) -> (replicate, m), whose mean over replicates is taken; combine(means) -> (component,).
    test: "mean" (at one width), "within" (at one width, refuted only where the deviation exceeds the margin),
    "ladder" (intercept at 1/width → 0). one_sided: the prediction is an upper bound, confirmed where the data
    exclude every excess; the margin is how far inside it the truth is expected.
    sample: claims of one sample name are measured on the same networks; they agree in networks, widths, inputs,
    engine, stretches, and in the cotangent where they have one. engine: "explicit", or "auto" where the one-step law is
    not what is claimed. survivors: networks with a dead layer are left out, counted and told; other non-finite
    measurements leave any claim undecided.
    margin: relative to the prediction where `relative`, else in the component's own unit.
    remainder(net, x) -> (component,): how far the truth may be from the prediction by the claim's account.
    growth: of a ladder's coefficients, from one power of 1/width to the next, in units of depth/width; it bounds the
    bias of what the order leaves out.
    knob(size) -> the network with an error of that relative size, for the smallest error that the claim catches;
    None where the claim does not move with any one number. knob_of: what is made wrong by it.
    stretches: of a deep network that are measured apart, one row for each, measure(trace) -> (replicate · stretch, m),
    and that count as replicates: rows that are uncorrelated, or are so in the sums that sampling errors are made of.
    told(every row measured) -> what the result tells of them besides; it decides nothing.
    finding: what the claim is a finding about, shared by the claims of a pair: the source's statement, expected
    refuted, and the mended one, expected confirmed. quantity: what the figures are, where their labels leave it open.
    """

    name: str
    source: str
    statement: str
    mark: Mark
    networks: Networks
    widths: tuple[int, ...]
    inputs: Inputs
    predict: Predict
    measure: Measure
    test: Test
    margin: float
    margin_reason: str
    labels: Labels
    rival: Rival | None
    mutants: tuple[Mutant, ...]
    neighbours: tuple[Mutant, ...] = ()
    knob: Callable[[float], Callable[[Network], Network]] | None = weight_gain
    knob_of: str = "σ_w²"
    combine: Callable[[FloatArray], FloatArray] = identity
    remainder: Predict | None = None
    relative: bool = False
    one_sided: bool = False
    survivors: bool = False
    sample: str = ""
    engine: str = "explicit"
    order: int = 2
    cotangent: Cotangent = "independent"
    growth: float = 1.0
    stretches: int = 1
    told: Told | None = None
    expected: Verdict = "confirmed"
    finding: str = ""
    quantity: str = ""
