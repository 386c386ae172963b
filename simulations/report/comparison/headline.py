"""A comparison's result in plain words: who wins, by how much, and whether that is more than chance."""

import math

from simulations.report.comparison.metrics import (
    Estimate,
    Row,
    Summary,
    estimate,
    format_estimate,
    format_interval,
    format_value,
    interval,
    is_arm,
    mean,
    method_label,
    point_rows,
    quality_of_row,
)
from simulations.report.comparison.quality import ComparedQuality, compared_by


def headline(summary: Summary, point: int) -> str:
    """Return who is best at one point of the sweep, the lead over the first method and the best arm."""
    quality = compared_by(summary)
    measured = [row for row in point_rows(summary, point) if mean(row, quality.metric) is not None]
    strategies = [row for row in measured if not is_arm(row["method"])]
    arms = [row for row in measured if is_arm(row["method"])]
    if not measured:
        return "Nothing was measured here: see the failed runs below."
    sentences = [_winner(summary, strategies)] if strategies else []
    if arms:
        best = max(arms, key=_worth)
        sentences.append(f"The best reference arm, {method_label(best['method'])}, reaches {_told(best)}.")
    return " ".join(sentences)


def worst_case(summary: Summary) -> str:
    """Return which strategy is best where it is worst, over all points of a sweep; nothing where there is no sweep."""
    quality = compared_by(summary)
    lowest: dict[str, tuple[float, int]] = {}
    for row in summary["rows"]:
        if not is_arm(row["method"]):
            found = (-math.inf if mean(row, quality.metric) is None else _worth(row), row["point"])
            lowest[row["method"]] = min(lowest.get(row["method"], found), found)
    complete = {method: found for method, found in lowest.items() if found[0] > -math.inf}
    if len(summary["points"]) < 2 or not complete:
        return ""
    method, (worth, point) = max(complete.items(), key=lambda pair: pair[1][0])
    return (
        f"Over all {len(summary['points'])} settings {method_label(method)} has the best worst case: "
        f"{format_value(quality.better * worth, quality.kind)}, at {summary['points'][point]['label']}."
    )


def _worth(row: Row) -> float:
    """Return what ranks a method: the more the better."""
    quality = quality_of_row(row)
    return quality.better * (mean(row, quality.metric) or 0.0)


def _told(row: Row) -> str:
    quality = quality_of_row(row)
    said = format_estimate(estimate(row, quality.metric), quality.kind)
    return f"a {quality.name} of {said}" if quality.ratios else said


def _winner(summary: Summary, strategies: list[Row]) -> str:
    first, quality = summary["methods"][0], compared_by(summary)
    best, *others = sorted(strategies, key=_worth, reverse=True)
    name, worst = method_label(best["method"]), format_value(mean(best, "worst_decile"), quality.kind)
    if not others:
        return f"{name}, the only strategy measured here, reaches {_told(best)}; its worst tenth {worst}."
    is_best = "is the best" if quality.ratios else "is the most accurate"
    leader = f"Of {len(strategies)} strategies, {name} {is_best}: {_told(best)}, its worst tenth {worst}."
    if best["method"] == first:
        return f"{leader} It is the reference; {_runner_up(others[0], quality)}"
    return f"{leader} {_lead(best, method_label(first), quality)}"


def _lead(best: Row, first: str, quality: ComparedQuality) -> str:
    found = estimate(best, "difference")
    ends = None if found is None else interval(found)
    if found is None or ends is None:
        return f"How far it is from {first}, the reference, was not measured."
    said = _difference(found, quality)
    if _surely_better(ends, quality):
        if quality.ratios:
            return f"On the same clients and seeds it beats {first}, the reference: {said}."
        return f"On the same clients and seeds it beats {first}, the reference, by {said}.".replace("+", "")
    return f"Against {first}, the reference, that is {said}: no more than chance can do."


def _runner_up(second: Row, quality: ComparedQuality) -> str:
    name, found = method_label(second["method"]), estimate(second, "difference")
    ends = None if found is None else interval(found)
    if found is None or ends is None:
        return f"{name} comes next."
    verdict = "it is clearly behind" if _surely_worse(ends, quality) else "no more than chance can do"
    return f"{name} comes next, {_difference(found, quality)} on the same clients and seeds: {verdict}."


def _difference(found: Estimate, quality: ComparedQuality) -> str:
    kind = quality.difference_kind
    said, span = format_value(found["mean"], kind), format_interval(found, kind)
    return f"{said} times the perplexity ({span})" if quality.ratios else f"{said} points ({span})"


def _surely_better(ends: tuple[float, float], quality: ComparedQuality) -> bool:
    return ends[0] > quality.same if quality.better > 0 else ends[1] < quality.same


def _surely_worse(ends: tuple[float, float], quality: ComparedQuality) -> bool:
    return ends[1] < quality.same if quality.better > 0 else ends[0] > quality.same
