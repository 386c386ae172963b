"""A comparison's figures for one point of the sweep at a time, as Plotly objects, from the dictionary of summary.json.

Each trace's `meta` says whose it is ("method", or none) and at which "points" of the sweep it is shown, and each
layout's `meta` what the page's script has to do for it: the script draws the traces that are asked for.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from simulations.report.comparison_marks import Mark, method_marks
from simulations.report.comparison_metrics import (
    Estimate,
    Row,
    Summary,
    estimate,
    hover_lines,
    interval,
    is_arm,
    mean,
    method_label,
    point_rows,
)
from simulations.report.units import format_bytes

NEUTRAL, DENSE = "#eef1f5", "#6b7280"
_LABEL_LENGTH = 24
# Keeps a text off the axis and the mark beside which it stands.
_EN_SPACE = "\u2002"


def accuracy_by_method(summary: Summary) -> go.Figure:
    """Draw each method's mean accuracy (%), its worst decile and the dense model of the same clients, in one line."""
    figure, marks = go.Figure(), method_marks(summary)
    for point, row in _rows(summary):
        mark = marks[row["method"]]
        tick = {"symbol": "line-ns", "size": 13, "line": {"color": mark.colour, "width": 2}}
        cross = {"symbol": "x-thin", "size": 8, "line": {"color": DENSE, "width": 1.5}}
        _add_dot(figure, point, row, "worst_decile", 100, tick, mark.faint(0.45))
        _add_dot(figure, point, row, "dense_fitted_accuracy", 100, cross, None)
        _add_dot(figure, point, row, "personal_accuracy", 100, symbol(mark, 11), mark.colour)
    return finish(figure, "accuracy (%)", "", row_height=28)


def difference_by_method(summary: Summary) -> go.Figure:
    """Draw each method's paired difference from the first one, in percentage points of accuracy."""
    figure, marks = go.Figure(), method_marks(summary)
    for point, row in _rows(summary):
        mark = marks[row["method"]]
        _add_dot(figure, point, row, "difference", 100, symbol(mark, 11), mark.colour)
    figure.update_xaxes(zeroline=True, zerolinecolor=DENSE, zerolinewidth=1.5)
    return finish(figure, "points of accuracy", "", row_height=26)


def accuracy_against_size(summary: Summary) -> go.Figure:
    """Draw accuracy (%) against the stored size (MB) of a personal model; the page's script adds the Pareto front."""
    figure, marks = go.Figure(), method_marks(summary)
    for point, row in _rows(summary):
        size, accuracy = estimate(row, "bytes"), estimate(row, "personal_accuracy")
        if size is not None and accuracy is not None:
            _add_pair(figure, point, row, marks[row["method"]], (size, 1e-6), accuracy)
    figure.update_layout(meta={"front": True})
    return finish(figure, "size of a personal model (MB)", "accuracy (%)")


def accuracy_against_uplink(summary: Summary) -> go.Figure:
    """Draw accuracy (%) against the bytes that a client sends up in a whole run, log scale; "none" stands at its left.

    A log axis has no zero: methods that send nothing stand one power of ten below the least that is sent.
    """
    figure, marks = go.Figure(), method_marks(summary)
    sent = [mean(row, "uplink_bytes_total") for _, row in _rows(summary)]
    least = min((count for count in sent if count), default=1000.0)
    none = 10.0 ** (math.floor(math.log10(least)) - 1)
    for point, row in _rows(summary):
        up, accuracy = estimate(row, "uplink_bytes_total"), estimate(row, "personal_accuracy")
        if up is not None and accuracy is not None:
            known: Estimate = up if up["mean"] else {"mean": none, "low": None, "high": None}
            _add_pair(figure, point, row, marks[row["method"]], (known, 1.0), accuracy)
    powers = [10.0**power for power in range(13) if 10.0**power > none]
    figure.update_xaxes(
        type="log", tickvals=[none, *powers], ticktext=["none", *(format_bytes(count) for count in powers)]
    )
    return finish(figure, "bytes up per client (log scale)", "accuracy (%)")


