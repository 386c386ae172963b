"""Turn a causal language model into an ONNX graph in float32, which serves a prompt and single tokens alike.

One graph of standard operators: it takes the new tokens and the keys and values of those before them, in lengths that
are free, and gives logits and the keys and values of all. Every weight is in it once; embeddings that are tied to the
head are one table, which the head multiplies with and the embedding gathers columns of.
"""

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

from personalization.device.decoder import ASKED, LOGITS, START, TOKENS, cache_names
from personalization.errors import UserError
from personalization.export.decoder import Attention, Block, Decoder, Norm, Product
from personalization.export.onnx_nodes import Nodes
from personalization.export.onnx_products import Matrix, Products

# What one ONNX file can hold, less what its nodes take.
_MOST_BYTES = 2**31 - 2**20


def decoder_graph(decoder: Decoder, products: Products) -> onnx.ModelProto:
    """Return `decoder` as a graph; `products` says how its matrices are stored.

    Inputs: `tokens` [1, new]; `start` [], how many tokens came before; `asked` [asked], the numbers of new tokens whose
    successors are predicted; keys and values of each attention layer that is left, [1, groups, before, head width].
    Outputs: `logits` [asked, tokens of the vocabulary], and the keys and values of all tokens. Raises UserError for a
    model that one file can't hold.
    """
    _check_size(decoder)
    return _Writer(decoder, products).write()


