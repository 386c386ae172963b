import numpy as np
import onnx
import pytest
from conftest import make_tiny_vit

from personalization.data.images import ImagePreprocessing
from personalization.device.runtime import open_session, run_session, softmax
from personalization.export.onnx_graph import export_graph
from personalization.export.onnx_quantization import quantize_dynamically, quantize_statically

GREY = ImagePreprocessing(height=8, width=8, channels=1, mean=(0.5,), std=(0.5,))
PIXELS = np.random.default_rng(0).standard_normal((24, 1, 8, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def graph() -> onnx.ModelProto:
    return export_graph(make_tiny_vit(), GREY)


def float_matrices(graph: onnx.ModelProto) -> list[tuple[int, ...]]:
    """Shapes of the 32-bit matrices that something is multiplied with."""
    factors = {node.input[1] for node in graph.graph.node if "MatMul" in node.op_type}
    return [
        tuple(tensor.dims)
        for tensor in graph.graph.initializer
        if tensor.name in factors and tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2
    ]


def int8_weights(graph: onnx.ModelProto) -> int:
    return sum(
        int(np.prod(tensor.dims))
        for tensor in graph.graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 2
    )


@pytest.mark.parametrize("static", [False, True])
def test_every_matrix_becomes_int8_and_the_graph_stays_what_it_was(graph: onnx.ModelProto, static: bool) -> None:
    before = graph.SerializeToString()
    int8 = quantize_statically(graph, PIXELS) if static else quantize_dynamically(graph)
    assert graph.SerializeToString() == before
    # Four projections and two matrices of the MLP in each of two blocks, and the patches.
    assert int8_weights(int8) >= 2 * (4 * 16 * 16 + 2 * 16 * 32) + 16 * 16
    assert float_matrices(int8) == []


@pytest.mark.parametrize("static", [False, True])
def test_int8_stays_close_on_the_samples(graph: onnx.ModelProto, static: bool) -> None:
    exact = softmax(run_session(open_session(graph.SerializeToString()), PIXELS))
    int8 = quantize_statically(graph, PIXELS) if static else quantize_dynamically(graph)
    close = softmax(run_session(open_session(int8.SerializeToString()), PIXELS))
    assert 0 < np.abs(exact - close).max() < 0.1


def test_static_ranges_are_those_of_the_samples(graph: onnx.ModelProto) -> None:
    """Pixels twice as large need a scale twice as large where they enter, and samples in another order the same."""

    def first_scale(pixels: np.ndarray) -> float:
        int8 = quantize_statically(graph, pixels)
        first = next(node for node in int8.graph.node if node.op_type == "QuantizeLinear")
        (scale,) = [tensor for tensor in int8.graph.initializer if tensor.name == first.input[1]]
        return float(onnx.numpy_helper.to_array(scale))

    assert first_scale(2 * PIXELS) == pytest.approx(2 * first_scale(PIXELS))
    assert first_scale(PIXELS[::-1]) == first_scale(PIXELS)
