"""linear_path_sums.json: exact answers at finite width.

kind "linear": every h^l_i of a small linear network is written out as a polynomial, a sum over paths, in its
independent Gaussian weights W^l_ij ~ N(0, σ_w²/n_{l-1}) and biases b^l_i ~ N(0, σ_b²). Products are expanded and each
monomial is averaged by Isserlis, E g^{2k} = (2k-1)!! var^k. The arithmetic is rational: no approximation. Asserted on
the way: means and covariances equal those of the recursion over layers (law of total variance), gradients their closed
product.

kind "relu_he_M2": ReLU, σ_w² = 2, no bias. Given the layer below, M_l = M_{l-1} (2/n_l) Σ_i relu(g_i)², so
E M_L² = M_0² Π (1 + 5/n_l); the 5 is asserted by quadrature.

kind "first_layer_law": M_1 is the mean of n_1 independent φ(u)², u ~ N(0, G), G = σ_b² + σ_w² M_0; the moments are
quadratures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import lru_cache, partial
from itertools import combinations_with_replacement, product
from math import prod

from make_common import average
from mpmath import mp, mpf
from table_file import Case, Row, Table, decimal, main

# The two inputs a and b, and the Gram entries of the pair.
ENTRIES = {"aa": (0, 0), "ab": (0, 1), "bb": (1, 1)}

# ------------------------------------------------------------------------------------------- polynomials

# Numbers of the variables in a monomial, sorted, repeated as often as their power.
Monomial = tuple[int, ...]
Polynomial = dict[Monomial, Fraction]

ONE: Monomial = ()


def add(polynomials: Iterable[Polynomial]) -> Polynomial:
    """The sum of the polynomials."""
    total: Polynomial = {}
    for polynomial in polynomials:
        for monomial, factor in polynomial.items():
            total[monomial] = total.get(monomial, 0) + factor
    return total


def multiply(p: Polynomial, q: Polynomial) -> Polynomial:
    """p q."""
    total: Polynomial = {}
    for (m, a), (n, b) in product(p.items(), q.items()):
        monomial = tuple(sorted(m + n))
        total[monomial] = total.get(monomial, 0) + a * b
    return total


def inner(p: Iterable[Polynomial], q: Iterable[Polynomial]) -> Polynomial:
    """Σ_i p_i q_i."""
    return add(multiply(x, y) for x, y in zip(p, q, strict=True))


def scaled(p: Polynomial, factor: Fraction) -> Polynomial:
    """factor p."""
    return {monomial: value * factor for monomial, value in p.items()}


def odd_variables(monomial: Monomial) -> frozenset[int]:
    """The variables with an odd power; the mean of a product vanishes unless both factors have the same ones."""
    return frozenset(v for v, power in Counter(monomial).items() if power % 2)


# ------------------------------------------------------------------------------------------- networks


class LinearNetwork:
    """The path sums of a linear network of given widths [n_0..n_L], for given inputs and cotangents.

    forward[a][l] holds h^l of input a (h^0 the input itself), backward[a][l] its δ^l = ∂E/∂h^l for E = Σ_a v_a.h^L_a.
    """

    def __init__(
        self,
        widths: Sequence[int],
        sigma_w2: Fraction,
        sigma_b2: Fraction,
        inputs: Sequence[Sequence[Fraction]],
        cotangents: Sequence[Sequence[Fraction]],
    ) -> None:
        self.widths = widths
        self.depth = len(widths) - 1
        self.variances: list[Fraction] = []  # of the Gaussian variables, by number
        self.weights = {
            l: [[self._variable(sigma_w2 / widths[l - 1]) for _ in range(widths[l - 1])] for _ in range(widths[l])]
            for l in range(1, self.depth + 1)
        }
        self.biases = {
            l: [self._variable(sigma_b2) if sigma_b2 else {} for _ in range(widths[l])]
            for l in range(1, self.depth + 1)
        }
        self.forward = [self._forward(x) for x in inputs]
        self.backward = [self._backward(v) for v in cotangents]

    def _variable(self, variance: Fraction) -> Polynomial:
        """A new Gaussian variable."""
        self.variances.append(variance)
        return {(len(self.variances) - 1,): Fraction(1)}

    def _forward(self, x: Sequence[Fraction]) -> dict[int, list[Polynomial]]:
        h = {0: [{ONE: t} for t in x]}
        for l in range(1, self.depth + 1):
            units = zip(self.weights[l], self.biases[l], strict=True)
            h[l] = [add([inner(row, h[l - 1]), bias]) for row, bias in units]
        return h

    def _backward(self, v: Sequence[Fraction]) -> dict[int, list[Polynomial]]:
        delta = {self.depth: [{ONE: t} for t in v]}
        for l in range(self.depth - 1, 0, -1):
            columns = zip(*self.weights[l + 1], strict=True)
            delta[l] = [inner(column, delta[l + 1]) for column in columns]
        return delta

    def _mean_monomial(self, monomial: Monomial) -> Fraction:
        """Isserlis: E g^{2k} = (2k-1)!! var^k for each variable."""
        powers = Counter(monomial)
        if any(power % 2 for power in powers.values()):
            return Fraction(0)
        return prod(
            (prod(range(1, power, 2)) * self.variances[v] ** (power // 2) for v, power in powers.items()),
            start=Fraction(1),
        )

    def mean(self, p: Polynomial) -> Fraction:
        """E p."""
        return sum((factor * self._mean_monomial(monomial) for monomial, factor in p.items()), Fraction(0))

    def mean_product(self, p: Polynomial, q: Polynomial) -> Fraction:
        """E p q, monomial by monomial: the product itself would be too long to store."""
        partners: dict[frozenset[int], list[tuple[Monomial, Fraction]]] = {}
        for monomial, factor in q.items():
            partners.setdefault(odd_variables(monomial), []).append((monomial, factor))
        total = Fraction(0)
        for m, a in p.items():
            for n, b in partners.get(odd_variables(m), []):
                total += a * b * self._mean_monomial(m + n)
        return total

    def q(self, l: int, entry: str) -> Polynomial:
        """q^l_ab = (1/n_l) h^l_a.h^l_b."""
        a, b = ENTRIES[entry]
        return scaled(inner(self.forward[a][l], self.forward[b][l]), Fraction(1, self.widths[l]))

    def gradient(self, l: int, entry: str) -> Polynomial:
        """δ^l_a.δ^l_b."""
        a, b = ENTRIES[entry]
        return inner(self.backward[a][l], self.backward[b][l])

    def mean_weight_gradient(self, l: int) -> Fraction:
        """E ‖Σ_a δ^l_a x^{l-1}_a^T‖², the batch gradient by the weights of map l."""
        total = Fraction(0)
        for i, j in product(range(self.widths[l]), range(self.widths[l - 1])):
            pairs = zip(self.backward, self.forward, strict=True)
            entry = add(multiply(delta[l][i], h[l - 1][j]) for delta, h in pairs)
            total += self.mean_product(entry, entry)
        return total


# ------------------------------------------------------------------------------------------- recursions

Mean = dict[str, Fraction]  # by entry
Second = dict[tuple[str, str], Fraction]  # E of products of two entries


def gram(vectors: Sequence[Sequence[Fraction]]) -> Mean:
    """The inner products of the two vectors."""
    return {e: sum(x * y for x, y in zip(vectors[a], vectors[b], strict=True)) for e, (a, b) in ENTRIES.items()}


def entry_name(a: int, b: int) -> str:
    """The entry of inputs a and b, in either order."""
    return next(e for e, pair in ENTRIES.items() if pair == (min(a, b), max(a, b)))


def second_moments(covariance: Second, width: int) -> Second:
    """E q q' where h has independent rows h ~ N(0, G) given G, from E G G': Wishart, by the law of total variance."""
    second = {}
    for k, m in product(ENTRIES, ENTRIES):
        (i, j), (p, r) = ENTRIES[k], ENTRIES[m]
        crossed = covariance[entry_name(i, p), entry_name(j, r)] + covariance[entry_name(i, r), entry_name(j, p)]
        second[k, m] = covariance[k, m] + crossed / width
    return second


def recursion(
    widths: Sequence[int], sigma_w2: Fraction, sigma_b2: Fraction, inputs: Sequence[Sequence[Fraction]]
) -> list[tuple[Mean, Second]]:
    """E q^l and E q^l q^l' of every layer, without a sum over paths: the next layer has G = σ_b² + σ_w² q."""
    mean = {e: value / widths[0] for e, value in gram(inputs).items()}
    second = {(k, m): mean[k] * mean[m] for k, m in product(ENTRIES, ENTRIES)}
    layers = []
    for width in widths[1:]:
        covariance = {
            (k, m): sigma_b2**2 + sigma_b2 * sigma_w2 * (mean[k] + mean[m]) + sigma_w2**2 * second[k, m]
            for k, m in product(ENTRIES, ENTRIES)
        }
        mean = {e: sigma_b2 + sigma_w2 * value for e, value in mean.items()}
        second = second_moments(covariance, width)
        layers.append((mean, second))
    return layers


