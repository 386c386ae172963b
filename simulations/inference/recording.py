"""Vectors that clients send, recorded once over the path that they take in any fleet, for all attacks alike."""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from personalization.wire.plan import Plan
from personalization.wire.statistics import StatisticsLayout
from server.planning import FleetKnowledge, PlanningSettings, learn
from simulations.arms.service import Service
from simulations.inference.shadow import CHUNK, LIVES, ShadowFleet, fleet_settings
from simulations.inference.store import Store
from strategies.precision_weighted_mean import PrecisionWeightedMean

Vectors = NDArray[np.float64]
OnProgress = Callable[[str, int, int], None]

# What is recorded of each client, in this order along the second dimension of the vectors: the first life's two
# rounds, of which the second goes on with the probes of the first, and a round of the second life.
FIRST, SECOND, AFRESH = range(3)
WARM_UP_ROUNDS = 2


class Recorder:
    """Records clients in chunks of ten, each in a file of its own, and goes on where an earlier run ended."""

    def __init__(self, fleet: ShadowFleet) -> None:
        """Take the clients."""
        self._fleet, self._settings = fleet, fleet.settings
        self._store = Store(fleet.settings)

    def vectors(self, clients: NDArray[np.int64], on_progress: OnProgress) -> Vectors:
        """Return the vectors [clients, observations, statistics] of `clients`, recording those that are missing."""
        chunks = sorted({int(client) // CHUNK for client in clients})
        rows: dict[int, Vectors] = {}
        for done, chunk in enumerate(chunks):
            members = range(chunk * CHUNK, (chunk + 1) * CHUNK)
            rows.update(zip(members, self.chunk(chunk), strict=True))
            on_progress("recording vectors", done + 1, len(chunks))
        return np.stack([rows[int(client)] for client in clients])

    def asked(self) -> tuple[Plan, StatisticsLayout]:
        """Return the plan that clients answer, but for its version, and the layout of their vectors."""
        with self._service() as service:
            plan = self._make_plan(service, self._knowledge(service), WARM_UP_ROUNDS + 1)
            return plan, service.generic.layout

    def chunk(self, number: int) -> Vectors:
        """Return the vectors [CHUNK, observations, statistics] of one chunk of clients."""
        return self._store.keep(f"vectors-{number:04}", lambda: self._record(number))

    def _record(self, number: int) -> Vectors:
        clients = range(number * CHUNK, (number + 1) * CHUNK)
        with self._service() as service:
            knowledge = self._knowledge(service)
            found = [self._lives(service, knowledge, client) for client in clients]
        return np.stack(found)

    @contextmanager
    def _service(self) -> Iterator[Service]:
        with tempfile.TemporaryDirectory() as folder:
            yield Service(self._fleet.world, fleet_settings(self._settings, Path(folder)), Path(folder))

    def _lives(self, service: Service, knowledge: FleetKnowledge, client: int) -> Vectors:
        first, second = client * LIVES, client * LIVES + 1
        asked = ((first, WARM_UP_ROUNDS + 1), (first, WARM_UP_ROUNDS + 2), (second, WARM_UP_ROUNDS + 1))
        return np.stack([service.ask(self._make_plan(service, knowledge, v), [n])[n].vector for n, v in asked])

    def _make_plan(self, service: Service, knowledge: FleetKnowledge, version: int) -> Plan:
        settings = self._settings
        return knowledge.plan(service.generic.layout, version=version, probes=settings.probes, budget=settings.budget)

    def _warm_up(self, service: Service) -> Vectors:
        """Return what the rounds of the clients that warm up reduce to, [rounds, statistics]."""
        layout, rounds = service.generic.layout, list[Vectors]()
        for number in range(WARM_UP_ROUNDS):
            knowledge = self._learned(service, rounds)
            plan = self._make_plan(service, knowledge, number + 1)
            answers = service.ask(plan, [client * LIVES for client in range(self._settings.warm_up)])
            rounds.append(PrecisionWeightedMean()([answer.vector for answer in answers.values()], layout))
        return np.stack(rounds)

    def _knowledge(self, service: Service) -> FleetKnowledge:
        """Return what a server knows after the warm-up: the basis of the plans of all others."""
        return self._learned(service, self._store.keep("warm-up", lambda: self._warm_up(service)))

    def _learned(self, service: Service, rounds: Iterable[Vectors]) -> FleetKnowledge:
        layout = service.generic.layout
        knowledge = FleetKnowledge.empty(layout)
        for number, reduced in enumerate(rounds):
            knowledge = learn(
                knowledge,
                reduced,
                layout,
                np.repeat(np.arange(layout.layers), [len(groups) for groups in service.generic.groups]),
                clients=self._settings.warm_up,
                round_number=number + 1,
                settings=PlanningSettings(),
            )
        return knowledge
