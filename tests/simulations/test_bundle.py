import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from simulations.bundle import (
    BUNDLE,
    CLASS_NAMES,
    TEST_PER_CLASS,
    TRAIN_PER_CLASS,
    FashionMnist,
    balanced_indices,
    held_out_of_training,
    image_hashes,
    read_fashion_mnist,
    subset_indices,
    write_bundle,
)

FULL = Path("/usr/share/datasets/fashion-mnist")
NOTE = json.loads(BUNDLE.with_suffix(".json").read_text())


def synthetic(train_per_class: int = TRAIN_PER_CLASS + 100) -> FashionMnist:
    rng = np.random.default_rng(0)
    train_labels = rng.permutation(np.repeat(np.arange(10, dtype=np.uint8), train_per_class))
    test_labels = np.repeat(np.arange(10, dtype=np.uint8), TEST_PER_CLASS + 5)
    pixels = rng.integers(0, 256, (len(train_labels) + len(test_labels), 28, 28), dtype=np.uint8)
    return FashionMnist(pixels[: len(train_labels)], train_labels, pixels[len(train_labels) :], test_labels)


def test_the_bundled_file_is_the_one_that_the_note_describes() -> None:
    assert hashlib.sha256(BUNDLE.read_bytes()).hexdigest() == NOTE["sha256"]
    assert NOTE["file"] == BUNDLE.name
    assert "MIT" in NOTE["licence"]


def test_the_bundled_subset_is_balanced_and_of_the_right_size() -> None:
    with np.load(BUNDLE, allow_pickle=False) as bundle:
        assert bundle["train_images"].shape == (NOTE["train_images"], 28, 28) == (12_000, 28, 28)
        assert bundle["test_images"].shape == (NOTE["test_images"], 28, 28) == (2_000, 28, 28)
        assert bundle["train_images"].dtype == bundle["test_images"].dtype == np.uint8
        assert np.bincount(bundle["train_labels"]).tolist() == [TRAIN_PER_CLASS] * 10
        assert np.bincount(bundle["test_labels"]).tolist() == [TEST_PER_CLASS] * 10
        assert tuple(bundle["class_names"]) == CLASS_NAMES
        assert len(np.unique(bundle["train_source_index"])) == 12_000


def test_balanced_indices_are_sorted_distinct_and_even() -> None:
    labels = np.random.default_rng(1).integers(0, 4, 400).astype(np.uint8)
    picked = balanced_indices(labels, 30, np.random.default_rng(2))
    assert (np.diff(picked) > 0).all()
    assert np.bincount(labels[picked]).tolist() == [30] * 4
    np.testing.assert_array_equal(picked, balanced_indices(labels, 30, np.random.default_rng(2)))


def test_pretraining_sees_no_client_image_and_no_copy_of_one() -> None:
    data = synthetic()
    bundled, bundled_test = subset_indices(data)
    free = np.setdiff1d(np.arange(len(data.train_images)), bundled)
    np.testing.assert_array_equal(held_out_of_training(data), free)
    # Plant copies of a bundled image, of a bundled test image and of a test image that is not bundled.
    beside = np.setdiff1d(np.arange(len(data.test_images)), bundled_test)[0]
    data.train_images[free[0]] = data.train_images[bundled[7]]
    data.train_images[free[1]] = data.test_images[bundled_test[3]]
    data.train_images[free[2]] = data.test_images[beside]
    # A copy of another free image may stay: no client holds either.
    data.train_images[free[3]] = data.train_images[free[4]]
    np.testing.assert_array_equal(held_out_of_training(data), free[3:])


def test_the_bundle_that_is_written_holds_what_it_says(tmp_path: Path) -> None:
    data = synthetic()
    path = tmp_path / "new" / "bundle.npz"
    assert write_bundle(data, path) == hashlib.sha256(path.read_bytes()).hexdigest()
    train, test = subset_indices(data)
    with np.load(path, allow_pickle=False) as bundle:
        np.testing.assert_array_equal(bundle["train_images"], data.train_images[train])
        np.testing.assert_array_equal(bundle["test_labels"], data.test_labels[test])
        np.testing.assert_array_equal(bundle["train_source_index"], train)
    with zipfile.ZipFile(path) as archive:  # no clock in it: the same bytes whenever it is made
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.skipif(not FULL.is_dir(), reason="needs the full Fashion-MNIST (Debian package dataset-fashion-mnist)")
def test_no_bundled_image_is_among_those_of_pretraining() -> None:
    data = read_fashion_mnist(FULL)
    train, test = subset_indices(data)
    used = set(image_hashes(data.train_images[held_out_of_training(data)]))
    with np.load(BUNDLE, allow_pickle=False) as bundle:
        np.testing.assert_array_equal(bundle["train_images"], data.train_images[train])
        np.testing.assert_array_equal(bundle["test_images"], data.test_images[test])
        assert not used & set(image_hashes(bundle["train_images"]))
        assert not used & set(image_hashes(bundle["test_images"]))
