"""How far the residual streams of probes are from the dense model's, at the layer that they have got to."""

from typing import Any

from torch import Tensor

from personalization.transformer.layers import Layer
from personalization.transformer.trace import DenseTrace, hidden_of


class StreamGap:
    """What the stream of each of a few probes, which run stacked, lacks against that of the dense model.

    parts: for each probe [samples, positions, width]; 0 before any layer has been lowered.
    """

    def __init__(self, trace: DenseTrace, dense_blocks: tuple[Any, ...], probes: int) -> None:
        """Begin in front of any block. dense_blocks: what the blocks of the dense model returned."""
        self._trace, self._dense_blocks = trace, dense_blocks
        self.parts: list[Tensor | float] = [0.0] * probes

    def enter(self, block: int, hidden: Tensor) -> None:
        """Take what a block is given, [probes * samples, positions, width].

        What comes with fewer samples is behind the last layer that is lowered, where only some are measured.
        """
        if block and len(hidden) == len(self.parts) * self._trace.samples:
            dense = hidden_of(self._dense_blocks[block - 1])
            self.parts = [dense - part for part in hidden.chunk(len(self.parts))]

    def wrote(self, probe: int, layer: Layer, output: Tensor) -> None:
        """Take what a layer of the block puts out in one probe, [samples, positions, width]."""
        self.parts[probe] = self.parts[probe] + self._trace.layer_outputs[layer.index] - output
