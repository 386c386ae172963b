"""Cut a model block by block, on more samples than a trace of the whole model has room for.

Two streams go through the blocks: what the dense model hands on, and what the cut one does. Of all samples only what is
between two blocks is kept, and what the dense layers of one block put out; moments are added up over a few samples at a
time. So memory grows little with their number. Layer by layer the units are chosen and the writer is refitted, as in a
masked pass: towards what the dense layer puts out, for the inputs that the writer gets in the model cut so far (the
order of SparseGPT, 2301.00774).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from personalization.cutting.masked import Compensation, Counts, Units, lowered_writer
from personalization.cutting.refit import MomentSum, RefitWriter
from personalization.transformer.forward_replacement import forward_replaced
from personalization.transformer.layers import Layer
from personalization.transformer.readout import outputs_of
from personalization.transformer.trace import Inputs, ending_after, entering, hidden_of

# Positions that go through a block at a time.
_POSITIONS = 2048


@dataclass
class _Chunk:
    """A few samples: the model's arguments, and what the block before handed on in the dense and in the cut model.

    lacking: what the layers that are cut so far have left the residual stream lacking, [samples, positions, width];
    0 before the first.
    """

    inputs: Inputs
    dense: Any = None
    cut: Any = None
    lacking: Tensor | float = 0.0

    def enter(self) -> None:
        """Note what the stream lacks where the next block begins."""
        if self.dense is not None:
            self.lacking = hidden_of(self.dense) - hidden_of(self.cut)


@dataclass(frozen=True)
class BlockwiseCut:
    """For each layer the units that it keeps, and its writer."""

    kept: dict[int, Units] = field(default_factory=dict)
    writers: dict[int, RefitWriter] = field(default_factory=dict)


@torch.inference_mode()
def cut_in_blocks(
    model: nn.Module,
    layers: Sequence[Layer],
    inputs: Inputs,
    counts: Counts,
    *,
    compensation: Compensation,
    allowed: Mapping[int, Units],
) -> BlockwiseCut:
    """Choose `counts[layer.index]` units of every layer and refit its writer, on all samples of `inputs`.

    inputs: the model's arguments, each [samples, positions], without padding. allowed: units to choose from in
    layers where not all may be kept. Every block is passed four times at most, once as the dense model has it.
    `compensation.fit` is not used: moments are of all samples. Raises UserError for moments that are not finite.
    """
    samples, positions = next(iter(inputs.values())).shape[:2]
    size = max(1, _POSITIONS // positions)
    chunks = [_Chunk({n: v[i : i + size] for n, v in inputs.items()}) for i in range(0, samples, size)]
    result, carried = BlockwiseCut(), compensation.carried
    last = max(layer.block for layer in layers)
    for block in range(last + 1):
        run = _BlockRun(model, tuple(layers), block)
        own = [layer for layer in layers if layer.block == block]
        dense: list[dict[int, Tensor]] = []
        for chunk in chunks:
            chunk.enter()
            dense.append({})
            chunk.dense = run(chunk.inputs, chunk.dense, keep=dense[-1])
        for layer in own:
            total, seen = MomentSum(), list[tuple[_Chunk, Tensor, Tensor]]()
            for chunk, outputs in zip(chunks, dense, strict=True):
                x, y = run.inputs_of(layer, chunk.inputs, chunk.cut, result), outputs.pop(layer.index)
                total.add(x.flatten(0, -2), (y + carried * chunk.lacking).flatten(0, -2))
                if carried and layer is not own[-1]:
                    seen.append((chunk, x, y))
            units = allowed.get(layer.index, np.arange(layer.units))
            count = counts[layer.index]
            kept, writer = lowered_writer(layer, run.writer(layer), total.moments(), units, count, compensation)
            result.kept[layer.index], result.writers[layer.index] = kept, writer
            for chunk, x, y in seen:
                chunk.lacking = chunk.lacking + y - _cut_forward(layer, result)(x)
        for chunk in chunks if block < last else ():
            chunk.cut = run(chunk.inputs, chunk.cut, cut=result)
    return result


class _WriterReached(Exception):  # noqa: N818 - nothing is wrong
    """The inputs of a writer are known, and the rest of the pass is not needed."""


@dataclass(frozen=True)
class _BlockRun:
    """Runs one block of the model on what the block before handed on."""

    model: nn.Module
    layers: tuple[Layer, ...]
    block: int

    def writer(self, layer: Layer) -> nn.Module:
        return self.model.get_submodule(layer.writer)

    def __call__(
        self, inputs: Inputs, handed_on: Any, *, keep: dict[int, Tensor] | None = None, cut: BlockwiseCut | None = None
    ) -> Any:
        """Return what the block hands on: as it is, or with the layers that `cut` knows.

        keep: takes what each layer puts out, by its index.
        """
        with ExitStack() as stack:
            for layer in self._own():
                if cut is not None:
                    stack.enter_context(forward_replaced(self.writer(layer), _cut_forward(layer, cut)))
                elif keep is not None:
                    put = _keeping(keep, layer.index)
                    stack.callback(self.writer(layer).register_forward_hook(put).remove)
            return self._pass(inputs, handed_on)

    def inputs_of(self, layer: Layer, inputs: Inputs, handed_on: Any, cut: BlockwiseCut) -> Tensor:
        """Return what the writer of `layer` reads, where the layers before it are those of `cut`, [..., columns]."""
        found: list[Tensor] = []

        def reached(x: Tensor) -> Tensor:
            found.append(x)
            raise _WriterReached

        with ExitStack() as stack:
            for before in self._own():
                forward = _cut_forward(before, cut) if before.index in cut.kept else reached
                if before.index in cut.kept or before is layer:
                    stack.enter_context(forward_replaced(self.writer(before), forward))
            with suppress(_WriterReached):
                self._pass(inputs, handed_on)
        return found[0]

    def _own(self) -> Iterator[Layer]:
        return (layer for layer in self.layers if layer.block == self.block)

    def _pass(self, inputs: Inputs, handed_on: Any) -> Any:
        entered = entering(self.model, self.layers, self.block, handed_on)
        with entered, ending_after(self.model, self.layers, self.block) as returned:
            outputs_of(self.model, inputs)
        return returned[0]


def _cut_forward(layer: Layer, cut: BlockwiseCut) -> Callable[[Tensor], Tensor]:
    columns, writer = torch.from_numpy(layer.columns(cut.kept[layer.index])), cut.writers[layer.index]
    return lambda x: nn.functional.linear(x[..., columns], writer.weight, writer.bias)


def _keeping(keep: dict[int, Tensor], index: int) -> Callable[[nn.Module, Any, Tensor], None]:
    def put(_module: nn.Module, _args: Any, output: Tensor) -> None:
        keep[index] = output

    return put
