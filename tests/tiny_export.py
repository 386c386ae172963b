"""A tiny personal model, some private images, and its export: what the tests of devices start from."""

from pathlib import Path

import numpy as np
from conftest import make_tiny_vit
from PIL import Image

from personalization.cutting.cut_model import cut_model
from personalization.data.images import ImagePreprocessing
from personalization.model_files.storage import save_personal_model
from personalization.transformer.layers import find_layers

TINY = ImagePreprocessing(height=8, width=8, channels=1, mean=(0.5,), std=(0.25,))
LABELS = ("a", "b", "c")


def write_images(folder: Path, count: int = 24, seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        # Of several sizes and modes, so that they have to be fitted.
        size = (8, 8) if number % 2 else (11, 9, 3)
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(folder / f"{number:03}.png")
    return folder


def save_tiny_personal(folder: Path, *, share: float = 0.5, seed: int = 0) -> Path:
    model = make_tiny_vit(seed)
    layers = find_layers(model)
    kept = [np.arange(round(share * layer.units)) for layer in layers]
    cut = cut_model(model, layers, kept)
    save_personal_model(folder, cut, layers=layers, kept=kept, labels=LABELS, preprocessing=TINY.to_dict())
    return folder
