"""A network: a list of layers that fit together, and the constructors of the usual ones."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcverify.activations import Activation as Phi
from mcverify.errors import InputError, Unpredictable, nearest
from mcverify.initialisers import initialiser as named_initialiser
from mcverify.initialisers import map_parameters
from mcverify.layers.activation import Activation
from mcverify.layers.batchnorm import BatchNorm
from mcverify.layers.convolution import DELTA, Convolution
from mcverify.layers.dense import Dense
from mcverify.layers.dropout import Dropout
from mcverify.layers.flatten import Flatten
from mcverify.layers.layer import Layer
from mcverify.layers.layernorm import LayerNorm
from mcverify.layers.pooling import GlobalAveragePool
from mcverify.layers.residual import Residual
from mcverify.random_map.engine import Map
from mcverify.validate import MOST_LAYERS, count, flag, one_of

# How a readout sees a grid.
POOLINGS: dict[str, Callable[[tuple[int, ...]], Layer]] = {"average": GlobalAveragePool, "flatten": Flatten}
# What mlp and cnn take where neither it nor an initialiser is given: σ_w², σ_b², the weights' law.
_USUAL: dict[str, Any] = {"sigma_w2": 1.0, "sigma_b2": 0.0, "weights": "gaussian"}


@dataclass(frozen=True)
class Network:
    """Layers in order, the first one a random map; frozen, so that a change is a new network.

    Raises InputError where the layers do not fit together."""

    layers: tuple[Layer, ...]
    name: str = "network"

    def __init__(self, layers: Sequence[Layer], name: str = "network") -> None:
        if isinstance(layers, str) or not isinstance(layers, Iterable):
            raise InputError("layers", layers, "must be a list of layers, such as Dense and Activation")
        object.__setattr__(self, "layers", tuple(layers))
        object.__setattr__(self, "name", name)
        for i, layer in enumerate(self.layers):
            if not isinstance(layer, Layer):
                raise InputError(f"layers[{i}]", layer, "must be a layer, such as Dense or Activation")
        if not self.layers or self.layers[0].random_map is None:
            kinds = [type(v).__name__ for v in self.layers][:3]
            raise InputError("layers", kinds, "must begin with a random map: Dense or Convolution")
        self._fit()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(*positions, n_0) of one input."""
        shape = self.layers[0].in_shape
        assert shape is not None
        return shape

    @property
    def input_dim(self) -> int:
        """n_0: the units, or channels, of one input."""
        return self.input_shape[-1]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The signal's shape at every boundary: before the first layer, and after each."""
        return self._fit()

    def __repr__(self) -> str:
        """The call that makes it, to be pasted after `from mcverify import *`."""
        return _mlp_call(self) or f"Network([{', '.join(map(_layer_call, self.layers))}], name={self.name!r})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """IPython's protocol, which Hypothesis asks before it writes out a dataclass field by field."""
        printer.text(repr(self))

    def _fit(self) -> list[tuple[int, ...]]:
        shapes: list[tuple[int, ...]] = [self.input_shape]
        for layer in self.layers:
            shapes.append(layer.shape(shapes[-1]))
        return shapes

    @cached_property  # thousands of layers are asked layer by layer
    def maps(self) -> list[int]:
        """Where the random maps stand in `layers`, a block that holds some being one: map l − 1 gives h^l, the
        pre-activation or the block's sum."""
        return [i for i, layer in enumerate(self.layers) if layer.random_map is not None or layer.inner]

    @property
    def sampled_maps(self) -> list[tuple[Map, int]]:
        """Every random map, those inside blocks too, in the order of their sites; and at how many positions of one
        input it stands."""
        return [(v.random_map, math.prod(shape[:-1])) for v, shape in self.every_layer if v.random_map is not None]

    @property
    def every_layer(self) -> list[tuple[Layer, tuple[int, ...]]]:
        """All layers, each before those that it holds, with the shape that it takes."""
        return list(_depth_first(self.layers, self.input_shape))

    @property
    def entries(self) -> int:
        """The numbers in all signals of one input, those inside blocks too."""
        return math.prod(self.input_shape) + sum(math.prod(layer.shape(shape)) for layer, shape in self.every_layer)

    @property
    def is_chain(self) -> bool:
        """Whether one random map follows another through one activation at most: what χ^l is defined for."""
        try:
            self.gains()
        except Unpredictable:
            return False
        return True

    @property
    def outputs(self) -> list[int]:
        """The boundary at which x^l stands: above the last activation before the next map, or h^l where none is."""
        out = []
        for here, above in zip(self.maps, [*self.maps[1:], len(self.layers)], strict=True):
            active = [i for i in range(here + 1, above) if isinstance(self.layers[i], Activation)]
            out.append((active[-1] if active else here) + 1)
        return out

    @property
    def widths(self) -> list[int]:
        """n_1 … n_L, the units of each pre-activation."""
        shapes = self._fit()
        return [shapes[i + 1][-1] for i in self.maps]

    def random_map(self, i: int) -> Map:
        """The random map of the layer at position i of `layers`. Raises Unpredictable for a block of several."""
        found = self.layers[i].random_map
        if found is None:
            kind = type(self.layers[i]).__name__.lower()
            raise Unpredictable(f"layer {i + 1} is a {kind} block, no single random map")
        return found

    @property
    def positions(self) -> list[int]:
        """At how many positions of one input each map stands: its columns per input."""
        shapes = self._fit()
        return [math.prod(shapes[i][:-1]) for i in self.maps]

    @property
    def end(self) -> int:
        """How many layers lie below the output cotangent: E = Σ_a v_a · h_a is taken before the
        elementwise layers that end the network, so that δ^L = v."""
        end = len(self.layers)
        while end and self.layers[end - 1].elementwise:
            end -= 1
        return end

    def gains(self) -> list[tuple[int, float, Phi | None]]:
        """For each map: its position, the gradient gain σ_w²/ρ from the map above, and the φ between.

        At the top, where no map follows, the last map's own σ_w² stands in; φ is None for a linear output. Averaging
        over P positions divides by P.
        Raises Unpredictable where anything but one activation, then dropout and one change of grid, stands between
        two maps."""
        out = []
        for here, above in zip(self.maps, [*self.maps[1:], None], strict=True):
            between = self.layers[here + 1 : above]
            phi = between[0].phi if between and isinstance(between[0], Activation) else None
            gain = self.random_map(here if above is None else above).sigma_w2
            for layer in between[phi is not None :]:
                if isinstance(layer, Dropout):
                    gain /= layer.keep
                elif isinstance(layer, GlobalAveragePool):
                    gain /= math.prod(layer.size)
                elif not isinstance(layer, Flatten):
                    names = ", ".join(type(v).__name__.lower() for v in between)
                    raise Unpredictable(
                        f"layers {here + 1} and up: {names} follow a map; the theory treats one activation, then "
                        "dropout, between maps: put a random map in between"
                    )
            out.append((here, gain, phi))
        return out

    def map_layers(self, change: Callable[[int, Layer], Layer]) -> Network:
        """The network with `change(position, layer)` in place of every layer; one inside a block has the block's
        position."""

        def changed(i: int, layer: Layer) -> Layer:
            return change(i, layer.with_inner([changed(i, v) for v in layer.inner]) if layer.inner else layer)

        return Network([changed(i, layer) for i, layer in enumerate(self.layers)], self.name)

    def scaled(self, factor: int) -> Network:
        """The network with every hidden and output width multiplied by `factor`; n_0 stays."""
        count("factor", factor)
        return Network([layer.widened(factor, first=i == 0) for i, layer in enumerate(self.layers)], self.name)


