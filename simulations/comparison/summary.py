"""summary.json: every method at every point of the sweep, as means with intervals."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from simulations.comparison.cells import Cell, method_kind
from simulations.comparison.comparison import Comparison
from simulations.comparison.intervals import client_mean, estimate, worst_decile
from simulations.comparison.measures import CLIENT_METRICS, RUN_METRICS, Measures, measure
from simulations.comparison.quality import ACCURACY, MADE_OF_SCORES, PERPLEXITY, ComparedBy
from simulations.versions import versions

_FIRST = (ACCURACY, PERPLEXITY, *MADE_OF_SCORES)
METRICS = (*_FIRST, *(name for name in CLIENT_METRICS if name not in _FIRST), *RUN_METRICS)


@dataclass
class Collected:
    """What all cells of a comparison came to, gathered one by one so that no whole result has to stay in memory.

    measures: by point, method and seed. settings: the same, of the cells that are done. failed: one line a failed
    cell. privacy: by point and method, what a client gives away, in words.
    """

    comparison: Comparison
    measures: dict[tuple[int, str, int], Measures] = field(default_factory=dict)
    settings: dict[tuple[int, str, int], dict[str, Any]] = field(default_factory=dict)
    failed: dict[tuple[int, str, int], str] = field(default_factory=dict)
    privacy: dict[tuple[int, str], str] = field(default_factory=dict)
    model: dict[str, Any] | None = None
    by: ComparedBy = field(default_factory=lambda: ComparedBy(ACCURACY))

    def add(self, point: int, cell: Cell, result: Mapping[str, Any]) -> None:
        """Take the result of a cell."""
        where = (point, cell.method, cell.seed)
        target_loss = self.comparison.points[point].scenario["target_loss"]
        self.measures[where] = measure(result, target_loss=target_loss)
        self.by = self.measures[where].by
        self.settings[where] = {key: value for key, value in result["settings"].items() if key != "seed"}
        self.privacy[point, cell.method] = result["privacy"]
        self.model = self.model or dict(result["model"])


def summarize(collected: Collected, *, command: str) -> dict[str, Any]:
    """Return what summary.json holds; see docs/comparing.md.

    command: how to get the same again.
    """
    comparison = collected.comparison
    common = _common(list(collected.settings.values()))
    return {
        "scenario": dict(comparison.scenario),
        "seeds": list(comparison.seeds),
        "methods": list(comparison.methods),
        "sweep": {key: list(values) for key, values in comparison.sweep.items()},
        "points": [{"settings": dict(point.settings), "label": point.label} for point in comparison.points],
        "model": collected.model,
        "compared_by": collected.by.metric,
        "rows": [
            _row(collected, point, method, common)
            for point in range(len(comparison.points))
            for method in comparison.methods
        ],
        "settings": common,
        "versions": versions(),
        "command": command,
    }


def _row(collected: Collected, point: int, method: str, common: Mapping[str, Any]) -> dict[str, Any]:
    seeds, first = collected.comparison.seeds, collected.comparison.methods[0]
    cells = _cells(collected, point, method)
    references = {
        "difference": _cells(collected, point, first) if method != first else {},
        "change": _cells(collected, 0, method) if point else {},
    }
    settings = _common([collected.settings[point, method, seed] for seed in cells])
    failed = [(seed, collected.failed.get((point, method, seed))) for seed in seeds]
    failures: Counter[str] = Counter()
    for cell in cells.values():
        failures.update(cell.failures)
    return {
        "point": point,
        "method": method,
        "kind": method_kind(method),
        "privacy": collected.privacy.get((point, method)),
        "cells": len(cells),
        "failed": [{"seed": seed, "error": error} for seed, error in failed if error is not None],
        "metrics": _metrics(cells, references, collected.by),
        "personal_share": _personal_share(list(cells.values())),
        "late": _late(list(cells.values()), collected.by),
        "failures": dict(sorted(failures.items())),
        "reached": _mean([cell.reached for cell in cells.values() if cell.reached is not None]),
        "settings": {key: value for key, value in settings.items() if key not in common},
    }


def _cells(collected: Collected, point: int, method: str) -> dict[int, Measures]:
    """Return the figures of a method at a point of the sweep, by seed."""
    found = {seed: collected.measures.get((point, method, seed)) for seed in collected.comparison.seeds}
    return {seed: cell for seed, cell in found.items() if cell is not None}


def _metrics(
    cells: Mapping[int, Measures], references: Mapping[str, Mapping[int, Measures]], by: ComparedBy
) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    for name in METRICS:
        statistic = worst_decile if name == "worst_decile" else client_mean
        found = estimate(list(_values(name, cells, references.get(name, {}), by)), statistic)
        metrics[name] = None if found is None else by.written(name, found).to_json()
    return metrics


def _values(
    name: str, cells: Mapping[int, Measures], reference: Mapping[int, Measures], by: ComparedBy
) -> Iterator[list[float]]:
    """Yield the values of each seed's clients; differences are from the same client and seed of `reference`."""
    for seed, cell in cells.items():
        if name in RUN_METRICS:
            value = cell.run[name]
            yield [] if value is None else [value]
        elif name in ("difference", "change"):
            if seed in reference:
                own, other = cell.scores, reference[seed].scores
                yield [own[client] - other[client] for client in sorted(own.keys() & other.keys())]
        elif name in (by.metric, "worst_decile"):
            yield list(cell.scores.values())
        else:
            yield list(cell.clients[name].values())


def _late(cells: Sequence[Measures], by: ComparedBy) -> dict[str, Any] | None:
    if not any(cell.late for cell in cells):
        return None
    late: dict[str, Any] = {}
    for name in (by.metric, "evaluations"):
        values = [cell.scores if name == by.metric else cell.clients[name] for cell in cells]
        own = [[v for client, v in of.items() if client in cell.late] for of, cell in zip(values, cells, strict=True)]
        found = estimate(own)
        late[name] = None if found is None else by.written(name, found).to_json()
    return late


def _personal_share(cells: Sequence[Measures]) -> list[float]:
    shares = [cell.personal for cell in cells if cell.personal]
    return np.mean(shares, axis=0).tolist() if shares else []


def _mean(values: Sequence[bool]) -> float | None:
    return float(np.mean(values)) if values else None


def _common(settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the settings that are the same in all of `settings`."""
    if not settings:
        return {}
    return {k: v for k, v in settings[0].items() if all(k in other and other[k] == v for other in settings)}
