"""What a personal language model does with text: go on from a prompt, and score a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from personalization.errors import UserError
from personalization.readout import token_head
from personalization.scoring import score_tokens
from personalization.storage import LoadedPersonalModel
from personalization.tasks import preprocessing_from_dict, text_samples
from personalization.texts import TextPreprocessing, read_tokens, windows

_SCORED_TOKENS = 512


@dataclass(frozen=True, kw_only=True)
class Generation:
    """How to go on from a prompt: for at most `tokens`, greedily at temperature 0, else drawn with `seed`."""

    tokens: int = 60
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        if self.tokens < 1 or self.temperature < 0.0 or self.seed < 0:
            raise UserError(
                f"{self.tokens} tokens at temperature {self.temperature}, seed {self.seed}: expected 1 or more tokens, "
                "and 0 or more of the others"
            )


class TextPrediction:
    """A personal language model with its tokenizer."""

    def __init__(self, loaded: LoadedPersonalModel, *, source: str) -> None:
        """Take a personal model; `source` names it in errors. Raises UserError if it is no language model."""
        record = loaded.manifest.preprocessing
        preprocessing = None if record is None else preprocessing_from_dict(record)
        if not isinstance(preprocessing, TextPreprocessing) or token_head(loaded.model) is None:
            raise UserError(f"{source}: not a language model, so it neither goes on from a prompt nor scores text")
        self._model: Any = loaded.model
        self._preprocessing = preprocessing

    def generate(self, prompt: str, settings: Generation) -> str:
        """Return how the model goes on from `prompt`. Raises UserError for a prompt of no tokens or of too many."""
        tokens, context = self._preprocessing.encode(prompt), self._preprocessing.context
        if not len(tokens) or len(tokens) + settings.tokens > context:
            raise UserError(
                f"a prompt of {len(tokens):,} tokens and {settings.tokens:,} to go on for: expected 1 or more, and "
                f"at most {context:,} together, which is what the model reads"
            )
        ids = torch.from_numpy(tokens)[None]
        drawn = (
            {"do_sample": True, "temperature": settings.temperature} if settings.temperature else {"do_sample": False}
        )
        with torch.random.fork_rng([]), torch.inference_mode():
            torch.manual_seed(settings.seed)
            found = self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=settings.tokens,
                pad_token_id=self._preprocessing.separator,
                **drawn,
            )
        return self._preprocessing.decode(found[0, ids.shape[1] :].tolist())

    def score(self, file: Path) -> dict[str, Any]:
        """Return file, tokens, bits_per_token, perplexity and bits_per_byte of a file of text, in windows of 512.

        The first token is given, and less than a window is left out at the end. Bits per byte compare models whose
        tokens differ. Raises UserError.
        """
        tokens = read_tokens([file], self._preprocessing)
        length = min(_SCORED_TOKENS, self._preprocessing.context, len(tokens) - 1)
        if length < 1:
            raise UserError(f"{file}: {len(tokens)} tokens; expected two or more to score")
        samples = text_samples(windows(tokens, length))
        assert samples.labels is not None
        scores = score_tokens(self._model, samples.inputs["input_ids"], samples.labels)
        scored = len(self._preprocessing.decode(samples.labels.flatten().tolist()).encode())
        return {
            "file": str(file),
            "tokens": scores.nats.numel(),
            "bits_per_token": scores.bits_per_token,
            "perplexity": scores.perplexity,
            "bits_per_byte": scores.bits_per_token * scores.nats.numel() / max(scored, 1),
        }


def predict_text(
    loaded: LoadedPersonalModel, *, source: str, prompt: str | None, files: Sequence[Path], settings: Generation
) -> dict[str, Any]:
    """Return how a personal model goes on from `prompt`, and how well it predicts each of `files`.

    Raises UserError that names what can't be read.
    """
    speaker = TextPrediction(loaded, source=source)
    result: dict[str, Any] = {"scores": [speaker.score(file) for file in files]}
    if prompt is not None:
        result |= {"prompt": prompt, "continuation": speaker.generate(prompt, settings)}
    return result
