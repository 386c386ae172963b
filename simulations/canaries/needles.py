"""What is looked for: canaries and private images in every encoding, names of private files and classes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from personalization.errors import UserError
from personalization.image_data import class_folders, image_files, read_npz
from personalization.images import read_image
from simulations.canaries.encodings import encodings, png
from simulations.canaries.images import canary_clients, canary_image

# Of many private images so many are looked for, evenly spread, and of a large one so many pixels from its middle.
MOST_IMAGES, MOST_PIXELS = 64, 1 << 12
SHORTEST_WORD = 5
_FILE_MARGIN = 64


@dataclass(frozen=True)
class Needle:
    """Something to look for. name: whose it is. forms: how it may be written, the bytes of one value, and it itself.

    noise: the pixels [values] of a planted canary, which are found under any scale and offset too. word: a name.
    """

    name: str
    forms: list[tuple[str, int, bytes]] = field(default_factory=list)
    noise: list[NDArray[np.float32]] = field(default_factory=list)
    word: str = ""


def image_needle(name: str, image: NDArray[np.uint8], *, noise: bool, file: bytes = b"") -> Needle:
    """Return what to look for of an image. noise: whether its pixels are independent, as a canary's are.

    file: the bytes of the file that it comes from, if there is one.
    """
    forms = list(encodings(image))
    if noise:
        forms.append(("PNG", 1, png(image)[41:-_FILE_MARGIN]))  # what comes before is the same in every PNG file
    if len(file) > 4 * _FILE_MARGIN:
        forms.append(("file", 1, file[len(file) // 2 : -_FILE_MARGIN]))
    pixels = [image.ravel(), image.swapaxes(0, 1).ravel()]
    pixels += [image[:, :, channel].ravel() for channel in range(image.shape[2])] if image.ndim == 3 else []
    return Needle(name, forms, [values.astype(np.float32) for values in pixels] if noise else [])


def canary_needles(settings: Mapping[str, Any]) -> list[Needle]:
    """Return the canaries of a simulated run, by what its journal remembers of its settings; and its classes' names."""
    canaries, clients = int(settings.get("canaries", 0)), int(settings["min-nodes"])
    shape = _image_shape(settings)
    needles = [
        image_needle(f"canary of client {client}", canary_image(int(settings["seed"]), client, shape), noise=True)
        for client in canary_clients(clients, canaries)
    ]
    return needles + _words(_class_names(Path(str(settings["model"]))), "class name")


def private_needles(data: Path) -> list[Needle]:
    """Return a device's own images: a folder of images, class folders, or an .npz. Raises UserError if there are none.

    An image without 16 different pixels in a row somewhere can't be told from others and is not looked for.
    """
    if data.suffix == ".npz" and data.is_file():
        arrays = read_npz(data, ("images",)).get("images")
        if arrays is None:
            raise UserError(f"{data}: no array images")
        chosen = _spread(len(arrays))
        return [image_needle(f"image {n} of {data.name}", _middle(arrays[n]), noise=False) for n in chosen]
    files = _files(data)
    needles = []
    for number in _spread(len(files)):
        image = _middle(read_image(files[number]))
        needles.append(image_needle(files[number].name, image, noise=False, file=files[number].read_bytes()))
    return needles


def word_needles(data: Path) -> list[Needle]:
    """Return the names of a device's private files and classes; those of fewer than 5 letters could be anything."""
    if not data.is_dir():
        return []
    names = [file.stem for file in _files(data)]
    return _words(names, "file name") + _words([folder.name for folder in class_folders(data)], "class name")


def _words(names: list[str], what: str) -> list[Needle]:
    return [Needle(f"{what} {name}", word=name) for name in dict.fromkeys(names) if len(name) >= SHORTEST_WORD]


def _files(data: Path) -> list[Path]:
    if not data.is_dir():
        raise UserError(f"{data}: no such data folder or .npz file")
    files = image_files(data) + [file for folder in class_folders(data) for file in image_files(folder)]
    if not files:
        raise UserError(f"{data}: no images in it; expected the device's own data")
    return files


def _spread(count: int) -> list[int]:
    return [number * count // min(count, MOST_IMAGES) for number in range(min(count, MOST_IMAGES))]


def _middle(image: NDArray[Any]) -> NDArray[np.uint8]:
    rows = max(1, min(len(image), MOST_PIXELS // image.shape[1]))
    first = (len(image) - rows) // 2
    return np.ascontiguousarray(image[first : first + rows], dtype=np.uint8)


def _image_shape(settings: Mapping[str, Any]) -> tuple[int, ...]:
    shape = settings.get("canary-shape", "")
    return tuple(int(size) for size in str(shape).split("x")) if shape else ()


def _class_names(model: Path) -> list[str]:
    config = model / "config.json"
    if not config.is_file():
        return []
    labels = json.loads(config.read_text()).get("id2label", {})
    return [str(label) for label in labels.values()]
