"""What one cell's result says: figures of its honest clients and of the run as a whole."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from simulations.comparison.quality import ACCURACY, PERPLEXITY, ComparedBy

# Metrics that each client has one of: name in the summary, key of a client's row. Accuracies are those of images,
# perplexities those of text.
CLIENT_METRICS = {
    ACCURACY: ACCURACY,
    PERPLEXITY: PERPLEXITY,
    "dense_accuracy": "dense_accuracy",
    "dense_fitted_accuracy": "dense_fitted_accuracy",
    "dense_perplexity": "dense_perplexity",
    "agreement": "agreement",
    "weights_kept": "weights_kept",
    "products_kept": "products_kept",
    "bytes": "bytes",
    "bytes_in_full": "bytes_in_full",
    "bytes_zipped": "bytes_zipped",
    "evaluations": "evaluations",
    "uplink_bytes_total": "uplink_bytes",
    "downlink_bytes_total": "downlink_bytes",
}
# Metrics that a run has one of.
RUN_METRICS = ("uplink_bytes", "rounds_to_target", "wall_seconds", "cpu_seconds")


@dataclass(frozen=True)
class Measures:
    """Figures of one cell.

    by: what clients are compared by, and scores: of each client, the larger the better. clients: for each metric of
    CLIENT_METRICS the value of each client that has one. late: the clients that came late.
    run: the metrics of RUN_METRICS, None where the run has none. reached: whether a round reached the target; None
    without rounds. personal: for each layer the share of clients that call it personal; empty if nobody calls any so.
    """

    by: ComparedBy
    scores: dict[int, float]
    clients: dict[str, dict[int, float]]
    late: frozenset[int]
    run: dict[str, float | None]
    reached: bool | None
    personal: tuple[float, ...]
    failures: dict[str, int]


def measure(result: Mapping[str, Any], *, target_loss: float) -> Measures:
    """Return the figures of a cell's result; attackers have no rows among its clients and count nowhere.

    target_loss: how far from the dense model the target lies, see `ComparedBy.lost`.
    """
    rows = result["clients"]
    by = ComparedBy.of(rows[0] if rows else {})
    clients = {
        name: {row["client"]: float(row[key]) for row in rows if row.get(key) is not None}
        for name, key in CLIENT_METRICS.items()
    }
    reached_in = _rounds_to_target(result["rounds"], {row["client"]: row for row in rows}, by, target_loss)
    failures: Counter[str] = Counter()
    for record in result["fleet"]:
        failures.update(record["failures"])
    timing = result["timing"]
    return Measures(
        by=by,
        scores={client: by.score(value) for client, value in clients[by.metric].items()},
        clients=clients,
        late=frozenset(row["client"] for row in rows if row.get("late")),
        run={
            "uplink_bytes": _uplink_of_a_round(result),
            "rounds_to_target": None if reached_in is None else float(reached_in),
            "wall_seconds": timing["wall_seconds"],
            "cpu_seconds": timing["cpu_seconds"],
        },
        reached=reached_in is not None if result["rounds"] else None,
        personal=_personal_share(rows, result["model"]["layer_names"]),
        failures=dict(sorted(failures.items())),
    )


def _rounds_to_target(
    rounds: list[Mapping[str, Any]], final: Mapping[int, Mapping[str, Any]], by: ComparedBy, target_loss: float
) -> int | None:
    """Return the first round whose clients are, on average, within `target_loss` of their dense models."""
    lost: dict[int, list[float]] = {}
    for row in rounds:
        value = row.get(by.metric)
        if value is not None and row["client"] in final:
            lost.setdefault(row["round"], []).append(by.lost(value, final[row["client"]]))
    # The tolerance: accuracies are ratios of counts, and a loss of exactly the target's is within it.
    return next((number for number in sorted(lost) if np.mean(lost[number]) <= target_loss + 1e-9), None)


def _uplink_of_a_round(result: Mapping[str, Any]) -> float | None:
    """Return the bytes that a client sends in a round; 0 where nobody ever sends any, None where rounds are unknown."""
    replies = sum(record["replies"] for record in result["fleet"])
    if replies:
        return float(sum(record["uplink_bytes"] for record in result["fleet"]) / replies)
    return None if any(row.get("uplink_bytes") for row in result["clients"]) else 0.0


def _personal_share(rows: list[Mapping[str, Any]], layer_names: list[str]) -> tuple[float, ...]:
    called = Counter(name for row in rows for name in row.get("personalized_layers") or ())
    return tuple(called[name] / len(rows) for name in layer_names) if called else ()
