"""Any initialiser against its documented law: draw matrices, and judge what the law says of them."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mcverify import results
from mcverify.errors import InputError, nearest
from mcverify.initialisers import INITIALISERS, fan
from mcverify.judgement import judge
from mcverify.levels import ALPHA, CONFIRMATION_ALPHA
from mcverify.samplers.draws import Draw, Draws, caller, measure
from mcverify.samplers.sentence import fraction, sentence
from mcverify.samplers.statements import REFERENCE_ENTRIES, Documented, enough, other_fans, statements
from mcverify.simulation.simulate import Seed, seed_of
from mcverify.statistics.multiplicity import holm
from mcverify.validate import between, count, positive
from mcverify.verdict import Report, Result
from mcverify.weights import LAWS

ENTRIES = REFERENCE_ENTRIES
MARGIN = 0.02
LEAST_ENTRIES = 100_000  # below this the mean of fourth powers is not Gaussian far out in its tails


def check_sampler(
    draw: Draw,
    law: str,
    *,
    sigma_w2: float | None = None,
    fan_mode: str | None = None,
    entries: int = ENTRIES,
    margin: float = MARGIN,
    alpha: float = ALPHA,
    rng: Seed = 0,
) -> Report:
    """Test an initialiser against its documented law.

    draw: a callable that returns a fresh matrix (fan_out, fan_in) of float32 or float64 at each call, as a NumPy or
    JAX array or a PyTorch tensor (JAX and Keras keep (fan_in, fan_out): return the transpose). Called as draw(), or,
    if it has a parameter without default, as draw(seed) with seeds of its own:

        mv.check_sampler(lambda: torch.nn.Linear(60, 96).weight, "pytorch_linear")
        mv.check_sampler(lambda seed: he_normal()(jax.random.key(seed), (60, 96)).T, "jax_he_normal")

    law: a name of the table in initialisers.py, or a weight law ("gaussian", "uniform", "truncated_normal",
    "rademacher", "orthogonal") with Var w = sigma_w2 / fan; sigma_w2 is 1, fan_mode "fan_in" if left out. For
    "orthogonal" fan_mode is "fan_max" if left out, so that the rows or columns have square norm sigma_w2.

    entries: about how many to draw; more where few large matrices would not decide, never fewer than 16 matrices
    (512 for "orthogonal"). margin: the relative deviation of the variance that matters. rng: a seed, following
    SPEC 7, of the seeds that draw is given and of what is random in the tests.

    The statements: variance with its fan mode, mean, kurtosis, the whole distribution, independence of rows and of
    columns, successive matrices that differ; for "orthogonal" orthogonality and Haar's law in the place of those on
    single entries. Guarantee: a right sampler is refuted with probability at most alpha, and since what is refuted
    must be refuted again at 1e-3 on fresh matrices, of at most 1e-3 alpha; a deviation beyond a statement's margin
    is confirmed with probability at most 1e-3. Assumes that means over 100,000 or more entries are Gaussian.

    Raises InputError for bad input, and for square matrices (or nearly so) of independent entries, which cannot tell
    fan_in from fan_out."""
    documented = _documented(law, sigma_w2, fan_mode)
    count("entries", entries, least=LEAST_ENTRIES)
    between("margin", margin, 0.0, 0.5, open_low=True)
    between("alpha", alpha, 0.0, 0.5, open_low=True)
    seed = seed_of(rng)
    began = time.perf_counter()
    generator = np.random.default_rng(seed)
    first, again = (int(s) for s in generator.integers(2**29, size=2))  # below 2³¹ with 2³⁰ added
    draws = _draw(draw, documented, entries, margin, first, generator)
    found = judge(statements(documented, draws, margin, generator), alpha, _what(documented, draws))
    if any(r.verdict == "refuted" for r in found):
        fresh = _draw(draw, documented, entries, margin, 2**30 + again, generator)
        repeat = judge(statements(documented, fresh, margin, generator), alpha, "")
        found = _confirmed_again(found, repeat)
    seconds = (time.perf_counter() - began) / len(found)
    facts = results.provenance(kind="sampler", seed=str(seed), alpha=alpha, entries=entries, margin=margin)
    told = sentence(found, draws, documented.law, documented.sigma_w2, documented.fan_mode, margin)
    return Report([replace(r, seconds=seconds) for r in found], alpha, seed, facts, told)


def _documented(law: str, sigma_w2: float | None, fan_mode: str | None) -> Documented:
    known = list(dict.fromkeys([*LAWS, *INITIALISERS]))
    if not isinstance(law, str) or law not in known:
        raise InputError("law", law, f"allowed: {', '.join(known)}{nearest(str(law), known)}")
    if law in LAWS:
        value = 1.0 if sigma_w2 is None else sigma_w2
        mode = ("fan_max" if law == "orthogonal" else "fan_in") if fan_mode is None else fan_mode
        positive("sigma_w2", value)
        fan(mode, 1, 1)  # refuses an unknown mode
        return Documented(law, law, float(value), mode, "the documented law")
    for field, given in (("sigma_w2", sigma_w2), ("fan_mode", fan_mode)):
        if given is not None:
            raise InputError(field, given, f"must be left out: {law} says it")
    row = INITIALISERS[law]
    return Documented(law, row.law, row.sigma_w2, row.fan_mode, row.source)


def _what(documented: Documented, draws: Draws) -> str:
    law = f"{documented.law}, Var w = {fraction(documented.sigma_w2, documented.fan_mode)}"
    return f"{documented.name}: {law}; {draws.draws} matrices of shape ({draws.fan_out}, {draws.fan_in})"


def _draw(
    draw: Draw, documented: Documented, entries: int, margin: float, seed: int, rng: np.random.Generator
) -> Draws:
    """As many matrices as decide. The first call only shows the shape."""
    matrix = caller(draw, seed)
    fan_out, fan_in = matrix(0).shape
    gap = min((abs(v - 1) for _, v in other_fans(documented, fan_out, fan_in)), default=math.inf)
    # Orthogonal matrices have their variance to rounding, so that a small gap is enough, and no gap is no loss.
    if gap <= 2 * margin and documented.law != "orthogonal":
        allowed = f"must be far from square: fan modes must differ by over 2 margins, {2 * margin:.0%}, in variance"
        raise InputError("draw", f"shape {(fan_out, fan_in)}", allowed)
    sd = math.sqrt(documented.sigma_w2 / fan(documented.fan_mode, fan_in, fan_out))
    number = enough(documented.law, fan_out, fan_in, entries)
    return measure(lambda i: matrix(i + 1), number, sd, entries, rng)


def _confirmed_again(found: Sequence[Result], repeat: Sequence[Result]) -> list[Result]:
    """Refutations that fresh matrices bear out at 1e-3 (Holm over them); the others are undecided."""
    refuted = [i for i, r in enumerate(found) if r.verdict == "refuted"]
    adjusted = dict(zip(refuted, holm(np.array([repeat[i].p for i in refuted])), strict=True))
    out = list(found)
    for i, p in adjusted.items():
        out[i] = replace(out[i], p_confirmation=float(p))
        if not p <= CONFIRMATION_ALPHA:
            out[i] = replace(out[i], verdict="undecided", message="a refutation was not reproduced with fresh matrices")
    return out
