"""Masked forward passes: lower some layers, compensate them as a cut would, and see what comes out.

One pass does everything: at each lowered layer the inputs that its writer gets in the already cut model choose the
units, refit the writer, and give the output that the layers behind it see. A probe, a step and the final cut are the
same pass with different layers in it, so what is measured is what will be done.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from personalization.cutting.refit import Moments, RefitWriter, fold, moments, refit, ridge_for, select_units
from personalization.cutting.stream_gap import StreamGap
from personalization.settings import Score
from personalization.transformer.forward_replacement import forward_replaced
from personalization.transformer.layers import Layer, linear_bias, linear_weight
from personalization.transformer.readout import outputs_of
from personalization.transformer.trace import DenseTrace, Inputs, ending_after, replayed, rows_of

Units = NDArray[np.int64]
Counts = Mapping[int, int]

# Probes are stacked along the batch up to this many positions; larger stacks fall out of the caches.
STACKED_POSITIONS = 4096


@dataclass(frozen=True, kw_only=True)
class Compensation:
    """How a lowered layer is cut.

    ridge: least strength of the refit; None folds means only. score: how units are ranked. selection_ridge: strength of
    the refits that the `residual` score imagines. fit: [samples] of bool, the samples that moments are taken from.
    carried: share of what the layers before have left the residual stream lacking that a refit is to make up for beside
    what its own layer loses, where the stream is a sum of what layers put out. It can't be foreseen whole: half of it
    is better than nothing and than everything (for quantization: Arai and Ichikawa, 2504.09629, there alpha).
    """

    ridge: float | None
    score: Score
    fit: Tensor
    selection_ridge: float = 0.1
    carried: float = 0.5


@dataclass(frozen=True)
class MaskedPass:
    """What one probe gave: outputs like those of the trace, and for each lowered layer its kept units and its writer.

    outputs hold NaN for samples that were not to be measured. block_outputs: what the blocks returned, for a pass that
    was run by itself; probes can branch off from it.
    """

    outputs: Tensor
    kept: dict[int, Units] = field(default_factory=dict)
    writers: dict[int, RefitWriter] = field(default_factory=dict)
    block_outputs: tuple[Any, ...] = ()


@dataclass(frozen=True)
class MaskedModel:
    """The dense model on the private samples, ready to be run with layers lowered.

    allowed: units to choose from in layers where not all may be kept (what an earlier step or the fleet has dropped).
    measured: [samples] of bool, the samples whose outputs are wanted, None for all: behind the last block that a probe
    lowers no others are computed. cut_prefix: whether the blocks that probes skip are those of a cut model (see
    `branch`) instead of the dense one. dense_blocks: what blocks of the dense model returned, where the trace has
    something else.
    """

    trace: DenseTrace
    compensation: Compensation
    allowed: Mapping[int, Units] = field(default_factory=dict)
    measured: Tensor | None = None
    cut_prefix: bool = False
    dense_blocks: tuple[Any, ...] = ()
    _first_moments: dict[int, Moments] = field(default_factory=dict, compare=False)

    def run(self, counts: Counts) -> MaskedPass:
        """Run one probe: `counts[layer.index]` units stay in each lowered layer, the others are untouched."""
        blocks = list(dict.fromkeys(layer.block_path for layer in self.trace.layers))
        outputs: dict[str, Any] = {}
        with ExitStack() as stack:
            for path in blocks:
                hook = partial(_keep, outputs, path)
                stack.callback(self.trace.model.get_submodule(path).register_forward_hook(hook).remove)
            result = replace(self, measured=None).run_all([counts])[0]
        first = self._first_block(counts)
        # Blocks that were skipped only handed on what they were given; what they stand for is in the trace.
        returned = (*self.trace.block_outputs[:first], *(outputs[path] for path in blocks[first:]))
        return replace(result, block_outputs=returned)

    def branch(self, base: MaskedPass) -> "MaskedModel":
        """Return a model whose probes start from what the blocks of `base` returned instead of the dense ones.

        A probe must name all layers from its first block on, for nothing behind that block is remembered.
        """
        trace = replace(self.trace, block_outputs=base.block_outputs)
        dense = self.dense_blocks or self.trace.block_outputs
        return MaskedModel(trace, self.compensation, self.allowed, self.measured, cut_prefix=True, dense_blocks=dense)

    @property
    def carried(self) -> float:
        """The share of what the stream lacks that refits make up for, 0 where they can't."""
        return self.compensation.carried if self.trace.sums and self.compensation.ridge is not None else 0.0

    @torch.inference_mode()
    def run_all(self, probes: Sequence[Counts]) -> list[MaskedPass]:
        """Run probes, those that start in the same block stacked along the batch; results in the order given."""
        results: dict[int, MaskedPass] = {}
        for first_block, numbers in self._stacks(probes):
            stack = [probes[number] for number in numbers]
            results.update(zip(numbers, self._run_stack(stack, first_block), strict=True))
        return [results[number] for number in range(len(probes))]

    def _first_block(self, counts: Counts) -> int:
        return min((self.trace.layers[index].block for index in counts), default=self.trace.blocks)

    def _stacks(self, probes: Sequence[Counts]) -> list[tuple[int, list[int]]]:
        blocks: dict[int, list[int]] = {}
        for number, counts in enumerate(probes):
            blocks.setdefault(self._first_block(counts), []).append(number)
        most = max(1, STACKED_POSITIONS // self.trace.positions.numel())
        return [(b, n[i : i + most]) for b, n in sorted(blocks.items()) for i in range(0, len(n), most)]

    def _run_stack(self, probes: Sequence[Counts], first_block: int) -> list[MaskedPass]:
        results = [MaskedPass(self.trace.outputs) for _ in probes]
        if first_block == self.trace.blocks:
            return results
        lowered = [layer for layer in self.trace.layers if any(layer.index in counts for counts in probes)]
        last_block = max(layer.block for layer in lowered)
        dense_blocks = self.dense_blocks or self.trace.block_outputs
        gap = StreamGap(self.trace, dense_blocks, len(probes)) if self.carried else None
        with ExitStack() as stack:
            if gap is not None:
                lowered = [layer for layer in self.trace.layers if first_block <= layer.block <= last_block]
                self._watch(gap, lowered, stack)
            for layer in lowered:
                writer = self.trace.model.get_submodule(layer.writer)
                stack.enter_context(forward_replaced(writer, self._forward(layer, writer, probes, results, gap)))
            outputs = self._outputs(first_block, last_block, len(probes))
        return [MaskedPass(part, r.kept, r.writers) for part, r in zip(outputs, results, strict=True)]

    def _watch(self, gap: StreamGap, layers: Sequence[Layer], stack: ExitStack) -> None:
        """Let `gap` see what the blocks of `layers` are given, until `stack` is closed."""
        for path, block in {layer.block_path: layer.block for layer in layers}.items():

            def entered(_module: nn.Module, args: Any, kwargs: Any, block: int = block) -> None:
                gap.enter(block, args[0] if args else kwargs["hidden_states"])

            hook = self.trace.model.get_submodule(path).register_forward_pre_hook(entered, with_kwargs=True)
            stack.callback(hook.remove)

    def _outputs(self, first_block: int, last_block: int, copies: int) -> list[Tensor]:
        """Return the outputs of as many probes, which lower layers in blocks from `first_block` to `last_block`."""
        trace, measured = self.trace, self.measured
        if measured is None or last_block + 1 == trace.blocks:
            with replayed(trace, first_block, copies=copies):
                return list(outputs_of(trace.model, _repeated(trace.inputs, copies)).chunk(copies))
        with (
            replayed(trace, first_block, copies=copies),
            ending_after(trace.model, trace.layers, last_block) as returned,
        ):
            outputs_of(trace.model, _repeated(trace.inputs, copies))
        narrow = trace.with_block_output(last_block, rows_of(returned[0], measured.repeat(copies)))
        inputs = {name: value[measured] for name, value in trace.inputs.items()}
        with replayed(narrow, last_block + 1):
            parts = outputs_of(trace.model, _repeated(inputs, copies)).chunk(copies)
        return [torch.full_like(trace.outputs, torch.nan).index_put((measured,), part) for part in parts]

    def _forward(
        self,
        layer: Layer,
        module: nn.Module,
        probes: Sequence[Counts],
        results: Sequence[MaskedPass],
        gap: StreamGap | None,
    ) -> Callable[[Tensor], Tensor]:
        """Return what a writer does instead of its own forward: a hook after it would come when the work is done."""
        dense: Callable[[Tensor], Tensor] = module.forward

        def forward(x: Tensor) -> Tensor:
            outputs = []
            parts = zip(probes, results, x.chunk(len(probes)), strict=True)
            for number, (counts, result, part) in enumerate(parts):
                if layer.index in counts:
                    first = min(counts) == layer.index
                    lacking = 0.0 if gap is None else gap.parts[number]
                    count = counts[layer.index]
                    outputs.append(self._lower(layer, module, count, part, dense, result, lacking, first=first))
                else:
                    outputs.append(dense(part))
                if gap is not None:
                    gap.wrote(number, layer, outputs[-1])
            return torch.cat(outputs) if len(outputs) > 1 else outputs[0]

        return forward

    def _lower(
        self,
        layer: Layer,
        module: nn.Module,
        count: int,
        x: Tensor,
        dense: Callable[[Tensor], Tensor],
        result: MaskedPass,
        lacking: Tensor | float,
        *,
        first: bool,
    ) -> Tensor:
        allowed = self.allowed.get(layer.index, np.arange(layer.units))
        unfitted = self.compensation.ridge is None or (first and not self.cut_prefix)
        if unfitted and count >= len(allowed) == layer.units:
            weight, bias = linear_weight(module), linear_bias(module)
            result.kept[layer.index] = allowed
            result.writers[layer.index] = RefitWriter(weight, weight.new_zeros(len(weight)) if bias is None else bias)
            return dense(x)
        moment = self._moments(layer, x, lacking, first=first)
        kept, writer = lowered_writer(layer, module, moment, allowed, count, self.compensation)
        result.kept[layer.index], result.writers[layer.index] = kept, writer
        columns = torch.from_numpy(layer.columns(kept))
        return nn.functional.linear(x[..., columns], writer.weight, writer.bias)

    def places(self, layer: Layer) -> Tensor:
        """Return where what `layer` puts out counts, [samples, positions] of bool."""
        trace = self.trace
        return trace.positions & trace.read if layer.block == trace.blocks - 1 else trace.positions

    def _moments(self, layer: Layer, x: Tensor, lacking: Tensor | float, *, first: bool) -> Moments:
        """Moments of a layer's writer; in the first layer of a probe they are the same for all and computed once."""
        if first and layer.index in self._first_moments:
            return self._first_moments[layer.index]
        used = self.places(layer) & self.compensation.fit[:, None]
        wanted = self.trace.layer_outputs[layer.index][used]
        if isinstance(lacking, Tensor):
            wanted = wanted + self.carried * lacking[used]
        moment = moments(x[used], wanted)
        if first:
            self._first_moments[layer.index] = moment
        return moment


def lowered_writer(
    layer: Layer, module: nn.Module, moment: Moments, allowed: Units, count: int, compensation: Compensation
) -> tuple[Units, RefitWriter]:
    """Return which `count` units of `allowed` a layer with the writer `module` keeps, and its writer for them."""
    weight = linear_weight(module)
    kept = select_units(
        layer, weight, moment, allowed, count, score=compensation.score, ridge=compensation.selection_ridge
    )
    columns = torch.from_numpy(layer.columns(kept))
    if compensation.ridge is None:
        return kept, fold(weight, moment, columns)
    return kept, refit(weight, moment, columns, ridge_for(len(columns), moment.rows, compensation.ridge))


def _repeated(inputs: Inputs, copies: int) -> Inputs:
    return {name: value.repeat(copies, *[1] * (value.ndim - 1)) for name, value in inputs.items()}


def _keep(outputs: dict[str, Any], path: str, _module: nn.Module, _args: Any, output: Any) -> None:
    outputs[path] = output
