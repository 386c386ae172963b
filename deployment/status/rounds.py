"""The rounds of a journal, as far as they say something about the fleet and nothing about a client."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deployment.status.fields import count, counts, mapping, number, objects, text
from personalization.wire.statistics import SCALARS, from_wire
from strategies.privacy.words import write_privacy

# Counts of a round's record: name on the page, name in the journal.
_COUNTS = {
    "plan_version": "round",
    "asked": "clients_sampled",
    "replied": "clients_replied",
    "dropped_units": "dropped_units",
    "bytes_up": "uplink_bytes",
    "bytes_down": "downlink_bytes",
    "first_contacts": "first_contacts",
    "first_contact_bytes": "first_contact_bytes",
    "later_messages": "later_messages",
    "later_bytes": "later_bytes",
}


def round_records(journal: Mapping[str, Any], fewest: int) -> list[dict[str, Any]]:
    """Return one record a round, in their order, from a journal's `rounds`, `finals` and `final`.

    `means` are those of the clients' statistics, entropy increase in nats; None where the server learned nothing from
    the round, and, with `withheld` set, where fewer than `fewest` clients replied. probes: what a client may spend.
    """
    settings = mapping(journal.get("settings"))
    probes, final_probes = count(settings.get("probes")), count(settings.get("final-probes"))
    passes = [*objects(journal.get("finals")), *objects([journal.get("final")])]
    records = [_record(record, final_probes, fewest, final=True) for record in passes]
    records += [_record(record, probes, fewest, final=False) for record in objects(journal.get("rounds"))]
    # A later run counts its rounds from where the last pass stood: a pass comes before the round of its number.
    return sorted(records, key=lambda record: record["plan_version"] or 0)


def totals(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return sums over the rounds: bytes up and down, first contacts and their bytes; failures, dropped replies."""
    failures: Counter[str] = Counter()
    for record in rounds:
        failures.update(record["failures"])
        failures.update(record["dropped_replies"])
    keys = ("bytes_up", "bytes_down", "first_contacts", "first_contact_bytes")
    sums = {key: sum(record[key] or 0 for record in rounds) for key in keys}
    return {**sums, "rounds": len(rounds), "failures": dict(sorted(failures.items()))}


def last_learned(rounds: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the last round that the server learned from, None if there is none."""
    return next((record for record in reversed(rounds) if record["learned"]), None)


def _record(record: Mapping[str, Any], probes: int | None, fewest: int, *, final: bool) -> dict[str, Any]:
    known = {key: count(record.get(source)) for key, source in _COUNTS.items()}
    learned = isinstance(record.get("fleet"), dict)
    withheld = learned and (known["replied"] or 0) < fewest
    return {
        **known,
        "final": final,
        "probes": probes,
        "failures": counts(record.get("failures")),
        "dropped_replies": counts(record.get("dropped_replies")),
        "seconds": number(record.get("seconds")),
        "learned": learned,
        "not_learned": None if learned else text(record.get("not_learned")),
        "withheld": withheld,
        "privacy": write_privacy(record.get("privacy")),
        "means": _means(record["fleet"]) if learned and not withheld else None,
    }


def _means(fleet: Mapping[str, Any]) -> dict[str, float | None]:
    means = {key: number(fleet.get(key), most=1.0) for key in SCALARS}
    if means["entropy_increase"] is not None:
        # It travels on a logarithmic scale, where its mean is taken.
        means["entropy_increase"] = float(from_wire(np.array([means["entropy_increase"]]))[0])
    return means
