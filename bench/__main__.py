"""python -m bench: run every benchmark, then write bench/results/MACHINE-DATE.md and .html.

--quick       tiny sizes: does everything run? (the figures mean nothing; written to a temporary folder)
--report JSON write the report of an earlier run again
Further arguments go to pytest, for instance -k normals.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    """Exit status: pytest's, or 0 when an earlier run is only written again."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--report", type=Path, metavar="JSON")
    options, further = parser.parse_known_args()
    folder = Path(tempfile.mkdtemp(prefix="mcverify-bench-")) if options.quick else HERE / "results"
    status, data = 0, options.report
    if data is None:
        data = Path(tempfile.mkdtemp(prefix="mcverify-bench-")) / "run.json"
        # Threads of OpenMP that wait asleep: else those of one tool take the cores from the next.
        environment = os.environ | {"OMP_WAIT_POLICY": "passive", "MCVERIFY_BENCH_QUICK": str(int(options.quick))}
        command = [sys.executable, "-m", "pytest", "-c", str(HERE / "pytest.ini"), str(HERE), *further]
        status = subprocess.run(
            [*command, f"--benchmark-json={data}"], cwd=HERE.parent, env=environment, check=False
        ).returncode  # fmt: skip
    from bench.report import write

    for path in write(data, folder):
        print(path)
    return status


if __name__ == "__main__":
    sys.exit(main())
