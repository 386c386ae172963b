"""The same fleet in the simulator: same apps, names, images, seeds and losses, all in one process.

Nothing in a plan depends on machines, clocks or Flower's own numbers, so the two must agree to the last bit. Only what
was lost on the way makes a difference, and the simulation loses the same messages.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid

from benchmarks.edge.device import Device
from client.app import make_app as make_client_app
from deployment.serve.settings import ServeSettings
from personalization.model_files.manifest import Manifest
from personalization.model_files.storage import read_manifest
from personalization.system.torch_threads import torch_threads
from server.app import make_app as make_server_app
from server.forwarding_grid import ForwardingGrid
from server.journal import Journal, load_journal
from simulations.engine import node_id, run_in_process
from simulations.identities import SimulatedIdentities

_SUMS = ("precision", "weighted", "kept", "replies", "dropped")


@dataclass(frozen=True)
class Replay:
    """What the simulator made of it. models: manifest of each device's personal model, by name."""

    journal: Journal
    models: Mapping[str, Manifest]


def replay(
    serve: ServeSettings, devices: Sequence[Device], folder: Path, *, missed: Mapping[str, frozenset[int]]
) -> Replay:
    """Simulate what a fleet was deployed to do.

    folder: takes the simulation's state. missed: versions of the plan that a device, by name, lost before it had
    worked on them.
    """
    config = {**serve.run_config(), "out-dir": str(folder), "journal-dir": "", "signing-key-file": ""}
    identities = SimulatedIdentities.new()
    config["enrolment-file"] = str(identities.write(folder))
    own = [
        {"client-name": d.name, "data-dir": str(d.data), "state-dir": str(folder / "devices" / d.name)} for d in devices
    ]
    lost = {(node_id(number), version) for number, d in enumerate(devices) for version in missed.get(d.name, ())}
    with torch_threads(1):  # as on the devices
        run_in_process(
            make_server_app(config=config),
            make_client_app(identify=identities),
            clients=len(devices),
            run_config=config,
            node_config=lambda client, version: own[client],
            wrap_grid=lambda grid: LossyGrid(grid, lost),
        )
    models = {d.name: read_manifest(folder / "devices" / d.name / "model") for d in devices}
    return Replay(load_journal(folder / "server"), models)


def differences(deployed: Journal, simulated: Journal) -> list[str]:
    """Return what two fleets learned or planned differently; nothing if they agree to the last bit."""
    found = [
        f"knowledge.{name}"
        for name in _SUMS
        if not np.array_equal(getattr(deployed.knowledge, name), getattr(simulated.knowledge, name))
    ]
    pairs = [*zip(deployed.rounds, simulated.rounds, strict=False), (deployed.final, simulated.final)]
    for number, (one, other) in enumerate(pairs, 1):
        for key in ("round", "clients_sampled", "clients_replied", "dropped_units", "fleet"):
            if (one or {}).get(key) != (other or {}).get(key):
                found.append(f"round {number}, {key}")
    if len(deployed.rounds) != len(simulated.rounds):
        found.append(f"{len(deployed.rounds)} and {len(simulated.rounds)} rounds")
    return found


class LossyGrid(ForwardingGrid):
    """A grid that loses the messages that a deployed fleet has lost: (node, version of the plan)."""

    def __init__(self, grid: Grid, lost: Iterable[tuple[int, int]]) -> None:
        """Pass everything on to `grid` but what is in `lost`."""
        super().__init__(grid)
        self._lost = frozenset(lost)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Deliver messages and return the ids of those that arrive."""
        return self._grid.push_messages(self._arriving(messages))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Deliver messages and return the replies to those that arrive."""
        return self._grid.send_and_receive(self._arriving(messages), timeout=timeout)

    def _arriving(self, messages: Iterable[Message]) -> Iterator[Message]:
        for message in messages:
            if (message.metadata.dst_node_id, int(message.metadata.group_id or 0)) not in self._lost:
                yield message
