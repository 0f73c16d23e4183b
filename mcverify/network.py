"""A network: a list of layers that fit together, and the constructors of the usual ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcverify.activations import Activation as Phi
from mcverify.errors import InputError, Unpredictable
from mcverify.layers.activation import Activation
from mcverify.layers.dense import Dense
from mcverify.layers.dropout import Dropout
from mcverify.layers.layer import Layer
from mcverify.validate import between, count


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
        if not self.layers or not isinstance(self.layers[0], Dense):
            raise InputError("layers", [type(v).__name__ for v in self.layers][:3], "must begin with a Dense layer")
        self._fit()

    @property
    def input_dim(self) -> int:
        """n_0."""
        first = self.layers[0]
        assert isinstance(first, Dense)
        return first.fan_in

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The signal's shape at every boundary: before the first layer, and after each."""
        return self._fit()

    def _fit(self) -> list[tuple[int, ...]]:
        shapes: list[tuple[int, ...]] = [(self.input_dim,)]
        for layer in self.layers:
            shapes.append(layer.shape(shapes[-1]))
        return shapes

    @property
    def maps(self) -> list[int]:
        """Where the random maps stand in `layers`: map l − 1 gives the pre-activation h^l."""
        return [i for i, layer in enumerate(self.layers) if isinstance(layer, Dense)]

    @property
    def widths(self) -> list[int]:
        """n_1 … n_L, the units of each pre-activation."""
        return [self.dense(i).fan_out for i in self.maps]

    def dense(self, i: int) -> Dense:
        """The dense layer at position i of `layers`."""
        layer = self.layers[i]
        assert isinstance(layer, Dense)
        return layer

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

        At the top, where no map follows, the last map's own σ_w² stands in; φ is None for a linear output.
        Raises Unpredictable where anything but one activation, then dropout, stands between two maps."""
        out = []
        for here, above in zip(self.maps, [*self.maps[1:], None], strict=True):
            between = self.layers[here + 1 : above]
            phi = between[0].phi if between and isinstance(between[0], Activation) else None
            masks = between[phi is not None :]
            gain = self.dense(here if above is None else above).sigma_w2
            for layer in masks:
                if not isinstance(layer, Dropout):
                    names = ", ".join(type(v).__name__.lower() for v in between)
                    raise Unpredictable(
                        f"layers {here + 1} and up: {names} follow a map; the theory treats one activation, then "
                        "dropout, between maps: put a random map in between"
                    )
                gain /= layer.keep
            out.append((here, gain, phi))
        return out

    def map_layers(self, change: Callable[[int, Layer], Layer]) -> Network:
        """The network with `change(position, layer)` in place of every layer."""
        return Network([change(i, layer) for i, layer in enumerate(self.layers)], self.name)

    def scaled(self, factor: int) -> Network:
        """The network with every hidden and output width multiplied by `factor`; n_0 stays."""
        count("factor", factor)

        def widen(i: int, layer: Layer) -> Layer:
            if not isinstance(layer, Dense):
                return layer
            fan_in = layer.fan_in if i == 0 else layer.fan_in * factor
            return replace(layer, fan_in=fan_in, fan_out=layer.fan_out * factor)

        return self.map_layers(widen)


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


def describe(net: Network) -> str:
    """The network on one line, equal neighbours counted: `64 → 8 × (dense 256 …, tanh)`."""
    blocks: list[list[Any]] = []
    for layer in net.layers:
        if isinstance(layer, Dense):
            parts = [f"dense {layer.fan_out}", f"σ_w²={layer.sigma_w2:g} σ_b²={layer.sigma_b2:g} {layer.weights}"]
            text = " ".join(parts)
        elif isinstance(layer, Activation):
            text = layer.phi.name
        else:
            text = f"dropout keep {layer.keep:g}" if isinstance(layer, Dropout) else type(layer).__name__.lower()
        if isinstance(layer, Dense) or not blocks:
            blocks.append([text])
        else:
            blocks[-1].append(text)
    texts = ["(" + ", ".join(block) + ")" for block in blocks]
    return f"{net.input_dim} → " + " → ".join(_repeats(texts))


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
