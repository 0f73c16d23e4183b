"""The correlation c_ab = q_ab/√(q_aa q_bb) of covariances, and its mean over pairs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_MANY = 128


def correlation(q: FloatArray) -> FloatArray:
    """c, the shape of q (…, input, input); NaN where a variance is zero."""
    d = np.sqrt(np.diagonal(q, axis1=-2, axis2=-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(q / (d[..., :, None] * d[..., None, :]))


def mean_correlation(q: FloatArray) -> FloatArray:
    """The mean of c over pairs of different inputs, (…,); NaN for one input."""
    n = q.shape[-1]
    if n == 1:
        return np.full(q.shape[:-2], np.nan)
    if n > _MANY:  # no list of pairs: the sum over all a, b, less the n entries that are 1
        with np.errstate(all="ignore"):
            w = 1.0 / np.sqrt(np.diagonal(q, axis1=-2, axis2=-1))
            rows = np.einsum("...ab,...b->...a", q, w)  # BLAS would leave its threads spinning on the others' cores
            return np.asarray(((rows * w).sum(axis=-1) - n) / (n * (n - 1)))
    a, b = np.triu_indices(n, 1)
    return np.asarray(correlation(q)[..., a, b].mean(axis=-1))
