"""A pytest fixture whose checks share one error budget: `def test_mine(mcverify): mcverify.network(net, x)`.

**Budget.** alpha (ini option mcverify_alpha, 1e-3) is the chance that a session refutes anything that is true. After
collection it is known which tests ask for the fixture, so each of the m gets alpha/m. How many checks a test makes is
not known before it runs: its k-th spends the share's 6/(π² k²), which sums to the share. Tests are counted before any
is deselected (-k, -m) and each xdist worker counts all of them, so that a verdict depends on the tests collected, on
their paths and on the seed, never on workers or order.

**Seeds** are hashes of the test's node id, the check's number and --mcverify-seed. A failure prints the command that
repeats it: of one test, whose share then is the session's alpha.

Importing this module imports pytest alone; the first check imports the rest.
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest

from mcverify.levels import ALPHA

if TYPE_CHECKING:
    import numpy as np

    from mcverify.verdict import Report, Result

_FIXTURE = "mcverify"
_PREFIX = "mcverify."
_SEED_LIMIT = 2**63

_ALPHA = pytest.StashKey[float]()
_TESTS = pytest.StashKey[frozenset[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """--mcverify-seed, --mcverify-alpha and the ini option mcverify_alpha."""
    group = parser.getgroup("mcverify", "checks of random networks (mcverify)")
    group.addoption("--mcverify-seed", metavar="N", help="seed of all checks, or `random`; default 0")
    group.addoption("--mcverify-alpha", metavar="ALPHA", help="overrides the ini option mcverify_alpha")
    parser.addini("mcverify_alpha", "chance that a session refutes anything that is true", default=f"{ALPHA:g}")


def pytest_configure(config: pytest.Config) -> None:
    """Options are read before any test runs; a random seed is drawn once, and workers are given it."""
    _alpha(config)
    seed = getattr(config, "workerinput", {}).get("mcverify_seed", config.option.mcverify_seed)
    if seed is None:
        return
    number = secrets.randbelow(_SEED_LIMIT) if seed == "random" else _number(int, seed)
    if number is None or not 0 <= number < _SEED_LIMIT:
        raise pytest.UsageError(
            f"--mcverify-seed: got {seed!r}; must be `random` or a whole number from 0 to 2**63 - 1"
        )
    config.option.mcverify_seed = str(number)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Hand xdist's workers the seed: they read the command line again, and would each draw a random one."""
    node.workerinput["mcverify_seed"] = node.config.option.mcverify_seed


