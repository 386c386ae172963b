import copy

import numpy as np
import onnx
import pytest
import torch
from conftest import make_tiny_vit
from torch import nn

from personalization.cutting.cut_model import cut_model
from personalization.data.images import ImagePreprocessing
from personalization.device.runtime import open_session, run_session
from personalization.export.onnx_graph import _BiasAlone, _PatchProjection, compact, export_graph
from personalization.transformer.layers import find_layers
from tests.personalization.architectures import Shape, build, random_kept

GREY = ImagePreprocessing(height=8, width=8, channels=1, mean=(0.5,), std=(0.5,))


def outputs(model: nn.Module, pixels: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return model(pixel_values=pixels).logits.numpy()


def assert_same(model: nn.Module, preprocessing: ImagePreprocessing, pixels: torch.Tensor) -> None:
    session = open_session(export_graph(model, preprocessing).SerializeToString())
    np.testing.assert_allclose(run_session(session, pixels.numpy()), outputs(model, pixels), atol=1e-4)


@pytest.mark.parametrize("name", ["vit", "deit", "dinov2"])
def test_a_graph_computes_what_the_cut_model_computes(name: str) -> None:
    case = build(name, Shape())
    layers = find_layers(case.model)
    model = cut_model(case.model, layers, random_kept(layers, 3))
    pixels = case.inputs["pixel_values"]
    _, channels, height, width = pixels.shape
    values = (0.5,) * channels
    assert_same(
        model, ImagePreprocessing(height=height, width=width, channels=channels, mean=values, std=values), pixels
    )


@pytest.mark.parametrize("gone", [(0,), (1,), (0, 1, 2, 3)])
def test_layers_that_were_cut_whole_leave_their_bias(gone: tuple[int, ...]) -> None:
    model = make_tiny_vit()
    layers = find_layers(model)
    kept = [np.arange(0 if layer.index in gone else layer.units) for layer in layers]
    assert_same(cut_model(model, layers, kept), GREY, torch.randn(3, 1, 8, 8, generator=torch.manual_seed(1)))


def test_the_model_stays_as_it_is() -> None:
    model = make_tiny_vit()
    before, modules = copy.deepcopy(model.state_dict()), [type(module) for module in model.modules()]
    export_graph(model, GREY)
    assert [type(module) for module in model.modules()] == modules
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_patches_as_a_product_are_the_convolution() -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 7, kernel_size=(2, 4), stride=(2, 4))
    pixels = torch.randn(2, 3, 6, 8)
    torch.testing.assert_close(_PatchProjection(convolution)(pixels), convolution(pixels))


def test_a_linear_module_of_no_inputs_writes_its_bias() -> None:
    bias = torch.tensor([1.0, 2.0])
    nothing = torch.zeros(3, 4, 0)
    torch.testing.assert_close(_BiasAlone(2, bias)(nothing), nn.functional.linear(nothing, torch.zeros(2, 0), bias))
    assert _BiasAlone(2, None)(nothing).abs().max() == 0


def test_only_standard_operators_and_no_names_but_those_of_input_and_output() -> None:
    graph = export_graph(make_tiny_vit(), GREY)
    assert {node.domain for node in graph.graph.node} <= {""}
    assert not any(node.name or node.doc_string for node in graph.graph.node)
    assert [value.name for value in (*graph.graph.input, *graph.graph.output)] == ["pixel_values", "logits"]
    assert compact(graph) == graph


def test_compact_refuses_a_graph_that_is_none() -> None:
    graph = export_graph(make_tiny_vit(), GREY)
    del graph.graph.initializer[0]
    with pytest.raises(onnx.checker.ValidationError):
        compact(graph)