def evaluations_by_method(summary: Summary) -> go.Figure:
    """Draw the masked forward passes that a client of each method spends."""
    figure, marks = go.Figure(), method_marks(summary)
    for point, row in _rows(summary):
        mark = marks[row["method"]]
        _add_dot(figure, point, row, "evaluations", 1, symbol(mark, 11), mark.colour)
    figure.update_xaxes(rangemode="tozero")
    return finish(figure, "evaluations per client", "", row_height=26)


def rounds_to_target(summary: Summary) -> go.Figure:
    """Draw after how many rounds each method comes within the target loss of the dense model, and how often it does."""
    figure, marks = go.Figure(), method_marks(summary)
    for point, row in _rows(summary):
        mark, reached = marks[row["method"]], row.get("reached")
        if estimate(row, "rounds_to_target") is not None:
            _add_dot(figure, point, row, "rounds_to_target", 1, symbol(mark, 11), mark.colour, note=_reached(reached))
        else:
            figure.add_scatter(
                x=[0],
                y=[axis_label(row["method"])],
                mode="text",
                text=[_EN_SPACE + ("never" if reached == 0 else "not measured")],
                textposition="middle right",
                hoverinfo="skip",
                meta=belongs(row["method"], [point]),
            )
    figure.update_xaxes(rangemode="tozero")
    return finish(figure, "rounds", "", row_height=26)


def time_by_method(summary: Summary) -> go.Figure:
    """Draw the wall clock (filled) and the processor time (open) of one run of each method, in seconds."""
    figure, marks = go.Figure(), method_marks(summary)
    for point, row in _rows(summary):
        mark = marks[row["method"]]
        open_square = {"symbol": "square-open", "size": 9, "color": mark.colour, "line": {"width": 2}}
        _add_dot(figure, point, row, "cpu_seconds", 1, open_square, mark.faint(0.45))
        _add_dot(figure, point, row, "wall_seconds", 1, symbol(mark, 11), mark.colour)
    figure.update_xaxes(rangemode="tozero")
    return finish(figure, "seconds", "", row_height=26)


def personal_layers(summary: Summary) -> go.Figure:
    """Draw methods down and layers across: the share of clients to which a layer is personal."""
    figure, layers = go.Figure(), list((summary.get("model") or {}).get("layer_names") or [])
    for point, row in _rows(summary):
        shares = row.get("personal_share")
        if shares and len(shares) == len(layers):
            add_strip(
                figure,
                row["method"],
                [point],
                across=layers,
                values=shares,
                lines=[
                    f"layer {escape(layer)}: personal to {100 * share:.0f} % of the clients"
                    for layer, share in zip(layers, shares, strict=True)
                ],
            )
    figure.update_layout(
        coloraxis={"colorscale": [[0, NEUTRAL], [1, "#0072b2"]], "cmin": 0, "cmax": 1, "showscale": False},
        meta={"strips": True},
    )
    figure.update_xaxes(type="category", tickangle=-60)
    return finish(figure, "layer", "", row_height=24)


def _rows(summary: Summary) -> list[tuple[int, Row]]:
    return [(point, row) for point in range(len(summary["points"])) for row in point_rows(summary, point)]


def _reached(share: float | None) -> str:
    return "" if share is None or share >= 1 else f"{100 * share:.0f} %"


def belongs(method: str | None, points: Sequence[int]) -> dict[str, Any]:
    """Return a trace's `meta`: whose it is, and at which points of the sweep it is shown."""
    return {"method": method, "points": list(points)}


def symbol(mark: Mark, size: float) -> dict[str, Any]:
    """Return a method's mark as Plotly draws it, `size` in pixels."""
    line = {"width": 2} if mark.symbol.endswith("-open") else {"color": "white", "width": 1}
    return {"symbol": mark.symbol, "color": mark.colour, "size": size, "line": line}


def axis_label(method: str) -> str:
    """Return a method's name for an axis, broken where its parts join so that it leaves a telephone room to draw."""
    lines = [""]
    for number, part in enumerate(method_label(method).split("+")):
        joined = ("+" if number else "") + part
        if lines[-1] and len(lines[-1] + joined) > _LABEL_LENGTH:
            lines.append("")
        lines[-1] += joined
    return "<br>".join(escape(line, quote=False) for line in lines)


