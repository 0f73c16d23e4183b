"""fixed_points.json: fixed points of the variance map and of the correlation map, and points of the critical line.

Variance map Q(q) = σ_w² <φ²>_q + σ_b². Every fixed point in (0, 1e6): sign changes of Q(q) - q on a logarithmic grid of
240 points from 1e-9 (for |φ| <= 1 the grid ends at the bound Q <= σ_w² + σ_b²), each polished at 44 digits by Newton
with the slope dQ/dq = σ_w²/(2q) <(z² - 1) φ²>. The affine maps of linear, relu and leaky_relu are solved directly and
the solution is verified by quadrature.

Correlation map C(c) = (σ_w² E φ_a φ_b + σ_b²)/q* = Σ p_n c^n, p_n >= 0, Σ p_n = 1 (Hermite series). Why no fixed point
is missing: C is convex on [0, 1] with C(1) = 1, so unless φ is affine there is exactly one more in [0, 1) if
χ_1 = C'(1) > 1, and none if χ_1 <= 1. On [-1, 0), C(-t) + t = even(t) + (t - odd(t)) with odd(t) <= t odd(1) and
odd(1) <= 1: a fixed point needs even = 0 and t = 1, that is φ odd, σ_b = 0 and c = -1. The one in [0, 1) is found by
Newton from c = 0, which is monotone for convex C; its slope is χ_c = σ_w² E φ'_a φ'_b.

Critical line: σ_w² = 1/<φ'²>_q and σ_b² = q - σ_w² <φ²>_q at given q, so that χ_1 = 1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import NamedTuple

from exact_activations import ACTIVATIONS, SELU_ALPHA, SELU_SCALE
from make_common import correlated, moments
from mpmath import mp, mpf
from table_file import Case, Row, Table, decimal, main

BOUNDED = {"tanh", "erf", "sigmoid", "sin", "hard_tanh", "sign", "tanh_cubed"}
NOT_ZERO_AT_ZERO = {"sigmoid", "softplus", "sign"}
AFFINE = {"linear": mpf(1), "relu": mpf(1) / 2, "leaky_relu": mpf(13) / 25}  # <φ²>_q = <φ'²>_q q
# <φ'²>_q in the limit q -> 0; 1 for the others.
SLOPE_AT_ZERO = {
    **AFFINE,
    "gelu": mpf(1) / 4,
    "silu": mpf(1) / 4,
    "tanh_cubed": mpf(0),
    "erf": 4 / mp.pi,
    "selu": mpf(SELU_SCALE) ** 2 * (1 + mpf(SELU_ALPHA) ** 2) / 2,
}

# activation, sigma_w2, sigma_b2
NETWORKS = [
    ("tanh", "1.05", "0.00002"),
    ("tanh", "1.5", "0.05"),
    ("tanh", "2.5", "0.1"),
    ("tanh", "0.9", "0"),
    ("tanh", "2.5", "0"),
    ("erf", "2", "0.05"),
    ("relu", "1.5", "0.1"),
    ("relu", "1.5", "0"),
    ("relu", "2", "0"),
    ("relu", "2", "0.1"),
    ("relu", "2.5", "0.1"),
    ("leaky_relu", "1.5", "0.1"),
    ("sin", "2", "0.1"),
    ("selu", "1.5", "0.1"),
    ("elu", "1.5", "0.1"),
    ("gelu", "1.5", "0.1"),
    ("silu", "1.5", "0.1"),
    ("sigmoid", "1.5", "0.1"),
    ("softplus", "1.5", "0.1"),
    ("tanh_cubed", "3", "0"),
    ("gelu", "3", "0"),
    ("gelu", "2.2", "0.01"),
    ("gelu", "2", "0.05"),
    ("silu", "2.5", "0.01"),
    ("hard_tanh", "1.5", "0.05"),
    ("sign", "1", "0.1"),
    ("linear", "1", "0"),
    ("linear", "1", "0.1"),
    ("linear", "0.5", "0.1"),
]
QUICK_NETWORKS = {("tanh", "2.5", "0.1"), ("relu", "1.5", "0"), ("relu", "2", "0.1"), ("linear", "0.5", "0.1")}

# activation, q_star
CRITICAL_LINE = [
    ("tanh", "0.01"),
    ("tanh", "0.1"),
    ("tanh", "0.5"),
    ("erf", "0.01"),
    ("erf", "0.1"),
    ("erf", "0.5"),
    ("gelu", "4"),
    ("hard_tanh", "0.1"),
    ("hard_tanh", "1"),
    ("silu", "30"),
]

# activation, sigma_w2, sigma_b2, keep probability
DROPOUT = [
    ("tanh", "1.5", "0.05", "0.8"),
    ("tanh", "1.5", "0.05", "0.95"),
    ("tanh", "2.5", "0.1", "0.9"),
    ("erf", "1.2", "0.01", "0.9"),
    ("relu", "1.2", "0.1", "0.8"),
    ("gelu", "1.5", "0.1", "0.9"),
    ("tanh", "0.91", "0", "0.9"),
    ("linear", "0.4", "0.1", "0.8"),
]
QUICK_DROPOUT = {"linear"}

# ------------------------------------------------------------------------------------------- variance map


class VarianceMap(NamedTuple):
    """Q(q) = sigma_w2 <φ²>_q + sigma_b2."""

    name: str
    sigma_w2: mpf
    sigma_b2: mpf

    def excess(self, q: mpf, n: int = 44) -> mpf:
        """Q(q) - q, zero at a fixed point."""
        return self.sigma_w2 * moments(self.name, q, n).phi2 + self.sigma_b2 - q


class VariancePoint(NamedTuple):
    """A fixed point of the variance map, with dQ/dq and χ_1 there."""

    q: mpf
    slope: mpf
    chi_1: mpf


def at_point(q_map: VarianceMap, q: mpf) -> VariancePoint:
    """The slopes at q."""
    m = moments(q_map.name, q)
    return VariancePoint(q, q_map.sigma_w2 * m.d_phi2_dq, q_map.sigma_w2 * m.dphi2)


def brackets(q_map: VarianceMap) -> tuple[list[tuple[mpf, mpf]], mpf]:
    """Intervals in which Q(q) - q changes sign, and the least |Q(q) - q|/q on the grid: how nearly one was missed."""
    top = q_map.sigma_w2 + q_map.sigma_b2 if q_map.name in BOUNDED else mpf(10) ** 6
    with mp.workdps(16):
        decades = mp.log10(top * mpf("1.01")) + 9
        grid = [mpf(10) ** (-9 + decades * i / 239) for i in range(240)]
        excess = [q_map.excess(q, 16) for q in grid]
    ends = list(zip(grid, excess, strict=True))
    changes = [(q, r) for (q, at_q), (r, at_r) in pairwise(ends) if at_q * at_r < 0]
    return changes, min(abs(e) / q for q, e in ends)


def polish(q_map: VarianceMap, low: mpf, high: mpf) -> VariancePoint:
    """The fixed point between low and high, by Newton kept inside the shrinking bracket.

    Known flaw, kept because the stored strings come from it: an iterate with Q(q) - q = 0 in every digit becomes an end
    of the bracket, Newton's step is then refused, and bisection uses up the 60 steps. Such a q (README.md lists them)
    is right to 2e-18 of its size and not to the 20 digits written. The cure is to return q where excess is zero.
    """
    with mp.workdps(44):
        at_low = q_map.excess(low)
        q = (low + high) / 2
        for _ in range(60):
            m = moments(q_map.name, q)
            excess = q_map.sigma_w2 * m.phi2 + q_map.sigma_b2 - q
            if excess * at_low > 0:
                low = q
            else:
                high = q
            previous, q = q, q - excess / (q_map.sigma_w2 * m.d_phi2_dq - 1)
            if not low < q < high:
                q = (low + high) / 2
            if abs(q - previous) < mpf("1e-34") * previous:
                break
        return at_point(q_map, q)


def affine_fixed_point(q_map: VarianceMap) -> VariancePoint:
    """σ_b²/(1 - k) for Q(q) = k q + σ_b², confirmed by quadrature."""
    q = q_map.sigma_b2 / (1 - q_map.sigma_w2 * AFFINE[q_map.name])
    assert abs(q_map.excess(q) / q) < mpf("1e-28")
    return at_point(q_map, q)


def only_fixed_point(q_map: VarianceMap) -> VariancePoint:
    """The fixed point in (0, 1e6) of a map that has one."""
    if q_map.name in AFFINE:
        return affine_fixed_point(q_map)
    found, _ = brackets(q_map)
    assert len(found) == 1
    return polish(q_map, *found[0])


# ------------------------------------------------------------------------------------------- correlation map


class CorrelationPoint(NamedTuple):
    """A fixed point of the correlation map, its slope (None where infinite), and whether it attracts."""

    c: mpf
    slope: mpf | None
    stable: bool


def newton(start: mpf, value_and_slope: Callable[[mpf], tuple[mpf, mpf]]) -> mpf:
    """The fixed point of c -> C(c) reached from start, given C and C' together."""
    c = start
    for _ in range(60):
        value, slope = value_and_slope(c)
        previous, c = c, c - (value - c) / (slope - 1)
        if abs(c - previous) < mpf("1e-26"):
            return c
    raise RuntimeError("Newton did not converge")


