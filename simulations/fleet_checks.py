"""What a fleet is asked for and its model cannot give, found before anything is computed."""

from collections.abc import Mapping
from typing import Any

from personalization.allocation.allocate import check_reachable
from personalization.data.tasks import TaskName
from personalization.errors import UserError
from personalization.model_files.backbone import Backbone
from personalization.transformer.layers import find_layers
from simulations.fleet_settings import FleetSettings

# The settings that say what clients hold, by what it is; those of the other kind would do nothing.
DATA_FIELDS: dict[TaskName, tuple[str, ...]] = {
    "image": ("classes_per_client", "samples", "alpha", "reuse"),
    "text": ("windows", "window_tokens"),
}


def check_fields(fleet: Mapping[str, Any], task: TaskName, *, spelled: str) -> None:
    """Raise UserError for a setting in `fleet` that was changed, and says nothing of clients of this task.

    spelled: names it by {name}, {option} and {value}.
    """
    about = {"image": "images", "text": "text"}
    for kind, names in DATA_FIELDS.items():
        for name in names:
            if kind != task and fleet[name] != getattr(FleetSettings, name):
                own = spelled.format(name=name, option=name.replace("_", "-"), value=fleet[name])
                raise UserError(f"{own} is about {about[kind]}; leave it out for {about[task]}")


def check_fleet_budget(settings: FleetSettings, backbone: Backbone) -> None:
    """Raise UserError for a budget of weights that no device could meet, as its layers may not lose so much."""
    if settings.budget_kind == "weights":
        check_reachable(find_layers(backbone.model), settings.budget, settings.layer_limit)
