"""How products with constant matrices are written into a graph by hand: in 32-bit numbers, or with int8 weights."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor

from personalization.export.onnx_nodes import Nodes

_LARGEST = 127.0
# Keeps a row of zeros from being divided by zero; far below what anything in a model is.
_LEAST = np.array(1e-30, dtype=np.float32)


@dataclass(frozen=True)
class Matrix:
    """A constant matrix [inputs, outputs] in a graph: the name of its numbers and, of int8, of the scales [outputs]."""

    numbers: str
    scales: str = ""


class Products(Protocol):
    """A way to store matrices and to multiply with them."""

    def matrix(self, nodes: Nodes, weight: Tensor) -> Matrix:
        """Add `weight` [outputs, inputs] to the graph, as [inputs, outputs]."""

    def multiply(self, nodes: Nodes, rows: str, matrix: Matrix) -> str:
        """Return `rows` [..., inputs] times the matrix."""

    def columns(self, nodes: Nodes, matrix: Matrix, numbers: str) -> str:
        """Return the columns `numbers` [...] of the matrix, [inputs, ...]."""


class FloatProducts:
    """Everything in 32-bit numbers."""

    def matrix(self, nodes: Nodes, weight: Tensor) -> Matrix:
        """Add a weight; see Products."""
        return Matrix(nodes.constant(weight.t().float().numpy()))

    def multiply(self, nodes: Nodes, rows: str, matrix: Matrix) -> str:
        """Multiply; see Products."""
        return nodes.add("MatMul", rows, matrix.numbers)

    def columns(self, nodes: Nodes, matrix: Matrix, numbers: str) -> str:
        """Gather columns; see Products."""
        return nodes.add("Gather", matrix.numbers, numbers, axis=1)


class Int8Products:
    """Int8 weights with a scale for each output; what they multiply is scaled by its own range as the model runs.

    What a model holds for a text's first token can be a thousand times what it holds for others (Sun et al. 2024,
    2402.17762), and one operator scales all rows alike: they are brought to the same size before, and their products
    back to their own after. So what a token is rounded to hardly depends on the tokens that it is read with.
    """

    def __init__(self) -> None:
        """Start with nothing quantized."""
        self._quantized: dict[str, tuple[str, ...]] = {}

    def matrix(self, nodes: Nodes, weight: Tensor) -> Matrix:
        """Add a weight; see Products."""
        scales = (weight.float().abs().amax(1) / _LARGEST).clamp_min(float(np.finfo(np.float32).tiny))
        numbers = (weight.float() / scales[:, None]).round().to(torch.int8)
        return Matrix(nodes.constant(numbers.t().numpy()), nodes.constant(scales.numpy()))

    def multiply(self, nodes: Nodes, rows: str, matrix: Matrix) -> str:
        """Multiply; see Products."""
        size, numbers, scale, zero = self._quantize(nodes, rows)
        whole = nodes.add("Cast", nodes.add("MatMulInteger", numbers, matrix.numbers, zero), to=TensorProto.FLOAT)
        return nodes.add("Mul", nodes.add("Mul", whole, nodes.add("Mul", scale, matrix.scales)), size)

    def _quantize(self, nodes: Nodes, rows: str) -> tuple[str, ...]:
        """Return the size of each row, and rows of one size as int8 numbers, their scale and their zero point."""
        if rows not in self._quantized:
            largest = nodes.add("ReduceMax", nodes.add("Abs", rows), nodes.constant([-1]))
            size = nodes.add("Max", largest, nodes.constant(_LEAST))
            even = nodes.add("Div", rows, size)
            self._quantized[rows] = (size, *nodes.add_several("DynamicQuantizeLinear", even, outputs=[None] * 3))
        return self._quantized[rows]

    def columns(self, nodes: Nodes, matrix: Matrix, numbers: str) -> str:
        """Gather columns; see Products."""
        gathered = nodes.add("Cast", nodes.add("Gather", matrix.numbers, numbers, axis=1), to=TensorProto.FLOAT)
        return nodes.add("Mul", gathered, nodes.add("Gather", matrix.scales, numbers))
