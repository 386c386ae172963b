"""audit.html: what left the devices, made from the dictionary of audit.json alone; opens anywhere, offline."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from personalization.system.files import write_atomically
from simulations.report.audit import figures
from simulations.report.audit.words import GROUP_WORDS, headline, inference_rows, search_lines
from simulations.report.page import POLICY, STYLE, figure_html, table_html
from simulations.report.units import format_bytes

_STYLE = """
.verdict { font-size: 1.1rem; font-weight: 600; padding: .5rem .8rem; border-left: .35rem solid #15803d; }
.failed { border-color: #b91c1c; color: #b91c1c; }
details { margin: .4rem 0; } summary { cursor: pointer; padding: .25rem 0; }
td.value { font-family: ui-monospace, monospace; font-size: .8rem; overflow-wrap: anywhere; min-width: 9rem; }
td.meaning { min-width: 8rem; } td:first-child { overflow-wrap: anywhere; min-width: 7rem; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
"""


def write_audit(audit: Mapping[str, Any], out: Path) -> None:
    """Write the page for `audit` (the dictionary of audit.json) to the file `out`, whole or not at all."""
    write_atomically(out, audit_page(audit).encode())


def audit_page(audit: Mapping[str, Any]) -> str:
    """Return the whole page, Plotly's script included, as HTML."""
    failed = " failed" if audit["verdict"] != "clean" else ""
    sections = [_findings(audit), _bytes(audit), _fields(audit), _messages(audit), _search(audit), _inference(audit)]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>fedsieve audit</title><style>{STYLE}{_STYLE}</style><script>{get_plotlyjs()}</script></head>"
        f'<body><h1>fedsieve audit: what left the devices</h1><p class="verdict{failed}">{escape(headline(audit))}</p>'
        f"{''.join(sections)}</body></html>\n"
    )


def _section(heading: str, text: str, body: str) -> str:
    return f"<section><h2>{escape(heading)}</h2><p>{escape(text)}</p>{body}</section>"


def _findings(audit: Mapping[str, Any]) -> str:
    if not audit["findings"]:
        return ""
    rows = [(finding["where"], finding["what"]) for finding in audit["findings"]]
    return _section("What is wrong", "Each of these fails the audit.", table_html(("where", "what"), rows, "setting"))


def _bytes(audit: Mapping[str, Any]) -> str:
    rows = [
        (row["group"], GROUP_WORDS[row["group"]], format_bytes(row["bytes"]), f"{row['bytes'] / audit['bytes']:.1%}")
        for row in audit["groups"]
    ]
    text = (
        f"All {audit['bytes']:,} bytes of {audit['messages']:,} messages, by what they are for. Each byte belongs to "
        "one field; the sum is that of the recording."
    )
    drawn = figure_html(figures.bytes_by_kind(audit), 0) if audit["messages"] else ""
    return _section("Where the bytes go", text, _table(("what", "", "bytes", "share"), rows) + drawn)


def _fields(audit: Mapping[str, Any]) -> str:
    rows = [
        (row["field"], row["meaning"], f"{row['messages']:,}", f"{row['bytes']:,}")
        for row in sorted(audit["fields"], key=lambda row: -int(row["bytes"]))
    ]
    text = "Every field of every message that left, with its meaning. What nothing explains fails the audit."
    table = _table(("field", "meaning", "times", "bytes"), rows)
    return _section("Fields", text, f"<details><summary>{len(rows)} fields</summary>{table}</details>")


def _messages(audit: Mapping[str, Any]) -> str:
    kinds = {row["kind"]: row for row in audit["kinds"]}
    parts = []
    for example in audit["examples"]:
        row = kinds[example["kind"]]
        rows = [
            (
                field["field"],
                field["meaning"] or "unexplained",
                f"{field['start']:,}",
                f"{field['bytes']:,}",
                field["value"],
            )
            for field in example["fields"]
        ]
        table = _table(("field", "meaning", "from byte", "bytes", "value"), rows)
        parts.append(
            f"<details><summary>{escape(example['kind'])}: {row['messages']:,} times, {format_bytes(row['bytes'])}; "
            f"the first, of {escape(example['client'])}, byte by byte</summary>{table}</details>"
        )
    text = "One message of each kind, decoded. All messages are in messages.jsonl."
    return _section("Messages", text, "".join(parts))


def _search(audit: Mapping[str, Any]) -> str:
    lines = "".join(f"<p>{escape(line)}</p>" for line in search_lines(audit["search"]))
    return f"<section><h2>What may not be there</h2>{lines}</section>"


def _inference(audit: Mapping[str, Any]) -> str:
    inference = audit.get("inference")
    if not inference:
        return ""
    header = ("attack", "what is seen", "attacker", "score", "95 % interval", "trials")
    text = (
        "Attacks trained on shadow fleets of the bundled model and images. AUC: 0.5 is guessing, 1 is certainty. A bar "
        "ends where its interval does."
    )
    drawn = figure_html(figures.attack_scores(inference), 1)
    return _section("What the uplink gives away", text, drawn + _table(header, inference_rows(inference)))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose columns of numbers are set to the right, and of values in one width."""
    numbers = {"bytes", "share", "times", "from byte", "score", "trials"}
    classes = ["number" if name in numbers else "value" if name == "value" else "meaning" for name in header]
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(
        "<tr>"
        + "".join(f'<td class="{kind}">{escape(cell)}</td>' for kind, cell in zip(classes, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
