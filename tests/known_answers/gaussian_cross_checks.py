"""Second opinions on the Gaussian averages, for make_gaussian_expectations: none of these values enters the table.

One input: closed forms. Two inputs: closed forms, and for φ with kinks the mean over u_b given u_a in closed form
(moments of a truncated Gaussian, erfc) inside a one-dimensional Gauss-Legendre rule over u_a.
"""

from __future__ import annotations

from exact_activations import ACTIVATIONS, SELU_ALPHA, SELU_SCALE, leaky_slope
from make_common import Moments, composite_rule, subdivide
from mpmath import mp, mpf


def _normal_cdf(x: mpf) -> mpf:
    return mp.erfc(-x / mp.sqrt(2)) / 2


def _normal_density(x: mpf) -> mpf:
    return mp.exp(-x * x / 2) / mp.sqrt(2 * mp.pi)


def _slope_below_zero(name: str) -> mpf:
    """The slope a of relu (zero) or leaky_relu for u < 0."""
    return mpf(0) if name == "relu" else leaky_slope()


def _scale_and_alpha(name: str) -> tuple[mpf, mpf]:
    """λ and α of selu or elu: λ u for u > 0, λ α (e^u - 1) below."""
    return (mpf(SELU_SCALE), mpf(SELU_ALPHA)) if name == "selu" else (mpf(1), mpf(1))


# ------------------------------------------------------------------------------------------- one input


def _hard_tanh_moments(q: mpf) -> Moments:
    edge = 1 / mp.sqrt(q)
    inside = mp.erf(edge / mp.sqrt(2))
    slope = inside - 2 * edge * _normal_density(edge)
    return Moments(q * slope + mp.erfc(edge / mp.sqrt(2)), inside, slope)


def _elu_moments(name: str, q: mpf) -> Moments:
    """With E [e^{ku}; u < 0] = e^{k²q/2} Φ(-k√q); loses digits by cancellation at small q."""
    scale, alpha = _scale_and_alpha(name)
    e1, e2 = (mp.exp(k * k * q / 2) * _normal_cdf(-k * mp.sqrt(q)) for k in (1, 2))
    half = mpf(1) / 2
    return Moments(
        scale**2 * (q / 2 + alpha**2 * (e2 - 2 * e1 + half)),
        scale**2 * (half + alpha**2 * e2),
        scale**2 * (half + alpha**2 * (2 * e2 - e1)),
    )


def closed_moments(name: str, q: mpf) -> Moments | None:
    """<φ²>, <φ'²> and d<φ²>/dq where a closed form is known."""
    q = mpf(q)
    if name == "linear":
        return Moments(q, mpf(1), mpf(1))
    if name in ("relu", "leaky_relu"):
        factor = (1 + _slope_below_zero(name) ** 2) / 2
        return Moments(factor * q, factor, factor)
    if name == "sign":
        return Moments(mpf(1), mpf(0), mpf(0))
    if name == "sin":
        return Moments((1 - mp.exp(-2 * q)) / 2, (1 + mp.exp(-2 * q)) / 2, mp.exp(-2 * q))
    if name == "erf":
        return Moments(
            2 / mp.pi * mp.asin(2 * q / (1 + 2 * q)),
            4 / mp.pi / mp.sqrt(1 + 4 * q),
            4 / mp.pi / (1 + 2 * q) / mp.sqrt(1 + 4 * q),
        )
    if name == "hard_tanh":
        return _hard_tanh_moments(q)
    return _elu_moments(name, q) if name in ("elu", "selu") else None


# ------------------------------------------------------------------------------------------- two inputs

Triple = tuple[mpf | None, mpf | None, mpf | None]  # in the order of make_common.PairAverages


def _relu_pair(name: str, q_aa: mpf, q_ab: mpf, q_bb: mpf) -> Triple:
    """The arc-cosine kernels, for φ(u) = relu(u) - a relu(-u)."""
    size = mp.sqrt(q_aa * q_bb)
    a = _slope_below_zero(name)

    def kernels(c: mpf) -> tuple[mpf, mpf, mpf]:
        """E of the pairwise products of relu, relu' and relu² at unit variances and correlation c."""
        angle, sine = mp.pi - mp.acos(c), mp.sqrt(1 - c * c)
        return (
            (sine + c * angle) / (2 * mp.pi),
            angle / (2 * mp.pi),
            (angle * (1 + 2 * c * c) + 3 * c * sine) / (2 * mp.pi),
        )

    (k, d, f), (k_minus, d_minus, f_minus) = kernels(q_ab / size), kernels(-q_ab / size)
    return (
        size * ((1 + a**2) * k - 2 * a * k_minus),
        (1 + a**2) * d + 2 * a * d_minus,
        size**2 * ((1 + a**4) * f + 2 * a**2 * f_minus),
    )


def _sin_pair(q_aa: mpf, q_ab: mpf, q_bb: mpf) -> Triple:
    decay = mp.exp(-(q_aa + q_bb) / 2)
    both = mp.exp(-2 * (q_aa + q_bb - 2 * q_ab)) + mp.exp(-2 * (q_aa + q_bb + 2 * q_ab))
    fourth = (1 - mp.exp(-2 * q_aa) - mp.exp(-2 * q_bb) + both / 2) / 4
    return decay * mp.sinh(q_ab), decay * mp.cosh(q_ab), fourth


