"""Make a language model easier to hold in int8: channels that are too large are made smaller, and their weights larger.

A few channels of what blocks read are far larger than the rest, so that int8 leaves the rest few steps. Each channel is
divided by a factor where it is made, in a norm's weights or the rows of a matrix, and multiplied by it where it is
read: the model computes the same. This is SmoothQuant (2211.10438, equation 4 with alpha = 0.5).
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from personalization.export.decoder import Attention, Block, Decoder, Norm, Product
from personalization.transformer.readout import outputs_of

_LEAST = 1e-5
_WINDOWS = 4

# For each linear module the largest size of each of its input channels, [inputs].
Ranges = Mapping[nn.Module, Tensor]


@torch.inference_mode()
def channel_ranges(model: nn.Module, decoder: Decoder, tokens: Tensor) -> Ranges:
    """Return the largest size of what the products of `decoder`, read from `model`, read on `tokens`.

    tokens: [windows, positions], of which a few windows are run at a time.
    """
    found: dict[nn.Module, Tensor] = {}

    def remember(module: nn.Module) -> Callable[..., None]:
        def hook(_: nn.Module, arguments: tuple[Any, ...]) -> None:
            largest = arguments[0].detach().flatten(0, -2).abs().amax(0)
            found[module] = torch.maximum(found[module], largest) if module in found else largest

        return hook

    with ExitStack() as stack:
        for module in {reader.module for block in decoder.blocks for reader in _smoothed(block)} | {
            decoder.head.module
        }:
            stack.callback(module.register_forward_pre_hook(remember(module)).remove)
        for windows in tokens.split(_WINDOWS):
            outputs_of(model, {"input_ids": windows})
    return found


def smooth(decoder: Decoder, ranges: Ranges) -> Decoder:
    """Return a decoder that computes the same, in which no channel of `ranges` is much larger than its weights."""
    factors = _factors(ranges, (decoder.head,))
    head = _multiplied(decoder.head, factors)
    smoothed = replace(
        decoder,
        blocks=tuple(_smooth_block(block, ranges) for block in decoder.blocks),
        norm=_divided_norm(decoder.norm, factors),
        head=head,
    )
    # A table that is head and embedding both is one table still: what is gathered from it is divided again.
    return replace(smoothed, embedding=head.weight, embedding_factors=1.0 / factors) if decoder.tied else smoothed


def _smoothed(block: Block) -> tuple[Product, ...]:
    """Return the products of a block whose inputs can be divided where they are made."""
    layer = block.attention
    read = () if layer is None else (layer.query, layer.key, layer.value, block.written)
    channels = () if not len(block.up.weight) else (block.up,) if block.gate is None else (block.gate, block.up)
    return (*read, *channels, *((block.down,) if block.gate is not None and channels else ()))


def _smooth_block(block: Block, ranges: Ranges) -> Block:
    layer = block.attention
    if layer is not None:
        readers = (layer.query, layer.key, layer.value)
        factors = _factors(ranges, readers)
        query, key, value = (_multiplied(reader, factors) for reader in readers)
        layer = replace(layer, query=query, key=key, value=value)
        block = replace(block, attention=layer, attention_norm=_divided_norm(block.attention_norm, factors))
        block = _smooth_values(block, layer, ranges)
    if not len(block.up.weight):
        return block
    gate, up, down = block.gate, block.up, block.down
    factors = _factors(ranges, (up,) if gate is None else (gate, up))
    block = replace(block, mlp_norm=_divided_norm(block.mlp_norm, factors), up=_multiplied(up, factors))
    if gate is None:
        return block
    factors, block = _factors(ranges, (down,)), replace(block, gate=_multiplied(gate, factors))
    return replace(block, up=_divided_rows(block.up, factors), down=_multiplied(down, factors))


def _smooth_values(block: Block, layer: Attention, ranges: Ranges) -> Block:
    """Smooth what attention writes from: weighted means of values, which the query heads of a group share."""
    shape = (layer.groups, -1, layer.head_width)
    largest = ranges[block.written.module].view(shape).amax(1)
    weights = block.written.weight.abs().amax(0).view(shape).amax(1)
    factors = _ratio(largest, weights)
    heads = factors[:, None].expand(-1, layer.heads // layer.groups, -1).flatten()
    layer = replace(layer, value=_divided_rows(layer.value, factors.flatten()))
    return replace(block, attention=layer, written=_multiplied(block.written, heads))


def _factors(ranges: Ranges, readers: tuple[Product, ...]) -> Tensor:
    return _ratio(ranges[readers[0].module], torch.stack([reader.weight.abs().amax(0) for reader in readers]).amax(0))


def _ratio(largest: Tensor, weights: Tensor) -> Tensor:
    return (largest.clamp_min(_LEAST) / weights.clamp_min(_LEAST)).sqrt()


def _multiplied(product: Product, factors: Tensor) -> Product:
    return replace(product, weight=product.weight * factors)


def _divided_rows(product: Product, factors: Tensor) -> Product:
    bias = None if product.bias is None else product.bias / factors
    return replace(product, weight=product.weight / factors[:, None], bias=bias)


def _divided_norm(norm: Norm, factors: Tensor) -> Norm:
    return replace(norm, weight=norm.weight / factors, bias=None if norm.bias is None else norm.bias / factors)
