"""A small library's initialiser and forward pass: what a user of mcverify would test."""

from __future__ import annotations

import numpy as np


def he(fan_out, fan_in, rng):
    """Weights (fan_out, fan_in), normal with variance 2/fan_in."""
    return rng.normal(scale=np.sqrt(2 / fan_in), size=(fan_out, fan_in))


def lengths(x, widths, rng):
    """‖x^l‖²/n_l of each layer and input, of one random ReLU network."""
    out = []
    for width in widths:
        x = np.maximum(x @ he(width, x.shape[1], rng).T, 0)
        out.append((x**2).mean(axis=1))
    return np.array(out)
