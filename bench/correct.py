"""Is it the same work? What a runner returns is held against theory before it is timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

import mcverify as mv
from bench import own
from bench.cases import Case, Runner

# Five standard errors or so of the samples taken here; a forgotten factor is far outside.
FIRST_LAYER = 0.08
PER_LAYER_GAIN = 0.03


def check(make: Callable[[Case], Runner], case: Case, networks: int) -> str:
    """Mean length of the first layer, per-layer gains of lengths and of gradient norms, against `predict`.

    On networks of eight layers: there, a few of them decide. Raises AssertionError, or says what was found."""
    short = replace(case, depth=8)
    theory = mv.predict(own.network(short), short.x.astype(np.float64))
    lengths, norms = (np.asarray(a, np.float64) for a in make(short)(networks))
    assert lengths.shape == norms.shape == (len(lengths), short.depth, short.inputs)

    def gain(values: Any) -> Any:
        """Growth per layer of the mean over networks and inputs."""
        level = values.mean(axis=(0, 2) if values.ndim == 3 else 1)
        return np.log(level[-1] / level[0]) / (short.depth - 1)

    first = lengths[:, 0].mean() / theory.length.values[0].mean() - 1
    top = norms[:, -1].mean() - 1
    forward = gain(lengths) - gain(theory.length.values)
    backward = gain(norms) - gain(theory.grad_norm2.values)
    found = f"length {first:+.2%}, its gain {forward:+.2%}, gradient gain {backward:+.2%} from theory"
    assert abs(first) < FIRST_LAYER, found
    assert abs(top) < FIRST_LAYER, f"cotangent {top:+.2%}"
    assert max(abs(forward), abs(backward)) < PER_LAYER_GAIN, found
    return found


def check_normals(draw: Callable[[], Any], calls: int = 16) -> str:
    """Mean, variance and fourth moment of a generator's output."""
    z = np.concatenate([np.asarray(draw()).astype(np.float64).ravel() for _ in range(calls)])
    mean, variance, fourth = z.mean(), z.var(), (z**4).mean()
    found = f"mean {mean:+.4f}, variance {variance:.4f}, fourth moment {fourth:.3f}"
    tolerance = 6 / np.sqrt(z.size)
    assert abs(mean) < tolerance, found
    assert abs(variance - 1) < 1.5 * tolerance, found
    assert abs(fourth - 3) < 10 * tolerance, found
    return found
