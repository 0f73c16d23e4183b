"""A network: a list of layers that fit together, and the constructors of the usual ones."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcverify.activations import Activation as Phi
from mcverify.errors import InputError, Unpredictable, nearest
from mcverify.layers.activation import Activation
from mcverify.layers.convolution import DELTA, Convolution
from mcverify.layers.dense import Dense
from mcverify.layers.dropout import Dropout
from mcverify.layers.flatten import Flatten
from mcverify.layers.layer import Layer
from mcverify.layers.pooling import GlobalAveragePool
from mcverify.random_map.engine import Map
from mcverify.validate import between, count

# How a readout sees a grid.
POOLINGS: dict[str, Callable[[tuple[int, ...]], Layer]] = {"average": GlobalAveragePool, "flatten": Flatten}


@dataclass(frozen=True)
class Network:
    """Layers in order, the first one a random map; frozen, so that a change is a new network.

    Raises InputError where the layers do not fit together."""

    layers: tuple[Layer, ...]
    name: str = "network"

    def __init__(self, layers: Sequence[Layer], name: str = "network") -> None:
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

    @property
    def maps(self) -> list[int]:
        """Where the random maps stand in `layers`: map l − 1 gives the pre-activation h^l."""
        return [i for i, layer in enumerate(self.layers) if layer.random_map is not None]

    @property
    def widths(self) -> list[int]:
        """n_1 … n_L, the units of each pre-activation."""
        return [self.random_map(i).fan_out for i in self.maps]

    def random_map(self, i: int) -> Map:
        """The random map of the layer at position i of `layers`."""
        found = self.layers[i].random_map
        assert found is not None
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
        """The network with `change(position, layer)` in place of every layer."""
        return Network([change(i, layer) for i, layer in enumerate(self.layers)], self.name)

    def scaled(self, factor: int) -> Network:
        """The network with every hidden and output width multiplied by `factor`; n_0 stays."""
        count("factor", factor)
        return self.map_layers(lambda i, layer: layer.widened(factor, first=i == 0))


def mlp(
    input_dim: int,
    widths: Sequence[int] | NDArray[np.integer[Any]],
    activation: str | Phi,
    sigma_w2: float = 1.0,
    sigma_b2: float = 0.0,
    weights: str = "gaussian",
    *,
    keep: float = 1.0,
    readout: int | None = None,
    name: str = "mlp",
) -> Network:
    """A multilayer perceptron: each width is a dense map followed by the activation.

    sigma_w2 / fan_in is the variance of a weight, sigma_b2 that of a bias. keep < 1 puts dropout with
    independent masks between an activation and the next dense map (the input is not masked);
    readout=m adds a linear map to m units at the end. Raises InputError naming the field.
    """
    count("input_dim", input_dim)
    if isinstance(widths, np.ndarray):
        widths = widths.tolist()
    if isinstance(widths, str) or not isinstance(widths, Sequence) or not len(widths):
        raise InputError("widths", widths, "must be a list of at least one width")
    for i, width in enumerate(widths):
        count(f"widths[{i}]", width)
    between("keep", keep, 0.0, 1.0, open_low=True)
    phi = Activation(activation)
    layers: list[Layer] = []
    sizes = [int(input_dim), *(int(w) for w in widths)]
    for fan_in, fan_out in pairwise(sizes):
        if layers and keep < 1.0:
            layers.append(Dropout(keep))
        layers += [Dense(fan_in, fan_out, sigma_w2, sigma_b2, weights), phi]
    if readout is not None:
        count("readout", readout)
        layers += [Dropout(keep)] * (keep < 1.0)
        layers.append(Dense(sizes[-1], int(readout), sigma_w2, sigma_b2, weights))
    return Network(layers, name)


def cnn(
    input_shape: Sequence[int],
    channels: Sequence[int],
    activation: str | Phi,
    sigma_w2: float = 1.0,
    sigma_b2: float = 0.0,
    weights: str = "gaussian",
    *,
    kernel_size: int | Sequence[int] = 3,
    padding: str = "circular",
    normalisation: str = "mean_field",
    readout: int | None = None,
    pooling: str = "average",
    name: str = "cnn",
) -> Network:
    """A convolutional network of stride one: each number of channels is a convolution followed by the activation.

    input_shape: (channels, length) or (channels, height, width); kernel_size: taps, for all axes or for each.
    sigma_w2 / (taps · channels in) is the variance of a weight, sigma_b2 that of a bias. weights: a law of independent
    entries, "orthogonal" or "delta_orthogonal"; normalisation: of an orthogonal kernel that adds channels. See
    Convolution.
    readout=m adds a dense map to m units, on the mean over positions (pooling="average") or on all of them ("flatten").
    Raises InputError naming the field.
    """
    if not isinstance(input_shape, Sequence) or not 2 <= len(input_shape) <= 3:
        raise InputError("input_shape", input_shape, "must be [channels, length] or [channels, height, width]")
    if isinstance(channels, str) or not isinstance(channels, Sequence) or not len(channels):
        raise InputError("channels", channels, "must be a list of at least one number of channels")
    first, *size = input_shape
    kernel = tuple(kernel_size) if isinstance(kernel_size, Sequence) else (kernel_size,)
    layers: list[Layer] = []
    for channels_in, channels_out in pairwise([first, *channels]):
        layer = Convolution(
            tuple(size), channels_in, channels_out, kernel, sigma_w2, sigma_b2, weights, padding, normalisation
        )  # fmt: skip
        layers += [layer, Activation(activation)]
    if pooling not in POOLINGS:
        raise InputError("pooling", pooling, f"allowed: {', '.join(POOLINGS)}{nearest(str(pooling), list(POOLINGS))}")
    if readout is not None:
        count("readout", readout)
        units = channels[-1] * (math.prod(size) if pooling == "flatten" else 1)
        law = "orthogonal" if weights == DELTA else weights
        layers += [POOLINGS[pooling](tuple(size)), Dense(units, int(readout), sigma_w2, sigma_b2, law)]
    return Network(layers, name)


def _layer_call(layer: Layer) -> str:
    """The call that makes a layer; an activation of the user's own stands under its name."""
    return f"Activation({layer.phi.name!r})" if isinstance(layer, Activation) else repr(layer)


