"""Run one cell: a strategy's fleet under the conditions of its scenario, or a reference arm on the same clients."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from flwr.serverapp import Grid

from client.app import make_app as make_client_app
from client.entries import MODEL, RECORD
from personalization.allocation.footprint import block_weights
from personalization.model_files.storage import load_personal_model, read_manifest
from personalization.transformer.layers import Layer, find_layers
from server.app import make_app as make_server_app
from server.journal import load_journal
from server.sampling import sample_size
from simulations.arms.base import World
from simulations.arms.registry import find_arm, run_arm
from simulations.comparison.cells import ARM_PREFIX, Cell
from simulations.comparison.first_search import FirstSearches
from simulations.comparison.quality import ACCURACY, PERPLEXITY
from simulations.comparison.worlds import Worlds, model_facts
from simulations.conditions.grid import REPLIED, ConditionedGrid
from simulations.conditions.masked_lies import MaskedLies
from simulations.conditions.roles import Roles
from simulations.engine import ConfigValue, node_id, run_in_process
from simulations.evaluation import client_folder, evaluate_client
from simulations.fleet import check_cohort, make_identities
from simulations.fleet_settings import FleetSettings
from simulations.noise import SimulatedNoise
from simulations.private_data import ROUND
from simulations.scenario import Scenario
from strategies.privacy.words import write_privacy

Row = dict[str, Any]


def run_cell(cell: Cell, folder: Path) -> Row:
    """Return what the cell came to, see docs/comparing.md; what the run writes goes to the empty `folder`.

    Everything but `timing` follows from the cell. Raises UserError for what can't be run as asked.
    """
    clock = _Clock(_worlds().first_searches)
    # One thread: sums in another order differ in their last digits, and cells run side by side.
    torch.set_num_threads(1)
    scenario = Scenario.from_dict(cell.scenario)
    arm = cell.method.removeprefix(ARM_PREFIX) if cell.method.startswith(ARM_PREFIX) else None
    chosen = {} if arm else {"strategy": cell.method}
    settings = scenario.fleet_settings(out=folder, seed=cell.seed, **chosen)
    world = _worlds().get(cell.fleet_key, scenario, settings)
    result = _arm(arm, world, settings) if arm else _Fleet(scenario, settings, world, _worlds(), cell.fleet_key).run()
    config = settings.run_config()
    layers = find_layers(world.backbone.model)
    own = ("out-dir", "resume", "engine", "private-data", "min-nodes", *(["strategy"] if arm else []))
    return {
        **result,
        "clients": [
            {**row, "products_kept": _products_kept(row["levels"], layers), **_role(row["client"], scenario, world)}
            for row in result["clients"]
        ],
        "model": model_facts(world),
        "settings": {key: value for key, value in sorted(config.items()) if key not in own} | _decided_by(arm),
        "timing": clock.read(),
    }


@cache
def _worlds() -> Worlds:
    """Return what this process keeps from cell to cell."""
    return Worlds()


class _Clock:
    """The time of a cell, as if it had computed everything itself: what it took from memory counts, too."""

    def __init__(self, searches: FirstSearches) -> None:
        self._searches, self._reused = searches, searches.reused_seconds
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        reused = self._searches.reused_seconds - self._reused
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        return {"wall_seconds": wall + reused, "cpu_seconds": cpu + reused, "reused_seconds": reused}


def _decided_by(arm: str | None) -> Row:
    """Return what decides an arm beside the fleet's settings."""
    return {} if arm is None else {f"arm-{key}": value for key, value in find_arm(arm).hyper_parameters().items()}


def _arm(name: str, world: World, settings: FleetSettings) -> Row:
    result = run_arm(name, world, settings)
    return {"clients": result.clients, "rounds": [], "fleet": [], "server_rounds": result.rounds, "privacy": "none"}


def _products_kept(levels: Sequence[float], layers: Sequence[Layer]) -> float:
    """Return the share of the products with the blocks' weights that are left at these levels; zeros count in full."""
    left = sum((1.0 - level) * layer.weights for level, layer in zip(levels, layers, strict=True))
    return left / block_weights(layers)


def _role(client: int, scenario: Scenario, world: World) -> Row:
    assert world.roles is not None
    return {
        "device": scenario.conditions.classes[world.roles.device_class[client]].name,
        "late": client in world.roles.late,
        "drifted": client in world.roles.drifting,
    }


