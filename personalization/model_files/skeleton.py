"""Build a model of transformers from its class name and configuration, without weights and without a network."""

import copy
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from personalization.cutting.cut_model import Writer, cut_model
from personalization.errors import UserError
from personalization.model_files.manifest import LayerRecord, Manifest
from personalization.transformer.layers import find_layers, is_conv1d, linear_bias, linear_weight
from personalization.transformer.vision_transformer import ViTForImageClassification, build_vision_transformer

if TYPE_CHECKING:  # importing transformers takes longer than all the rest, and most devices never need it
    from transformers import PreTrainedModel


class _EmptyOnMeta(TorchFunctionMode):
    """Take no memory for what is made empty, to be filled later; what is computed, such as rotary angles, is real.

    That is the difference between large parameters and the buffers that no file holds.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        if func is torch.empty and named.get("device") is None:
            named["device"] = "meta"
        return func(*args, **named)


def build_skeleton(
    architecture: str, config: Mapping[str, Any], attention: str
) -> "PreTrainedModel | ViTForImageClassification":
    """Return the dense model with parameters that are still to be filled, most of them on the meta device.

    architecture: name of a model class in transformers. A plain ViT classifier is built without transformers; its
    modules, tensors and numbers are the same. Raises UserError for any other name and for a configuration that does
    not build it. The global random state is left alone.
    """
    with torch.random.fork_rng([]):
        own = build_vision_transformer(config, attention) if architecture == "ViTForImageClassification" else None
        return own or _build_by_transformers(architecture, config, attention)


def _build_by_transformers(architecture: str, config: Mapping[str, Any], attention: str) -> "PreTrainedModel":
    import transformers
    from transformers import PreTrainedModel
    from transformers.initialization import no_init_weights

    model_class = getattr(transformers, architecture, None)
    if not (isinstance(model_class, type) and issubclass(model_class, PreTrainedModel) and model_class.config_class):
        raise UserError(f"{architecture}: not a model class of transformers {transformers.__version__}")
    try:
        settings = model_class.config_class.from_dict(copy.deepcopy(dict(config)))
        settings._attn_implementation = attention
        with _EmptyOnMeta(), no_init_weights():
            model: PreTrainedModel = model_class(settings).eval()
    except Exception as error:  # a configuration can be wrong in any way that the class did not foresee
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{architecture}: its configuration does not build a model ({reason})") from None
    return model


def build_personal_skeleton(manifest: Manifest) -> nn.Module:
    """Return the personal model's modules in the shapes that `manifest` gives, with nothing filled in.

    Raises UserError where the manifest does not fit the model.
    """
    dense = build_skeleton(manifest.architecture, manifest.config, manifest.attention)
    layers = find_layers(dense)
    if [layer.units for layer in layers] != [record.units for record in manifest.layers]:
        raise UserError(f"{manifest.architecture}: the manifest's layers are not those of its configuration")
    writers: dict[int, Writer] = {}
    for layer, record in zip(layers, manifest.layers, strict=True):
        writer = dense.get_submodule(layer.writer)
        if not _is_untouched(writer, record):
            outputs = linear_weight(writer).shape[0]
            weight = torch.empty(outputs, len(record.kept) * layer.columns_per_unit, device="meta")
            bias = torch.empty(outputs, device="meta") if record.writer_bias else None
            writers[layer.index] = (weight, bias)
    kept = [np.array(record.kept, dtype=np.int64) for record in manifest.layers]
    return cut_model(dense, layers, kept, writers)


def can_be_rebuilt(model: nn.Module) -> bool:
    """Say whether `build_skeleton` can make the modules of `model` again from its class name and configuration."""
    library = sys.modules.get("transformers")  # without it there is no model of its classes
    return isinstance(model, ViTForImageClassification) or (
        library is not None and isinstance(model, library.PreTrainedModel)
    )


def _is_untouched(writer: nn.Module, record: LayerRecord) -> bool:
    return (
        len(record.kept) == record.units
        and linear_kind(writer) == record.writer
        and (linear_bias(writer) is not None) == record.writer_bias
    )


def linear_kind(module: nn.Module) -> str:
    """Return which of the two linear modules of a manifest this one is."""
    return "Conv1D" if is_conv1d(module) else "Linear"
