"""How far each layer's own output moves when it is lowered: told by second moments, without any masked pass."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from personalization.layers import Layer
from personalization.masked import MaskedModel, lowered_writer
from personalization.readout import outputs_of
from personalization.refit import moments
from personalization.sensing import units_left
from personalization.trace import hidden_of


@torch.inference_mode()
def local_errors(masked: MaskedModel, levels: Sequence[float]) -> NDArray[np.float64]:
    """Return the relative error of each layer lowered by itself to each probe level, [layers, levels], >= 0.

    Units go in the order of their variance, whatever score the cut will choose them by.

    It is the squared distance of what its refitted writer puts out from what the dense layer does, over the squared
    length of the residual stream behind its block: the mean over the positions of the measured samples. Entropy rises
    about in proportion to it: in SmolLM2 from level to level, and from speaker to speaker, both change by the same
    factor. By how much one layer's error is felt more than another's is left to probes, and to the fleet.
    """
    trace = masked.trace
    errors = np.zeros((len(trace.layers), len(levels)))

    def look(layer: Layer, _module: nn.Module, args: Any, _output: Tensor) -> None:
        errors[layer.index] = _errors(masked, layer, args[0], levels)

    with ExitStack() as stack:
        for layer in trace.layers:
            writer = trace.model.get_submodule(layer.writer)
            stack.callback(writer.register_forward_hook(partial(look, layer)).remove)
        outputs_of(trace.model, trace.inputs)
    return errors


def _errors(masked: MaskedModel, layer: Layer, x: Tensor, levels: Sequence[float]) -> list[float]:
    """Return the relative error of `layer`, whose writer is given `x` [samples, positions, columns], at each level."""
    trace, places, measured = masked.trace, masked.places(layer), masked.measured
    # Errors of units chosen with more care say no more about layers, and take twice as long.
    compensation = replace(masked.compensation, score="variance")
    seen = places & compensation.fit[:, None]
    told = seen if measured is None else places & measured[:, None]
    dense, stream = trace.layer_outputs[layer.index], hidden_of(trace.block_outputs[layer.block])
    moment = moments(x[seen], dense[seen])
    lengths = stream[told].square().sum(-1).clamp_min(1e-12)
    allowed = masked.allowed.get(layer.index, np.arange(layer.units))
    found = []
    for level in levels:
        count = min(units_left(layer, level), len(allowed))
        module = trace.model.get_submodule(layer.writer)
        kept, writer = lowered_writer(layer, module, moment, allowed, count, compensation)
        columns = torch.from_numpy(layer.columns(kept))
        output = nn.functional.linear(x[told][..., columns], writer.weight, writer.bias)
        found.append(float(((output - dense[told]).square().sum(-1) / lengths).mean()))
    return found
