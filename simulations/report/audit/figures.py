"""The figures of an audit's page, from the dictionary of audit.json."""

import textwrap
from collections.abc import Mapping
from html import escape
from typing import Any

import plotly.graph_objects as go

from simulations.audit.tally import GROUPS
from simulations.report.figures import finish

_COLOURS = dict(zip(GROUPS, ("#2563eb", "#7c3aed", "#f59e0b", "#8a8f98", "#d1d5db"), strict=True))
# Pixels. Two lines of a label fit beside a bar, and a label leaves room for the bars on a telephone.
_BAR_HEIGHT, _MARGIN = 36, 180
_LABEL_LETTERS = 18


def bytes_by_kind(audit: Mapping[str, Any]) -> go.Figure:
    """Draw a bar for each kind of message: the mean bytes of one, by what they are for."""
    figure = go.Figure()
    kinds = [_label(row["kind"]) for row in audit["kinds"]]
    for group in GROUPS:
        sizes = [row["groups"].get(group, 0) / row["messages"] for row in audit["kinds"]]
        if any(sizes):
            figure.add_bar(
                y=kinds,
                x=sizes,
                name=group,
                orientation="h",
                marker={"color": _COLOURS[group]},
                hovertemplate="%{y}: %{x:,.0f} bytes<extra>" + group + "</extra>",
            )
    figure.update_layout(barmode="stack")
    figure.update_yaxes(autorange="reversed")
    return _finish(figure, "mean bytes of a message", height=_MARGIN + _BAR_HEIGHT * len(kinds))


def attack_scores(inference: Mapping[str, Any]) -> go.Figure:
    """Draw the AUC of each attack on each view, with its interval; the line at 0.5 is guessing."""
    figure = go.Figure()
    results = [result for result in inference["results"] if result.get("auc") is not None]
    for attack in dict.fromkeys(result["attack"] for result in results):
        own = [result for result in results if result["attack"] == attack]
        figure.add_scatter(
            x=[result["auc"] for result in own],
            y=[_label(result["view"]) for result in own],
            name=attack,
            mode="markers",
            marker={"size": 10},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [result["high"] - result["auc"] for result in own],
                "arrayminus": [result["auc"] - result["low"] for result in own],
            },
        )
    figure.add_vline(x=0.5, line={"color": "#8a8f98", "dash": "dot"})
    views = {result["view"] for result in results}
    figure.update_xaxes(range=[0.4, 1.02])
    return _finish(figure, "AUC of the attack", height=_MARGIN + 2 * _BAR_HEIGHT * len(views))


def _label(name: str) -> str:
    """Return a name as it stands beside an axis: in lines, and with nothing in it that Plotly takes for markup."""
    return "<br>".join(escape(line, quote=False) for line in textwrap.wrap(name, _LABEL_LETTERS))


def _finish(figure: go.Figure, across: str, *, height: int) -> go.Figure:
    finish(figure, across, "", legend=True, height=height)
    # A title is centred below the bars, of which labels leave a telephone half its width.
    return figure.update_xaxes(title_font_size=13)
