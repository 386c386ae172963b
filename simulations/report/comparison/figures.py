"""A comparison's figures for one point of the sweep at a time, as Plotly objects, from the dictionary of summary.json.

Each holds the traces of all points and methods; see simulations/report/comparison/traces.py.
"""

import math
from html import escape

import plotly.graph_objects as go

from simulations.report.comparison.marks import method_marks
from simulations.report.comparison.metrics import Estimate, Row, Summary, estimate, mean, point_rows
from simulations.report.comparison.quality import compared_by
from simulations.report.comparison.traces import (
    EN_SPACE,
    add_dot,
    add_pair,
    add_strip,
    axis_label,
    belongs,
    finish,
    symbol,
)
from simulations.report.units import format_bytes

NEUTRAL, DENSE = "#eef1f5", "#6b7280"


def quality_by_method(summary: Summary) -> go.Figure:
    """Draw each method's mean quality, its worst decile and the dense model of the same clients, in one line."""
    figure, marks, quality = go.Figure(), method_marks(summary), compared_by(summary)
    for point, row in _rows(summary):
        mark = marks[row["method"]]
        tick = {"symbol": "line-ns", "size": 13, "line": {"color": mark.colour, "width": 2}}
        cross = {"symbol": "x-thin", "size": 8, "line": {"color": DENSE, "width": 1.5}}
        add_dot(figure, point, row, "worst_decile", quality.scale, tick, mark.faint(0.45))
        add_dot(figure, point, row, "dense_fitted_accuracy", quality.scale, cross, None)
        add_dot(figure, point, row, quality.metric, quality.scale, symbol(mark, 11), mark.colour)
    return finish(figure, quality.axis, "", row_height=28)


def difference_by_method(summary: Summary) -> go.Figure:
    """Draw each method's paired difference from the first one."""
    figure, marks, quality = go.Figure(), method_marks(summary), compared_by(summary)
    for point, row in _rows(summary):
        mark = marks[row["method"]]
        add_dot(figure, point, row, "difference", quality.scale, symbol(mark, 11), mark.colour)
    if quality.ratios:
        figure.add_vline(x=quality.same, line={"color": DENSE, "width": 1.5})
    else:
        figure.update_xaxes(zeroline=True, zerolinecolor=DENSE, zerolinewidth=1.5)
    axis = "perplexity, times the first's" if quality.ratios else "points of accuracy"
    return finish(figure, axis, "", row_height=26)


def quality_against_size(summary: Summary) -> go.Figure:
    """Draw quality against the stored size (MB) of a personal model; the page's script adds the Pareto front."""
    figure, marks, quality = go.Figure(), method_marks(summary), compared_by(summary)
    for point, row in _rows(summary):
        size, accuracy = estimate(row, "bytes"), estimate(row, quality.metric)
        if size is not None and accuracy is not None:
            add_pair(figure, point, row, marks[row["method"]], (size, 1e-6), accuracy, quality.scale)
    figure.update_layout(meta={"front": quality.better})
    return finish(figure, "size of a personal model (MB)", quality.axis)


def quality_against_uplink(summary: Summary) -> go.Figure:
    """Draw quality against the bytes that a client sends up in a whole run, log scale; "none" stands at its left.

    A log axis has no zero: methods that send nothing stand one power of ten below the least that is sent.
    """
    figure, marks, quality = go.Figure(), method_marks(summary), compared_by(summary)
    sent = [mean(row, "uplink_bytes_total") for _, row in _rows(summary)]
    least = min((count for count in sent if count), default=1000.0)
    none = 10.0 ** (math.floor(math.log10(least)) - 1)
    for point, row in _rows(summary):
        up, accuracy = estimate(row, "uplink_bytes_total"), estimate(row, quality.metric)
        if up is not None and accuracy is not None:
            known: Estimate = up if up["mean"] else {"mean": none, "low": None, "high": None}
            add_pair(figure, point, row, marks[row["method"]], (known, 1.0), accuracy, quality.scale)
    powers = [10.0**power for power in range(13) if 10.0**power > none]
    figure.update_xaxes(
        type="log", tickvals=[none, *powers], ticktext=["none", *(format_bytes(count) for count in powers)]
    )
    return finish(figure, "bytes up per client (log scale)", quality.axis)


def evaluations_by_method(summary: Summary) -> go.Figure:
    """Draw the masked forward passes that a client of each method spends."""
    figure, marks = go.Figure(), method_marks(summary)
    for point, row in _rows(summary):
        mark = marks[row["method"]]
        add_dot(figure, point, row, "evaluations", 1, symbol(mark, 11), mark.colour)
    figure.update_xaxes(rangemode="tozero")
    return finish(figure, "evaluations per client", "", row_height=26)


def rounds_to_target(summary: Summary) -> go.Figure:
    """Draw after how many rounds each method comes within the target loss of the dense model, and how often it does."""
    figure, marks = go.Figure(), method_marks(summary)
    for point, row in _rows(summary):
        mark, reached = marks[row["method"]], row.get("reached")
        if estimate(row, "rounds_to_target") is not None:
            add_dot(figure, point, row, "rounds_to_target", 1, symbol(mark, 11), mark.colour, note=_reached(reached))
        else:
            figure.add_scatter(
                x=[0],
                y=[axis_label(row["method"])],
                mode="text",
                text=[EN_SPACE + ("never" if reached == 0 else "not measured")],
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
        add_dot(figure, point, row, "cpu_seconds", 1, open_square, mark.faint(0.45))
        add_dot(figure, point, row, "wall_seconds", 1, symbol(mark, 11), mark.colour)
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
