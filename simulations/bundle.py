"""Make the bundled subset of Fashion-MNIST from the full data set: `python -m simulations.bundle IDX_FOLDER`.

The subset is what simulated clients hold: balanced, seeded, and disjoint from what the bundled model was trained on
(`simulations.pretrain` leaves these images out, and every exact copy of them).
"""

import argparse
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simulations.idx import read_idx

ASSETS = Path(__file__).parent / "assets"
BUNDLE = ASSETS / "fashion_mnist_subset.npz"
CLASS_NAMES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
SEED = 20260101
TRAIN_PER_CLASS = 1200
TEST_PER_CLASS = 200


@dataclass(frozen=True)
class FashionMnist:
    """The full data set: images [samples, 28, 28] of bytes, labels [samples]."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]


def read_fashion_mnist(folder: Path) -> FashionMnist:
    """Read the four idx files (gzip or not) of a Fashion-MNIST folder."""

    def part(name: str) -> NDArray[np.uint8]:
        packed = folder / f"{name}.gz"
        return read_idx(packed if packed.exists() else folder / name)

    return FashionMnist(
        part("train-images-idx3-ubyte"),
        part("train-labels-idx1-ubyte"),
        part("t10k-images-idx3-ubyte"),
        part("t10k-labels-idx1-ubyte"),
    )


def balanced_indices(labels: NDArray[np.uint8], per_class: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return sorted indices of `per_class` samples of every class, drawn without replacement."""
    picks = [rng.choice(np.flatnonzero(labels == c), per_class, replace=False) for c in np.unique(labels)]
    return np.sort(np.concatenate(picks)).astype(np.int64)


def image_hashes(images: NDArray[np.uint8]) -> list[bytes]:
    """Return a SHA-256 digest for each image of [samples, height, width]."""
    return [hashlib.sha256(image.tobytes()).digest() for image in images]


def held_out_of_training(data: FashionMnist) -> NDArray[np.int64]:
    """Return the indices of training images that may be used for pre-training.

    Left out is every image that a client can hold, and every image of the same pixels (Fashion-MNIST repeats some).
    """
    train, _ = subset_indices(data)
    held = set(image_hashes(data.train_images[train])) | set(image_hashes(data.test_images))
    return np.array([i for i, h in enumerate(image_hashes(data.train_images)) if h not in held], dtype=np.int64)


def subset_indices(data: FashionMnist) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which training and which test images are bundled."""
    rng = np.random.default_rng(SEED)
    train = balanced_indices(data.train_labels, TRAIN_PER_CLASS, rng)
    return train, balanced_indices(data.test_labels, TEST_PER_CLASS, rng)


def write_bundle(data: FashionMnist, path: Path) -> str:
    """Write the subset as a compressed .npz and return the SHA-256 of its file."""
    train, test = subset_indices(data)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path,
        train_images=data.train_images[train],
        train_labels=data.train_labels[train],
        test_images=data.test_images[test],
        test_labels=data.test_labels[test],
        train_source_index=train.astype(np.uint16),
        test_source_index=test.astype(np.uint16),
        class_names=np.array(CLASS_NAMES),
    )
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    """Write the bundle and the note that says where it comes from."""
    parser = argparse.ArgumentParser(description="Make the bundled Fashion-MNIST subset from the full data set.")
    parser.add_argument("folder", type=Path, help="folder with the four idx files of Fashion-MNIST")
    parser.add_argument("--out", type=Path, default=BUNDLE, help="file to write (default: the bundled one)")
    arguments = parser.parse_args()
    digest = write_bundle(read_fashion_mnist(arguments.folder), arguments.out)
    source = {
        "name": "Fashion-MNIST subset",
        "file": arguments.out.name,
        "sha256": digest,
        "train_images": TRAIN_PER_CLASS * len(CLASS_NAMES),
        "test_images": TEST_PER_CLASS * len(CLASS_NAMES),
        "seed": SEED,
        "source": "https://github.com/zalandoresearch/fashion-mnist (Debian package dataset-fashion-mnist)",
        "licence": "MIT, Copyright (c) 2017 Zalando SE, https://tech.zalando.com",
        "command": "python -m simulations.bundle /usr/share/datasets/fashion-mnist",
    }
    arguments.out.with_suffix(".json").write_text(json.dumps(source, indent=2) + "\n")
    print(f"{arguments.out}: sha256 {digest}")


if __name__ == "__main__":
    main()
