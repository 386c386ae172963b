"""Arms that put zeros in a model: what is left is the budget, and size and speed are told as they are."""

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_text import write_language_model, write_speakers
from torch.nn.utils import prune

from client.data import InputFacts
from personalization.allocation.footprint import block_weights
from personalization.errors import UserError
from personalization.model_files.backbone import load_backbone
from personalization.model_files.storage import stored_bytes, stored_tensors
from personalization.transformer.layers import find_layers, is_conv1d, linear_weight
from simulations.arms.base import World
from simulations.arms.registry import run_arm
from simulations.comparison.worlds import check_fleets
from simulations.evaluation import Evaluator
from simulations.fleet_settings import FleetSettings
from simulations.private_data import make_fleet_data
from simulations.scenario import Scenario
from simulations.speakers import make_speaker_data
from simulations.text_evaluation import TextEvaluator

ARMS = ("wanda", "magnitude")
BUDGET = 0.6


def text_world(folder: Path, family: str) -> tuple[World, FleetSettings]:
    settings = FleetSettings(
        out=folder / "out", clients=3, rounds=1, budget=BUDGET, windows=10, window_tokens=16, partition="natural",
        model=str(write_language_model(folder / "model", family)), data=write_speakers(folder / "speakers"),
    )  # fmt: skip
    backbone = load_backbone(settings.model)
    data = make_speaker_data(settings.run_config(), 3, InputFacts(backbone.preprocessing, ()))
    return World(backbone, data, TextEvaluator(backbone, data, latency=False)), settings


@pytest.fixture(params=["llama", "gpt2"])
def text(request, tmp_path):
    return text_world(tmp_path, request.param)


@pytest.fixture
def images(tiny_vit_folder, tiny_data, tmp_path):
    settings = FleetSettings(
        out=tmp_path / "out", clients=3, budget=BUDGET, classes_per_client=2, samples=12,
        model=str(tiny_vit_folder), data=tiny_data,
    )  # fmt: skip
    backbone = load_backbone(settings.model)
    data = make_fleet_data(settings.run_config(), 3, InputFacts(backbone.preprocessing, backbone.labels))
    return World(backbone, data, Evaluator(backbone, data, adapt_head=True, latency=False)), settings


@pytest.fixture(params=["text", "images"])
def either(request):
    """A world of speakers with a language model, and one of images with a ViT."""
    if request.param == "images":
        return request.getfixturevalue("images")
    return text_world(request.getfixturevalue("tmp_path"), "llama")


def blocks_of(layers):
    """For each block the paths of its linear modules."""
    paths = {}
    for layer in layers:
        paths.setdefault(layer.block, []).extend([*(reader.path for reader in layer.readers), layer.writer])
    return list(paths.values())


def pruned(model, paths, mask):
    """Give each module the mask [rows, columns] of its weights with PyTorch's own pruning, and make it lasting."""
    for path in paths:
        module = model.get_submodule(path)
        kept = mask(path, linear_weight(module).detach())
        prune.custom_from_mask(module, "weight", kept.t() if is_conv1d(module) else kept)
        prune.remove(module, "weight")


def share_of_zeros(world):
    layers = find_layers(world.backbone.model)
    modules = [world.backbone.model.get_submodule(path) for paths in blocks_of(layers) for path in paths]
    return (1 - BUDGET) * block_weights(layers) / sum(module.weight.numel() for module in modules)


def by_magnitude(world, client):
    model, share = copy.deepcopy(world.backbone.model), share_of_zeros(world)
    for paths in blocks_of(find_layers(model)):
        for path in paths:
            module = model.get_submodule(path)
            # Half precision has many weights of one magnitude: the first of them go, row by row.
            weight = linear_weight(module).detach().abs().double()
            score = weight + 1e-12 * torch.arange(weight.numel()).view(weight.shape)
            scores = score.t().contiguous() if is_conv1d(module) else score
            prune.l1_unstructured(module, "weight", amount=share, importance_scores=scores)
            prune.remove(module, "weight")
    return model


