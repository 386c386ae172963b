"""One dense forward pass over the private samples, kept so that everything after it can start in the middle.

Also here: running the model again from the block where something first changes (prefix reuse). The embeddings and
the head are the model's own, so nothing here knows its architecture beyond `layers`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from personalization.transformer.forward_replacement import forward_replaced
from personalization.transformer.layers import Layer, linear_weight
from personalization.transformer.readout import check_head, outputs_of, token_head

Inputs = Mapping[str, Tensor]
# Of a sum in single precision, relative to what is added: streams of language models have a few very large channels.
_ROUNDING = 1e-2


@dataclass(frozen=True)
class DenseTrace:
    """What the dense model computed on the private samples.

    outputs: logits [samples, classes]; of a language model what its head reads, [samples, positions, width] (see
    `readout`). head: makes logits of such outputs; None where outputs are logits. block_outputs: per block, what its
    module returned. layer_outputs: per layer, what its writer returned, [samples, positions, width]. positions:
    [samples, positions], true where a position holds data (not padding). read: [samples, positions], true where the
    head reads the last block's output. shift: [classes], what is added to all logits before predictions are compared
    (see `head`). sums: whether a block hands on what it was given plus what its layers put out, and nothing else.
    """

    model: nn.Module
    layers: tuple[Layer, ...]
    inputs: Inputs
    outputs: Tensor
    head: nn.Module | None
    block_outputs: tuple[Any, ...]
    layer_outputs: tuple[Tensor, ...]
    positions: Tensor
    read: Tensor
    shift: Tensor
    sums: bool = False

    @property
    def samples(self) -> int:
        """Number of private samples."""
        return len(self.outputs)

    @property
    def classes(self) -> int:
        """Number of classes, or of tokens, that are predicted."""
        return len(self.shift)

    @property
    def blocks(self) -> int:
        """Number of transformer blocks."""
        return len(self.block_outputs)

    def with_block_output(self, block: int, output: Any) -> "DenseTrace":
        """Return a trace in which `block` has returned `output`."""
        return replace(self, block_outputs=(*self.block_outputs[:block], output, *self.block_outputs[block + 1 :]))

    def without_activations(self) -> "DenseTrace":
        """Return a trace that tells what the model predicts, and has no room for what came before that."""
        return replace(self, block_outputs=(), layer_outputs=())

    def logits(self, outputs: Tensor) -> Tensor:
        """Return the logits [..., classes] of `outputs` of this model or of one that was cut from it, shift included.

        For a few positions at a time where the classes are many: see `readout`.
        """
        return (outputs if self.head is None else self.head(outputs)) + self.shift


@dataclass(frozen=True)
class LayerPass:
    """What one layer did in the pass of the dense model, seen while it runs.

    writer: its module. given: what that was given, [samples, positions, columns], which no trace keeps. written: what
    it put out, [samples, positions, width]. stream: what its block handed on, of the same shape. positions: as in
    `DenseTrace`.
    """

    layer: Layer
    writer: nn.Module
    given: Tensor
    written: Tensor
    stream: Tensor
    positions: Tensor


# Is shown every layer of a block as soon as the block has run.
Look = Callable[[LayerPass], None]


@torch.inference_mode()
def trace_dense(model: nn.Module, layers: Sequence[Layer], inputs: Inputs, *, look: Look | None = None) -> DenseTrace:
    """Run the dense model once. Raises UserError if the model has no head that gives logits."""
    head = token_head(model)
    check_head(model, inputs)
    block_outputs: dict[str, Any] = {}
    layer_outputs: dict[str, Tensor] = {}
    given: dict[str, Tensor] = {}

    def keep_block(path: str, _module: nn.Module, _args: Any, output: Any) -> None:
        block_outputs[path] = output
        if look is None:
            return
        for layer in layers:
            if layer.block_path == path:
                writer, written = model.get_submodule(layer.writer), layer_outputs[layer.writer]
                positions = _data_positions(inputs, written)
                look(LayerPass(layer, writer, given.pop(layer.writer), written, hidden_of(output), positions))

    def keep_layer(path: str, _module: nn.Module, args: Any, output: Tensor) -> None:
        layer_outputs[path] = output
        if look is not None:
            given[path] = args[0]

    blocks = _block_paths(layers)
    with ExitStack() as hooks:
        for path in blocks:
            hooks.callback(model.get_submodule(path).register_forward_hook(partial(keep_block, path)).remove)
        for layer in layers:
            keep = partial(keep_layer, layer.writer)
            hooks.callback(model.get_submodule(layer.writer).register_forward_hook(keep).remove)
        outputs = outputs_of(model, inputs)
    written = tuple(layer_outputs[layer.writer] for layer in layers)
    positions = _data_positions(inputs, written[0])
    handed_on = tuple(block_outputs[path] for path in blocks)
    trace = DenseTrace(
        model,
        tuple(layers),
        inputs,
        outputs,
        head,
        handed_on,
        written,
        positions,
        torch.ones_like(positions),
        torch.zeros(outputs.shape[-1] if head is None else len(linear_weight(head))),
        _sums(handed_on, written, layers),
    )
    return _with_read_positions(trace)


@contextmanager
def replayed(trace: DenseTrace, first_block: int, *, copies: int = 1) -> Iterator[None]:
    """Make the model skip all blocks before `first_block` and go on from what the last of them returned.

    With `copies`, that output is repeated along the batch for as many probes.
    """
    handed_on = _repeat(trace.block_outputs[first_block - 1], copies) if first_block else None
    with entering(trace.model, trace.layers, first_block, handed_on):
        yield


@contextmanager
def entering(model: nn.Module, layers: Sequence[Layer], block: int, handed_on: Any) -> Iterator[None]:
    """Make the model skip all blocks before `block`, as if the last of them had returned `handed_on`."""
    modules = [model.get_submodule(path) for path in _block_paths(layers)[:block]]
    with ExitStack() as stack:
        for module in modules[:-1]:
            stack.enter_context(forward_replaced(module, _pass_through))
        for module in modules[-1:]:
            stack.enter_context(forward_replaced(module, _returns(handed_on)))
        yield


@contextmanager
def ending_after(model: nn.Module, layers: Sequence[Layer], block: int) -> Iterator[list[Any]]:
    """Make the model skip all blocks behind `block`; what that one returned is in the list that this yields."""
    paths = _block_paths(layers)
    skipped = [model.get_submodule(path) for path in paths[block + 1 :]]
    returned: list[Any] = []

    def skip(*_args: Any, **_kwargs: Any) -> Any:
        return returned[0]

    with ExitStack() as stack:
        for module in skipped:
            stack.enter_context(forward_replaced(module, skip))
        keep = model.get_submodule(paths[block]).register_forward_hook(lambda _m, _a, out: returned.append(out))
        stack.callback(keep.remove)
        yield returned


def _block_paths(layers: Sequence[Layer]) -> list[str]:
    return list(dict.fromkeys(layer.block_path for layer in layers))


def hidden_of(output: Any) -> Tensor:
    """Return the residual stream [samples, positions, width] in what a block returned."""
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden


def rows_of(output: Any, rows: Tensor) -> Any:
    """Return what a block returned, for the samples `rows` [samples] of bool alone."""
    if isinstance(output, tuple):
        return tuple(part[rows] if isinstance(part, Tensor) else part for part in output)
    return output[rows]


def _data_positions(inputs: Inputs, written: Tensor) -> Tensor:
    """Return where the samples hold data, [samples, positions] of bool, of what a layer has `written` for them."""
    mask, shape = inputs.get("attention_mask"), written.shape[:2]
    return torch.ones(shape, dtype=torch.bool) if mask is None or mask.shape != shape else mask.bool()


def _sums(block_outputs: Sequence[Any], layer_outputs: Sequence[Tensor], layers: Sequence[Layer]) -> bool:
    """Say whether what the second block hands on is what the first did plus what its layers put out."""
    if len(block_outputs) < 2:
        return False
    first, second = hidden_of(block_outputs[0]), hidden_of(block_outputs[1])
    added = torch.stack([layer_outputs[layer.index] for layer in layers if layer.block == 1]).sum(0)
    return bool((first + added - second).abs().mean() <= _ROUNDING * added.abs().mean())


def _pass_through(hidden: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
    return hidden


def _returns(output: Any) -> Any:
    return lambda *_args, **_kwargs: output


def _repeat(output: Any, copies: int) -> Any:
    if copies == 1:
        return output
    if isinstance(output, tuple):
        return tuple(_repeat(part, copies) if isinstance(part, Tensor) else part for part in output)
    return output.repeat(copies, *[1] * (output.ndim - 1))


def _with_read_positions(trace: DenseTrace) -> DenseTrace:
    """Find out which positions of the last block's output reach the logits.

    A classifier reads one position or a few; refits of the last block need to be right only there. Samples of the same
    padding are read at the same positions (a decoder's head reads the last token), so one of them is asked for all.
    """
    if trace.outputs.ndim > 2:
        return trace
    patterns, which = trace.positions.unique(dim=0, return_inverse=True)
    asked = [int((which == pattern).nonzero()[0]) for pattern in range(len(patterns))]
    return replace(trace, read=torch.stack([_read_positions(trace, sample) for sample in asked])[which])


def _read_positions(trace: DenseTrace, sample: int) -> Tensor:
    """Change each position in a copy of `sample` of its own, run the head on all copies; true where logits change."""
    last = trace.block_outputs[-1]
    hidden = hidden_of(last)[sample]
    count = len(hidden)
    copies = hidden.repeat(count + 1, 1, 1)
    # Reversed channels, because a shift of all channels alike would vanish in a layer norm.
    copies[torch.arange(count), torch.arange(count)] = hidden.flip(-1)
    changed = (copies, *last[1:]) if isinstance(last, tuple) else copies
    inputs = {
        name: value[sample : sample + 1].expand(count + 1, *value.shape[1:]) for name, value in trace.inputs.items()
    }
    probe = replace(trace, block_outputs=(*trace.block_outputs[:-1], changed))
    with replayed(probe, len(trace.block_outputs)):
        logits = outputs_of(trace.model, inputs)
    # A tolerance, because equal rows of a batch can differ in their last bits.
    return ((logits[:count] - logits[count]).abs() > 1e-5 * logits.abs().max()).any(-1)
