"""depth_to_fixed_point.json: how many layers χ^l takes to come within a margin of its value at the fixed point.

From a given q^1 the variance map q^{l+1} = σ_w² <φ²>_{q^l} + σ_b² is iterated by quadrature, and the first layer l is
noted at which |χ^l/χ_1 - 1| < margin, with χ^l = σ_w² <φ'²>_{q^l}. The fixed point and χ_1 are found by Newton
(make_fixed_points).
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

from make_common import moments
from make_fixed_points import VarianceMap, only_fixed_point
from mpmath import mpf
from table_file import Case, Row, Table, decimal, main

MARGINS = ("0.1", "0.01", "0.001")
DEEPEST = 199

# activation, sigma_w2, sigma_b2, q_1
NETWORKS = [
    ("tanh", "1.5", "0.05", "4.0"),
    ("tanh", "2.5", "0.1", "4.0"),
    ("tanh", "1.05", "0.00002", "1.0"),
]


def trajectory(q_map: VarianceMap, q_1: mpf, chi_1: mpf) -> list[tuple[mpf, mpf, mpf]]:
    """(q^l, χ^l, χ^l/χ_1 - 1) of each layer, until the smallest margin is reached."""
    layers, q = [], q_1
    while len(layers) < DEEPEST:
        m = moments(q_map.name, q)
        chi = q_map.sigma_w2 * m.dphi2
        layers.append((q, chi, chi / chi_1 - 1))
        if abs(layers[-1][2]) < min(mpf(margin) for margin in MARGINS):
            break
        q = q_map.sigma_w2 * m.phi2 + q_map.sigma_b2
    return layers


def depth_row(name: str, sigma_w2: str, sigma_b2: str, q_1: str) -> list[Row]:
    """The row of one network."""
    q_map = VarianceMap(name, mpf(sigma_w2), mpf(sigma_b2))
    point = only_fixed_point(q_map)
    layers = trajectory(q_map, mpf(q_1), point.chi_1)
    deviations = [abs(deviation) for _, _, deviation in layers]
    assert all(x > y for x, y in pairwise(deviations))  # so 'first' means 'from there on'
    first = {margin: 1 + next(i for i, x in enumerate(deviations) if x < mpf(margin)) for margin in MARGINS}
    row = {
        "activation": name,
        "sigma_w2": sigma_w2,
        "sigma_b2": sigma_b2,
        "q_1": q_1,
        "q_star": decimal(point.q),
        "chi_1": decimal(point.chi_1),
        "first_layer": first,
        "first_layer_1_percent": first["0.01"],
        "trajectory": [
            {"layer": l, "q": decimal(q), "chi": decimal(chi), "chi_over_chi1_minus_1": decimal(deviation)}
            for l, (q, chi, deviation) in enumerate(layers, start=1)
        ],
    }
    return [row]


TABLE = Table(
    file="depth_to_fixed_point.json",
    description=(
        "First layer l (l=1 is the first pre-activation, whose variance q^1 is given) at which "
        "|chi^l/chi_1 - 1| < margin; chi^l = sigma_w2<phi'^2>_{q^l}, q^{l+1} = Q(q^l). "
        "|deviation| is monotone decreasing in all rows, so it stays within the margin. Margins 0.1, 0.01, 0.001."
    ),
    source=lambda: "make_depth_to_fixed_point.py, quadrature at 36+ digits",
    format=(
        "rows: activation, sigma_w2, sigma_b2, q_1, q_star, chi_1, first_layer {margin: layer}, first_layer_1_percent, "
        "trajectory[{layer,q,chi,chi_over_chi1_minus_1}]"
    ),
    cases=[Case(" ".join(network), partial(depth_row, *network), quick=True) for network in NETWORKS],
)

if __name__ == "__main__":
    main(TABLE)
