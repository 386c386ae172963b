"""Read images that somebody keeps: a folder of images, a folder of class folders, or an .npz file of arrays."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from personalization.data.images import ImagePreprocessing, fit_image, read_image
from personalization.errors import UserError
from personalization.system.arrays import ArrayFileError, read_arrays

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_SHOWN = 8
_UNNAMED = re.compile(r"LABEL_\d+")


@dataclass(frozen=True)
class LabelledImages:
    """Images as bytes [samples, h, w] or [samples, h, w, 3], and what is known of them.

    labels [samples] are indices of the model's classes, or None; files says where each image comes from and is empty
    for arrays.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    files: tuple[Path, ...] = ()


def load_images(path: Path, *, labels: Sequence[str], preprocessing: ImagePreprocessing) -> LabelledImages:
    """Load one device's images from a flat folder (no labels), class folders, or an .npz of `images` (and `labels`).

    labels: names of the model's classes. Images from folders come in the model's size. Raises UserError that names what
    is missing, empty, can't be decoded or isn't known to the model.
    """
    if path.suffix == ".npz" and path.is_file():
        return _from_npz(path, labels)
    if not path.is_dir():
        raise UserError(f"{path}: no such data folder or .npz file")
    files, folders = image_files(path), class_folders(path)
    if files and folders:
        raise UserError(f"{path}: images beside folders ({folders[0].name}); expected either images or class folders")
    if folders:
        return read_class_folders(path, labels=labels, preprocessing=preprocessing)
    if not files:
        raise UserError(f"{path}: no images in it; expected files like .png or .jpg, or class folders of them")
    return LabelledImages(read_images(files, preprocessing), None, tuple(files))


def read_class_folders(folder: Path, *, labels: Sequence[str], preprocessing: ImagePreprocessing) -> LabelledImages:
    """Read a folder with one folder of images for each class, named like the model's class or numbered from 0.

    Raises UserError if there is none, one is empty, or the model has no such class.
    """
    folders = class_folders(folder)
    if not folders:
        raise UserError(f"{folder}: no class folders in it; expected one folder of images for each class")
    known = match_labels([f.name for f in folders], labels, folder)
    files, classes = [], []
    for class_folder in folders:
        found = image_files(class_folder)
        if not found:
            raise UserError(f"{class_folder}: no images in it; expected files like .png or .jpg")
        files += found
        classes += [known[class_folder.name]] * len(found)
    return LabelledImages(read_images(files, preprocessing), np.array(classes, dtype=np.int64), tuple(files))


def class_folders(folder: Path) -> list[Path]:
    """Return the folders in `folder`, sorted by name, without hidden ones."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def image_files(folder: Path) -> list[Path]:
    """Return the files in `folder` with the suffix of an image format, sorted by name, without hidden ones."""
    return sorted(
        p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file() and not p.name.startswith(".")
    )


def holds_images(path: Path) -> bool:
    """Say whether `path` is a file, such as an .npz, or a folder with images in it or in a folder of it."""
    if not path.is_dir():
        return path.is_file()
    return bool(image_files(path)) or any(image_files(folder) for folder in class_folders(path))


def read_images(files: Sequence[Path], preprocessing: ImagePreprocessing) -> NDArray[np.uint8]:
    """Read files of any sizes as bytes in the model's: [files, height, width], or [files, height, width, 3] for RGB."""
    shape = (len(files), preprocessing.height, preprocessing.width)
    images = np.empty(shape if preprocessing.channels == 1 else (*shape, 3), dtype=np.uint8)
    for row, file in enumerate(files):
        images[row] = fit_image(read_image(file), preprocessing)
    return images


