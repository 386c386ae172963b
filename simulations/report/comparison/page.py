"""A comparison's report.html: one file that opens anywhere, without a network, from the dictionary of summary.json."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from personalization.system.files import write_atomically
from simulations.report.comparison import figures
from simulations.report.comparison import page_tables as tables
from simulations.report.comparison.footnotes import footnotes
from simulations.report.comparison.headline import headline, worst_case
from simulations.report.comparison.metrics import Summary, is_arm, method_label, zeros_rows
from simulations.report.comparison.quality import ComparedQuality, compared_by
from simulations.report.comparison.script import SCRIPT, STYLE
from simulations.report.comparison.sweeps import (
    differences_over,
    is_numeric,
    lines_over,
    reference_value,
    swept,
    value_name,
)
from simulations.report.comparison.words import difference_text, quality_text, swept_text, target_text
from simulations.report.page import POLICY


@dataclass(frozen=True)
class _Section:
    heading: str
    text: str
    draw: Callable[[Summary], go.Figure]
    legend: bool = False
    wide: bool = False


def _quality_sections(summary: Summary, quality: ComparedQuality) -> tuple[_Section, ...]:
    first = escape(method_label(summary["methods"][0]))
    return (
        _Section(quality.name.capitalize(), quality_text(quality), figures.quality_by_method),
        _Section("Difference from the first", difference_text(quality, first), figures.difference_by_method),
    )


def _cost_sections(summary: Summary, quality: ComparedQuality) -> tuple[_Section, ...]:
    name, up = quality.name.capitalize(), "up" if quality.better > 0 else "down"
    zeros = dict.fromkeys(method_label(row["method"]) for row in zeros_rows(summary["rows"]))
    sparse = f" Of {' and '.join(zeros)} it is the size of sparse storage, at the dense model's speed." if zeros else ""
    return (
        _Section(
            f"{name} against size",
            f"Further left is smaller, further {up} better. "
            f"On the dashed line nothing else is both smaller and better.{sparse}",
            figures.quality_against_size,
            legend=True,
        ),
        _Section(
            f"{name} against bytes up",
            "What a client sends in the whole run. Strategies send sparsity statistics; methods at the left send "
            "nothing.",
            figures.quality_against_uplink,
            legend=True,
        ),
        _Section(
            "Evaluations",
            "Masked forward passes that a client spends on its private samples, whole run.",
            figures.evaluations_by_method,
        ),
        _Section(
            "Rounds to target",
            target_text(quality, summary["scenario"].get("target_loss") or 0.01),
            figures.rounds_to_target,
        ),
        _Section(
            "Time",
            "Filled: wall clock of one run. Open square: processor time. Runs share the machine: times are for "
            "orientation, not for ranking.",
            figures.time_by_method,
        ),
        _Section(
            "Which layers are personal",
            "The darker, the more clients call the layer personal: together these layers cover most of what a client's "
            "predictions would lose.",
            figures.personal_layers,
        ),
    )


_LATE = "Clients that appear after the fleet has begun: what they reach, and what the fleet's prior spares them."
_FAILURES = "Replies that the server did not reduce, over all runs of a method. An invalid one is refused whole."
_OWN = "What the methods do not share, at the setting chosen above."


def write_comparison(summary: Summary, out: Path) -> None:
    """Write the page for `summary` (the dictionary of summary.json) to the file `out`, whole or not at all."""
    write_atomically(out, comparison_page(summary).encode(), mode=0o644)


def comparison_page(summary: Summary) -> str:
    """Return the whole page, Plotly's script included, as HTML."""
    title = f"fedsieve: {_counted(summary)} on {summary['scenario'].get('name') or 'one scenario'}"
    drawn: list[go.Figure] = []
    quality = compared_by(summary)
    groups = [
        _sections(summary, group, drawn)
        for group in (
            _quality_sections(summary, quality),
            _over_the_sweep(summary, quality),
            _cost_sections(summary, quality),
        )
    ]
    accuracy, sweep, costs = (f'<div class="pairs">{group}</div>' if group else "" for group in groups)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{escape(title)}</title><style>{STYLE}</style><script>{get_plotlyjs()}</script></head>"
        f"<body><h1>{escape(title)}</h1>{_introduction(summary)}{tables.controls(summary)}"
        f"{_headlines(summary)}{_failed_cells(summary)}{accuracy}{sweep}"
        f'<section class="rows"><h2>All metrics</h2><p>Mean, and below it its 95 % interval.</p>'
        f"{tables.metrics_table(summary)}{_notes(summary)}</section>"
        f"{_rows('Late joiners', _LATE, tables.late_table(summary))}{costs}"
        f"{_rows('Failed and refused replies', _FAILURES, tables.failures_table(summary))}"
        f"<section><h2>Settings and versions</h2><pre>{escape(str(summary.get('command') or ''))}</pre>"
        f"{tables.settings_table(summary)}</section>"
        f"{_rows('Settings of each method', _OWN, tables.own_settings_table(summary))}"
        f'<script type="application/json" id="figures">{_payload(drawn)}</script><script>{SCRIPT}</script>'
        "</body></html>\n"
    )


