"""Zeros instead of smaller tensors: single weights of the layers go, by magnitude or by Wanda. For size only.

A model with zeros in it computes as many products as before and is no faster; what it saves is bytes, where it is
stored sparsely. It is here as what structured cuts are compared with.
"""

import copy
import zlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from personalization.errors import UserError
from personalization.model_files.storage import stored_tensors
from personalization.transformer.layers import Layer, is_conv1d, linear_weight
from personalization.transformer.readout import outputs_of
from personalization.transformer.trace import Inputs


def magnitude(model: nn.Module, layers: Sequence[Layer], share: float) -> nn.Module:
    """Return a copy of `model` in which each linear module of its `layers` has lost its smallest weights.

    The `share` of zeros is the same in every module. Biases, embeddings and the head stay, in memory that is shared
    with `model`, which stays as it is. Raises UserError for a share that is none.
    """
    sparse = _copy(model, share)
    for path in pruned_paths(layers):
        module = sparse.get_submodule(path)
        weight = linear_weight(module).detach()
        _put(module, _without_smallest(weight, weight.abs().reshape(1, -1), share))
    return sparse


@torch.no_grad()
def wanda(model: nn.Module, layers: Sequence[Layer], inputs: Inputs, share: float) -> nn.Module:
    """Return a copy of `model` in which each output of a linear module of its `layers` has lost its weakest weights.

    A weight counts as much as its magnitude times the norm of its input over all positions of `inputs` (Sun et al.
    2023, 2306.11695, equation 1), compared within its row, where the `share` that counts least becomes zero. Block by
    block, as there: the norms of a block are those that it sees behind blocks that have their zeros already. Raises
    UserError for a share that is none.
    """
    sparse, positions = _copy(model, share), _positions(inputs)
    with ExitStack() as hooks:
        for path in dict.fromkeys(layer.block_path for layer in layers):
            names = pruned_paths([layer for layer in layers if layer.block_path == path])
            linears = [sparse.get_submodule(name) for name in names]
            norms: dict[nn.Module, Tensor] = {}
            for linear in linears:
                hooks.callback(linear.register_forward_pre_hook(partial(_keep_norms, norms, positions)).remove)
            prune = partial(_prune_block, norms, share)
            hooks.callback(sparse.get_submodule(path).register_forward_hook(prune, with_kwargs=True).remove)
        outputs_of(sparse, inputs)
    return sparse


def pruned_paths(layers: Sequence[Layer]) -> list[str]:
    """Return the paths of the linear modules in which weights become zero: readers and writer of each of `layers`."""
    return [path for layer in layers for path in (*(reader.path for reader in layer.readers), layer.writer)]


def sparse_bytes(model: nn.Module, dtype: str = "float16") -> int:
    """Return the bytes of all tensors stored sparsely: a bit for each number, and those that aren't zero in `dtype`.

    A tensor that takes less in full is stored in full; a tied one is stored once. Raises UserError if a weight does
    not fit in `dtype`.
    """
    tensors, _ = stored_tensors(model, dtype)
    return sum(min(t.nbytes, -(-t.numel() // 8) + t.element_size() * int(t.count_nonzero())) for t in tensors.values())


def zipped_bytes(model: nn.Module, dtype: str = "float16") -> int:
    """Return the bytes that the tensors take in `dtype` when all are zipped (deflate, at its usual level).

    Raises UserError if a weight does not fit in `dtype`.
    """
    tensors, _ = stored_tensors(model, dtype)
    zipper = zlib.compressobj()
    parts = (zipper.compress(tensor.numpy().tobytes()) for tensor in tensors.values())
    return sum(map(len, parts)) + len(zipper.flush())


def _copy(model: nn.Module, share: float) -> nn.Module:
    if not 0.0 <= share < 1.0:
        raise UserError(f"{share} of the weights to zero: expected a share from 0 to below 1")
    return copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})


def _positions(inputs: Inputs) -> Tensor | None:
    """Return which positions hold data, [samples, positions] of bool; None where all do."""
    mask = inputs.get("attention_mask")
    return None if mask is None else mask.bool()


def _keep_norms(
    norms: dict[nn.Module, Tensor], positions: Tensor | None, module: nn.Module, args: tuple[Tensor, ...]
) -> None:
    x = args[0].flatten(0, -2) if positions is None else args[0][positions]
    norms[module] = x.norm(dim=0)


def _prune_block(
    norms: Mapping[nn.Module, Tensor],
    share: float,
    block: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    _output: Any,
) -> Any:
    """Prune the modules whose norms were taken, and return what the block puts out without what they lost."""
    for module, norm in norms.items():
        weight = linear_weight(module).detach()
        _put(module, _without_smallest(weight, weight.abs() * norm, share))
    return block.forward(*args, **kwargs)


def _without_smallest(weight: Tensor, importance: Tensor, share: float) -> Tensor:
    """Return `weight` with zeros where `importance`, [rows, ...] of as many numbers, is the smallest of its row."""
    smallest = importance.argsort(dim=1, stable=True)[:, : round(share * importance.shape[1])]
    pruned = weight.reshape(importance.shape).scatter(1, smallest, 0.0)
    return pruned.reshape(weight.shape)


def _put(module: nn.Module, weight: Tensor) -> None:
    stored = weight.t().contiguous() if is_conv1d(module) else weight
    module.weight = nn.Parameter(stored, requires_grad=False)
