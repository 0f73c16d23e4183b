"""Batch-normalised Gaussian pre-activations of any batch covariance S (B, B).

Per unit h ~ N(0, S) over the batch, y = Ph/√(v + ε), P = I − 11ᵀ/B, v = ‖Ph‖²/B. With C = PSP, g = Ph ~ N(0, C):

**Positively homogeneous φ** (linear included) by the Laplace representation (v+ε)^−k = ∫ s^(k−1) e^(−s(v+ε)) ds/(k−1)!
and e^(−sv) N(0, C) = det(I + 2sC/B)^(−½) N(0, C_s), C_s = C(I + 2sC/B)^(−1):

    E φ(y_a)φ(y_b) = ∫ e^(−sε) det(I + 2sC/B)^(−½) E_{C_s} φ(g_a)φ(g_b) ds                      rank C ≥ 1, or ε > 0

whose inner expectation is closed; Yang et al. 2019 (arXiv:1902.08129) write it so. For the gradient, with A = D G D,
D = diag φ′(g), G the second moments of δ at x = φ(y), and Stein's lemma for the factors y (derived here):

    E[(v+ε)^(−1) (P − yyᵀ/B) A (P − yyᵀ/B)]
      = P ∫ e^(−sε) det^(−½) {(I − sC_s/B) H (I − sC_s/B) − diag w + s²f/(2B²) C_s} ds P        rank C > 2, or ε > 0

    H = G∘E φ′φ′ + diag w,  f = Σ_ab G_ab E φ(g_a)φ(g_b),  w_a = Σ_b G_ab E φ″(g_a)φ(g_b),  all under C_s

In x, s ∝ exp(x − e^−x), the integrands are analytic in a strip and fall doubly exponentially to the left, so that
the trapezoidal rule converges geometrically with few points.

**Any other φ** in the limit of a large batch: v → tr C/B, so that y ~ N(0, C/(v + ε)). The remainder is of first order
in tr C²/(tr C)², 1/B where no direction dominates, and comes with the value (`Limit.correction`); what it leaves is
of second order. Nothing here is small where the batch lies along few directions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mcverify.activations import Activation, Piece, Term, activation
from mcverify.errors import InputError
from mcverify.expectations import closed_forms, gaussian
from mcverify.expectations import pieces as piecewise
from mcverify.expectations.gaussian import Expectation
from mcverify.expectations.integrand import EPS
from mcverify.expectations.pairs import pairs
from mcverify.validate import variance

Floats: TypeAlias = NDArray[np.float64]

_FIRST_STEP, _HALVINGS = 0.4, 5
_TAIL = 40.0
"""e^−40: what the trapezoidal rule leaves beyond its ends, relatively."""
_LEFT = -3.6
"""x − e^−x < −40 below it."""
_DIFFERENCE = 0.02
"""Step of the differences behind `Limit.correction`, relative: of fourth order they leave 1e-6 of it."""


class Limit(NamedTuple):
    """The large-batch limit and its first-order correction: value is off by about `correction`, and
    value + correction by the second order."""

    value: Floats
    correction: Floats
    error: Floats
    """Of the quadrature behind `value`."""


class _Spectrum(NamedTuple):
    """C = PSP as vectors (B, r) and the r variances above rounding along them."""

    vectors: Floats
    variances: Floats

    @property
    def size(self) -> int:
        return len(self.vectors)

    @property
    def mean_variance(self) -> float:
        """E v = tr C/B."""
        return float(self.variances.sum()) / self.size

    def matrix(self, variances: Floats) -> Floats:
        return (self.vectors * variances) @ self.vectors.T


def rank(S: ArrayLike) -> int:
    """How many directions of the batch differ: the rank of PSP, B − 1 at most. The mean of a gradient needs more than
    2 at ε = 0, its variance more than 4."""
    return _spectrum(S).variances.size


# ------------------------------------------------------------------------------- positively homogeneous φ


def propagate(act: str | Activation, S: ArrayLike, *, eps: float = 0.0, rtol: float = 1e-10) -> Expectation:
    """E φ(y_a)φ(y_b), (B, B), for linear and positively homogeneous φ; exact for h ~ N(0, S).

    rtol is relative to the largest entry. Raises InputError for other φ, and where no two inputs differ at ε = 0."""
    row, spectrum = _homogeneous(act), _spectrum(S)
    variance("eps", eps)
    if spectrum.variances.size == 0:
        if eps == 0.0:
            raise InputError("S", 0, "must have two inputs that differ: at eps = 0 batch norm divides 0 by 0")
        return Expectation(np.zeros((spectrum.size,) * 2), np.zeros((spectrum.size,) * 2))

    if _linear(row):  # E yyᵀ has the eigenvectors of C
        found = _laplace(lambda s, c, weights: weights @ c, spectrum, eps, rtol, power=0)
        size = np.abs(spectrum.vectors)
        return Expectation(spectrum.matrix(found.value), (size * found.error) @ size.T)
    at = _one_by_one(lambda s, c: _kernel(row, "covariance", spectrum.matrix(c)))
    return _laplace(at, spectrum, eps, rtol, power=0)


def pull_back(
    act: str | Activation, S: ArrayLike, G: ArrayLike, *, eps: float = 0.0, rtol: float = 1e-10
) -> Expectation:
    """E Σ_i δ_ia δ_ib at h, (B, B), from the same G (B, B) at x = φ(y), for linear and positively homogeneous φ.

    δ at x must not depend on h: units exchangeable and uncorrelated, as below a random map in the wide limit. Use
    "linear" where no φ follows the normalisation. Raises InputError unless rank PSP > 2 or ε > 0."""
    row, spectrum, moments = _homogeneous(act), _spectrum(S), _matrix("G", G)
    variance("eps", eps)
    B, r = spectrum.size, spectrum.variances.size
    if len(moments) != B:
        raise InputError("G", moments.shape, f"must have the shape of S, ({B}, {B})")
    if eps == 0.0 and r <= 2:
        raise InputError("S", r, "must have rank above 2 once centred: else gradients have no finite mean at eps = 0")
    bend = ((row.slopes or (1.0, 1.0))[1] - (row.slopes or (1.0, 1.0))[0]) ** 2

    def at(s: float, variances: Floats) -> Floats:
        C = spectrum.matrix(variances)
        f = float((moments * _kernel(row, "covariance", C)).sum())
        w = bend * (moments * _bends(C)).sum(axis=1)
        H = moments * _kernel(row, "derivative", C) + np.diag(w)
        near = np.eye(B) - s / B * C
        return near @ H @ near - np.diag(w) + 0.5 * (s / B) ** 2 * f * C

    if r == 0:  # C = 0: y is 0, φ′ there is no coin
        raise InputError("S", 0, "must have two inputs that differ")
    if _linear(row):
        return _pull_back_linear(spectrum, moments, eps, rtol)
    out = _laplace(_one_by_one(at), spectrum, eps, rtol, power=1)
    P = np.eye(B) - 1.0 / B
    return Expectation(P @ out.value @ P, np.abs(P) @ out.error @ np.abs(P))


def _linear(row: Activation) -> bool:
    """φ(u) = u: all is done along the eigenvectors of C."""
    return row.slopes == (1.0, 1.0)


def _pull_back_linear(spectrum: _Spectrum, moments: Floats, eps: float, rtol: float) -> Expectation:
    """Along the eigenvectors of C and those of 1^⊥ at which it vanishes: I − sC_s/B is diagonal there, and H = G."""
    B, r = spectrum.size, spectrum.variances.size
    vectors = spectrum.vectors - spectrum.vectors.mean(axis=0)  # those of small variance lean toward 1 by rounding
    rest = np.linalg.qr(np.column_stack([vectors, np.ones(B)]), mode="complete")[0][:, r + 1 :]
    basis = np.hstack([vectors, rest])
    along = basis.T @ moments @ basis

    def at(s: Floats, c: Floats, weights: Floats) -> Floats:
        near = np.ones((len(s), len(along)))
        near[:, :r] -= s[:, None] / B * c
        out = along * ((weights[:, None] * near).T @ near)
        out[np.arange(r), np.arange(r)] += (0.5 * weights * (s / B) ** 2 * (c @ np.diagonal(along)[:r])) @ c
        return np.asarray(out)

    found = _laplace(at, spectrum, eps, rtol, power=1)
    size = np.abs(basis)
    return Expectation(basis @ found.value @ basis.T, size @ found.error @ size.T)


Weighted: TypeAlias = Callable[[Floats, Floats, Floats], Floats]  # (s (k,), variances of C_s (k, r), weights (k,))


def _one_by_one(at: Callable[[float, Floats], Floats]) -> Weighted:
    """The weighted sum of at(s, variances of C_s), one s after another."""

    def total(s: Floats, c: Floats, weights: Floats) -> Floats:
        return np.asarray(sum(w * at(float(one), each) for one, each, w in zip(s, c, weights, strict=True)))

    return total


def _laplace(at: Weighted, spectrum: _Spectrum, eps: float, rtol: float, power: int) -> Expectation:
    """∫_0^∞ e^(−sε) det(I + 2sC/B)^(−½) at(s, variances of C_s) ds; `at` gives weighted sums over s of what is bounded
    by the largest of them for power 0, and by a constant for power 1.

    Steps in x are halved until two rules agree; the difference is the error reported, and that of the finer is about
    its square, relatively."""
    B, c = spectrum.size, spectrum.variances
    unit = 1.0 / (spectrum.mean_variance + eps)

    def place(x: Floats) -> tuple[Floats, Floats]:
        """s, and the logarithm of all but `at`."""
        s = unit * np.exp(x - np.exp(-x))
        return s, np.log(s) + np.log1p(np.exp(-x)) - s * eps - 0.5 * np.log1p(s[:, None] * (2.0 * c / B)).sum(axis=1)

    def total(points: Floats) -> Floats:
        s, w = place(points)
        return at(s, c / (1.0 + 2.0 * s[:, None] * c / B), np.exp(w))

    points = _ends(place, c / B, eps, unit, power)
    step, rule = _FIRST_STEP, total(points)
    for _ in range(_HALVINGS):
        middle = total(points + 0.5 * step)
        value, error = 0.5 * step * (rule + middle), 0.5 * step * np.abs(rule - middle)
        rule, points, step = rule + middle, np.concatenate([points, points + 0.5 * step]), 0.5 * step
        scale = float(np.abs(value).max())
        if error.max() <= max(rtol, 1e-13) * scale:
            break
    return Expectation(value, error + 64 * EPS * scale)


def _ends(
    place: Callable[[Floats], tuple[Floats, Floats]], c: Floats, eps: float, unit: float, power: int
) -> Floats:
    """The points of the first rule: those where the integrand's bound is more than e^−40 of its largest."""
    ends, decay = [], 0.5 * c.size - power
    if decay > 0.0:
        # beyond 1/(2c) of the smallest variance the fall is s^−decay; before, slower, but no rise
        ends.append(-math.log(2.0 * float(c.min())) + _TAIL / decay)
    if eps > 0.0:
        ends.append(math.log(_TAIL / eps) + 1.0)
    high = max(min(ends) - math.log(unit), 0.0) + 1.0
    points = np.arange(_LEFT, high + _FIRST_STEP, _FIRST_STEP)
    s, bound = place(points)
    if power == 0:
        bound = bound - np.log1p(2.0 * s * float(c.max()))
    kept = np.flatnonzero(bound > bound.max() - _TAIL)
    return points[kept[0] : kept[-1] + 1]