def _counted(summary: Summary) -> str:
    arms = sum(is_arm(method) for method in summary["methods"])
    strategies = len(summary["methods"]) - arms
    parts = [f"{n} {name}{'' if n == 1 else 's'}" for n, name in ((strategies, "strategy"), (arms, "reference arm"))]
    return " and ".join(part.replace("strategys", "strategies") for part in parts if not part.startswith("0 "))


def _introduction(summary: Summary) -> str:
    description, seeds = summary["scenario"].get("description") or "", summary["seeds"]
    count = f"{len(seeds)} seed{'' if len(seeds) == 1 else 's'}"
    return (
        f"<p>{escape(description)} {count}; all methods meet the same clients, data and seeds. Intervals: 95 %, "
        "bootstrap over seeds and over the clients of each; they are not widened for how many methods are compared."
        "</p><noscript><p>The figures need JavaScript, all of which this file holds.</p></noscript>"
    )


def _headlines(summary: Summary) -> str:
    labels = [f"{point['label']}: " if len(summary["points"]) > 1 else "" for point in summary["points"]]
    each = "".join(
        f'<p class="lead" data-point="{point}">{escape(label + headline(summary, point))}</p>'
        for point, label in enumerate(labels)
    )
    everywhere = worst_case(summary)
    return each + (f"<p>{escape(everywhere)}</p>" if everywhere else "")


def _notes(summary: Summary) -> str:
    told = f"The difference is held against {escape(method_label(summary['methods'][0]))}."
    if any(is_arm(method) for method in summary["methods"]):
        told += " Open symbols are reference arms: what the same clients reach in other ways."
    told += "".join(f" {escape(note.sentence(), quote=False)}" for note in footnotes(summary["methods"]))
    return f'<p class="note">{told}</p>'


def _failed_cells(summary: Summary) -> str:
    table = tables.failed_cells_table(summary)
    return _rows("Failed runs", "These are missing from every number on this page.", table)


def _rows(heading: str, text: str, table: str) -> str:
    return f'<section class="rows"><h2>{heading}</h2><p>{text}</p>{table}</section>' if table else ""


def _over_the_sweep(summary: Summary, quality: ComparedQuality) -> list[_Section]:
    sections = []
    for key in swept(summary):
        values, name = summary["sweep"][key], escape(key)
        if is_numeric(values):
            text = "A line is a mean over the clients, its band the 95 % interval."
            for metric, of in ((quality.metric, ""), ("worst_decile", ", worst tenth")):
                heading = f"{quality.name.capitalize()}{of} over {name}"
                sections.append(_Section(heading, text, _line_drawer(key, metric, _axis_of(quality, of)), legend=True))
        else:
            without = escape(value_name(reference_value(values)) or '""')
            heading, text = f"{quality.name.capitalize()} by {name}", swept_text(quality, without)
            sections.append(_Section(heading, text, _difference_drawer(key), wide=True))
    return sections


def _axis_of(quality: ComparedQuality, of: str) -> str:
    return quality.axis.removesuffix(" (%)") + of + (" (%)" if quality.axis.endswith(" (%)") else "")


def _line_drawer(key: str, metric: str, up: str) -> Callable[[Summary], go.Figure]:
    return lambda summary: lines_over(summary, key, metric, up)


def _difference_drawer(key: str) -> Callable[[Summary], go.Figure]:
    return lambda summary: differences_over(summary, key)


def _sections(summary: Summary, sections: Sequence[_Section], drawn: list[go.Figure]) -> str:
    parts = []
    for section in sections:
        figure = section.draw(summary)
        if not figure.data:
            continue
        legend = tables.legend(summary) if section.legend else ""
        parts.append(
            f"<section{' class=wide' if section.wide else ''}><h2>{section.heading}</h2><p>{section.text}</p>{legend}"
            f'<div class="scroll"><div id="figure-{len(drawn)}"></div></div><p class="note"></p></section>'
        )
        drawn.append(figure)
    return "".join(parts)


def _payload(drawn: list[go.Figure]) -> str:
    """The figures as JSON that cannot end the script element in which it stands."""
    return f"[{','.join(str(figure.to_json()) for figure in drawn)}]".replace("<", "\\u003c")
