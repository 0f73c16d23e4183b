"""What the claims on figure 1c rest on, by theory alone; their verdicts are tests/test_claims.py's."""

from __future__ import annotations

import numpy as np
import pytest

import mcverify as mv
from mcverify.claims.xiao2018_cnn.figure_1c import DEPTH_1C, FIGURE_1C, STRETCHES, SURVIVAL, TRAINED, shares_1c


def test_six_depth_scales_sort_the_figure():
    """As printed in the figure: depth 1003 is below 6ξ_c where networks trained; ξ_c at c*, far from 1 in chaos."""
    scales = [6 * mv.phase("tanh", s, 2e-5).xi_c for s in FIGURE_1C]
    assert tuple(scale > DEPTH_1C for scale in scales) == TRAINED
    np.testing.assert_allclose(scales[4:7], [3872.46, 1985.37, 1253.19], rtol=1e-5)
    np.testing.assert_allclose(shares_1c(), DEPTH_1C / (DEPTH_1C + np.array(scales)), rtol=1e-6)


@pytest.mark.parametrize(("stretch", "claim", "share"), list(zip(STRETCHES, SURVIVAL, shares_1c(), strict=True)))
def test_what_survives_a_stretch_tells_the_side_of_the_figure(stretch, claim, share):
    """A few layers about c* decay at ξ_c's own rate to 0.0025 of the share, but at the critical point, where they must
    be faster; and the margin leaves the prediction on its side."""
    net = claim.networks(stretch.channels)
    (found,) = claim.predict(net, claim.inputs(net))
    assert (found < 0.5) == (share < 0.5)
    assert stretch.margin < abs(found - 0.5)
    assert share < found if stretch.sigma_w2 == 1.05 else abs(found - share) < 0.0025
