"""One sentence on a network: which layer departs first from the limit at its own widths, if any."""

from __future__ import annotations

import math

from mcverify.verdict import Report, Result

_TOPICS = {"length": "lengths", "gradient": "gradient norms", "correlation": "correlations"}


def departure(report: Report, margin: float) -> str:
    """One sentence on a network: which layer departs first from the limit at its own widths, if any."""
    broken = [r for r in report.results if r.mark == "exact" and r.verdict == "refuted"]
    if broken:
        return f"The sampled network is not the one described: {broken[0].name} is refuted, {broken[0].message}."
    own = {r.name.split(".")[1]: r for r in report.results if r.name.split(".")[1] in _TOPICS}
    found = []
    for topic, r in own.items():
        if r.verdict == "refuted":
            rows = list(zip(r.labels, r.estimate, r.se, r.prediction, r.margin, strict=True))
            beyond = [(label, e - p) for label, e, se, p, m in rows if abs(e - p) - m > 3 * se]
            if beyond:
                label, gap = beyond[0]
                gain = gap if topic == "correlation" else math.expm1(gap)  # lengths and gradients as logarithms
                found.append((int(label.split()[1]), f"{label} ({_TOPICS[topic]} off by {gain:+.2%}{_unit(topic)})"))
    bent = [r.name.rpartition(".")[2] for r in report.results if ".limit." in r.name and r.verdict == "refuted"]
    if bent and not found:
        return f"As the widths grow, {' and '.join(_TOPICS[b] for b in bent)} do not tend to the limit's."
    open_topics = [_TOPICS[t] for t, r in own.items() if r.verdict == "undecided"]
    open_topics += [f"{_TOPICS[t]} in all" for t, r in _in_all(report) if r.verdict == "undecided"]
    rest = f" Undecided within the budget: {', '.join(open_topics)}." if open_topics else ""
    whole = _whole(report)
    if whole and not found:
        return f"No single layer departs by more than {margin:.2%}, but all of them together: {whole}.{rest}"
    if not own:
        return "There is nothing that theory follows from layer to layer here: see the table."
    if found:
        first = f"The first layer to depart from the limit by more than {margin:.2%} is {min(found)[1]}"
        return f"{first}{f'; all layers together, {whole}' if whole else ''}.{rest}"
    if all(r.verdict == "undecided" for r in own.values()):
        return f"No departure was found, but nothing was decided either.{rest}"
    told = ", ".join(_TOPICS[t] for t in own if _TOPICS[t] not in open_topics)
    return f"No layer departs from theory by more than {margin:.2%} in {told}.{rest}"


def _whole(report: Report) -> str:
    """By which factor the gain over all layers departs, where that is refuted."""
    factors = [(t, r.estimate[0] - r.prediction[0]) for t, r in _in_all(report) if r.verdict == "refuted"]
    return " and ".join(f"{_TOPICS[topic]} by a factor {math.exp(off):.3g}" for topic, off in factors)


def _in_all(report: Report) -> list[tuple[str, Result]]:
    """The topics of the claims on gains from the first layer to the last, with their results."""
    named = [(r.name.split(".")[1], r) for r in report.results if r.name.endswith("_in_all")]
    return [(name.removesuffix("_in_all"), r) for name, r in named]


def _unit(topic: str) -> str:
    return "" if topic == "correlation" else " per layer"
