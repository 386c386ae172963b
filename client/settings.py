"""What the run configuration tells a device about how to personalize."""

import hashlib
from typing import Any

from client.data import Config
from personalization.settings import PersonalizationSettings
from personalization.wire.plan import Plan

# What a newcomer measures before it makes its final model; the same as others by default in each round.
FIRST_PROBES = PersonalizationSettings.probes

# Keys of the run configuration that a device takes over as they are; budget and probes come with the plan.
_KEYS = (
    "budget-kind",
    "signal",
    "solver",
    "steps",
    "step-probes",
    "tolerance",
    "layer-limit",
    "recovery",
    "vocabulary",
    "layers-per-probe",
    "ridge",
    "refit-samples",
    "tune-first",
    "training-steps",
    "adapters",
    "training-precision",
    "adapt-head",
)
# Those that a device may set for itself: how much it computes for its model, and how large that is, is its own affair.
_OWN_KEYS = (
    "recovery",
    "vocabulary",
    "refit-samples",
    "tune-first",
    "training-steps",
    "adapters",
    "training-precision",
)


def own_config(run_config: Config, node_config: Config) -> Config:
    """Return the run configuration as it holds for one device: what the device says of these keys comes first."""
    return {**run_config, **{key: node_config[key] for key in _OWN_KEYS if node_config.get(key) not in (None, "")}}


def read_settings(
    run_config: Config, node_config: Config, plan: Plan, client: str, *, newcomer: bool
) -> PersonalizationSettings:
    """Return the settings for one plan; the seed follows from the run's, the client and the plan's version.

    A device may have a `budget` of its own in its node configuration, and what `own_config` takes from there. Where the
    plan asks for no probes, a newcomer, which has measured nothing itself, takes `first-probes`. Raises UserError on
    values that make no sense.
    """
    asked = own_config(run_config, node_config)
    chosen: dict[str, Any] = {k.replace("-", "_"): asked[k] for k in _KEYS if asked.get(k) not in (None, "")}
    seed = derive_seed(int(run_config.get("seed", 0)), client, plan.version)
    probes = plan.probes or (int(run_config.get("first-probes", FIRST_PROBES)) if newcomer else 0)
    budget = float(node_config.get("budget") or plan.budget)
    return PersonalizationSettings(**chosen, budget=budget, probes=probes, seed=seed)


def needs_labels(settings: PersonalizationSettings) -> bool:
    """Say whether a device has to know the labels of its samples for these settings."""
    return settings.signal == "loss" or settings.tunes or settings.vocabulary != 0


def derive_seed(seed: int, client: str, version: int) -> int:
    """Return a seed below 2**31 that nothing but its arguments decides."""
    digest = hashlib.sha256(f"{seed}/{client}/{version}".encode()).digest()
    return int.from_bytes(digest[:4], "little") >> 1
