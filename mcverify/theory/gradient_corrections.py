"""First-order corrections to gradient norms, and their variance between networks.

Let f_l(G) = E ‖δ^l‖² and r_l(G) = E (h^l·δ^l)²/G, given Ĝ^l = G: nothing else of what lies below matters. Given x^l and
h^{l+1} = W x^l + b, Gaussian rows of W are fixed along x^l and random across it, so that Wᵀδ^{l+1} is, along x^l, given
by h^{l+1}·δ^{l+1}. Hence, exactly, with Ĝ⁺ = Ĝ^{l+1} and A, B, P, Z means over the n units of h^l,

    f_l(G) = E[σ_w² A f⁺(Ĝ⁺) + (σ_w⁴/n) (B/Ĝ⁺) (r⁺ − f⁺)(Ĝ⁺)]               A of φ′², B of φ²φ′²,
    r_l(G) = E[σ_w² Z f⁺(Ĝ⁺) + (σ_w⁴ P²/Ĝ⁺) (r⁺ − f⁺)(Ĝ⁺)]/G              Z of h²φ′², P of hφφ′, G Q′ = σ_w² E P,

from f = r = E ‖v‖² at the top. The delta method takes f to first order, as F + F₁, with the first two derivatives of F
in G, and r to order zero. At last G itself is random. Masks are in all means.

Source: derived here; Roberts, Yaida & Hanin 2022, ch. 8, have the same order for the neural tangent kernel.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mcverify.theory.shift import SAFETY, Lengths, Shift
from mcverify.theory.stages import Stage

FloatArray = NDArray[np.float64]


def gradients(chain: list[Stage], q: FloatArray, top: FloatArray, own: Lengths, drawn: bool) -> Shift:
    """‖δ^l‖² for lengths q (layer, input), from E ‖δ^L‖² = top (input,). drawn: with Gaussian entries, or else given.

    The remainder's small parameter is the metric's relative variance at the output, the largest of all layers."""
    f, f1, f2 = top.copy(), np.zeros_like(top), np.zeros_like(top)  # F, F′, F″
    r, shift, bound = top.copy(), np.zeros_like(top), np.zeros_like(top)
    variance = 2 * top**2 / chain[-1].width if drawn else np.zeros_like(top)
    out = []
    for l in reversed(range(len(chain))):
        if l + 1 < len(chain):
            s, n = chain[l], chain[l].width
            (chi, chi1, chi2), (_, slope, curvature) = s.chi, s.map
            above = np.where(q[l + 1] > 0, q[l + 1], 1.0)
            parts = [0.5 * chi * f2 * s.spread / n, f1 * s.across / n, (r - f) * s.product / (above * n)]
            shift, bound = chi * shift + sum(parts), chi * bound + sum(map(np.abs, parts))
            fluctuation = f**2 * s.slope_spread + (chi * f1) ** 2 * s.spread + 2 * chi * f * f1 * s.across
            variance = chi**2 * variance + fluctuation / n
            r = s.gain * s.zeta * f + q[l] * slope**2 / above * (r - f)
            f2 = chi2 * f + 2 * chi1 * slope * f1 + chi * (slope**2 * f2 + curvature * f1)
            f, f1 = chi * f, chi1 * f + chi * slope * f1
        k, v = own.k[l], own.v[l]
        parts_here = bound + np.abs(f1) * own.bound[l] + 0.5 * np.abs(f2) * v
        out.append((shift + f1 * k + 0.5 * f2 * v, SAFETY * own.small[-1] * parts_here, variance + f1**2 * v))
    return Shift(*(np.stack(each[::-1]) for each in zip(*out, strict=True)))
