"""Go on from a prompt and score text with an exported language model: onnxruntime, numpy and tokenizers are enough."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from personalization.data.texts import TextPreprocessing, Tokens
from personalization.device.decoder import DecoderRun
from personalization.device.manifest import DeviceText
from personalization.device.runtime import DeviceModel, load_device_model, verify_file
from personalization.device.sampling import choose_token
from personalization.errors import UserError
from personalization.prediction.continuation import Generation, read_prompt, read_scored, score_record

# How much of a text is scored at a time: logits of as many positions exist together.
_PIECE = 64


class DeviceTextModel:
    """An exported language model with its tokenizer."""

    def __init__(self, folder: Path) -> None:
        """Load it. Raises UserError for files that are missing or were changed, and for a model of images."""
        device = load_device_model(folder)
        if not isinstance(device.manifest.preprocessing, DeviceText):
            raise UserError(f"{folder}: not a language model, so it neither goes on from a prompt nor scores text")
        self._device: DeviceModel = device
        self._text = device.manifest.preprocessing
        self._preprocessing = _read_preprocessing(folder, self._text)

    def generate(self, prompt: str, settings: Generation) -> str:
        """Return how the model goes on from `prompt`. Raises UserError for a prompt of no tokens or of too many."""
        random, run = np.random.default_rng(settings.seed), DecoderRun(self._device.session)
        tokens, found = read_prompt(prompt, self._preprocessing, settings), list[int]()
        while True:
            found.append(choose_token(run.read(tokens)[-1], settings, random))
            if found[-1] in self._text.stops or len(found) == settings.tokens:
                return self._preprocessing.decode(found)
            tokens = np.array(found[-1:])

    def score(self, file: Path) -> dict[str, Any]:
        """Return how well the model predicts a file of text; see `score_record`. Raises UserError."""
        scored = read_scored(file, self._preprocessing)
        nats = np.stack([self._window(window) for window in scored])
        return score_record(file, scored, nats, self._preprocessing)

    def _window(self, window: Tokens) -> NDArray[np.float64]:
        run, read = DecoderRun(self._device.session), window[:-1]
        parts = []
        for start in range(0, len(read), _PIECE):
            piece = read[start : start + _PIECE]
            parts.append(token_nats(run.read(piece, last=False), window[start + 1 : start + 1 + len(piece)]))
        return np.concatenate(parts)


def predict_text(folder: Path, *, prompt: str | None, files: Sequence[Path], settings: Generation) -> dict[str, Any]:
    """Return how an exported model goes on from `prompt`, and how well it predicts each of `files`.

    Raises UserError that names what can't be read.
    """
    speaker = DeviceTextModel(folder)
    result: dict[str, Any] = {"scores": [speaker.score(file) for file in files]}
    if prompt is not None:
        result |= {"prompt": prompt, "continuation": speaker.generate(prompt, settings)}
    return result


def token_nats(logits: NDArray[np.float32], following: Tokens) -> NDArray[np.float64]:
    """Return what each of the tokens `following` [positions] costs, in nats, given logits [positions, vocabulary]."""
    largest = logits.max(-1, keepdims=True)
    total = np.exp(logits - largest).sum(-1, dtype=np.float64)
    chosen = np.take_along_axis(logits - largest, following[:, None], -1)[:, 0].astype(np.float64)
    return np.asarray(np.log(total) - chosen)


def _read_preprocessing(folder: Path, text: DeviceText) -> TextPreprocessing:
    path = folder / text.tokenizer_file
    verify_file(path, text.tokenizer_sha256)
    return TextPreprocessing(path.read_text(encoding="utf-8"), text.separator, text.context)
