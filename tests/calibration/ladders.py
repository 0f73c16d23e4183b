"""The width ladder: false alarms of its intercept and fit, and an offset that it must find."""

from __future__ import annotations

import numpy as np

from mcverify.statistics import ladder
from mcverify.statistics.evidence import Evidence, confirms, mde, p_value

from . import samplers
from .rows import FloatArray, Row, Target, at_least, margin, not_below
from .samplers import LEAST, Rng, watched

WIDTHS = np.array([32.0, 48.0, 64.0, 96.0, 128.0, 192.0])
ORDER = 2
GROWTH = 6.0  # of a network of depth six (claims/experiment.py)
SLOPE = 1.0  # c₁: a correction of a thirtieth at the narrowest width
OF_LEVEL, OF_OFFSET = "width ladder: false alarms at 1e-2 and 1e-3", "width ladder: an offset of 5 SE at 1e-3"


def rungs(intercept_se: float) -> FloatArray:
    """Standard errors of the widths' estimates whose intercept has this one, for replicates of one spread shared out
    by `ladder.allocation`."""
    share = ladder.allocation(WIDTHS, np.ones(len(WIDTHS)), WIDTHS**2, ORDER)
    se = 1 / np.sqrt(share)
    covariance = (se**2)[:, None, None]
    return se * intercept_se / ladder.fit(WIDTHS, np.zeros((len(WIDTHS), 1)), covariance, ORDER).se[0]


def truth(growth: float) -> FloatArray:
    """c₁/N + c₂/N² + c₃/N³ (width,), whose coefficients grow by `growth`: what the order leaves out is at its bound."""
    return sum(SLOPE * growth**j / WIDTHS ** (j + 1) for j in range(ORDER + 1))


def evidence(y: FloatArray, se: FloatArray, growth: float, **more) -> Evidence:
    """Evidence that the intercepts (run, k) of y (run, width, k) are zero, as claims/experiment.py makes it."""
    k = y.shape[-1]
    fitted = ladder.fit(WIDTHS, y, (se**2)[..., None] * np.eye(k), ORDER)
    return samplers.of_samples(
        fitted.intercept, fitted.covariance, 1, lack_of_fit=fitted.lack_of_fit, fits=1,
        bias=ladder.bias(fitted, WIDTHS, growth, ORDER), **more,
    )  # fmt: skip


def drawn(rng: Rng, runs: int, components: int, intercept_se: float, growth: float, offset: float = 0.0, **more):
    """Evidence of runs whose rungs have LEAST networks each, with estimated errors; offset: of the first intercept."""
    se = np.broadcast_to(rungs(intercept_se)[:, None], (runs, len(WIDTHS), components))
    y = truth(growth)[:, None] + se * rng.standard_normal(se.shape)
    y[..., 0] += offset
    return evidence(y, samplers.guessed(rng, se, LEAST, se.shape), growth, **more)


def of_level(components: int, intercept_se: float, growth: float):
    def measure(rng: Rng, runs: int):
        p = p_value(drawn(rng, runs, components, intercept_se, growth))
        return {"α = 0.01": p <= 0.01, "α = 0.001": p <= 1e-3}

    return measure


def near(alpha: float) -> Target:
    """False alarms within 1.1 × nominal, as a share; not none."""
    return Target(f"≤ {1.1 * alpha:g}, lower limit > 0", lambda f: f.value <= 1.1 * alpha and f.limits[0] > 0)


def of_offset(components: int, sizes: float, growth: float = 0.0, intercept_se: float = 3e-3):
    def measure(rng: Rng, runs: int):
        offset = sizes * intercept_se
        return {"found": p_value(drawn(rng, runs, components, intercept_se, growth, offset)) <= 1e-3}

    return measure


def of_mde(components: int, growth: float, intercept_se: float = 3e-3):
    """The deviation reported as MDE, where estimates are as expected."""
    se = np.broadcast_to(rungs(intercept_se)[:, None], (len(WIDTHS), components))
    typical = evidence(np.broadcast_to(truth(growth)[:, None], se.shape), se, growth)

    def measure(rng: Rng, runs: int):
        size = float(mde(typical, 1e-3)[0])
        return {"found": p_value(drawn(rng, runs, components, intercept_se, growth, size)) <= 1e-3}

    return measure


def of_margin(growth: float, intercept_se: float = 3e-3):
    """A truth at the margin, at a planned size and watched at a half, the whole and twice of it."""
    wide = np.full(1, 40 * intercept_se)

    def measure(rng: Rng, runs: int):
        total, before, looks = 0.0, 0.0, []
        for share in (0.5, 1.0, 2.0):
            se = np.broadcast_to(rungs(intercept_se)[:, None], (runs, len(WIDTHS), 1))
            total = total + np.sqrt(share - before) * se * rng.standard_normal(se.shape)
            before = share
            y = wide + truth(growth)[:, None] + total / share
            guessed = samplers.guessed(rng, se / np.sqrt(share), int(LEAST * 2 * share), se.shape)
            looks.append(evidence(y, guessed, growth, margin=wide))
        watch = watched(looks, 1, np.full(1, intercept_se), 1e-3)
        return {"fixed": confirms(looks[1]), "watch": watch.confirmed}

    return measure


def _levels() -> list[Row]:
    rows = []
    for components, growth in ((1, 0.0), (5, 0.0), (1, GROWTH), (5, GROWTH)):
        bent = "a remainder at its bound" if growth else "a true model"
        for se in (3e-2, 3e-3, 3e-4):
            rows.append(
                Row(
                    f"ladder/level/{components}/{'bent' if growth else 'straight'}/{se:g}", OF_LEVEL,
                    f"{components} component(s), {bent}, intercept SE {se:g}, {LEAST} networks a rung",
                    2_000_000, 20_000, of_level(components, se, growth),
                    {"α = 0.01": near(0.01), "α = 0.001": near(1e-3)}, "ladders.py",
                    seconds=3 if components == 1 else 12,
                )
            )  # fmt: skip
    return rows


ROWS = [
    *_levels(),
    Row("ladder/offset", OF_OFFSET, "one component, a true model", 100_000, 20_000, of_offset(1, 5.0),
        {"found": at_least(0.95)}, "ladders.py"),
    *[
        Row(f"power/ladder/{k}/{'bent' if growth else 'straight'}", "power at the reported MDE",
            f"ladder, {k} component(s), MDE of power 0.99 at 1e-3", 200_000, 20_000, of_mde(k, growth),
            {"found": not_below(0.99)}, "ladders.py", seconds=0.3 * k)
        for k in (1, 5) for growth in (0.0, GROWTH)
    ],
    *[
        Row(f"margin/ladder/{'bent' if growth else 'straight'}", "truth placed at the margin", "ladder, one component",
            200_000, 20_000, of_margin(growth), {"fixed": margin(), "watch": margin()}, "ladders.py", seconds=1.3)
        for growth in (0.0, GROWTH)
    ],
]  # fmt: skip
