"""The correlation c_ab = q_ab/√(q_aa q_bb) of covariances, and its mean over pairs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def correlation(q: FloatArray) -> FloatArray:
    """c, the shape of q (…, input, input); NaN where a variance is zero."""
    d = np.sqrt(np.diagonal(q, axis1=-2, axis2=-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(q / (d[..., :, None] * d[..., None, :]))


def mean_correlation(q: FloatArray) -> FloatArray:
    """The mean of c over pairs of different inputs, (…,); NaN for one input."""
    a, b = np.triu_indices(q.shape[-1], 1)
    if not len(a):
        return np.full(q.shape[:-2], np.nan)
    return np.asarray(correlation(q)[..., a, b].mean(axis=-1))
