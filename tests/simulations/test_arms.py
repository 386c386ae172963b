import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from client.data import InputFacts
from personalization.errors import UserError
from personalization.model_files.backbone import load_backbone
from personalization.model_files.storage import stored_bytes
from personalization.pipeline import personalize
from personalization.transformer.layers import find_layers
from simulations.arms.base import FOUND, World, client_settings
from simulations.arms.registry import ARMS, find_arm, run_arm
from simulations.conditions.roles import Roles
from simulations.evaluation import Evaluator
from simulations.fleet_settings import FleetSettings
from simulations.private_data import make_fleet_data

JUDGED = {"client", "samples", "classes", "dense_accuracy", "dense_fitted_accuracy", "personal_accuracy", "agreement"}


@pytest.fixture
def settings(tiny_vit_folder, tiny_data, tmp_path):
    return FleetSettings(
        out=tmp_path / "out", clients=4, rounds=2, fraction=0.5, classes_per_client=2, samples=12, probes=2,
        model=str(tiny_vit_folder), data=tiny_data,
    )  # fmt: skip


def load_world(settings):
    config = settings.run_config()
    backbone = load_backbone(str(config["model"]))
    data = make_fleet_data(config, settings.clients, InputFacts(backbone.preprocessing, backbone.labels))
    return World(backbone, data, Evaluator(backbone, data, adapt_head=settings.adapt_head, latency=False))


@pytest.fixture
def world(settings):
    return replace(load_world(settings), roles=Roles(frozenset({1}), frozenset(), frozenset(), (0,) * 4))


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_gives_the_same_row_for_each_honest_client_and_leaves_the_backbone_alone(name, world, settings):
    before = {key: tensor.clone() for key, tensor in world.backbone.model.state_dict().items()}
    result, again = (run_arm(name, world, settings) for _ in range(2))
    assert result == again
    assert [row["client"] for row in result.clients] == [0, 2, 3]
    sizes = {"bytes", "bytes_in_full", "bytes_zipped"} if name in ("wanda", "magnitude") else {"bytes"}
    keys = JUDGED | set(FOUND) | sizes | {"uplink_bytes", "downlink_bytes"}
    assert all(set(row) == keys for row in result.clients)
    assert all(len(row["levels"]) == 4 for row in result.clients)
    assert result.uplink_bytes_per_client == np.mean([row["uplink_bytes"] for row in result.clients])
    after = world.backbone.model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not settings.out.exists()


def test_the_dense_arm_is_the_dense_model_with_its_head_fitted(world, settings):
    for adapt_head, column in ((True, "dense_fitted_accuracy"), (False, "dense_accuracy")):
        for row in run_arm("dense", world, replace(settings, adapt_head=adapt_head)).clients:
            assert row["personal_accuracy"] == row[column]
            assert row["bytes"] == row["downlink_bytes"] == stored_bytes(world.backbone.model, "float16")


def test_a_client_alone_measures_every_atom_and_sends_nothing(world, settings):
    result = run_arm("local-only", world, settings)
    assert (result.rounds, result.uplink_bytes_per_client) == (0, 0.0)
    own = client_settings(world, settings, 2, probes=8)
    direct = personalize(world.backbone.model, world.samples(2).inputs, settings=own)
    row = result.clients[1]
    assert row["evaluations"] == direct.evaluations >= 8
    assert row["levels"] == direct.levels.tolist()
    assert row["entropy_increase"] == direct.entropy_increase


def test_uniform_takes_the_same_share_of_every_layer_as_far_as_whole_units_allow(world, settings):
    layers = find_layers(world.backbone.model)
    for row in run_arm("uniform", world, settings).clients:
        assert row["evaluations"] == 1
        assert row["weights_kept"] <= settings.budget
        for layer, level in zip(layers, row["levels"], strict=True):
            assert level == pytest.approx(0.5, abs=1.0 / layer.units)


def test_one_cut_is_the_same_mask_for_all_within_the_budget(world, settings):
    result = run_arm("one-cut", world, settings)
    first = result.clients[0]
    assert result.rounds == 2
    assert all(row["levels"] == first["levels"] for row in result.clients)
    assert 0.3 < first["weights_kept"] <= settings.budget
    assert all(row["evaluations"] > settings.probes for row in result.clients)
    assert 0 < first["uplink_bytes"] < 2000  # two vectors, no weights
    assert first["entropy_increase"] > 0.0


@pytest.mark.parametrize("name", ["one-cut", "fedavg"])
def test_devices_with_a_budget_of_their_own_get_a_mask_of_their_own(name, world, settings):
    rows = {row["client"]: row for row in run_arm(name, replace(world, budgets={2: 0.3}), settings).clients}
    assert rows[2]["weights_kept"] <= 0.3 < rows[0]["weights_kept"] <= 0.5
    assert rows[0]["levels"] == rows[3]["levels"] != rows[2]["levels"]


def test_arms_that_share_weights_send_more_than_all_weights_and_say_how_they_train(world, settings):
    model = world.backbone.model
    for name in ("fedavg", "fedavg-finetune"):
        rows = run_arm(name, world, settings).clients
        asked = [row for row in rows if row["uplink_bytes"] > 4 * model.num_parameters()]
        assert asked
        assert all(row["downlink_bytes"] > row["bytes"] for row in rows)
        assert set(find_arm(name).hyper_parameters()) >= {"epochs", "batch", "learning_rate"}


def test_a_client_that_fails_is_named_with_what_it_noted(world, settings, monkeypatch):
    def fails(*_, **__):
        raise UserError("12 samples are fewer than the probes need")

    monkeypatch.setattr("client.work.own_personalize", fails)
    with pytest.raises(UserError, match="client 0 did not answer: 12 samples are fewer"):
        run_arm("one-cut", world, settings)


def test_an_unknown_arm_is_named_with_the_nearest():
    with pytest.raises(UserError, match="did you mean fedavg"):
        find_arm("fedavgg")


def test_the_arm_in_the_documentation_runs(world, settings):
    text = (Path(__file__).parents[2] / "docs" / "arms.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    namespace = {}
    exec(code, namespace)
    result = namespace["LastBlocks"]().run(world, settings)
    assert [row["weights_kept"] for row in result.clients] == [0.5] * 3
    assert all(name in text for name in ARMS)


@pytest.mark.slow
def test_half_of_the_bundled_model_is_nearly_as_good_as_all_of_it(tmp_path):
    settings = FleetSettings(out=tmp_path, clients=4, rounds=1, fraction=1.0, samples=40, budget=0.5)
    world = load_world(settings)
    for name in ("depth-linear", "fedavg"):
        rows = run_arm(name, world, settings).clients
        assert all(row["weights_kept"] <= 0.5 for row in rows)
        accuracy, dense = (np.mean([r[key] for r in rows]) for key in ("personal_accuracy", "dense_fitted_accuracy"))
        assert accuracy > dense - 0.1
