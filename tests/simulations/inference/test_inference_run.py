import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from personalization.errors import UserError
from simulations.inference.run import InferenceSettings, run_inference
from simulations.inference.shadow import LIVES, ShadowFleet
from simulations.inference.store import Store
from simulations.inference.table import markdown, strongest


def small(model: Path, data: Path, cache: Path | None) -> InferenceSettings:
    return InferenceSettings(
        targets=10,
        shadow=10,
        warm_up=10,
        pool=40,
        samples=12,
        classes_per_client=2,
        probes=1,
        cohorts=(1, 3),
        epsilons=(1.0,),
        trials=2,
        candidates=3,
        fedavg_targets=4,
        fedavg_shadow=6,
        epochs=1,
        model=str(model),
        data=data,
        cache=cache,
    )


@pytest.mark.slow  # it personalizes and trains a few dozen times: what it tests is that path
def test_every_attack_runs_on_every_view_and_recordings_are_kept(
    tiny_vit_folder: Path, tiny_data: Path, tmp_path: Path
) -> None:
    settings = small(tiny_vit_folder, tiny_data, tmp_path / "cache")
    stages: set[str] = set()
    found = run_inference(settings, on_progress=lambda stage, done, of: stages.add(stage))
    assert stages == {"recording vectors", "attacking vectors", "recording updates"}
    results = json.loads(json.dumps(found, allow_nan=False))["results"]
    seen = {(row["attack"], row["view"]) for row in results}
    for view in ("plain vector", "sum of 3", "sum of 3 with noise, epsilon 1", "FedAvg update"):
        assert {(attack, view) for attack in ("membership", "class", "linkage")} <= seen
    assert {("reconstruction", view) for view in ("plain vector", "FedAvg update")} <= seen
    assert all(row["low"] <= row.get("auc", row.get("score")) <= row["high"] for row in results)
    assert "plain vector" in markdown(results)
    again = run_inference(settings)
    assert again == found


def test_lives_share_data_and_nothing_else_is_shared(tiny_vit_folder: Path, tiny_data: Path) -> None:
    fleet = ShadowFleet(small(tiny_vit_folder, tiny_data, None))
    assert LIVES == 2
    assert not set(fleet.targets) & set(fleet.shadow)
    for client in fleet.targets.tolist():
        lives = [fleet.data.split(client * LIVES + life).train for life in range(LIVES)]
        assert np.array_equal(*lives)
        held = np.flatnonzero(fleet.held(np.array([client]))[0])
        assert np.array_equal(held, lives[0])
        assert len(fleet.samples(client).inputs["pixel_values"]) == len(held) == 12


def test_a_recording_is_made_once_for_the_same_settings(tmp_path: Path) -> None:
    settings = InferenceSettings(cache=tmp_path)
    made: list[int] = []

    def make() -> Any:
        made.append(1)
        return np.arange(3.0)

    more = replace(settings, targets=settings.targets + 1)
    other = replace(settings, samples=settings.samples + 1)
    assert np.array_equal(Store(settings).keep("name", make), Store(more).keep("name", make))
    assert len(made) == 1
    Store(other).keep("name", make)
    assert len(made) == 2
    Store(replace(settings, cache=None)).keep("name", make)
    assert len(made) == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"targets": 2},
        {"cohorts": ()},
        {"epsilons": (0.0,)},
        {"delta": 1.0},
        {"fedavg_shadow": 0},
        {"fedavg_targets": 10_000},
        {"seed": -1},
        {"trials": 0},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong)) if "targets" not in wrong else "targets"):
        InferenceSettings(**wrong)


def test_the_strongest_attacker_is_shown() -> None:
    rows = [{"attack": "class", "view": "v", "attacker": a, "auc": auc} for a, auc in (("one", 0.6), ("two", 0.7))]
    best = strongest(rows, "class", "v")
    assert best is not None
    assert best["attacker"] == "two"
    assert strongest(rows, "linkage", "v") is None
