"""What a probe costs, in nats: the entropy increase without labels, or the loss increase with them."""

import torch
from torch import Tensor

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


def measure(trace: DenseTrace, logits: Tensor, *, signal: Signal, labels: Tensor | None, on: Tensor) -> float:
    """Return the mean increase in nats over the samples `on` [samples] of bool; never below 0.

    A masked model can have a lower loss than the dense one; for pruning that is worth no more than no loss at all.
    """
    if signal == "loss":
        assert labels is not None
        increase = loss_increase(trace.logits[on] + trace.shift, logits[on] + trace.shift, labels[on])
    else:
        increase = entropy_increase(trace.logits[on] + trace.shift, logits[on] + trace.shift)
    if increase.ndim == 2:
        return max(float(increase[trace.positions[on]].mean()), 0.0)
    return max(float(increase.mean()), 0.0)


def agreement(trace: DenseTrace, logits: Tensor, *, on: Tensor) -> float:
    """Return the share of predictions on the samples `on` where the masked model's first choice is the dense one's."""
    same = (trace.logits[on] + trace.shift).argmax(-1) == (logits[on] + trace.shift).argmax(-1)
    if same.ndim == 2:
        same = same[trace.positions[on]]
    return float(same.to(torch.float64).mean())