def _kernel(row: Activation, which: str, C: Floats) -> Floats:
    """E f(g_a)f(g_b) under N(0, C), (B, B), closed; f = φ or φ′ (which = "derivative"). An input that is the mean of
    the batch at every unit has g = 0, where φ′ is no coin: here it counts as one."""
    q = np.maximum(np.diagonal(C), 0.0)
    bound = np.sqrt(q[:, None] * q)
    given, shape = pairs(q[:, None], np.clip(C, -bound, bound), q[None, :])
    kernel = closed_forms.kernel(row, which)
    assert kernel is not None  # every positively homogeneous row has them
    return np.asarray(kernel(given)[0]).reshape(shape)


def _bends(C: Floats) -> Floats:
    """E δ(g_a) relu(g_b) − and + alike − under N(0, C), (B, B): sin θ_ab √(C_bb/C_aa)/2π; 0 on the diagonal."""
    q = np.maximum(np.diagonal(C), 0.0)
    bound = np.sqrt(q[:, None] * q)
    given, shape = pairs(q[:, None], np.clip(C, -bound, bound), q[None, :])
    ratio = np.divide(given.sd_b, given.sd_a, out=np.zeros_like(given.sd_b), where=given.sd_a > 0.0)
    out = (given.sin * ratio).reshape(shape) / (2.0 * math.pi)
    np.fill_diagonal(out, 0.0)
    return out