def check_network(net: Any) -> None:
    """Raises InputError for what is no network, such as a file's name."""
    if not isinstance(net, Network):
        raise InputError("net", net, "must be a Network, as mlp, resnet, cnn and load give it")


def mlp(
    input_dim: int,
    widths: Sequence[int] | NDArray[np.integer[Any]],
    activation: str | Phi,
    sigma_w2: float | None = None,
    sigma_b2: float | None = None,
    weights: str | None = None,
    *,
    keep: float = 1.0,
    shared_masks: bool = False,
    readout: int | None = None,
    initialiser: str | None = None,
    name: str = "mlp",
) -> Network:
    """A multilayer perceptron: each width is a dense map followed by the activation.

    sigma_w2 / fan_in is the variance of a weight, sigma_b2 that of a bias, weights their law: 1, 0 and "gaussian" where
    left out. initialiser: a name of the table in initialisers.py, from which each map's own follow by its fans; beside
    it these three must be left out. keep < 1 puts dropout between an activation and the next dense map (the input is
    not masked), with masks for each input or shared by all; readout=m adds a linear map to m units at the end. Raises
    InputError naming the field.
    """
    count("input_dim", input_dim)
    if isinstance(widths, np.ndarray):
        widths = widths.tolist()
    if isinstance(widths, str) or not isinstance(widths, Sequence) or not len(widths):
        raise InputError("widths", widths, "must be a list of at least one width")
    for i, width in enumerate(widths):
        count(f"widths[{i}]", width)
    flag("shared_masks", shared_masks)
    masks = [Dropout(keep, shared_masks)]
    if keep == 1.0:
        masks = []
    law = _initialised(initialiser, sigma_w2, sigma_b2, weights)
    phi = Activation(activation)
    layers: list[Layer] = []
    sizes = [int(input_dim), *(int(w) for w in widths)]
    for fan_in, fan_out in pairwise(sizes):
        layers += masks if layers else []
        layers += [Dense(fan_in, fan_out, *law(fan_in, fan_out)), phi]
    if readout is not None:
        count("readout", readout)
        layers += masks
        layers.append(Dense(sizes[-1], int(readout), *law(sizes[-1], int(readout))))
    return Network(layers, name)


