"""What a probe costs, in nats: the entropy increase without labels, or the loss increase with them."""

import torch
from torch import Tensor

from personalization.cutting.masked import MaskedPass
from personalization.settings import Signal
from personalization.transformer.layers import linear_weight
from personalization.transformer.readout import in_chunks
from personalization.transformer.trace import DenseTrace


def entropy_increase(dense: Tensor, masked: Tensor) -> Tensor:
    """Return KL(p_dense || p_masked) in nats for logits [..., classes]; the result is [...]."""
    reference = dense.log_softmax(-1)
    return (reference.exp() * (reference - masked.log_softmax(-1))).sum(-1)


class DensePredictions:
    """What the dense model predicts on some samples: masked passes are measured against it, one head's product each.

    The expectation of a logit is a product with the expected row of the head, so that
    KL(p_dense || p_masked) = E_p[row] (read_dense - read_masked) + logsumexp(masked) - logsumexp(dense), and the loss
    rises by the same with the row of the label. Both are exactly 0 for the dense model itself.
    """

    @torch.no_grad()
    def __init__(self, trace: DenseTrace, *, signal: Signal, labels: Tensor | None, on: Tensor) -> None:
        """Predict on the samples `on` [samples] of bool, padding left out. labels: needed by the loss signal."""
        self._trace, self._on = trace, on if trace.outputs.ndim == 2 else trace.positions & on[:, None]
        self._read = trace.outputs[self._on]
        # What a classifier puts out are logits: each is a row by itself.
        head_rows = torch.eye(trace.classes) if trace.head is None else linear_weight(trace.head)
        expected, normalizers, choices = [], [], []
        for (read,) in in_chunks(trace.classes, self._read):
            logits = trace.logits(read)
            normalizers.append(logits.logsumexp(-1))
            choices.append(logits.argmax(-1))
            if signal == "entropy":
                expected.append(logits.softmax(-1) @ head_rows)
        if signal == "loss":
            assert labels is not None
            expected.append(head_rows[labels[self._on]])
        self._expected, self._normalizer, self._choice = _joined(expected), _joined(normalizers), _joined(choices)

    @torch.no_grad()
    def increase(self, result: MaskedPass) -> float:
        """Return the mean increase in nats from the dense model to a masked pass; never below 0.

        A masked model can have a lower loss than the dense one; for pruning that is worth no more than no loss at all.
        """
        read = result.outputs[self._on]
        parts = in_chunks(self._trace.classes, read)
        normalizer = _joined([self._trace.logits(part).logsumexp(-1) for (part,) in parts])
        increase = (self._expected * (self._read - read)).sum(-1) + normalizer - self._normalizer
        return max(float(increase.mean()), 0.0)

    @torch.no_grad()
    def agreement(self, result: MaskedPass) -> float:
        """Return the share of predictions where the first choice of a masked pass is the dense model's."""
        parts = in_chunks(self._trace.classes, result.outputs[self._on])
        choice = _joined([self._trace.logits(part).argmax(-1) for (part,) in parts])
        return float((choice == self._choice).to(torch.float64).mean())


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
