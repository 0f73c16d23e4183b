"""Shows that the tests catch planted errors: `make mutants`, or `python tests/mutants/run.py [NAME …]`.

With `--jobs N` several at a time.

Each tests/mutants/NAME.patch plants one small error in the project's own source. Its header says which, and what
must turn red:

    Plants: the bias of an explicit map is left out
    Caught by: tests/test_simulation.py

`Caught by` holds arguments of pytest: files, or tests in them, as few as show the error. `Needs: avx2` leaves a
patch out on machines that lack that instruction set. To add one: change the source, `git diff -U1 > NAME.patch`,
write the header above it, `git restore` the source. A patch that survives shows a missing test: write it.

The checkout and its built extension are copied to a temporary folder, and the tests are passed there once, which
leaves numba's cache warm. Every patch then has a copy of that copy, so that none sees another's traces.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

_TIMEOUT = 900  # seconds; the slowest selection takes a tenth of it
_SOURCES = (
    "mcverify", "src_ext", "tests", "bench", "examples", "docs", "README.md", "pyproject.toml", "setup.py", "Makefile",
)  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A patch: the error it plants, the pytest arguments that must catch it, the files it changes."""

    name: str
    patch: Path
    plants: str
    caught_by: tuple[str, ...]
    needs: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant. fate: "caught" (by the test named), "SURVIVED", or what went wrong."""

    mutant: Mutant
    fate: str
    test: str
    seconds: float


def read(patch: Path) -> Mutant:
    """The mutant that a patch file describes. Raises ValueError where its header is not complete."""
    text = patch.read_text(encoding="utf-8")
    header = dict(re.findall(r"^(Plants|Caught by|Needs): (.+)$", text.partition("\n--- ")[0], re.MULTILINE))
    files = tuple(re.findall(r"^--- a/(.+)$", text, re.MULTILINE))
    if not header.get("Plants") or not header.get("Caught by") or not files:
        raise ValueError(f"{patch.name} must say `Plants: …` and `Caught by: …` above a diff of a/… and b/…")
    caught_by = tuple(shlex.split(header["Caught by"]))
    return Mutant(patch.stem, patch, header["Plants"], caught_by, header.get("Needs", ""), files)


def mutants() -> list[Mutant]:
    """All of them, by name."""
    return [read(patch) for patch in sorted(HERE.glob("*.patch"))]


def apply(mutant: Mutant, folder: Path, *options: str) -> str:
    """Apply a patch to the tree in `folder`; what git complains about, "" where it applies."""
    # A folder that is no repository must not be taken for part of one around it: git would skip its files.
    env = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    command = ["git", "apply", "-p1", *options, str(mutant.patch)]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True).stderr.strip()


def copy_checkout(folder: Path) -> None:
    """The sources as they stand in the checkout, and the built extension."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *_SOURCES]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    built = [str(path.relative_to(ROOT)) for path in ROOT.glob("mcverify/*.so")]
    for name in (*filter(None, listed), *built):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    if not built:
        build(folder)


def build(folder: Path) -> bool:
    """Rebuild the extension; whether that worked."""
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    return subprocess.run(command, cwd=folder, capture_output=True).returncode == 0


def pytest(folder: Path, arguments: Sequence[str]) -> tuple[int, str]:
    """(exit status, output) of the tests in a copy; −1 where they do not end."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_CACHE", "PYTEST_"))}
    env["PYTHONPATH"] = str(folder)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-rfE", "-p", "no:cacheprovider", "--tb=line", *arguments]
    try:
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=_TIMEOUT)
    except subprocess.TimeoutExpired:
        return -1, ""
    return done.returncode, done.stdout + done.stderr


def judge(mutant: Mutant, green: Path, work: Path) -> Outcome:
    """Plant the error in a copy of the green tree, and run what must catch it."""
    start = time.monotonic()
    folder = work / mutant.name
    shutil.copytree(green, folder)  # keeps times of modification, and so the caches of Python and numba
    try:
        fate, test = _fate(mutant, folder)
    finally:
        shutil.rmtree(folder)
    return Outcome(mutant, fate, test, time.monotonic() - start)


def _fate(mutant: Mutant, folder: Path) -> tuple[str, str]:
    if complaint := apply(mutant, folder):
        return "DOES NOT APPLY", complaint.splitlines()[0]
    if any(name.startswith("mcverify/kernels/") for name in mutant.files):
        # numba sees a change only in the file of the function that is called, not in that of its helpers.
        for stale in folder.glob("mcverify/kernels/__pycache__/*.nb[ci]"):
            stale.unlink()
    if any(name.startswith("src_ext/") for name in mutant.files) and not build(folder):
        return "DOES NOT BUILD", ""
    status, output = pytest(folder, mutant.caught_by)
    if status == 0:
        return "SURVIVED", ""
    # 1 is "tests failed"; anything else says that they could not be run: no error that a test has found.
    failed = re.search(r"^(?:FAILED|ERROR) (?:tests/)?(\S+)", output, re.MULTILINE)
    if status != 1 or failed is None:
        return f"BROKEN ({status})", output.strip().rpartition("\n")[2]
    return "caught", failed[1]


def green_arguments(chosen: Sequence[Mutant]) -> list[str]:
    """Every selection of tests once; a test in a file that runs whole is not named again."""
    every = dict.fromkeys(argument for mutant in chosen for argument in mutant.caught_by)
    return [a for a in every if "::" not in a or a.partition("::")[0] not in every]


def available() -> list[str]:
    """The instruction sets of this machine."""
    code = "from mcverify import _native; print(*_native.paths())"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout.split()


def choose(names: Sequence[str]) -> list[Mutant]:
    """The mutants of those names, or all. Ends the program at an unknown name."""
    every = {mutant.name: mutant for mutant in mutants()}
    if unknown := [name for name in names if name not in every]:
        sys.exit(f"no such patch in tests/mutants: {', '.join(unknown)}")
    return [every[name] for name in names] if names else list(every.values())


def clock(seconds: float) -> str:
    """m:ss."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def table(outcomes: Sequence[Outcome]) -> str:
    """A line for each mutant: name, fate, seconds, the test that failed."""
    wide = max(len(o.mutant.name) for o in outcomes)
    lines = [f"{o.mutant.name:{wide}}  {o.fate:8}  {o.seconds:5.0f} s  {o.test}" for o in outcomes]
    return "\n".join([f"{'patch':{wide}}  {'fate':8}  {'time':>7}  first test to fail", *lines])


def main() -> int:
    parser = argparse.ArgumentParser(description="Every planted error must turn the tests red.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="patches to try, without .patch; all if none is given")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="how many to try at a time")
    options = parser.parse_args()
    paths = available()
    chosen = choose(options.names)
    for mutant in (m for m in chosen if m.needs and m.needs not in paths):
        print(f"left out: {mutant.name} needs {mutant.needs}, which this machine lacks")
    chosen = [m for m in chosen if not m.needs or m.needs in paths]
    with TemporaryDirectory(prefix="mcverify-mutants-") as temporary:
        green, work = Path(temporary, "green"), Path(temporary, "work")
        green.mkdir()
        copy_checkout(green)
        start = time.monotonic()
        print(f"{len(chosen)} patches. First the same tests without any …", flush=True)
        status, output = pytest(green, green_arguments(chosen))
        if status != 0:
            print(output)
            print("The tests are red without a patch: nothing can be shown.")
            return 1
        print(f"  green, in {clock(time.monotonic() - start)}", flush=True)
        outcomes = run_all(chosen, green, work, options.jobs)
    outcomes.sort(key=lambda o: o.mutant.name)
    print(f"\n{table(outcomes)}\n")
    bad = [o for o in outcomes if o.fate != "caught"]
    for o in bad:
        print(f"{o.fate}: {o.mutant.name} ({o.mutant.plants})")
    print(f"{len(outcomes) - len(bad)} of {len(outcomes)} planted errors were caught.")
    return 1 if bad else 0


def run_all(chosen: Sequence[Mutant], green: Path, work: Path, jobs: int) -> list[Outcome]:
    """Their outcomes as they come, each told with the time left."""
    start, outcomes = time.monotonic(), []
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for future in as_completed([pool.submit(judge, mutant, green, work) for mutant in chosen]):
                outcomes.append(o := future.result())
                left = (time.monotonic() - start) / len(outcomes) * (len(chosen) - len(outcomes))
                told = f"{o.fate}, {o.seconds:.0f} s; about {clock(left)} left"
                print(f"  {len(outcomes):3} of {len(chosen)}  {o.mutant.name}: {told}", flush=True)
        except BaseException:  # Ctrl-C among them
            pool.shutdown(cancel_futures=True)
            raise
    return outcomes


if __name__ == "__main__":
    sys.exit(main())