def below_one(name: str, sigma_w2: mpf, sigma_b2: mpf, q: mpf) -> tuple[mpf, mpf]:
    """(c, χ_c) of the fixed point in [0, 1), where there is one; zero, exactly, for odd φ without biases."""

    def value_and_slope(c: mpf) -> tuple[mpf, mpf]:
        pair = correlated(name, q, c)
        return (sigma_w2 * pair.phi_phi + sigma_b2) / q, sigma_w2 * pair.dphi_dphi

    odd_without_bias = ACTIVATIONS[name].odd and sigma_b2 == 0
    c = mpf(0) if odd_without_bias else newton(mpf(0), value_and_slope)
    return c, value_and_slope(c)[1]


def correlation_points(q_map: VarianceMap, point: VariancePoint) -> list[CorrelationPoint]:
    """Every fixed point in [-1, 1], least first."""
    name, sigma_w2, sigma_b2 = q_map
    ordered = point.chi_1 < 1
    points = [CorrelationPoint(mpf(1), point.chi_1, ordered)]
    if ACTIVATIONS[name].odd and sigma_b2 == 0:
        points.append(CorrelationPoint(mpf(-1), point.chi_1, ordered))
    if name != "linear" and point.chi_1 > 1:
        c, chi_c = below_one(name, sigma_w2, sigma_b2, point.q)
        points.append(CorrelationPoint(c, chi_c, chi_c < 1))
    return sorted(points)


