"""Builds the one compiled extension; everything else about the package is declared in pyproject.toml.

The C files know no Python and each path_*.c turns on its own instruction set, so one build runs on every
machine of its architecture. Nothing may be fused or reordered behind the code's back: -ffp-contract=off.
"""

from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

native = Extension(
    "mcverify._native",
    sources=["src_ext/_native.pyx", "src_ext/dispatch.c", *sorted(glob("src_ext/path_*.c"))],
    include_dirs=["src_ext"],
    depends=sorted(glob("src_ext/*.h")),
    extra_compile_args=["-std=gnu11", "-O3", "-ffp-contract=off", "-fno-math-errno"],
)

setup(ext_modules=cythonize([native], language_level=3))
