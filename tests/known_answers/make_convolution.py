"""convolution.json: exact answers for small convolutional networks, offsets of taps as in convolution_paths.

kind "linear", "readout": second moments of signals and gradients at finite width, between all (input, position) pairs:
sums over paths in rational arithmetic (convolution_paths), the polynomials asserted equal to explicit networks. With a
readout, asserted at the last convolution: a flattening gives σ_w² g_a.g_b / P on equal positions and nothing off them,
an average over positions σ_w² g_a.g_b / P² on every pair.

kind "one_step": convolution, φ, convolution. Given the inputs h^1 is Gaussian with a covariance q^1 that paths give, so
that E φφ and E φ'φ' of its entries are the whole answer, at these widths; ReLU in closed form, tanh by a lattice sum.

kind "modes": the average over taps, w_β at offset β, turns e^{2πi f·p/n} into λ_f e^{2πi f·p/n}, λ_f = Σ_β w_β
e^{2πi f·β/n}. Three uniform taps: (1 + 2 cos(2πf/n))/3; binomial ones ¼, ½, ¼: cos²(πf/n); over two axes the product.

kind "tanh_point": where the modes of a covariance stand. Around q* and c* q* a change δ_f(0) of the diagonal and δ_f(d)
at displacement d move by λ_f dQ/dq and by λ_f χ_c*, and the diagonal feeds the rest: δ_f(d)' = λ_f [χ_c* δ_f(d) +
κ (1 + e^{2πi f·d/n}) δ_f(0)] with κ = ½ σ_w² E φ''(u_a) φ(u_b), by Price's theorem the derivative of σ_w² E φφ in one
variance at fixed covariance. So dQ/dq = χ_1 + 2κ where c* = 1, which is asserted.

kind "border_modes": a border of zeros cuts the average of three taps to a tridiagonal matrix, of eigenvalues
(1 + 2 cos(mπ/(n + 1)))/3 and eigenvectors sin(mπp/(n + 1)), p = 1 … n; at displacement d only n - d base positions
exist.

kind "border_relu": E q^l(p) of He's ReLU networks under a border of zeros, inputs all 1. E relu(h)² = q/2 whatever q,
so that the mean is linear in the layer below and exact at every width: q^1(p) = σ_b² + (2/3) t(p), t the taps inside,
and q^{l+1}(p) = σ_b² + ⅓ Σ q^l over the neighbours that exist. The rival, ⅓ Σ (q^l + σ_b²), loses bias at the border.

kind "border_tanh": the stationary q(p) of tanh under a border of zeros, a limit of infinite width: q(p) = σ_b² +
(σ_w²/3) Σ <tanh²>_q over the neighbours that exist.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from convolution_paths import Matrix, Paths, check_polynomials, check_signs, offsets
from make_common import average, moments, pair_averages
from mpmath import mp, mpf
from table_file import Case, Row, Table, decimal, main

# ------------------------------------------------------------------------------------------- numbers


def real(x: Fraction) -> mpf:
    """x in the working precision."""
    return mpf(x.numerator) / x.denominator


def line(entries: Iterable[Any]) -> str:
    """Numbers on one line: rationals as p/q, the others as decimals."""
    return " ".join(str(e) if isinstance(e, Fraction) else decimal(e) or "" for e in entries)


def triangle(matrix: Sequence[Sequence[Any]]) -> list[str]:
    """A symmetric matrix by its rows from the diagonal on."""
    return [line(row[i:]) for i, row in enumerate(matrix)]


def rationals(rng: np.random.Generator, channels: int, positions: int) -> list[list[list[Fraction]]]:
    """Two signals of small rationals without symmetry: numerators -5 … 5 over 1 … 4."""
    shape = (2, channels, positions)
    flat = [Fraction(int(rng.integers(-5, 6)), int(rng.integers(1, 5))) for _ in range(2 * channels * positions)]
    return np.array(flat, dtype=object).reshape(shape).tolist()  # type: ignore[no-any-return]


def described(kind: str, net: Paths, xs: list[list[list[Fraction]]]) -> Row:
    """What every row of a network begins with."""
    return {
        "kind": kind,
        "grid": list(net.grid),
        "kernel": list(net.kernel),
        "channels": list(net.channels),
        "padding": net.padding,
        "sigma_w2": str(net.sigma_w2),
        "sigma_b2": str(net.sigma_b2),
        "x": [[line(channel) for channel in x] for x in xs],
    }


# ------------------------------------------------------------------------------------------- linear networks

PADDINGS = ("circular", "zeros")

# grid, kernel, channels, sigma_w2, sigma_b2, seed of the inputs, paddings
LINEAR = [
    ((5,), (3,), (2, 2, 3, 2), "3/2", "1/5", 11, PADDINGS),
    ((5,), (2,), (2, 3, 2, 2), "5/4", "1/10", 12, PADDINGS),
    ((6,), (4,), (1, 2, 2), "7/4", "2/7", 13, PADDINGS),
    ((3,), (4,), (2, 2, 2), "4/3", "1/3", 14, ("zeros",)),  # a kernel longer than its axis
    ((3, 3), (3, 2), (2, 2, 2), "9/5", "1/4", 15, PADDINGS),
    ((2, 4), (2, 3), (1, 2, 3), "6/5", "1/8", 16, PADDINGS),
]

# grid, kernel, channels, sigma_w2, sigma_b2, seed of the inputs
READOUT = [
    ((4,), (3,), (2, 2, 2), "3/2", "1/5", 21),
    ((4,), (2,), (1, 2, 3), "5/4", "1/6", 22),
    ((2, 3), (3, 2), (1, 2, 2), "9/5", "1/4", 23),
]

# grid, kernel, depth, sigma_w2, sigma_b2 of the networks of one channel whose patterns of signs are all run
SIGNS = [((4,), (3,), 3, "3/2", "1/5"), ((3,), (2,), 3, "5/4", "1/3"), ((2, 3), (2, 2), 2, "9/5", "1/4")]


def fits(net: Paths) -> bool:
    """Whether no tap sees a position twice."""
    return net.padding == "zeros" or all(k <= n for k, n in zip(net.kernel, net.grid, strict=True))


def linear_rows(net: Paths, seed: int) -> list[Row]:
    """The row of one network without a readout."""
    rng = np.random.default_rng(seed)
    xs, vs = (rationals(rng, c, len(net.positions)) for c in (net.channels[0], net.channels[-1]))
    check_polynomials(net, xs, vs)
    layers = range(1, net.depth + 1)
    return [
        described("linear", net, xs)
        | {
            "v": [[line(channel) for channel in v] for v in vs],
            "covariance": [triangle(net.covariance(xs, l)) for l in layers],
            "gradient_moment": [triangle(net.gradient_moment(vs, l)) for l in layers],
        }
    ]


def readout_rows(net: Paths, seed: int) -> list[Row]:
    """The row of one network with a readout; g are the cotangents of its outputs."""
    rng = np.random.default_rng(seed)
    xs = rationals(rng, net.channels[0], len(net.positions))
    g = [[Fraction(int(rng.integers(-4, 5)), 2) for _ in range(net.outputs)] for _ in xs]
    check_polynomials(net, xs, g)
    gradients = [net.gradient_moment(g, l) for l in range(1, net.depth + 1)]
    check_last(net, g, gradients[-1])
    return [
        described("readout", net, xs)
        | {
            "readout": net.readout,
            "g": [line(v) for v in g],
            "output_moment": triangle(net.output_moment(xs)),
            "gradient_moment": [triangle(m) for m in gradients],
        }
    ]


def check_last(net: Paths, g: list[list[Fraction]], top: Matrix) -> None:
    """Asserts what a readout gives at the last convolution."""
    count = len(net.positions)
    for (a, p), (b, q) in product(product(range(len(g)), range(count)), repeat=2):
        dot = net.sigma_w2 * sum(s * t for s, t in zip(g[a], g[b], strict=True))
        flat = dot / count if p == q else 0
        assert top[a * count + p][b * count + q] == (dot / count**2 if net.readout == "average" else flat)


def sign_rows(net: Paths) -> list[Row]:
    """No row, but an assertion."""
    check_signs(net, rationals(np.random.default_rng(3), 1, len(net.positions)))
    return []


# ------------------------------------------------------------------------------------------- two Gaussian units


def tanh_pair(q_aa: mpf, q_ab: mpf, q_bb: mpf, digits: int = 24) -> tuple[mpf, mpf, mpf]:
    """E φφ, E φ'φ' and E φ''φ of tanh at u_a = √q_aa z1, u_b = (q_ab/√q_aa) z1 + r z2, by the trapezoidal rule.

    On the whole line the rule errs by exp(-2π d/h) for a step h where the integrand is analytic in a strip of
    half-width d: tanh(√q z) has its first pole at π/(2√q), and beyond d = 3 the Gaussian's own growth takes all
    gain."""
    root = mp.sqrt(q_aa)
    rest = mp.sqrt(q_bb - (q_ab / root) ** 2)
    d = min(mp.pi / (2 * mp.sqrt(max(q_aa, q_bb))), mpf(3))
    step = min(2 * mp.pi * d / (digits * mp.log(10) + 6 + d * d / 2), mpf(1) / 2)
    reach = 2 * (digits + 3) * mp.log(10)  # of the squared radius: what lies beyond has no weight
    top = int(mp.sqrt(reach) / step) + 1
    gauss = [mp.exp(-((k * step) ** 2) / 2) for k in range(top + 1)]
    totals = [mpf(0)] * 3
    for i in range(top + 1):  # (z1, z2) → (-z1, -z2) leaves all three unchanged: half the plane is enough
        t = mp.tanh(root * i * step)
        slope = 1 - t * t
        edge = int(mp.sqrt(max(reach - (i * step) ** 2, 0)) / step)
        inner = [(gauss[abs(k)], mp.tanh((q_ab / root) * i * step + rest * k * step)) for k in range(-edge, edge + 1)]
        value = mp.fsum(w * u for w, u in inner)
        slopes = mp.fsum(w * (1 - u * u) for w, u in inner)
        weight = gauss[i] * (1 if i else mpf(1) / 2)
        terms = (t * value, slope * slopes, -2 * t * slope * value)
        totals = [total + weight * term for total, term in zip(totals, terms, strict=True)]
    scale = step * step / mp.pi
    return totals[0] * scale, totals[1] * scale, totals[2] * scale


def relu_pair(q_aa: mpf, q_ab: mpf, q_bb: mpf) -> tuple[mpf, mpf]:
    """The arc-cosine kernels of order 1 and 0, θ = arccos c."""
    root = mp.sqrt(q_aa * q_bb)
    c = max(min(q_ab / root, mpf(1)), mpf(-1))
    angle = mp.acos(c)
    return root * (mp.sin(angle) + (mp.pi - angle) * c) / (2 * mp.pi), (mp.pi - angle) / (2 * mp.pi)


def expectations(phi: str, q: list[list[mpf]]) -> tuple[list[list[mpf]], list[list[mpf]]]:
    """E φφ and E φ'φ' of every pair of units; one pair is asserted against the quadratures of make_common."""
    size = len(q)
    values, slopes = ([[mpf(0)] * size for _ in q] for _ in range(2))
    for u in range(size):
        for w in range(u, size):
            if phi == "relu":
                pair: Sequence[mpf] = relu_pair(q[u][u], q[u][w], q[w][w])
            elif u == w:
                pair = moments("tanh", q[u][u])[:2]
            else:
                pair = tanh_pair(q[u][u], q[u][w], q[w][w])
            values[u][w], slopes[u][w] = values[w][u], slopes[w][u] = pair[:2]
    second = pair_averages(phi, q[0][0], q[0][5], q[5][5])[0]
    assert max(abs(values[0][5] - second.phi_phi), abs(slopes[0][5] - second.dphi_dphi)) < mpf("1e-22")
    return values, slopes


def one_step_rows(phi: str, padding: str, sigma_w2: str, sigma_b2: str) -> list[Row]:
    """The row of convolution, φ, convolution on four positions: q^2 and δ^1, pair by pair and tap by tap."""
    net = Paths((4,), (3,), (2, 3, 2), Fraction(sigma_w2), Fraction(sigma_b2), padding)
    rng, count = np.random.default_rng(31), len(net.positions)
    xs, vs = rationals(rng, 2, count), rationals(rng, 2, count)
    xs = [[[t / 2 for t in channel] for channel in x] for x in xs]
    first = net.covariance(xs, 1)
    values, slopes = expectations(phi, [[real(e) for e in row] for row in first])
    second, gradient = ([[mpf(0)] * len(first) for _ in first] for _ in range(2))
    per_tap = real(net.sigma_w2) / len(net.taps)
    for (a, p), (b, r) in product(product((0, 1), range(count)), repeat=2):
        u, w = a * count + p, b * count + r
        seen = [(net.move((p,), t), net.move((r,), t)) for t in net.taps]
        second[u][w] = real(net.sigma_b2) + per_tap * mp.fsum(
            values[a * count + i[0]][b * count + k[0]] for i, k in seen if i is not None and k is not None
        )
        seeing = [(net.move((p,), t, -1), net.move((r,), t, -1)) for t in net.taps]
        met = [vs[a][j][i[0]] * vs[b][j][k[0]] for i, k in seeing if i is not None and k is not None for j in (0, 1)]
        gradient[u][w] = per_tap * slopes[u][w] * real(sum(met, Fraction(0)))
    return [
        described("one_step", net, xs)
        | {
            "activation": phi,
            "v": [[line(channel) for channel in v] for v in vs],
            "covariance": [triangle(first), triangle(second)],
            "gradient_moment": triangle(gradient),
        }
    ]


# ------------------------------------------------------------------------------------------- modes

# grid, kernel, taps
MODES = [
    ((8,), (3,), "uniform"),
    ((8,), (3,), "binomial"),
    ((8,), (2,), "uniform"),
    ((8,), (4,), "uniform"),
    ((4, 6), (3, 3), "uniform"),
    ((4, 6), (3, 3), "binomial"),
]


def eigenvalue(f: int, n: int, kernel: int, taps: str) -> Any:
    """λ_f along one axis; closed for three taps."""
    if kernel == 3:
        return mp.cos(mp.pi * f / n) ** 2 if taps == "binomial" else (1 + 2 * mp.cos(2 * mp.pi * f / n)) / 3
    return mp.fsum(mp.expjpi(mpf(2 * f) * b / n) for b in offsets(kernel)) / kernel


def clean(x: mpf) -> mpf:
    """x, or 0 where it is the rounding of π."""
    return x if abs(x) > mpf("1e-30") else mpf(0)


def mode_rows(grid: tuple[int, ...], kernel: tuple[int, ...], taps: str) -> list[Row]:
    """λ_f for every frequency, the last axis running fastest."""
    found = []
    for f in product(*map(range, grid)):
        factor = mpf(1)
        for axis, n, k in zip(f, grid, kernel, strict=True):
            factor = factor * eigenvalue(axis, n, k, taps)
        found.append(factor)
    return [
        {
            "kind": "modes",
            "grid": list(grid),
            "kernel": list(kernel),
            "taps": taps,
            "real": line(clean(mp.re(e)) for e in found),
            "imaginary": line(clean(mp.im(e)) for e in found),
        }
    ]


def tanh_point_rows(sigma_w2: str, sigma_b2: str, q: str, c: str) -> list[Row]:
    """q*, dQ/dq, χ_1, c*, χ_c* and κ by Newton, from a start near by; c = "1": that c* is 1."""
    w, b, x = mpf(sigma_w2), mpf(sigma_b2), mpf(q)
    for _ in range(8):
        phi2, dphi2, slope = moments("tanh", x)
        x += (w * phi2 + b - x) / (1 - w * slope)
    row = {"kind": "tanh_point", "sigma_w2": sigma_w2, "sigma_b2": sigma_b2, "q": decimal(x)}
    row |= {"slope_q": decimal(w * slope), "chi_1": decimal(w * dphi2)}
    if c == "1":
        (curved,) = average("tanh", x, [lambda phi, dphi, z: -2 * phi * phi * dphi])  # φ'' φ
        assert abs(w * (slope - dphi2 - curved)) < mpf("1e-26")
        return [row | {"c": "1", "chi_c": decimal(w * dphi2), "kappa": decimal(w * curved / 2)}]
    at = mpf(c)
    for _ in range(6):
        value, slope_c, curved = tanh_pair(x, at * x, x)
        at += ((w * value + b) / x - at) / (1 - w * slope_c)
    value, slope_c, curved = tanh_pair(x, at * x, x)
    assert abs((w * value + b) / x - at) < mpf("1e-22")
    second = pair_averages("tanh", x, at * x, x)[0]
    assert max(abs(value - second.phi_phi), abs(slope_c - second.dphi_dphi)) < mpf("1e-22")
    return [row | {"c": decimal(at), "chi_c": decimal(w * slope_c), "kappa": decimal(w * curved / 2)}]


# ------------------------------------------------------------------------------------------- borders of zeros

POSITIONS, LAYERS = 8, 6


def inside(p: int) -> list[int]:
    """The positions that three taps at p see."""
    return [p + b for b in offsets(3) if 0 <= p + b < POSITIONS]


def border_mode_rows() -> list[Row]:
    """All eigenvalues at displacement 0, and the largest at every displacement."""
    n = POSITIONS
    return [
        {
            "kind": "border_modes",
            "positions": n,
            "eigenvalues": line(clean((1 + 2 * mp.cos(m * mp.pi / (n + 1))) / 3) for m in range(1, n + 1)),
            "largest": line((1 + 2 * mp.cos(mp.pi / (n - d + 1))) / 3 for d in range(n)),
        }
    ]


def border_relu_rows(sigma_b2: str) -> list[Row]:
    """E q^l(p), and the rival's."""
    b = Fraction(sigma_b2)
    q = [b + Fraction(2, 3) * len(inside(p)) for p in range(POSITIONS)]
    right, wrong = [q], [q]
    for _ in range(LAYERS - 1):
        right.append([b + sum((right[-1][i] for i in inside(p)), Fraction(0)) / 3 for p in range(POSITIONS)])
        wrong.append([sum((wrong[-1][i] + b for i in inside(p)), Fraction(0)) / 3 for p in range(POSITIONS)])
    profiles = {"q": [line(row) for row in right], "rival_bias_averaged": [line(row) for row in wrong]}
    return [{"kind": "border_relu", "positions": POSITIONS, "sigma_w2": "2", "sigma_b2": sigma_b2, **profiles}]


