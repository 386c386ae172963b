"""What llama.cpp calls the parts of a language model, and which shapes it has a place for."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from personalization.errors import UserError
from personalization.export.decoder import Attention, Block, Decoder, Norm, Product

if TYPE_CHECKING:
    from gguf import GGUFWriter


def check_shapes(decoder: Decoder) -> None:
    """Raise UserError, naming the layer, unless llama.cpp has a place for the shape of every layer."""
    first = decoder.blocks[0]
    width = decoder.embedding.shape[1]
    for number, block in enumerate(decoder.blocks):
        layer = block.attention
        shapes = (_heads(layer), len(block.up.weight))
        expected = (_heads(first.attention), len(first.up.weight))
        for kind, own, other in zip(("attention", "mlp"), shapes, expected, strict=True):
            if not own or own != other:
                what = "was cut whole" if not own else f"has another size than 0.{kind}"
                raise UserError(
                    f"layer {number}.{kind} {what}; GGUF holds layers of one size; personalize with --equal-layers, "
                    "or use ONNX"
                )
        assert layer is not None
        if decoder.family != "llama" and layer.heads * layer.head_width != width:
            raise UserError(
                f"layer {number}.attention was cut; of the family {decoder.family} GGUF holds whole attention only, "
                "use ONNX"
            )
        if decoder.family == "qwen2" and (block.written.bias is not None or block.down.bias is not None):
            raise UserError(
                f"block {number} has biases that a cut left; of the family qwen2 GGUF has no place for them, use ONNX"
            )
        if abs(layer.scale - layer.head_width**-0.5) > 1e-6:
            raise UserError(f"layer {number}.attention scales its scores otherwise than by its width; use ONNX")


def _heads(layer: Attention | None) -> tuple[int, int] | None:
    return None if layer is None else (layer.heads, layer.groups)


def add_settings(writer: "GGUFWriter", decoder: Decoder) -> None:
    """Add sizes and constants of a decoder whose shapes were checked. Raises UserError for other rotary positions."""
    block = decoder.blocks[0]
    layer = block.attention
    assert layer is not None
    writer.add_context_length(decoder.context)
    writer.add_embedding_length(decoder.embedding.shape[1])
    writer.add_block_count(len(decoder.blocks))
    writer.add_feed_forward_length(len(block.up.weight))
    writer.add_head_count(layer.heads)
    writer.add_head_count_kv(layer.groups)
    writer.add_key_length(layer.head_width)
    writer.add_value_length(layer.head_width)
    writer.add_vocab_size(len(decoder.embedding))
    if decoder.frequencies is None:
        writer.add_layer_norm_eps(decoder.norm.epsilon)
    else:
        writer.add_layer_norm_rms_eps(decoder.norm.epsilon)
        writer.add_rope_dimension_count(layer.head_width)
        writer.add_rope_freq_base(_rotary_base(decoder))


def _rotary_base(decoder: Decoder) -> float:
    """Return the base of rotary frequencies, base ** (-2 i / head_width). Raises UserError if they are others."""
    assert decoder.frequencies is not None
    frequencies = decoder.frequencies.double().numpy()
    width = 2 * len(frequencies)
    base = float(frequencies[-1] ** (-width / (width - 2))) if width > 2 else 1e4
    expected = base ** (-2.0 * np.arange(len(frequencies)) / width)
    if decoder.rotary_scale != 1.0 or not np.allclose(frequencies, expected, rtol=1e-4):
        raise UserError("rotary positions that are scaled are not written as GGUF; use ONNX")
    return base


def gguf_tensors(decoder: Decoder) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield the name and the numbers of each tensor, matrices as [outputs, inputs]; a table that is tied once."""
    yield "token_embd.weight", _array(decoder.embedding)
    if decoder.positions is not None:
        yield "position_embd.weight", _array(decoder.positions)
    yield from _named("output_norm", decoder.norm)
    if not decoder.tied:
        yield from _named("output", decoder.head)
    for number, block in enumerate(decoder.blocks):
        for name, part in _parts(block, decoder.family):
            yield from _named(f"blk.{number}.{name}", part)


def _parts(block: Block, family: str) -> Iterator[tuple[str, Norm | Product]]:
    layer = block.attention
    assert layer is not None
    yield "attn_norm", block.attention_norm
    if family == "gpt2":
        # The projections are rows of one matrix, one after the other.
        yield "attn_qkv", _stacked(layer.query, layer.key, layer.value)
    else:
        turned = family == "llama"
        yield "attn_q", _interleaved(layer.query, layer.heads) if turned else layer.query
        yield "attn_k", _interleaved(layer.key, layer.groups) if turned else layer.key
        yield "attn_v", layer.value
    yield "attn_output", block.written
    yield "ffn_norm", block.mlp_norm
    if block.gate is not None:
        yield "ffn_gate", block.gate
    yield "ffn_up", block.up
    yield "ffn_down", block.down


def _stacked(*products: Product) -> Product:
    biases = [product.bias for product in products if product.bias is not None]
    weight = torch.cat([product.weight for product in products])
    return Product(weight, torch.cat(biases) if biases else None, products[0].module)


def _interleaved(product: Product, heads: int) -> Product:
    """Order the rows of each head as llama.cpp turns them: neighbours together, not the two halves of a head."""

    def rows(tensor: Tensor) -> Tensor:
        return tensor.view(heads, 2, -1, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)

    return Product(rows(product.weight), None if product.bias is None else rows(product.bias), product.module)


def _named(name: str, part: Norm | Product) -> Iterator[tuple[str, NDArray[np.float32]]]:
    yield f"{name}.weight", _array(part.weight)
    if part.bias is not None:
        yield f"{name}.bias", _array(part.bias)


def _array(tensor: Tensor) -> NDArray[np.float32]:
    values: NDArray[np.float32] = tensor.float().contiguous().numpy()
    return values