def _number(kind: Any, text: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        return None


def _alpha(config: pytest.Config) -> float:
    if _ALPHA not in config.stash:
        given = config.option.mcverify_alpha
        given = config.getini("mcverify_alpha") if given is None else given
        alpha = _number(float, given)
        if alpha is None or not 0 < alpha <= 1:
            raise pytest.UsageError(f"mcverify_alpha: got {given!r}; must be a number in (0, 1]")
        config.stash[_ALPHA] = alpha
    return float(config.stash[_ALPHA])


def _seed(config: pytest.Config) -> int:
    return int(config.option.mcverify_seed or 0)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    """Count the tests that share the budget, before any is deselected."""
    asking = (item.nodeid for item in items if _FIXTURE in getattr(item, "fixturenames", ()))
    config.stash[_TESTS] = frozenset(asking)


class Checks:
    """What the fixture gives a test: checks that assert, each with its share of the session's error budget.

    seed: a function of the test and --mcverify-seed, for what the test draws itself; rng: a generator of it."""

    def __init__(self, item: pytest.Item) -> None:
        tests = item.config.stash[_TESTS]
        if item.nodeid not in tests:
            raise pytest.UsageError(f"{item.nodeid} must name the fixture `{_FIXTURE}` among its arguments")
        self._item = item
        self._session_seed = _seed(item.config)
        self._share = _alpha(item.config) / len(tests)
        self._made = 0
        self.seed = self._hash(0)

    @property
    def rng(self) -> np.random.Generator:
        """A NumPy generator, fresh at each call, of the test's seed."""
        import numpy as np

        return np.random.default_rng(self.seed)

    def network(self, net: Any, x: Any, *, margin: float | None = None, **options: Any) -> Report:
        """Sample a network and assert that theory holds within the margin; options as of mcverify.verify."""
        __tracebackhide__ = True
        return self._check("assert_network", net, x, margin=margin, rng=None, options=options)

    def samples(
        self, prediction: Any, samples: Any, x: Any = None, *, margin: float | None = None, **options: Any
    ) -> Report:
        """Assert that networks measured by the test agree with a prediction; arguments as of mcverify.check."""
        __tracebackhide__ = True
        return self._check("assert_samples", prediction, samples, x, margin=margin, options=options)

    def sampler(self, draw: Any, law: Any, **options: Any) -> Report:
        """Assert that a sampler has its documented law; arguments as of mcverify.check_sampler."""
        __tracebackhide__ = True
        return self._check("assert_sampler", draw, law, rng=None, options=options)

    def _check(self, name: str, *arguments: Any, options: dict[str, Any], **own: Any) -> Report:
        __tracebackhide__ = True
        from mcverify import testing

        self._made += 1
        if "rng" in own:
            own["rng"] = self._hash(self._made)
        given = {key: value for key, value in own.items() if value is not None} | options
        for reserved in ("alpha", "watch"):
            if reserved in options:
                raise TypeError(f"{reserved} is the session's: see mcverify_alpha")
        level = self._share * 6 / (math.pi * self._made) ** 2
        try:
            report: Report = getattr(testing, name)(*arguments, alpha=level, watch=self._record, **given)
        except AssertionError as error:
            raise AssertionError(f"{error}\n\nTo repeat it: {self.command}") from None
        return report

    @property
    def command(self) -> str:
        """What repeats this test's verdicts."""
        nodeid = shlex.quote(self._item.nodeid)
        return f"pytest {nodeid} --mcverify-seed={self._session_seed} --mcverify-alpha={self._share!r}"

    def _hash(self, number: int) -> int:
        text = f"{self._session_seed}\0{self._item.nodeid}\0{number}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % _SEED_LIMIT

    def _record(self, report: Report) -> None:
        """Every result as a property of the test: for JUnit, and for the summary, across workers."""
        for r in report.results:
            self._item.user_properties.append((f"{_PREFIX}{self._made}.{r.name}", json.dumps(_summary(r))))


def _summary(r: Result) -> dict[str, Any]:
    i = r.worst
    told: dict[str, Any] = {"verdict": r.verdict, "expected": r.expected}
    if i is None:
        return told
    numbers = {"estimate": r.estimate, "se": r.se, "prediction": r.prediction, "margin": r.margin, "mde": r.mde}
    at = {key: values[i] if math.isfinite(values[i]) else None for key, values in numbers.items()}
    return told | {"component": r.labels[i]} | at | {"samples": sum(r.samples.values())}


@pytest.fixture
def mcverify(request: pytest.FixtureRequest) -> Checks:
    """Checks of random networks that share the session's error budget: .network, .samples, .sampler."""
    return Checks(request.node)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Each check with its verdict, estimate, prediction, margin and MDE; nothing where there was none."""
    reports = [r for group in terminalreporter.stats.values() for r in group if getattr(r, "when", "") == "call"]
    rows = [row for r in sorted(reports, key=lambda r: str(r.nodeid)) for row in _rows(r)]
    if not rows:
        return
    titles = ("test and statement", "verdict", "measured", "predicted", "margin", "mde")
    widths = [max(len(row[i]) for row in [titles, *rows]) for i in range(len(titles))]
    terminalreporter.section(f"mcverify: alpha {_alpha(config):g} for the session, seed {_seed(config)}")
    for row in [titles, *rows]:
        left = "  ".join(cell.ljust(w) for cell, w in zip(row[:2], widths[:2], strict=True))
        right = "  ".join(cell.rjust(w) for cell, w in zip(row[2:], widths[2:], strict=True))
        terminalreporter.write_line(f"{left}  {right}")


def _rows(report: Any) -> list[tuple[str, ...]]:
    out = []
    for name, value in report.user_properties:
        if isinstance(name, str) and name.startswith(_PREFIX):
            r = json.loads(value)
            as_expected = "" if r["verdict"] == r["expected"] else " (!)"
            numbers = [_cell(r.get(key)) for key in ("estimate", "prediction", "margin", "mde")]
            if r.get("se") is not None and r.get("estimate") is not None:
                numbers[0] += f" ± {r['se']:.1g}"
            out.append((f"{report.nodeid} {name.removeprefix(_PREFIX)}", r["verdict"] + as_expected, *numbers))
    return out


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{round(value, 12):.4g}"
