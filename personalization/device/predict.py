"""Say what an exported model sees on image files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from personalization.data.image_data import read_images
from personalization.data.images import ImagePreprocessing, pixel_array
from personalization.device.runtime import load_device_model, run_session, softmax
from personalization.errors import UserError


def predict_files(folder: Path, files: Sequence[Path]) -> list[dict[str, Any]]:
    """Return file, class and probability for each image file.

    Raises UserError that names the model or the image which can't be read; nothing is predicted before all are read.
    """
    device = load_device_model(folder)
    preprocessing, labels = device.manifest.preprocessing, device.manifest.labels
    if not isinstance(preprocessing, ImagePreprocessing):
        raise UserError(f"{folder}: a language model; give it --prompt, or files of text to score")
    images = read_images(files, preprocessing)
    predictions = []
    for file, image in zip(files, images, strict=True):
        (probabilities,) = softmax(run_session(device.session, pixel_array(image[None], preprocessing)))
        best = int(probabilities.argmax())
        predictions.append({"file": str(file), "class": labels[best], "probability": float(probabilities[best])})
    return predictions
