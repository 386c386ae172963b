"""What every reference arm takes and gives: a world of clients in, one row for each client out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from client.data import InputFacts
from client.settings import read_settings
from personalization.data.tasks import PrivateSamples
from personalization.model_files.backbone import Backbone
from personalization.model_files.storage import stored_bytes, stored_tensors
from personalization.pipeline import Personalization
from personalization.settings import PersonalizationSettings
from personalization.wire.plan import Plan
from simulations.arms.models import as_stored
from simulations.conditions.roles import Roles
from simulations.evaluation import Judge
from simulations.fleet_settings import FleetSettings
from simulations.private_data import FleetData
from simulations.speakers import SpeakerData

Row = dict[str, Any]

# What making a model adds to what the evaluator says of it.
FOUND = ("weights_kept", "evaluations", "personalized_layers", "levels", "entropy_increase", "fit_r2")


@dataclass(frozen=True)
class World:
    """What a cell of a comparison has loaded before it runs an arm.

    evaluator: judges models as those of a fleet are judged. roles: None if every client is honest. budgets: of the
    clients whose device has a budget of its own instead of the fleet's.
    """

    backbone: Backbone
    data: FleetData | SpeakerData
    evaluator: Judge
    roles: Roles | None = None
    budgets: Mapping[int, float] = field(default_factory=dict)

    @property
    def clients(self) -> list[int]:
        """The honest clients, in order."""
        attackers = frozenset[int]() if self.roles is None else self.roles.attackers
        return [client for client in range(self.data.clients) if client not in attackers]

    @property
    def is_text(self) -> bool:
        """Whether its clients hold text."""
        return isinstance(self.data, SpeakerData)

    def samples(self, client: int) -> PrivateSamples:
        """Return what a client holds in the end, after any drift: arms know no rounds in which data change."""
        return self.data(
            {"partition-id": client}, {}, InputFacts(self.backbone.preprocessing, tuple(self.backbone.labels))
        )

    def budget(self, client: int, settings: FleetSettings) -> float:
        """Return the share of the dense model that a client may keep."""
        return self.budgets.get(client, settings.budget)

    @cached_property
    def dtype(self) -> str:
        """In which type models are stored: no more bytes a weight than the backbone needs."""
        tensors, _ = stored_tensors(self.backbone.model)
        half = all(torch.equal(t, t.half().float()) for t in tensors.values() if t.is_floating_point())
        return "float16" if half else "float32"


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """What an arm came to.

    clients: for each honest client what the evaluator says, weights_kept, bytes (of the stored model), evaluations,
    personalized_layers (names), levels [layers], entropy_increase (nats), fit_r2 or None, uplink_bytes and
    downlink_bytes of the whole run; of a model whose zeros are stored sparsely bytes_in_full and bytes_zipped, too.
    uplink_bytes_per_client, downlink_bytes_per_client: means of those. rounds: times that the server asked clients for
    something.
    """

    clients: list[Row]
    uplink_bytes_per_client: float
    downlink_bytes_per_client: float
    rounds: int

    @staticmethod
    def of(rows: list[Row], *, rounds: int) -> "ArmResult":
        """Return the result with these client rows."""
        up, down = (float(np.mean([row[key] for row in rows])) for key in ("uplink_bytes", "downlink_bytes"))
        return ArmResult(clients=rows, uplink_bytes_per_client=up, downlink_bytes_per_client=down, rounds=rounds)


class Arm(ABC):
    """A way to get models without the fleet's statistics. A new arm is one file and one line in the registry.

    needs_classes: whether it trains a classifier, which text has none of. saves_weights_only: whether it can meet no
    budget of multiply-accumulates, time or bytes in full.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    needs_classes: ClassVar[bool] = False
    saves_weights_only: ClassVar[bool] = False

    def hyper_parameters(self) -> dict[str, float]:
        """Return what decides the arm's result beside the fleet's settings."""
        return {}

    @abstractmethod
    def run(self, world: World, settings: FleetSettings) -> ArmResult:
        """Make and judge a model for every honest client. Raises UserError where that can't be done."""


def client_settings(world: World, settings: FleetSettings, client: int, *, probes: int) -> PersonalizationSettings:
    """Return how a client personalizes in the fleet's final pass: the same seed, so the same samples are held out."""
    budget = world.budget(client, settings)
    version = settings.rounds + 1
    plan = Plan(version=version, prior=None, dropped=np.zeros(0, dtype=np.bool_), probes=probes, budget=budget)
    return read_settings(settings.run_config(), {}, plan, str(client), newcomer=False)


def signal_labels(samples: PrivateSamples, settings: PersonalizationSettings) -> Tensor | None:
    """Return the labels [samples] where the settings measure the loss, else None: arms then see no label either."""
    return samples.labels if settings.signal == "loss" else None


def findings(result: Personalization) -> Row:
    """Return what a personalization adds to a client's row: the keys `FOUND`."""
    flags = zip(result.layers, result.personalized, strict=True)
    return {
        "weights_kept": result.weights_kept,
        "evaluations": result.evaluations,
        "personalized_layers": [layer.name for layer, flag in flags if flag],
        "levels": np.asarray(result.levels).tolist(),
        "entropy_increase": result.entropy_increase,
        "fit_r2": result.fit_r2,
    }


def client_row(
    world: World, client: int, model: nn.Module, found: Row, *, uplink_bytes: int, downlink_bytes: int
) -> Row:
    """Return a client's row for `model`, judged in the precision in which it would be stored.

    found: with the keys `FOUND`. uplink_bytes, downlink_bytes: of this client in the whole run.
    """
    return {
        **world.evaluator.row(client, as_stored(model, world.dtype)),
        **found,
        "bytes": stored_bytes(model, world.dtype),
        "uplink_bytes": uplink_bytes,
        "downlink_bytes": downlink_bytes,
    }