def _homogeneous(act: str | Activation) -> Activation:
    row = activation(act)
    if row.slopes is None:
        raise InputError("activation", row.name, "must be positively homogeneous here; `limit` takes any other")
    return row


# --------------------------------------------------------------------------------- any φ, a large batch


def limit(
    act: str | Activation, S: ArrayLike, *, eps: float = 0.0, gain: float = 1.0, rtol: float = 1e-10
) -> Limit:
    """E φ(g·y_a)φ(g·y_b), (B, B), as B → ∞: y ~ N(0, C/(v̄ + ε)), v̄ = tr C/B; and the first correction. g = gain."""
    row, spectrum = activation(act), _spectrum(S)

    def kernel(C: Floats) -> Expectation:
        return _gaussian_pairs(lambda *q: gaussian.covariance(row, *q, rtol=rtol), gain**2 * C)

    return _expanded(kernel, spectrum, eps, power=0)


def limit_pull_back(
    act: str | Activation, S: ArrayLike, G: ArrayLike, *, eps: float = 0.0, gain: float = 1.0, rtol: float = 1e-10
) -> tuple[Limit, float]:
    """The moments at h, (B, B), from G at x = φ(g·y), g = gain, as B → ∞ for G near diagonal; and what to add to their
    trace. Written for g = 1:

    The matrix is P (G∘E φ′φ′) P/(v̄ + ε), its correction that of E φ′(y_a)φ′(y_b)/(v + ε) alone. Both leave out what
    yyᵀ/B takes away, which is of first order where G is near diagonal (cotangents of the inputs independent) but of
    order 1 where G has a part common to all inputs, as for one cotangent shared by all. The number holds it:
    trace(value) + number is the total squared gradient to first order for any G, from

        tr M = E [Σ_ab P_ab G_ab φ′_aφ′_b − (1 + ε/(v+ε)) Σ_ab G_ab ψ(y_a)ψ(y_b)/B]/(v + ε),  ψ(u) = uφ′(u)"""
    row, spectrum, moments = activation(act), _spectrum(S), _matrix("G", G)
    B = spectrum.size
    if len(moments) != B:
        raise InputError("G", moments.shape, f"must have the shape of S, ({B}, {B})")

    def kernel(of: Callable[..., Expectation], given: Activation) -> Callable[[Floats], Expectation]:
        return lambda C: _gaussian_pairs(lambda *q: of(given, *q, rtol=rtol), gain**2 * C)

    found = _expanded(kernel(gaussian.derivative_covariance, row), spectrum, eps, power=1)
    total = spectrum.mean_variance + eps
    P = np.eye(B) - 1.0 / B
    scale = gain**2 / total
    value, correction = (scale * P @ (moments * m) @ P for m in (found.value, found.correction))
    error = scale * np.abs(P) @ (np.abs(moments) * found.error) @ np.abs(P)
    along = 0.0
    for power, share in ((1, 1.0), (2, eps / total)) if eps else ((1, 1.0),):
        turn = _expanded(kernel(gaussian.covariance, _turning(row)), spectrum, eps, power)
        along += share * float((moments * (turn.value + turn.correction)).sum()) / (B * total)
    return Limit(value, correction, error), float(np.trace(correction)) - along


