"""Collects the nodes and constants of an ONNX graph that is written by hand."""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

# The first with attention, rotary positions and RMS norms as operators; it goes with the IR version.
OPSET, _IR_VERSION = 23, 11


class Nodes:
    """Nodes of standard operators, in the order in which they run; every value has a name, as short as can be.

    Constants are copied once, into the graph that is returned in the end: they are all the size of a model.
    """

    def __init__(self) -> None:
        """Start with nothing."""
        self._model = onnx.ModelProto(ir_version=_IR_VERSION, opset_import=[helper.make_opsetid("", OPSET)])
        self._model.graph.name = "model"
        self._names: Iterator[str] = (f"{number:x}" for number in count())

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of one output and return its name. An input "" is one that is left out."""
        (name,) = self.add_several(operator, *inputs, outputs=[next(self._names)], **attributes)
        return name

    def add_several(
        self, operator: str, *inputs: str, outputs: Sequence[str | None], **attributes: Any
    ) -> tuple[str, ...]:
        """Add a node and return the names of its outputs: as given, and new ones for None."""
        names = [name or next(self._names) for name in outputs]
        self._model.graph.node.append(helper.make_node(operator, list(inputs), names, **attributes))
        return tuple(names)

    def constant(self, values: NDArray[Any] | Sequence[int] | int) -> str:
        """Add a constant and return its name; whole numbers are of 64 bits."""
        array = values if isinstance(values, np.ndarray) else np.array(values, dtype=np.int64)
        tensor = self._model.graph.initializer.add(
            name=next(self._names), data_type=helper.np_dtype_to_tensor_dtype(array.dtype), dims=array.shape
        )
        tensor.raw_data = array.tobytes()
        return str(tensor.name)

    def graph(self, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]) -> onnx.ModelProto:
        """Return the graph of what was added. What is added later is added to it."""
        self._model.graph.input.extend(inputs)
        self._model.graph.output.extend(outputs)
        return self._model
