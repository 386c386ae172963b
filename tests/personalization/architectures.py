"""Tiny random models of every supported architecture, in eval mode, with nothing in them trivially zero."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DeiTConfig,
    DeiTForImageClassification,
    Dinov2Config,
    Dinov2ForImageClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    ViTConfig,
    ViTForImageClassification,
)

from personalization.transformer.layers import Layer

VOCABULARY = 31
CLASSES = 5
IMAGE = {"image_size": 8, "patch_size": 4, "num_channels": 3, "num_labels": CLASSES}


@dataclass(frozen=True)
class Shape:
    groups: int = 2
    queries_per_group: int = 2
    head: int = 4
    mlp: int = 12
    depth: int = 2

    @property
    def heads(self) -> int:
        return self.groups * self.queries_per_group

    @property
    def width(self) -> int:
        return self.heads * self.head


@dataclass(frozen=True)
class Case:
    """One model with inputs of 3 samples; `units` is what its attention and MLP layers must be found to have."""

    name: str
    model: PreTrainedModel
    inputs: dict[str, Tensor]
    attention_units: int
    mlp_units: int


def shapes() -> st.SearchStrategy[Shape]:
    return st.builds(
        Shape,
        groups=st.integers(1, 3),
        queries_per_group=st.integers(1, 2),
        head=st.sampled_from([2, 4]),
        mlp=st.integers(2, 14),
        depth=st.integers(1, 3),
    )


def _vision(shape: Shape) -> dict[str, object]:
    return IMAGE | {
        "hidden_size": shape.width,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.mlp,
        "num_hidden_layers": shape.depth,
    }


def _decoder(shape: Shape) -> dict[str, object]:
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": shape.width,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.groups,
        "intermediate_size": shape.mlp,
        "num_hidden_layers": shape.depth,
        "max_position_embeddings": 64,
        "bos_token_id": 1,
        "eos_token_id": None,
        "pad_token_id": 0,
    }


def _dinov2(shape: Shape) -> PreTrainedModel:
    gated = {"use_swiglu_ffn": shape.mlp % 2 == 0}
    return Dinov2ForImageClassification(Dinov2Config(**(_vision(shape) | gated), mlp_ratio=_dinov2_ratio(shape)))


def _dinov2_ratio(shape: Shape) -> int:
    return 1 + shape.mlp % 3


def _dinov2_mlp(shape: Shape) -> int:
    channels = shape.width * _dinov2_ratio(shape)
    return (int(channels * 2 / 3) + 7) // 8 * 8 if shape.mlp % 2 == 0 else channels


def _bert(shape: Shape) -> PreTrainedModel:
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=shape.width,
            num_attention_heads=shape.heads,
            intermediate_size=shape.mlp,
            num_hidden_layers=shape.depth,
            max_position_embeddings=64,
            num_labels=CLASSES,
        )
    )


def _gpt2(shape: Shape) -> PreTrainedModel:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=shape.width,
            n_head=shape.heads,
            n_inner=shape.mlp,
            n_layer=shape.depth,
            n_positions=64,
            bos_token_id=1,
            eos_token_id=None,
            pad_token_id=0,
        )
    )


BUILDERS: dict[str, Callable[[Shape], PreTrainedModel]] = {
    "vit": lambda shape: ViTForImageClassification(ViTConfig(**_vision(shape))),
    "deit": lambda shape: DeiTForImageClassification(DeiTConfig(**_vision(shape))),
    "dinov2": _dinov2,
    "bert": _bert,
    "gpt2": _gpt2,
    "llama": lambda shape: LlamaForCausalLM(LlamaConfig(**_decoder(shape), tie_word_embeddings=False)),
    "qwen2": lambda shape: Qwen2ForCausalLM(Qwen2Config(**_decoder(shape), tie_word_embeddings=True)),
}
ARCHITECTURES = tuple(BUILDERS)
DECODERS = ("gpt2", "llama", "qwen2")


def _randomize(model: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            one_is_neutral = parameter.ndim == 1 and not name.endswith("bias")
            parameter.copy_(1 + 0.3 * noise if one_is_neutral else 0.4 * noise)


def build(name: str, shape: Shape = Shape(), seed: int = 0) -> Case:
    """Build one architecture with random weights and random inputs; texts but the first are padded on the right."""
    generator = torch.Generator().manual_seed(seed)
    model = BUILDERS[name](shape).eval()
    _randomize(model, generator)
    if name in ("vit", "deit", "dinov2"):
        inputs = {"pixel_values": torch.randn(3, 3, 8, 8, generator=generator)}
    else:
        mask = torch.ones(3, 7, dtype=torch.long)
        mask[1, 5:], mask[2, 4:] = 0, 0
        inputs = {"input_ids": torch.randint(1, VOCABULARY, (3, 7), generator=generator), "attention_mask": mask}
    grouped = name in ("llama", "qwen2")
    return Case(
        name,
        model,
        inputs,
        attention_units=shape.groups if grouped else shape.heads,
        mlp_units=_dinov2_mlp(shape) if name == "dinov2" else shape.mlp,
    )


def random_kept(layers: tuple[Layer, ...], seed: int, drop: float = 0.3) -> list[np.ndarray]:
    """Draw units to keep, unevenly: a share `drop` of the layers loses every unit, others some, a few none."""
    rng = np.random.default_rng(seed)
    kept = []
    for layer in layers:
        count = 0 if rng.random() < drop else int(rng.integers(1, layer.units + 1))
        kept.append(np.sort(rng.choice(layer.units, count, replace=False)).astype(np.int64))
    return kept


@torch.no_grad()
def logits(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """Return the model's logits; at tokens that are padding they mean nothing and are set to zero."""
    output = model(**inputs).logits
    mask = inputs.get("attention_mask")
    return output if mask is None or output.ndim < 3 else output * mask[..., None]