def _turning(row: Activation) -> Activation:
    """ψ(u) = uφ′(u) as a row whose covariance can be asked for."""
    whole = (Piece(-math.inf, math.inf, (Term(1.0, 1, 0.0),)),)
    pieces = piecewise.product(whole, piecewise.differentiate(row.pieces))
    return replace(
        row, name=f"u·{row.name}′", phi=lambda u: u * row.dphi(u), pieces=pieces, kernel="", slopes=None, jumps=(),
    )  # fmt: skip


def _expanded(kernel: Callable[[Floats], Expectation], spectrum: _Spectrum, eps: float, power: int) -> Limit:
    """E F(g, v) = Φ(C̃) + first order, F homogeneous in (v+ε) but for its scale: F = τ^power f(√τ g̃), τ = 1/(1+η),

        (2/B) ∂_t ∂_η τ^power Φ(τ(C̃ + tC̃²)) + (tr C̃²/B²) ∂_η² τ^power Φ(τC̃)     at t = η = 0

    as E η f = (1/B) E tr(C̃²∇²f) (Stein) and E η² ≈ 2 tr C̃²/B²; g̃ ~ N(0, C̃), η = (‖g̃‖² − tr C̃)/B."""
    total = spectrum.mean_variance + eps
    if total <= 0.0:
        raise InputError("S", 0, "must have two inputs that differ: at eps = 0 batch norm divides 0 by 0")
    c = spectrum.variances / total
    h, largest = _DIFFERENCE, float(c.max(initial=0.0))

    def at(eta: float, t: float) -> Floats:
        """t in units of 1/largest, so that C̃ + tC̃² stays a covariance."""
        tau = 1.0 / (1.0 + eta)
        return tau**power * kernel(spectrum.matrix(tau * c * (1.0 + t * c / max(largest, 1e-300)))).value

    value, error = kernel(spectrum.matrix(c))
    first = [(1, 2.0 / 3.0), (2, -1.0 / 12.0)]
    mixed = sum(
        (wi * wj * si * sj * at(si * i * h, sj * j * h)
         for i, wi in first for j, wj in first for si in (1, -1) for sj in (1, -1)),
        np.zeros_like(value),
    ) / h**2  # fmt: skip
    second = (-2.5 * value + (4.0 / 3.0) * (at(h, 0) + at(-h, 0)) - (at(2 * h, 0) + at(-2 * h, 0)) / 12.0) / h**2
    B = spectrum.size
    return Limit(value, 2.0 * largest / B * mixed + float((c**2).sum()) / B**2 * second, error)


