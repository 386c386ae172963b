"""The fleet's own service, asked for single rounds: clients get a plan, and vectors and personal models come back."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from numpy.typing import NDArray
from torch import nn

from client.app import make_app
from client.entries import MODEL, RECORD
from personalization.errors import UserError
from personalization.model_files.storage import load_personal_model
from personalization.settings import PersonalizationSettings
from personalization.wire.plan import Plan
from server.backbone import GenericBackbone
from server.exchange import exchange
from simulations.arms.base import FOUND, Row, World
from simulations.engine import node_id, run_in_process
from simulations.evaluation import client_folder
from simulations.fleet_settings import FleetSettings

_DEADLINE = 3600.0


@dataclass(frozen=True)
class Answer:
    """What came of a plan at one client: its vector [statistics], its own notes, and the bytes of both messages."""

    vector: NDArray[np.float64]
    found: Row
    uplink_bytes: int
    downlink_bytes: int


class Service:
    """Server and clients around one backbone; clients keep their state in `folder` from plan to plan."""

    def __init__(self, world: World, settings: FleetSettings, folder: Path) -> None:
        """Split the world's backbone as a server does. Raises UserError for models not understood."""
        backbone = world.backbone
        preprocessing = backbone.preprocessing
        description = {
            "identifier": backbone.identifier,
            "labels": list(backbone.labels),
            "preprocessing": None if preprocessing is None else preprocessing.to_dict(),
        }
        self.generic = GenericBackbone(backbone.model, description, len(PersonalizationSettings().levels))
        self.folder = folder
        self._config = replace(settings, out=folder).run_config()
        self._clients, self._app = world.data.clients, make_app(world.data)
        self._lacking: dict[int, NDArray[np.bool_]] = {}

    def ask(
        self,
        plan: Plan,
        clients: Sequence[int],
        *,
        budgets: Mapping[int, float] | None = None,
        config: Mapping[str, bool | int | float | str] | None = None,
    ) -> dict[int, Answer]:
        """Send `plan` to `clients` and return their answers.

        budgets: of clients that have one of their own. config: values that come before those of the fleet's run
        configuration. Raises UserError if a client fails.
        """
        answers: dict[int, Answer] = {}
        own = budgets or {}
        server = ServerApp()

        @server.main()
        def main(grid: Grid, _: Context) -> None:
            answers.update({client: self._ask(grid, plan, client) for client in clients})

        run_in_process(
            server,
            self._app,
            clients=self._clients,
            run_config={**self._config, **(config or {})},
            node_config=lambda client, version: {"budget": own[client]} if client in own else {},
        )
        return answers

    def model(self, client: int) -> nn.Module:
        """Return the personal model that a client has saved."""
        return load_personal_model(client_folder(self.folder, client) / MODEL).model

    def _ask(self, grid: Grid, plan: Plan, client: int) -> Answer:
        node = node_id(client)
        outcome = exchange(grid, self.generic, plan, [node], believed=self._lacking, deadline=_DEADLINE)
        if node not in outcome.vectors:
            raise UserError(f"client {client} did not answer: {self._reason(client, outcome.failures)}")
        self._lacking.update(outcome.lacking)
        notes = json.loads((client_folder(self.folder, client) / RECORD).read_text())["rounds"][str(plan.version)]
        traffic = outcome.traffic
        found = {key: notes[key] for key in FOUND}
        return Answer(outcome.vectors[node], found, traffic.uplink_bytes, traffic.downlink_bytes)

    def _reason(self, client: int, failures: Mapping[str, int]) -> str:
        path = client_folder(self.folder, client) / "last_error.json"
        return json.loads(path.read_text())["message"] if path.is_file() else ", ".join(failures)
