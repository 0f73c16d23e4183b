"""Cases that hold a backend's primitives to kernels/reference.py: every primitive by every combination of what it
depends on (law, activation, type, columns, whether one input stands for all replicates, …).

`cases()` are all of them; `pairwise()` as few as meet every pair of levels of every primitive, for backends that are
slow. Tolerances are in machine epsilons of the signal's type, of the largest number of the result.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mcverify.activations import activation, custom_activation, names
from mcverify.kernels import reference
from mcverify.kernels.patches import Window
from mcverify.streams import Role, Site, stream_key
from mcverify.weights import LAWS

SITE = Site(stream_key(5, "conformance"), 7, 2**32 - 1, 2)  # the two replicates differ in their high bits
TYPES = (np.float32, np.float64)
INDEPENDENT = tuple(name for name, law in LAWS.items() if law.independent)
ACTIVATIONS = (*names(), "leaky_relu(0.3)", "elu(0.7)", "a user's")
BITS = ("words", "uniforms", "mask")  # the same bits everywhere, and two of the laws
WINDOW = {"zeros": Window((2, 3), (3, 2), "zeros"), "circular": Window((2, 3), (2, 3), "circular")}
_SCREENED = custom_activation("cubic", lambda u: u**3, lambda u: 3 * u * u)

# What a primitive depends on, beside the type.
LEAD = (1, 2)  # of the first argument: one for all replicates, or one each
FACTORS: dict[str, dict[str, Sequence[Any]]] = {
    "words": {"cols": (3, 70)},
    "uniforms": {"cols": (3, 70)},
    "mask": {"cols": (3, 70), "keep": (0.3, 0.7)},
    "draw": {"law": INDEPENDENT, "cols": (3, 70)},
    "haar": {"shape": ((3, 3), (2, 4), (4, 2))},
    "random_matmul": {"law": INDEPENDENT, "shape": ((3, 5), (9, 66)), "columns": (1, 2, 3, 9), "lead": LEAD},
    "random_matmul_transpose": {"law": INDEPENDENT, "shape": ((3, 5), (9, 66)), "columns": (1, 2, 3, 9), "lead": LEAD},
    "orthogonal": {"shape": ((3, 3), (2, 3), (3, 2)), "columns": (1, 2), "lead": LEAD, "transposed": (False, True)},
    "patched_matmul": {"law": INDEPENDENT, "padding": tuple(WINDOW), "lead": LEAD, "transposed": (False, True)},
    "activate": {"activation": ACTIVATIONS, "lead": LEAD},
    "slope": {"activation": ACTIVATIONS, "lead": LEAD},
    "slope_times": {"activation": ACTIVATIONS, "lead": LEAD, "directions": (1, 2)},
    "multiply": {"lead": LEAD, "columns": (1, 3)},
    "add": {"lead": LEAD},
    "affine": {"biased": (False, True)},
    "join": {"lead": LEAD},
    "columns": {"first": (0, 1)},
    "swapped": {},
    "patches": {"padding": tuple(WINDOW), "lead": LEAD},
    "fold": {"padding": tuple(WINDOW), "lead": LEAD},
    "shifted": {"axis": (0, 1), "step": (1, -1)},
    "pool": {"lead": LEAD},
    "spread": {"lead": LEAD},
    "standardise": {"axis": (-2, -1), "lead": LEAD, "eps": (0.0, 0.2)},
    "standardise_slope": {"axis": (-2, -1), "lead": LEAD, "directions": (1, 2)},
    "gram": {"lead": LEAD, "same": (False, True)},
    "squares": {"lead": LEAD},
    "gaussian": {"columns": ("one", "two", "alike", "more than units"), "lead": LEAD, "bias": (0.0, 0.6)},
    "conditional_haar": {"columns": ("one", "two", "alike"), "lead": LEAD},
}  # fmt: skip

Case = tuple[str, dict[str, Any]]


def cases() -> Iterator[Case]:
    """All combinations."""
    for name, factors in FACTORS.items():
        levels = {"dtype": TYPES, **factors}
        for chosen in itertools.product(*levels.values()):
            yield name, dict(zip(levels, chosen, strict=True))


def pairwise() -> Iterator[Case]:
    """Combinations such that every two levels of a primitive's factors meet in one, chosen greedily."""
    for name in FACTORS:
        left = [chosen for n, chosen in cases() if n == name]
        missing = {met for chosen in left for met in _met(chosen)}
        while missing:
            best = max(left, key=lambda chosen: len(missing & _met(chosen)))
            missing -= _met(best)
            yield name, best


def _met(chosen: dict[str, Any]) -> set[Any]:
    named = [(k, str(v)) for k, v in chosen.items()]
    return set(itertools.combinations(named, min(2, len(named))))


def label(case: Case) -> str:
    name, chosen = case
    told = (getattr(v, "__name__", v) for v in chosen.values())
    return f"{name}-" + "-".join(str(v).replace(" ", "") for v in told)


# ---- one case ----------------------------------------------------------------------------------------------


