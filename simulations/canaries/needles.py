"""What is looked for: canaries, private images and text in every encoding, names of private files and classes."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from personalization.data.image_data import class_folders, image_files, read_npz
from personalization.data.images import read_image
from personalization.data.texts import TEXT_SUFFIXES, TextPreprocessing, read_texts, text_files
from personalization.errors import UserError
from personalization.model_files.backbone import read_tokenizer
from simulations.canaries.encodings import encodings, png
from simulations.canaries.images import canary_clients, canary_image
from simulations.canaries.texts import canary_text, text_encodings, token_encodings

# Of many private images so many are looked for, evenly spread, and of a large one so many pixels from its middle.
MOST_IMAGES, MOST_PIXELS = 64, 1 << 12
SHORTEST_WORD = 5
# Letters of a passage of text, and of the shortest that is one.
PASSAGE, SHORTEST_PASSAGE = 400, 100
_FILE_MARGIN = 64


@dataclass(frozen=True)
class Needle:
    """Something to look for. name: whose it is. forms: how it may be written, the bytes of one value, and it itself.

    noise: the pixels [values] of a planted image, which are found under any scale and offset too. planted: whether it
    is a canary. natural: whether it is text that somebody wrote, of which a few words in a row could be anybody's.
    word: a name.
    """

    name: str
    forms: list[tuple[str, int, bytes]] = field(default_factory=list)
    noise: list[NDArray[np.float32]] = field(default_factory=list)
    planted: bool = False
    natural: bool = False
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
    return Needle(name, forms, [values.astype(np.float32) for values in pixels] if noise else [], planted=noise)


def sentence_needle(name: str, text: str, preprocessing: TextPreprocessing) -> Needle:
    """Return what to look for of a canary sentence: its letters, and its tokens for the model's tokenizer."""
    tokens = preprocessing.encode(text)
    return Needle(name, [*text_encodings(text), *token_encodings(tokens, preprocessing)], planted=True)


def passage_needle(name: str, text: str) -> Needle:
    """Return what to look for of a passage that somebody wrote. Its tokens depend on the model, and are left out."""
    return Needle(name, list(text_encodings(text)), natural=True)


def canary_needles(settings: Mapping[str, Any]) -> list[Needle]:
    """Return the canaries of a simulated run, by what its journal remembers of its settings.

    Beside them the names of its classes, or of its speakers.
    """
    canaries, clients = int(settings.get("canaries", 0)), int(settings["min-nodes"])
    shape = _image_shape(settings)
    preprocessing = None if shape else read_tokenizer(str(settings["model"]))
    if preprocessing is not None:
        return [
            sentence_needle(f"canary of client {client}", canary_text(int(settings["seed"]), client), preprocessing)
            for client in (canary_clients(clients, canaries) if canaries else ())
        ] + _words(_speaker_names(settings), "speaker")
    needles = [
        image_needle(f"canary of client {client}", canary_image(int(settings["seed"]), client, shape), noise=True)
        for client in canary_clients(clients, canaries)
    ]
    return needles + _words(_class_names(Path(str(settings["model"]))), "class name")


def private_needles(data: Path) -> list[Needle]:
    """Return a device's own images or text: a folder of text, or of images, class folders, or an .npz.

    Raises UserError if there are none. Of text, passages are looked for that are spread evenly. An image without 16
    different pixels in a row somewhere can't be told from others and is not looked for.
    """
    if data.suffix == ".npz" and data.is_file():
        arrays = read_npz(data, ("images",)).get("images")
        if arrays is None:
            raise UserError(f"{data}: no array images")
        chosen = _spread(len(arrays))
        return [image_needle(f"image {n} of {data.name}", _middle(arrays[n]), noise=False) for n in chosen]
    if _is_text(data):
        return [passage_needle(f"passage {number} of {name}", text) for number, name, text in _passages(data)]
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
    if _is_text(data):
        return _words([file.stem for file in text_files(data)], "file name")
    names = [file.stem for file in _files(data)]
    return _words(names, "file name") + _words([folder.name for folder in class_folders(data)], "class name")


def _words(names: list[str], what: str) -> list[Needle]:
    return [Needle(f"{what} {name}", word=name) for name in dict.fromkeys(names) if len(name) >= SHORTEST_WORD]


def _is_text(data: Path) -> bool:
    return data.is_dir() and any(file.suffix.lower() in TEXT_SUFFIXES for file in data.iterdir())


def _passages(data: Path) -> Iterator[tuple[int, str, str]]:
    """Yield number, file name and letters of passages of private text, evenly spread over all of it."""
    texts = [(file.name, text) for file in text_files(data) for text in read_texts(file)]
    starts = [(name, text[at : at + PASSAGE]) for name, text in texts for at in range(0, len(text), PASSAGE)]
    whole = [(name, text) for name, text in starts if len(text) >= SHORTEST_PASSAGE]
    for number in _spread(len(whole)):
        yield number, *whole[number]


def _speaker_names(settings: Mapping[str, Any]) -> list[str]:
    data = Path(str(settings.get("data") or ""))
    return [folder.name for folder in class_folders(data)] if settings.get("data") and data.is_dir() else []


def _files(data: Path) -> list[Path]:
    if not data.is_dir():
        raise UserError(f"{data}: no such data folder or .npz file")
    files = image_files(data) + [file for folder in class_folders(data) for file in image_files(folder)]
    if not files:
        raise UserError(f"{data}: no images in it and no text; expected the device's own data")
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
