"""Hanin & Rolnick 2018, How to start training: the two failure modes of dense ReLU networks, and the exact laws behind
them at any width."""

from __future__ import annotations

from mcverify.claims.hanin_rolnick2018_dense.growth import ACROSS_LAYERS, GROWTH
from mcverify.claims.hanin_rolnick2018_dense.initialisers import INITIALISERS, PYTORCH
from mcverify.claims.hanin_rolnick2018_dense.inverse_widths import BEYOND_FIRST_ORDER, BOUNDS, FIRST_ORDER
from mcverify.claims.hanin_rolnick2018_dense.law import LAW, LEAKY_LAW, ORTHOGONAL_LAW
from mcverify.claims.hanin_rolnick2018_dense.logarithm import LOG_MOMENTS
from mcverify.claims.hanin_rolnick2018_dense.mean_length import MEAN_LENGTH
from mcverify.claims.hanin_rolnick2018_dense.second_moment import (
    LEAKY_SECOND_MOMENT,
    ORTHOGONAL_SECOND_MOMENT,
    SECOND_MOMENT,
    UNIFORM_STEP,
)

CLAIMS = (
    MEAN_LENGTH, *INITIALISERS, PYTORCH, SECOND_MOMENT, LEAKY_SECOND_MOMENT, ORTHOGONAL_SECOND_MOMENT, UNIFORM_STEP,
    GROWTH, ACROSS_LAYERS, FIRST_ORDER, BEYOND_FIRST_ORDER, BOUNDS, LAW, LEAKY_LAW, ORTHOGONAL_LAW, LOG_MOMENTS,
)  # fmt: skip
