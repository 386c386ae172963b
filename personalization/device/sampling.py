"""Choose the next token from its logits."""

import numpy as np
from numpy.typing import NDArray

from personalization.prediction.continuation import Generation


def choose_token(logits: NDArray[np.float32], settings: Generation, random: np.random.Generator) -> int:
    """Return a token, given its logits [vocabulary]: the likeliest at temperature 0, else drawn as `settings` say."""
    if settings.temperature == 0.0:
        return int(logits.argmax())
    candidates = likely_tokens(logits, settings)
    weights = _softmax(logits[candidates] / settings.temperature)
    return int(random.choice(candidates, p=weights))


def likely_tokens(logits: NDArray[np.float32], settings: Generation) -> NDArray[np.int64]:
    """Return the tokens that may be drawn, the likeliest first: at most `top_k`, and no more than make `top_p`.

    Of tokens in that order the first few whose probabilities sum to `top_p` or more, at the temperature asked for and
    among the `top_k` (nucleus sampling, 1904.09751, section 3.1).
    """
    order: NDArray[np.int64] = np.argsort(-logits, kind="stable")[: settings.top_k or None]
    before = np.cumsum(_softmax(logits[order] / settings.temperature))
    return order[: 1 + int(np.searchsorted(before, settings.top_p))]


def _softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    shifted = np.exp(logits.astype(np.float64) - logits.max())
    return np.asarray(shifted / shifted.sum())
