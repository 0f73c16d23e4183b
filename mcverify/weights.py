"""The table of weight laws. Every law has unit variance; a layer scales it to sigma_w2 / fan_in."""

from __future__ import annotations

from dataclasses import dataclass

from mcverify.validate import one_of


@dataclass(frozen=True)
class WeightLaw:
    """One row: `independent` says whether entries are independent; kurtosis is E w^4 / (E w^2)^2."""

    name: str
    code: int  # how the compiled kernels name it
    independent: bool
    kurtosis: float
    atoms: bool = False  # a discrete law puts atoms at h = 0, which breaks Jacobian statements


# The normal truncated at ±2 standard deviations, divided by its own standard deviation:
# with Z = erf(√2) and p = φ(2), E z^k = (k − 1) E z^(k−2) − 2^k p/Z: variance 1 − 4p/Z, fourth moment 3 − 28p/Z.
TRUNCATION = 2.0
_P_OVER_Z = 0.05399096651318806 / 0.9544997361036416
TRUNCATED_VARIANCE = 1.0 - 4.0 * _P_OVER_Z
_TRUNCATED_KURTOSIS = (3.0 - 28.0 * _P_OVER_Z) / TRUNCATED_VARIANCE**2
TRUNCATED_SIXTH = (15.0 - 204.0 * _P_OVER_Z) / TRUNCATED_VARIANCE**3  # E w^6 / (E w^2)^3

LAWS: dict[str, WeightLaw] = {
    law.name: law
    for law in (
        WeightLaw("gaussian", 0, True, 3.0),
        WeightLaw("uniform", 1, True, 1.8),
        WeightLaw("truncated_normal", 2, True, _TRUNCATED_KURTOSIS),
        WeightLaw("rademacher", 3, True, 1.0, atoms=True),
        # Haar on the orthogonal group (square), or its first rows or columns; entries of variance 1/fan_in.
        WeightLaw("orthogonal", 4, False, 3.0),
    )
}


def weight_law(name: str) -> WeightLaw:
    """The law of that name.

    Raises InputError for an unknown name."""
    one_of("weights", name, LAWS)
    return LAWS[name]