def sign_correlation_points(q_map: VarianceMap, q: mpf) -> list[CorrelationPoint]:
    """The same for sign: C by quadrature, its slope σ_w²/q (2/π)/√(1 - c²) by Price's theorem, infinite at c = 1."""

    def slope(c: mpf) -> mpf:
        return q_map.sigma_w2 / q * 2 / mp.pi / mp.sqrt(1 - c * c)

    def value_and_slope(c: mpf) -> tuple[mpf, mpf]:
        return (q_map.sigma_w2 * correlated("sign", q, c).phi_phi + q_map.sigma_b2) / q, slope(c)

    c = newton(mpf("0.5"), value_and_slope)
    return [CorrelationPoint(c, slope(c), True), CorrelationPoint(mpf(1), None, False)]


# ------------------------------------------------------------------------------------------- rows


def depth_scale(slope: mpf | None) -> str | None:
    """ξ = -1/log|slope| as the tables write it: null for a slope above 1 or 0, 'inf' for a slope of 1."""
    if slope is None or slope == 0 or slope > 1:
        return None
    return "inf" if slope == 1 else decimal(-1 / mp.log(abs(slope)))


def point_entry(point: VariancePoint, phase: str, chi_1: mpf | None, points: list[CorrelationPoint]) -> Row:
    """What a row says of one fixed point q* > 0."""
    c_star, chi_c, _ = next((p for p in points if p.stable and p.c >= 0), (None, None, None))
    return {
        "q_star": decimal(point.q),
        "dQ_dq": decimal(point.slope),
        "stable": bool(point.slope < 1),
        "chi_1": decimal(chi_1),
        "phase": phase,
        "xi_q": depth_scale(point.slope),
        "c_fixed_points": [
            {"c": decimal(p.c), "slope": "inf" if p.slope is None else decimal(p.slope), "stable": bool(p.stable)}
            for p in points
        ],
        "c_star": decimal(c_star),
        "chi_c_star": decimal(chi_c),
        "xi_c": depth_scale(chi_c),
    }


def smooth_entry(q_map: VarianceMap, point: VariancePoint) -> Row:
    """The entry of a φ whose χ_1 exists."""
    phase = "ordered" if point.chi_1 < 1 else "chaotic"
    return point_entry(point, phase, point.chi_1, correlation_points(q_map, point))


def zero_entry(q_map: VarianceMap) -> Row:
    """What a row says of the fixed point q = 0."""
    slope = q_map.sigma_w2 * SLOPE_AT_ZERO.get(q_map.name, mpf(1))
    return {
        "q_star": "0",
        "dQ_dq": decimal(slope),
        "stable": bool(slope < 1) if slope != 1 else None,
        "chi_1": decimal(slope),
        "xi_q": depth_scale(slope),
        "c_fixed_points": None,
        "c_star": None,
        "chi_c_star": None,
        "xi_c": None,
    }


