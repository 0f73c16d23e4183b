"""Matrices from an initialiser, drawn one after another and reduced at once to what its law is judged by."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcverify.errors import InputError

FloatArray = NDArray[np.float64]
Draw = Callable[..., Any]

LEAST_SIDE = 8  # below this a matrix has too few pairs of rows or columns to speak of their dependence
PAIRED = 1024  # rows, and columns, that are compared with one another; more would cost more than they show


@dataclass(frozen=True)
class Draws:
    """What was measured on matrices z = w / (documented standard deviation), (fan_out, fan_in) each.

    moments (draw, 5): the means of z, z², z⁴, z⁶, z⁸ over a matrix's entries;
    rows, columns (draw, 4): see `overlaps`;
    successive (draw − 1,): the cosine of a matrix and the one before; repeated: how many equal an earlier one;
    entries (n,): entries at places chosen beforehand, all where there are few;
    gram_error (draw,): the largest entry of G − I, where G are the products of the rows (columns, where there are
    fewer) over their mean square norm; haar (draw, 4): see `haar_statistics`."""

    fan_out: int
    fan_in: int
    moments: FloatArray
    rows: FloatArray
    columns: FloatArray
    successive: FloatArray
    repeated: int
    entries: FloatArray
    gram_error: FloatArray
    haar: FloatArray

    @property
    def draws(self) -> int:
        return len(self.moments)

    @property
    def size(self) -> int:
        """Entries measured in all."""
        return self.draws * self.fan_out * self.fan_in


def caller(draw: Any, first_seed: int) -> Callable[[int], FloatArray]:
    """number -> the matrix of that number, checked, in float64.

    draw() is called without arguments, or, where it has a parameter without default, with the seeds first_seed,
    first_seed + 1, …. Raises InputError where draw is not callable, or needs more."""
    if not callable(draw):
        raise InputError("draw", draw, "must be callable, draw() or draw(seed), and return (fan_out, fan_in) weights")
    try:
        parameters = inspect.signature(draw).parameters.values()
    except (TypeError, ValueError):  # compiled functions need not say what they take
        parameters = {}.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(needed) > 1 or any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters):
        raise InputError("draw", f"parameters {', '.join(needed)}", "must take nothing, or one seed")
    if needed:
        return lambda number: weights(draw(first_seed + number))
    return lambda number: weights(draw())


def weights(returned: Any) -> FloatArray:
    """What a call to draw returned, as a new float64 array (fan_out, fan_in); tensors of PyTorch and arrays of JAX
    are taken too. Raises InputError for anything that is no matrix of varied, finite single or double floats."""
    if np.ma.isMaskedArray(returned):
        raise InputError("draw", "a masked array", "must return every weight (fill what is masked)")
    try:
        array = np.asarray(returned.detach().cpu() if hasattr(returned, "detach") else returned)
    except (TypeError, ValueError, RuntimeError):
        raise InputError("draw", type(returned).__name__, "must return an array of numbers") from None
    if array.dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise InputError("draw", str(array.dtype), "must return float32 or float64 (convert others first)")
    if array.ndim != 2 or min(array.shape) < LEAST_SIDE:
        least = f"(fan_out, fan_in), each at least {LEAST_SIDE}"
        raise InputError("draw", f"shape {array.shape}", f"must return arrays of shape {least}")
    if not np.isfinite(array).all():
        raise InputError("draw", f"{int((~np.isfinite(array)).sum())} values not finite", "must return finite numbers")
    if array.min() == array.max():
        raise InputError("draw", f"{array.flat[0]:g} throughout", "must return weights that vary")
    return np.array(array, dtype=np.float64)


def measure(
    next_matrix: Callable[[int], FloatArray], draws: int, sd: float, kept: int, rng: np.random.Generator
) -> Draws:
    """Draw and reduce. sd: the documented standard deviation; kept: entries to keep in all, from places that rng
    chooses once.

    Raises InputError where a matrix has another shape than the first, or is not what `weights` takes."""
    out: list[list[Any]] = [[] for _ in range(7)]
    seen: set[bytes] = set()
    before: FloatArray | None = None
    for number in range(draws):
        w = next_matrix(number)
        if before is None:
            shape = w.shape
            places = rng.permutation(w.size)[: max(1, -(-kept // draws))]
            u, v = _unit(rng.normal(size=(shape[0],))), _unit(rng.normal(size=(shape[1],)))
        elif w.shape != shape:
            raise InputError("draw", f"shape {w.shape}", f"must return one shape at every call; the first was {shape}")
        seen.add(blake2b(w.tobytes()).digest())
        z = w / sd
        with np.errstate(all="ignore"):  # moments of absurd weights overflow: such a statement stays undecided
            found = (
                _moments(z),
                overlaps(z),
                overlaps(z.T),
                [] if before is None else [float(np.vdot(z, before) / np.linalg.norm(z) / np.linalg.norm(before))],
                z.ravel()[places],
                gram_error(z),
                haar_statistics(z, u, v),
            )
        for values, value in zip(out, found, strict=True):
            values.append(value)
        before = z
    moments, rows, columns, successive, entries, gram, haar = out
    return Draws(
        shape[0], shape[1], np.array(moments), np.array(rows), np.array(columns), np.concatenate(successive),
        draws - len(seen), np.concatenate(entries), np.array(gram), np.array(haar),
    )  # fmt: skip


def _unit(v: FloatArray) -> FloatArray:
    return np.asarray(v / np.linalg.norm(v))


def _moments(z: FloatArray) -> list[float]:
    square = z * z
    fourth = square * square
    return [float(v.mean()) for v in (z, square, fourth, fourth * square, fourth * fourth)]


def overlaps(z: FloatArray) -> tuple[float, float, float, float]:
    """Of the cosines r_ij between different rows of z (N, n), where N counts rows up to 1,024:

    (N − 1) mean r_ij, by which the sum of all rows is longer than that of independent ones; n mean r_ij², which is
    1 for independent rows of independent entries, exactly, if their law is symmetric; the mean fourth power of the
    entries of a row of norm 1, which tells how the second varies; and the largest |r_ij|."""
    a = z[:PAIRED]
    norm = np.linalg.norm(a, axis=1, keepdims=True)
    a = a / np.where(norm > 0, norm, 1.0)
    N, n = a.shape
    r = a @ a.T
    np.fill_diagonal(r, 0.0)
    pairs = N * (N - 1)
    together, squares = float(r.sum()) / N, n * float((r * r).sum()) / pairs
    return together, squares, float((a**2 * a**2).mean()), float(np.abs(r).max())


def overlap_spread(N: int, n: int, fourth: float) -> tuple[float, float]:
    """Standard deviations over matrices (N, n) of the first two `overlaps`, for independent symmetric entries.

    All r_ij are uncorrelated then, and so are their squares: given row i, the mean of r_ij² is 1/n whatever the row.
    E r⁴ = n s² + 3 (1 − n s)²/(n (n − 1)), with s = `fourth` the mean fourth power of an entry of a unit row."""
    N = min(N, PAIRED)
    mean_r4 = n * fourth**2 + 3 * (1 - n * fourth) ** 2 / (n * (n - 1))
    pairs = N * (N - 1) / 2
    return float(np.sqrt(2 * (N - 1) / (N * n))), float(np.sqrt(max(0.0, n**2 * mean_r4 - 1) / pairs))


def gram_error(z: FloatArray) -> float:
    """The largest entry of G − I: G holds the products of rows, or of columns where these are fewer, divided by
    their mean square norm."""
    gram = z @ z.T if z.shape[0] <= z.shape[1] else z.T @ z
    gram /= np.diagonal(gram).mean()
    return float(np.abs(gram - np.eye(len(gram))).max())


def haar_statistics(z: FloatArray, u: FloatArray, v: FloatArray) -> tuple[float, float, float, float]:
    """Of Q, the orthonormal rows or columns that z is a multiple of, each with mean 0 and variance 1 under Haar's
    law: √m Q_11, √m Q_kk, √m uᵀQv for unit vectors u, v, and √(m/k) tr Q, with k the shorter side and m the longer."""
    x = z / np.sqrt((z**2).mean())
    diagonal = np.diagonal(x)
    return float(diagonal[0]), float(diagonal[-1]), float(u @ x @ v), float(diagonal.sum() / np.sqrt(len(diagonal)))
