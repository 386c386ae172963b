"""What is done to a model before it is judged: its head fitted, its weights rounded as they would be stored."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from personalization.transformer.head import classifier_path, label_shift, shift_classifier
from personalization.transformer.layers import Layer
from personalization.transformer.readout import outputs_of
from personalization.transformer.trace import Inputs


def as_stored(model: nn.Module, dtype: str) -> nn.Module:
    """Return a copy of `model` in evaluation mode with its weights rounded once to `dtype`, as loading it would."""
    loaded = copy.deepcopy(model).eval()
    for tensor in (*loaded.parameters(), *loaded.buffers()):
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(getattr(torch, dtype)).float()
    return loaded


def with_fitted_head(model: nn.Module, layers: Sequence[Layer], inputs: Inputs) -> nn.Module:
    """Return `model`, dense or cut, with its head fitted to the class mixture of `inputs` [samples, ...], unlabelled.

    layers: of the dense model. See `personalization.transformer.head`: a model without a classifier stays as it is. All
    tensors but the classifier's bias are shared with `model`.
    """
    logits = private_logits(model, inputs)
    path = classifier_path(model, layers, logits.shape[-1])
    if path is None:
        return model
    fitted = copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})
    shift_classifier(fitted, path, label_shift(logits))
    return fitted


@torch.inference_mode()
def private_logits(model: nn.Module, inputs: Inputs) -> Tensor:
    """Return the logits [samples, classes] of `model` for a client's own samples."""
    # Outside of inference mode the copy can be used like any other tensor.
    return outputs_of(model, inputs)
