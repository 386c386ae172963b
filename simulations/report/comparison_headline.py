"""A comparison's result in plain words: who wins, by how much, and whether that is more than chance."""

from simulations.report.comparison_metrics import (
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
)


def headline(summary: Summary, point: int) -> str:
    """Return who is most accurate at one point of the sweep, the lead over the first method and the best arm."""
    measured = [row for row in point_rows(summary, point) if mean(row, "personal_accuracy") is not None]
    strategies = [row for row in measured if not is_arm(row["method"])]
    arms = [row for row in measured if is_arm(row["method"])]
    if not measured:
        return "Nothing was measured here: see the failed runs below."
    sentences = [_winner(summary, strategies)] if strategies else []
    if arms:
        best = max(arms, key=_accuracy)
        sentences.append(f"The best reference arm, {method_label(best['method'])}, reaches {_told(best)}.")
    return " ".join(sentences)


def worst_case(summary: Summary) -> str:
    """Return which strategy is best where it is worst, over all points of a sweep; nothing where there is no sweep."""
    lowest: dict[str, tuple[float, int]] = {}
    for row in summary["rows"]:
        accuracy = mean(row, "personal_accuracy")
        if not is_arm(row["method"]):
            found = (-1.0 if accuracy is None else accuracy, row["point"])
            lowest[row["method"]] = min(lowest.get(row["method"], found), found)
    complete = {method: found for method, found in lowest.items() if found[0] >= 0}
    if len(summary["points"]) < 2 or not complete:
        return ""
    method, (accuracy, point) = max(complete.items(), key=lambda pair: pair[1][0])
    return (
        f"Over all {len(summary['points'])} settings {method_label(method)} has the best worst case: "
        f"{format_value(accuracy, 'share')}, at {summary['points'][point]['label']}."
    )


def _accuracy(row: Row) -> float:
    return mean(row, "personal_accuracy") or 0.0


def _told(row: Row) -> str:
    return format_estimate(estimate(row, "personal_accuracy"), "share")


def _winner(summary: Summary, strategies: list[Row]) -> str:
    first = summary["methods"][0]
    best, *others = sorted(strategies, key=_accuracy, reverse=True)
    name, worst = method_label(best["method"]), format_value(mean(best, "worst_decile"), "share")
    if not others:
        return f"{name}, the only strategy measured here, reaches {_told(best)}; its worst tenth {worst}."
    leader = f"Of {len(strategies)} strategies, {name} is the most accurate: {_told(best)}, its worst tenth {worst}."
    if best["method"] == first:
        return f"{leader} It is the reference; {_runner_up(others[0])}"
    return f"{leader} {_lead(best, method_label(first))}"


def _lead(best: Row, first: str) -> str:
    found = estimate(best, "difference")
    ends = None if found is None else interval(found)
    if found is None or ends is None:
        return f"How far it is from {first}, the reference, was not measured."
    points, span = format_value(found["mean"], "points"), format_interval(found, "points")
    if ends[0] > 0:
        lead = f"{points} points ({span})".replace("+", "")
        return f"On the same clients and seeds it beats {first}, the reference, by {lead}."
    return f"Against {first}, the reference, that is {points} points ({span}): no more than chance can do."


def _runner_up(second: Row) -> str:
    name, found = method_label(second["method"]), estimate(second, "difference")
    ends = None if found is None else interval(found)
    if found is None or ends is None:
        return f"{name} comes next."
    points, span = format_value(found["mean"], "points"), format_interval(found, "points")
    verdict = "it is clearly behind" if ends[1] < 0 else "no more than chance can do"
    return f"{name} comes next, {points} points ({span}) on the same clients and seeds: {verdict}."
