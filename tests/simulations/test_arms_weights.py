import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import make_tiny_vit

from personalization.data.tasks import PrivateSamples
from personalization.errors import UserError
from personalization.transformer.groups import dropped_units, unit_groups
from personalization.transformer.layers import find_layers
from server.sampling import sample_nodes
from simulations.arms.averaging import Averaging
from simulations.arms.base import World
from simulations.arms.masked_average import MaskedAverage
from simulations.arms.models import as_stored, private_logits, with_fitted_head
from simulations.arms.training import Training, read_weights, train, with_weights
from simulations.engine import node_id
from simulations.fleet_settings import FleetSettings

SIZES = (10, 20, 30, 50)


def samples(client):
    rng = np.random.default_rng(client)
    pixels = torch.from_numpy(rng.normal(size=(SIZES[client], 1, 8, 8)).astype(np.float32))
    return PrivateSamples({"pixel_values": pixels}, torch.from_numpy(rng.integers(0, 3, SIZES[client])))


class Data:
    """Four clients of random images."""

    clients = len(SIZES)

    def __call__(self, node_config, run_config, facts):
        return samples(node_config["partition-id"])


@pytest.fixture
def world():
    backbone = SimpleNamespace(model=make_tiny_vit(), preprocessing=None, labels=("a", "b", "c"))
    return World(backbone, Data(), evaluator=None)


def test_flowers_average_weighs_clients_by_their_samples(world):
    def work(client, weights, config):
        return {"w": weights["w"] + client}

    averaging = Averaging(world, seed=0)
    start = {"w": torch.tensor([[1.0, 2.0]])}
    found = averaging.rounds(start, work, clients=range(4), rounds=3, fraction=1.0)
    rise = np.average(range(4), weights=SIZES)
    torch.testing.assert_close(found["w"], start["w"] + 3 * rise)


def test_a_round_asks_whom_the_service_would_ask_and_counts_only_their_bytes(world):
    asked = []

    def work(client, weights, config):
        asked.append((config["server-round"], client))
        return weights

    averaging = Averaging(world, seed=7)
    weights = {"w": torch.zeros(1000)}
    level = logging.getLogger("flwr").level
    averaging.rounds(weights, work, clients=[0, 2, 3], rounds=4, fraction=0.5)
    assert logging.getLogger("flwr").level == level
    nodes = [node_id(c) for c in (0, 2, 3)]
    expected = [
        (number, next(c for c in range(4) if node_id(c) == node))
        for number in range(1, 5)
        for node in sample_nodes(nodes, fraction=0.5, seed=7, round_number=number)
    ]
    assert asked == expected
    for client in (0, 2, 3):
        times = sum(c == client for _, c in asked)
        for count in (averaging.uplink[client], averaging.downlink[client]):
            assert times * 4000 <= count <= times * 5500
    averaging.hand_out(weights, [1])
    assert 4000 < averaging.downlink[1] < 5500
    assert averaging.rounds(weights, work, clients=[0], rounds=0, fraction=1.0) == weights


def test_training_lowers_the_loss_and_the_seed_decides_it():
    def loss(model):
        logits = private_logits(model, samples(3).inputs)
        return float(torch.nn.functional.cross_entropy(logits, samples(3).labels))

    dense = make_tiny_vit()
    runs = []
    for seed in (0, 0, 1):
        model = with_weights(dense, read_weights(dense))
        train(model, samples(3), Training(learning_rate=1e-3), seed=seed)
        runs.append(read_weights(model))
        assert loss(model) < loss(dense)
        assert not model.training
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
    assert any(not torch.equal(runs[0][name], runs[2][name]) for name in runs[0])


def test_training_without_labels_is_refused():
    with pytest.raises(UserError, match="needs labels"):
        train(make_tiny_vit(), PrivateSamples(samples(0).inputs, None), Training(), seed=0)


@pytest.mark.parametrize("bad", [{"epochs": -1}, {"batch": 0}, {"learning_rate": 0.0}])
def test_training_that_makes_no_sense_is_refused(bad):
    with pytest.raises(ValueError, match="expected epochs"):
        Training(**bad)


def mask(model, share=0.5):
    groups = unit_groups(model, find_layers(model))
    count = sum(len(layer) for layer in groups)
    return groups, np.random.default_rng(0).permutation(count) < share * count


def test_the_average_of_one_client_that_does_not_train_is_its_own_cut(world, tmp_path):
    groups, dropped = mask(world.backbone.model)
    common = MaskedAverage(world, FleetSettings(out=tmp_path), groups, dropped, Training(epochs=0))
    averaging = Averaging(world, seed=0)
    model = common.average(averaging, [2])
    own = common.compensated(2, world.backbone.model)
    inputs = samples(2).inputs
    torch.testing.assert_close(private_logits(model, inputs), private_logits(own.model, inputs))
    gone = dropped_units(groups, dropped)
    for units, lost, layer in zip(own.kept, gone, find_layers(world.backbone.model), strict=True):
        assert sorted([*units, *lost]) == list(range(layer.units))
    assert common.levels == own.levels.tolist()
    assert common.weights_kept == pytest.approx(own.weights_kept)
    assert averaging.uplink[2] < averaging.downlink[2]  # the dense weights come, the cut ones go


def test_a_layer_that_everybody_drops_whole_is_averaged_too(world, tmp_path):
    groups, dropped = mask(world.backbone.model, 0.0)
    dropped[: len(groups[0])] = True
    common = MaskedAverage(world, FleetSettings(out=tmp_path), groups, dropped, Training(epochs=1))
    model = common.average(Averaging(world, seed=0), [2, 3])
    assert common.levels == [1.0, 0.0, 0.0, 0.0]
    assert bool(private_logits(model, samples(0).inputs).isfinite().all())


def test_a_head_fitted_to_one_client_is_nobody_elses():
    model, inputs = make_tiny_vit(), samples(1).inputs
    before = read_weights(model)
    fitted = with_fitted_head(model, find_layers(model), inputs)
    shift = private_logits(fitted, inputs) - private_logits(model, inputs)
    torch.testing.assert_close(shift, shift[:1].expand_as(shift), atol=1e-5, rtol=0.0)
    assert bool(shift.any())
    assert all(torch.equal(before[name], tensor) for name, tensor in read_weights(model).items())


def test_a_stored_model_is_rounded_once():
    model = with_weights(make_tiny_vit(), {n: w + 1e-5 for n, w in read_weights(make_tiny_vit()).items()})
    stored = as_stored(model, "float16")
    assert all(torch.equal(p, p.half().float()) for p in stored.parameters())
    assert all(torch.equal(p, q.half().float()) for p, q in zip(stored.parameters(), model.parameters(), strict=True))
    exact = as_stored(model, "float32")
    assert all(torch.equal(p, q) for p, q in zip(exact.parameters(), model.parameters(), strict=True))
