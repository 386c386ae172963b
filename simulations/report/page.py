"""report.html: one file that opens anywhere, without a network, made from the dictionary of report.json alone."""

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from personalization.system.files import write_atomically
from simulations.report import figures
from simulations.report.quality import TEXT, Quality, quality_of
from simulations.report.units import format_bytes, format_figure, summary_figures

# Nothing may be loaded from anywhere: a browser refuses what the page does not hold itself.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1f2937; margin: 0 auto; max-width: 62rem; padding: 1rem; }
h1 { font-size: 1.5rem; margin: .5rem 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .25rem; }
p { margin: .25rem 0 .75rem; max-width: 46rem; } .lead { font-size: 1.1rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #e5e7eb; vertical-align: top; }
td.figure { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
td.setting { overflow-wrap: anywhere; }
@media (max-width: 40rem) { body { padding: .6rem; font-size: 15px; } th, td { padding: .3rem; } }
"""
_SECTIONS = (
    (
        "Which layers are personal",
        "A blue cell is a layer that a client needs most: together they cover most of what that client's predictions "
        "would lose. The other layers are generic to it and are cut harder.",
        figures.personal_layers,
    ),
    (
        "Bytes by round",
        "Down: the layers that a client lacks and the fleet's plan. Up: sparsity statistics only; no weights, "
        "gradients or data. Sizes are those of the serialized messages.",
        figures.bytes_by_round,
    ),
    (
        "Evaluations by round",
        "How many masked forward passes over its private samples a client spent. The fleet's prior takes the place "
        "of measuring everything oneself; in the final pass every client gets its model.",
        figures.evaluations_by_round,
    ),
)


def write_report(report: Mapping[str, Any], out: Path) -> None:
    """Write the page for `report` (the dictionary of report.json) to the file `out`, whole or not at all."""
    write_atomically(out, page(report).encode())


def page(report: Mapping[str, Any]) -> str:
    """Return the whole page, Plotly's script included, as HTML."""
    title = f"fedsieve: {len(report['clients'])} clients, each with its own model"
    quality = quality_of(report)
    shown = ((quality.heading, quality.text, figures.quality_against_size), *_SECTIONS)
    sections = "".join(
        f"<section><h2>{heading}</h2><p>{text}</p>{figure_html(draw(report), number)}</section>"
        for number, (heading, text, draw) in enumerate(shown)
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style><script>{get_plotlyjs()}</script></head>"
        f'<body><h1>{html.escape(title)}</h1><p class="lead">{html.escape(headline(report))}</p>'
        f"<h2>Summary</h2>{table_html(('', ''), summary_figures(report['summary']))}"
        f"{sections}<section><h2>Clients</h2>{_clients(report['clients'], quality)}</section>"
        f"<section><h2>Settings and versions</h2>{_settings(report)}</section></body></html>\n"
    )


def headline(report: Mapping[str, Any]) -> str:
    """Return the run's result in two sentences."""
    summary = report["summary"]
    if quality_of(report) is TEXT:
        return (
            f"With {format_figure(summary['weights_kept_mean'], 'share')} of the block weights kept, the perplexity of "
            f"the clients' personal models on their own later text is "
            f"{format_figure(summary['perplexity_ratio_mean'], 'ratio')} times that of the dense model (geometric "
            f"mean; 1 has lost nothing). A client sent "
            f"{format_bytes(summary['uplink_bytes_per_client_round_mean'])} a round."
        )
    return (
        f"With {format_figure(summary['weights_kept_mean'], 'share')} of the block weights kept, the clients' personal "
        f"models are {format_figure(summary['personal_accuracy_mean'], 'share')} accurate on their own test images; "
        f"the dense model is {format_figure(summary['dense_accuracy_mean'], 'share')} accurate, and "
        f"{format_figure(summary['dense_fitted_accuracy_mean'], 'share')} with its head fitted as theirs is. "
        f"A client sent "
        f"{format_bytes(summary['uplink_bytes_per_client_round_mean'])} a round."
    )


def figure_html(figure: go.Figure, number: int) -> str:
    """Return a figure as HTML, without Plotly's script. number: of the figure on its page."""
    return str(
        figure.to_html(
            full_html=False,
            include_plotlyjs=False,
            div_id=f"figure-{number}",
            config={"responsive": True, "displayModeBar": False},
        )
    )


def table_html(header: Sequence[str], rows: Sequence[Sequence[str]], last: str = "figure") -> str:
    """Return a table as HTML. last: class of all columns but the first."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row[:1])
        + "".join(f'<td class="{last}">{html.escape(cell)}</td>' for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    top = f"<thead><tr>{head}</tr></thead>" if any(header) else ""
    return f'<div class="scroll"><table>{top}<tbody>{body}</tbody></table></div>'


def _clients(clients: Sequence[Mapping[str, Any]], quality: Quality) -> str:
    header = (
        "client",
        "samples",
        *(head for head, _, _ in quality.columns),
        "agreement",
        "kept",
        "size",
        "latency",
        "evaluations",
        "R2",
    )
    rows = [
        (
            str(client["client"]) + (f" {client['name']}" if "name" in client else ""),
            str(client["samples"]),
            *(format_figure(client[key], kind) for _, key, kind in quality.columns),
            format_figure(client["agreement"], "share"),
            format_figure(client["weights_kept"], "share"),
            format_bytes(client["bytes"]),
            format_figure(client["latency_ms"], "milliseconds"),
            str(client["evaluations"]),
            figures.format_r2(client["fit_r2"]),
        )
        for client in clients
    ]
    return table_html(header, rows)


def _settings(report: Mapping[str, Any]) -> str:
    facts = {"model id": report["model"]["id"], **report["settings"], **report.get("versions", {})}
    rows = [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in facts.items()]
    return table_html(("", ""), rows, last="setting")
