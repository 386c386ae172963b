"""The snapshot as Prometheus metrics; docs/status.md lists them."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from deployment.status.rounds import last_learned

PHASES = ("starting", "idle", "running", "stopping")
RUN_STATES = ("running", "completed", "failed", "stopped")

# Gauges of the last round: metric, what it is, key of the round's record.
_ROUND = (
    ("round_plan_version", "Version of the plan that the last round sent.", "plan_version"),
    ("round_clients_asked", "Clients that the last round asked.", "asked"),
    ("round_clients_replied", "Clients that answered the last round with statistics.", "replied"),
    ("round_probes", "Probes that the last round's plan let a client spend.", "probes"),
    ("round_seconds", "Duration of the last round in seconds.", "seconds"),
    ("round_dropped_units", "Units of the model that the last round's plan left out for everybody.", "dropped_units"),
    ("round_first_contacts", "Messages of the last round that carried the whole generic model.", "first_contacts"),
    ("round_first_contact_bytes", "Bytes of those messages.", "first_contact_bytes"),
)

Sample = tuple[tuple[str, ...], float | None]


class StatusCollector(Collector):
    """Turns one snapshot into metrics; what the snapshot does not know has no sample."""

    def __init__(self, snapshot: Mapping[str, Any]) -> None:
        """Take what `make_snapshot` returned."""
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """Yield every metric, with or without samples, in the same order each time."""
        yield from _sources(self._snapshot)
        yield from _server(self._snapshot)
        yield from _rounds(self._snapshot)
        yield from _learned(self._snapshot)


def metrics_text(snapshot: Mapping[str, Any]) -> bytes:
    """Return `snapshot` in Prometheus' text format, from a registry that holds nothing else."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StatusCollector(snapshot))
    return generate_latest(registry)


def _gauge(name: str, help_text: str, samples: list[Sample], labels: tuple[str, ...] = ()) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"fedsieve_{name}", help_text, labels=labels)
    for label_values, value in samples:
        if value is not None:
            family.add_metric(label_values, value)
    return family


def _sources(snapshot: Mapping[str, Any]) -> Iterator[Metric]:
    sources = snapshot["sources"].items()
    readable: list[Sample] = [((key,), float(source["problem"] is None)) for key, source in sources]
    yield _gauge("source_readable", "1 if serve's file or the run's journal can be read now.", readable, ("source",))
    stale: list[Sample] = [((key,), float(source["stale"])) for key, source in sources]
    yield _gauge("source_stale", "1 if what is shown of it is out of date.", stale, ("source",))
    ages: list[Sample] = [((key,), source["age_seconds"]) for key, source in sources]
    yield _gauge("source_age_seconds", "Seconds since its content was written.", ages, ("source",))


def _server(snapshot: Mapping[str, Any]) -> Iterator[Metric]:
    phases: list[Sample] = [((phase,), float(snapshot["phase"] == phase)) for phase in PHASES if snapshot["phase"]]
    yield _gauge("phase", "1 for the phase that the server is in.", phases, ("phase",))
    nodes: list[Sample] = [((key,), value) for key, value in snapshot["nodes"].items()]
    yield _gauge("nodes", "Devices of the fleet that are online, enrolled and revoked.", nodes, ("state",))
    processes = snapshot["processes"]
    up: list[Sample] = [((p["process"],), None if p["state"] is None else float(p["state"] == "up")) for p in processes]
    yield _gauge("process_up", "1 if a process of the server is up.", up, ("process",))
    restarts = CounterMetricFamily(
        "fedsieve_process_restarts", "Restarts of a process since the server started.", labels=("process",)
    )
    for process in processes:
        if process["restarts"] is not None:
            restarts.add_metric((process["process"],), process["restarts"])
    yield restarts
    states = [run["state"] for run in snapshot["runs"]]
    runs: list[Sample] = [((state,), states.count(state)) for state in RUN_STATES]
    yield _gauge("recent_runs", "The last runs by state; the server remembers 50.", runs, ("state",))
    at = snapshot["next_run"] and datetime.fromisoformat(snapshot["next_run"]).timestamp()
    yield _gauge("next_run_timestamp_seconds", "When the next run begins, seconds since 1970.", [((), at)])


def _rounds(snapshot: Mapping[str, Any]) -> Iterator[Metric]:
    last = snapshot["rounds"][-1] if snapshot["rounds"] else {}
    for name, help_text, key in _ROUND:
        yield _gauge(name, help_text, [((), last.get(key))])
    round_bytes: list[Sample] = [((way,), last.get(f"bytes_{way}")) for way in ("up", "down")]
    yield _gauge("round_bytes", "Bytes of all messages of the last round.", round_bytes, ("direction",))
    totals = snapshot["totals"]
    yield _gauge(
        "run_rounds", "Rounds that this run's journal holds, the final pass included.", [((), totals["rounds"])]
    )
    run_bytes: list[Sample] = [((way,), totals[f"bytes_{way}"]) for way in ("up", "down")]
    yield _gauge("run_bytes", "Bytes of all messages of this run's rounds.", run_bytes, ("direction",))
    failures: list[Sample] = [((code,), number) for code, number in totals["failures"].items()]
    yield _gauge("run_failures", "Clients that this run's rounds got no statistics from, by code.", failures, ("code",))


def _learned(snapshot: Mapping[str, Any]) -> Iterator[Metric]:
    last = last_learned(snapshot["rounds"])
    known = (last["means"] if last is not None else None) or {}
    means: list[Sample] = [((key,), value) for key, value in known.items()]
    yield _gauge(
        "fleet_mean",
        "Means over the clients of the last round that taught the server something; entropy_increase in nats.",
        means,
        ("statistic",),
    )
    for name, help_text, key in (
        ("layer_dropped_share", "Share of a layer that the fleet dropped.", "dropped_share"),
        (
            "layer_sensitivity_share",
            "Share of the fleet's total sensitivity that lies in a layer.",
            "sensitivity_share",
        ),
    ):
        samples: list[Sample] = [((str(one["block"]), one["kind"]), one[key]) for one in snapshot["layers"]]
        yield _gauge(name, help_text, samples, ("block", "kind"))
