"""A stored report read again, for what is needed to repeat its run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from mcverify.claims.plan import Budget, parse_budget
from mcverify.errors import InputError
from mcverify.network import Network, describe


@dataclass(frozen=True)
class Replay:
    """What to verify (claim names; none for a network), seed, alpha, budget, and the looks taken at each claim."""

    what: tuple[str, ...]
    seed: int
    alpha: float
    budget: Budget
    looks: list[int]


def read(path: Path, net: Network | None) -> Replay:
    """The run behind report.json. net: the network file given beside it, which a run on a network needs.

    Raises InputError for a file that is missing, cut short or not such a report, and for another network."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        facts = stored["provenance"]
        looks = list(json.loads(facts["looks"]))
        what, seed, alpha = tuple(facts["claims"].split()), int(stored["seed"]), float(stored["alpha"])
        network = facts.get("network")
        budget = parse_budget(facts["budget"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError("--replay", str(path), f"must be a report.json of mcverify ({error})") from None
    if stored.get("interrupted"):
        raise InputError("--replay", str(path), "was interrupted, not cut by its clock: not every claim has its looks")
    if (network is None) != (net is None) or (net is not None and describe(net) != network):
        raise InputError("--replay", str(path), f"is a run on {network or 'the catalogue'}: give it the same to verify")
    return Replay(() if network else what, seed, alpha, budget, looks)
