"""What a comparison consists of: methods x points of the sweep x seeds, all checked before the first cell runs."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from personalization.errors import UserError
from server.sampling import sample_size
from simulations.arms.registry import ARMS
from simulations.comparison.cells import ARM_PREFIX
from simulations.comparison.comparison import Comparison, Point
from simulations.comparison.worlds import check_fleets
from simulations.conditions.roles import assign_roles
from simulations.fleet import check_cohort
from simulations.scenario import Scenario, read_scenario
from simulations.tables import parse_text, read_value, unknown
from strategies.registry import canonical


def plan_comparison(
    *, strategies: str, arms: str, scenario: str, sweeps: Sequence[str], seeds: int, first_seed: int
) -> Comparison:
    """Return the comparison that these texts describe, as the command line takes them.

    strategies: specifications with commas between. arms: names with commas between, `all` or `none`. scenario: a
    bundled name or a file. sweeps: `setting=value,value`, see `Scenario.setting_path`; all combinations are run. seeds:
    how many, from first_seed on. Raises UserError for whatever a cell would stumble over: unknown names, values out of
    range, cohorts too small, data and models that do not work.
    """
    if seeds < 1 or first_seed < 0:
        raise UserError(f"{seeds} seeds from {first_seed}: expected 1 or more, from 0 or more")
    specs = list(dict.fromkeys(map(canonical, _listed(strategies))))
    if not specs:
        raise UserError("no strategies to compare: name one or more, with commas between")
    base = read_scenario(scenario)
    sweep = _read_sweeps(base, sweeps)
    points, scenarios = [], []
    for values in itertools.product(*sweep.values()):
        point, found = _point(base, dict(zip(sweep, values, strict=True)))
        for spec in specs:
            _check_cohort(found, spec, where=f" at {point.label}" if sweep else "")
        points.append(point)
        scenarios.append(found)
    named = _read_arms(arms)
    check_fleets(scenarios, arms=named)
    return Comparison(
        methods=(*specs, *(f"{ARM_PREFIX}{name}" for name in named)),
        scenario=base.to_dict(),
        sweep=sweep,
        points=tuple(points),
        seeds=tuple(range(first_seed, first_seed + seeds)),
    )


def plan_record(**texts: Any) -> dict[str, Any]:
    """Return `plan_comparison(**texts)` as what JSON can hold."""
    return plan_comparison(**texts).to_record()


def _point(base: Scenario, settings: Mapping[str, Any]) -> tuple[Point, Scenario]:
    scenario = base
    for key, value in settings.items():
        scenario = scenario.with_setting(key, value)
    return Point(settings=settings, scenario=scenario.to_dict()), scenario


def _check_cohort(scenario: Scenario, spec: str, *, where: str) -> None:
    """Refuse a strategy that the smallest round of the fleet, without those who come late, is too small for."""
    fleet = scenario.fleet_settings(out=Path(), seed=0, strategy=spec)
    late = assign_roles(scenario.conditions, fleet.clients, 0).late
    try:
        check_cohort(fleet, sample_size(fleet.clients - len(late), fleet.fraction))
    except UserError as error:
        raise UserError(f"strategy {spec}{where}: {error}") from error


def _read_arms(text: str) -> list[str]:
    if text == "all":
        return list(ARMS)
    names = [] if text == "none" else list(dict.fromkeys(_listed(text)))
    for name in names:
        if name not in ARMS:
            raise unknown("arm", name, [*ARMS, "all", "none"])
    return names


def _read_sweeps(base: Scenario, sweeps: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Return the values of each swept setting, as a scenario file would have them."""
    read: dict[str, tuple[Any, ...]] = {}
    for text in sweeps:
        key, _, values = text.partition("=")
        listed = _listed(values)
        if not key.strip() or not listed:
            raise UserError(f"sweep {text!r}: expected setting=value,value, for instance budget=0.3,0.5")
        path = base.setting_path(key.strip())
        if path in read:
            raise UserError(f"sweep {path}: given twice; give all its values in one --sweep")
        kind = base.setting_types()[path]
        read[path] = tuple(dict.fromkeys(read_value(path, parse_text(value, kind), kind) for value in listed))
    return read


def _listed(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(",") if entry.strip()]
