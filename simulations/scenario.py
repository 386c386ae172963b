"""Scenarios: a fleet and what it has to live with, as a TOML file that people write."""

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from personalization.errors import UserError
from simulations.conditions.roles import assign_roles
from simulations.conditions.settings import Attackers, Conditions, DeviceClass, Drift, LateJoiners
from simulations.fleet_settings import FleetSettings
from simulations.partition import PartitionSettings
from simulations.sotu import NAME as SPEECHES
from simulations.sotu import default_folder
from simulations.tables import field_types, parse_text, read_dataclass, read_table, read_value, unknown

SCENARIOS = Path(__file__).parent / "scenarios"
FLEET_FIELDS = (
    "clients",
    "rounds",
    "fraction",
    "partition",
    "classes_per_client",
    "alpha",
    "samples",
    "reuse",
    "budget",
    "budget_kind",
    "signal",
    "probes",
    "final_probes",
    "first_probes",
    "solver",
    "steps",
    "step_probes",
    "tolerance",
    "layer_limit",
    "recovery",
    "refit_samples",
    "tune_first",
    "training_steps",
    "adapters",
    "training_precision",
    "adapt_head",
    "secure_aggregation",
    "cohort_size",
    "dp",
    "epsilon",
    "delta",
    "clip",
    "data",
    "model",
    "windows",
    "window_tokens",
    "vocabulary",
)
_FLEET_TYPES = field_types(FleetSettings, FLEET_FIELDS)
_TOP_TYPES = {"name": str, "description": str, "target_loss": float}
_RATE_TYPES = {"dropout": float, "stragglers": float}
_TABLES: dict[str, type] = {"late": LateJoiners, "drift": Drift, "attack": Attackers}
_KEYS = (*_TOP_TYPES, "fleet", "conditions", "devices", *_TABLES)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One set of circumstances under which strategies are compared.

    fleet: the fields of FleetSettings that `FLEET_FIELDS` names; those left out get their defaults. data is a path as
    text. target_loss: how far (as a share, 0.01 is one point) the mean accuracy of personal models may lie below that
    of the dense model with fitted heads, for the target to count as reached.
    """

    name: str
    description: str = ""
    fleet: dict[str, Any] = field(default_factory=dict)
    conditions: Conditions = field(default_factory=Conditions)
    target_loss: float = 0.01

    def __post_init__(self) -> None:
        """Fill in defaults and refuse what makes no sense, alone or together. Raises UserError."""
        if not 0.0 <= self.target_loss <= 1.0:
            raise UserError(f"target_loss {self.target_loss}: expected a share from 0 to 1")
        defaults = {f.name: f.default for f in fields(FleetSettings) if f.name in FLEET_FIELDS}
        filled = {name: defaults[name] for name in FLEET_FIELDS}
        object.__setattr__(self, "fleet", {**filled, **read_table("fleet", self.fleet, _FLEET_TYPES)})
        self.fleet_settings(out=Path(), seed=0)
        self._check_partition()
        self._check_rounds()
        self._check_privacy()

    def fleet_settings(self, **given: Any) -> FleetSettings:
        """Return the settings of a run; `given` are fields that no scenario has: `out`, `seed`, `strategy`."""
        data = self.fleet["data"]
        return FleetSettings(**{**self.fleet, "data": None if data is None else Path(data)}, **given)

    def to_dict(self) -> dict[str, Any]:
        """Return the scenario as what JSON can hold, every default filled in; `from_dict` gives the same back."""
        conditions = asdict(self.conditions)
        rates = {name: conditions[name] for name in _RATE_TYPES}
        tables = {name: conditions[name] for name in _TABLES}
        top = {name: getattr(self, name) for name in _TOP_TYPES}
        return {
            **top,
            "fleet": dict(self.fleet),
            "conditions": rates,
            "devices": list(conditions["devices"]),
            **tables,
        }

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> "Scenario":
        """Return the scenario in `record`, with the keys of a file; None is the same as a table that is left out.

        Raises UserError that names the key.
        """
        for key in record:
            if key not in _KEYS:
                raise unknown("key of a scenario", str(key), _KEYS)
        given = {key: value for key, value in record.items() if value is not None}
        top = {key: read_value(key, given[key], kind) for key, kind in _TOP_TYPES.items() if key in given}
        devices = given.get("devices", [])
        if not isinstance(devices, list | tuple):
            raise UserError("devices: expected a list of tables, each begun with [[devices]]")
        conditions = Conditions(
            **read_table("conditions", given.get("conditions", {}), _RATE_TYPES),
            devices=tuple(read_dataclass("devices", device, DeviceClass) for device in devices),
            **{key: read_dataclass(key, given[key], table) for key, table in _TABLES.items() if key in given},
        )
        return Scenario(**{"name": "scenario", **top}, fleet=given.get("fleet", {}), conditions=conditions)

    def setting_types(self) -> dict[str, Any]:
        """Return the type of every setting that can be swept, by its full name (`fleet.budget`, `attack.kind`)."""
        types: dict[str, Any] = {"target_loss": float}
        types |= {f"fleet.{name}": kind for name, kind in _FLEET_TYPES.items()}
        types |= {f"conditions.{name}": kind for name, kind in _RATE_TYPES.items()}
        for device in self.conditions.devices:
            own = field_types(DeviceClass, ("share", "budget", "speed"))
            types |= {f"devices.{device.name}.{name}": kind for name, kind in own.items()}
        for table, settings in _TABLES.items():
            types |= {f"{table}.{name}": kind for name, kind in field_types(settings).items()}
        return types

    def setting_path(self, name: str) -> str:
        """Return the full name of a setting, for which the last part does where only one setting has it.

        Raises UserError for names that there are not, with the nearest, and for those that could be several.
        """
        paths = list(self.setting_types())
        wanted = name if name in paths else name.replace("-", "_")
        if wanted in paths:
            return wanted
        named = [path for path in paths if path.split(".")[-1] == wanted and not path.startswith("devices.")]
        if len(named) > 1:
            raise UserError(f"setting {name!r}: could be any of {', '.join(named)}; give the full name")
        if not named:
            known = paths if "." in name else [path.split(".")[-1] for path in paths]
            raise unknown("setting", name, dict.fromkeys(known))
        return named[0]

    def with_setting(self, name: str, value: object) -> "Scenario":
        """Return the same scenario but for one setting; the tables that it needs are begun where they are missing.

        name: see `setting_path`. value: a text stands for the number that it spells, where a number is due. Raises
        UserError.
        """
        path = self.setting_path(name)
        kind = self.setting_types()[path]
        read = read_value(path, parse_text(value, kind) if isinstance(value, str) else value, kind)
        record = self.to_dict()
        table, _, key = path.partition(".")
        if table == "devices":
            device_name, _, key = key.rpartition(".")
            next(device for device in record["devices"] if device["name"] == device_name)[key] = read
        elif key:
            record[table] = {**(record[table] or {}), key: read}
        else:
            record[table] = read
        return Scenario.from_dict(record)

    def _check_partition(self) -> None:
        fleet = self.fleet
        shared = ("clients", "classes_per_client", "samples", "alpha", "reuse")
        PartitionSettings(kind=fleet["partition"], **{name: fleet[name] for name in shared})
        if fleet["partition"] != "natural":  # its clients are only known once the data are read
            assign_roles(self.conditions, fleet["clients"], 0)

    def _check_privacy(self) -> None:
        if (
            self.conditions.attack is not None
            and self.fleet["dp"] != "off"
            and self.fleet["secure_aggregation"] == "off"
        ):
            raise UserError(
                "attack with dp: what attackers send in the open is made for vectors without noise; choose "
                "secure_aggregation sum or cohorts, or dp off"
            )

    def _check_rounds(self) -> None:
        rounds, late, drift = self.fleet["rounds"], self.conditions.late, self.conditions.drift
        if late is not None and late.after_round > rounds:
            raise UserError(f"late.after_round {late.after_round}: expected at most the {rounds} rounds of the fleet")
        if drift is not None and drift.at_round > rounds + 1:
            raise UserError(
                f"drift.at_round {drift.at_round}: expected at most {rounds + 1}, the final pass after {rounds} rounds"
            )


def bundled_scenarios() -> list[str]:
    """Return the names of the scenarios that come with the package."""
    return sorted(path.stem for path in SCENARIOS.glob("*.toml"))


def read_scenario(name: str | Path) -> Scenario:
    """Return the scenario in a TOML file, or the bundled one of this name. Relative paths in it start at the file.

    Raises UserError that names the file and the key.
    """
    path = Path(name)
    if path.suffix != ".toml" and not path.is_file():
        names = bundled_scenarios()
        if str(name) not in names:
            raise UserError(f"{unknown('scenario', str(name), names)}; or give the path of a .toml file")
        path = SCENARIOS / f"{name}.toml"
    try:
        record = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"scenario {path}: {error.strerror}; give a readable .toml file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"scenario {path}: is not valid TOML: {error}") from error
    try:
        return Scenario.from_dict({"name": path.stem, **record, **_fleet_with_paths(record, path.parent)})
    except UserError as error:
        raise UserError(f"scenario {path}: {error}") from error


def _fleet_with_paths(record: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the fleet's table with data and model relative to `folder`.

    A model that is no folder there is a name, and the speeches that `python -m simulations.sotu` fetches are one, too.
    """
    fleet = record.get("fleet")
    if not isinstance(fleet, dict):
        return {}
    found = dict(fleet)
    if isinstance(fleet.get("data"), str):
        fetched = fleet["data"] == SPEECHES and not (folder / SPEECHES).exists()
        found["data"] = str(default_folder() if fetched else (folder / fleet["data"]).absolute())
    if isinstance(fleet.get("model"), str) and (folder / fleet["model"]).is_dir():
        found["model"] = str((folder / fleet["model"]).absolute())
    return {"fleet": found}
