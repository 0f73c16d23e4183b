"""How many networks a claim needs, and when to look: functions of a pilot, the claim and the budget alone."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mcverify.claims.claim import Claim, identity
from mcverify.claims.experiment import FloatArray, Sizes, Tally, Target, estimate, evidence, width_cost
from mcverify.errors import InputError
from mcverify.statistics import ladder
from mcverify.statistics.evidence import CONFIRM_LEVEL, Evidence, confirmation_distance, decision_room

PILOT = 256
LEAST = 1024  # replicates below which a mean is not yet taken as Gaussian
_LEAST_OF_SKEW = (6000, 16_384)  # networks for skewness one, growing with its square; and the most that are asked for
_OUT_OF_REACH = 8.6  # standard errors: twice as far as where single components are tested
WORK = 4e9  # generated weights a claim may plan for; about two seconds on two cores
DEAD_SHARE = 0.1  # of networks left out for a dead layer: beyond it those that are left are no longer typical
_SLACK = 1.3  # the pilot's standard errors are themselves uncertain
_SHARES = (0.125, 0.25, 0.5, 1.0)  # of the planned size, at which to look
_BEYOND = 2.0  # from look to look after the planned size


@dataclass(frozen=True)
class Budget:
    """What may be spent: generated weights in one claim's plan; networks in one claim; seconds in the whole run, at
    whose end what is undecided stays so. Without seconds, nothing depends on a clock."""

    work: float = WORK
    samples: int | None = None
    seconds: float | None = None

    def __str__(self) -> str:
        """As `parse_budget` reads it."""
        parts = [f"{self.work:g}w"] if self.work != WORK else []
        parts += [f"{self.samples}n"] if self.samples is not None else []
        parts += [f"{self.seconds:g}s"] if self.seconds is not None else []
        return ",".join(parts) or f"{WORK:g}w"


_UNITS = {"": 1, "n": 1, "w": 1, "s": 1, "m": 60, "h": 3600}


def parse_budget(text: str) -> Budget:
    """ "90s", "2m" (for the run), "20000" or "20000n" (networks for a claim), "4e9w" (generated weights for a claim),
    or several with commas. Raises InputError for anything else, and for what is not positive."""
    budget = Budget()
    for part in text.split(","):
        found = re.fullmatch(r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([nwsmh]?)\s*", part)
        try:
            value = float(found[1]) * _UNITS[found[2]] if found else 0.0
        except ValueError:
            value = 0.0
        if not found or not 0 < value < math.inf:
            raise InputError("budget", text, "must be like 90s or 2m for the run, or 20000 networks for each claim")
        if found[2] in ("", "n"):
            budget = replace(budget, samples=max(1, int(value)))
        elif found[2] == "w":
            budget = replace(budget, work=value)
        else:
            budget = replace(budget, seconds=value)
    return budget


def largest_skewness(values: FloatArray, among: NDArray[np.bool_] | None = None) -> float:
    """Of each measured value over the networks (replicate, m); of those that vary, and are finite, the largest. among:
    which of the values count, (m,) or (1,) for all."""
    finite = values[np.isfinite(values).all(axis=1)]
    if among is not None:
        finite = finite[:, np.broadcast_to(among, finite.shape[1:])]
    if len(finite) < 2:
        return 0.0
    spread = finite.std(axis=0)
    z = (finite - finite.mean(axis=0))[:, spread > 0] / spread[spread > 0]
    return float(np.abs((z**3).mean(axis=0)).max(initial=0.0))


def near_the_margin(claim: Claim, target: Target, pilot: Tally) -> NDArray[np.bool_]:
    """Which of the values that a claim averages (m,), or (1,) for all, must have a Gaussian mean. Not those of a claim
    that is its margin, where the pilot sees their mean so far from it, on either side, that no tail of the least
    sample reaches it.

    At 8.6 standard errors of 1,024 networks a skewness of γ lengthens the tail by γ · 8.6²/(6 · 32) = 0.4 γ of them
    (Cornish and Fisher): even γ = 10 leaves more than the 4.3 at which single components are tested."""
    e = evidence(claim, target, pilot)
    if claim.test != "within" or claim.combine is not identity or not e.finite:
        return np.ones(1, bool)
    return np.asarray(np.abs(e.margin - np.abs(e.deviation)) <= _OUT_OF_REACH * e.se * np.sqrt(e.samples / LEAST))


def least_size(skewness: float) -> int:
    """The replicates from which a mean is taken as Gaussian.

    A studentised mean's tail at z errs by a factor of about exp(± γ z³/3√n). At z = 4.3, where single components are
    tested, both sides together err by less than a tenth for n = 6000 γ², as the calibration measures."""
    per_square, most = _LEAST_OF_SKEW
    return min(most, max(LEAST, int(np.ceil(per_square * skewness**2))))


def plan(claim: Claim, target: Target, pilot: Tally, least: Sizes, budget: Budget, share: int = 1) -> Sizes:
    """How many replicates of each width confirm a true claim, within the budget of `share` claims, but no fewer than
    `least`.

    The pilot is not used again: the planned size, and with it the sizes at every look (`size_at`), are fixed before
    any network of the main run is seen."""
    # What a ladder leaves out is not known from a pilot; the watch will add it to what is tolerated.
    e = evidence(claim, replace(target, growth=0.0), pilot)
    if not e.finite:
        return dict(least)  # enough to say what is wrong
    widths = np.array(list(pilot.moments), float)
    costs = np.array([width_cost(claim, w) for w in pilot.moments])
    sd = np.stack([estimate(claim, m).sd for m in pilot.moments.values()])
    shares = np.ones(1)
    if claim.test == "ladder":
        worst = np.max(sd, axis=1)
        shares = ladder.allocation(widths, np.maximum(worst, 1e-6 * worst.max() + 1e-300), costs, claim.order)
    distance = confirmation_distance(e.components, CONFIRM_LEVEL / 2)
    ratio = distance * _unit_errors(claim, widths, sd, shares) / decision_room(e)
    floor = np.array([least[w] for w in pilot.moments])
    wanted = np.maximum(_SLACK * float(np.max(ratio)) ** 2 * shares, floor)
    scale = min(1.0, share * budget.work / float((wanted * costs).sum()))
    if budget.samples is not None:
        scale = min(scale, budget.samples / float(wanted.sum()))
    whole = 1 - 1e-12  # a budget of 20,000 is not 20,001 for the rounding of a quotient
    return {w: max(least[w], int(np.ceil(n * scale * whole))) for w, n in zip(pilot.moments, wanted, strict=True)}


def _unit_errors(claim: Claim, widths: FloatArray, sd: FloatArray, shares: FloatArray) -> FloatArray:
    """Standard errors of the estimates for one replicate in all, shared as given, (component,)."""
    if claim.test != "ladder":
        return sd[0]
    design = (widths.min() / widths[:, None]) ** np.arange(claim.order + 1)
    out = []
    for spread in sd.T:
        # One unit for a component's spreads: their sizes may be anything, their ratios decide.
        unit = float(spread.max()) or 1.0
        weighted = design * (np.sqrt(shares) / np.maximum(spread / unit, 1e-6))[:, None]
        out.append(unit * float(np.sqrt(np.linalg.inv(weighted.T @ weighted)[0, 0])))
    return np.array(out)


def expected(claim: Claim, target: Target, pilot: Tally, sizes: Sizes) -> Evidence:
    """The pilot's evidence with the errors that the planned sizes will have, its components weighted by precision."""
    e = evidence(claim, target, pilot, sizes=sizes)
    with np.errstate(divide="ignore"):
        weights = 1 / np.maximum(e.se, 1e-150) ** 2
    return evidence(claim, target, pilot, weights=weights / weights.max(), sizes=sizes)


def size_at(planned: Sizes, least: Sizes, look: int) -> Sizes:
    """The sizes at look 0, 1, …: shares of the planned ones, but no fewer of a width than `least`; then beyond."""
    first: list[Sizes] = []
    for share in _SHARES:
        sizes = {w: max(least[w], int(np.ceil(share * n))) for w, n in planned.items()}
        if sizes not in first:
            first.append(sizes)
    if look < len(first):
        return first[look]
    factor = _BEYOND ** (look - len(first) + 1)
    return {w: int(np.ceil(factor * n)) for w, n in planned.items()}