def check(kernels: Any, case: Case) -> None:
    """Raises AssertionError where the backend departs from the reference."""
    name, chosen = case
    rng = np.random.default_rng(3)
    dtype = np.dtype(chosen["dtype"])

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(dtype)

    ours, theirs, epsilons = _BOTH[name](kernels, normal, dtype, chosen)
    for a, b in zip(ours, theirs, strict=True):
        a, b = np.asarray(kernels.host(a)), np.asarray(b)
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        assert np.array_equal(np.isfinite(a), np.isfinite(b))
        if epsilons == 0:
            assert np.array_equal(a, b)
            continue
        scale = max(1e-300, float(np.abs(b).max(initial=0.0)))
        off = float(np.abs(a.astype(np.float64) - b).max(initial=0.0)) / scale / float(np.finfo(dtype).eps)
        assert off <= epsilons, f"{name}: {off:.3g} epsilons, {epsilons} allowed"


def _phi(name: str) -> Any:
    return _SCREENED if name == "a user's" else activation(name)


def _both(kernels: Any, name: str, *args: Any, keep: Sequence[int] = ()) -> tuple[Any, Any]:
    """The backend's result and the reference's; arrays are handed over, but for those of NumPy itself (keep)."""
    handed = [
        kernels.given(v.copy()) if isinstance(v, np.ndarray) and i not in keep else v for i, v in enumerate(args)
    ]
    mine = [v.copy() if isinstance(v, np.ndarray) else v for v in args]
    ours, theirs = getattr(kernels, name)(*handed), getattr(reference, name)(*mine)
    return (ours, theirs) if isinstance(ours, tuple) else ((ours,), (theirs,))


def _bits(name: str) -> Any:
    def both(kernels: Any, normal: Any, dtype: Any, c: dict[str, Any]) -> Any:
        more = (c["keep"],) if name == "mask" else ()
        return *_both(kernels, name, SITE, Role.MASK, *more, 2, c["cols"], dtype), 0

    return both


def _draw(kernels: Any, normal: Any, dtype: Any, c: dict[str, Any]) -> Any:
    """The laws' promises in ulps (docs/streams.md) are at most so many epsilons of the largest draw."""
    exact = c["law"] in ("uniform", "rademacher")
    return *_both(kernels, "draw", SITE, Role.WEIGHT, c["law"], 3, c["cols"], dtype), 0 if exact else 8


def _haar(kernels: Any, normal: Any, dtype: Any, c: dict[str, Any]) -> Any:
    return *_both(kernels, "draw", SITE, Role.WEIGHT, "orthogonal", *c["shape"], dtype), 60


def _matmul(law: str, rows: int, cols: int, c: dict[str, Any], kernels: Any, v: Any, window: Any = None) -> Any:
    """Rounding of a sum of n terms in any order: at most n epsilons of Σ|w x|, here of the largest result."""
    back = c["transposed"]
    name = "random_matmul_transpose" if back else "random_matmul"
    return *_both(kernels, name, SITE, Role.WEIGHT, law, cols if back else rows, v, window), 60 + cols + rows


def _of_shape(back: bool) -> Any:
    def both(kernels: Any, normal: Any, dtype: Any, c: dict[str, Any]) -> Any:
        rows, cols = c["shape"]
        v = normal(c["lead"], c["columns"], rows if back else cols)
        return _matmul(c["law"], rows, cols, {"transposed": back}, kernels, v)

    return both


def _orthogonal(kernels: Any, normal: Any, dtype: Any, c: dict[str, Any]) -> Any:
    rows, cols = c["shape"]
    return _matmul(
        "orthogonal", rows, cols, c, kernels, normal(c["lead"], c["columns"], rows if c["transposed"] else cols)
    )


def _patched(kernels: Any, normal: Any, dtype: Any, c: dict[str, Any]) -> Any:
    window, channels, rows = WINDOW[c["padding"]], 2, 3
    v = normal(c["lead"], 12, rows if c["transposed"] else channels)
    return _matmul(c["law"], rows, channels * window.taps, c, kernels, v, window)


def _activation(name: str) -> Any:
    def both(kernels: Any, normal: Any, dtype: Any, c: dict[str, Any]) -> Any:
        h = 2 * normal(c["lead"], 2, 3)
        h[0, 0] = (0.0, 30.0, -30.0)  # a kink, and both tails
        more = (normal(2, c["directions"], 2, 3),) if name == "slope_times" else ()
        return *_both(kernels, name, _phi(c["activation"]), h, *more), 12

    return both


def _simple(name: str, arguments: Any, epsilons: float = 2) -> Any:
    return lambda kernels, normal, dtype, c: (*_both(kernels, name, *arguments(normal, c)), epsilons)


def _standardise_slope(kernels: Any, normal: Any, dtype: Any, c: dict[str, Any]) -> Any:
    x, d = normal(c["lead"], 4, 3), normal(2, c["directions"], 4, 3)
    _, unit, inverse = reference.standardise(x, c["axis"], 0.1, 1.3, 0.2)
    return *_both(kernels, "standardise_slope", unit, inverse, d, c["axis"], 1.3), 16


