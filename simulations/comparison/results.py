"""results.csv: a row for each client in each round of each cell, and one for its final personal model."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from simulations.comparison.cells import Cell, method_kind
from simulations.comparison.comparison import Point

FINAL = "final"
_FRONT = ("scenario", "method", "kind", "seed", "round", "client", "status", "device", "late", "drifted", "privacy")
_FIGURES = (
    "evaluations",
    "personal_accuracy",
    "dense_accuracy",
    "dense_fitted_accuracy",
    "perplexity_ratio",
    "personal_perplexity",
    "dense_perplexity",
    "agreement",
    "weights_kept",
    "products_kept",
    "bytes",
    "bytes_in_full",
    "bytes_zipped",
    "entropy_increase",
    "fit_r2",
    "samples",
    "classes",
    "uplink_bytes",
    "downlink_bytes",
    "personalized_layers",
)
# All that differs when the same command is run again, and nothing else.
TIMING = ("latency_ms", "cell_wall_seconds", "cell_cpu_seconds")
_ROLES = ("device", "late", "drifted")


class ResultsTable:
    """The text of results.csv, grown cell by cell."""

    def __init__(self, swept: Sequence[str]) -> None:
        """Begin with the header; `swept` settings have a column each, named `set:` and the setting."""
        self._text = io.StringIO()
        self._swept = tuple(swept)
        columns = [*_FRONT[:1], *(f"set:{key}" for key in swept), *_FRONT[1:], *_FIGURES, *TIMING]
        self._writer = csv.DictWriter(self._text, columns, restval="", lineterminator="\n")
        self._writer.writeheader()

    def add(self, point: Point, cell: Cell, result: Mapping[str, Any]) -> None:
        """Add the rows of a cell: rounds in order, then `final`; in each of them clients by number."""
        same = {
            "scenario": cell.scenario["name"],
            **{f"set:{key}": _text(point.settings[key]) for key in self._swept},
            "method": cell.method,
            "kind": method_kind(cell.method),
            "seed": cell.seed,
            "privacy": result["privacy"],
            "cell_wall_seconds": _text(result["timing"]["wall_seconds"]),
            "cell_cpu_seconds": _text(result["timing"]["cpu_seconds"]),
        }
        for row in _rows(result):
            known = {key: _text(row[key]) for key in ("round", "client", "status", *_ROLES, *_FIGURES) if key in row}
            self._writer.writerow({**same, **known, "latency_ms": _text(row.get("latency_ms"))})

    def to_bytes(self) -> bytes:
        """Return the file."""
        return self._text.getvalue().encode()


def _rows(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    final = sorted(result["clients"], key=lambda row: row["client"])
    roles = {row["client"]: {key: row.get(key) for key in _ROLES} for row in final}
    for row in sorted(result["rounds"], key=lambda row: (row["round"], row["client"])):
        yield {**row, **roles.get(row["client"], {})}
    for row in final:
        yield {**row, "round": FINAL, "status": FINAL}


def _text(value: Any) -> str:
    """Write a value so that reading it gives it back: shortest decimals, true and false, lists with spaces."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return " ".join(_text(entry) for entry in value)
    return repr(value) if isinstance(value, float) else str(value)
