"""What cells are computed on, kept by the process that computes them: methods on one fleet share all of it."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from client.data import InputFacts
from personalization.data.tasks import check_task, task_of
from personalization.data.texts import TextPreprocessing
from personalization.errors import UserError
from personalization.model_files.backbone import Backbone, load_backbone
from personalization.model_files.storage import stored_bytes
from personalization.transformer.layers import find_layers
from simulations.arms.base import World
from simulations.arms.registry import find_arm
from simulations.comparison.first_search import FirstSearches
from simulations.conditions.roles import assign_roles
from simulations.evaluation import Evaluator, Judge, logits
from simulations.fleet_checks import DATA_FIELDS, check_fields, check_fleet_budget
from simulations.fleet_settings import FleetSettings
from simulations.private_data import FleetData, make_fleet_data
from simulations.scenario import Scenario
from simulations.speakers import SpeakerData, make_speaker_data
from simulations.text_evaluation import TextEvaluator

_KEPT_WORLDS = 2
# The settings of a fleet that decide what its clients hold.
_DATA_FIELDS = ("model", "data", "partition", "clients", *(name for names in DATA_FIELDS.values() for name in names))


class Worlds:
    """Loads fleets, and keeps the last few of them by a key that the caller vouches for.

    first_searches: what clients found before the fleet knew anything, the same for all methods. qualities: how good
    stored personal models are, by fleet, client, round and SHA-256 of the weights.
    """

    def __init__(self) -> None:
        """Begin with nothing loaded."""
        self._worlds: OrderedDict[str, World] = OrderedDict()
        self._backbone: tuple[str, Backbone] | None = None
        self._dense: tuple[str, Tensor] | None = None
        self.first_searches = FirstSearches()
        self.qualities: dict[tuple[str, int, int, str], float] = {}

    def get(self, key: str, scenario: Scenario, settings: FleetSettings) -> World:
        """Return the clients of a scenario and seed. Raises UserError for data or models that do not work."""
        if key not in self._worlds:
            self._worlds[key] = self._load(scenario, settings)
            self.qualities.clear()
            while len(self._worlds) > _KEPT_WORLDS:
                self._worlds.popitem(last=False)
        self._worlds.move_to_end(key)
        return self._worlds[key]

    def _load(self, scenario: Scenario, settings: FleetSettings) -> World:
        model, conditions = str(settings.run_config()["model"]), scenario.conditions
        backbone = self._load_backbone(model)
        data = _fleet_data(scenario, settings, backbone, settings.clients)
        if data.clients != settings.clients and isinstance(data, FleetData):
            # The natural partition has as many clients as the data have owners.
            data = _fleet_data(scenario, settings, backbone, data.clients)
        roles = assign_roles(conditions, data.clients, settings.seed)
        evaluator: Judge
        if isinstance(data, SpeakerData):
            evaluator = TextEvaluator(backbone, data, latency=False)
        else:
            dense = self._dense_logits(model, backbone, data.test_pixels())
            evaluator = Evaluator(backbone, data, adapt_head=settings.adapt_head, latency=False, dense=dense)
        own = {client: conditions.classes[device].budget for client, device in enumerate(roles.device_class)}
        budgets = {client: budget for client, budget in own.items() if budget is not None}
        return World(backbone, data, evaluator, roles, budgets)

    def _load_backbone(self, model: str) -> Backbone:
        if self._backbone is None or self._backbone[0] != model:
            self._backbone = model, load_backbone(model)
        return self._backbone[1]

    def _dense_logits(self, model: str, backbone: Backbone, pixels: Tensor) -> Tensor:
        """Return the logits of all test images, which are the same for all partitions of one data set."""
        key = f"{model} {hashlib.sha256(pixels.numpy().tobytes()).hexdigest()}"
        if self._dense is None or self._dense[0] != key:
            self._dense = key, logits(backbone.model, pixels)
        return self._dense[1]


def check_fleets(scenarios: Sequence[Scenario], *, arms: Sequence[str]) -> None:
    """Raise UserError where model or data of one of `scenarios` do not work or can't be shared out as it asks.

    arms: names of the reference arms that are to run on them.
    """
    backbones: dict[str, Backbone] = {}
    seen = []
    for scenario in scenarios:
        _check_budget(scenario, arms)
        settings = scenario.fleet_settings(out=Path(), seed=0)
        model = str(settings.run_config()["model"])
        backbone = backbones.get(model) or backbones.setdefault(model, load_backbone(model))
        check_fleet_budget(settings, backbone)
        asked = {name: scenario.fleet[name] for name in _DATA_FIELDS}
        if asked not in seen:
            seen.append(asked)
            preprocessing = check_task(backbone.preprocessing, backbone.labels, wanted=None, model=model)
            config, facts = settings.run_config(), InputFacts(preprocessing, backbone.labels)
            check_fields(scenario.fleet, task_of(preprocessing), spelled="fleet.{name} {value}:")
            if isinstance(preprocessing, TextPreprocessing):
                _check_text(scenario, arms)
                make_speaker_data(config, settings.clients, facts)
            else:
                make_fleet_data(config, settings.clients, facts)


def _check_budget(scenario: Scenario, arms: Sequence[str]) -> None:
    """Refuse arms that cannot meet the kind of budget that a fleet has. Raises UserError."""
    kind = scenario.fleet["budget_kind"]
    for arm in arms:
        if find_arm(arm).saves_weights_only and kind != "weights":
            raise UserError(f'arm {arm}: zeros meet no budget of {kind}; expected budget_kind = "weights"')


def _check_text(scenario: Scenario, arms: Sequence[str]) -> None:
    """Refuse what has no meaning for a fleet of text. Raises UserError."""
    fleet = scenario.fleet
    for arm in arms:
        if find_arm(arm).needs_classes:
            raise UserError(f"arm {arm}: trains a classifier on the clients' labels; leave it out for text")
    if fleet["partition"] != "natural":
        raise UserError(
            f"fleet.partition {fleet['partition']}: text is shared out by who wrote it, not by classes; "
            'expected partition = "natural"'
        )
    if scenario.conditions.drift is not None:
        raise UserError("drift: a speaker's text cannot become that of another partition; leave it out for text")


def _fleet_data(
    scenario: Scenario, settings: FleetSettings, backbone: Backbone, clients: int
) -> FleetData | SpeakerData:
    facts = InputFacts(backbone.preprocessing, backbone.labels)
    if isinstance(backbone.preprocessing, TextPreprocessing):
        return make_speaker_data(settings.run_config(), clients, facts)
    drift = scenario.conditions.drift
    return make_fleet_data(
        settings.run_config(),
        clients,
        facts,
        drifting=assign_roles(scenario.conditions, clients, settings.seed).drifting,
        at_round=0 if drift is None else drift.at_round,
    )


def model_facts(world: World) -> dict[str, Any]:
    """Return what a comparison says about the dense model."""
    model = world.backbone.model
    return {
        "id": world.backbone.identifier,
        "weights": sum(p.numel() for p in model.parameters()),
        "bytes_dense": stored_bytes(model, world.dtype),
        "layer_names": [layer.name for layer in find_layers(model)],
    }
