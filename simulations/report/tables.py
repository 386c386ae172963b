"""What a run prints at its end, as Rich tables from the dictionary of report.json."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from simulations.report.figures import format_r2
from simulations.report.quality import IMAGES, Quality, quality_of
from simulations.report.units import format_bytes, format_figure, summary_figures

SHOWN_CLIENTS = 3


def summary_table(report: Mapping[str, Any]) -> Table:
    """Return the run's summary, one figure a row."""
    table = Table(
        title=f"{len(report['clients'])} clients, {len(report['rounds'])} rounds", title_justify="left", box=SIMPLE_HEAD
    )
    table.add_column("mean over all clients")
    table.add_column("", justify="right", no_wrap=True)
    for label, figure in summary_figures(report["summary"]):
        table.add_row(label, figure)
    return table


def extreme_clients(
    clients: Sequence[Mapping[str, Any]], shown: int, quality: Quality = IMAGES
) -> list[Mapping[str, Any]]:
    """Return the `shown` clients that lost most, then the `shown` that gained most; each client once."""
    ordered = sorted(clients, key=lambda c: (quality.change(c), c["client"]))
    return ordered if len(ordered) <= 2 * shown else ordered[:shown] + ordered[-shown:]


def clients_table(report: Mapping[str, Any]) -> Table:
    """Return the clients that fared worst and best."""
    quality = quality_of(report)
    clients = extreme_clients(report["clients"], SHOWN_CLIENTS, quality)
    all_shown = len(clients) == len(report["clients"])
    table = Table(
        title="clients" if all_shown else "clients that lost most and gained most",
        title_justify="left",
        box=SIMPLE_HEAD,
    )
    for name in ("client", *(head for head, _, _ in quality.columns), "kept", "size", "probes", "R2"):
        table.add_column(name, justify="right", no_wrap=True)
    for number, client in enumerate(clients):
        table.add_row(
            str(client["client"]),
            *(format_figure(client[key], kind) for _, key, kind in quality.columns),
            format_figure(client["weights_kept"], "share"),
            format_bytes(client["bytes"]),
            str(client["evaluations"]),
            format_r2(client["fit_r2"]),
            end_section=not all_shown and number == SHOWN_CLIENTS - 1,
        )
    return table
