"""Peak memory of sampling, in a process of its own: python -m bench.memory ENGINE WIDTH NETWORKS prints JSON."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from bench import own
from bench.cases import Case


def _held(name: str) -> int:
    """Bytes: VmRSS, held now, or VmHWM, held at the most since the last reset."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])


def main(engine: str, width: str, networks: str) -> None:
    """Sample at a small width first, so that what is not the width's doing is there already."""
    own.runner(Case("tanh", 2, 64), engine)(2)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = _held("VmRSS")
    own.runner(Case("tanh", 2, int(width)), engine)(int(networks))
    print(json.dumps({"memory_before": before, "memory_peak": _held("VmHWM")}))


if __name__ == "__main__":
    main(*sys.argv[1:])