@dataclass
class _Fleet:
    """One run of a strategy's fleet, and what is noted about it round by round."""

    scenario: Scenario
    settings: FleetSettings
    world: World
    worlds: Worlds
    fleet_key: str
    qualities: dict[tuple[int, int], float] = field(default_factory=dict)
    grid: ConditionedGrid | None = None
    lies: MaskedLies | None = None

    def run(self) -> Row:
        """Run it and return the part of the cell's result that it decides."""
        config: dict[str, ConfigValue] = self.settings.run_config()
        clients, roles = self.world.data.clients, self._roles
        attack = self.scenario.conditions.attack
        forger = None if attack is None else attack.attack()
        if self.settings.secure_aggregation != "off" and forger is not None:
            self.lies = MaskedLies(forger, roles, self.settings.seed)
        config["min-nodes"] = clients - len(roles.late)
        check_cohort(self.settings, sample_size(clients - len(roles.late), self.settings.fraction))
        noise = SimulatedNoise(self.settings.seed)
        crossed = run_in_process(
            make_server_app(
                config=config, on_round=self._judge_round, noise=noise.server, load=lambda _: self.world.backbone
            ),
            make_client_app(
                self.world.data,
                # A language model is too large to keep many of.
                personalize=None if self.world.is_text else self.worlds.first_searches,
                identify=make_identities(self.settings, config),
                tamper=self.lies,
                noise=noise,
            ),
            clients=clients,
            run_config=config,
            node_config=self._node_config,
            wrap_grid=self._conditioned,
        )
        rows = []
        for client in self.world.clients:
            traffic = {"uplink_bytes": crossed[client].up, "downlink_bytes": crossed[client].down}
            folder = client_folder(self.settings.out, client)
            if (folder / RECORD).is_file():
                rows.append({**evaluate_client(folder, client, self.world.evaluator), **traffic})
        journal = load_journal(self.settings.out / "server")
        assert journal.final is not None
        privacy = write_privacy(journal.final["privacy"])
        fleet = [*journal.rounds, journal.final]
        return {"clients": rows, "rounds": self._round_rows(), "fleet": fleet, "privacy": privacy}

    @property
    def _roles(self) -> Roles:
        assert self.world.roles is not None
        return self.world.roles

    @property
    def _metric(self) -> str:
        return PERPLEXITY if self.world.is_text else ACCURACY

    def _conditioned(self, grid: Grid) -> Grid:
        clients = {node_id(client): client for client in range(self.world.data.clients)}
        self.grid = ConditionedGrid(
            grid,
            self.scenario.conditions,
            self._roles,
            client_of=clients.__getitem__,
            seed=self.settings.seed,
            lies=self.lies,
        )
        return self.grid

    def _node_config(self, client: int, version: int) -> Mapping[str, ConfigValue]:
        budget = self.world.budgets.get(client)
        return {ROUND: version} | ({} if budget is None else {"budget": budget})

    def _judge_round(self, record: Mapping[str, Any]) -> None:
        """Judge the personal models of those who took part in a round, on the data that they held in it."""
        number = int(record["round"])
        if self.grid is None or number > self.settings.rounds:
            return
        for event in self.grid.events:
            if event["round"] == number and event["status"] == REPLIED:
                client = int(event["client"])
                self.qualities[number, client] = self._quality(client, number)

    def _quality(self, client: int, number: int) -> float:
        """Return how good a client's stored model is; methods whose first plans are alike share the first ones."""
        folder, known = client_folder(self.settings.out, client) / MODEL, self.worlds.qualities
        key = (self.fleet_key, client, number, read_manifest(folder).weights_sha256)
        if key not in known:
            known[key] = self.world.evaluator.loaded_row(client, load_personal_model(folder), number)[self._metric]
        return known[key]

    def _round_rows(self) -> list[Row]:
        assert self.grid is not None
        noted: dict[int, Row] = {}
        rows = []
        for event in self.grid.events:
            number, client = int(event["round"]), int(event["client"])
            if number > self.settings.rounds:
                continue
            if client not in noted:
                path = client_folder(self.settings.out, client) / RECORD
                noted[client] = json.loads(path.read_text())["rounds"] if path.is_file() else {}
            entry = noted[client].get(str(number), {}) if event["status"] != "attacker" else {}
            found = {key: entry.get(key) for key in ("evaluations", "weights_kept", "agreement", "entropy_increase")}
            rows.append({**event, **found, self._metric: self.qualities.get((number, client))})
        return rows
