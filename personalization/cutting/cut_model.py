"""Cut units out of a model: a new model with smaller dense tensors, no masks and no hooks.

The writer that is left after a cut is given by the caller (means folded by `folded_writers`, or refitted).
Tensors that do not change are shared with the original model.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from personalization.cutting.gates import check_kept, column_mask
from personalization.transformer.layers import Layer, LayerKind, linear_bias, linear_weight

Writer = tuple[Tensor, Tensor | None]

# How attention modules count their query heads, their key-value heads and their width in all.
_HEAD_COUNTS = ("num_heads", "num_attention_heads")
_KEY_VALUE_COUNTS = ("num_key_value_heads",)
_WIDTHS = ("split_size", "all_head_size")


class DroppedAttention(nn.Module):
    """Stands where an attention layer was dropped whole: writes the writer's bias, whatever the input.

    `writer` is the child of the attention module that held the output projection, now of zero input width; without
    one the block holds the projection itself and gets a context of zero width.
    """

    def __init__(self, writer_name: str | None, writer: nn.Module | None, layer_idx: int | None) -> None:
        """Take the writer under the name that it had."""
        super().__init__()
        self.writer_name = writer_name
        self.layer_idx = layer_idx
        if writer_name is not None:
            self.add_module(writer_name, writer)

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, past_key_values: Any = None, **_: Any
    ) -> tuple[Tensor, None]:
        """Return the bias for each token of hidden_states [samples, tokens, width], and no attention weights."""
        if past_key_values is not None and self.layer_idx is not None:
            # Generation asks the cache of any layer, the first above all, how many tokens it has seen, and a cache
            # of no numbers at all answers none: keep one number for each token.
            cache = getattr(past_key_values, "self_attention_cache", past_key_values)
            token = hidden_states.new_zeros(hidden_states.shape[0], 1, hidden_states.shape[1], 1)
            cache.update(token, token, self.layer_idx)
        nothing = hidden_states.new_zeros(*hidden_states.shape[:-1], 0)
        return (nothing if self.writer_name is None else self.get_submodule(self.writer_name)(nothing)), None


def cut_model(
    model: nn.Module,
    layers: Sequence[Layer],
    kept: Sequence[NDArray[np.int64]],
    writers: Mapping[int, Writer] | None = None,
) -> nn.Module:
    """Return a new model in which each layer has only its `kept` units, in the order given.

    writers: for the index of a layer the writer's weight [outputs, kept columns] and its bias [outputs] or None. A
    layer without an entry keeps the columns of its writer and the bias as they are, as if the means of the removed
    units were zero. A layer that keeps every unit and has no entry is not touched. Modules that are cut become
    nn.Linear.

    `model` stays as it is, bit for bit. Unchanged tensors are shared with it: copy the result before training it.
    Raises ValueError for units that do not exist and for writers of the wrong shape.
    """
    check_kept(layers, kept)
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    personal = copy.deepcopy(model, dict(shared))
    for layer, units in zip(layers, kept, strict=True):
        writer = None if writers is None else writers.get(layer.index)
        if writer is not None or len(units) < layer.units:
            _replace_writer(personal, layer, units, writer)
        if len(units) < layer.units:
            _cut_readers(personal, layer, units)
    return personal


def fold_means(layer: Layer, model: nn.Module, kept: NDArray[np.int64], means: Tensor) -> tuple[Tensor, Tensor]:
    """Return weight [outputs, kept columns] and bias [outputs] of the writer, with removed units' means in the bias.

    means: [columns] of the dense layer. A bias is made where the module has none. What a removed column adds to the
    output at its mean is summed in double precision.
    """
    module = model.get_submodule(layer.writer)
    weight, bias = linear_weight(module).detach(), linear_bias(module)
    removed = ~column_mask(layer, kept, weight.device)
    folded = weight[:, removed].double() @ means.to(weight.device)[removed].double()
    if bias is not None:
        folded += bias.detach().double()
    return _select(weight, layer.columns(kept), dim=1), folded.to(weight.dtype)


def folded_writers(
    model: nn.Module, layers: Sequence[Layer], kept: Sequence[NDArray[np.int64]], means: Sequence[Tensor]
) -> dict[int, Writer]:
    """Return the `writers` of `cut_model` with means folded, for each layer that loses a unit."""
    return {
        layer.index: fold_means(layer, model, units, mean)
        for layer, units, mean in zip(layers, kept, means, strict=True)
        if len(units) < layer.units
    }


def _select(tensor: Tensor, indices: NDArray[np.int64], dim: int) -> Tensor:
    return tensor.detach().index_select(dim, torch.from_numpy(indices).to(tensor.device)).contiguous()


def _replace_writer(model: nn.Module, layer: Layer, units: NDArray[np.int64], writer: Writer | None) -> None:
    old = model.get_submodule(layer.writer)
    outputs = linear_weight(old).shape[0]
    if writer is None:
        bias = linear_bias(old)
        writer = (_select(linear_weight(old), layer.columns(units), dim=1), None if bias is None else bias.detach())
    weight, bias = writer
    expected = (outputs, len(units) * layer.columns_per_unit)
    if tuple(weight.shape) != expected or (bias is not None and tuple(bias.shape) != (outputs,)):
        raise ValueError(f"{layer.writer}: a writer of weight {tuple(weight.shape)} was given, expected {expected}")
    _set_linear(model, layer.writer, weight, bias)


def _cut_readers(model: nn.Module, layer: Layer, units: NDArray[np.int64]) -> None:
    if layer.kind is LayerKind.ATTENTION and not len(units):
        _drop_attention(model, layer)
        return
    for reader in layer.readers:
        module, rows = model.get_submodule(reader.path), layer.rows(reader, units)
        bias = linear_bias(module)
        _set_linear(
            model,
            reader.path,
            _select(linear_weight(module), rows, dim=0),
            None if bias is None else _select(bias, rows, dim=0),
        )
    if layer.kind is LayerKind.ATTENTION:
        _count_heads(model.get_submodule(layer.core), layer, len(units))


def _drop_attention(model: nn.Module, layer: Layer) -> None:
    core = model.get_submodule(layer.core)
    inside = layer.writer.startswith(f"{layer.core}.")
    name = layer.writer.removeprefix(f"{layer.core}.").split(".")[0] if inside else None
    dropped = DroppedAttention(
        name, None if name is None else core.get_submodule(name), getattr(core, "layer_idx", None)
    )
    model.set_submodule(layer.core, dropped.train(core.training))


def _count_heads(core: nn.Module, layer: Layer, units: int) -> None:
    """Correct what the attention module says of its own size; the number of query heads for each key stays."""
    for names in (_HEAD_COUNTS, _KEY_VALUE_COUNTS, _WIDTHS):
        for name in names:
            size = getattr(core, name, None)
            if isinstance(size, int):
                setattr(core, name, size // layer.units * units)


def _set_linear(model: nn.Module, path: str, weight: Tensor, bias: Tensor | None) -> None:
    # Made of size one and then filled: initialising a tensor of zero width warns.
    linear = nn.Linear(1, 1, bias=bias is not None, device="meta")
    linear.out_features, linear.in_features = weight.shape
    trained = linear_weight(model.get_submodule(path)).requires_grad
    linear.weight = nn.Parameter(weight.detach(), requires_grad=trained)
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach(), requires_grad=trained)
    model.set_submodule(path, linear.train(model.get_submodule(path).training))
