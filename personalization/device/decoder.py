"""Run an exported language model: new tokens in, logits of what follows and a longer cache out."""

from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

TOKENS, START, ASKED, LOGITS = "tokens", "start", "asked", "logits"

Tokens = NDArray[np.int64]


def cache_names(index: int) -> tuple[tuple[str, str], tuple[str, str]]:
    """Return the names of keys and values of the attention layer `index`: of what went before, and of all tokens."""
    before, everything = ((f"{time}_key_{index}", f"{time}_value_{index}") for time in ("past", "present"))
    return before, everything


class DecoderRun:
    """One text, as far as an exported model has read it. Keys and values are kept, so each token is read once."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        """Start with no tokens read."""
        self._session = session
        self.tokens = 0
        layers = (len(session.get_outputs()) - 1) // 2
        self._names = [cache_names(index) for index in range(layers)]
        shapes = {value.name: value.shape for value in session.get_inputs()}
        self._cache: dict[str, Any] = {
            name: np.zeros((1, shapes[name][1], 0, shapes[name][3]), dtype=np.float32)
            for before, _ in self._names
            for name in before
        }

    def read(self, tokens: Tokens, *, last: bool = True) -> NDArray[np.float32]:
        """Read `tokens` [new]; return logits of what follows each, [new, vocabulary], or the last alone, [1, ...]."""
        asked = np.arange(len(tokens) - 1 if last else 0, len(tokens))
        outputs = [LOGITS, *(name for _, everything in self._names for name in everything)]
        given = {TOKENS: tokens[None], START: np.array(self.tokens), ASKED: asked, **self._cache}
        logits, *cache = self._session.run(outputs, given)
        self.tokens += len(tokens)
        self._cache = dict(zip(self._cache, cache, strict=True))
        found: NDArray[np.float32] = logits
        return found
