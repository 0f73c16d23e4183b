"""The primitives a backend supplies; layers and random maps are written over these and nothing else.

Arrays are (replicate, columns, units), units contiguous; a leading 1 broadcasts over replicates.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mcverify.activations import Activation
from mcverify.kernels.conditional import Root
from mcverify.kernels.patches import Grid, Window
from mcverify.streams import Role, Site


class Kernels(Protocol):
    """A backend: reference (NumPy, the specification), cpu (the compiled extension) or cuda (an NVIDIA GPU).

    Arrays are the backend's own: layers and maps reshape them, and leave everything else to primitives. NumPy functions
    take them too, by a copy."""

    def draw(self, site: Site, role: Role, law: str, rows: int, cols: int, dtype: Any) -> NDArray[Any]:
        """(replicate, rows, cols) unit-variance draws of a law."""

    def uniforms(self, site: Site, role: Role, rows: int, cols: int, dtype: Any) -> NDArray[Any]:
        """(replicate, rows, cols) uniforms in (0, 1)."""

    def mask(self, site: Site, role: Role, keep: float, rows: int, cols: int, dtype: Any) -> NDArray[Any]:
        """(replicate, rows, cols): 1/keep where the uniform is below keep, 0 elsewhere."""

    def random_matmul(
        self, site: Site, role: Role, law: str, n_out: int, x: NDArray[Any], window: Window | None = None
    ) -> NDArray[Any]:
        """y[r, c, i] = Σ_j w[r, i, j] x[r, c, j]; of the patches of x where there is a window."""

    def random_matmul_transpose(
        self, site: Site, role: Role, law: str, n_in: int, d: NDArray[Any], window: Window | None = None
    ) -> NDArray[Any]:
        """z[r, c, j] = Σ_i w[r, i, j] d[r, c, i], the same w; folded where there is a window."""

    def patches(self, x: NDArray[Any], window: Window) -> NDArray[Any]:
        """(…, columns, units) → (…, columns, tap · units): what a kernel's taps see at every position."""

    def fold(self, d: NDArray[Any], window: Window) -> NDArray[Any]:
        """The adjoint of patches: (…, columns, tap · units) → (…, columns, units)."""

    def patch_gram(self, gram: NDArray[Any], window: Window) -> NDArray[Any]:
        """(…, columns, columns): inner products of patches from those of positions, as `gram` gives them."""

    def shifted(self, x: NDArray[Any], size: Grid, axis: int, step: int) -> NDArray[Any]:
        """x(p + step e) on a circular grid, e along an axis: (…, columns, units)."""

    def pool(self, x: NDArray[Any], positions: int) -> NDArray[Any]:
        """(…, input · positions, units) → (…, input, units): means over positions."""

    def spread(self, d: NDArray[Any], positions: int) -> NDArray[Any]:
        """The adjoint of pool."""

    def activate(self, phi: Activation, h: NDArray[Any]) -> NDArray[Any]:
        """φ(h)."""

    def slope(self, phi: Activation, h: NDArray[Any]) -> NDArray[Any]:
        """φ′(h)."""

    def slope_times(self, phi: Activation, h: NDArray[Any], d: NDArray[Any]) -> NDArray[Any]:
        """φ′(h) d, one h for every direction of d (replicate, direction, …)."""

    def multiply(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        """a · b, broadcasting."""

    def add(self, a: NDArray[Any], b: NDArray[Any], scale: float) -> NDArray[Any]:
        """a + scale · b, of one shape."""

    def affine(
        self, y: NDArray[Any], gain: float, b: NDArray[Any] | None = None, scale: float = 0.0
    ) -> NDArray[Any]:
        """y ← gain · y + scale · b, in place; b (replicate, 1, units)."""

    def join(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        """Columns a and then b, for each replicate of b."""

    def columns(self, a: NDArray[Any], first: int) -> NDArray[Any]:
        """Columns `first` and up."""

    def swapped(self, x: NDArray[Any]) -> NDArray[Any]:
        """(replicate, a, b, units) → (replicate, b, a, units)."""

    def standardise(
        self, x: NDArray[Any], axis: int, eps: float, gain: float, shift: float
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]:
        """(y, ŷ, 1/std): centred and scaled along an axis, columns or units; y = gain · ŷ + shift."""

    def standardise_slope(
        self, unit: NDArray[Any], inverse: NDArray[np.float64], d: NDArray[Any], axis: int, gain: float
    ) -> NDArray[Any]:
        """Its derivative, a symmetric matrix, on (replicate, direction, column, units)."""

    def given(self, a: NDArray[Any]) -> NDArray[Any]:
        """A NumPy array as the backend holds it."""

    def host(self, a: NDArray[Any]) -> NDArray[Any]:
        """What the backend holds as a NumPy array."""

    def room(self) -> int | None:
        """Bytes that a batch's tape may take; None where caches say how large a batch should be."""

    def workers(self, threads: int | None) -> int:
        """How many threads carry batches, of as many as are asked for."""

    def gram(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
        """(replicate, columns, columns): Σ_i a_i b_i in float64, whatever the activations use; a NumPy array."""

    def squares(self, a: NDArray[Any]) -> NDArray[np.float64]:
        """(replicate, columns): Σ_i a_i² in float64; a NumPy array."""

    def gaussian_apply(
        self, x: NDArray[Any], z: NDArray[Any], gain: float, offset: NDArray[np.float64]
    ) -> tuple[NDArray[Any], Root]:
        """Columns W x + b from standard normals z, no weights; and the root of the columns."""

    def gaussian_transpose(
        self,
        x: NDArray[Any],
        root: Root,
        y: NDArray[Any],
        z: NDArray[Any] | None,
        d: NDArray[Any],
        g: NDArray[Any],
        below: NDArray[Any],
        gain: float,
        offset: NDArray[np.float64],
    ) -> NDArray[Any]:
        """Columns Wᵀ d given that W took x to y, from standard normals g and, for the bias's row, below."""

    def haar_apply(self, x: NDArray[Any], z: NDArray[Any]) -> NDArray[Any]:
        """Columns O x, O Haar, from standard normals z."""

    def haar_transpose(self, x: NDArray[Any], z: NDArray[Any], d: NDArray[Any], g: NDArray[Any]) -> NDArray[Any]:
        """Columns Oᵀ d given what z revealed of O, from standard normals g."""
