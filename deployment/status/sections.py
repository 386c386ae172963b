"""The sections of the page, each from the snapshot alone."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from deployment.status.charts import Bar, bar_chart
from deployment.status.rounds import last_learned
from deployment.status.tables import Cell, figure, table
from deployment.status.words import (
    NOTHING,
    write_bytes,
    write_count,
    write_moment,
    write_nats,
    write_plain,
    write_seconds,
    write_share,
)

Snapshot = Mapping[str, Any]
# Key of the means, what it is, how it is written.
_MEANS = (
    ("agreement", "same prediction as the dense model, on held-out private samples", write_share),
    ("size_ratio", "size of a personal model, of the dense one's", write_share),
    ("latency_ratio", "latency of a personal model, of the dense one's", write_share),
    ("entropy_increase", "entropy increase (mean on a logarithmic scale)", write_nats),
    ("fit_r2", "R2 of held-out probes (0 where a device had too few)", write_plain),
)
_GOOD = frozenset({"up", "completed"})
_BAD = frozenset({"down", "failed"})


def means(snapshot: Snapshot) -> str:
    """Return what the clients of the last round that was learned from have on average."""
    last = last_learned(snapshot["rounds"])
    heading = "<h2>What a device has on average</h2>"
    if last is None:
        return heading + _say(f"No round has taught the server anything yet.{_why(snapshot)}")
    if last["withheld"]:
        return heading + _say(_withheld(snapshot, f"Only {write_count(last['replied'])} replied to the last round."))
    rows = [(Cell(label), figure(write(last["means"][key]))) for key, label, write in _MEANS]
    told = f"Reported by the {write_count(last['replied'])} clients of plan version {write_count(last['plan_version'])}"
    return heading + _say(f"{told}.") + table("Means", (Cell("mean"), figure("")), rows)


def rounds(snapshot: Snapshot) -> str:
    """Return the rounds, the last first."""
    heading = "<h2>Rounds</h2>"
    if not snapshot["rounds"]:
        return heading + _say("None yet.")
    header = [Cell("plan"), *(figure(name) for name in ("replied", "failed", "agreement", "size", "up", "down"))]
    header += [figure(name) for name in ("first contacts", "dropped units", "probes", "time")]
    rows = [_round(record) for record in reversed(snapshot["rounds"])]
    left_out = snapshot["totals"]["rounds"] - len(rows)
    return (
        heading
        + _say(
            "One line for each version of the plan, the last first. Down: the plan, and the model for those who lack "
            "it. Up: sparsity statistics. Dropped units are those that the plan leaves out for everybody; probes is "
            "how many evaluations it lets a client spend."
            + (f" {write_count(left_out)} earlier rounds are not shown." if left_out else "")
            + _why(snapshot)
        )
        + table("Rounds", header, rows)
    )


def _round(record: Mapping[str, Any]) -> list[Cell]:
    version = write_count(record["plan_version"]) + (" final" if record["final"] else "")
    failed = sum(record["failures"].values())
    found = record["means"] or {}
    contacts = write_count(record["first_contacts"])
    if record["first_contacts"]:
        contacts += f" ({write_bytes(record['first_contact_bytes'])})"
    return [
        Cell(version, "when"),
        figure(f"{write_count(record['replied'])} of {write_count(record['asked'])}"),
        Cell(write_count(failed), "figure", "bad" if failed else ""),
        figure("withheld" if record["withheld"] else write_share(found.get("agreement"))),
        figure("withheld" if record["withheld"] else write_share(found.get("size_ratio"))),
        figure(write_bytes(record["bytes_up"])),
        figure(write_bytes(record["bytes_down"])),
        figure(contacts),
        figure(write_count(record["dropped_units"])),
        figure(write_count(record["probes"])),
        figure(write_seconds(record["seconds"])),
    ]


def layers(snapshot: Snapshot) -> str:
    """Return what the fleet dropped and what it calls personal, by layer, as charts and as a table."""
    found = snapshot["layers"]
    heading = "<h2>Layers</h2>"
    if snapshot["layers_withheld"]:
        return heading + _say(_withheld(snapshot, "The last round had too few replies to say what it added."))
    if not found:
        problem = snapshot["layers_problem"] or "nothing is known about layers yet"
        return heading + _say(f"{problem[0].upper()}{problem[1:]}.")
    return (
        heading
        + _say("Blocks from the first to the last, in each the attention and then the MLP.")
        + "<h3>What the fleet dropped</h3>"
        + bar_chart(_dropped_bars(found), title="Share of each layer that the fleet dropped", most=1.0)
        + "<h3>What the fleet calls personal</h3>"
        + _say(
            "Share of the fleet's total sensitivity. Blue layers together cover 80 %: a device keeps most of them. A "
            f"broken outline is a layer that fewer than {snapshot['fewest_replies']} replies have measured."
        )
        + bar_chart(
            _personal_bars(found),
            title="Share of the fleet's total sensitivity in each layer",
            most=_round_up(max(layer["sensitivity_share"] or 0.0 for layer in found)),
        )
        + f"<details><summary>The same in figures</summary>{_layer_table(found)}</details>"
    )


def _dropped_bars(found: Sequence[Mapping[str, Any]]) -> list[Bar]:
    return [Bar(_label(layer), layer["dropped_share"], f"{_named(layer)}: {_dropped(layer)}") for layer in found]


def _personal_bars(found: Sequence[Mapping[str, Any]]) -> list[Bar]:
    return [
        Bar(
            _label(layer),
            layer["sensitivity_share"],
            f"{_named(layer)}: {_sensitivity(layer)}",
            bool(layer["personal"]),
        )
        for layer in found
    ]


def _layer_table(found: Sequence[Mapping[str, Any]]) -> str:
    header = (Cell("layer"), figure("dropped"), figure("sensitivity"), Cell("to the fleet"))
    kinds = {True: "personal", False: "generic", None: NOTHING}
    rows = [
        (
            Cell(_named(layer)),
            figure(_dropped(layer)),
            figure(write_share(layer["sensitivity_share"])),
            Cell(kinds[layer["personal"]]),
        )
        for layer in found
    ]
    return table("Layers", header, rows)


def errors(snapshot: Snapshot) -> str:
    """Return how often clients failed, by code."""
    failures = snapshot["totals"]["failures"]
    heading = "<h2>Errors</h2>"
    if not failures:
        return heading + _say("None in this run.")
    rows = [(Cell(code), figure(write_count(number))) for code, number in failures.items()]
    said = (
        "In all rounds of this run. A code is all that a device says about a failure; its own log says more. What "
        "begins with reply_ the server has found wrong, and dropped."
    )
    return heading + _say(said) + table("Errors by code", (Cell("code"), figure("clients")), rows)


def runs(snapshot: Snapshot) -> str:
    """Return the last runs, the last first."""
    heading = "<h2>Runs</h2>"
    if not snapshot["runs"]:
        return heading + _say("None yet.")
    header = (Cell("run"), Cell("state"), Cell("started"), Cell("ended"), Cell("reason"))
    rows = [
        (
            Cell(write_count(run["number"])),
            _state(run["state"]),
            Cell(write_moment(run["started"]), "when"),
            Cell(write_moment(run["ended"]), "when"),
            Cell(run["reason"] or "", "words"),
        )
        for run in reversed(snapshot["runs"])
    ]
    return heading + table("Runs", header, rows)


def processes(snapshot: Snapshot) -> str:
    """Return the server's processes and how often each was restarted."""
    heading = "<h2>Processes</h2>"
    if not snapshot["processes"]:
        return heading + _say("Nothing is known about them.")
    rows = [
        (Cell(one["process"]), _state(one["state"]), figure(write_count(one["restarts"])))
        for one in snapshot["processes"]
    ]
    return heading + table("Processes", (Cell("process"), Cell("state"), figure("restarts")), rows)


