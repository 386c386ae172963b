"""Distil the dense model into a cut one on the private samples, without labels (Hinton et al. 2015, section 2)."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from personalization.readout import in_chunks, outputs_of, token_head
from personalization.trace import DenseTrace

_BATCH = 32
# Of language models, whose samples are long: what the backward pass keeps of them would not fit otherwise.
_BATCH_POSITIONS = 512
_TEMPERATURE = 2.0
_LEARNING_RATE = 3e-4


def distill(model: nn.Module, trace: DenseTrace, *, steps: int, seed: int) -> nn.Module:
    """Return a copy of `model` trained for `steps` batches to predict what the dense model does.

    The loss is KL(p_dense || p_model) at a temperature of 2, with the head's shift in both. Adam with a learning rate
    that falls to zero on a cosine. A language model's embeddings are not trained: they are shared with the dense
    model, and private text says something about few of them. `model` itself, and every tensor that it shares with
    others, stays as it is.
    """
    if not steps:
        return model
    fixed = _embeddings(model, trace)
    student = copy.deepcopy(model, dict(fixed))
    untrained = {id(parameter) for parameter in fixed.values()}
    trained = [parameter for parameter in student.parameters() if id(parameter) not in untrained]
    for parameter in trained:
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam(trained, lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    # Inference tensors can't be saved for the backward pass; a copy of them can.
    inputs = {name: value.clone() for name, value in trace.inputs.items()}
    batch = _BATCH if trace.head is None else max(1, _BATCH_POSITIONS // trace.positions.shape[1])
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < min(batch, trace.samples):
            order = torch.randperm(trace.samples, generator=generator)
        pick, order = order[:batch], order[batch:]
        outputs = outputs_of(student, {name: value[pick] for name, value in inputs.items()})
        loss = _divergence(trace, pick, student, outputs)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    for parameter in trained:
        parameter.requires_grad_(False)
    return student


def _embeddings(model: nn.Module, trace: DenseTrace) -> dict[int, nn.Parameter]:
    """Return for each parameter of a language model's embeddings, by its id, one in its memory: not trained."""
    if trace.head is None:
        return {}
    causal: Any = model
    modules = (causal.get_input_embeddings(), causal.get_output_embeddings())
    own = {id(tensor): tensor for module in modules for tensor in module.parameters()}
    return {key: nn.Parameter(tensor.detach(), requires_grad=False) for key, tensor in own.items()}


def _divergence(trace: DenseTrace, pick: Tensor, student: nn.Module, outputs: Tensor) -> Tensor:
    """Return the mean divergence on the samples `pick`; logits of a chunk are made again for the backward pass."""
    dense, own, head = trace.outputs[pick].clone(), outputs, token_head(student)
    if own.ndim == 3:
        dense, own = dense[trace.positions[pick]], own[trace.positions[pick]]

    def chunk(dense: Tensor, own: Tensor) -> Tensor:
        with torch.no_grad():
            targets = (trace.logits(dense) / _TEMPERATURE).log_softmax(-1)
        # The student's classifier has the shift in its bias; language models have no shift.
        predicted = (own if head is None else head(own)) / _TEMPERATURE
        return (targets.exp() * (targets - predicted.log_softmax(-1))).sum(-1)

    chunks = list(in_chunks(trace.classes, dense, own))
    if len(chunks) == 1:
        return chunk(*chunks[0]).mean()
    parts = [checkpoint(chunk, *pair, use_reentrant=False) for pair in chunks]
    return torch.cat(parts).mean()
