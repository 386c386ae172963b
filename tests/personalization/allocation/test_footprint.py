import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from personalization.allocation.footprint import (
    block_weights,
    count_macs,
    kept_weights,
    measure_footprint,
    measure_latency,
    measure_peak_memory,
)
from personalization.cutting.cut_model import cut_model
from personalization.model_files.storage import save_personal_model
from personalization.transformer.layers import find_layers
from tests.personalization.architectures import ARCHITECTURES, Shape, build, random_kept, shapes

every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)


def first(case):
    return {name: tensor[:1] for name, tensor in case.inputs.items()}


@given(shape=shapes())
@settings(max_examples=10)
def test_macs_of_a_vit_counted_by_hand(shape):
    case = build("vit", shape)
    tokens, patches, width = 5, 4, shape.width
    patch_embedding = patches * width * 3 * 4 * 4
    attention = 4 * tokens * width * width + 2 * tokens * tokens * width
    mlp = 2 * tokens * width * shape.mlp
    expected = patch_embedding + shape.depth * (attention + mlp) + width * 5
    assert count_macs(case.model, first(case), find_layers(case.model)) == expected


@given(shape=shapes())
@settings(max_examples=10)
def test_macs_of_a_llama_counted_by_hand(shape):
    case = build("llama", shape)
    tokens, width = 7, shape.width
    query_and_output = 2 * tokens * width * width
    key_and_value = 2 * tokens * width * shape.groups * shape.head
    attention = query_and_output + key_and_value + 2 * tokens * tokens * width
    mlp = 3 * tokens * width * shape.mlp
    expected = shape.depth * (attention + mlp) + tokens * width * 31
    assert count_macs(case.model, first(case), find_layers(case.model)) == expected


@every_architecture
@settings(max_examples=5)
@given(shape=shapes(), seed=st.integers(0, 10**6))
def test_block_weights_of_a_cut_model_are_those_of_its_kept_units(name, shape, seed):
    case = build(name, shape, seed)
    layers = find_layers(case.model)
    kept = random_kept(layers, seed)
    model = cut_model(case.model, layers, kept)
    footprint = measure_footprint(model, case.inputs, layers=layers, runs=1, warm_up=0)
    assert footprint.block_weights == kept_weights(layers, kept)
    dense = measure_footprint(case.model, case.inputs, layers=layers, runs=1, warm_up=0)
    assert dense.block_weights == block_weights(layers)
    assert dense.weights - footprint.weights == dense.block_weights - footprint.block_weights
    assert footprint.macs <= dense.macs
    assert footprint.peak_memory_bytes <= dense.peak_memory_bytes


@every_architecture
def test_macs_of_what_is_left_when_everything_is_dropped(name):
    case = build(name)
    layers = find_layers(case.model)
    cut = cut_model(case.model, layers, [np.empty(0, dtype=np.int64) for _ in layers])
    per_layer = {
        number: count_macs(
            cut_model(
                case.model,
                layers,
                [np.arange(layer.units if layer.index == number else 0) for layer in layers],
            ),
            first(case),
            layers,
        )
        for number in range(len(layers))
    }
    rest = count_macs(cut, first(case), layers)
    dense = count_macs(case.model, first(case), layers)
    assert dense == rest + sum(macs - rest for macs in per_layer.values())


@every_architecture
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_bytes_are_those_of_the_saved_file(name, dtype, tmp_path):
    case = build(name)
    layers = find_layers(case.model)
    kept = random_kept(layers, 1)
    model = cut_model(case.model, layers, kept)
    manifest = save_personal_model(tmp_path, model, layers=layers, kept=kept, dtype=dtype)
    footprint = measure_footprint(model, case.inputs, layers=layers, dtype=dtype, runs=1)
    assert footprint.bytes == manifest.weights_bytes == (tmp_path / manifest.weights_file).stat().st_size


class Chain(nn.Sequential):
    def forward(self, x):
        return super().forward(x)


def test_peak_memory_counted_by_hand():
    model = Chain(nn.Linear(4, 100), nn.ReLU(), nn.Linear(100, 3))
    parameters = 4 * (4 * 100 + 100 + 100 * 3 + 3)
    inputs = {"x": torch.zeros(2, 4)}
    at_the_activation = 4 * 2 * (100 + 100)
    assert measure_peak_memory(model, inputs) == parameters + 4 * 2 * 4 + at_the_activation


def test_peak_memory_does_not_count_views_and_what_was_freed():
    model = Chain(*(nn.ReLU() for _ in range(20)), nn.Flatten(0, 1), nn.Flatten(0))
    inputs = {"x": torch.zeros(2, 5, 7)}
    assert measure_peak_memory(model, inputs) == 3 * 4 * 2 * 5 * 7


def test_latency_restores_the_threads_and_counts_its_runs():
    calls = []

    class Counting(nn.Module):
        def forward(self, x):
            calls.append(torch.get_num_threads())
            return x

    before = torch.get_num_threads()
    assert measure_latency(Counting(), {"x": torch.zeros(1)}, runs=3, warm_up=2, threads=before + 1) > 0
    assert calls == [before + 1] * 5
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="0 runs"):
        measure_latency(Counting(), {"x": torch.zeros(1)}, runs=0)


def test_measuring_leaves_no_hooks_and_looks_at_one_sample():
    case = build("vit", Shape())
    layers = find_layers(case.model)
    batch = measure_footprint(case.model, case.inputs, layers=layers, runs=1)
    single = measure_footprint(case.model, first(case), layers=layers, runs=1)
    assert batch.macs == single.macs
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in case.model.modules())
    assert hooks == 0
