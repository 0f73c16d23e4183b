"""Numerical regression: what the claims' networks measured once, kept as baselines, and what they measure now.

`record` stores a claim only once its theory check has given the expected verdict. `compare` samples the same networks
again and judges in one of two tiers. With the seed, sizes, engine, processor and versions of the recording every bit
must come back. Elsewhere, or with another seed, two independent samples are compared, each with its own error: means
and the counts in bins that were fixed beforehand, by Holm over all; and the difference must be held within the
baseline's margin, so that a comparison which could have seen nothing is undecided. See docs/baselines.md.
"""

from mcverify.baselines.comparison import Comparisons, compare, stored_claims, update
from mcverify.baselines.file import AtWidth, Baseline, path_of, read, write
from mcverify.baselines.judging import Comparison
from mcverify.baselines.measurement import SAME
from mcverify.baselines.recording import Recorded, record

__all__ = [
    "SAME",
    "AtWidth",
    "Baseline",
    "Comparison",
    "Comparisons",
    "Recorded",
    "compare",
    "path_of",
    "read",
    "record",
    "stored_claims",
    "update",
    "write",
]
