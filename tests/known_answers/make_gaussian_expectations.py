"""gaussian_expectations.json: one-input and two-input Gaussian averages of every activation function.

Every value is a quadrature (make_common). It is compared on the spot with other ways to the same number; the script
stops where two differ by more than 1e-21 of their size, and the file quotes the largest difference of each kind:

- one input: mpmath.quad (tanh-sinh) on the same panels; d<φ²>/dq also as <z φ φ'>/√q, for continuous φ; closed forms;
- two inputs: the two half-shifted lattices of an analytic φ; conditioning on u_a for φ with kinks; closed forms.

The closed forms and the conditioning are in gaussian_cross_checks.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from exact_activations import ACTIVATIONS, SELU_ALPHA, SELU_SCALE
from gaussian_cross_checks import closed_moments, closed_pair, pair_by_conditioning
from make_common import Moments, PairAverages, average, break_points, moments, pair_averages
from mpmath import mp, mpf
from table_file import Case, Row, Table, decimal, exact_decimal, main

NAMES = [name for name in ACTIVATIONS if name != "tanh_cubed"]
VARIANCES = [1e-8, 0.01, 0.5, 1.0, 3.0, 100.0]
# q_aa, q_bb, correlation
PAIRS = [
    (1.0, 1.0, 0.3),
    (0.5, 2.0, -0.7),
    (1.0, 1.0, 0.999999),
    (4.0, 0.01, 0.95),
    (1.0, 1.0, -0.9999),
    (100.0, 30.0, 0.5),
]
QUICK_NAMES = {"tanh", "relu", "sin"}
QUICK_PAIRS = PAIRS[:1]

# ------------------------------------------------------------------------------------------- comparisons

TOLERANCE = mpf("1e-21")
# The largest relative difference seen in each comparison.
worst = {
    "1d closed form": mpf(0),
    "1d dq by parts": mpf(0),
    "1d mp.quad": mpf(0),
    "2d shifted lattices": mpf(0),
    "2d closed form": mpf(0),
    "2d conditioning": mpf(0),
}


def record(comparison: str, difference: mpf) -> None:
    """Note a relative difference; stop if it is too large."""
    worst[comparison] = max(worst[comparison], difference)
    if difference > TOLERANCE:
        raise ArithmeticError(f"{comparison}: relative difference {decimal(difference, 3)}")


def compare(comparison: str, values: Iterable[mpf], others: Iterable[mpf | None], floor: str = "1e-300") -> None:
    """Record how far two sets of values differ, each relative to its size or the floor; None is not compared."""
    for a, b in zip(values, others, strict=True):
        if b is not None:
            record(comparison, abs(a - b) / max(abs(a), abs(b), mpf(floor)))


# ------------------------------------------------------------------------------------------- one input


def compare_with_quad(name: str, q: float, values: Moments) -> None:
    """<φ²> and <φ'²> by mpmath's own tanh-sinh rule."""
    panels, root, phi = break_points(name, q), mp.sqrt(mpf(q)), ACTIVATIONS[name]
    with mp.workdps(30):
        for k, value in enumerate((values.phi2, values.dphi2)):
            integral = mp.quad(lambda z, k=k: phi(root * z)[k] ** 2 * mp.exp(-z * z / 2), panels)
            compare("1d mp.quad", [value], [integral / mp.sqrt(2 * mp.pi)])


def checked_moments(name: str, q: float) -> Moments:
    """The one-input averages at q, compared with every other way to them."""
    # sin at q = 100: d<φ²>/dq = exp(-200) comes out of the difference of numbers near 1.
    digits, n = (140, 160) if name == "sin" and q == 100.0 else (44, 44)
    with mp.workdps(digits):
        values = moments(name, q, n)
        if name == "sign":  # φ² = 1 and φ' = 0: the quadrature must find zero
            assert max(abs(values.dphi2), abs(values.d_phi2_dq) * mpf(q)) < mpf("1e-40")
            values = Moments(values.phi2, mpf(0), mpf(0))
        else:
            by_parts = average(name, q, [lambda phi, dphi, z: z * phi * dphi], n)[0] / mp.sqrt(mpf(q))
            compare("1d dq by parts", [values.d_phi2_dq], [by_parts])
        closed = closed_moments(name, q)
        cancels = name in ("elu", "selu") and q < 1e-3
        if closed is not None and not cancels:
            compare("1d closed form", values, closed)
        if q in (0.5, 100.0):
            compare_with_quad(name, q, values)
    return values


def one_input_rows(name: str, q: float) -> list[Row]:
    """The rows of one activation function at one variance."""
    values = checked_moments(name, q)
    given = {"activation": name, "q": exact_decimal(q)}
    return [given | {"quantity": k, "value": decimal(value)} for k, value in values._asdict().items()]


# ------------------------------------------------------------------------------------------- two inputs


def checked_pair(name: str, q_aa: float, q_ab: float, q_bb: float) -> PairAverages:
    """The two-input averages, compared with every other way to them."""
    with mp.workdps(60 if name == "sin" else mp.dps):  # averages of sin are as small as 1e-17
        values, error = pair_averages(name, q_aa, q_ab, q_bb)
    if error is not None:
        record("2d shifted lattices", error)
    if ACTIVATIONS[name].kinks:
        compare("2d conditioning", values, pair_by_conditioning(name, q_aa, q_ab, q_bb), floor="1e-30")
    compare("2d closed form", values, closed_pair(name, q_aa, q_ab, q_bb))
    return values


def two_input_rows(name: str, q_aa: float, q_bb: float, c: float) -> list[Row]:
    """The rows of one activation function at one covariance: q_ab is rounded to a double, then taken as exact."""
    q_ab = c * (q_aa * q_bb) ** 0.5
    values = checked_pair(name, q_aa, q_ab, q_bb)._asdict()
    if name == "sign":
        values["dphi_dphi"] = None  # a product of distributions: not applicable
    given = {"activation": name} | {k: exact_decimal(q) for k, q in (("q_aa", q_aa), ("q_ab", q_ab), ("q_bb", q_bb))}
    return [given | {"quantity": k, "value": decimal(value)} for k, value in values.items()]


# ------------------------------------------------------------------------------------------- the table


def cases() -> list[Case]:
    """Every case, in the order of the file."""
    out = []
    for name in NAMES:
        quick = name in QUICK_NAMES
        out += [Case(f"{name} at q = {q:g}", partial(one_input_rows, name, q), quick=quick) for q in VARIANCES]
        out += [
            Case(f"{name} at {pair}", partial(two_input_rows, name, *pair), quick=quick and pair in QUICK_PAIRS)
            for pair in PAIRS
        ]
    return out


def source() -> str:
    """How the table was made, with what the comparisons found."""
    return (
        "make_gaussian_expectations.py: mpmath quadrature at >= 36 digits, split at kinks. "
        "Largest relative disagreement with the cross-checks: "
        + ", ".join(f"{comparison} {decimal(x, 2)}" for comparison, x in worst.items())
    )


TABLE = Table(
    file="gaussian_expectations.json",
    description=(
        "Gaussian averages of activation functions. One-input rows: phi2 = <phi^2>_q, dphi2 = <phi'^2>_q, "
        "d_phi2_dq = d<phi^2>_q/dq with <f>_q = E f(sqrt(q) z), z~N(0,1). "
        "Two-input rows: phi_phi = E phi(u_a)phi(u_b), dphi_dphi = E phi'(u_a)phi'(u_b), "
        "phi2_phi2 = E phi(u_a)^2 phi(u_b)^2 with (u_a,u_b)~N(0,[[q_aa,q_ab],[q_ab,q_bb]]). "
        "phi' is the almost-everywhere derivative: for sign it is 0 almost everywhere, so dphi2 is exactly 0 there "
        "(not the distributional derivative, which is infinite) and dphi_dphi is null (not applicable). "
        f"leaky_relu slope 1/5; elu alpha 1; selu lambda={SELU_SCALE} alpha={SELU_ALPHA}; "
        "gelu u*Phi(u) (exact, erf form); hard_tanh clips to [-1,1]; sign(0) irrelevant."
    ),
    source=source,
    format=(
        "rows: activation, quantity, value (20 significant digits, decimal string, or null) and either q or "
        "q_aa,q_ab,q_bb: the exact decimal expansion of the IEEE double used "
        "(q_ab = c*sqrt(q_aa*q_bb) rounded to a double, then taken as exact)."
    ),
    cases=cases(),
)

if __name__ == "__main__":
    main(TABLE)