def _why(snapshot: Snapshot) -> str:
    """Return why the server has learned nothing from the last round, if that is so."""
    rounds = [record for record in snapshot["rounds"] if not record["final"]]
    reason = rounds[-1]["not_learned"] if rounds else None
    return "" if reason is None else f" The last one taught it nothing: {reason}."


def _say(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def _withheld(snapshot: Snapshot, why: str) -> str:
    return f"Withheld: {why} With fewer than {snapshot['fewest_replies']} a mean would give away a single device's."


def _state(state: str | None) -> Cell:
    return Cell(state or NOTHING, mark="good" if state in _GOOD else "bad" if state in _BAD else "")


def _label(layer: Mapping[str, Any]) -> str:
    return str(layer["block"]) if layer["kind"] == "attention" else ""


def _named(layer: Mapping[str, Any]) -> str:
    return f"block {layer['block']}, {'attention' if layer['kind'] == 'attention' else 'MLP'}"


def _dropped(layer: Mapping[str, Any]) -> str:
    unit = "heads" if layer["kind"] == "attention" else "parts"
    return f"{write_share(layer['dropped_share'])} ({layer['dropped_groups']} of {layer['groups']} {unit})"


def _sensitivity(layer: Mapping[str, Any]) -> str:
    if layer["sensitivity_share"] is None:
        return "measured too rarely to be shown"
    return f"{write_share(layer['sensitivity_share'])}, {'personal' if layer['personal'] else 'generic'}"


def _round_up(share: float) -> float:
    """Return the next round share: what a chart's top stands for."""
    return next((top for top in (0.1, 0.2, 0.25, 0.4, 0.5, 0.75) if share <= top), 1.0)