def batchnorm_mlp(
    input_dim: int,
    widths: Sequence[int] | NDArray[np.integer[Any]],
    activation: str | Phi,
    sigma_w2: float = 1.0,
    sigma_b2: float = 0.0,
    weights: str = "gaussian",
    *,
    eps: float = 0.0,
    gain: float = 1.0,
    shift: float = 0.0,
    readout: int | None = None,
    name: str = "batchnorm_mlp",
) -> Network:
    """A multilayer perceptron with batch norm between every dense map and its activation: φ(BN(h)).

    eps, gain, shift: of every BatchNorm; the rest as for `mlp`. Raises InputError naming the field.
    """
    norm, layers = BatchNorm(eps, gain, shift), []
    for layer in mlp(input_dim, widths, activation, sigma_w2, sigma_b2, weights, readout=readout).layers:
        layers += [norm, layer] if isinstance(layer, Activation) else [layer]
    return Network(layers, name)


def resnet(
    input_dim: int,
    width: int,
    depth: int,
    activation: str | Phi,
    sigma_w2: float = 1.0,
    sigma_b2: float = 0.0,
    weights: str = "gaussian",
    *,
    sigma_v2: float | None = None,
    sigma_a2: float = 0.0,
    order: str = "pre",
    scale: float | Sequence[float] = 1.0,
    sigma_in2: float = 1.0,
    readout: int | None = None,
    sigma_out2: float = 1.0,
    name: str = "resnet",
) -> Network:
    """A residual network: a dense map from the inputs to `width` units, then `depth` blocks.

    A block is x + scale (W φ(x) + b) (Taki 2017), or with sigma_v2 the two maps x + scale (V φ(W x + b) + a) of Yang &
    Schoenholz 2017; sigma_w2/fan_in, sigma_v2/fan_in are the variances of weights, sigma_b2, sigma_a2 those of biases.
    order="post" puts an activation after the addition: φ(x + scale (W x + b)), φ(x + scale (V φ(W x + b) + a)).
    scale: of every block, or a list with one for each. sigma_in2: of the first map, which has no bias; readout=m adds
    a linear map to m units with sigma_out2. Raises InputError naming the field.
    """
    count("depth", depth, most=MOST_LAYERS)
    one_of("order", order, ("pre", "post"))
    if sigma_v2 is None and sigma_a2 != 0.0:
        raise InputError("sigma_a2", sigma_a2, "is the bias of a block's second map: give sigma_v2 too")
    scales = scale if isinstance(scale, Sequence) else [scale] * depth
    if isinstance(scales, str) or len(scales) != depth:
        raise InputError("scale", scale, f"must be a number, or a list of {depth}: one for each block")
    phi, inner = Activation(activation), Dense(width, width, sigma_w2, sigma_b2, weights)
    if sigma_v2 is None:
        branch: list[Layer] = [phi, inner] if order == "pre" else [inner]
    else:
        branch = [inner, phi, Dense(width, width, sigma_v2, sigma_a2, weights)]
    layers: list[Layer] = [Dense(input_dim, width, sigma_in2, 0.0, weights)]
    for s in scales:
        layers += [Residual(branch, s), *[phi] * (order == "post")]
    if readout is not None:
        layers.append(Dense(width, readout, sigma_out2, 0.0, weights))
    return Network(layers, name)