def closed_pair(name: str, q_aa: mpf, q_ab: mpf, q_bb: mpf) -> Triple:
    """The two-input averages where a closed form is known, None elsewhere."""
    q_aa, q_ab, q_bb = mpf(q_aa), mpf(q_ab), mpf(q_bb)
    if name == "linear":
        return q_ab, mpf(1), q_aa * q_bb + 2 * q_ab**2
    if name in ("relu", "leaky_relu"):
        return _relu_pair(name, q_aa, q_ab, q_bb)
    if name == "erf":
        widened = (1 + 2 * q_aa) * (1 + 2 * q_bb)
        product = 2 / mp.pi * mp.asin(2 * q_ab / mp.sqrt(widened))
        return product, 4 / mp.pi / mp.sqrt(widened - 4 * q_ab**2), None
    if name == "sin":
        return _sin_pair(q_aa, q_ab, q_bb)
    if name == "sign":
        return 2 / mp.pi * mp.asin(q_ab / mp.sqrt(q_aa * q_bb)), None, mpf(1)
    return None, None, None


# ------------------------------------------------------------------------------------------- conditioning


def _probability(low: mpf, high: mpf) -> mpf:
    """Φ(high) - Φ(low), by erfc of the tail that does not cancel."""
    if low > 0:
        return _normal_cdf(-low) - _normal_cdf(-high)
    return _normal_cdf(high) - _normal_cdf(low)


def truncated_moments(m: mpf, s: mpf, low: mpf, high: mpf, highest: int) -> list[mpf]:
    """E [v^k; low < v < high] for v ~ N(m, s²) and k = 0..highest, by parts; either end may be infinite."""
    out = [_probability((low - m) / s, (high - m) / s)]

    def boundary(end: mpf, power: int) -> mpf:
        return mpf(0) if mp.isinf(end) else end**power * _normal_density((end - m) / s)

    for k in range(1, highest + 1):
        below = (k - 1) * s * s * out[k - 2] if k > 1 else mpf(0)
        out.append(m * out[k - 1] + below + s * (boundary(low, k - 1) - boundary(high, k - 1)))
    return out


def _conditional_elu(name: str, m: mpf, s: mpf) -> tuple[mpf, mpf, mpf]:
    scale, alpha = _scale_and_alpha(name)
    above, first, second = truncated_moments(m, s, mpf(0), mp.inf, 2)
    below = _probability(-mp.inf, -m / s)
    # E [e^{kv}; v < 0]
    e1, e2 = (mp.exp(k * m + k * k * s * s / 2) * _normal_cdf(-(m + k * s * s) / s) for k in (1, 2))
    return (
        scale * (first + alpha * (e1 - below)),
        scale * (above + alpha * e1),
        scale**2 * (second + alpha**2 * (e2 - 2 * e1 + below)),
    )


def conditional(name: str, m: mpf, s: mpf) -> tuple[mpf, mpf, mpf]:
    """E φ(v), E φ'(v) and E φ(v)² for v ~ N(m, s²), for φ with kinks."""
    if name in ("relu", "leaky_relu"):
        a = _slope_below_zero(name)
        up, down = truncated_moments(m, s, mpf(0), mp.inf, 2), truncated_moments(m, s, -mp.inf, mpf(0), 2)
        return up[1] + a * down[1], up[0] + a * down[0], up[2] + a**2 * down[2]
    if name == "sign":
        up, down = _probability(-m / s, mp.inf), _probability(-mp.inf, -m / s)
        return up - down, mpf(0), up + down
    if name == "hard_tanh":
        up, down = _probability((1 - m) / s, mp.inf), _probability(-mp.inf, (-1 - m) / s)
        inside = truncated_moments(m, s, mpf(-1), mpf(1), 2)
        return up - down + inside[1], inside[0], up + down + inside[2]
    return _conditional_elu(name, m, s)


def pair_by_conditioning(name: str, q_aa: mpf, q_ab: mpf, q_bb: mpf) -> list[mpf]:
    """The two-input averages of φ with kinks as E F(u_a) E[F(u_b) | u_a], in the order of PairAverages."""
    with mp.workdps(50):
        q_aa, q_ab, q_bb = mpf(q_aa), mpf(q_ab), mpf(q_bb)
        root_a, spread = mp.sqrt(q_aa), mp.sqrt((q_aa * q_bb - q_ab * q_ab) / q_aa)
        nodes, weights = composite_rule(_conditioning_breaks(name, q_aa, q_ab, q_bb), 44)
        totals = [mpf(0)] * 3
        for z, w in zip(nodes, weights, strict=True):
            phi, dphi = ACTIVATIONS[name](root_a * z)
            inner = conditional(name, q_ab / root_a * z, spread)
            for k, outer in enumerate((phi, dphi, phi * phi)):
                totals[k] += w * _normal_density(z) * outer * inner[k]
        return totals


def _conditioning_breaks(name: str, q_aa: mpf, q_ab: mpf, q_bb: mpf) -> list[mpf]:
    """Ends of the panels in u_a/√q_aa: the kinks of u_a, and a fan around each kink of u_b if it is sharp."""
    reach, kinks = mpf(13), ACTIVATIONS[name].kinks
    root_a, root_b = mp.sqrt(q_aa), mp.sqrt(q_bb)
    c = q_ab / (root_a * root_b)
    blur = mp.sqrt(1 - c * c) / abs(c)
    points = [-reach, reach, *(k / root_a for k in kinks)]
    if blur < 2:
        fan = [sign * j for sign in (-1, 1) for j in (0, 1, 2, 4, 6, 8, 10, 13)]
        points += [k / root_b / c + j * blur for k in kinks for j in fan]
    return subdivide([z for z in points if abs(z) <= reach], mpf("0.9"))
