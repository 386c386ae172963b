"""What a language model does with text: go on from a prompt, and score a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from personalization.data.tasks import text_samples
from personalization.data.texts import TextPreprocessing
from personalization.errors import UserError
from personalization.model_files.source_model import SourceModel
from personalization.prediction.continuation import Generation, read_prompt, read_scored, score_record
from personalization.prediction.scoring import score_tokens
from personalization.transformer.readout import token_head
from personalization.transformer.tokenizer_fit import check_tokenizer


class TextPrediction:
    """A language model with its tokenizer."""

    def __init__(self, source: SourceModel) -> None:
        """Take a model. Raises UserError if it is no language model."""
        preprocessing = source.preprocessing
        if not isinstance(preprocessing, TextPreprocessing) or token_head(source.model) is None:
            raise UserError(f"{source.name}: not a language model, so it neither goes on from a prompt nor scores text")
        self._model: Any = source.model
        self._dense = source.dense
        self._preprocessing = preprocessing

    def generate(self, prompt: str, settings: Generation) -> str:
        """Return how the model goes on from `prompt`. Raises UserError for a prompt of no tokens or of too many."""
        ids = torch.from_numpy(read_prompt(prompt, self._preprocessing, settings))[None]
        drawn = {
            "do_sample": True,
            "temperature": settings.temperature,
            "top_k": settings.top_k,
            "top_p": settings.top_p,
        }
        with torch.random.fork_rng([]), torch.inference_mode():
            torch.manual_seed(settings.seed)
            found = self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=settings.tokens,
                pad_token_id=self._preprocessing.separator,
                repetition_penalty=1.0,  # some models come with another, and then greedy would not be
                **(drawn if settings.temperature else {"do_sample": False}),
            )
        return self._preprocessing.decode(found[0, ids.shape[1] :].tolist())

    def score(self, file: Path) -> dict[str, Any]:
        """Return how well the model predicts a file of text; see `score_record`. Raises UserError."""
        scored = read_scored(file, self._preprocessing)
        samples = text_samples(scored)
        assert samples.labels is not None
        if self._dense:
            check_tokenizer(self._model, samples.inputs["input_ids"][:1])
        scores = score_tokens(self._model, samples.inputs["input_ids"], samples.labels)
        return score_record(file, scored, scores.nats.numpy(), self._preprocessing)


def predict_text(
    source: SourceModel, *, prompt: str | None, files: Sequence[Path], settings: Generation
) -> dict[str, Any]:
    """Return how a model goes on from `prompt`, and how well it predicts each of `files`.

    Raises UserError that names what can't be read.
    """
    speaker = TextPrediction(source)
    result: dict[str, Any] = {"scores": [speaker.score(file) for file in files]}
    if prompt is not None:
        result |= {"prompt": prompt, "continuation": speaker.generate(prompt, settings)}
    return result
