"""Whether a language model knows the tokens that it is given: those of another model's tokenizer mean nothing to it."""

import torch
from torch import Tensor, nn

from personalization.errors import UserError
from personalization.transformer.readout import in_chunks, outputs_of, token_head

_POSITIONS = 512
# Nats. Of SmolLM2-135M, on 1,024 positions: with tokens that another tokenizer makes of English speeches a next token
# costs 3.4 to 5.9 more than the model expects, and at most 0.3 less than a token from elsewhere in the text. Speeches,
# source code, French, Russian and Hindi: 0.1 to 0.6 more than it expects, and 6 to 14 less than a token from elsewhere;
# random letters and base64, in whose order there is nothing to know: up to 1.3 more than it expects.
_MOST_SURPRISE = 2.5
_LEAST_ORDER = 1.0


@torch.inference_mode()
def check_tokenizer(
    model: nn.Module, tokens: Tensor, outputs: Tensor | None = None, known: Tensor | None = None
) -> None:
    """Raise UserError if `tokens` [samples, positions] are another tokenizer's than the dense `model`'s own.

    outputs: what the model's head reads of them, [samples, positions, width]; None runs the model. known: where there
    is data, [samples, positions] of bool; everywhere if None. A model with other tokens than its own is sure of tokens
    that do not come, and does not see in which order they come. One that was never trained is sure of nothing, and
    passes.
    """
    head = token_head(model)
    if head is None or tokens.shape[1] < 2:
        return
    data = torch.ones_like(tokens, dtype=torch.bool) if known is None else known
    both = data[:, 1:] & data[:, :-1]
    found = outputs_of(model, {"input_ids": tokens}) if outputs is None else outputs
    read, following = found[:, :-1][both], tokens[:, 1:][both]
    chosen = torch.linspace(0, len(read) - 1, min(len(read), _POSITIONS)).round().long()
    surprise, order = _surprise_and_order(head, read[chosen], following[chosen])
    if surprise > _MOST_SURPRISE and order < _LEAST_ORDER:
        raise UserError(
            f"the model's tokenizer does not seem to belong to it: a token of this text costs {surprise:.1f} nats more "
            "than the model expects, and in which order they come it does not see; fetch the model again, with its own "
            "tokenizer.json"
        )


def _surprise_and_order(head: nn.Module, read: Tensor, following: Tensor) -> tuple[float, float]:
    """Return, in nats for each token, what the next ones [positions] cost above the entropy of what is predicted, and
    below what tokens from elsewhere cost.
    """
    elsewhere = following.roll(len(following) // 2)
    surprise, order = [], []
    classes = int(head.get_parameter("weight").shape[0])
    for part, next_one, other in in_chunks(classes, read, following, elsewhere):
        log_shares = head(part).log_softmax(-1)
        own = log_shares.gather(-1, next_one[:, None])[:, 0]
        surprise.append((log_shares.exp() * log_shares).sum(-1) - own)
        order.append(own - log_shares.gather(-1, other[:, None])[:, 0])
    return float(torch.cat(surprise).mean()), float(torch.cat(order).mean())