# ------------------------------------------------------------------------------------------- rows

CROSS = [["1", "-0.5"], ["0.25", "0.75"]]
COTANGENTS = [["1", "0.5"], ["-0.25", "2"]]

# widths, sigma_w2, sigma_b2, inputs, cotangents
LINEAR = [
    ([2, 3, 2, 2], "1.5", "0.1", CROSS, COTANGENTS),
    ([2, 3, 2, 2], "1", "0", CROSS, COTANGENTS),
    ([2, 2, 3, 2], "0.7", "0.3", [["0.3", "2"], ["-1.2", "0.4"]], COTANGENTS),
    ([3, 1, 2], "2", "0.25", [["1", "1", "-1"], ["0.5", "0", "2"]], COTANGENTS),
    ([1, 1, 1, 1], "1.25", "0.05", [["1"], ["-2"]], [["1"], ["0.75"]]),
]

# M_0, widths
RELU_HE = [
    ("1", [50] * 10),
    ("1", [10] * 5),
    ("2", [4, 8, 16, 8]),
    ("0.5", [1, 2, 3]),
    ("1", [100] * 20),
    ("3", [7]),
]

# activation, sigma_w2, sigma_b2, M_0, n_1
FIRST_LAYER = [
    ("relu", "2", "0", "1", 10),
    ("relu", "1.5", "0.1", "0.8", 25),
    ("tanh", "1.5", "0.05", "1", 10),
    ("tanh", "2.5", "0.1", "0.4", 64),
]