def _initialised(
    name: str | None, sigma_w2: float | None, sigma_b2: float | None, weights: str | None
) -> Callable[[int, int], tuple[float, float, str]]:
    """(fan_in, fan_out) -> (σ_w², σ_b², weights), as given, with _USUAL for None, or by a named initialiser.

    Raises InputError for an unknown one, and where anything is given beside it."""
    pairs = (("sigma_w2", sigma_w2), ("sigma_b2", sigma_b2), ("weights", weights))
    given = {key: value for key, value in pairs if value is not None}
    if name is None:
        chosen = _USUAL | given
        return lambda fan_in, fan_out: (chosen["sigma_w2"], chosen["sigma_b2"], chosen["weights"])
    named_initialiser(name)
    if given:
        allowed = f"stands for sigma_w2, sigma_b2 and weights: leave out {', '.join(given)}"
        raise InputError("initialiser", name, allowed)
    return lambda fan_in, fan_out: map_parameters(name, fan_in, fan_out)


def cnn(
    input_shape: Sequence[int],
    channels: Sequence[int],
    activation: str | Phi,
    sigma_w2: float | None = None,
    sigma_b2: float | None = None,
    weights: str | None = None,
    *,
    kernel_size: int | Sequence[int] = 3,
    padding: str = "circular",
    normalisation: str = "mean_field",
    readout: int | None = None,
    pooling: str = "average",
    initialiser: str | None = None,
    name: str = "cnn",
) -> Network:
    """A convolutional network of stride one: each number of channels is a convolution followed by the activation.

    input_shape: (channels, length) or (channels, height, width); kernel_size: taps, for all axes or for each.
    sigma_w2 / (taps · channels in) is the variance of a weight, sigma_b2 that of a bias. weights: a law of independent
    entries, "orthogonal" or "delta_orthogonal"; 1, 0 and "gaussian" where left out. normalisation: of an orthogonal
    kernel that adds channels. See Convolution.
    readout=m adds a dense map to m units, on the mean over positions (pooling="average") or on all of them ("flatten").
    initialiser: as of `mlp`, in place of these three; a convolution's fans count its taps. Raises InputError naming
    the field.
    """
    if not isinstance(input_shape, Sequence) or not 2 <= len(input_shape) <= 3:
        raise InputError("input_shape", input_shape, "must be [channels, length] or [channels, height, width]")
    if isinstance(channels, str) or not isinstance(channels, Sequence) or not len(channels):
        raise InputError("channels", channels, "must be a list of at least one number of channels")
    first, *size = input_shape
    kernel = tuple(kernel_size) if isinstance(kernel_size, Sequence) else (kernel_size,)
    law = _initialised(initialiser, sigma_w2, sigma_b2, weights)
    if initialiser is not None and named_initialiser(initialiser).law == "orthogonal":
        raise InputError("initialiser", initialiser, 'is of matrices; for kernels give weights = "orthogonal"')
    layers: list[Layer] = []
    for channels_in, channels_out in pairwise([first, *channels]):
        layer = Convolution(tuple(size), channels_in, channels_out, kernel, padding=padding)
        taps = math.prod(layer.kernel)
        s_w2, s_b2, drawn = law(taps * channels_in, taps * channels_out)
        layer = replace(layer, sigma_w2=s_w2, sigma_b2=s_b2, weights=drawn, normalisation=normalisation)
        layers += [layer, Activation(activation)]
    if not isinstance(pooling, str) or pooling not in POOLINGS:
        raise InputError("pooling", pooling, f"allowed: {', '.join(POOLINGS)}{nearest(str(pooling), list(POOLINGS))}")
    if readout is not None:
        count("readout", readout)
        units = channels[-1] * (math.prod(size) if pooling == "flatten" else 1)
        s_w2, s_b2, drawn = law(units, int(readout))
        drawn = "orthogonal" if drawn == DELTA else drawn
        layers += [POOLINGS[pooling](tuple(size)), Dense(units, int(readout), s_w2, s_b2, drawn)]
    return Network(layers, name)


def _depth_first(layers: Sequence[Layer], shape: tuple[int, ...]) -> Iterator[tuple[Layer, tuple[int, ...]]]:
    for layer in layers:
        yield layer, shape
        yield from _depth_first(layer.inner, shape)
        shape = layer.shape(shape)


def _layer_call(layer: Layer) -> str:
    """The call that makes a layer; an activation of the user's own stands under its name."""
    if isinstance(layer, Residual):
        scale = f", scale={layer.scale!r}" if layer.scale != 1.0 else ""
        return f"Residual([{', '.join(map(_layer_call, layer.branch))}]{scale})"
    return f"Activation({layer.phi.name!r})" if isinstance(layer, Activation) else repr(layer)


