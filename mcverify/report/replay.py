"""A stored report read again, for what is needed to repeat its run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from mcverify.claims.plan import Budget, parse_budget
from mcverify.errors import InputError
from mcverify.kernels.backends import backend as find_backend
from mcverify.network import describe
from mcverify.network_file import NetworkFile


@dataclass(frozen=True)
class Replay:
    """What to verify (claim names; none for a network), seed, alpha, budget, and the looks taken at each claim."""

    what: tuple[str, ...]
    seed: int
    alpha: float
    budget: Budget
    looks: list[int]


def read(path: Path, given: NetworkFile | None, backend: str = "auto") -> Replay:
    """The run behind report.json. given: the network file beside it, which a run on a network needs; backend: the one
    to repeat it with.

    Raises InputError for a file that is missing, cut short or not such a report, and for another network, margin or
    backend than the run's."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        facts = stored["provenance"]
        looks = list(json.loads(facts["looks"]))
        what, seed, alpha = tuple(facts["claims"].split()), int(stored["seed"]), float(stored["alpha"])
        network, ran_on = facts.get("network"), facts["backend"]
        margins = facts.get("margin"), facts.get("margin_in_all")
        budget = parse_budget(facts["budget"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError("--replay", str(path), f"must be a report.json of mcverify ({error})") from None
    if stored.get("interrupted"):
        raise InputError("--replay", str(path), "was interrupted, not cut by its clock: not every claim has its looks")
    again = (None, (None, None)) if given is None else (describe(given.net), (given.margin, given.margin_in_all))
    same = {
        f"on {network or 'the catalogue'}": again[0] == network,
        f"with margin {' and in all '.join(str(m) for m in margins if m is not None)}": again[1] == margins,
        f"with backend {ran_on}": find_backend(backend)[0] == ran_on,
    }
    for was, is_same in same.items():
        if not is_same:
            raise InputError("--replay", str(path), f"is a run {was}: give it the same to verify")
    return Replay(() if network else what, seed, alpha, budget, looks)
