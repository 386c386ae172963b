"""What `fedsieve enroll` prints: what the fleet consists of, and what to do next."""

from typing import Any

from rich import box
from rich.table import Table

SOON_DAYS = 30


def fleet_tables(found: dict[str, Any]) -> list[Table]:
    """Return tables of certificates and nodes; `found` is what `describe` returns."""
    certificates = Table("certificate", "valid until", "days left", box=box.SIMPLE)
    for name, certificate in found["certificates"].items():
        certificates.add_row(name, certificate["valid_until"][:10], str(certificate["days_left"]))
    if not found["nodes"]:
        return [certificates]
    nodes = Table("node", "id", "enrolled", "state", box=box.SIMPLE)
    for node in found["nodes"]:
        nodes.add_row(node["name"], node["node"], node["enrolled"][:10], _state(node))
    return [certificates, nodes]


def headline(found: dict[str, Any]) -> str:
    """Return a line that says which fleet this is."""
    return f"fleet {found['fleet']} at {found['server']}, in {found['folder']}"


def next_steps(found: dict[str, Any]) -> list[str]:
    """Return lines that say what to do next, with the commands."""
    folder = found["folder"]
    lines = [
        f"warning: {name} is valid for {certificate['days_left']} more days; "
        f"fedsieve enroll {folder} --renew {name.removesuffix('.crt')}"
        for name, certificate in found["certificates"].items()
        if certificate["days_left"] < SOON_DAYS
    ]
    waiting = [node for node in found["nodes"] if node["file"] is not None]
    if not any(node["revoked"] is None for node in found["nodes"]):
        lines.append(f"next: enrol a device with  fedsieve enroll {folder} --node NAME")
    if waiting:
        lines += [
            "next: carry each file below to its device over a channel that you trust, and remove it here; "
            "it holds the device's key",
            *(f"  {node['file']}" + _changed(node, found) for node in waiting),
            "      there, readable by its user only (chmod 600):  fedsieve join FILE --data IMAGES",
        ]
    return lines


def _changed(node: dict[str, Any], found: dict[str, Any]) -> str:
    return "  (new)" if node["name"] in found["written"] else ""


def _state(node: dict[str, Any]) -> str:
    if node["revoked"] is not None:
        return f"revoked {node['revoked'][:10]}"
    return "file to be carried" if node["file"] is not None else "carried"
