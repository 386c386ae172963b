"""What a personal model that is in memory sees on image files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from personalization.errors import UserError
from personalization.image_data import read_images
from personalization.images import ImagePreprocessing, to_pixel_values
from personalization.storage import LoadedPersonalModel

_BATCH = 64


def predict_images(loaded: LoadedPersonalModel, files: Sequence[Path], *, source: str) -> list[dict[str, Any]]:
    """Return file, class and probability for each image file.

    source: names the model in errors. Raises UserError that says what can't be read, or that it takes no images.
    """
    manifest = loaded.manifest
    if manifest.preprocessing is not None and "tokenizer" in manifest.preprocessing:
        raise UserError(f"{source}: a language model; give it --prompt, or files of text to score")
    if manifest.preprocessing is None or not manifest.labels:
        raise UserError(f"{source}: not an image classifier; predict takes personal models of images")
    preprocessing = ImagePreprocessing.from_dict(manifest.preprocessing)
    images = read_images(files, preprocessing)
    predictions = []
    for start in range(0, len(files), _BATCH):
        batch = to_pixel_values(images[start : start + _BATCH], preprocessing)
        with torch.inference_mode():
            probabilities, classes = loaded.model(pixel_values=batch).logits.softmax(-1).max(-1)
        predictions += [
            {"file": str(file), "class": manifest.labels[int(index)], "probability": float(probability)}
            for file, index, probability in zip(files[start:], classes, probabilities, strict=False)
        ]
    return predictions
