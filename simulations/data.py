"""The data that a simulated fleet shares out: bundled, an .npz file, idx files, or folders of images."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from personalization.data.image_data import (
    check_images,
    check_labels,
    class_folders,
    class_names,
    image_files,
    map_labels,
    read_class_folders,
    read_npz,
)
from personalization.data.images import ImagePreprocessing
from personalization.errors import UserError
from simulations.bundle import BUNDLE
from simulations.idx import read_idx

_NPZ_KEYS = ("train_images", "train_labels", "test_images", "test_labels")
_IDX_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@dataclass(frozen=True)
class ImageDataset:
    """Images as bytes [samples, h, w] or [samples, h, w, 3]; labels [samples] are the model's class indices.

    class_names are the model's, in the order of its logits. Where each client has a folder of its own, owners [samples]
    index client_names; otherwise they are None and client_names is empty.
    """

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    train_owners: NDArray[np.int64] | None = None
    test_owners: NDArray[np.int64] | None = None
    client_names: tuple[str, ...] = ()


def load_dataset(
    path: Path | None = None,
    *,
    labels: Sequence[str],
    preprocessing: ImagePreprocessing,
    natural: bool = False,
    test_share: float = 0.2,
    seed: int = 0,
) -> ImageDataset:
    """Load the data of a fleet: the bundled subset without a path, else an .npz file or a folder.

    An .npz has train_images, train_labels, test_images, test_labels and optionally class_names. A folder holds four idx
    files (gzip or not), or class folders (in train/ and test/, or else `test_share` of each class is drawn with `seed`
    for testing); with `natural`, one folder for each client, each with class folders. Images from folders are read into
    memory in the model's size.

    labels: names of the model's classes. Raises UserError that names what is missing, damaged or unknown.
    """
    if not 0.0 < test_share < 1.0:
        raise UserError(f"test share {test_share}: expected a share between 0 and 1")
    source = BUNDLE if path is None else path
    if natural and (path is None or not path.is_dir()):
        raise UserError(f"{source}: the natural partition needs --data, a folder with one folder for each client")
    if source.is_file() and source.suffix == ".npz":
        if path is None:
            _verify_bundle(source)
        return _from_npz(source, labels)
    if not source.is_dir():
        raise UserError(f"{source}: no such data; expected a folder or an .npz file")
    if natural:
        return _from_client_folders(source, labels, preprocessing, test_share, seed)
    if any("-ubyte" in file.name for file in source.iterdir()):
        return _from_idx(source, labels)
    split = _read_split(source, labels, preprocessing, test_share, np.random.default_rng(seed))
    return ImageDataset(*split, class_names=tuple(labels))


def _verify_bundle(path: Path) -> None:
    expected = json.loads(path.with_suffix(".json").read_text())["sha256"]
    if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
        raise UserError(f"{path}: the bundled data do not match their checksum; install fedsieve again")


def _from_npz(path: Path, labels: Sequence[str]) -> ImageDataset:
    arrays = read_npz(path, (*_NPZ_KEYS, "class_names"))
    names = class_names(arrays)
    images = [check_images(arrays.get(key), path, key) for key in ("train_images", "test_images")]
    values = [
        map_labels(check_labels(arrays.get(key), len(part), path, key), names, labels, path)
        for key, part in zip(("train_labels", "test_labels"), images, strict=True)
    ]
    return ImageDataset(images[0], values[0], images[1], values[1], tuple(labels))


def _from_idx(folder: Path, labels: Sequence[str]) -> ImageDataset:
    found = []
    for name in _IDX_NAMES:
        paths = [p for p in (folder / f"{name}.gz", folder / name) if p.is_file()]
        if not paths:
            raise UserError(f"{folder}: no {name} or {name}.gz; expected four idx files named like those of MNIST")
        found.append((paths[0], read_idx(paths[0])))
    (train_path, train), (train_y_path, train_y), (test_path, test), (test_y_path, test_y) = found
    train, test = check_images(train, train_path, "images"), check_images(test, test_path, "images")
    train_labels = check_labels(train_y, len(train), train_y_path, "labels")
    test_labels = check_labels(test_y, len(test), test_y_path, "labels")
    return ImageDataset(
        train,
        map_labels(train_labels, None, labels, train_y_path),
        test,
        map_labels(test_labels, None, labels, test_y_path),
        tuple(labels),
    )


_Split = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]


def _read_split(
    folder: Path, labels: Sequence[str], preprocessing: ImagePreprocessing, share: float, rng: np.random.Generator
) -> _Split:
    """Read class folders; return train images and labels, then test images and labels."""
    folders = {f.name: f for f in class_folders(folder)}
    if not folders:
        more = "; the images in it lie in no class folder" if image_files(folder) else ""
        raise UserError(f"{folder}: no class folders in it{more}; expected one folder of images for each class")
    if "train" in folders or "test" in folders:
        if set(folders) != {"train", "test"}:
            raise UserError(f"{folder}: has {', '.join(folders)}; expected train/ and test/ and nothing beside them")
        parts = [read_class_folders(folders[p], labels=labels, preprocessing=preprocessing) for p in ("train", "test")]
        train, test = parts
        assert train.labels is not None
        assert test.labels is not None
        return train.images, train.labels, test.images, test.labels
    everything = read_class_folders(folder, labels=labels, preprocessing=preprocessing)
    assert everything.labels is not None
    held_out = draw_test_samples(everything.labels, share, rng)
    if not held_out.any():
        raise UserError(f"{folder}: one image in each class; expected two or more, to train and to test")
    images, values = everything.images, everything.labels
    return images[~held_out], values[~held_out], images[held_out], values[held_out]


def draw_test_samples(labels: NDArray[np.int64], share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return which samples [samples] are for testing: `share` of each class, but 1 at least and never all of it."""
    held_out = np.zeros(len(labels), dtype=np.bool_)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        held_out[members[: min(max(round(share * len(members)), 1), len(members) - 1)]] = True
    return held_out


def _from_client_folders(
    folder: Path, labels: Sequence[str], preprocessing: ImagePreprocessing, share: float, seed: int
) -> ImageDataset:
    clients = class_folders(folder)
    if not clients:
        raise UserError(f"{folder}: no client folders in it; expected one folder for each client, with class folders")
    parts = [
        _read_split(client, labels, preprocessing, share, np.random.default_rng((seed, index)))
        for index, client in enumerate(clients)
    ]
    train_images, train_labels, test_images, test_labels = zip(*parts, strict=True)
    return ImageDataset(
        np.concatenate(train_images),
        np.concatenate(train_labels),
        np.concatenate(test_images),
        np.concatenate(test_labels),
        tuple(labels),
        train_owners=np.repeat(np.arange(len(clients)), [len(part) for part in train_labels]),
        test_owners=np.repeat(np.arange(len(clients)), [len(part) for part in test_labels]),
        client_names=tuple(client.name for client in clients),
    )
