"""What an audit prints, as Rich tables from the dictionary of audit.json."""

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from simulations.report.audit.words import GROUP_WORDS, inference_rows
from simulations.report.units import format_bytes

SHOWN_FINDINGS = 20


def audit_tables(audit: Mapping[str, Any]) -> list[Table]:
    """Return the tables: kinds of messages, what the bytes are for, what the uplink gives away."""
    tables = [_kinds(audit), _groups(audit)]
    return [*tables, _inference(audit["inference"])] if audit.get("inference") else tables


def finding_lines(audit: Mapping[str, Any]) -> list[str]:
    """Return a line for each of the first findings, and how many more there are."""
    lines = [f"{finding['where']}: {finding['what']}" for finding in audit["findings"][:SHOWN_FINDINGS]]
    more = len(audit["findings"]) - SHOWN_FINDINGS
    return [*lines, f"{more} more in audit.json"] if more > 0 else lines


def _kinds(audit: Mapping[str, Any]) -> Table:
    table = Table(title="what left the devices", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("message")
    for name in ("number", "bytes", "bytes each"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in audit["kinds"]:
        each = f"{row['bytes'] / row['messages']:,.0f}"
        table.add_row(row["kind"], f"{row['messages']:,}", f"{row['bytes']:,}", each)
    table.add_section()
    table.add_row("all", f"{audit['messages']:,}", f"{audit['bytes']:,}", "")
    return table


def _groups(audit: Mapping[str, Any]) -> Table:
    table = Table(title="what its bytes are for", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("bytes", no_wrap=True)
    table.add_column("")
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    for row in audit["groups"]:
        share = f"{row['bytes'] / audit['bytes']:.1%}"
        table.add_row(row["group"], GROUP_WORDS[row["group"]], format_bytes(row["bytes"]), share)
    return table


def _inference(inference: Mapping[str, Any]) -> Table:
    table = Table(title="what the uplink gives away", title_justify="left", box=SIMPLE_HEAD)
    for name in ("attack", "what is seen", "attacker"):
        table.add_column(name)
    for name in ("score", "95 % interval", "trials"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in inference_rows(inference):
        table.add_row(*row)
    return table
