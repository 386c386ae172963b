"""Fit the head to how often a device sees each class, without labels.

The backbone was trained on some mixture of classes, the device sees another. Expectation maximization over the dense
model's predictions estimates the device's mixture, and the logits move by the logarithm of the ratio (Saerens,
Latinne and Decaestecker 2002, "Adjusting the outputs of a classifier to new a priori probabilities", equations 2.4
and 2.9). It costs no weights and no training: the shift goes into the bias of the classifier.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from personalization.transformer.layers import Layer, is_linear, linear_bias, linear_weight

_ITERATIONS = 50


def label_shift(logits: Tensor, *, pseudo_samples: float = 1.0) -> Tensor:
    """Return what to add to the logits [samples, classes] for the mixture that the samples show, [classes].

    The backbone's own mixture is taken as uniform. `pseudo_samples` samples spread over all classes keep a class that
    was never seen possible.
    """
    classes = logits.shape[-1]
    predicted = logits.double().softmax(-1)
    mixture = torch.full((classes,), 1.0 / classes, dtype=torch.float64)
    for _ in range(_ITERATIONS):
        posterior = predicted * mixture
        posterior = posterior / posterior.sum(-1, keepdim=True)
        mixture = (posterior.sum(0) + pseudo_samples / classes) / (len(logits) + pseudo_samples)
    return (mixture * classes).log().to(logits.dtype)


def classifier_path(model: nn.Module, layers: Sequence[Layer], classes: int) -> str | None:
    """Return the path of the classifier, the last linear module outside the blocks with `classes` outputs and a bias.

    None where there is none: then the head is left alone.
    """
    inside = tuple(f"{layer.block_path}." for layer in layers)
    found = [
        path
        for path, module in model.named_modules()
        if is_linear(module)
        and not path.startswith(inside)
        and linear_weight(module).shape[0] == classes
        and linear_bias(module) is not None
    ]
    return found[-1] if found else None


def shift_classifier(model: nn.Module, path: str, shift: Tensor) -> None:
    """Add `shift` [classes] to the classifier's bias, in a tensor of its own: other models may share the old one."""
    module = model.get_submodule(path)
    bias = linear_bias(module)
    assert bias is not None
    module.bias = nn.Parameter(bias.detach() + shift, requires_grad=bias.requires_grad)
