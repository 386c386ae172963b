"""A fleet with the real client app and a tiny model, whose rounds are sums; what every client sends is noted."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conftest import fake_personalize, make_tiny_vit
from flwr.app import Message
from flwr.serverapp import Grid, ServerApp

from client.app import make_app
from client.data import InputFacts
from client.node_file import SUMS_ONLY
from personalization.data.tasks import PrivateSamples
from personalization.wire.statistics import StatisticsLayout
from server.backbone import GenericBackbone
from server.rounds import FleetServer
from server.settings import ServerSettings
from simulations.engine import node_id, run_in_process
from simulations.identities import SimulatedIdentities
from strategies.base import Strategy
from strategies.precision_weighted_mean import PrecisionWeightedMean
from strategies.protocol import SECURE
from strategies.registry import make_strategy
from strategies.secure_aggregation.cohorts import reduce_cohorts
from strategies.secure_aggregation.fixed_point import FixedPoint
from strategies.secure_aggregation.server import SecureTotal
from strategies.secure_protocol import MESSAGE, Step, read_secure_request

CLIENTS = 10
CLIENT_OF = {node_id(client): client for client in range(CLIENTS)}
IDENTITIES = SimulatedIdentities(b"i" * 32)
# Whether the reply of a client to a step of a round (a plan's version) is lost.
Lose = Callable[[int, Step | None, Message, int], bool]
# Changes the message of a client's reply to a step of a round.
Alter = Callable[[int, Step | None, bytes, int], bytes]


def load(node_config, run_config, facts: InputFacts) -> PrivateSamples:
    generator = torch.Generator().manual_seed(int(node_config["partition-id"]))
    return PrivateSamples({"pixel_values": torch.randn(9, 1, 8, 8, generator=generator)}, torch.arange(9) % 3)


class LossyGrid:
    def __init__(self, grid: Grid, lose: Lose, alter: Alter | None) -> None:
        self._grid, self._lose, self._alter = grid, lose, alter
        self.steps: list[tuple[int, Step | None]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._grid, name)

    def send_and_receive(self, messages, *, timeout=None) -> Iterator[Message]:
        for message in messages:
            asked = read_secure_request(message.content)
            step = None if asked is None else asked.step
            version, client = int(message.metadata.group_id), CLIENT_OF[message.metadata.dst_node_id]
            self.steps.append((version, step))
            for reply in self._grid.send_and_receive([message], timeout=timeout):
                if self._alter is not None and reply.has_content() and SECURE in reply.content:
                    own = reply.content[SECURE]
                    own[MESSAGE] = self._alter(version, step, own[MESSAGE], client)
                if not self._lose(version, step, message, client):
                    yield reply


class SecureRun:
    """plans: every plan's record by version and client. words: what each client sends, in fixed point.

    node: more of a client's own configuration.
    """

    def __init__(
        self,
        out: Path,
        *,
        mode: str = "sum",
        strategy: str | Strategy = "precision-weighted-mean",
        lose: Lose = lambda version, step, message, client: False,
        alter: Alter | None = None,
        sums_only: bool = True,
        node: Callable[[int], dict[str, Any]] = lambda client: {},
        identities: SimulatedIdentities = IDENTITIES,
        **changes: Any,
    ) -> None:
        self.plans: dict[tuple[int, int], dict[str, Any]] = {}
        self.words: dict[tuple[int, int], np.ndarray] = {}
        self.fixed = FixedPoint(16, CLIENTS)
        made = make_strategy(strategy) if isinstance(strategy, str) else strategy
        chosen = {"model": "tiny", "out": out, "rounds": 2, "fraction": 1.0, "min_nodes": CLIENTS, "probes": 2}
        own = {} if mode == "off" else {"enrolment_file": identities.write(out)}
        settings = ServerSettings(**{**chosen, "strategy": made.spec, "secure_aggregation": mode, **own, **changes})
        self.backbone = GenericBackbone(
            make_tiny_vit(), {"identifier": "tiny", "labels": ["a", "b", "c"], "preprocessing": None}, settings.levels
        )
        self.server = FleetServer(settings, self.backbone, made, run_config={"seed": 0})
        app = ServerApp()
        app.main()(lambda grid, context: self.server.run(grid) and None)

        def wrap(grid: Grid) -> LossyGrid:
            self.grid = LossyGrid(grid, lose, alter)
            return self.grid

        client_app = make_app(load, personalize=fake_personalize, identify=identities, tamper=self._note)
        config = {"out-dir": str(out), "seed": 0}
        only = {SUMS_ONLY: True} if sums_only else {}
        run_in_process(
            app,
            client_app,
            clients=CLIENTS,
            run_config=config,
            node_config=lambda c, v: {**only, **node(c)},
            wrap_grid=wrap,
        )
        self.journal = self.server.journal

    def _note(self, node_config, plan, layout: StatisticsLayout, vector: np.ndarray) -> np.ndarray:
        key = plan.version, int(node_config["partition-id"])
        self.plans[key], self.words[key] = plan.to_record(), self.fixed.to_words(vector)
        return vector

    def open_sum(self, version: int, clients) -> SecureTotal:
        """What the sum of these clients has to come to."""
        words = np.sum([self.words[version, client].astype(np.uint64) for client in clients], axis=0)
        words = words.astype(self.fixed.dtype)
        return SecureTotal(words, self.fixed.to_sum(words), tuple(clients), CLIENTS)

    def expected(self, version: int, clients) -> dict[str, float]:
        """What a round's record says of the fleet if these clients are in its sum."""
        layout = self.backbone.layout
        reduced = reduce_cohorts([self.open_sum(version, clients)], PrecisionWeightedMean(), layout)
        return reduced[layout.field("scalars")].tolist()


class OpenSum(PrecisionWeightedMean):
    """Takes no vector from the wire, but sums in the open what clients rounded."""

    run: SecureRun

    def __call__(self, vectors, layout: StatisticsLayout) -> np.ndarray:
        version = max(version for version, _ in self.run.words)
        return reduce_cohorts([self.run.open_sum(version, range(CLIENTS))], PrecisionWeightedMean(), layout)
