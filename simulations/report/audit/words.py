"""What an audit says in words and rows, for the page and for the terminal alike."""

from collections.abc import Mapping, Sequence
from typing import Any

from simulations.report.units import format_bytes

GROUP_WORDS = {
    "sparsity statistics": "what the device found out about layers: the purpose of it all",
    "secure sum": "masks, keys and shares: random bytes to all who lack the sum",
    "Flower's envelope": "numbers of node, run and message; times",
    "HTTP and signatures": "request lines, headers, the node's signature on each request",
    "field numbers and lengths": "how the encoding tells one field from the next",
}


def headline(audit: Mapping[str, Any]) -> str:
    """Return the verdict in a sentence."""
    devices = len(audit["clients"])
    said = f"{audit['messages']:,} messages of {devices} device{'s' * (devices != 1)}, {audit['bytes']:,} bytes"
    if audit["verdict"] == "clean":
        return f"Clean: {said}, every byte explained"
    count = len(audit["findings"])
    return f"Failed: {count} finding{'s' if count > 1 else ''} in {said}"


_SOUGHT = (
    ("canaries", "planted canaries"),
    ("images", "private images"),
    ("passages", "passages of private text"),
    ("names", "names"),
)


def search_lines(search: Mapping[str, Any]) -> list[str]:
    """Return what was looked for and where, a line each."""
    sought = [f"{search[key]} {what}" for key, what in _SOUGHT if search.get(key)]
    if not sought:
        return ["Nothing was looked for: the run has no canaries, and no private data were named."]
    where = f"{search['messages']:,} messages ({format_bytes(search['message_bytes'])})"
    if search["files"]:
        where += f" and {search['files']:,} files that others can see ({format_bytes(search['file_bytes'])})"
    forms = f", each in {search['forms']} encodings and in whatever wraps them" if search["forms"] else ""
    found = "nothing found" if not search["found"] else f"{search['found']} times found"
    return [f"Looked for {' and '.join(sought)} in {where}{forms}: {found}."]


def inference_rows(inference: Mapping[str, Any]) -> list[Sequence[str]]:
    """Return a row for each attack: attack, view, attacker, score, interval, trials."""
    rows: list[Sequence[str]] = []
    for result in inference["results"]:
        score = result.get("auc", result.get("score"))
        interval = f"{result['low']:.3f} to {result['high']:.3f}" if result.get("low") is not None else "-"
        rows.append(
            (
                str(result["attack"]),
                str(result["view"]),
                str(result.get("attacker", "")),
                "-" if score is None else f"{score:.3f}",
                interval,
                f"{result['trials']:,}" if "trials" in result else "-",
            )
        )
    return rows