def _gram(kernels: Any, normal: Any, dtype: Any, c: dict[str, Any]) -> Any:
    a = normal(c["lead"], 3, 20)
    given = kernels.given(a.copy())
    b = a if c["same"] else normal(2, 2, 20)
    ours = kernels.gram(given, given if c["same"] else kernels.given(b.copy()))
    assert isinstance(ours, np.ndarray)
    wide = 1e-15 / np.finfo(dtype).eps  # float64 whatever the type
    return (kernels.given(ours),), (reference.gram(a, b),), 20 * wide


def _columns(kind: str, lead: int, units: int, normal: Any) -> np.ndarray:
    count = {"one": 1, "two": 2, "alike": 3, "more than units": units + 2}[kind]
    x = normal(lead, count, units)
    if kind == "alike":
        x[:, 2] = x[:, 0]
    return x


def _gaussian(kernels: Any, normal: Any, dtype: Any, c: dict[str, Any]) -> Any:
    """Columns that are nearly dependent are no part of this: there the error is that of their condition."""
    n_in, n_out, gain, k = 3, 4, 0.7, 2
    x = _columns(c["columns"], c["lead"], n_in, normal)
    offset = np.full(x.shape[1], c["bias"])
    z, d, g, below = normal(2, x.shape[1], n_out), normal(2, k, n_out), normal(2, k, n_in), normal(2, k)
    given = kernels.given
    y, root = kernels.gaussian_apply(given(x), given(z.copy()), gain, offset)
    held = np.array(kernels.host(y))
    y_ref, root_ref = reference.gaussian_apply(x, z.copy(), gain, offset)
    again = given(z) if np.asarray(kernels.host(root.weak)).any() else None
    ours = kernels.gaussian_transpose(
        given(x), root, y, again, given(d), given(g.copy()), given(below), gain, offset
    )
    theirs = reference.gaussian_transpose(x, root_ref, y_ref, z, d, g.copy(), below, gain, offset)
    return (given(held), ours), (y_ref, theirs), 600


def _conditional_haar(kernels: Any, normal: Any, dtype: Any, c: dict[str, Any]) -> Any:
    n, given = 4, kernels.given
    x = _columns(c["columns"], c["lead"], n, normal)
    z, d, g = normal(2, x.shape[1], n), normal(2, 1, n), normal(2, 1, n)
    ours = kernels.haar_apply(given(x), given(z.copy())), kernels.haar_transpose(given(x), given(z), given(d), given(g))
    theirs = reference.haar_apply(x, z.copy()), reference.haar_transpose(x, z, d, g.copy())
    return ours, theirs, 600


_BOTH: dict[str, Any] = {
    **{name: _bits(name) for name in BITS},
    "draw": _draw, "haar": _haar, "random_matmul": _of_shape(False), "random_matmul_transpose": _of_shape(True),
    "orthogonal": _orthogonal, "patched_matmul": _patched,
    **{name: _activation(name) for name in ("activate", "slope", "slope_times")},
    "multiply": _simple("multiply", lambda n, c: (n(2, 2, 3, 4), n(c["lead"], 1, c["columns"], 4)), 1),
    "add": _simple("add", lambda n, c: (n(c["lead"], 3, 4), n(2, 3, 4), -0.3)),
    "affine": _simple("affine", lambda n, c: (n(2, 3, 4), 0.3, *((n(2, 1, 4), 0.7) if c["biased"] else ()))),
    "join": _simple("join", lambda n, c: (n(c["lead"], 2, 3), n(2, 1, 3)), 0),
    "columns": _simple("columns", lambda n, c: (n(2, 3, 4), c["first"]), 0),
    "swapped": _simple("swapped", lambda n, c: (n(2, 3, 4, 5),), 0),
    "patches": _simple("patches", lambda n, c: (n(c["lead"], 12, 2), WINDOW[c["padding"]]), 0),
    "fold": _simple("fold", lambda n, c: (n(c["lead"], 12, 12), WINDOW[c["padding"]])),
    "shifted": _simple("shifted", lambda n, c: (n(2, 12, 2), (2, 3), c["axis"], c["step"]), 0),
    "pool": _simple("pool", lambda n, c: (n(c["lead"], 12, 2), 6)),
    "spread": _simple("spread", lambda n, c: (n(c["lead"], 2, 2), 6)),
    "standardise": _simple("standardise", lambda n, c: (n(c["lead"], 4, 3), c["axis"], c["eps"], 1.3, 0.2), 16),
    "standardise_slope": _standardise_slope, "gram": _gram,
    "squares": lambda kernels, normal, dtype, c: (
        (kernels.given(kernels.squares(kernels.given(x := normal(c["lead"], 3, 20)))),), (reference.squares(x),),
        20 * 1e-15 / np.finfo(dtype).eps,
    ),
    "gaussian": _gaussian, "conditional_haar": _conditional_haar,
}  # fmt: skip

assert set(_BOTH) == set(FACTORS)