def _mlp_call(net: Network) -> str:
    """`mlp(4, [8, 8], 'relu', sigma_w2=2.0)`: the options that are not the default; "" where mlp does not make it."""
    if any(not isinstance(v, Dense | Activation | Dropout) for v in net.layers):
        return ""
    first, phis = net.random_map(0), [v.phi for v in net.layers if isinstance(v, Activation)]
    masks = [v for v in net.layers if isinstance(v, Dropout)] or [Dropout(1.0)]
    linear_end = len(net.maps) > 1 and isinstance(net.layers[-1], Dense)
    sizes, readout = (net.widths[:-1], net.widths[-1]) if linear_end else (net.widths, None)
    if not phis:
        return ""
    options = {
        "sigma_w2": first.sigma_w2, "sigma_b2": first.sigma_b2, "weights": first.law,
        "keep": masks[0].keep, "shared_masks": masks[0].shared, "readout": readout, "name": net.name,
    }  # fmt: skip
    if mlp(net.input_dim, sizes, phis[0], **options).layers != net.layers:  # type: ignore[arg-type]
        return ""
    default = {k: v.default for k, v in inspect.signature(mlp).parameters.items()} | _USUAL
    told = "".join(f", {k}={v!r}" for k, v in options.items() if v != default[k])
    return f"mlp({net.input_dim}, {sizes}, {phis[0].name!r}{told})"


def describe(net: Network) -> str:
    """The network on one line, equal neighbours counted: `64 → 8 × (dense 256 …, tanh)`."""
    given = "×".join(map(str, (net.input_dim, *net.input_shape[:-1])))
    return f"{given} → {_chain(net.layers)}"


def _chain(layers: Sequence[Layer]) -> str:
    """Each map with what follows it in brackets, and repeats counted."""
    blocks: list[list[str]] = []
    for layer in layers:
        if layer.random_map is not None or layer.inner or not blocks:
            blocks.append([])
        blocks[-1].append(_words(layer))
    return " → ".join(_repeats(["(" + ", ".join(block) + ")" for block in blocks]))


def _words(layer: Layer) -> str:
    if isinstance(layer, Dense):
        return f"dense {layer.fan_out} σ_w²={layer.sigma_w2:g} σ_b²={layer.sigma_b2:g} {layer.weights}"
    if isinstance(layer, Convolution):
        taps = "×".join(map(str, layer.kernel))
        law = f"σ_w²={layer.sigma_w2:g} σ_b²={layer.sigma_b2:g} {layer.weights}"
        isometry = " isometry" if layer.normalisation == "isometry" else ""
        return f"conv {taps} {layer.channels_out} {law} {layer.padding}{isometry}"
    if isinstance(layer, Activation):
        return layer.phi.name
    if isinstance(layer, Dropout):
        return f"dropout keep {layer.keep:g}{' shared' * layer.shared}"
    if isinstance(layer, BatchNorm | LayerNorm):
        told = {"ε": (layer.eps, 0.0), "gain": (layer.gain, 1.0), "shift": (layer.shift, 0.0)}
        kind = "batch norm" if isinstance(layer, BatchNorm) else "layer norm"
        return " ".join([kind, *(f"{name}={value:g}" for name, (value, usual) in told.items() if value != usual)])
    if isinstance(layer, Residual):
        scale = "" if layer.scale == 1.0 else f"{layer.scale:g} × "
        return f"x + {scale}[{_chain(layer.branch)}]"
    return "average over positions" if isinstance(layer, GlobalAveragePool) else type(layer).__name__.lower()


def _repeats(texts: list[str]) -> list[str]:
    """Runs of one text, or of a few texts over and over, written once with their number."""
    out = []
    while texts:
        candidates = [(p, _times(texts, p)) for p in range(1, len(texts) // 2 + 1)]
        # The one that covers most, and of those the shortest; a single text where nothing repeats.
        period, times = max([(1, 1), *candidates], key=lambda r: (r[0] * r[1] if r[1] > 1 else 1, -r[0]))
        once = " → ".join(texts[:period])
        out.append(once if times == 1 else f"{times} × {once}" if period == 1 else f"{times} × ({once})")
        texts = texts[period * times :]
    return out


def _times(texts: list[str], period: int) -> int:
    """How often the first `period` texts stand one after another at the start."""
    n = 1
    while texts[n * period : (n + 1) * period] == texts[:period]:
        n += 1
    return n
