"""The table that is printed."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from simulations.report.units import format_bytes, format_figure

# Columns by their title: key of a device's row, and how it is written.
_KEPT = {"kept": ("weights_kept", "share"), "size": ("bytes", "bytes")}
_IMAGES = {
    **{name: (f"{name}_accuracy", "share") for name in ("dense", "personal", "exported")},
    **_KEPT,
    "int8": ("exported_bytes", "bytes"),
}
_TEXT = {
    "dense": ("dense_perplexity", "perplexity"),
    "personal": ("personal_perplexity", "perplexity"),
    "ratio": ("perplexity_ratio", "ratio"),
    **_KEPT,
    "memory": ("peak_memory_bytes", "bytes"),
}


def device_table(report: dict[str, Any]) -> Table:
    """Return a row for each device; `report` is what `run_edge` returns."""
    table = Table(title="devices", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("device", no_wrap=True)
    columns = _TEXT if "dense_perplexity" in report["devices"][0] else _IMAGES
    for name in (*columns, "rounds", "back in"):
        table.add_column(name, justify="right", no_wrap=True)
    rounds = report["totals"]["rounds"]
    for row in report["devices"]:
        back = row["back_seconds"]
        table.add_row(
            row["device"],
            *(format_figure(row[key], unit) for key, unit in columns.values()),
            f"{row['rounds']}/{rounds}",
            "-" if back is None else f"{back:.0f} s",
        )
    return table


def summary_lines(report: dict[str, Any]) -> list[str]:
    """Return what holds for the whole fleet, one line each."""
    totals, server = report["totals"], report["server"]
    lines = [
        f"{totals['rounds']} rounds and a final pass, {totals['wall_seconds']:.0f} s in all; "
        f"{format_bytes(totals['downlink_bytes'])} down, {format_bytes(totals['uplink_bytes'])} up; "
        f"the dense model has {format_bytes(report['dense_bytes'])}"
    ]
    if server["ready_seconds"] is not None:
        lines.append(
            f"server killed: ready again after {server['ready_seconds']:.0f} s, "
            f"the round that was cut off done after {server['round_seconds']:.0f} s"
        )
    lines.append("the simulator, with the same devices and seeds, made the same plans and personal models, bit for bit")
    return lines
