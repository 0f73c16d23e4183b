"""The width ladder: estimates at several widths, extrapolated to infinite width.

y(N) = y∞ + c₁/N + … + c_k/N^k, k ≥ 1, by weighted least squares. Order k and the widths are declared with the
claim, before the data are seen: the bias of y∞ from what the order leaves out is then below
max|c_{k+1}| times the product of the k + 1 smallest 1/N.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """Intercepts (k,), their standard errors, slopes c₁ (k,), and the p-value of lack of fit, over all
    components together by Bonferroni."""

    intercept: FloatArray
    se: FloatArray
    slope: FloatArray
    lack_of_fit: float


def fit(widths: FloatArray, y: FloatArray, se: FloatArray, order: int) -> Fit:
    """Fit y (width, component) with known standard errors se (width, component).

    Raises ValueError for fewer than order + 2 widths, which would leave nothing to judge the fit by."""
    if len(widths) < order + 2:
        raise ValueError(f"a ladder of order {order} needs at least {order + 2} widths, got {len(widths)}")
    design = (widths.min() / widths[:, None]) ** np.arange(order + 1)
    fits = [_one(design, y[:, i], se[:, i]) for i in range(y.shape[1])]
    lack = min(1.0, len(fits) * min(f[3] for f in fits))
    intercept, error, slope = (np.array([f[i] for f in fits]) for i in range(3))
    return Fit(intercept, error, slope * widths.min(), lack)


def _one(design: FloatArray, y: FloatArray, se: FloatArray) -> tuple[float, float, float, float]:
    with np.errstate(all="ignore"):
        weighted = design / se[:, None]
        try:
            covariance = np.linalg.inv(weighted.T @ weighted)
        except np.linalg.LinAlgError:  # errors that are zero, infinite, or span more than a double holds
            return np.nan, np.nan, np.nan, np.nan
        coefficients = covariance @ (weighted.T @ (y / se))
        chi2 = float((((y - design @ coefficients) / se) ** 2).sum())
        p = float(chdtrc(len(y) - design.shape[1], chi2))
        return coefficients[0], float(np.sqrt(covariance[0, 0])), coefficients[1], p


def allocation(widths: FloatArray, sd: FloatArray, cost: FloatArray, order: int) -> FloatArray:
    """How to share replicates between widths: relative sizes that make the intercept tightest for the work.

    The intercept is Σ a_i y_i; for given a, Σ a_i² sd_i²/m_i at fixed Σ cost_i m_i is least for
    m_i ∝ |a_i| sd_i/√cost_i (Neyman 1934). a is taken for weights that make every width matter, and no
    width gets less than a tenth of the mean, so that lack of fit can be seen everywhere."""
    design = (widths.min() / widths[:, None]) ** np.arange(order + 1)
    scale = 1.0 / (sd / sd.max())
    a = np.abs(np.linalg.pinv(design * scale[:, None])[0] * scale)
    share = a * sd / np.sqrt(cost)
    share = np.maximum(share, 0.1 * share.mean())
    return np.asarray(share / share.sum())
