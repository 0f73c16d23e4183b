"""Peak memory, in a process of its own: python -m bench.memory sampling ENGINE WIDTH NETWORKS, or
prediction ACTIVATION SIDE DEPTH, prints JSON."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench import own
from bench.cases import Case


def peak(what: str, *arguments: Any) -> dict[str, int]:
    """Bytes held before the work, and at its peak."""
    command = [sys.executable, "-m", "bench.memory", what, *map(str, arguments)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, int] = json.loads(out)
    return found


def _held(name: str) -> int:
    """Bytes: VmRSS, held now, or VmHWM, held at the most since the last reset."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])


def _work(what: str, *arguments: str) -> tuple[Any, Any]:
    """(the work at a small size, the work): so that what is not the size's doing is there already."""
    if what == "sampling":
        engine, width, networks = arguments
        return (
            lambda: own.runner(Case("tanh", 2, 64), engine)(2),
            lambda: own.runner(Case("tanh", 2, int(width)), engine)(int(networks)),
        )
    activation, side, depth = arguments
    return own.prediction(activation, 3, 3), own.prediction(activation, int(side), int(depth))


def main(*arguments: str) -> None:
    """Do the work, and print what was held."""
    small, large = _work(*arguments)
    small()
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = _held("VmRSS")
    large()
    print(json.dumps({"memory_before": before, "memory_peak": _held("VmHWM")}))


if __name__ == "__main__":
    main(*sys.argv[1:])