def hover_text(row: Row) -> str:
    """Return what the pointer shows on a method: its name and its metrics with their intervals."""
    kind = " (reference arm)" if is_arm(row["method"]) else ""
    return "<br>".join([f"<b>{escape(method_label(row['method']))}</b>{kind}", *hover_lines(row)])


def error_bar(found: Estimate, factor: float, colour: str, width: float = 2) -> dict[str, Any]:
    """Return an estimate's interval as Plotly's error bar; one without an interval has none."""
    ends, centre = interval(found), found["mean"]
    if ends is None or centre is None:
        return {"visible": False}
    return {
        "type": "data",
        "symmetric": False,
        "array": [factor * (ends[1] - centre)],
        "arrayminus": [factor * (centre - ends[0])],
        "color": colour,
        "thickness": width,
        "width": 4,
    }


def _add_dot(
    figure: go.Figure,
    point: int,
    row: Row,
    name: str,
    factor: float,
    marker: dict[str, Any],
    bar: str | None,
    note: str = "",
) -> None:
    found = estimate(row, name)
    if found is None:
        return
    more = hover_lines(row, ("dense_fitted_accuracy", name))
    figure.add_scatter(
        x=[factor * (found["mean"] or 0.0)],
        y=[axis_label(row["method"])],
        error_x=None if bar is None else error_bar(found, factor, bar),
        mode="markers+text" if note else "markers",
        text=[note + 2 * _EN_SPACE],
        textposition="middle left",
        textfont={"size": 11},
        marker=marker,
        customdata=["<br>".join([hover_text(row), *(line for line in more if line not in hover_text(row))])],
        hovertemplate="%{customdata}<extra></extra>",
        meta=belongs(row["method"], [point]),
    )


def _add_pair(
    figure: go.Figure, point: int, row: Row, mark: Mark, across: tuple[Estimate, float], accuracy: Estimate
) -> None:
    found, factor = across
    figure.add_scatter(
        x=[factor * (found["mean"] or 0.0)],
        y=[100 * (accuracy["mean"] or 0.0)],
        error_x=error_bar(found, factor, mark.faint(0.5), 1),
        error_y=error_bar(accuracy, 100, mark.faint(0.5), 1.5),
        mode="markers",
        marker=symbol(mark, 12),
        text=[method_label(row["method"])],
        customdata=[hover_text(row)],
        hovertemplate="%{customdata}<extra></extra>",
        meta=belongs(row["method"], [point]),
    )


def add_strip(
    figure: go.Figure,
    method: str,
    points: Sequence[int],
    *,
    across: Sequence[str],
    values: Sequence[float | None],
    lines: Sequence[str],
    texts: Sequence[str] | None = None,
) -> None:
    """Add one method's line of a heat map as a trace of its own; the page's script joins those that are shown."""
    label = axis_label(method)
    figure.add_heatmap(
        z=[list(values)],
        x=list(across),
        y=[label],
        text=None if texts is None else [list(texts)],
        texttemplate=None if texts is None else "%{text}",
        customdata=[[f"<b>{escape(method_label(method))}</b><br>{line}" for line in lines]],
        hovertemplate="%{customdata}<extra></extra>",
        coloraxis="coloraxis",
        xgap=1,
        ygap=2,
        meta=belongs(method, points),
    )


def finish(figure: go.Figure, across: str, up: str, *, row_height: int | None = None) -> go.Figure:
    """Give a figure the page's look; with `row_height` (pixels) methods stand below each other, each in a line."""
    meta = {**(figure.layout.meta or {}), **({} if row_height is None else {"rowHeight": row_height})}
    figure.update_layout(
        template="plotly_white",
        autosize=True,
        height=380,
        margin={"l": 8, "r": 12, "t": 12, "b": 8},
        font={"family": "system-ui, sans-serif", "size": 13},
        showlegend=False,
        hoverlabel={"align": "left", "bgcolor": "white", "font": {"color": "#1f2937"}},
        hovermode="closest",
        meta=meta,
    )
    figure.update_xaxes(title=across, automargin=True, fixedrange=True)
    figure.update_yaxes(title=up or None, automargin=True, fixedrange=True)
    if row_height is not None:
        figure.update_yaxes(type="category", tickfont={"size": 12})
    return figure
