"""Low-rank adapters beside the linear maps of a cut model's blocks (LoRA, Hu et al. 2021, 2106.09685, section 4.1).

The library peft makes them; it is an extra. Trained adapters are merged into the weights, so that what is kept is a
model like any other.
"""

from typing import Any

import torch
from torch import nn

from personalization.system.extras import check_adapters
from personalization.transformer.layers import Layer, is_linear


def add_adapters(model: nn.Module, layers: tuple[Layer, ...], *, rank: int, seed: int) -> list[nn.Parameter]:
    """Put adapters of `rank` beside the readers and writers of `layers` in `model` itself, and return their parameters.

    Only they need gradients afterwards. Layers that were dropped whole get none. Raises UserError without peft.
    """
    check_adapters()
    from peft import LoraConfig, inject_adapter_in_model

    names = dict(model.named_modules())
    paths = [path for layer in layers for path in (*(reader.path for reader in layer.readers), layer.writer)]
    targets = [path for path in paths if path in names and is_linear(names[path]) and _reads_and_writes(names[path])]
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        # Scaled by alpha / rank: at twice the rank, adapters move as fast at any rank.
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets), model)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def merge_adapters(model: nn.Module) -> None:
    """Add every adapter in `model` to the weight that it stands beside, and put the plain linear map back."""
    from peft.tuners.lora import LoraLayer

    for path, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            adapted: Any = module
            adapted.merge()
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, adapted.get_base_layer())


def _reads_and_writes(module: nn.Module) -> bool:
    weight: Any = module.weight
    return bool(weight.numel())
