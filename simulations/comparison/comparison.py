"""What is compared: methods, points of the sweep and seeds, as plain values that need no heavy package."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from simulations.comparison.cells import Cell


@dataclass(frozen=True, kw_only=True)
class Point:
    """One combination of the swept settings, and the scenario that has them, as `Scenario.to_dict()` gives it."""

    settings: Mapping[str, Any]
    scenario: Mapping[str, Any]

    @property
    def label(self) -> str:
        """What the point is called: its settings, or the scenario's name where nothing is swept."""
        named = [f"{key}={_shown(value)}" for key, value in self.settings.items()]
        return ", ".join(named) or str(self.scenario["name"])


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Every method at every point with every seed.

    methods: strategies, then arms as `arm:<name>`; differences are from the first. scenario: as it was before sweeps,
    `Scenario.to_dict()`. sweep: the values of each swept setting.
    """

    methods: tuple[str, ...]
    scenario: Mapping[str, Any]
    sweep: Mapping[str, tuple[Any, ...]]
    points: tuple[Point, ...]
    seeds: tuple[int, ...]

    def cells(self) -> Iterator[tuple[int, Cell]]:
        """Yield the number of the point and the cell, for all cells: by point, then method, then seed."""
        for (number, point), method, seed in itertools.product(enumerate(self.points), self.methods, self.seeds):
            yield number, Cell(method=method, scenario=point.scenario, seed=seed)

    def to_record(self) -> dict[str, Any]:
        """Return the comparison as what JSON can hold."""
        return asdict(self)

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> "Comparison":
        """Return the comparison that `to_record` described."""
        return Comparison(
            methods=tuple(record["methods"]),
            scenario=record["scenario"],
            sweep={key: tuple(values) for key, values in record["sweep"].items()},
            points=tuple(Point(**point) for point in record["points"]),
            seeds=tuple(record["seeds"]),
        )


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
