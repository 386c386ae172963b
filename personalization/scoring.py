"""How well a language model predicts text: nats for each token, and perplexity."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from personalization.readout import in_chunks, outputs_of, token_head

_BATCH_POSITIONS = 2048


@dataclass(frozen=True)
class TokenScores:
    """Of each predicted token, [windows, positions]: nats that it costs, and the model's own first choice."""

    nats: Tensor
    first: Tensor

    @property
    def bits_per_token(self) -> float:
        """Mean bits that a token costs."""
        return float(self.nats.double().mean()) / math.log(2.0)

    @property
    def perplexity(self) -> float:
        """Exponential of the mean nats that a token costs."""
        return math.exp(float(self.nats.double().mean()))


@torch.inference_mode()
def score_tokens(model: nn.Module, tokens: Tensor, following: Tensor) -> TokenScores:
    """Score a causal language model on windows: `following` are the next tokens of `tokens`, [windows, positions] both.

    A few windows and the logits of a few positions exist at a time.
    """
    head = token_head(model)
    assert head is not None
    size = max(1, _BATCH_POSITIONS // tokens.shape[1])
    nats, first = [], []
    for batch, truth in zip(tokens.split(size), following.split(size), strict=True):
        hidden = outputs_of(model, {"input_ids": batch}).flatten(0, 1)
        classes = int(head.get_parameter("weight").shape[0])
        for rows, wanted in in_chunks(classes, hidden, truth.flatten()):
            logits = head(rows)
            first.append(logits.argmax(-1))
            nats.append(-logits.log_softmax(-1).gather(-1, wanted[:, None])[:, 0])
    return TokenScores(torch.cat(nats).view(tokens.shape), torch.cat(first).view(tokens.shape))