def rational(x: Fraction) -> str | None:
    """x as a decimal string."""
    return decimal(mpf(x.numerator) / x.denominator)


def rational_all(values: Mean) -> dict[str, str | None]:
    """The same for every entry."""
    return {key: rational(value) for key, value in values.items()}


def covariances(network: LinearNetwork, l: int, mean: Mean, second: Second) -> Mean:
    """Cov(q, q') of layer l by path sums, asserted equal to the recursion, under names as 'aa,ab'."""
    paths = {e: network.q(l, e) for e in ENTRIES}
    assert {e: network.mean(p) for e, p in paths.items()} == mean
    out = {}
    for k, m in combinations_with_replacement(ENTRIES, 2):
        expected = network.mean_product(paths[k], paths[m])
        assert expected == second[k, m], (l, k, m)
        out[f"{k},{m}"] = expected - mean[k] * mean[m]
    return out


def gradients(network: LinearNetwork, l: int, top: Mean) -> tuple[Mean, Mean]:
    """Mean and variance of δ^l_a.δ^l_b; the mean is asserted equal to top = σ_w^{2(L-l)} v_a.v_b."""
    paths = {e: network.gradient(l, e) for e in ENTRIES}
    mean = {e: network.mean(p) for e, p in paths.items()}
    assert mean == top
    return mean, {e: network.mean_product(p, p) - mean[e] ** 2 for e, p in paths.items()}


def linear_rows(
    widths: list[int], sigma_w2: str, sigma_b2: str, inputs: list[list[str]], cotangents: list[list[str]]
) -> list[Row]:
    """The rows of one linear network, one for each layer."""
    w, b = Fraction(sigma_w2), Fraction(sigma_b2)
    xs, vs = ([[Fraction(t) for t in vector] for vector in vectors] for vectors in (inputs, cotangents))
    network = LinearNetwork(widths, w, b, xs, vs)
    length_below = gram(xs)  # E x^{l-1}_a.x^{l-1}_b
    rows = []
    for l, (mean, second) in enumerate(recursion(widths, w, b, xs), start=1):
        cov = covariances(network, l, mean, second)
        top = {e: w ** (network.depth - l) * value for e, value in gram(vs).items()}
        grad, grad_variance = gradients(network, l, top)
        weight_gradient = network.mean_weight_gradient(l)
        # Forward and backward paths of different weights are independent.
        assert weight_gradient == sum(grad[e] * length_below[e] * (2 if e == "ab" else 1) for e in ENTRIES)
        length_below = {e: value * widths[l] for e, value in mean.items()}
        rows.append(
            {
                "kind": "linear",
                "widths": widths,
                "sigma_w2": rational(w),
                "sigma_b2": rational(b),
                "inputs": [[rational(t) for t in x] for x in xs],
                "cotangents": [[rational(t) for t in v] for v in vs],
                "layer": l,
                "E_q": rational_all(mean),
                "cov_q": rational_all(cov),
                "var_q": {e: rational(cov[f"{e},{e}"]) for e in ENTRIES},
                "E_grad_gram": rational_all(grad),
                "var_grad_gram": rational_all(grad_variance),
                "E_dW_norm2": rational(weight_gradient),
            }
        )
    return rows


