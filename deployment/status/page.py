"""The status page: one HTML document, whole without a script and without anything from elsewhere."""

import base64
import hashlib
from collections.abc import Callable, Mapping
from html import escape
from typing import Any

from deployment.status import sections
from deployment.status.script import SCRIPT, STYLE
from deployment.status.words import NOTHING, write_age, write_bytes, write_count, write_moment, write_share

Snapshot = Mapping[str, Any]
_SOURCES = {"serve": "What the server writes about itself", "journal": "The journal of the run"}


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


# A browser runs this script and applies this style, asks nobody but the page's own server, and nothing else.
POLICY = (
    f"default-src 'none'; script-src {_hash(SCRIPT)}; style-src {_hash(STYLE)}; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def page(snapshot: Snapshot) -> str:
    """Return the page for what `make_snapshot` returned."""
    title = "fedsieve" + (f" fleet {snapshot['fleet']}" if snapshot["fleet"] else "") + f": {_phase(snapshot)}"
    read = write_moment(snapshot["read"], seconds=True)
    parts = "".join(
        f'<section data-part id="{name}">{draw(snapshot)}</section>' for name, draw in (("now", _now), *_SECTIONS)
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f'<body data-revision="{snapshot["revision"]}"><main>'
        '<p id="connection" class="problem" role="alert" hidden></p>'
        f'{parts}</main><footer><p class="quiet">As of <span id="read">{read}</span>. '
        "Everything here is about the fleet as a whole: no device is named, and means of fewer than "
        f"{snapshot['fewest_replies']} replies are withheld. "
        'For machines: <a href="/status.json">status.json</a>, <a href="/metrics">metrics</a>. '
        '<span id="still">Without JavaScript the page stays as it is: reload it for news.</span></p></footer>'
        f"<script>{SCRIPT}</script></body></html>\n"
    )


_SECTIONS: tuple[tuple[str, Callable[[Snapshot], str]], ...] = (
    ("means", sections.means),
    ("rounds", sections.rounds),
    ("layers", sections.layers),
    ("errors", sections.errors),
    ("runs", sections.runs),
    ("processes", sections.processes),
)


def _phase(snapshot: Snapshot) -> str:
    if snapshot["phase"] is None:
        return "no word from the server"
    return f"{snapshot['phase']} (out of date)" if snapshot["sources"]["serve"]["stale"] else snapshot["phase"]


def _now(snapshot: Snapshot) -> str:
    named = f"Fleet {snapshot['fleet']}" if snapshot["fleet"] else "A fleet of fedsieve"
    at = f" at {snapshot['server']}" if snapshot["server"] else ""
    since = f", up since {write_moment(snapshot['started'])}" if snapshot["started"] else ""
    return (
        f'<h1>{escape(named)}</h1><p class="quiet">{escape(f"Server{at}{since}")}</p>'
        + "".join(_problem(name, source) for name, source in snapshot["sources"].items())
        + _cards(snapshot)
    )


def _problem(name: str, source: Mapping[str, Any]) -> str:
    age = f'<span data-age="{name}">{write_age(source["age_seconds"])}</span>'
    if source["problem"] is None and not source["stale"]:
        return ""
    if source["problem"] is None:
        text = f"is out of date: last written {age} ago. Is the server still running?"
    elif source["stale"]:
        text = f"cannot be read ({escape(source['problem'])}). What is shown of it was written {age} ago."
    else:
        text = f"cannot be read ({escape(source['problem'])}); nothing of it is shown."
    return f'<p class="problem" role="status">{_SOURCES[name]} {text}</p>'


def _cards(snapshot: Snapshot) -> str:
    nodes, totals = snapshot["nodes"], snapshot["totals"]
    last = snapshot["rounds"][-1] if snapshot["rounds"] else None
    version = write_count(snapshot["plan_version"])
    cards = (
        ("phase", snapshot["phase"] or NOTHING, _next(snapshot)),
        (
            "devices online",
            write_count(nodes["online"]),
            f"{write_count(nodes['enrolled'])} enrolled, {write_count(nodes['revoked'])} revoked",
        ),
        ("rounds of this run", write_count(totals["rounds"]), f"plan version {version}{_series(snapshot)}"),
        ("replies, last round", _replies(last), f"{write_bytes(totals['bytes_up'])} up in this run"),
        (
            "sent down in this run",
            write_bytes(totals["bytes_down"]),
            f"{write_bytes(totals['first_contact_bytes'])} in {write_count(totals['first_contacts'])} first contacts",
        ),
        ("the fleet dropped", _dropped(snapshot), "of the groups of units"),
        ("differential privacy", NOTHING if last is None else last["privacy"], "of a device, in all runs"),
    )
    return (
        '<dl class="cards">'
        + "".join(
            f"<div><dt>{escape(what)}</dt><dd>{escape(value)}<small>{escape(more)}</small></dd></div>"
            for what, value, more in cards
        )
        + "</dl>"
    )


def _next(snapshot: Snapshot) -> str:
    if snapshot["sources"]["serve"]["stale"]:
        return "out of date"
    return f"next run {write_moment(snapshot['next_run'])}"


def _series(snapshot: Snapshot) -> str:
    return f", run {snapshot['plan_series']}" if snapshot["plan_series"] is not None else ""


def _replies(last: Mapping[str, Any] | None) -> str:
    return NOTHING if last is None else f"{write_count(last['replied'])} of {write_count(last['asked'])}"


def _dropped(snapshot: Snapshot) -> str:
    groups = sum(layer["groups"] for layer in snapshot["layers"])
    return write_share(sum(layer["dropped_groups"] for layer in snapshot["layers"]) / groups if groups else None)
