"""What a probe costs, in nats: the entropy increase without labels, or the loss increase with them."""

import torch
from torch import Tensor

from personalization.readout import in_chunks
from personalization.settings import Signal
from personalization.trace import DenseTrace


def entropy_increase(dense: Tensor, masked: Tensor) -> Tensor:
    """Return KL(p_dense || p_masked) in nats for logits [..., classes]; the result is [...]."""
    reference = dense.log_softmax(-1)
    return (reference.exp() * (reference - masked.log_softmax(-1))).sum(-1)


def loss_increase(dense: Tensor, masked: Tensor, labels: Tensor) -> Tensor:
    """Return the rise of the cross-entropy in nats for logits [..., classes] and labels [...]."""
    index = labels.unsqueeze(-1)
    return (dense.log_softmax(-1) - masked.log_softmax(-1)).gather(-1, index).squeeze(-1)


@torch.no_grad()
def measure(trace: DenseTrace, outputs: Tensor, *, signal: Signal, labels: Tensor | None, on: Tensor) -> float:
    """Return the mean increase in nats over the samples `on` [samples] of bool; never below 0.

    outputs: of a masked pass. A masked model can have a lower loss than the dense one; for pruning that is worth no
    more than no loss at all.
    """
    increases = []
    if signal == "loss":
        assert labels is not None
        for dense, masked, truth in in_chunks(trace.classes, *_predictions(trace, on, trace.outputs, outputs, labels)):
            increases.append(loss_increase(trace.logits(dense), trace.logits(masked), truth))
    else:
        for dense, masked in in_chunks(trace.classes, *_predictions(trace, on, trace.outputs, outputs)):
            increases.append(entropy_increase(trace.logits(dense), trace.logits(masked)))
    return max(float(_joined(increases).mean()), 0.0)


@torch.no_grad()
def agreement(trace: DenseTrace, outputs: Tensor, *, on: Tensor) -> float:
    """Return the share of predictions on the samples `on` where the masked model's first choice is the dense one's."""
    same = [
        trace.logits(dense).argmax(-1) == trace.logits(masked).argmax(-1)
        for dense, masked in in_chunks(trace.classes, *_predictions(trace, on, trace.outputs, outputs))
    ]
    return float(_joined(same).to(torch.float64).mean())


def _predictions(trace: DenseTrace, on: Tensor, *tensors: Tensor) -> list[Tensor]:
    """Return what belongs to each prediction on the samples `on`, [predictions, ...]; padding predicts nothing."""
    if trace.outputs.ndim == 2:
        return [tensor[on] for tensor in tensors]
    return [tensor[trace.positions & on[:, None]] for tensor in tensors]


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