@torch.no_grad()
def by_wanda(world, client):
    """Equation 1 of 2306.11695, block after block, on the client's own windows."""
    model, share = copy.deepcopy(world.backbone.model), share_of_zeros(world)

    def keep(seen, path, _module, args):
        seen[path] = args[0].flatten(0, -2)

    def mask(seen, path, weight):
        score, kept = weight.abs() * seen[path].norm(dim=0), torch.ones_like(weight)
        for row, own in zip(kept, score, strict=True):
            row[own.argsort(stable=True)[: round(share * len(row))]] = 0.0
        return kept

    for paths in blocks_of(find_layers(model)):
        seen = {}
        hooks = [model.get_submodule(p).register_forward_pre_hook(partial(keep, seen, p)) for p in paths]
        model(**world.samples(client).inputs)
        for hook in hooks:
            hook.remove()
        pruned(model, paths, partial(mask, seen))
    return model


@pytest.mark.parametrize(("name", "expected"), [("wanda", by_wanda), ("magnitude", by_magnitude)])
def test_each_speaker_s_model_is_the_one_that_pytorch_s_own_pruning_makes(name, expected, text):
    world, settings = text
    for row in run_arm(name, world, settings).clients:
        model = expected(world, row["client"])
        judged = world.evaluator.row(row["client"], model)
        assert row["perplexity_ratio"] == pytest.approx(judged["perplexity_ratio"], rel=1e-5)
        assert row["perplexity_ratio"] != pytest.approx(1.0, abs=1e-3)
        expected_bytes = sum(sparse(t.numpy()) for t in stored_tensors(model, "float16")[0].values())
        assert row["bytes"] == expected_bytes


def sparse(array):
    """Bytes of a bitmap and of the values that it marks, or of all values where that is less."""
    return min(array.nbytes, len(np.packbits(array.reshape(-1) != 0)) + array[array != 0].nbytes)


@pytest.mark.parametrize("name", ARMS)
def test_what_is_left_is_the_budget_and_no_unit_is_gone(name, either):
    world, settings = either
    dense = stored_bytes(world.backbone.model, world.dtype)
    for row in run_arm(name, world, settings).clients:
        # Whole weights of each row: half of one, of rows of 16 numbers or more.
        assert row["weights_kept"] == pytest.approx(BUDGET, abs=0.5 / 16)
        assert not any(row["levels"])
        assert row["bytes_in_full"] == row["downlink_bytes"] == dense
        assert row["bytes_zipped"] < dense
        assert 0.5 * dense < row["bytes"] < dense
        assert row["evaluations"] == row["uplink_bytes"] == 0


@pytest.mark.parametrize("name", ARMS)
def test_a_device_with_a_budget_of_its_own_gets_zeros_of_its_own(name, either):
    world, settings = either
    rows = run_arm(name, replace(world, budgets={1: 0.3}), settings).clients
    assert [round(row["weights_kept"], 1) for row in rows] == [0.6, 0.3, 0.6]
    assert rows[1]["bytes"] < rows[0]["bytes"]


def test_magnitude_is_the_same_for_all_speakers_and_wanda_each_one_s_own(text):
    world, settings = text
    zipped = {name: {row["bytes_zipped"] for row in run_arm(name, world, settings).clients} for name in ARMS}
    assert len(zipped["magnitude"]) == 1
    assert len(zipped["wanda"]) > 1


def test_the_head_of_a_vit_is_fitted_as_that_of_a_personal_model(images):
    world, settings = images
    whole = replace(settings, budget=1.0)
    for row in run_arm("magnitude", world, whole).clients:
        assert row["personal_accuracy"] == row["dense_fitted_accuracy"]
    for row in run_arm("magnitude", world, replace(whole, adapt_head=False)).clients:
        assert row["personal_accuracy"] == row["dense_accuracy"]


def test_single_precision_is_counted_as_such(images):
    world, settings = images
    with torch.no_grad():
        world.backbone.model.classifier.bias += 1e-7
    assert world.dtype == "float32"
    in_full = stored_bytes(world.backbone.model, "float32")
    for row in run_arm("wanda", world, settings).clients:
        assert row["bytes_in_full"] == in_full
        assert row["bytes"] > 0.5 * in_full


@pytest.mark.parametrize("name", ARMS)
@pytest.mark.parametrize("kind", ["bytes", "macs", "latency"])
def test_budgets_that_zeros_do_not_meet_are_refused_before_any_cell(name, kind, tiny_vit_folder, tiny_data):
    fleet = {"clients": 3, "model": str(tiny_vit_folder), "data": str(tiny_data), "budget_kind": kind}
    with pytest.raises(UserError, match=f"arm {name}: zeros meet no budget of {kind}; expected budget_kind"):
        check_fleets([Scenario.from_dict({"name": "tiny", "fleet": fleet})], arms=["dense", name])