class _Writer:
    def __init__(self, decoder: Decoder, products: Products) -> None:
        self.decoder, self.nodes, self.products = decoder, Nodes(), products
        self.rotary: tuple[str, str] | None = None
        self.cached = 0

    def write(self) -> onnx.ModelProto:
        decoder, nodes = self.decoder, self.nodes
        table = self.products.matrix(nodes, decoder.embedding)
        hidden = nodes.add("Transpose", self.products.columns(nodes, table, TOKENS), perm=[1, 2, 0])
        if decoder.embedding_factors is not None:
            hidden = nodes.add("Mul", hidden, self.array(decoder.embedding_factors))
        new = nodes.add("Squeeze", nodes.add("Shape", TOKENS, start=1))
        places = nodes.add("Add", nodes.add("Range", nodes.constant(0), new, nodes.constant(1)), START)
        if decoder.positions is not None:
            hidden = nodes.add("Add", hidden, nodes.add("Gather", self.array(decoder.positions), places))
        if decoder.frequencies is not None and decoder.attentions:
            self.rotary = self.angles(places, decoder.frequencies, decoder.rotary_scale)
        for block in decoder.blocks:
            hidden = self.block(hidden, block)
        hidden = self.norm(nodes.add("Gather", hidden, ASKED, axis=1), decoder.norm)
        rows = nodes.add("Squeeze", hidden, nodes.constant([0]))
        logits = self.product(rows, decoder.head, table if decoder.tied else None)
        nodes.add_several("Identity", logits, outputs=[LOGITS])
        return nodes.graph(*self.ends())

    def block(self, hidden: str, block: Block) -> str:
        attention, nodes = block.attention, self.nodes
        seen = None if attention is None else self.attention(self.norm(hidden, block.attention_norm), attention)
        hidden = self.written(hidden, seen, block.written)
        if not block.down.weight.shape[1]:
            return self.written(hidden, None, block.down)
        read = self.norm(hidden, block.mlp_norm)
        channels = self.activation(self.product(read, block.gate or block.up), block.activation)
        if block.gate is not None:
            channels = nodes.add("Mul", channels, self.product(read, block.up))
        return self.written(hidden, channels, block.down)

    def written(self, hidden: str, read: str | None, product: Product) -> str:
        """Add to the residual stream what a layer writes; of a layer that was cut whole only a bias is left."""
        if read is not None:
            return self.nodes.add("Add", hidden, self.product(read, product))
        return hidden if product.bias is None else self.nodes.add("Add", hidden, self.array(product.bias))

    def attention(self, read: str, layer: Attention) -> str:
        query, key, value = (self.product(read, product) for product in (layer.query, layer.key, layer.value))
        if self.rotary is not None:
            query, key = (
                self.nodes.add("RotaryEmbedding", turned, *self.rotary, num_heads=heads)
                for turned, heads in ((query, layer.heads), (key, layer.groups))
            )
        (past_key, past_value), present = cache_names(self.cached)
        self.cached += 1
        seen, *_ = self.nodes.add_several(
            "Attention",
            *(query, key, value, "", past_key, past_value),
            outputs=[None, *present],
            q_num_heads=layer.heads,
            kv_num_heads=layer.groups,
            is_causal=1,
            scale=layer.scale,
        )
        return seen

    def angles(self, places: str, frequencies: torch.Tensor, scale: float) -> tuple[str, str]:
        """Return cosines and sines [1, new, head width / 2] of rotary positions (Su et al. 2021, equation 34)."""
        nodes = self.nodes
        rows = nodes.add("Unsqueeze", nodes.add("Cast", places, to=TensorProto.FLOAT), nodes.constant([0, 2]))
        angles = nodes.add("Mul", rows, self.array(frequencies))
        cosines, sines = (nodes.add(operator, angles) for operator in ("Cos", "Sin"))
        if scale == 1.0:
            return cosines, sines
        factor = nodes.constant(np.array(scale, dtype=np.float32))
        return nodes.add("Mul", cosines, factor), nodes.add("Mul", sines, factor)

    def norm(self, hidden: str, norm: Norm) -> str:
        weight = self.array(norm.weight)
        if norm.bias is None:
            return self.nodes.add("RMSNormalization", hidden, weight, epsilon=norm.epsilon)
        return self.nodes.add("LayerNormalization", hidden, weight, self.array(norm.bias), epsilon=norm.epsilon)

    def activation(self, value: str, kind: str) -> str:
        if kind == "silu":
            return self.nodes.add("Mul", value, self.nodes.add("Sigmoid", value))
        if kind == "relu":
            return self.nodes.add("Relu", value)
        return self.nodes.add("Gelu", value, approximate="tanh" if kind == "gelu-tanh" else "none")

    def product(self, read: str, product: Product, matrix: Matrix | None = None) -> str:
        matrix = matrix or self.products.matrix(self.nodes, product.weight)
        result = self.products.multiply(self.nodes, read, matrix)
        return result if product.bias is None else self.nodes.add("Add", result, self.array(product.bias))

    def array(self, tensor: torch.Tensor) -> str:
        return self.nodes.constant(tensor.float().numpy())

    def ends(self) -> tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
        """Return the inputs and outputs of the graph."""
        number, real = TensorProto.INT64, TensorProto.FLOAT
        inputs = [
            helper.make_tensor_value_info(TOKENS, number, [1, "new"]),
            helper.make_tensor_value_info(START, number, []),
            helper.make_tensor_value_info(ASKED, number, ["asked"]),
        ]
        outputs = [helper.make_tensor_value_info(LOGITS, real, ["asked", len(self.decoder.head.weight)])]
        for index, layer in enumerate(self.decoder.attentions):
            for names, ends, length in zip(cache_names(index), (inputs, outputs), ("before", "all"), strict=True):
                shape: list[str | int | None] = [1, layer.groups, length, layer.head_width]
                ends += [helper.make_tensor_value_info(name, real, shape) for name in names]
        return inputs, outputs


def _check_size(decoder: Decoder) -> None:
    blocks = [
        product
        for block in decoder.blocks
        for product in (block.written, block.gate, block.up, block.down, *_projections(block))
        if product is not None
    ]
    tables = {id(table): table for table in (decoder.embedding, decoder.head.weight)}
    size = 4 * sum(tensor.numel() for tensor in (*(p.weight for p in blocks), *tables.values()))
    if size > _MOST_BYTES:
        raise UserError(
            f"the model takes {size:,} bytes in 32-bit numbers, and one ONNX file holds {_MOST_BYTES:,}; "
            "export a smaller one"
        )


def _projections(block: Block) -> tuple[Product, ...]:
    layer = block.attention
    return () if layer is None else (layer.query, layer.key, layer.value)