def affine_fields(q_map: VarianceMap) -> Row:
    """Status and fixed points of Q(q) = k q + σ_b²."""
    factor = q_map.sigma_w2 * AFFINE[q_map.name]
    if factor == 1 and q_map.sigma_b2 == 0:
        note = "every q >= 0 is a fixed point, dQ/dq = chi_1 = 1; c = 1 is marginal (slope 1)"
        if q_map.name == "linear":
            note = "every q >= 0 and every c is a fixed point, all slopes 1"
        return {"status": "continuum", "note": note, "fixed_points": []}
    if q_map.sigma_b2 == 0:
        return {"status": "zero_only", "fixed_points": [zero_entry(q_map)]}
    if factor >= 1:
        return {"status": "none", "note": "Q(q) - q >= sigma_b2 > 0: q^l -> infinity", "fixed_points": []}
    return {"status": "ok", "fixed_points": [smooth_entry(q_map, affine_fixed_point(q_map))]}


def sign_fields(q_map: VarianceMap) -> Row:
    """Status and fixed points for sign, whose Q is the constant σ_w² + σ_b²."""
    point = VariancePoint(q_map.sigma_w2 + q_map.sigma_b2, mpf(0), mpf(0))
    return {
        "status": "ok",
        "note": (
            "chi_1 is not applicable: the C-map slope at c = 1 is infinite while the almost-everywhere gradient factor "
            "is 0; slopes here are dC/dc (Price)"
        ),
        "fixed_points": [point_entry(point, "n/a", None, sign_correlation_points(q_map, point.q))],
    }


def scanned_fields(q_map: VarianceMap) -> Row:
    """Status and fixed points of any other φ."""
    found, nearest_miss = brackets(q_map)
    zero = [zero_entry(q_map)] if q_map.sigma_b2 == 0 and q_map.name not in NOT_ZERO_AT_ZERO else []
    return {
        "status": "ok" if found else "zero_only",
        "scan_min_relative_distance": decimal(nearest_miss, 3),
        "fixed_points": zero + [smooth_entry(q_map, polish(q_map, *bracket)) for bracket in found],
    }


def fixed_points_row(name: str, sigma_w2: str, sigma_b2: str) -> list[Row]:
    """The row of one network."""
    q_map = VarianceMap(name, mpf(sigma_w2), mpf(sigma_b2))
    fields = affine_fields if name in AFFINE else sign_fields if name == "sign" else scanned_fields
    given = {"kind": "fixed_points", "activation": name, "sigma_w2": sigma_w2, "sigma_b2": sigma_b2}
    return [given | fields(q_map)]


def critical_map(name: str, q: mpf) -> tuple[VarianceMap, mpf]:
    """The map with χ_1 = 1 whose fixed point is q, and dQ/dq there."""
    m = moments(name, q)
    sigma_w2 = 1 / m.dphi2
    return VarianceMap(name, sigma_w2, q - sigma_w2 * m.phi2), sigma_w2 * m.d_phi2_dq


def critical_line_row(name: str, q_star: str) -> list[Row]:
    """The point of the critical line at q*."""
    with mp.workdps(44):
        q_map, slope = critical_map(name, mpf(q_star))
    row = {
        "kind": "critical_line",
        "activation": name,
        "q_star": q_star,
        "sigma_w2": decimal(q_map.sigma_w2),
        "sigma_b2": decimal(q_map.sigma_b2),
        "dQ_dq": decimal(slope),
        "valid": bool(q_map.sigma_b2 >= 0 and abs(slope) < 1),
        "xi_q": depth_scale(slope),
    }
    return [row]


def root(f: Callable[[mpf], mpf], low: int, high: int, tolerance: str) -> mpf:
    """The zero of f between low and high."""
    return mp.findroot(f, (mpf(low), mpf(high)), solver="anderson", tol=mpf(tolerance))


def threshold_row(name: str, low: int, high: int) -> list[Row]:
    """Where the critical line begins to be valid: dQ/dq = 1 (equivalently <φ φ''> = 0), or σ_b² = 0 for sigmoid."""
    no_bias = name == "sigmoid"
    with mp.workdps(40):
        if no_bias:
            q = root(lambda q: critical_map(name, q)[0].sigma_b2, low, high, "1e-31")
        else:
            q = root(lambda q: critical_map(name, q)[1] - 1, low, high, "1e-33")
        q_map, slope = critical_map(name, q)
    note = "|dQ/dq| = 1 here; the critical line is valid only for larger q*"
    if no_bias:
        note = "sigma_b2 = 0 here; sigma_b2 < 0 for smaller q*, valid critical line for larger q*"
    row = {
        "kind": "critical_line_threshold",
        "activation": name,
        "q_star": decimal(q),
        "sigma_w2": decimal(q_map.sigma_w2),
        "sigma_b2": "0" if no_bias else decimal(q_map.sigma_b2),
        "dQ_dq": decimal(slope),
        "note": note,
    }
    return [row]


