"""How well a language model predicts text: nats for each token, and perplexity."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from personalization.data.texts import Tokens
from personalization.transformer.readout import in_chunks, outputs_of, token_head
from personalization.vocabulary.spelling import Spelling

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


@torch.inference_mode()
def score_spelled(model: nn.Module, windows: Tokens, spelled: Spelling) -> TokenScores:
    """Score a model with fewer tokens on `windows` [windows, positions + 1] of whole ones, a whole token at a time.

    The nats of a token are those of all pieces that spell it; its `first` is what the model would begin it with.
    """
    nats = torch.zeros(windows.shape[0], windows.shape[1] - 1)
    first = torch.zeros_like(nats, dtype=torch.long)
    for row, window in enumerate(windows):
        counts = np.array([len(spelled.pieces[token]) for token in window])
        # Nothing predicts the first token, so only the last of its pieces is of use.
        tokens = torch.from_numpy(spelled.spell(window))[None, counts[0] - 1 :]
        own = score_tokens(model, tokens[:, :-1], tokens[:, 1:])
        nats[row].index_add_(0, torch.from_numpy(np.repeat(np.arange(len(window) - 1), counts[1:])), own.nats[0])
        begins = np.cumsum(counts[1:]) - counts[1:]
        first[row] = torch.from_numpy(spelled.whole[own.first[0, torch.from_numpy(begins)].numpy()])
    return TokenScores(nats, first)