@lru_cache(None)
def assert_he_unit_variance() -> None:
    """2 relu(g)² has variance 5, by quadrature."""
    with mp.workdps(40):
        m2, m4 = average("relu", mpf(1), [lambda phi, dphi, z: phi**2, lambda phi, dphi, z: phi**4])
        assert abs(4 * (m4 - m2 * m2) - 5) < mpf("1e-30")


def relu_he_rows(m_0: str, widths: list[int]) -> list[Row]:
    """The row of one ReLU network; M_L = 0 where some layer has no unit above zero."""
    assert_he_unit_variance()
    start = Fraction(m_0)
    second = start**2 * prod(Fraction(n + 5, n) for n in widths)
    alive = prod(1 - Fraction(1, 2**n) for n in widths)
    row = {
        "kind": "relu_he_M2",
        "M_0": m_0,
        "widths": widths,
        "E_M_L": m_0,
        "E_M_L2": rational(second),
        "var_M_L": rational(second - start**2),
        "prob_M_L_zero": rational(1 - alive),
    }
    return [row]


def first_layer_rows(name: str, sigma_w2: str, sigma_b2: str, m_0: str, n_1: int) -> list[Row]:
    """The row of one first layer: mean, variance and third central moment of a mean of n_1 independent terms."""
    powers = [lambda phi, dphi, z: phi**2, lambda phi, dphi, z: phi**4, lambda phi, dphi, z: phi**6]
    with mp.workdps(40):
        variance = mpf(sigma_b2) + mpf(sigma_w2) * mpf(m_0)
        m2, m4, m6 = average(name, variance, powers)
        if name == "relu":
            assert abs(m4 / (mpf(3) / 2 * variance**2) - 1) < mpf("1e-30")
        row = {
            "kind": "first_layer_law",
            "activation": name,
            "sigma_w2": sigma_w2,
            "sigma_b2": sigma_b2,
            "M_0": m_0,
            "n_1": n_1,
            "G": decimal(variance),
            "mean_M_1": decimal(m2),
            "var_M_1": decimal((m4 - m2 * m2) / n_1),
            "third_central_M_1": decimal((m6 - 3 * m2 * m4 + 2 * m2**3) / n_1**2),
        }
    return [row]


def cases() -> list[Case]:
    """Every case, in the order of the file; all are quick."""
    return [
        *(Case(f"linear {case[0]}", partial(linear_rows, *case), quick=True) for case in LINEAR),
        *(Case(f"relu {case[1]}", partial(relu_he_rows, *case), quick=True) for case in RELU_HE),
        *(Case(f"first layer {case[0]}", partial(first_layer_rows, *case), quick=True) for case in FIRST_LAYER),
    ]


TABLE = Table(
    file="linear_path_sums.json",
    description=(
        "Exact finite-width answers, Gaussian weights W^l_ij ~ N(0,sigma_w2/n_{l-1}), biases N(0,sigma_b2) shared by "
        "the inputs. kind=linear: phi(u)=u, widths [n_0..n_L], two explicit inputs (a,b); "
        "q^l_ab=(1/n_l) h^l_a.h^l_b; E_q, var_q and the covariance matrix cov_q of (q_aa,q_ab,q_bb) over the weights "
        "and biases; E=sum_a v_a.x^L_a with the explicit fixed cotangents v_a, delta^l_a=dE/dh^l_a (delta^L=v), "
        "grad_gram=delta_a.delta_b (sum over units) with mean and variance; "
        "E_dW_norm2 = E||dE/dW^l||_F^2 for the batch sum. "
        "kind=relu_he_M2: ReLU, sigma_w2=2, no bias, widths [n_1..n_L], M_l=||x^l||^2/n_l: "
        "E M_L^2=M_0^2 prod(1+5/n_l) (dead layers included). "
        "kind=first_layer_law: M_1 = mean over n_1 units of phi(u)^2, u~N(0,G), G=sigma_b2+sigma_w2 M_0: "
        "mean, variance, third central moment."
    ),
    source=lambda: (
        "make_linear_path_sums.py: linear rows by expanding all paths and Isserlis in rational arithmetic, asserted "
        "equal to the recursions (law of total variance); relu and first-layer rows by quadrature at 40 digits"
    ),
    format=(
        "rows; kind selects the fields; numbers are decimal strings, 20 significant digits "
        "(widths, layer, n_1 integers; sigma_w2 etc. exact decimals)"
    ),
    cases=cases(),
)

if __name__ == "__main__":
    main(TABLE)
