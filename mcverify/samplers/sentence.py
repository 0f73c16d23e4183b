"""One sentence or two on an initialiser: what is wrong with it, if anything, in the words of its documentation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mcverify.initialisers import FAN_MODES, fan
from mcverify.samplers.draws import Draws
from mcverify.verdict import Result
from mcverify.weights import LAWS, TRUNCATED_VARIANCE

_GAINS = (1.0, 2.0, 1 / 3)  # LeCun's, He's, PyTorch's Linear


def fraction(sigma_w2: float, fan_mode: str) -> str:
    """`2/fan_in`, and `1/(3 fan_in)` for one third."""
    return f"1/(3 {fan_mode})" if abs(3 * sigma_w2 - 1) < 1e-12 else f"{sigma_w2:.4g}/{fan_mode}"


def sentence(found: Sequence[Result], draws: Draws, law: str, sigma_w2: float, fan_mode: str, margin: float) -> str:
    """What is refuted, the causes before what follows from them; else what is open; else what was found."""
    by_name = {r.name.rpartition(".")[2]: r for r in found}
    refuted = {name: r for name, r in by_name.items() if r.verdict == "refuted"}
    documented = fraction(sigma_w2, fan_mode)
    told = _told(refuted, draws, law, sigma_w2, fan_mode, by_name)
    if told:
        return " ".join(told)
    open_names = [name for name, r in by_name.items() if r.verdict == "undecided"]
    if open_names:
        needed = max(by_name[name].samples_for_margin for name in open_names)
        more = f"; about {needed:,} entries would decide" if needed > draws.size else ""
        return f"Nothing is refuted, but {', '.join(open_names)} stayed undecided with {draws.size:,} entries{more}."
    return f"The sampler is as documented: {law} weights, Var w = {documented} within {margin:.1%}."


def _told(
    refuted: dict[str, Result], draws: Draws, law: str, sigma_w2: float, fan_mode: str, by_name: dict[str, Result]
) -> list[str]:
    """A cause alone where others follow from it: repeated draws are fewer than counted; a mean, or a preferred
    direction, makes rows, columns and successive draws agree a little; a wrong variance is a wrong distribution."""
    if "fresh" in refuted and draws.repeated:
        return [f"Draws repeat: {draws.repeated} of {draws.draws} equal an earlier one (a frozen seed?)."]
    out = []
    if "orthogonality" in refuted:
        side = "rows" if draws.fan_out <= draws.fan_in else "columns"
        out.append(f"The {side} are not orthonormal up to a factor: up to {_first(refuted['orthogonality']):.2g} off.")
    if "variance" in refuted:
        out.append(_variance(refuted["variance"], draws, sigma_w2, fan_mode))
    if "haar" in refuted and "orthogonality" not in refuted:
        corner, _, _, trace = refuted["haar"].estimate
        signs = " (the signs of a QR factor not corrected?)" if corner < -0.35 and trace < -0.35 else ""
        return [*out, f"The matrices are orthogonal but not Haar: some directions are preferred{signs}."]
    if "mean" in refuted:
        out.append(f"The mean is not zero but {_first(refuted['mean']):.3g} standard deviations.")
    if "independence" in refuted and ("mean" not in refuted or _beyond(refuted["independence"])):
        out.append(_dependence(draws))
    if "kurtosis" in refuted:
        out.append(_shape(refuted["kurtosis"], law))
    if "fresh" in refuted and ("mean" not in refuted or _beyond(refuted["fresh"])):
        out.append(f"Successive draws are not independent: their correlation is {_first(refuted['fresh']):.3f}.")
    if "distribution" in refuted and not out:
        open_names = [name for name, r in by_name.items() if r.verdict == "undecided"]
        rest = f"; {', '.join(open_names)} stayed undecided" if open_names else ", though nothing else is refuted"
        out.append(f"The weights do not follow the {law} law{rest}.")
    return out


def _beyond(r: Result) -> bool:
    """Whether a component is beyond its margin."""
    return any(abs(e - p) > m for e, p, m in zip(r.estimate, r.prediction, r.margin, strict=True))


def _dependence(draws: Draws) -> str:
    """Equal rows (columns) by name: the largest cosine in each matrix is then 1."""
    equal = [s for s, v in (("rows", draws.rows), ("columns", draws.columns)) if np.median(v[:, 3]) > 1 - 1e-6]
    if equal:
        return f"Some {' and '.join(equal)} are equal, up to a factor."
    return "The entries of a matrix are not independent of one another."


def _first(r: Result) -> float:
    return r.estimate[0]


def _variance(r: Result, draws: Draws, sigma_w2: float, fan_mode: str) -> str:
    """The measured variance by its likeliest name: what lies within four standard errors of it."""
    own = fan(fan_mode, draws.fan_in, draws.fan_out)
    documented, wanted = sigma_w2 / own, fraction(sigma_w2, fan_mode)
    measured = _first(r) / own
    other_modes = [m for m in FAN_MODES if m not in (fan_mode, "fan_max")]
    names = [(fraction(sigma_w2, m), sigma_w2 / fan(m, draws.fan_in, draws.fan_out)) for m in other_modes]
    names += [(fraction(g, fan_mode), g / own) for g in _GAINS if g != sigma_w2]
    cut = TRUNCATED_VARIANCE
    names += [
        (f"the square of {wanted} (a variance given as a standard deviation?)", documented**2),
        (f"the square root of {wanted} (a standard deviation given as a variance?)", documented**0.5),
        (f"a third of {wanted} (a standard deviation given as the bound of a uniform law?)", documented / 3),
        (f"{cut:.3f} of {wanted} (what truncation takes not given back?)", documented * cut),
        (f"{wanted} over {cut:.3f} (corrected for a truncation that is not there?)", documented / cut),
    ]  # fmt: skip
    names += [
        (fraction(g, m), g / fan(m, draws.fan_in, draws.fan_out)) for m in other_modes for g in _GAINS if g != sigma_w2
    ]
    reach = max(4 * r.se[0] / own, 1e-4 * measured)
    fitting = list(dict.fromkeys(name for name, value in names if abs(measured - value) <= reach))
    if fitting:
        return f"The variance is {' or '.join(fitting[:2])}, not {wanted}."
    return f"The variance is {measured / documented:.4g} ± {r.se[0] / sigma_w2:.1g} times {wanted}."


def _shape(r: Result, law: str) -> str:
    k, se = r.estimate[0], r.se[0]
    alike = [row.name for row in LAWS.values() if row.independent and abs(row.kurtosis - k) <= 4 * se + 1e-3]
    if alike:
        return f"The weights look {alike[0]}, not {law}."
    return f"The weights are not {law}: their kurtosis is {k:.3g} against {LAWS[law].kurtosis:.3g}."
