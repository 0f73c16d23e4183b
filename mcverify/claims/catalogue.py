"""The catalogue: every claim, by name."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from mcverify.claims import (
    hanin2018,
    hanin_rolnick2018_dense,
    hanin_rolnick2018_residual,
    pennington2017,
    pennington2018,
    poole2016,
    roberts2022,
    schoenholz2017,
    taki2017,
    taki2017_batchnorm,
    taki2017_formats,
    xiao2018_cnn,
    xiao2018_isometry,
    yang2019_batchnorm,
    yang_schoenholz2017,
)
from mcverify.claims.claim import Claim
from mcverify.errors import InputError, nearest

PAPERS = (
    poole2016,
    schoenholz2017,
    xiao2018_cnn,
    xiao2018_isometry,
    taki2017,
    taki2017_formats,
    taki2017_batchnorm,
    yang_schoenholz2017,
    hanin_rolnick2018_residual,
    yang2019_batchnorm,
    hanin_rolnick2018_dense,
    hanin2018,
    pennington2017,
    pennington2018,
    roberts2022,
)


def catalogue() -> list[Claim]:
    """All claims, in the order of the papers."""
    return [claim for paper in PAPERS for claim in paper.CLAIMS]


def select(patterns: Sequence[str]) -> list[Claim]:
    """The claims whose names match any of the patterns (shell wildcards); all for no pattern.

    Raises InputError for a pattern that matches nothing."""
    claims = catalogue()
    names = [c.name for c in claims]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            known = [*names, *sorted({name.partition(".")[0] + ".*" for name in names})]
            raise InputError("claim", pattern, f"matches no claim{nearest(pattern, known)}; see `mcverify claims`")
    return [c for c in claims if not patterns or any(fnmatchcase(c.name, p) for p in patterns)]