def dropout_row(name: str, sigma_w2: str, sigma_b2: str, keep: str) -> list[Row]:
    """The fixed points under dropout: q* of Q with σ_w²/ρ, c* of C with σ_w², where C(1) < 1 makes it unique."""
    rho = mpf(keep)
    point = only_fixed_point(VarianceMap(name, mpf(sigma_w2) / rho, mpf(sigma_b2)))
    c, chi_c = below_one(name, mpf(sigma_w2), mpf(sigma_b2), point.q)
    assert chi_c <= rho
    row = {
        "kind": "dropout_fixed_point",
        "activation": name,
        "sigma_w2": sigma_w2,
        "sigma_b2": sigma_b2,
        "keep_probability": keep,
        "q_star": decimal(point.q),
        "dQ_dq": decimal(point.slope),
        "gradient_factor_diagonal": decimal(point.chi_1),
        "c_star": decimal(c),
        "chi_c_star": decimal(chi_c),
        "chi_c_over_rho": decimal(chi_c / rho),
        "xi_c": depth_scale(chi_c),
        "xi_c_bound": decimal(-1 / mp.log(rho)),
    }
    return [row]


# ------------------------------------------------------------------------------------------- the table


def cases() -> list[Case]:
    """Every case, in the order of the file."""
    thresholds = [("gelu", 3, 4), ("silu", 10, 30), ("sigmoid", 40, 50)]
    return [
        *(Case(" ".join(n), partial(fixed_points_row, *n), quick=n in QUICK_NETWORKS) for n in NETWORKS),
        *(Case(f"critical: {n} {q}", partial(critical_line_row, n, q), quick=True) for n, q in CRITICAL_LINE),
        *(Case(f"threshold: {t[0]}", partial(threshold_row, *t), quick=t[0] == "gelu") for t in thresholds),
        *(Case(f"dropout: {' '.join(d)}", partial(dropout_row, *d), quick=d[0] in QUICK_DROPOUT) for d in DROPOUT),
    ]


TABLE = Table(
    file="fixed_points.json",
    description=(
        "Fixed points of Q(q)=sigma_w2<phi^2>_q+sigma_b2 (all in (0,1e6), plus q=0 where sigma_b2=0 and phi(0)=0; "
        "there dQ/dq and chi_1 are the limits q->0), dQ/dq, chi_1=sigma_w2<phi'^2>, and for each q*>0 all fixed points "
        "c in [-1,1] of C(c)=(sigma_w2 E phi_a phi_b+sigma_b2)/q* with slope dC/dc=sigma_w2 E phi'_a phi'_b. c_star is "
        "the stable one in [0,1] (null if none). xi=-1/log|slope|, null for slope>1 or 0, 'inf' for slope 1. "
        "status: ok | continuum | none (q->infinity) | zero_only. "
        "tanh_cubed is tanh(u^3). stable refers to the q map only (slope<1). kind=critical_line: sigma_w2=1/<phi'^2>, "
        "sigma_b2=q-sigma_w2<phi^2>, valid iff sigma_b2>=0 and |dQ/dq|<1. "
        "kind=dropout_fixed_point: independent masks per input, q*=(sigma_w2/rho)<phi^2>+sigma_b2, "
        "C(c)=(sigma_w2 E phi_a phi_b+sigma_b2)/q*, unique c* in [0,1), chi_c_star=sigma_w2 E phi'_a phi'_b <= rho, "
        "gradient_factor_diagonal=(sigma_w2/rho)<phi'^2>. "
        "sigma_w2 and sigma_b2 are the exact decimals (not the nearest doubles)."
    ),
    source=lambda: (
        "make_fixed_points.py, quadrature + Newton at 36-44 digits; "
        "c lists complete by convexity of the Hermite series (see script docstring). "
        "The affine maps of linear/relu/leaky_relu use q*=sigma_b2/(1-k), verified by quadrature."
    ),
    format=(
        "rows: kind, activation, sigma_w2, sigma_b2, status, "
        "fixed_points[{q_star,dQ_dq,stable,chi_1,phase,xi_q,c_fixed_points[{c,slope,stable}],"
        "c_star,chi_c_star,xi_c}]; numbers are decimal strings with 20 significant digits"
    ),
    cases=cases(),
)

if __name__ == "__main__":
    main(TABLE)
