"""The page's figures, as Plotly objects, each from the dictionary of report.json."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from simulations.report.quality import IMAGES, Quality, quality_of
from simulations.report.units import format_bytes, format_figure

DENSE, PERSONAL, GENERIC = "#8a8f98", "#2563eb", "#eef1f5"


def quality_against_size(report: Mapping[str, Any]) -> go.Figure:
    """Draw for each client the dense and the personal model, size (MB) across and what stands for quality up."""
    clients, quality = report["clients"], quality_of(report)
    dense_size = report["summary"]["bytes_dense"] / 1e6
    figure = go.Figure()
    across: list[float | None] = []
    up: list[float | None] = []
    for client in clients:
        across += [dense_size, client["bytes"] / 1e6, None]
        up += [quality.scale * client[quality.dense], quality.scale * client[quality.personal], None]
    figure.add_scatter(
        x=across, y=up, mode="lines", line={"color": "#c3cbd8", "width": 1}, hoverinfo="skip", showlegend=False
    )
    for name, colour, sizes, values in (
        (quality.dense_name, DENSE, [dense_size] * len(clients), [c[quality.dense] for c in clients]),
        ("personal", PERSONAL, [c["bytes"] / 1e6 for c in clients], [c[quality.personal] for c in clients]),
    ):
        figure.add_scatter(
            x=sizes,
            y=[quality.scale * value for value in values],
            mode="markers",
            name=name,
            marker={"color": colour, "size": 9, "line": {"color": "white", "width": 1}},
            text=[client_lines(client, quality) for client in clients],
            hovertemplate="%{text}<extra>" + name + "</extra>",
        )
    return finish(figure, "size of the model (MB)", quality.axis, legend=True)


def client_lines(client: Mapping[str, Any], quality: Quality = IMAGES) -> str:
    """Return what is told about one client when the pointer is on it."""
    who = f" ({html.escape(client['name'])})" if "name" in client else ""
    rows = [
        f"client {client['client']}{who}, {client['samples']} private samples",
        ", ".join(f"{head} {format_figure(client[key], kind)}" for head, key, kind in quality.columns),
        f"agreement {format_figure(client['agreement'], 'share')}",
        f"kept {format_figure(client['weights_kept'], 'share')} of the block weights, {format_bytes(client['bytes'])}",
        f"latency {format_figure(client['latency_ms'], 'milliseconds')}",
        f"{client['evaluations']} evaluations, R2 {format_r2(client['fit_r2'])}",
    ]
    return "<br>".join(rows)


def format_r2(r2: float | None) -> str:
    """Write a held-out R2; too few probes leave none."""
    return "-" if r2 is None else f"{r2:.2f}"


def personal_layers(report: Mapping[str, Any]) -> go.Figure:
    """Draw clients down and layers across; a dark cell is a personalized layer."""
    names = layer_names(report)
    clients = report["clients"]
    cells = personal_cells(report)
    figure = go.Figure(
        go.Heatmap(
            z=cells,
            x=names,
            y=[str(client["client"]) for client in clients],
            customdata=[["personalized" if cell else "generic" for cell in row] for row in cells],
            colorscale=[[0.0, GENERIC], [1.0, PERSONAL]],
            zmin=0,
            zmax=1,
            showscale=False,
            xgap=1,
            ygap=1 if len(clients) <= 60 else 0,
            hovertemplate="client %{y}, layer %{x}: %{customdata}<extra></extra>",
        )
    )
    figure.update_yaxes(type="category", autorange="reversed")
    figure.update_xaxes(type="category", tickangle=-60)
    return finish(figure, "layer", "client", height=max(320, min(900, 140 + 14 * len(clients))))


def layer_names(report: Mapping[str, Any]) -> list[str]:
    """Return the names of the model's layers in the order in which they run."""
    return list(report["model"]["layer_names"])


def all_rounds(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the records of all rounds and of the final pass, each with its `name`."""
    rounds = [{**record, "name": str(record["round"])} for record in report["rounds"]]
    return [*rounds, {**report["final"], "name": "final"}]


def personal_cells(report: Mapping[str, Any]) -> list[list[int]]:
    """Return [clients][layers]: 1 where a layer is personalized, 0 where it is generic."""
    names = layer_names(report)
    return [[int(name in set(client["personalized_layers"])) for name in names] for client in report["clients"]]


def bytes_by_round(report: Mapping[str, Any]) -> go.Figure:
    """Draw the bytes that a client sent and received in each round, mean over its clients, on a log scale."""
    figure, rounds = go.Figure(), all_rounds(report)
    for name, colour, key, clients in (
        ("down", DENSE, "downlink_bytes", "clients_sampled"),
        ("up", PERSONAL, "uplink_bytes", "clients_replied"),
    ):
        means = [r[key] / r[clients] if r[clients] else None for r in rounds]
        labels = [
            f"round {r['name']}: {'-' if mean is None else format_bytes(mean)} a client, {format_bytes(r[key])} in all"
            for r, mean in zip(rounds, means, strict=True)
        ]
        _add_rounds(figure, rounds, means, name, colour, labels)
    powers = [10**power for power in range(13)]
    figure.update_yaxes(type="log", tickvals=powers, ticktext=[format_bytes(count) for count in powers])
    return finish(figure, "round", "bytes per client (log scale)", legend=True, rounds=True)


def evaluations_by_round(report: Mapping[str, Any]) -> go.Figure:
    """Draw the masked forward passes that a client spent in each round, mean over its clients."""
    figure, rounds = go.Figure(), all_rounds(report)
    means = [r["evaluations_per_client"] for r in rounds]
    labels = [
        f"round {r['name']}: {r['evaluations_per_client']:.1f} evaluations a client, {r['clients_replied']} clients"
        for r in rounds
    ]
    _add_rounds(figure, rounds, means, "evaluations", PERSONAL, labels)
    figure.update_yaxes(rangemode="tozero")
    return finish(figure, "round", "evaluations per client", rounds=True)


def _add_rounds(
    figure: go.Figure,
    rounds: Sequence[Mapping[str, Any]],
    values: Sequence[float | None],
    name: str,
    colour: str,
    labels: Sequence[str],
) -> None:
    figure.add_scatter(
        x=[r["name"] for r in rounds],
        y=values,
        mode="lines+markers",
        name=name,
        line={"color": colour, "width": 2},
        marker={"size": 9},
        text=labels,
        hovertemplate="%{text}<extra></extra>",
    )


def finish(
    figure: go.Figure, across: str, up: str, *, legend: bool = False, rounds: bool = False, height: int = 360
) -> go.Figure:
    """Give a figure its axes and looks, and return it."""
    figure.update_layout(
        template="plotly_white",
        autosize=True,
        height=height,
        margin={"l": 8, "r": 8, "t": 28, "b": 8},
        font={"family": "system-ui, sans-serif", "size": 13},
        showlegend=legend,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hoverlabel={"align": "left"},
    )
    figure.update_xaxes(title=across, automargin=True, fixedrange=True)
    figure.update_yaxes(title=up, automargin=True, fixedrange=True)
    if rounds:
        figure.update_xaxes(type="category")
    return figure
