"""Turn an image classifier into an ONNX graph in float32 for one image at a time, as small as the format allows.

Only standard operators are written; what a runtime fuses, it fuses when it opens the file. Torch's older exporter is
used: beside torch it needs onnx alone, and its graphs carry no traces of the Python that they came from.
"""

import copy
import io
import warnings

import onnx
import torch
from torch import Tensor, nn

from personalization.data.images import ImagePreprocessing
from personalization.device.runtime import INPUT, OUTPUT
from personalization.transformer.layers import is_linear, linear_bias, linear_weight

_OPSET = 17


class _Logits(nn.Module):
    """Takes pixel values and returns logits, and nothing of what else transformers returns."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        logits: Tensor = self.model(pixel_values=pixel_values).logits
        return logits


class _PatchProjection(nn.Module):
    """A convolution whose patches do not overlap, as one matrix product: which int8 can make small, and fast."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.patch = convolution.kernel_size
        self.weight = nn.Parameter(convolution.weight.detach().flatten(1).t().contiguous())
        self.bias = convolution.bias

    def forward(self, pixels: Tensor) -> Tensor:
        samples, channels = pixels.shape[:2]
        rows, columns = (size // patch for size, patch in zip(pixels.shape[2:], self.patch, strict=True))
        split = pixels.reshape(samples, channels, rows, self.patch[0], columns, self.patch[1])
        patches = split.permute(0, 2, 4, 1, 3, 5).reshape(samples, rows * columns, self.weight.shape[0])
        embedded = patches @ self.weight
        if self.bias is not None:
            embedded = embedded + self.bias
        return embedded.transpose(1, 2).reshape(samples, -1, rows, columns)


class _BiasAlone(nn.Module):
    """A linear module of no inputs: what is left to write where a whole layer was cut. Runtimes differ on such ones."""

    def __init__(self, outputs: int, bias: Tensor | None) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(outputs) if bias is None else bias.detach().clone())

    def forward(self, nothing: Tensor) -> Tensor:
        return self.bias.expand(*nothing.shape[:-1], -1)


def export_graph(model: nn.Module, preprocessing: ImagePreprocessing) -> onnx.ModelProto:
    """Return `model`, dense or cut, as a graph: `pixel_values` [1, channels, height, width] to `logits` [1, classes].

    `model` stays as it is; the graph computes the same numbers, up to the order of sums.
    """
    size = (preprocessing.height, preprocessing.width)
    portable = _portable(copy.deepcopy(model).eval(), size)
    sample = torch.zeros(1, preprocessing.channels, *size)
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # What it warns of: itself, as it is the older exporter, and shapes that it takes as constant, which they are.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Logits(portable).eval(),
            (sample,),
            buffer,  # type: ignore[arg-type]  # the older exporter takes files, which the annotation leaves out
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=_OPSET,
            dynamo=False,
        )
    return compact(onnx.load_model_from_string(buffer.getvalue()))


def compact(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph without the names, shapes and notes that only people read: a third of a small int8 model.

    Raises onnx.checker.ValidationError if what comes out is no valid graph.
    """
    result = onnx.ModelProto()
    result.CopyFrom(graph)
    body = result.graph
    kept = {value.name for value in (*body.input, *body.output)} | {""}
    names: dict[str, str] = {}

    def short(name: str) -> str:
        return name if name in kept else names.setdefault(name, f"{len(names):x}")

    for tensor in body.initializer:
        tensor.name = short(tensor.name)
    for node in body.node:
        node.name = node.doc_string = ""
        del node.metadata_props[:]
        node.input[:] = [short(name) for name in node.input]
        node.output[:] = [short(name) for name in node.output]
    del body.value_info[:]
    del result.metadata_props[:]
    onnx.checker.check_model(result)
    return result


def _portable(model: nn.Module, size: tuple[int, int]) -> nn.Module:
    """Replace, in `model` itself, what a runtime does badly or not at all."""
    for path, module in list(model.named_modules()):
        replacement: nn.Module | None = None
        if isinstance(module, nn.Conv2d) and _is_patch_projection(module, size):
            replacement = _PatchProjection(module)
        elif is_linear(module) and linear_weight(module).shape[1] == 0:
            replacement = _BiasAlone(linear_weight(module).shape[0], linear_bias(module))
        if replacement is not None:
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, replacement)
    return model


def _is_patch_projection(module: nn.Conv2d, size: tuple[int, int]) -> bool:
    return (
        module.kernel_size == module.stride
        and module.padding in ((0, 0), "valid")
        and module.dilation == (1, 1)
        and module.groups == 1
        and all(edge % patch == 0 for edge, patch in zip(size, module.kernel_size, strict=True))
    )
