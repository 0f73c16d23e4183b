"""Xiao, Bahri, Schoenholz & Pennington 2018, Training ultra-deep CNNs with critical initialization: how covariances
between positions move, which modes survive, and what that leaves of order and chaos in convolutional networks.

Products over 1,003 or 1,503 layers cannot be sampled often enough to decide on: what is claimed of such depths is
claimed of single layers at the fixed point, and of stretches of some ten layers, or of whole networks through their
stretches."""

from __future__ import annotations

from mcverify.claims.xiao2018_cnn.blur import GRADIENT_BLUR
from mcverify.claims.xiao2018_cnn.borders import PHASE_BOUNDARY, ZEROS_AS_PRINTED, ZEROS_MENDED
from mcverify.claims.xiao2018_cnn.figure_1c import SORTED_1C, SURVIVAL
from mcverify.claims.xiao2018_cnn.figure_3 import FIGURE_3, FIGURE_3_SPREAD
from mcverify.claims.xiao2018_cnn.finite_width import DIGITS, POSITIONS_ALIKE
from mcverify.claims.xiao2018_cnn.modes import MODE_SCALES, MODES
from mcverify.claims.xiao2018_cnn.one_step import ONE_STEP, ONE_STEP_ZEROS
from mcverify.claims.xiao2018_cnn.trajectories import FIXED_POINT, FIXED_POINT_OTHER, TRAJECTORY
from mcverify.claims.xiao2018_cnn.whole_depth import WHOLE_DEPTH

CLAIMS = (
    ONE_STEP, ONE_STEP_ZEROS, TRAJECTORY, FIXED_POINT, FIXED_POINT_OTHER, MODES, MODE_SCALES, GRADIENT_BLUR,
    PHASE_BOUNDARY, ZEROS_AS_PRINTED, ZEROS_MENDED, SORTED_1C, *SURVIVAL, FIGURE_3, FIGURE_3_SPREAD,
    POSITIONS_ALIKE, DIGITS, WHOLE_DEPTH,
)  # fmt: skip
