"""What a model that is in memory sees on image files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from personalization.data.image_data import read_images
from personalization.data.images import to_pixel_values
from personalization.data.texts import TextPreprocessing
from personalization.errors import UserError
from personalization.model_files.source_model import SourceModel

_BATCH = 64


def predict_images(source: SourceModel, files: Sequence[Path]) -> list[dict[str, Any]]:
    """Return file, class and probability for each image file.

    Raises UserError that says what can't be read, or that the model takes no images.
    """
    preprocessing = source.preprocessing
    if isinstance(preprocessing, TextPreprocessing):
        raise UserError(f"{source.name}: a language model; give it --prompt, or files of text to score")
    if preprocessing is None or not source.labels:
        raise UserError(f"{source.name}: not an image classifier; predict takes models of images and of text")
    images = read_images(files, preprocessing)
    predictions = []
    for start in range(0, len(files), _BATCH):
        batch = to_pixel_values(images[start : start + _BATCH], preprocessing)
        with torch.inference_mode():
            probabilities, classes = source.model(pixel_values=batch).logits.softmax(-1).max(-1)
        predictions += [
            {"file": str(file), "class": source.labels[int(index)], "probability": float(probability)}
            for file, index, probability in zip(files[start:], classes, probabilities, strict=False)
        ]
    return predictions
