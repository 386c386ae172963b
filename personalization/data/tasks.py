"""What kind of data a model is for: images or text. Whoever loads private samples or predicts asks here."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from personalization.data.images import ImagePreprocessing
from personalization.data.texts import WINDOW_TOKENS, WINDOWS, TextPreprocessing
from personalization.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from personalization.data.texts import Tokens
    from personalization.training.loop import TrainingData
    from personalization.transformer.trace import Inputs

TaskName = Literal["image", "text"]
Preprocessing = ImagePreprocessing | TextPreprocessing

FEWEST_WINDOWS = 8


@dataclass(frozen=True, kw_only=True)
class TextBatch:
    """How much of a device's text makes its private batch: at most `windows` of `tokens` each."""

    windows: int = WINDOWS
    tokens: int = WINDOW_TOKENS

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        if self.windows < FEWEST_WINDOWS or self.tokens < 2:
            raise UserError(
                f"{self.windows} windows of {self.tokens} tokens: expected {FEWEST_WINDOWS} or more of 2 or more"
            )


@dataclass(frozen=True)
class PrivateSamples:
    """What never leaves a device, as a model takes it. inputs: its arguments, each [samples, ...]. labels: [samples] or
    None; of text the next tokens, [samples, positions]. training: all that there is to train on, where these are a part
    of it.
    """

    inputs: "dict[str, Tensor]"
    labels: "Tensor | None"
    training: "TrainingData | None" = None

    @property
    def count(self) -> int:
        """Number of samples."""
        return len(next(iter(self.inputs.values())))

    def fingerprint(self) -> bytes:
        """Return 32 bytes that tell these inputs from others: what was measured on other inputs is no use here."""
        digest = hashlib.sha256()
        for name, values in sorted(self.inputs.items()):
            digest.update(f"{name} {values.dtype} {list(values.shape)}\n".encode())
            digest.update(values.contiguous().numpy().tobytes())
        return digest.digest()


def task_of(preprocessing: Preprocessing) -> TaskName:
    """Return the task of a model with this preprocessing."""
    return "text" if isinstance(preprocessing, TextPreprocessing) else "image"


def preprocessing_from_dict(record: Mapping[str, Any]) -> Preprocessing:
    """Return what the `to_dict` of either preprocessing wrote. Raises UserError."""
    return TextPreprocessing.from_dict(record) if "tokenizer" in record else ImagePreprocessing.from_dict(record)


def check_task(
    preprocessing: Preprocessing | None, labels: Sequence[str], *, wanted: str | None, model: str
) -> Preprocessing:
    """Return the preprocessing of a model that can be personalized: an image classifier or a language model.

    wanted: the task that was asked for; None takes the model's. Raises UserError that names `model`.
    """
    if wanted is not None and wanted not in get_args(TaskName):
        raise UserError(f"task {wanted!r}: expected one of {', '.join(get_args(TaskName))}")
    if preprocessing is None or (task_of(preprocessing) == "image" and not labels):
        speaks = "a causal language model with its tokenizer.json"
        kinds = {"image": "an image classifier", "text": speaks}
        expected = kinds[wanted] if wanted else f"an image classifier, such as ViTForImageClassification, or {speaks}"
        raise UserError(f"{model}: neither classifies images nor comes with a tokenizer; expected {expected}")
    if wanted is not None and wanted != task_of(preprocessing):
        instead = {
            "text": "give a language model, such as --model smollm2 after `make llm`",
            "image": "leave --task out",
        }
        found = task_of(preprocessing)
        raise UserError(f"{model}: a model of the task {found}, but --task {wanted} was asked for; {instead[wanted]}")
    return preprocessing


def check_batch(batch: TextBatch, preprocessing: Preprocessing) -> None:
    """Raise UserError if it was said how much text to take, and the model takes images."""
    if batch != TextBatch() and isinstance(preprocessing, ImagePreprocessing):
        raise UserError("images, so there are no windows of text; leave out --windows and --window-tokens")


def load_samples(
    path: Path, preprocessing: Preprocessing, *, labels: Sequence[str], batch: TextBatch
) -> PrivateSamples:
    """Load one device's private samples: a folder or .npz of images, or a folder of text. Raises UserError."""
    check_kind(path, task_of(preprocessing))
    if isinstance(preprocessing, TextPreprocessing):
        return text_samples(load_windows(path, preprocessing, batch.tokens), most=batch.windows)
    import torch

    from personalization.data.image_data import load_images
    from personalization.data.images import to_pixel_values

    images = load_images(path, labels=labels, preprocessing=preprocessing)
    known = None if images.labels is None else torch.from_numpy(images.labels)
    return PrivateSamples({"pixel_values": to_pixel_values(images.images, preprocessing)}, known)


def check_kind(path: Path, task: TaskName) -> None:
    """Raise UserError if `path` holds the data of another task and none of this one."""
    from personalization.data.image_data import holds_images
    from personalization.data.texts import holds_text

    if task == "text" and path.is_dir() and not holds_text(path) and holds_images(path):
        raise UserError(f"{path}: images, but the model reads text; expected a folder with .txt or .jsonl files")
    if task == "image" and not holds_images(path) and holds_text(path):
        raise UserError(f"{path}: text, but the model sees images; expected a folder of images, or class folders")


def load_windows(path: Path, preprocessing: TextPreprocessing, length: int) -> "Tokens":
    """Return windows [windows, length + 1] of the text in a folder. Raises UserError if there is none, or little."""
    from personalization.data.texts import read_windows, text_files

    return read_windows(text_files(path), preprocessing, length=length, fewest=FEWEST_WINDOWS, source=path)


def text_samples(found: "Tokens", *, most: int | None = None) -> PrivateSamples:
    """Return windows [windows, length + 1] as what a model reads, and as labels the next token at each position.

    Of more than `most`, as many are taken, evenly spread; all of them are there to train on.
    """
    import torch

    from personalization.data.texts import spread
    from personalization.training.loop import TrainingData

    def samples(windows: "Tokens") -> tuple["dict[str, Tensor]", "Tensor"]:
        tokens = torch.from_numpy(windows)
        return {"input_ids": tokens[:, :-1].contiguous()}, tokens[:, 1:].contiguous()

    chosen = found if most is None else spread(found, most)
    return PrivateSamples(*samples(chosen), TrainingData(*samples(found)) if len(chosen) < len(found) else None)


def all_windows(samples: PrivateSamples) -> "Tokens":
    """Return all windows [windows, length + 1] that samples of text were made from, in the order of the text."""
    everything = samples.training
    if everything is None:
        return windows_of(samples.inputs, samples.labels)
    return windows_of(everything.inputs, everything.labels)


def windows_of(inputs: "Inputs", labels: "Tensor | None") -> "Tokens":
    """Return the windows [windows, length + 1] that inputs and labels of text were made from."""
    import numpy as np

    assert labels is not None
    return np.concatenate([inputs["input_ids"].numpy(), labels[:, -1:].numpy()], axis=1)
