"""The Vision Transformer of transformers, module for module and bit for bit, without importing transformers.

A device starts a process for every message, and importing transformers takes it longer than everything else in
there. Modules, tensors and their order carry the names of `transformers.ViTForImageClassification`, so that what
finds layers, cuts, saves or loads cannot tell them apart; tests compare every bit. The computation is that of
Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words".
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "num_channels")
_SHARES = ("hidden_dropout_prob", "attention_probs_dropout_prob")
# What a configuration may say only in this way: anything else asks for another computation or another output.
_FIXED = {
    "model_type": "vit",
    "hidden_act": "gelu",
    "head_dim": None,
    "return_dict": True,
    "output_hidden_states": False,
    "output_attentions": False,
    "quantization_config": None,
}
_MAY_LACK = frozenset(_FIXED) - {"model_type", "hidden_act"}


@dataclass(frozen=True)
class StoredConfig:
    """A configuration of transformers as it was stored; it builds the same model again."""

    values: dict[str, Any]
    _attn_implementation: str

    def to_dict(self) -> dict[str, Any]:
        """Return a copy of the configuration."""
        return copy.deepcopy(self.values)

    def __getattr__(self, name: str) -> Any:
        """Return an entry, as transformers' own configurations do."""
        values = self.__dict__.get("values", {})  # not there yet while a copy is being made
        if name not in values:
            raise AttributeError(name)
        return values[name]


@dataclass(frozen=True)
class ImageClassifierOutput:
    """What the model returns: logits [samples, classes]."""

    logits: Tensor


def build_vision_transformer(config: Mapping[str, Any], attention: str) -> "ViTForImageClassification | None":
    """Return the classifier of a configuration, in evaluation mode, its parameters on the meta device.

    None for a configuration or an implementation of attention that is not exactly the one computed here.
    """
    if attention != "sdpa" or not _is_understood(config):
        return None
    return ViTForImageClassification(StoredConfig(copy.deepcopy(dict(config)), attention)).eval()


def _is_understood(config: Mapping[str, Any]) -> bool:
    fixed = all(config[key] == value if key in config else key in _MAY_LACK for key, value in _FIXED.items())
    counts = [config.get(key) for key in (*_SIZES, "image_size", "patch_size")]
    if not fixed or not all(type(count) is int and count > 0 for count in counts):
        return False
    shares = [config.get(key) for key in _SHARES]
    return (
        config["hidden_size"] % config["num_attention_heads"] == 0
        and config["patch_size"] <= config["image_size"]
        and all(isinstance(share, int | float) and 0.0 <= share < 1.0 for share in shares)
        and isinstance(config.get("qkv_bias"), bool)
        and isinstance(config.get("layer_norm_eps"), float)
        and isinstance(config.get("id2label"), Mapping)
        and len(config["id2label"]) > 0
    )


class ViTPatchEmbeddings(nn.Module):
    """Patches of an image, each as a vector."""

    def __init__(self, config: StoredConfig) -> None:
        """Take the configuration."""
        super().__init__()
        size = config.patch_size
        self.projection = nn.Conv2d(
            config.num_channels, config.hidden_size, kernel_size=size, stride=size, device="meta"
        )

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return [samples, patches, width] for pixel_values [samples, channels, height, width]."""
        projected: Tensor = self.projection(pixel_values)
        return projected.flatten(2).transpose(1, 2)


class ViTEmbeddings(nn.Module):
    """A class token and the patches, each with its position."""

    def __init__(self, config: StoredConfig) -> None:
        """Take the configuration."""
        super().__init__()
        self.size = (config.image_size, config.image_size)
        patches = (config.image_size // config.patch_size) ** 2
        self.cls_token = nn.Parameter(torch.empty(1, 1, config.hidden_size, device="meta"))
        self.position_embeddings = nn.Parameter(torch.empty(1, patches + 1, config.hidden_size, device="meta"))
        self.patch_embeddings = ViTPatchEmbeddings(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return [samples, 1 + patches, width]. Raises ValueError for images of another size."""
        if tuple(pixel_values.shape[2:]) != self.size:
            raise ValueError(f"images of {tuple(pixel_values.shape[2:])} pixels; the model takes {self.size}")
        patches = self.patch_embeddings(pixel_values)
        tokens = torch.cat((self.cls_token.expand(len(patches), -1, -1), patches), dim=1)
        embedded: Tensor = self.dropout(tokens + self.position_embeddings)
        return embedded


