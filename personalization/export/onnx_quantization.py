"""Quantize an ONNX graph to int8: weights and, dynamically or from private samples, what is multiplied with them.

Matrix products with constant weights are quantized and nothing else: they are nearly all of the weights and work, and
norms, softmax and the products inside attention lose accuracy in int8 and gain little.
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from personalization.device.runtime import INPUT
from personalization.export.onnx_graph import compact

_OPERATORS = ["MatMul"]
# onnxruntime advises to simplify a graph before it is quantized, unless this says that it was. On these graphs that
# would only turn products of three dimensions into Gemm between reshapes, which are larger and slower in int8.
_SIMPLIFIED = ("onnx.quant.pre_process", "onnxruntime.quant")


class _PrivateSamples(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime comes without types
    """Hands out pixel values [samples, channels, height, width] one at a time."""

    def __init__(self, pixels: NDArray[np.float32]) -> None:
        self.rows: Iterator[NDArray[np.float32]] = iter(pixels)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        row = next(self.rows, None)
        return None if row is None else {INPUT: row[None]}


def quantize_dynamically(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Return `graph` with int8 weights; each activation is scaled by its own range when the model runs."""
    return _quantized(graph, _dynamic)


def quantize_statically(graph: onnx.ModelProto, pixels: NDArray[np.float32]) -> onnx.ModelProto:
    """Return `graph` with int8 weights, a scale for each column, and activations scaled by their range on `pixels`.

    pixels: private samples [samples, channels, height, width]. They leave nothing in the graph but two numbers for each
    quantized activation.
    """
    return _quantized(graph, partial(_static, pixels=pixels))


def _dynamic(source: Path, target: Path) -> None:
    quantize_dynamic(
        source,
        target,
        op_types_to_quantize=_OPERATORS,
        weight_type=QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True},
    )


def _static(source: Path, target: Path, pixels: NDArray[np.float32]) -> None:
    quantize_static(
        source,
        target,
        _PrivateSamples(pixels),
        quant_format=QuantFormat.QOperator,
        op_types_to_quantize=_OPERATORS,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True},
    )


def _quantized(graph: onnx.ModelProto, quantize: Callable[[Path, Path], None]) -> onnx.ModelProto:
    marked = onnx.ModelProto()
    marked.CopyFrom(graph)
    onnx.helper.set_model_props(marked, dict([_SIMPLIFIED]))
    with tempfile.TemporaryDirectory(prefix="fedsieve-") as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save_model(marked, source)
        quantize(source, target)
        return compact(onnx.load_model(target))
