"""What going on from a prompt and scoring a text mean, whatever runs the model: torch here, onnxruntime on a device."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from personalization.data.texts import TextPreprocessing, Tokens, is_unicode, read_tokens, windows
from personalization.errors import UserError

_SCORED_TOKENS = 512


@dataclass(frozen=True, kw_only=True)
class Generation:
    """How to go on from a prompt: for at most `tokens`, greedily at temperature 0, else drawn with `seed`.

    Drawn are the `top_k` likeliest tokens only (0: all), and of these only the likeliest that together make `top_p`.
    """

    tokens: int = 60
    temperature: float = 0.0
    seed: int = 0
    top_k: int = 50
    top_p: float = 1.0

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        if (
            self.tokens < 1
            or not 0.0 <= self.temperature < math.inf
            or self.seed < 0
            or self.top_k < 0
            or not 0.0 < self.top_p <= 1.0
        ):
            raise UserError(
                f"{self.tokens} tokens at temperature {self.temperature}, seed {self.seed}, of the {self.top_k} "
                f"likeliest that make {self.top_p}: expected 1 or more tokens, a top-p above 0 and up to 1, and 0 or "
                "more of the others"
            )


def read_prompt(prompt: str, preprocessing: TextPreprocessing, settings: Generation) -> Tokens:
    """Return the tokens of a prompt [tokens]. Raises UserError if they are none, or leave no room in the context."""
    if not is_unicode(prompt):
        raise UserError("a prompt that is not UTF-8; expected Unicode text")
    tokens, context = preprocessing.encode(prompt), preprocessing.context
    if not len(tokens) or len(tokens) + settings.tokens > context:
        raise UserError(
            f"a prompt of {len(tokens):,} tokens and {settings.tokens:,} to go on for: expected 1 or more, and "
            f"at most {context:,} together, which is what the model reads"
        )
    return tokens


def read_scored(file: Path, preprocessing: TextPreprocessing) -> Tokens:
    """Return the windows [windows, length + 1] in which a file of text is scored, of 512 tokens if it has as many.

    The first token is given, and less than a window is left out at the end. Raises UserError.
    """
    tokens = read_tokens([file], preprocessing)
    length = min(_SCORED_TOKENS, preprocessing.context, len(tokens) - 1)
    if length < 1:
        raise UserError(f"{file}: {len(tokens)} tokens; expected two or more to score")
    return windows(tokens, length)


def score_record(
    file: Path, scored: Tokens, nats: NDArray[np.floating[Any]], preprocessing: TextPreprocessing
) -> dict[str, Any]:
    """Return file, tokens, nats, bits_per_token, perplexity and bits_per_byte of a scored file.

    scored [windows, length + 1] as of `read_scored`. nats [windows, length]: what each token but the first costs.
    Bits per byte compare models whose tokens differ.
    """
    total = float(nats.sum(dtype=np.float64))
    size = len(preprocessing.decode(scored[:, 1:].flatten().tolist()).encode())
    return {
        "file": str(file),
        "tokens": nats.size,
        "nats": total,
        "bits_per_token": total / nats.size / math.log(2.0),
        "perplexity": math.exp(total / nats.size),
        "bits_per_byte": total / math.log(2.0) / max(size, 1),
    }
