"""Distil the dense model into a cut one on the private samples, without labels (Hinton et al. 2015, section 2)."""

import copy

import torch
from torch import Tensor, nn

from personalization.trace import DenseTrace, logits_of

_BATCH = 32
_TEMPERATURE = 2.0
_LEARNING_RATE = 3e-4


def distill(model: nn.Module, trace: DenseTrace, *, steps: int, seed: int) -> nn.Module:
    """Return a copy of `model` trained for `steps` batches to predict what the dense model does.

    The loss is KL(p_dense || p_model) at a temperature of 2, with the head's shift in both. Adam with a learning rate
    that falls to zero on a cosine. `model` itself, and every tensor that it shares with others, stays as it is.
    """
    if not steps:
        return model
    student = copy.deepcopy(model)
    for parameter in student.parameters():
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam(student.parameters(), lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    # Inference tensors can't be saved for the backward pass; a copy of them can.
    inputs = {name: value.clone() for name, value in trace.inputs.items()}
    targets = ((trace.logits + trace.shift) / _TEMPERATURE).log_softmax(-1).clone()
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < min(_BATCH, trace.samples):
            order = torch.randperm(trace.samples, generator=generator)
        pick, order = order[:_BATCH], order[_BATCH:]
        logits = logits_of(student, {name: value[pick] for name, value in inputs.items()})
        loss = _divergence(targets[pick], logits / _TEMPERATURE, trace.positions[pick])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    for parameter in student.parameters():
        parameter.requires_grad_(False)
    return student


def _divergence(targets: Tensor, logits: Tensor, positions: Tensor) -> Tensor:
    divergence = (targets.exp() * (targets - logits.log_softmax(-1))).sum(-1)
    return divergence[positions].mean() if divergence.ndim == 2 else divergence.mean()