def border_tanh_rows(sigma_w2: str, sigma_b2: str) -> list[Row]:
    """The stationary profile, iterated until it stands: the slowest of its changes shrinks by about a half a layer."""
    w, b = mpf(sigma_w2), mpf(sigma_b2)
    q = [mpf("0.4")] * POSITIONS
    change = mpf(1)
    while change > mpf("1e-22"):
        half = [moments("tanh", t, n=24).phi2 for t in q[: POSITIONS // 2]]
        t2 = half + half[::-1]  # the profile is symmetric
        new = [b + w / 3 * mp.fsum(t2[i] for i in inside(p)) for p in range(POSITIONS)]
        change = max(abs(s - t) for s, t in zip(new, q, strict=True))
        q = new
    row = {"kind": "border_tanh", "positions": POSITIONS, "sigma_w2": sigma_w2, "sigma_b2": sigma_b2}
    return [row | {"q": line(q)}]


# ------------------------------------------------------------------------------------------- the table


def network_cases() -> list[Case]:
    """Networks by their paths; those of two layers are quick."""
    found = []
    for grid, kernel, channels, sigma_w2, sigma_b2, seed, paddings in LINEAR:
        for padding in paddings:
            net = Paths(grid, kernel, channels, Fraction(sigma_w2), Fraction(sigma_b2), padding)
            label = f"linear {grid} {kernel} {padding}"
            found.append(Case(label, partial(linear_rows, net, seed), quick=net.depth == 2 and len(grid) == 1))
    for (grid, kernel, channels, sigma_w2, sigma_b2, seed), padding, readout in product(
        READOUT, PADDINGS, ("flatten", "average")
    ):
        net = Paths(grid, kernel, channels, Fraction(sigma_w2), Fraction(sigma_b2), padding, readout, outputs=2)
        if fits(net):
            label = f"readout {grid} {kernel} {padding} {readout}"
            found.append(Case(label, partial(readout_rows, net, seed), quick=kernel == (2,)))
    for (grid, kernel, depth, sigma_w2, sigma_b2), padding in product(SIGNS, PADDINGS):
        net = Paths(grid, kernel, (1,) * (depth + 1), Fraction(sigma_w2), Fraction(sigma_b2), padding)
        found.append(Case(f"signs {grid} {kernel} {padding}", partial(sign_rows, net), quick=len(net.taps) == 2))
    return found


def cases() -> list[Case]:
    """Every case, in the order of the file."""
    steps = product([("relu", "2", "1/10"), ("tanh", "3/2", "1/20")], PADDINGS)
    return [
        *network_cases(),
        *(
            Case(f"one step {phi} {padding}", partial(one_step_rows, phi, padding, w, b), quick=phi == "relu")
            for (phi, w, b), padding in steps
        ),
        *(Case(f"modes {mode}", partial(mode_rows, *mode), quick=True) for mode in MODES),
        Case("tanh 1.5 0.05", partial(tanh_point_rows, "1.5", "0.05", "0.418", "1"), quick=True),
        Case("tanh 4 0.1", partial(tanh_point_rows, "4", "0.1", "2.27", "0.29")),
        Case("border modes", border_mode_rows, quick=True),
        *(Case(f"border relu {b}", partial(border_relu_rows, b), quick=True) for b in ("0", "1/10")),
        Case("border tanh", partial(border_tanh_rows, "1.5", "0.05")),
    ]


TABLE = Table(
    file="convolution.json",
    description=(
        "Convolutional networks h^l_j(p) = sum_i sum_beta W^l_{beta,j,i} h^{l-1}_i(p+beta) + b^l_j with "
        "Var W = sigma_w2/(K c_in), Var b = sigma_b2, one b for a channel, a kernel of k taps along an axis at offsets "
        "-floor((k-1)/2)..floor(k/2), channels c_0..c_L. Exact at these widths, two inputs: "
        "kind=linear (phi(u)=u) covariance E (1/c_l) sum_j h^l_j(a,p) h^l_j(b,p'), gradient_moment "
        "E sum_i d^l_i(a,p) d^l_i(b,p') with d=dE/dh, E=sum v_j(a,p) h^L_j(a,p); kind=readout (flatten: "
        "y_o=sum V_{o,jp} h^L_j(p)+d_o, Var V=sigma_w2/(c_L P); average: y_o=sum V_oj (1/P) sum_p h^L_j(p)+d_o, "
        "Var V=sigma_w2/c_L; Var d=sigma_b2) output_moment E y_o(a) y_o(b) for any o, gradient_moment for "
        "E=sum g_o(a) y_o(a); kind=one_step (convolution, activation, convolution) the same, gradient_moment at layer "
        "1. kind=modes: eigenvalues lambda_f of the average over taps (uniform, or binomial energies) on a circle or "
        "torus. "
        "kind=tanh_point: q*, dQ/dq, chi_1, c*, chi_c* and kappa=(sigma_w2/2) E phi''(u_a) phi(u_b). "
        "kind=border_modes: those of three uniform taps under zero padding, largest by displacement. "
        "kind=border_relu: E q^l(p), layers 1.., input all ones, exact at every width, and the rival with the bias "
        "inside the average over taps. kind=border_tanh: the stationary q(p) at infinite width."
    ),
    source=lambda: (
        "make_convolution.py: linear rows and readouts by enumerating paths in rational arithmetic "
        "(convolution_paths.py), the polynomials asserted equal to explicit networks and second moments to the mean "
        "over all signs of the weights; one_step and tanh_point by lattice sums asserted against other quadratures; "
        "modes and border_modes from closed forms; border_relu a linear recursion in rationals; border_tanh by "
        "quadrature"
    ),
    format=(
        "rows; kind selects the fields; numbers are strings, rationals p/q exact, decimals of 20 significant digits, "
        "several in one string separated by spaces. x[input][channel] and v hold the positions, row-major; covariances "
        "and gradient_moments are lists of layers; a symmetric matrix over (input, position), input outermost, is its "
        "rows from the diagonal on"
    ),
    cases=cases(),
)

if __name__ == "__main__":
    main(TABLE)
