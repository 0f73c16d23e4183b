"""finite_depth.json: the infinite-width covariances of two inputs through six layers, forward and backward.

Forward, q^{l+1} = σ_w² E φ_a φ_b + σ_b² at q^l; backward, the gradient Gram of layer l is σ_w² E φ'_a φ'_b times that
of layer l + 1. Dropout with keep probability ρ divides the factors of the diagonal by ρ and leaves the others. The
averages are quadratures (make_common); where two lattices give an error it must be below 1e-22.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from make_common import moments, pair_averages
from mpmath import mp, mpf
from table_file import Case, Row, Table, decimal, main

DEPTH = 6
PAIRS = ("aa", "ab", "bb")
GRAM = ("1.0", "0.4", "0.5")  # x_a.x_b/n_0 of the pairs

# activation, sigma_w2, sigma_b2, keep probability
NETWORKS = [
    ("tanh", "1.5", "0.05", "1"),
    ("relu", "2", "0", "1"),
    ("erf", "1.2", "0.01", "1"),
    ("gelu", "2", "0.05", "1"),
    ("tanh", "1.5", "0.05", "0.8"),
]
QUICK = {("erf", "1"), ("tanh", "0.8")}  # activation, keep probability

# The values of a quantity at aa, ab and bb.
Triple = tuple[mpf, mpf, mpf]


class Layer(NamedTuple):
    """q^l with E φ_a φ_b and E φ'_a φ'_b there."""

    q: Triple
    phi_phi: Triple
    dphi_dphi: Triple


def averages(name: str, q: Triple) -> Layer:
    """The averages at covariance q."""
    a, b = moments(name, q[0]), moments(name, q[2])
    pair, error = pair_averages(name, *q)
    assert error is None or error < mpf("1e-22")
    return Layer(q, (a.phi2, pair.phi_phi, b.phi2), (a.dphi2, pair.dphi_dphi, b.dphi2))


def forward(name: str, sigma_w2: mpf, sigma_b2: mpf, keep: mpf) -> list[Layer]:
    """The layers in order. x^0 is not masked; x^l is, before map l + 1: E (m/ρ)² = 1/ρ on the diagonal, 1 across."""
    layers: list[Layer] = []
    q = tuple(sigma_w2 * mpf(x) + sigma_b2 for x in GRAM)
    for _ in range(DEPTH):
        layers.append(averages(name, q))
        aa, ab, bb = layers[-1].phi_phi
        q = (sigma_w2 / keep * aa + sigma_b2, sigma_w2 * ab + sigma_b2, sigma_w2 / keep * bb + sigma_b2)
    return layers


def backward(layers: list[Layer], sigma_w2: mpf, keep: mpf, shared: bool) -> list[Triple]:
    """E δ^l_a.δ^l_b of every layer, first layer first, for v_a = v_b (shared) or independent v_a, v_b."""
    aa, ab, bb = layers[-1].dphi_dphi
    grams = [(aa, ab if shared else mpf(0), bb)]  # δ^L = v φ'(h^L), for x^L is not masked
    for layer in reversed(layers[:-1]):
        aa, ab, bb = layer.dphi_dphi
        above = grams[-1]
        grams.append((sigma_w2 / keep * aa * above[0], sigma_w2 * ab * above[1], sigma_w2 / keep * bb * above[2]))
    return grams[::-1]


def named(values: Triple) -> dict[str, str | None]:
    """Decimal strings under aa, ab and bb."""
    return {pair: decimal(value) for pair, value in zip(PAIRS, values, strict=True)}


def network_rows(name: str, sigma_w2: str, sigma_b2: str, keep: str) -> list[Row]:
    """The rows of one network, one for each layer."""
    layers = forward(name, mpf(sigma_w2), mpf(sigma_b2), mpf(keep))
    independent, shared = (backward(layers, mpf(sigma_w2), mpf(keep), together) for together in (False, True))
    return [
        {
            "activation": name,
            "sigma_w2": sigma_w2,
            "sigma_b2": sigma_b2,
            "keep_probability": keep,
            "layer": l + 1,
            "q": named(layer.q),
            "c": decimal(layer.q[1] / mp.sqrt(layer.q[0] * layer.q[2])),
            "E_phi_phi": named(layer.phi_phi),
            "E_dphi_dphi": named(layer.dphi_dphi),
            "grad_gram_independent": named(independent[l]),
            "grad_gram_shared": named(shared[l]),
        }
        for l, layer in enumerate(layers)
    ]


TABLE = Table(
    file="finite_depth.json",
    description=(
        "Mean-field trajectories for two inputs with x_a.x_b/n_0 = [[1.0,0.4],[0.4,0.5]], L=6 dense layers "
        "h^l = W^l x~^{l-1} + b^l, x^l = phi(h^l). "
        "q^1 = sigma_w2*gram + sigma_b2 (h^1 is the first pre-activation, x^0 is never masked); "
        "q^{l+1}_ab = sigma_w2 k_ab E phi(u_a)phi(u_b) + sigma_b2 with "
        "(u_a,u_b)~N(0,q^l), k_aa = 1/rho, k_ab = 1. "
        "Dropout: x~^l = x^l m/rho, m Bernoulli(rho), independent over units, layers AND inputs, applied to "
        "x^1..x^{L-1}; the last post-activation x^L is NOT masked; the same masks act in both passes. "
        "Energy E = sum_a v_a.x^L_a with v_a Gaussian, "
        "E||v_a||^2 = 1, independent of the network: 'independent' = v_a, v_b independent; 'shared' = v_a = v_b. "
        "delta^l_a = dE/dh^l_a; "
        "grad_gram = E delta^l_a.delta^l_b (sum over units, infinite-width limit): delta^L = v*phi'(h^L), "
        "grad_gram^l_ab = sigma_w2 k_ab E[phi'(u_a)phi'(u_b)] grad_gram^{l+1}_ab. "
        "E_phi_phi, E_dphi_dphi: the averages at q^l (no mask factor)."
    ),
    source=lambda: (
        "make_finite_depth.py, mpmath quadrature, 36 digits (make_common), "
        "two half-shifted lattices agreeing to < 1e-22"
    ),
    format=(
        "rows: one per (case, layer); each of q, E_phi_phi, E_dphi_dphi, grad_gram_* is {aa,ab,bb} decimal strings, "
        "20 significant digits. sigma_w2, sigma_b2, gram, keep_probability are exact decimals."
    ),
    cases=[Case(" ".join(n), partial(network_rows, *n), quick=(n[0], n[3]) in QUICK) for n in NETWORKS],
)

if __name__ == "__main__":
    main(TABLE)
