"""The phases of an activation over (σ_w², σ_b²), point by point as `phase` finds them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mcverify.activations import Activation
from mcverify.errors import InputError
from mcverify.theory.phase import phase
from mcverify.validate import variance

if TYPE_CHECKING:
    import xarray as xr

    from mcverify.theory.phase_record import Phase

_NUMBERS = ("q", "c", "chi_1", "xi_q", "xi_c")


def phase_diagram(
    activation: str | Activation,
    sigma_w2: Sequence[float] | NDArray[np.float64] | None = None,
    sigma_b2: Sequence[float] | NDArray[np.float64] | None = None,
    keep: float = 1.0,
    *,
    q0: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """name, q, c, chi_1, xi_q and xi_c of `phase` (*limit*), each (sigma_b2, sigma_w2).

    sigma_w2, sigma_b2: increasing variances; those of `axes_about` None by default. keep, q0: as of `phase`.
    progress(points done, points in all) is called as they come; some milliseconds a point.
    Schoenholz et al. 2017, fig. 1, has tanh's. Raises InputError for unusable parameters.
    """
    import xarray as xr

    w2, b2 = axes_about(None)
    w2 = _axis("sigma_w2", w2 if sigma_w2 is None else sigma_w2)
    b2 = _axis("sigma_b2", b2 if sigma_b2 is None else sigma_b2)
    found = []
    for i, (b, w) in enumerate((b, w) for b in b2 for w in w2):
        found.append(phase(activation, w, b, keep, q0=q0))
        if progress is not None:
            progress(i + 1, len(b2) * len(w2))
    shape, dims = (len(b2), len(w2)), ("sigma_b2", "sigma_w2")
    numbers = {n: (dims, np.array([getattr(p, n) for p in found]).reshape(shape)) for n in _NUMBERS}
    names = {"name": (dims, np.array([p.name for p in found]).reshape(shape))}
    attrs = {"activation": found[0].activation, "keep": float(keep), "q0": float(q0), "mark": "limit"}
    return xr.Dataset(numbers | names, {"sigma_b2": b2, "sigma_w2": w2}, attrs)


def axes_about(here: Phase | None) -> tuple[list[float], list[float]]:
    """σ_w² and σ_b² of a diagram: the middles of 40 × 25 cells that fill [0, 4] × [0, 0.5], or to half as far again as
    the point lies. No σ_b² is 0, where some φ have phases of their own."""
    w2 = 4.0 if here is None else max(4.0, 1.5 * here.sigma_w2)
    b2 = 0.5 if here is None else max(0.5, 1.5 * here.sigma_b2)
    return (w2 * (np.arange(40) + 0.5) / 40).tolist(), (b2 * (np.arange(25) + 0.5) / 25).tolist()


def _axis(field: str, values: Sequence[float] | NDArray[np.float64]) -> list[float]:
    given = [v.item() if isinstance(v, np.generic) else v for v in values]
    for v in given:
        variance(field, v)
    if len(given) < 2 or any(b <= a for a, b in pairwise(given)):
        raise InputError(field, given, "must be at least two increasing variances")
    return [float(v) for v in given]
