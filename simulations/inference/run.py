"""All attacks on all views of an uplink: `run_inference`."""

from dataclasses import asdict, replace
from typing import Any

from personalization.system.torch_threads import torch_threads
from simulations.inference.bench import Bench, Knowledge, Row, clients_of, noisy_views, views
from simulations.inference.features import image_features
from simulations.inference.fedavg import attack_updates
from simulations.inference.membership import whitened
from simulations.inference.recording import AFRESH, FIRST, OnProgress, Recorder
from simulations.inference.settings import InferenceSettings
from simulations.inference.shadow import ShadowFleet
from simulations.inference.views import View

__all__ = ["InferenceSettings", "run_inference"]

# Cohorts from which images are drawn: where one of 10 shows nothing, larger ones need not be asked.
DRAWN = (1, 10)
# Reference vectors for linkage: what earlier observation of a client the attacker has.
_KEPT, _AFRESH = "probes carried on", "fresh probes"


def _silent(stage: str, done: int, of: int) -> None:
    del stage, done, of


def run_inference(settings: InferenceSettings, *, on_progress: OnProgress = _silent) -> dict[str, Any]:
    """Record the fleet's uplink, attack it, and return `settings` and `results`, as JSON can hold them.

    A result has attack, view, attacker, trials, clients (attacked ones) and auc with low and high, the ends of its 95 %
    interval over clients; a reconstruction has score, low, high and baseline instead, and meaning says of what.
    on_progress: called with a stage, how many of its steps are done, and of how many. Raises UserError.
    """
    with torch_threads(1):
        fleet = ShadowFleet(settings)
        knowledge = Knowledge(
            whitened(image_features(fleet)), fleet.dataset.train_images / 255.0, fleet.dataset.train_labels
        )
        results = _attack_vectors(fleet, knowledge, on_progress)
        if settings.fedavg_targets:
            results += attack_updates(fleet, knowledge, on_progress)
    shown = {name: str(value) if name in ("data", "cache") else value for name, value in asdict(settings).items()}
    return {"settings": shown, "results": results}


def _attack_vectors(fleet: ShadowFleet, knowledge: Knowledge, on_progress: OnProgress) -> list[Row]:
    recorder, settings = Recorder(fleet), fleet.settings
    shadow, targets = (
        clients_of(fleet, numbers, recorder.vectors(numbers, on_progress)) for numbers in (fleet.shadow, fleet.targets)
    )
    bench = Bench(shadow, targets, knowledge, settings)
    released = bench.released(*recorder.asked())
    stages = [(bench, view) for view in views(settings)]
    stages += [(released, view) for view in noisy_views(settings)]
    rows: list[Row] = []
    for done, (attacked, view) in enumerate(stages):
        rows += attack(attacked, view)
        on_progress("attacking vectors", done + 1, len(stages))
    return rows


def attack(bench: Bench, view: View) -> list[Row]:
    """Run all attacks that make sense on a view: where several rounds are seen at once, there are none to link."""
    rows = bench.membership(view) + bench.classes(view)
    if view.cohort in DRAWN:
        rows += bench.reconstruction(view)
    if len(view.observations) > 1:
        return rows
    later = {_KEPT: view, _AFRESH: replace(view, observations=(AFRESH,))}
    for name, seen in later.items():
        rows += bench.linkage(seen, earlier=FIRST, summed=False, name=f"own vector known, {name}")
        if view.cohort > 1:
            rows += bench.linkage(seen, earlier=FIRST, summed=True, name=f"two sums, {name}")
    return rows
