"""A comparison's figures along a sweep: lines over numbers, heat maps over names; the other settings stay as chosen."""

import json
from collections.abc import Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from simulations.report.comparison.marks import Mark, method_marks
from simulations.report.comparison.metrics import (
    Row,
    Summary,
    estimate,
    format_estimate,
    format_value,
    interval,
    is_arm,
    mean,
    ordered_methods,
    quality_of_row,
)
from simulations.report.comparison.quality import compared_by
from simulations.report.comparison.traces import add_strip, belongs, finish, hover_text, symbol

_WITHOUT = ("none", "benign", "", None, False)
# Two ends that every kind of colour vision tells apart, white in the middle: Okabe and Ito's vermilion and blue.
_DIVERGING = [[0, "#d55e00"], [0.5, "#ffffff"], [1, "#0072b2"]]
# Pixels that the methods' names and one written number take.
_LABEL_WIDTH, _CELL_WIDTH = 180, 52
_SLANTED_LETTER = 5  # pixels of height for each letter of a label at 45 degrees


def swept(summary: Summary) -> list[str]:
    """Return the settings that were swept over at least two values."""
    return [key for key, values in (summary.get("sweep") or {}).items() if len(values) > 1]


def is_numeric(values: Sequence[Any]) -> bool:
    """Say whether all values of a sweep are numbers, which have an axis."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def value_name(value: Any) -> str:
    """Write a swept value as a user writes it."""
    return value if isinstance(value, str) else json.dumps(value)


def slices(summary: Summary, key: str) -> list[list[int]]:
    """Return the points of the sweep in sets that differ in `key` alone, each in the order of the swept values."""
    found: dict[str, dict[str, int]] = {}
    for number, point in enumerate(summary["points"]):
        others = {name: value for name, value in point["settings"].items() if name != key}
        found.setdefault(json.dumps(others, sort_keys=True), {})[value_name(point["settings"].get(key))] = number
    order = [value_name(value) for value in summary["sweep"][key]]
    return [[points[value] for value in order if value in points] for points in found.values()]


def lines_over(summary: Summary, key: str, metric: str, up: str) -> go.Figure:
    """Draw quality over a numeric setting: a line a method, its 95 % interval as a band."""
    figure, marks, table = go.Figure(), method_marks(summary), _indexed(summary)
    scale = compared_by(summary).scale
    for points in slices(summary, key):
        for method in ordered_methods(summary):
            rows = [(_setting(summary, point, key), table.get((point, method))) for point in points]
            known = [(float(x), row) for x, row in sorted(rows, key=lambda pair: float(pair[0])) if row is not None]
            known = [(x, row) for x, row in known if estimate(row, metric) is not None]
            if known:
                _add_line(figure, belongs(method, points), marks[method], known, metric, scale)
    return finish(figure, escape(key), up)


def _add_line(
    figure: go.Figure, meta: dict[str, Any], mark: Mark, known: Sequence[tuple[float, Row]], metric: str, scale: float
) -> None:
    band = [(x, interval(estimate(row, metric) or {})) for x, row in known]
    ends = [(x, found) for x, found in band if found is not None]
    if len(ends) > 1:
        figure.add_scatter(
            x=[x for x, _ in ends] + [x for x, _ in reversed(ends)],
            y=[scale * high for _, (_, high) in ends] + [scale * low for _, (low, _) in reversed(ends)],
            mode="lines",
            line={"width": 0},
            fill="toself",
            fillcolor=mark.faint(0.13),
            hoverinfo="skip",
            meta=meta,
        )
    figure.add_scatter(
        x=[x for x, _ in known],
        y=[scale * (mean(row, metric) or 0.0) for _, row in known],
        mode="lines+markers",
        line={"color": mark.colour, "width": 2, "dash": "dot" if is_arm(meta["method"]) else "solid"},
        marker=symbol(mark, 10),
        customdata=[hover_text(row) for _, row in known],
        hovertemplate="%{customdata}<extra></extra>",
        meta=meta,
    )


def differences_over(summary: Summary, key: str) -> go.Figure:
    """Draw methods down and a setting's values across: what was gained or lost against `reference_value`."""
    figure, reference = go.Figure(), value_name(reference_value(summary["sweep"][key]))
    table, quality = _indexed(summary), compared_by(summary)
    largest = 0.01 * quality.scale  # smaller gains are no deep colour
    for points in slices(summary, key):
        names = [value_name(_setting(summary, point, key)) for point in points]
        if reference not in names:
            continue
        for method in ordered_methods(summary):
            rows = [table.get((point, method)) for point in points]
            found = [None if row is None else mean(row, quality.metric) for row in rows]
            base = found[names.index(reference)]
            differences = [None if base is None or one is None else quality.difference(one, base) for one in found]
            largest = max([largest, *(abs(quality.gain(one)) for one in differences if one is not None)])
            add_strip(
                figure,
                method,
                points,
                across=[escape(name or '""', quote=False) for name in names],
                values=[None if one is None else quality.gain(one) for one in differences],
                texts=[
                    format_value(value, quality.kind)
                    if name == reference
                    else format_value(difference, quality.difference_kind)
                    for name, difference, value in zip(names, differences, found, strict=True)
                ],
                lines=[_told(name, row, reference) for name, row in zip(names, rows, strict=True)],
            )
    ends = {"cmin": -largest, "cmax": largest, "showscale": False}
    wide = _LABEL_WIDTH + _CELL_WIDTH * len(summary["sweep"][key])
    longest = max(len(value_name(value)) for value in summary["sweep"][key])
    meta = {"strips": True, "minWidth": wide, "labelHeight": round(_SLANTED_LETTER * longest)}
    figure.update_layout(coloraxis={"colorscale": _DIVERGING, **ends}, meta=meta)
    figure.update_xaxes(type="category", tickangle=-45)
    return finish(figure, "", "", row_height=26)  # the heading names the setting


def reference_value(values: Sequence[Any]) -> Any:
    """Return the value that the others are held against: the one that means "without", else the first."""
    return next((value for value in values if value in _WITHOUT), values[0])


def _told(name: str, row: Row | None, reference: str) -> str:
    if row is None:
        return f"{escape(name)}: -"
    quality = quality_of_row(row)
    what = "ratio of the means to that at" if quality.ratios else "difference of the means from"
    held = "" if name == reference else f"<br>shown: the {what} {escape(reference)}"
    return f"{escape(name)}: {quality.name} {format_estimate(estimate(row, quality.metric), quality.kind)}{held}"


def _setting(summary: Summary, point: int, key: str) -> Any:
    return summary["points"][point]["settings"].get(key)


def _indexed(summary: Summary) -> dict[tuple[int, str], Row]:
    return {(row["point"], row["method"]): row for row in summary["rows"]}
