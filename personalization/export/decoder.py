"""The parts of a causal language model, dense or cut, whatever its family: what a file for a device is written from."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from personalization.cutting.cut_model import DroppedAttention
from personalization.errors import UserError
from personalization.transformer.layers import linear_bias, linear_weight

FAMILIES = ("llama", "qwen2", "gpt2")
# Of transformers: rotary angles of these kinds are a position times a frequency, whatever the length of the text.
_FIXED_ROTARY = ("default", "linear", "llama3")
_ACTIVATIONS = {
    "silu": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu-tanh",
    "gelu_pytorch_tanh": "gelu-tanh",
    "relu": "relu",
}


@dataclass(frozen=True)
class Product:
    """A linear map: weight [outputs, inputs], either of which may be 0, and bias [outputs] or None.

    module: the linear module that it was read from; three may come from one.
    """

    weight: Tensor
    bias: Tensor | None
    module: nn.Module


@dataclass(frozen=True)
class Norm:
    """weight [width]. bias [width]: of a layer norm; None: the mean stays (RMSNorm, 1910.07467)."""

    weight: Tensor
    bias: Tensor | None
    epsilon: float


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Causal attention of `heads` query heads, each of `head_width`, over `groups` keys and values that they share."""

    query: Product
    key: Product
    value: Product
    heads: int
    groups: int
    head_width: int
    scale: float


@dataclass(frozen=True, kw_only=True)
class Block:
    """One block. attention is None where it was cut whole, and `written` then has no inputs; so has an MLP's.

    gate: of a gated MLP, else None.
    """

    attention_norm: Norm
    attention: Attention | None
    written: Product
    mlp_norm: Norm
    gate: Product | None
    up: Product
    down: Product
    activation: str


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """A causal language model. embedding [tokens, width] and head [tokens, width] are one tensor where they are tied.

    embedding_factors: [width] by which what is taken from the embedding is multiplied, or None.
    positions: [context, width] where they are learned, else None. frequencies: [head_width / 2] of rotary angles, with
    the factor `rotary_scale` on their cosines and sines, else None.
    """

    family: str
    embedding: Tensor
    embedding_factors: Tensor | None
    positions: Tensor | None
    frequencies: Tensor | None
    rotary_scale: float
    blocks: tuple[Block, ...]
    norm: Norm
    head: Product
    context: int

    @property
    def tied(self) -> bool:
        """Say whether one table is both embedding and head."""
        return self.head.weight is self.embedding

    @property
    def attentions(self) -> tuple[Attention, ...]:
        """The attention layers that are left, in order: each has a cache of its own size."""
        return tuple(block.attention for block in self.blocks if block.attention is not None)


def read_decoder(model: nn.Module) -> Decoder:
    """Return the parts of a causal language model of the Llama, Qwen2 or GPT-2 family; tensors are shared with it.

    Raises UserError for another family, and for what these families can be set to but is not understood here.
    """
    causal: Any = model
    config = getattr(causal, "config", None)
    family = getattr(config, "model_type", None)
    if config is None or family not in FAMILIES:
        raise UserError(
            f"{type(model).__name__}: no language model that can be exported; expected one of the families "
            f"{', '.join(FAMILIES)}"
        )
    base, head = causal.base_model, causal.get_output_embeddings()
    rotary = None if family == "gpt2" else _rotary(base.rotary_emb)
    embedding = causal.get_input_embeddings().weight.detach()
    tied = head.weight is causal.get_input_embeddings().weight
    return Decoder(
        family=family,
        embedding=embedding,
        embedding_factors=None,
        positions=base.wpe.weight.detach() if family == "gpt2" else None,
        frequencies=None if rotary is None else rotary[0],
        rotary_scale=1.0 if rotary is None else rotary[1],
        blocks=tuple(_gpt2_blocks(base) if family == "gpt2" else _llama_blocks(base)),
        norm=_norm(base.ln_f if family == "gpt2" else base.norm),
        head=Product(embedding, _detached(head.bias), head) if tied else _product(head),
        context=int(config.max_position_embeddings),
    )


def _llama_blocks(base: Any) -> Iterator[Block]:
    for number, block in enumerate(base.layers):
        core, mlp = block.self_attn, block.mlp
        if getattr(core, "sliding_window", None) is not None:
            raise UserError(f"block {number}: attention over a sliding window is not exported; expected all tokens")
        dropped = isinstance(core, DroppedAttention)
        yield Block(
            attention_norm=_norm(block.input_layernorm),
            attention=None if dropped else _attention(core, *map(_product, (core.q_proj, core.k_proj, core.v_proj))),
            written=_product(core.o_proj),
            mlp_norm=_norm(block.post_attention_layernorm),
            gate=_product(mlp.gate_proj),
            up=_product(mlp.up_proj),
            down=_product(mlp.down_proj),
            activation=_activation(base.config.hidden_act),
        )


def _gpt2_blocks(base: Any) -> Iterator[Block]:
    for block in base.h:
        core, mlp = block.attn, block.mlp
        dropped = isinstance(core, DroppedAttention)
        yield Block(
            attention_norm=_norm(block.ln_1),
            attention=None if dropped else _attention(core, *_thirds(_product(core.c_attn))),
            written=_product(core.c_proj),
            mlp_norm=_norm(block.ln_2),
            gate=None,
            up=_product(mlp.c_fc),
            down=_product(mlp.c_proj),
            activation=_activation(base.config.activation_function),
        )


def _attention(core: Any, query: Product, key: Product, value: Product) -> Attention:
    width = int(core.head_dim)
    return Attention(
        query=query,
        key=key,
        value=value,
        heads=len(query.weight) // width,
        groups=len(key.weight) // width,
        head_width=width,
        scale=float(core.scaling),
    )


def _thirds(fused: Product) -> tuple[Product, Product, Product]:
    weights = fused.weight.chunk(3)
    biases = (None,) * 3 if fused.bias is None else fused.bias.chunk(3)
    query, key, value = (Product(weight, bias, fused.module) for weight, bias in zip(weights, biases, strict=True))
    return query, key, value


def _rotary(module: Any) -> tuple[Tensor, float]:
    if module.rope_type not in _FIXED_ROTARY:
        raise UserError(
            f"rotary positions of the kind {module.rope_type!r} are not exported; expected one of "
            f"{', '.join(_FIXED_ROTARY)}"
        )
    return module.inv_freq.detach(), float(module.attention_scaling)


def _activation(name: str) -> str:
    if name not in _ACTIVATIONS:
        raise UserError(f"the activation {name!r} is not exported; expected one of {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def _norm(module: Any) -> Norm:
    epsilon = module.eps if isinstance(module, nn.LayerNorm) else module.variance_epsilon
    return Norm(module.weight.detach(), _detached(getattr(module, "bias", None)), float(epsilon))


def _product(module: nn.Module) -> Product:
    return Product(linear_weight(module).detach(), _detached(linear_bias(module)), module)


def _detached(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach()
