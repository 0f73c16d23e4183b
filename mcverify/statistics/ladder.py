"""The width ladder: estimates at several widths, extrapolated to infinite width.

y(N) = y∞ + c₁/N + … + c_k/N^k, k ≥ 1, by weighted least squares. Order k and the widths are declared with the
claim, before the data are seen. What the order leaves out moves the intercept by `Fit.response` times c_{k+1}:
a bound on that coefficient is a bound on the bias, to be added to what the claim tolerates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """Of k components: intercepts (k,) with their covariance (k, k), slopes c₁ with standard errors, how far a
    term 1/N^{order + 1} of unit coefficient moves each intercept and each slope, all (k,); and the p-value of lack
    of fit, over all components together by Bonferroni."""

    intercept: FloatArray
    covariance: FloatArray
    slope: FloatArray
    slope_se: FloatArray
    response: FloatArray
    slope_response: FloatArray
    lack_of_fit: Any

    @property
    def se(self) -> FloatArray:
        """Standard errors of the intercepts, (k,)."""
        return np.sqrt(np.diagonal(self.covariance, axis1=-2, axis2=-1))


@dataclass(frozen=True)
class _Line:
    """One component's fit: intercept and slope as weights of the estimates, and what goes with them."""

    weights: FloatArray
    slope_weights: FloatArray
    slope: FloatArray
    slope_se: FloatArray
    lack: FloatArray


def fit(widths: FloatArray, y: FloatArray, covariance: FloatArray, order: int) -> Fit:
    """Fit y (width, k) whose components have the known covariance (width, k, k) at each width, and are independent
    between widths. Leading axes are fits of their own, all of them undefined if one is.

    Guarantee: for Gaussian y and a true model the intercepts have the covariance given, and lack_of_fit is a
    p-value. Raises ValueError for fewer than order + 2 widths, which would leave nothing to judge the fit by."""
    if len(widths) < order + 2:
        raise ValueError(f"a ladder of order {order} needs at least {order + 2} widths, got {len(widths)}")
    least = float(widths.min())
    design = (least / widths[:, None]) ** np.arange(order + 1)
    with np.errstate(all="ignore"):
        lines = [_line(design, y[..., i], np.sqrt(covariance[..., i, i])) for i in range(y.shape[-1])]
        weights = np.stack([line.weights for line in lines], axis=-2)
        slope_weights = np.stack([line.slope_weights for line in lines], axis=-2)
        left_out = (1 / widths) ** (order + 1)
        return Fit(
            intercept=np.einsum("...iw,...wi->...i", weights, y),
            covariance=np.einsum("...iw,...jw,...wij->...ij", weights, weights, covariance),
            slope=least * np.stack([line.slope for line in lines], axis=-1),
            slope_se=least * np.stack([line.slope_se for line in lines], axis=-1),
            response=np.abs(weights @ left_out),
            slope_response=least * np.abs(slope_weights @ left_out),
            lack_of_fit=np.fmin(1.0, len(lines) * np.fmin.reduce([line.lack for line in lines])),
        )


def _line(design: FloatArray, y: FloatArray, se: FloatArray) -> _Line:
    """y and se are (…, width)."""
    weighted = design / se[..., None]
    across = np.swapaxes(weighted, -1, -2)
    try:
        covariance = np.linalg.inv(across @ weighted)
    except np.linalg.LinAlgError:  # errors that are zero, infinite, or span more than a double holds
        undefined = np.full(y.shape[:-1], np.nan)
        return _Line(np.full_like(y, np.nan), np.full_like(y, np.nan), undefined, undefined, undefined)
    coefficients = (covariance @ (across @ (y / se)[..., None]))[..., 0]
    weights = covariance @ (across / se[..., None, :])
    chi2 = (((y - coefficients @ design.T) / se) ** 2).sum(axis=-1)
    return _Line(
        weights=weights[..., 0, :],
        slope_weights=weights[..., 1, :],
        slope=coefficients[..., 1],
        slope_se=np.sqrt(covariance[..., 1, 1]),
        lack=chdtrc(len(design) - design.shape[1], chi2),
    )


def bias(fitted: Fit, widths: FloatArray, growth: float, order: int) -> FloatArray:
    """A bound on what the order leaves out of each intercept, (k,), where the coefficients of the series grow by at
    most `growth` from one power of 1/N to the next: |c_{order+j}| ≤ growth^{order+j−1} |c₁|, a geometric series.

    Least squares average the polynomials through every order + 1 of the points (Jacobi 1841); what such a one leaves
    out of a geometric series is its first term times Π 1/(1 − growth/N), at most that of the smallest widths.
    c₁ is known from the slope up to three standard errors and up to what is left out of it in turn; where that
    may be all of it there is no bound, and the bias is infinite."""
    rest = 1 - growth / np.sort(widths)[: order + 1]
    left_out = growth**order / float(rest.prod()) if (rest > 0).all() else np.inf
    with np.errstate(divide="ignore", invalid="ignore"):
        known = 1 - left_out * fitted.slope_response
        slope = (np.abs(fitted.slope) + 3 * fitted.slope_se) / np.maximum(known, 0.0)
    return np.asarray(fitted.response * left_out * slope) if growth else np.zeros_like(slope)


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
