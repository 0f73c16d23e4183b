"""The figures of one run, read from pytest-benchmark's JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.floors import CORES, Floor, floor


@dataclass(frozen=True)
class Result:
    """One benchmark. Rates are those of the fastest round, which other load disturbs least."""

    subject: str
    group: str
    who: str
    work: float
    unit: str
    best: float
    """Seconds of the fastest round."""
    median: float
    rounds: int
    info: dict[str, Any] = field(repr=False)

    @property
    def rate(self) -> float:
        """Units of work per second."""
        return self.work / self.best

    @property
    def own(self) -> bool:
        """Is it mcverify's?"""
        return bool(self.info.get("own", False))


@dataclass(frozen=True)
class Scaling:
    """How the conditional engine grows with the width: seconds per network ∝ n^exponent, fitted to all widths."""

    widths: Any
    seconds: Any
    memory: Any
    """Bytes held at the peak beyond what a small network needed."""
    exponent: float
    factor: float


class Results:
    """All benchmarks of a run, by subject, group and who."""

    def __init__(self, path: Path) -> None:
        data = json.loads(path.read_text(encoding="utf-8"))
        for b in data["benchmarks"]:
            b["stats"].pop("data", None)
        self._text = json.dumps(data, indent=1)
        self.run: dict[str, Any] = data["run"]
        self.machine: dict[str, Any] = data["machine_info"]
        self.commit: dict[str, Any] = data["commit_info"]
        self.when: str = data["datetime"]
        self.all = []
        for b in data["benchmarks"]:
            info, stats = b["extra_info"], b["stats"]
            if "subject" in info:  # else it failed before it was timed
                head = {name: info.pop(name) for name in ("subject", "group", "who", "work", "unit")}
                timed = {"best": stats["min"], "median": stats["median"], "rounds": stats["rounds"]}
                self.all.append(Result(**head, **timed, info=info))
        self.rates = {group: self.of("floors", group)[0].rate for group in self.groups("floors")}

    def without_rounds(self) -> str:
        """The file that was read, without the time of every single round."""
        return self._text

    @property
    def path(self) -> str:
        """The fastest instruction set of the machine."""
        return str(self.run["paths"][0])

    def of(self, subject: str, group: str | None = None) -> list[Result]:
        """Results of a subject, the fastest first within a group."""
        found = [r for r in self.all if r.subject == subject and group in (None, r.group)]
        return sorted(found, key=lambda r: -r.rate)

    def groups(self, subject: str) -> list[str]:
        """The groups of a subject, in the order in which they ran."""
        return list(dict.fromkeys(r.group for r in self.all if r.subject == subject))

    def one(self, subject: str, group: str, who: str) -> Result:
        """One result. Raises LookupError where it was not measured."""
        for r in self.of(subject, group):
            if r.who == who:
                return r
        raise LookupError(f"no figure for {subject}, {group}: {who}")

    def rate(self, subject: str, group: str, who: str) -> float:
        """Its rate. Raises LookupError."""
        return self.one(subject, group, who).rate

    def peers(self, subject: str, group: str) -> list[Result]:
        """Results that are not mcverify's, the fastest first."""
        return [r for r in self.of(subject, group) if not r.own]

    def fastest_peer(self, subject: str, group: str) -> float:
        """The rate of the fastest peer. Raises LookupError where none was there."""
        peers = self.peers(subject, group)
        if not peers:
            raise LookupError(f"no peer measured for {subject}, {group}")
        return peers[0].rate

    def floor_of(self, r: Result) -> Floor | None:
        """The floor of one round of a result, where its needs are known and the rates were measured."""
        needs = r.info.get("needs")
        if not needs or any(name not in self.rates for name in needs):
            return None
        share = r.info.get("cores", CORES) / CORES
        return floor(needs, {name: rate * share for name, rate in self.rates.items()})

    def over_floor(self, subject: str, group: str, who: str) -> float:
        """Time over the floor's. Raises LookupError."""
        r = self.one(subject, group, who)
        least = self.floor_of(r)
        if least is None:
            raise LookupError("the rates that make up floors were not measured")
        return r.best / least.total

    def scaling(self) -> Scaling:
        """The fit over widths. Raises LookupError where fewer than three were measured."""
        found = sorted(self.of("scaling"), key=lambda r: r.info["width"])
        if len(found) < 3:
            raise LookupError("no figure for scaling: the conditional engine at several widths")
        n = np.array([r.info["width"] for r in found], float)
        seconds = np.array([1 / r.rate for r in found])
        memory = np.array([r.info["memory_peak"] - r.info["memory_before"] for r in found], float)
        p, log_factor = np.polyfit(np.log(n), np.log(seconds), 1)
        return Scaling(n, seconds, memory, float(p), float(np.exp(log_factor)))