def match_labels(names: Sequence[str], labels: Sequence[str], source: Path) -> dict[str, int]:
    """Return the model's class index for each name: its label, whatever the case and - _ or space, or its number.

    Raises UserError that lists the names which the model doesn't know.
    """
    known = {_key(label): index for index, label in reversed(list(enumerate(labels)))}
    numbers = {name: int(name) for name in names if name.isdecimal() and int(name) < len(labels)}
    matched = {name: known.get(_key(name), numbers.get(name)) for name in names}
    unknown = [name for name, index in matched.items() if index is None]
    if unknown:
        raise UserError(
            f"{source}: labels that the model doesn't know: {_shown(unknown)}; it knows "
            f"{_shown(labels) if labels else 'none: it is no classifier'}"
        )
    return {name: index for name, index in matched.items() if index is not None}


def map_labels(
    values: NDArray[np.int64], names: Sequence[str] | None, labels: Sequence[str], source: Path
) -> NDArray[np.int64]:
    """Return numbers [samples], which count `names` if there are any, as the model's class indices [samples].

    Only classes that occur must be known. Numbers stay as they are if the model's labels say nothing (LABEL_0 and on).
    """
    present = [int(v) for v in np.unique(values)]
    if names is not None and any(not 0 <= v < len(names) for v in present):
        raise UserError(f"{source}: labels from {present[0]} to {present[-1]}, but only {len(names)} class names")
    spoken = names is not None and not all(_UNNAMED.fullmatch(label) for label in labels)
    said = {v: names[v] if spoken and names is not None else str(v) for v in present}
    known = match_labels(list(said.values()), labels if spoken else [str(i) for i in range(len(labels))], source)
    table = np.array([known[said[v]] for v in present], dtype=np.int64)
    return table[np.searchsorted(np.array(present), values)] if present else values


def read_npz(path: Path, keys: Sequence[str]) -> dict[str, NDArray[np.generic]]:
    """Return those arrays of an .npz file that are among `keys`. Raises UserError if it is damaged or holds objects."""
    try:
        return read_arrays(path, keys)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (OSError, ArrayFileError) as error:
        raise UserError(f"{path}: a damaged .npz file, or one that holds Python objects; write it again") from error


def check_images(images: NDArray[np.generic] | None, source: Path, key: str) -> NDArray[np.uint8]:
    """Return `images` as bytes [samples, h, w] or [samples, h, w, 3], or raise UserError that says what they are."""
    if images is None:
        raise UserError(f"{source}: no array {key}")
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    fits = images.ndim == 3 or (images.ndim == 4 and images.shape[-1] == 3)
    if images.dtype != np.uint8 or not fits or 0 in images.shape:
        raise UserError(
            f"{source}: {key} is {images.dtype} {list(images.shape)}; expected bytes [samples, h, w] or "
            "[samples, h, w, 3], one sample at least"
        )
    return images.astype(np.uint8, copy=False)


def check_labels(labels: NDArray[np.generic] | None, samples: int, source: Path, key: str) -> NDArray[np.int64]:
    """Return `labels` as int64 [samples], or raise UserError that says what they are."""
    if labels is None:
        raise UserError(f"{source}: no array {key}")
    if labels.dtype.kind not in "iu" or labels.shape != (samples,):
        raise UserError(
            f"{source}: {key} is {labels.dtype} {list(labels.shape)}; expected one whole number for each of the "
            f"{samples} images"
        )
    return labels.astype(np.int64)


def _from_npz(path: Path, labels: Sequence[str]) -> LabelledImages:
    arrays = read_npz(path, ("images", "labels", "class_names"))
    images = check_images(arrays.get("images"), path, "images")
    if "labels" not in arrays:
        return LabelledImages(images, None)
    values = check_labels(arrays["labels"], len(images), path, "labels")
    return LabelledImages(images, map_labels(values, class_names(arrays), labels, path))


def class_names(arrays: dict[str, NDArray[np.generic]]) -> tuple[str, ...] | None:
    """Return the array `class_names` of an .npz file as text, or None if it has none."""
    return tuple(map(str, arrays["class_names"].reshape(-1))) if "class_names" in arrays else None


def _key(label: str) -> str:
    return re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", label.strip()).casefold()


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
