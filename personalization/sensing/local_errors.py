"""How far each layer's own output moves when it is lowered: told by second moments, without any masked pass."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from personalization.cutting.masked import Compensation, MaskedModel, Units, lowered_writer
from personalization.cutting.refit import moments
from personalization.sensing.probes import units_left
from personalization.transformer.trace import DenseTrace, LayerPass, trace_dense


class LocalErrors:
    """Takes local errors from a pass of the dense model, block by block while it runs.

    A local error is the squared distance of what a layer's refitted writer puts out, once the layer is lowered by
    itself, from what the dense layer does, over the squared length of the residual stream behind its block: the mean
    over the positions of the measured samples. Entropy rises about in proportion to it: in SmolLM2 by the same factor
    from level to level, and along with it from speaker to speaker. By how much one layer's error is felt more than
    another's, which in attention differs most, is left to probes, and to the fleet (docs/text.md has the figures).
    """

    def __init__(
        self,
        levels: Sequence[float],
        compensation: Compensation,
        *,
        allowed: Mapping[int, Units] | None = None,
        measured: Tensor | None = None,
    ) -> None:
        """levels: of probes. The rest is as in `MaskedModel`, but units go in the order of their variance in any case.

        Errors of units chosen with more care say no more about layers, and take twice as long.
        """
        self._levels, self._allowed, self._measured = levels, allowed or {}, measured
        self._compensation = replace(compensation, score="variance")
        self._found: dict[int, list[float]] = {}
        self._waiting: list[LayerPass] = []

    def look(self, seen: LayerPass) -> None:
        """See one layer: for `trace_dense`."""
        # What counts of the last block is known at the end only, so every block waits for the next.
        if self._waiting and self._waiting[0].layer.block != seen.layer.block:
            for before in self._waiting:
                self._found[before.layer.index] = self._errors(before, before.positions)
            self._waiting.clear()
        self._waiting.append(seen)

    @torch.inference_mode()
    def of(self, trace: DenseTrace) -> NDArray[np.float64]:
        """Return the errors [layers, levels], >= 0, of the layers of `trace`, all of which have been seen."""
        for last in self._waiting:
            self._found[last.layer.index] = self._errors(last, last.positions & trace.read)
        self._waiting.clear()
        return np.array([self._found[layer.index] for layer in trace.layers])

    def _errors(self, seen: LayerPass, places: Tensor) -> list[float]:
        """Return the error of one layer at each level. places: where it counts, [samples, positions] of bool."""
        layer, fitted = seen.layer, places & self._compensation.fit[:, None]
        told = fitted if self._measured is None else places & self._measured[:, None]
        lengths = seen.stream[told].square().sum(-1).clamp_min(1e-12)
        moment = moments(seen.given[fitted], seen.written[fitted])
        allowed = self._allowed.get(layer.index, np.arange(layer.units))
        found = []
        for level in self._levels:
            count = min(units_left(layer, level), len(allowed))
            kept, writer = lowered_writer(layer, seen.writer, moment, allowed, count, self._compensation)
            columns = torch.from_numpy(layer.columns(kept))
            output = nn.functional.linear(seen.given[told][..., columns], writer.weight, writer.bias)
            found.append(float(((output - seen.written[told]).square().sum(-1) / lengths).mean()))
        return found


def local_errors(masked: MaskedModel, levels: Sequence[float]) -> NDArray[np.float64]:
    """Return the local errors [layers, levels] of a model that has been traced already, in a pass of their own."""
    trace = masked.trace
    errors = LocalErrors(levels, masked.compensation, allowed=masked.allowed, measured=masked.measured)
    return errors.of(trace_dense(trace.model, trace.layers, trace.inputs, look=errors.look))
