"""Densities of the Jacobian's singular values beside histograms of sampled networks: `python examples/jacobian_spectra.py
[FILE.png]`. Ten layers of 128 units at q*."""

from __future__ import annotations

import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import mcverify as mv
from mcverify.inputs import with_gram

WIDTH, DEPTH = 128, 10
PANELS = [
    ("linear", 1.0, 0.0, "gaussian"),
    ("relu", 2.0, 0.0, "orthogonal"),
    ("tanh", 1.05, 2e-5, "gaussian"),
    ("tanh", 1.05, 2e-5, "orthogonal"),
    ("tanh", 2.0, 0.05, "orthogonal"),
    ("hard_tanh", 1.05, 0.01, "orthogonal"),
]


def main(path: str, networks: int = 12) -> None:
    """Write the figure."""
    figure, axes = plt.subplots(2, 3, figsize=(12, 6.4), layout="constrained")
    for axis, (phi, sigma_w2, sigma_b2, weights) in zip(axes.flat, PANELS, strict=True):
        net = mv.mlp(WIDTH, [WIDTH] * DEPTH, phi, sigma_w2, sigma_b2, weights)
        q = 1.0 if mv.activation(phi).slopes else mv.phase(phi, sigma_w2, sigma_b2).q
        x = with_gram([[(q - sigma_b2) / sigma_w2]], WIDTH)
        s = mv.simulate_singular_values(net, x, networks).singular_values.values.ravel()
        law = mv.jacobian_density(net)
        edges = np.linspace(0.0, 1.1 * law.largest, 56)
        heights = np.histogram(s, edges)[0] / (s.size * np.diff(edges))
        axis.stairs(heights, edges, fill=True, alpha=0.35, label=f"{networks} networks of {WIDTH} units")
        axis.plot(law.singular_values, law.density, "k-", lw=1.2, label="infinite width")
        for value, mass in law.atoms:
            axis.axvline(value, color="C3", ls=":", lw=1.5, label=f"{mass:.0%} at {value:.3g}")
        axis.set_ylim(0.0, 1.15 * np.partition(heights, -2)[-2])
        axis.set_title(f"{phi}, {weights}, σ_w² = {sigma_w2:g}, σ_b² = {sigma_b2:g}", fontsize=10)
        axis.set_xlabel(f"singular value; largest {law.largest:.3g}, spread {mv.jacobian_moments(net).spread:.3g}")
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "jacobian_spectra.png")
