"""The primitives on an NVIDIA GPU, through numba-cuda: the same as kernels/reference.py and kernels/arrays.py.

Arrays are device.Device; what `gram` and `squares` give, and `host`, is on the host. One thread drives one GPU.
"""

from __future__ import annotations

from mcverify.kernels.cuda.conditional import gaussian_apply, gaussian_transpose, haar_apply, haar_transpose
from mcverify.kernels.cuda.device import given, host, missing, name, release, room, workers
from mcverify.kernels.cuda.draws import mask, uniforms, words
from mcverify.kernels.cuda.elementwise import activate, add, affine, multiply, slope, slope_times
from mcverify.kernels.cuda.layout import (
    columns,
    fold,
    join,
    patches,
    pool,
    shifted,
    spread,
    standardise,
    standardise_slope,
    swapped,
)
from mcverify.kernels.cuda.linear import gram, squares
from mcverify.kernels.cuda.matmul import draw, random_matmul, random_matmul_transpose
from mcverify.kernels.patches_cpu import patch_gram

__all__ = [
    "activate",
    "add",
    "affine",
    "columns",
    "draw",
    "fold",
    "gaussian_apply",
    "gaussian_transpose",
    "given",
    "gram",
    "haar_apply",
    "haar_transpose",
    "host",
    "join",
    "mask",
    "missing",
    "multiply",
    "name",
    "patch_gram",
    "patches",
    "pool",
    "random_matmul",
    "random_matmul_transpose",
    "release",
    "room",
    "shifted",
    "slope",
    "slope_times",
    "spread",
    "squares",
    "standardise",
    "standardise_slope",
    "swapped",
    "uniforms",
    "words",
    "workers",
]