def _mlp_call(net: Network) -> str:
    """`mlp(4, [8, 8], 'relu', sigma_w2=2.0)`: the options that are not the default; "" where mlp does not make it."""
    if any(not isinstance(v, Dense | Activation | Dropout) for v in net.layers):
        return ""
    first, phis = net.random_map(0), [v.phi for v in net.layers if isinstance(v, Activation)]
    masks = [v.keep for v in net.layers if isinstance(v, Dropout)]
    linear_end = len(net.maps) > 1 and isinstance(net.layers[-1], Dense)
    sizes, readout = (net.widths[:-1], net.widths[-1]) if linear_end else (net.widths, None)
    if not phis:
        return ""
    options = {
        "sigma_w2": first.sigma_w2, "sigma_b2": first.sigma_b2, "weights": first.law,
        "keep": masks[0] if masks else 1.0, "readout": readout, "name": net.name,
    }  # fmt: skip
    if mlp(net.input_dim, sizes, phis[0], **options).layers != net.layers:  # type: ignore[arg-type]
        return ""
    default = {k: v.default for k, v in inspect.signature(mlp).parameters.items()}
    told = "".join(f", {k}={v!r}" for k, v in options.items() if v != default[k])
    return f"mlp({net.input_dim}, {sizes}, {phis[0].name!r}{told})"


def describe(net: Network) -> str:
    """The network on one line, equal neighbours counted: `64 → 8 × (dense 256 …, tanh)`."""
    blocks: list[list[Any]] = []
    for layer in net.layers:
        if isinstance(layer, Dense):
            parts = [f"dense {layer.fan_out}", f"σ_w²={layer.sigma_w2:g} σ_b²={layer.sigma_b2:g} {layer.weights}"]
            text = " ".join(parts)
        elif isinstance(layer, Convolution):
            taps, law = (
                "×".join(map(str, layer.kernel)),
                f"σ_w²={layer.sigma_w2:g} σ_b²={layer.sigma_b2:g} {layer.weights}",
            )
            text = f"conv {taps} {layer.channels_out} {law} {layer.padding}"
            text += " isometry" if layer.normalisation == "isometry" else ""
        elif isinstance(layer, Activation):
            text = layer.phi.name
        elif isinstance(layer, Dropout):
            text = f"dropout keep {layer.keep:g}"
        else:
            text = "average over positions" if isinstance(layer, GlobalAveragePool) else type(layer).__name__.lower()
        if layer.random_map is not None or not blocks:
            blocks.append([text])
        else:
            blocks[-1].append(text)
    texts = ["(" + ", ".join(block) + ")" for block in blocks]
    given = "×".join(map(str, (net.input_dim, *net.input_shape[:-1])))
    return f"{given} → " + " → ".join(_repeats(texts))


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
