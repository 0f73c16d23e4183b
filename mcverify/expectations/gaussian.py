"""Expectations of an activation over one or two centred Gaussian pre-activations.

    ⟨φ²⟩_q = E φ(√q z)²            E φ(u_a) φ(u_b),  (u_a, u_b) ~ N(0, [[q_aa, q_ab], [q_ab, q_bb]])

In float64, broadcasting over arrays. Every result is an `Expectation`: the value and a bound, estimated
honestly, on how far it is from the truth, rounding included. Closed forms where they are known, quadrature
else:

- linear, relu, leaky_relu, sin, sign: all closed. erf and gelu: closed but for higher moments and
  `product_second_moment`.
- hard_tanh, elu, selu: one-dimensional expectations closed, pairs by quadrature over closed inner ones.
- tanh, sigmoid, silu, softplus and custom activations: quadrature and Mehler's series, error estimated.

`rtol` is a target, relative to E|f| in one dimension and to √(E f_a² E f_b²) in two; the error says what
was reached. `method`: "auto"; "closed" refuses what has no closed form; "quadrature" uses no closed form
anywhere, so that the two can be held against each other.

At q = 0 the pre-activation is the constant 0, so φ′ there is what the activation says at 0 (relu: 0), not
the limit of small q (½ for ⟨φ′²⟩): evaluate at a tiny q for the limit. Slopes in q are limits from above.

Doubles set the range: `product_second_moment` underflows below q ≈ 1e-150 and needs q below 1e75.

Raises InputError on negative or non-finite variances, and on |q_ab| above √(q_aa·q_bb) by more than 1e-9
relatively; below that it is clipped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mcverify.activations import Activation, activation
from mcverify.errors import InputError
from mcverify.expectations import closed_forms, mehler, moments
from mcverify.expectations.conditional import nest
from mcverify.expectations.integrand import EPS, Integrand, power_of
from mcverify.expectations.pairs import Pairs, pairs, variances
from mcverify.expectations.quadrature import accuracy, integrate
from mcverify.expectations.slopes import slope

Floats: TypeAlias = NDArray[np.float64]
Method: TypeAlias = Literal["auto", "closed", "quadrature"]

_CLOSED_ROUNDING = 8 * EPS
"""Error of a closed form over the sum of the magnitudes of its terms."""
_SPLITS = 3


class Expectation(NamedTuple):
    """A value and a bound on its absolute error; arrays of the same shape."""

    value: Floats
    error: Floats


# ----------------------------------------------------------------------------------- one pre-activation


def second_moment(act: str | Activation, q: ArrayLike, *, rtol: float = 1e-12, method: Method = "auto") -> Expectation:
    """⟨φ²⟩_q, the shape of q."""
    return moment(act, q, 2, rtol=rtol, method=method)


def derivative_second_moment(
    act: str | Activation, q: ArrayLike, *, rtol: float = 1e-12, method: Method = "auto"
) -> Expectation:
    """⟨φ′²⟩_q, the shape of q."""
    return moment(act, q, 2, 1, rtol=rtol, method=method)


def moment(
    act: str | Activation,
    q: ArrayLike,
    power: int,
    derivative: int = 0,
    *,
    rtol: float = 1e-12,
    method: Method = "auto",
) -> Expectation:
    """⟨φ^power⟩_q, or ⟨φ′^power⟩_q for derivative=1, the shape of q; power ≥ 1."""
    row, qs = activation(act), variances("q", q)
    _check(rtol, method)
    if power != int(power) or power < 1:
        raise InputError("power", power, "must be a whole number, at least 1")
    if derivative not in (0, 1):
        raise InputError("derivative", derivative, "allowed: 0 or 1")
    f = power_of(row, int(power), derivative)
    closed = moments.closed_moment(row, int(power), derivative) if method != "quadrature" else None
    if closed is None and method == "closed":
        raise InputError("method", method, f"⟨{f.name}⟩ of {row.name} has no closed form")
    flat = qs.reshape(-1)
    value, error = np.zeros(flat.shape), np.full(flat.shape, np.inf)
    if closed is not None:
        inside = flat > 0.0
        value[inside], size = closed(flat[inside])
        error[inside] = _CLOSED_ROUNDING * size
    _improve(value, error, rtol if method != "closed" else np.inf, lambda i: integrate(f, flat[i], rtol))
    return Expectation(value.reshape(qs.shape), error.reshape(qs.shape))


def _improve(
    value: Floats, error: Floats, rtol: float, other: Callable[[NDArray[np.intp]], tuple[Floats, Floats]]
) -> None:
    """Where the error is above the target (the terms of a closed form may cancel), take `other` if it is
    better.
    """
    with np.errstate(invalid="ignore"):
        todo = np.flatnonzero((error > max(rtol, 64 * EPS) * np.abs(value)) | (error == np.inf))
    if todo.size:
        got, spread = other(todo)
        better = spread < error[todo]
        value[todo[better]], error[todo[better]] = got[better], spread[better]


def expect(
    f: Callable[[Any], Any],
    q: ArrayLike,
    kinks: Sequence[float] = (),
    *,
    scale: float = 1.0,
    rtol: float = 1e-12,
) -> Expectation:
    """E f(√q z) for any vectorised f, the shape of q, by quadrature.

    `kinks`: points where f or a low derivative jumps. `scale`: the length over which f varies about 0.
    Features elsewhere that are much narrower than both `scale` and √q may be missed.
    """
    qs = variances("q", q)
    _check(rtol, "auto")
    wrapped = Integrand("f", f, tuple(sorted(float(k) for k in kinks)), float(scale))
    value, error = integrate(wrapped, qs.reshape(-1), rtol)
    return Expectation(value.reshape(qs.shape), error.reshape(qs.shape))


def second_moment_slope(
    act: str | Activation, q: ArrayLike, *, rtol: float = 1e-12, method: Method = "auto"
) -> Expectation:
    """d⟨φ²⟩_q/dq = ⟨(z² − 1)φ²⟩/2q, the shape of q; kinks and jumps included.

    At q = 0 the limit from above: φ′(0)² + φ(0)φ″(0) for smooth φ, ½ for relu, ½(1 + a²) for leaky_relu(a),
    +inf for sign (⟨φ²⟩ jumps from 0 to 1).
    """
    return _slope(act, q, 0, rtol, method)


def derivative_second_moment_slope(
    act: str | Activation, q: ArrayLike, *, rtol: float = 1e-12, method: Method = "auto"
) -> Expectation:
    """d⟨φ′²⟩_q/dq, the shape of q; at q = 0 the limit from above, ±inf where it diverges (elu)."""
    return _slope(act, q, 1, rtol, method)


def _slope(act: str | Activation, q: ArrayLike, derivative: int, rtol: float, method: Method) -> Expectation:
    row, qs = activation(act), variances("q", q)
    _check(rtol, method)
    flat = qs.reshape(-1)
    closed = moments.closed_slope(row, derivative) if method != "quadrature" else None
    if closed is not None and not (row.jumps and (flat == 0.0).any()):
        value, size = closed(flat)
        error = _CLOSED_ROUNDING * size
    elif method == "closed" and closed is None and not row.pieces:
        raise InputError("method", method, f"the slope of {row.name} has no closed form")
    else:
        value, error = slope(row, derivative, flat, rtol, method != "quadrature")
        if method == "auto" and row.pieces:
            _improve(value, error, rtol, lambda i: slope(row, derivative, flat[i], rtol, False))
    return Expectation(value.reshape(qs.shape), error.reshape(qs.shape))


# ---------------------------------------------------------------------------------- two pre-activations


def covariance(
    act: str | Activation,
    q_aa: ArrayLike,
    q_ab: ArrayLike,
    q_bb: ArrayLike,
    *,
    rtol: float = 1e-12,
    method: Method = "auto",
) -> Expectation:
    """E φ(u_a)φ(u_b), in the broadcast shape of the three."""
    row = activation(act)
    return _pair(row, "covariance", power_of(row, 1), (q_aa, q_ab, q_bb), rtol, method)


def derivative_covariance(
    act: str | Activation,
    q_aa: ArrayLike,
    q_ab: ArrayLike,
    q_bb: ArrayLike,
    *,
    rtol: float = 1e-12,
    method: Method = "auto",
) -> Expectation:
    """E φ′(u_a)φ′(u_b), in the broadcast shape of the three.

    Price's theorem: it is the slope of `covariance` in q_ab, where φ has no jump.
    """
    row = activation(act)
    return _pair(row, "derivative", power_of(row, 1, 1), (q_aa, q_ab, q_bb), rtol, method)


def product_second_moment(
    act: str | Activation,
    q_aa: ArrayLike,
    q_ab: ArrayLike,
    q_bb: ArrayLike,
    *,
    rtol: float = 1e-12,
    method: Method = "auto",
) -> Expectation:
    """E φ(u_a)²φ(u_b)², in the broadcast shape of the three; less `covariance`², the variance of
    φ(u_a)φ(u_b).
    """
    row = activation(act)
    return _pair(row, "product", power_of(row, 2), (q_aa, q_ab, q_bb), rtol, method)


def _pair(
    row: Activation,
    which: str,
    f: Integrand,
    triple: tuple[ArrayLike, ArrayLike, ArrayLike],
    rtol: float,
    method: Method,
) -> Expectation:
    given, shape = pairs(*triple)
    _check(rtol, method)
    value, error = np.empty(len(given)), np.empty(len(given))
    flat = given.degenerate
    if flat.any():
        value[flat], error[flat] = _independent(f, given[flat], rtol)
    kernel = closed_forms.kernel(row, which) if method != "quadrature" else None
    if kernel is not None:
        value[~flat], size = kernel(given[~flat])
        error[~flat] = _CLOSED_ROUNDING * size
    elif method == "closed":
        raise InputError("method", method, f"the {which} of {row.name} has no closed form")
    elif not flat.all():
        value[~flat], error[~flat] = _two_dimensional(f, given[~flat], rtol, method != "quadrature")
    return Expectation(value.reshape(shape), error.reshape(shape))


def _independent(f: Integrand, given: Pairs, rtol: float) -> tuple[Floats, Floats]:
    """Pairs of which one is the constant 0: f(0)·E f."""
    at_zero = float(f(np.zeros(1))[0])
    mean, error = integrate(f, np.maximum(given.q_aa, given.q_bb), rtol)
    return at_zero * mean, np.abs(at_zero) * error


def _two_dimensional(f: Integrand, given: Pairs, rtol: float, elementary: bool) -> tuple[Floats, Floats]:
    """Mehler's series where it converges; elsewhere nested quadrature, refined until the target or the last
    split.
    """
    rules = accuracy(rtol)
    if f.breaks_only_at_zero:
        value, error, scale = mehler.expand(f, given, rtol, rules)
    else:
        value, error, scale = np.zeros(len(given)), np.full(len(given), np.inf), _scale(f, given)
    attempts = [(0, True)] if elementary and f.pieces else []
    for splits, closed in attempts + [(splits, False) for splits in range(_SPLITS)]:
        todo = np.flatnonzero(error > max(rtol, 64 * EPS) * scale)
        if not todo.size:
            break
        finer = replace(f, scale=f.scale / 8.0**splits)
        got, spread = nest(finer, given[todo], rules, splits=splits, elementary=closed)
        better = spread < error[todo]
        value[todo[better]], error[todo[better]] = got[better], spread[better]
    return value, error


def _scale(f: Integrand, given: Pairs) -> Floats:
    """√(E f_a² E f_b²)."""
    square = replace(f, function=lambda u: f(u) ** 2, pieces=())
    unique, where = np.unique(np.concatenate([given.q_aa, given.q_bb]), return_inverse=True)
    norm = np.sqrt(integrate(square, unique, 1e-3)[0])[where]
    return np.asarray(norm[: len(given)] * norm[len(given) :])


def _check(rtol: float, method: str) -> None:
    if not 0.0 < rtol < 1.0:
        raise InputError("rtol", rtol, "must be between 0 and 1")
    if method not in get_args(Method):
        raise InputError("method", method, f"allowed: {', '.join(get_args(Method))}")
