"""What the status page says, as the dictionary of /status.json; page and metrics are made from it alone."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from deployment.status.fields import count, iso, mapping, moment, name, objects, text
from deployment.status.layers import layer_records
from deployment.status.rounds import last_learned, round_records, totals
from deployment.status.sources import Reading

# Fewest replies whose mean is shown: the mean of one is that client's own, and of two each knows the other's.
FEWEST_REPLIES = 3
# serve.json is written every few seconds; older than this, whoever writes it is gone or stuck.
STALE_SECONDS = 20.0
# A serve goes on for months; what is older than this many rounds counts in the totals only.
SHOWN_ROUNDS = 50
_CLOCK = frozenset({"read", "age_seconds"})


def make_snapshot(
    serve: Reading, journal: Reading, now: float, *, fewest_replies: int = FEWEST_REPLIES
) -> dict[str, Any]:
    """Return all that may be seen, with nothing of a single client. now: seconds since 1970.

    fewest_replies: a round with fewer shows no means, and a layer measured in fewer no sensitivity.
    """
    served = mapping(serve.record)
    ran = mapping(journal.record)
    rounds = round_records(ran, fewest_replies)
    snapshot = {
        "read": iso(datetime.fromtimestamp(now, UTC)),
        "fewest_replies": fewest_replies,
        "sources": {
            "serve": _source(serve, now, written=moment(served.get("written")), limit=STALE_SECONDS),
            "journal": _source(journal, now, written=None, limit=None),
        },
        **_serve(served),
        "rounds": rounds[-SHOWN_ROUNDS:],
        "totals": totals(rounds),
        "plan_version": max((record["plan_version"] or 0 for record in rounds), default=None),
        "plan_series": count(ran.get("series")) or None,
        **_knowledge(ran, last_learned(rounds), fewest_replies),
    }
    return {**snapshot, "revision": _revision(snapshot)}


def _source(reading: Reading, now: float, *, written: datetime | None, limit: float | None) -> dict[str, Any]:
    """Say how current a file is: what stands in it counts, then when it was written."""
    age = reading.age(now) if written is None else max(0.0, now - written.timestamp())
    late = age is not None and limit is not None and age > limit
    return {
        "problem": reading.problem,
        "age_seconds": None if age is None or reading.record is None else round(age, 1),
        "stale": reading.record is not None and (late or reading.problem is not None),
    }


def _serve(served: Mapping[str, Any]) -> dict[str, Any]:
    nodes = mapping(served.get("nodes"))
    return {
        "fleet": _fleet(served.get("fleet")),
        "server": text(served.get("server")),
        "started": iso(moment(served.get("started"))),
        "phase": name(served.get("phase")),
        "nodes": {key: count(nodes.get(key)) for key in ("online", "enrolled", "revoked")},
        "processes": [
            {"process": process, "state": name(facts.get("state")), "restarts": count(facts.get("restarts"))}
            for process, facts in mapping(served.get("processes")).items()
            if name(process) is not None and isinstance(facts, dict)
        ],
        "runs": [
            {
                "number": count(run.get("number")),
                "started": iso(moment(run.get("started"))),
                "ended": iso(moment(run.get("ended"))),
                "state": name(run.get("state")),
                "reason": text(run.get("reason")),
            }
            for run in objects(served.get("runs"))
        ],
        "next_run": iso(moment(served.get("next_run"))),
    }


def _fleet(value: Any) -> str | None:
    """Return the beginning of a fleet's id: enough to tell fleets apart, too short to be anybody's."""
    return value[:8] if isinstance(value, str) and value[:8].isalnum() else None


def _knowledge(ran: Mapping[str, Any], learned: Mapping[str, Any] | None, fewest: int) -> dict[str, Any]:
    """Return the layers, or why they are not shown.

    What is known after a round less what was known before it is that round's own: so a round of too few replies hides
    what has been learned until a larger one follows it.
    """
    withheld = learned is not None and learned["withheld"]
    layers: list[dict[str, Any]] = []
    problem = None
    if "knowledge" in ran and not withheld:
        try:
            layers = layer_records(mapping(ran["knowledge"]), fewest)
        except ValueError:
            problem = "what the journal says about layers cannot be read"
    return {"layers": layers, "layers_withheld": withheld, "layers_problem": problem}


def _revision(snapshot: Mapping[str, Any]) -> str:
    """Return what changes whenever the page has to be drawn anew; the passing of time alone changes nothing."""
    timeless = json.dumps(_without_clock(snapshot), sort_keys=True)
    return hashlib.sha256(timeless.encode()).hexdigest()[:11]


def _without_clock(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_clock(item) for key, item in value.items() if key not in _CLOCK}
    return value