def _gaussian_pairs(pair: Callable[..., Expectation], C: Floats) -> Expectation:
    q = np.maximum(np.diagonal(C), 0.0)
    bound = np.sqrt(q[:, None] * q)
    upper = np.triu_indices(len(C))
    found = pair(q[upper[0]], np.clip(C, -bound, bound)[upper], q[upper[1]])
    out = np.zeros((2, *C.shape))
    for each, flat in zip(out, found, strict=True):
        each[upper] = flat
        each.T[upper] = flat
    return Expectation(*out)


# --------------------------------------------------------------------------------------------- the batch


def _spectrum(S: ArrayLike) -> _Spectrum:
    """That of a batch; a layer asks several times for the same one."""
    given = _matrix("S", S)
    return _found_spectrum(given.tobytes(), len(given))


@lru_cache(maxsize=4)
def _found_spectrum(content: bytes, B: int) -> _Spectrum:
    given = np.frombuffer(content).reshape(B, B)
    if B < 2:
        raise InputError("S", given.shape, "must have at least 2 inputs")
    centred = given - given.mean(axis=0) - given.mean(axis=1)[:, None] + given.mean()
    variances, vectors = np.linalg.eigh(0.5 * (centred + centred.T))
    floor = 8.0 * B * EPS * float(np.abs(given).max())
    if variances[0] < -1e6 * floor:
        raise InputError("S", float(variances[0]), "must be a covariance: it has a negative eigenvalue")
    kept = variances > floor
    found = _Spectrum(vectors[:, kept], variances[kept])
    for array in found:
        array.setflags(write=False)
    return found


def _matrix(field: str, given: ArrayLike) -> Floats:
    out = np.asarray(given, dtype=np.float64)
    if out.ndim != 2 or out.shape[0] != out.shape[1] or not np.isfinite(out).all():
        raise InputError(field, out.shape, "must be a square matrix of finite numbers")
    if np.abs(out - out.T).max(initial=0.0) > 1e-9 * np.abs(out).max(initial=0.0):
        raise InputError(field, out.shape, "must be symmetric")
    return out
