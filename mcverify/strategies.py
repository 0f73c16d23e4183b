"""Hypothesis strategies: networks, inputs and what they are made of, for property tests.

    from hypothesis import given
    from mcverify.strategies import networks, seed_of, with_inputs

    @given(with_inputs(networks(activations=["relu"], sigma_b2=0.0)))
    def test_something(case):
        net, x = case
        run = mv.simulate(net, x, samples=2, rng=seed_of(net, x))

What is drawn is a *configuration*; random numbers come from a seed that `seed_of` derives from it. Inside
`@given` only what holds in every sample can be asserted. A p-value cannot: among 100 examples one lies below 0.01
by chance alone, and Hypothesis looks for it. Collect p-values in a list, and decide once, outside.

Everything shrinks towards `mlp(1, [1], 'linear')`, and is printed as code that can be pasted. Options are checked
when a strategy is made: InputError names the one that cannot be. Needs `pip install 'mcverify[hypothesis]'`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

try:
    from hypothesis import strategies as st
except ImportError:
    raise ImportError("mcverify.strategies needs Hypothesis: pip install 'mcverify[hypothesis]'") from None

from mcverify import activations as rows
from mcverify.errors import InputError, nearest
from mcverify.inputs import with_gram
from mcverify.layers.convolution import DELTA, NORMALISATIONS, PADDINGS
from mcverify.network import Network, cnn, mlp
from mcverify.streams import KEY_BITS, LAYER_BITS, REPLICATE_BITS, Site, stream_key
from mcverify.validate import LEAST, count, share, variance
from mcverify.weights import LAWS, weight_law

Strategy = st.SearchStrategy
FloatArray = NDArray[np.float64]

KINDS = ("generic", "scaled", "zero", "repeated", "parallel", "near", "crowded")
"""How vectors can lie: see `vectors`."""

NARROW = 6
"""Half of all widths are at most this: there the effects of finite width are largest."""


def seed_of(*config: Any, purpose: str = "") -> int:
    """A seed in [0, 2^64) that depends on the configuration alone, through its repr; a purpose gives another one.

    Arrays count with every digit. Raises InputError for what prints an address in memory, such as a lambda: it would
    give another seed in another run."""
    with np.printoptions(
        threshold=sys.maxsize, floatmode="unique", linewidth=75, precision=8, suppress=False, sign="-"
    ):
        text = repr(config)
    if " at 0x" in text:
        raise InputError("config", text, "must not print an address in memory: it changes from run to run")
    return stream_key(0, text, purpose)


# ---- numbers ----------------------------------------------------------------------------------------------


def width(min_width: int = 1, max_width: int = 16) -> Strategy[int]:
    """One width; half of them at most 6. Raises InputError unless 1 ≤ min_width ≤ max_width."""
    _in_order("width", min_width, max_width)
    every = st.integers(min_width, max_width)
    return st.integers(min_width, NARROW) | every if min_width <= NARROW < max_width else every


def widths(
    min_depth: int = 1, max_depth: int = 4, min_width: int = 1, max_width: int = 16, *, square: bool = False
) -> Strategy[list[int]]:
    """min_depth to max_depth widths as for `mlp`, each as `width` draws it; square: all equal.

    Raises InputError unless 1 ≤ min ≤ max."""
    _in_order("depth", min_depth, max_depth)
    one = width(min_width, max_width)
    if square:
        return st.builds(lambda n, depth: [n] * depth, one, st.integers(min_depth, max_depth))
    return st.lists(one, min_size=min_depth, max_size=max_depth)


def sigma_w2(min_value: float = 0.25, max_value: float = 4.0) -> Strategy[float]:
    """A weight variance (times fan_in) in [min_value, max_value]; shrinks towards 1, or what is nearest to it.

    Raises InputError unless 0 ≤ min_value ≤ max_value."""
    _variances("sigma_w2", min_value, max_value)
    return st.just(float(min(max(1.0, min_value), max_value))) | _floats(min_value, max_value)


def sigma_b2(min_value: float = 1e-6, max_value: float = 1.0, *, none: bool = True) -> Strategy[float]:
    """A bias variance in [min_value, max_value] and, with `none`, half the time 0, towards which it shrinks.

    The least is not 0 by default, since a variance of 10⁻³⁰⁰ tests little but underflow.
    Raises InputError unless 0 ≤ min_value ≤ max_value."""
    _variances("sigma_b2", min_value, max_value)
    biased = _floats(min_value, max_value)
    return st.just(0.0) | biased if none else biased


def _floats(low: float, high: float) -> Strategy[float]:
    """What networks take for a variance: 0, or no less than LEAST."""
    return st.floats(float(low), float(high)).map(lambda v: v if v >= LEAST else float(low))


# ---- names ------------------------------------------------------------------------------------------------

# A family's parameter in tenths: from, to. leaky_relu(1) is left out: it is linear, which has a row of its own.
_TENTHS = {"leaky_relu": (-10, 9), "elu": (1, 20)}


def activations(
    names: Sequence[str] | None = None,
    *,
    smooth: bool | None = None,
    homogeneous: bool | None = None,
    bounded: bool | None = None,
    continuous: bool | None = None,
) -> Strategy[str]:
    """The name of an activation: any, or of those in `names`; "linear" first, then "relu".

    A family without its parameter, "leaky_relu" or "elu", is drawn with one: "leaky_relu(0.3)". True or False keeps
    those that are, or are not: smooth (no kinks; φ″ exists everywhere), homogeneous (φ(cu) = cφ(u) for c > 0),
    bounded, continuous (all but sign; their tangents are derivatives). Raises InputError for an unknown name, or where
    none is left."""
    wanted = {"smooth": smooth, "homogeneous": homogeneous, "bounded": bounded, "continuous": continuous}

    def fits(name: str) -> bool:
        row = rows.activation(name)
        has = {
            "smooth": not row.kinks, "homogeneous": row.slopes is not None, "bounded": row.bounded,
            "continuous": not row.jumps,
        }  # fmt: skip
        return all(asked is None or has[key] == asked for key, asked in wanted.items())

    known = sorted(rows.names(), key=lambda name: (name != "linear", name != "relu", name))
    left = [name for name in _several("activations", names, known) if fits(name)]
    if not left:
        asked = {key: value for key, value in wanted.items() if value is not None}
        raise InputError("activations", asked, "no activation is all that")
    return st.sampled_from(left).flatmap(_with_parameter)


def _with_parameter(name: str) -> Strategy[str]:
    usual = st.just(rows.activation(name).name)
    if name not in _TENTHS:
        return usual
    return usual | st.integers(*_TENTHS[name]).map(lambda tenths: f"{name}({tenths / 10:g})")


def weight_laws(names: Sequence[str] | None = None, *, independent: bool | None = None) -> Strategy[str]:
    """The name of a weight law: any, or of those in `names`; "gaussian" first. independent=True leaves orthogonal out.

    Raises InputError for an unknown name, or where none is left."""
    left = [n for n in _several("weight_laws", names, list(LAWS)) if independent in (None, weight_law(n).independent)]
    if not left:
        raise InputError("weight_laws", {"independent": independent}, "no law is that")
    return st.sampled_from(left)


def kernel_laws(names: Sequence[str] | None = None) -> Strategy[str]:
    """The name of a law of convolution kernels: any weight law or "delta_orthogonal", or of those in `names`;
    "gaussian" first. Raises InputError for an unknown name."""
    return st.sampled_from(_several("kernel_laws", names, [*LAWS, DELTA]))


# ---- networks ---------------------------------------------------------------------------------------------

_activations, _laws, _sigma_w2, _sigma_b2 = activations, weight_laws, sigma_w2, sigma_b2  # hidden by the arguments


def networks(
    *,
    activations: str | Sequence[str] | Strategy[str] | None = None,
    laws: str | Sequence[str] | Strategy[str] | None = None,
    min_depth: int = 1,
    max_depth: int = 4,
    min_width: int = 1,
    max_width: int = 16,
    square: bool = False,
    sigma_w2: float | Strategy[float] | None = None,
    sigma_b2: float | Strategy[float] | None = None,
    keep: float | Strategy[float] | None = None,
    readout: bool | None = None,
) -> Strategy[Network]:
    """Multilayer perceptrons (`mlp`), of every activation and law unless told otherwise.

    activations, laws: a name, several, or a strategy such as activations(smooth=True). depth: how many widths, a
    readout not counted; width: of every layer, and n_0. square: all widths and n_0 equal. sigma_w2, sigma_b2, keep:
    a number (sigma_b2=0.0 for no biases, keep=1.0 for no dropout) or a strategy; masks are shared or not. readout:
    True, False, or either.
    Shrinks to `mlp(1, [1], 'linear')`. Raises InputError for an unknown name, a number out of range, or min > max."""
    _in_order("depth", min_depth, max_depth)
    sizes = widths(min_depth + 1, max_depth + 1, min_width, max_width, square=square)
    options: Strategy[dict[str, Any]] = st.fixed_dictionaries(
        {
            "activation": _named(activations, _activations),
            "weights": _named(laws, _laws),
            "sigma_w2": _number("sigma_w2", sigma_w2, _sigma_w2(), variance),
            "sigma_b2": _number("sigma_b2", sigma_b2, _sigma_b2(), variance),
            "keep": _number("keep", keep, st.sampled_from([1.0, 0.9, 0.5]), share),
            "shared_masks": st.booleans(),
        }
    )
    reads_out = st.booleans() if readout is None else st.just(readout)

    @st.composite
    def draw_network(draw: st.DrawFn) -> Network:
        n_0, *hidden = draw(sizes)
        outputs = hidden[-1] if square else draw(width(min_width, max_width))
        return mlp(n_0, hidden, readout=outputs if draw(reads_out) else None, **draw(options))

    return draw_network()


def convolutional_networks(
    *,
    activations: str | Sequence[str] | Strategy[str] | None = None,
    laws: str | Sequence[str] | Strategy[str] | None = None,
    min_depth: int = 1,
    max_depth: int = 3,
    max_channels: int = 6,
    max_size: int = 5,
    sigma_w2: float | Strategy[float] | None = None,
    sigma_b2: float | Strategy[float] | None = None,
) -> Strategy[Network]:
    """Convolutional networks (`cnn`) in one or two dimensions, of every activation, kernel law, padding, kernel that
    fits its grid, and normalisation that the channels admit, unless told otherwise.

    max_size: of the grid, along each axis; other options as for `networks`, laws as for `kernel_laws`.
    Shrinks to `cnn((1, 1), [1], 'linear', kernel_size=(1,))`. Raises InputError as `networks`."""
    _in_order("depth", min_depth, max_depth)
    count("max_size", max_size)
    channels = widths(min_depth + 1, max_depth + 1, 1, max_channels)
    grid = st.lists(st.integers(1, max_size), min_size=1, max_size=2)
    options: Strategy[dict[str, Any]] = st.fixed_dictionaries(
        {
            "activation": _named(activations, _activations),
            "weights": _named(laws, kernel_laws),
            "sigma_w2": _number("sigma_w2", sigma_w2, _sigma_w2(), variance),
            "sigma_b2": _number("sigma_b2", sigma_b2, _sigma_b2(), variance),
        }
    )

    @st.composite
    def draw_network(draw: st.DrawFn) -> Network:
        n_0, *hidden = draw(channels)
        size, chosen = draw(grid), draw(options)
        kernel = [draw(st.integers(1, n)) for n in size]
        orthogonal = chosen["weights"] == DELTA or not weight_law(chosen["weights"]).independent
        circular = chosen["weights"] == "orthogonal" and max(kernel) > 1
        padding = draw(st.sampled_from(PADDINGS[:1] if circular else PADDINGS))
        keeps = orthogonal and sorted([n_0, *hidden]) == [n_0, *hidden]
        normalisation = draw(st.sampled_from(NORMALISATIONS if keeps else NORMALISATIONS[:1]))
        more = {"kernel_size": kernel, "padding": padding, "normalisation": normalisation}
        return cnn([n_0, *size], hidden, **chosen, **more)

    return draw_network()


def _named(value: Any, make: Callable[..., Strategy[str]]) -> Strategy[str]:
    if isinstance(value, Strategy):
        return value
    return make([value] if isinstance(value, str) else value)


def _number(field: str, value: Any, default: Strategy[float], check: Callable[[str, Any], object]) -> Strategy[float]:
    if value is None:
        return default
    if isinstance(value, Strategy):
        return value
    check(field, value)
    return st.just(float(value))


# ---- inputs -----------------------------------------------------------------------------------------------


def kinds(names: Sequence[str] | None = None) -> Strategy[str]:
    """A word of `KINDS`, or of those in `names`; half the time and more the first, towards which it shrinks.

    Raises InputError for an unknown kind."""
    left = _several("kinds", names, list(KINDS))
    return st.just(left[0]) | st.sampled_from(left)


def vectors(kind: str, number: int, dim: int, seed: int = 0) -> FloatArray:
    """`number` vectors of dimension `dim`, (number, dim), entries of order one: a function of the arguments.

    kind "generic": normal entries rounded to hundredths. "scaled": the same, each vector times 10^−3 … 10³.
    Otherwise every second one relates to the one before: it is "zero", "repeated", "parallel" (−0.3 times it) or
    "near" (10⁻⁶ away); "crowded": all lie in one plane. Entries are multiples of 10⁻⁸ with few digits, so that
    NumPy prints them in full. Raises InputError for an unknown kind."""
    _several("kind", [kind], list(KINDS))
    rng = np.random.default_rng(seed_of(kind, number, dim, seed))
    a = _hundredths(rng, number, dim)
    unit = np.full((number, 1), 100)
    if kind == "scaled":
        power = rng.integers(-3, 4, size=(number, 1))
        a, unit = a * 10 ** np.maximum(power, 0), unit * 10 ** np.maximum(-power, 0)
    elif kind == "zero":
        a[1::2] = 0
    elif kind == "repeated":
        a[1::2] = a[: number - 1 : 2]
    elif kind == "parallel":
        a[1::2], unit[1::2] = -3 * a[: number - 1 : 2], 1000
    elif kind == "near":
        a[1::2], unit[1::2] = 10**6 * a[: number - 1 : 2] + _hundredths(rng, number // 2, dim), 10**8
    elif kind == "crowded":
        a, unit = rng.integers(-20, 21, size=(number, 2)) @ _hundredths(rng, 2, dim), unit * 10
    return np.asarray(a / unit)


def _hundredths(rng: np.random.Generator, number: int, dim: int) -> NDArray[np.int64]:
    return np.rint(100 * rng.normal(size=(number, dim))).astype(np.int64)


def grams(min_inputs: int = 1, max_inputs: int = 4, *, max_rank: int | None = None) -> Strategy[FloatArray]:
    """Gram matrices x_a · x_b / n_0, (input, input): positive semidefinite to rounding, of rank at most max_rank.

    Entries are at most 4 in size; shrinks to [[1.0]]. Raises InputError unless 1 ≤ min_inputs ≤ max_inputs."""
    _in_order("inputs", min_inputs, max_inputs)
    if max_rank is not None:
        count("max_rank", max_rank)

    @st.composite
    def draw_gram(draw: st.DrawFn) -> FloatArray:
        b = draw(st.integers(min_inputs, max_inputs))
        rank = min(b, max_rank or b)
        root = np.zeros((b, rank))
        for i in range(b):
            # Input i: its length, and its direction by coordinates along the inputs before it and one new axis.
            length = draw(st.just(1.0) | st.integers(0, 8).map(lambda k: k / 4))
            along = draw(st.lists(st.integers(-8, 8), min_size=min(i, rank - 1), max_size=min(i, rank - 1)))
            axis = np.zeros(rank)
            axis[: len(along)] = np.array(along) / 4.0
            if i < rank:
                axis[i] = draw(st.sampled_from([1.0, 0.0, 1e-3]))
            elif not axis.any():
                axis[0] = 1.0
            root[i] = length * axis / max(float(np.linalg.norm(axis)), 1e-300)
        return root @ root.T

    return draw_gram()


_kinds = kinds


def inputs(
    input_dim: int | Network,
    *,
    min_inputs: int = 1,
    max_inputs: int = 8,
    kinds: Sequence[str] | Strategy[str] | None = None,
    gram: ArrayLike | Strategy[FloatArray] | None = None,
) -> Strategy[FloatArray]:
    """Inputs (input, n_0) of any kind (see `vectors`), more of them than dimensions among them.

    input_dim: n_0, or the network whose it is; with positions inputs are (input, channels, *positions). kinds: one or
    several of KINDS, or a strategy. gram: a Gram matrix, or a strategy such as grams(), instead: then
    x_a · x_b / n_0 = gram[a, b] (`mcverify.inputs.with_gram`), and grams of rank above n_0 are passed over. Raises
    InputError for an unknown kind, min > max, or kinds beside gram."""
    shape = input_dim.input_shape if isinstance(input_dim, Network) else (input_dim,)
    for axis in shape:
        count("input_dim", axis)
    return _vectors(math.prod(shape), min_inputs, max_inputs, kinds, gram).map(
        lambda x: np.moveaxis(x.reshape(-1, *shape), -1, 1)
    )


def _vectors(
    dim: int, min_inputs: int, max_inputs: int, kinds: Sequence[str] | Strategy[str] | None,
    gram: ArrayLike | Strategy[FloatArray] | None,
) -> Strategy[FloatArray]:  # fmt: skip
    _in_order("inputs", min_inputs, max_inputs)
    if gram is not None:
        if kinds is not None:
            raise InputError("gram", gram, "give either gram or kinds")
        if isinstance(gram, Strategy):
            return gram.filter(lambda g: np.linalg.matrix_rank(g) <= dim).map(lambda g: with_gram(g, dim))
        return st.just(with_gram(gram, dim))
    of_kind, number = _named(kinds, _kinds), st.integers(min_inputs, max_inputs)

    @st.composite
    def draw_inputs(draw: st.DrawFn) -> FloatArray:
        return vectors(draw(of_kind), draw(number), dim, draw(st.integers(0, 2**16 - 1)))

    return draw_inputs()


def with_inputs(nets: Strategy[Network], **options: Any) -> Strategy[tuple[Network, FloatArray]]:
    """(net, x): networks, each with inputs drawn for it; options as for `inputs`.

    Raises InputError for what is no strategy, and for a bad option."""
    if not isinstance(nets, Strategy):
        raise InputError("nets", nets, "must be a strategy that draws networks, such as networks()")
    inputs(1024, **options)  # room for any Gram matrix: a bad option is told now, not at the first example
    return nets.flatmap(lambda net: st.tuples(st.just(net), inputs(net, **options)))


# ---- addresses --------------------------------------------------------------------------------------------


def sites(max_count: int = 3) -> Strategy[Site]:
    """Addresses of a layer's draws: any key, layer and first replicate, those that straddle 2^32 among them.

    0 to max_count replicates. Raises InputError where max_count is negative."""
    count("max_count", max_count, least=0)
    return st.builds(
        Site,
        st.integers(0, 2**KEY_BITS - 1),
        st.integers(0, 2**LAYER_BITS - 1),
        st.integers(0, 2**REPLICATE_BITS - max_count) | st.integers(2**32 - max_count, 2**32 + 1),
        st.integers(0, max_count),
    )


# ---- options ----------------------------------------------------------------------------------------------


def _several(field: str, names: Sequence[str] | None, known: list[str]) -> list[str]:
    """The names asked for, all of `known` where None; a name with its parameter in brackets is known too."""
    if names is None:
        return known
    if isinstance(names, str) or not isinstance(names, Sequence) or not names:
        raise InputError(field, names, f"must be a list of one or more of {', '.join(known)}")
    for name in names:
        if not isinstance(name, str) or name.partition("(")[0] not in known:
            raise InputError(field, name, f"allowed: {', '.join(known)}{nearest(str(name), known)}")
    return list(names)


def _in_order(field: str, low: Any, high: Any) -> None:
    count(f"min_{field}", low)
    count(f"max_{field}", high)
    if high < low:
        raise InputError(f"max_{field}", high, f"must be at least min_{field} = {low}")


def _variances(field: str, low: Any, high: Any) -> None:
    variance(f"{field} min_value", low)
    variance(f"{field} max_value", high)
    if high < low:
        raise InputError(f"{field} max_value", high, f"must be at least min_value = {low}")
