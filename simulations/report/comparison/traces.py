"""What a comparison's figures are put together from: marks with their intervals, lines of a heat map, the page's look.

Each trace's `meta` says whose it is ("method") and at which "points" of the sweep it is shown, and each layout's
`meta` what the page's script has to do for it: the script draws the traces that are asked for.
"""

from collections.abc import Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from simulations.report.comparison.marks import Mark
from simulations.report.comparison.metrics import (
    Estimate,
    Row,
    estimate,
    hover_lines,
    interval,
    is_arm,
    method_label,
    quality_of_row,
)

_LABEL_LENGTH = 24
# Keeps a text off the axis and the mark beside which it stands.
EN_SPACE = "\u2002"


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


def add_dot(
    figure: go.Figure,
    point: int,
    row: Row,
    name: str,
    factor: float,
    marker: dict[str, Any],
    bar: str | None,
    note: str = "",
) -> None:
    """Add a metric's mean, times `factor`, to its method's line, with its interval if `bar` is a colour.

    note: what stands beside the mark.
    """
    found = estimate(row, name)
    if found is None:
        return
    more = hover_lines(row, (quality_of_row(row).dense, name))
    figure.add_scatter(
        x=[factor * (found["mean"] or 0.0)],
        y=[axis_label(row["method"])],
        error_x=None if bar is None else error_bar(found, factor, bar),
        mode="markers+text" if note else "markers",
        text=[note + 2 * EN_SPACE],
        textposition="middle left",
        textfont={"size": 11},
        marker=marker,
        customdata=["<br>".join([hover_text(row), *(line for line in more if line not in hover_text(row))])],
        hovertemplate="%{customdata}<extra></extra>",
        meta=belongs(row["method"], [point]),
    )


def add_pair(
    figure: go.Figure, point: int, row: Row, mark: Mark, across: tuple[Estimate, float], up: Estimate, scale: float
) -> None:
    """Add a method's mark at `up`, times `scale`, over `across` (an estimate and its own factor), with intervals."""
    found, factor = across
    figure.add_scatter(
        x=[factor * (found["mean"] or 0.0)],
        y=[scale * (up["mean"] or 0.0)],
        error_x=error_bar(found, factor, mark.faint(0.5), 1),
        error_y=error_bar(up, scale, mark.faint(0.5), 1.5),
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