class ViTAttention(nn.Module):
    """Attention of every token to every other."""

    def __init__(self, config: StoredConfig) -> None:
        """Take the configuration."""
        super().__init__()
        width, bias = config.hidden_size, config.qkv_bias
        self.num_attention_heads = config.num_attention_heads
        self.head_dim = width // config.num_attention_heads
        self.attention_dropout = config.attention_probs_dropout_prob
        self.q_proj = nn.Linear(width, width, bias=bias, device="meta")
        self.k_proj = nn.Linear(width, width, bias=bias, device="meta")
        self.v_proj = nn.Linear(width, width, bias=bias, device="meta")
        self.o_proj = nn.Linear(width, width, device="meta")

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, None]:
        """Return [samples, tokens, width] for as much, and no attention weights."""
        places = hidden_states.shape[:-1]
        heads = (*places, -1, self.head_dim)
        query, key, value = (
            projection(hidden_states).view(heads).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        dropout = self.attention_dropout if self.training else 0.0
        mixed = scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=self.head_dim**-0.5)
        return self.o_proj(mixed.transpose(1, 2).contiguous().reshape(*places, -1)), None


class ViTMLP(nn.Module):
    """Two matrices with a GELU between them."""

    def __init__(self, config: StoredConfig) -> None:
        """Take the configuration."""
        super().__init__()
        self.activation_fn = nn.GELU()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size, device="meta")
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size, device="meta")

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return [samples, tokens, width] for as much."""
        mapped: Tensor = self.fc2(self.activation_fn(self.fc1(hidden_states)))
        return mapped


class ViTLayer(nn.Module):
    """One block: attention and MLP, each normalized before and added to what came in."""

    def __init__(self, config: StoredConfig) -> None:
        """Take the configuration."""
        super().__init__()
        self.attention = ViTAttention(config)
        self.layernorm_before = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps, device="meta")
        self.layernorm_after = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps, device="meta")
        self.mlp = ViTMLP(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return [samples, tokens, width] for as much."""
        attended, _ = self.attention(self.layernorm_before(hidden_states))
        between: Tensor = self.dropout(attended) + hidden_states
        mapped: Tensor = self.mlp(self.layernorm_after(between))
        return self.dropout(mapped) + between  # type: ignore[no-any-return]


class ViTModel(nn.Module):
    """Embeddings, blocks and a last normalization."""

    def __init__(self, config: StoredConfig) -> None:
        """Take the configuration."""
        super().__init__()
        self.embeddings = ViTEmbeddings(config)
        self.layers = nn.ModuleList([ViTLayer(config) for _ in range(config.num_hidden_layers)])
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps, device="meta")

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return [samples, 1 + patches, width]."""
        hidden = self.embeddings(pixel_values.to(self.embeddings.patch_embeddings.projection.weight.dtype))
        for layer in self.layers:
            hidden = layer(hidden)
        normalized: Tensor = self.layernorm(hidden)
        return normalized


class ViTForImageClassification(nn.Module):
    """The whole classifier; it reads the class token."""

    def __init__(self, config: StoredConfig) -> None:
        """Take the configuration."""
        super().__init__()
        self.config = config
        self.vit = ViTModel(config)
        self.classifier = nn.Linear(config.hidden_size, len(config.id2label), device="meta")

    def tie_weights(self) -> None:
        """Do nothing: this model uses no tensor twice."""

    def forward(self, pixel_values: Tensor) -> ImageClassifierOutput:
        """Return the logits of pixel_values [samples, channels, height, width]."""
        return ImageClassifierOutput(self.classifier(self.vit(pixel_values)[:, 0, :]))
