import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import simulations.data
from personalization.data.images import ImagePreprocessing
from personalization.errors import UserError
from simulations.bundle import BUNDLE, CLASS_NAMES
from simulations.data import ImageDataset, draw_test_samples, load_dataset

GREY = ImagePreprocessing(height=4, width=4, channels=1, mean=(0.5,), std=(0.5,))
LABELS = ("hat", "bag", "shoe")


def load(path: Path | None, labels: tuple[str, ...] = LABELS, **options: object) -> ImageDataset:
    return load_dataset(path, labels=labels, preprocessing=GREY, **options)


def save_class(folder: Path, values: range) -> None:
    folder.mkdir(parents=True)
    for value in values:
        Image.new("L", (4, 4), value).save(folder / f"{value}.png")


def values(images: np.ndarray) -> set[int]:
    return set(images[:, 0, 0].tolist())


def write_idx(path: Path, array: np.ndarray) -> None:
    raw = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


def test_the_bundled_data_are_those_of_the_file() -> None:
    dataset = load(None, CLASS_NAMES)
    assert dataset.train_images.shape == (12_000, 28, 28)
    assert dataset.test_images.shape == (2_000, 28, 28)
    assert np.bincount(dataset.train_labels).tolist() == [1200] * 10
    with np.load(BUNDLE) as bundle:
        np.testing.assert_array_equal(dataset.train_labels, bundle["train_labels"])
    assert dataset.train_owners is None


def test_class_numbers_follow_the_order_of_the_model() -> None:
    forward, backward = load(None, CLASS_NAMES), load(None, CLASS_NAMES[::-1])
    np.testing.assert_array_equal(forward.train_labels, 9 - backward.train_labels)


def test_a_model_of_other_classes_is_refused() -> None:
    with pytest.raises(UserError, match="labels that the model doesn't know: t-shirt, trouser"):
        load(None)


def test_a_bundle_of_another_checksum_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / BUNDLE.name
    shutil.copy(BUNDLE, copy)
    note = json.loads(BUNDLE.with_suffix(".json").read_text())
    copy.with_suffix(".json").write_text(json.dumps({**note, "sha256": "0" * 64}))
    monkeypatch.setattr(simulations.data, "BUNDLE", copy)
    with pytest.raises(UserError, match="checksum"):
        load(None, CLASS_NAMES)


def test_npz_of_anybody(tmp_path: Path) -> None:
    arrays = {
        "train_images": np.zeros((3, 5, 5, 3), np.uint8),
        "train_labels": np.array([0, 1, 1], np.uint8),
        "test_images": np.zeros((1, 5, 5, 3), np.uint8),
        "test_labels": np.array([1]),
    }
    np.savez(tmp_path / "data.npz", **arrays)
    dataset = load(tmp_path / "data.npz")
    assert dataset.train_labels.tolist() == [0, 1, 1]
    assert dataset.train_labels.dtype == np.int64
    for missing in arrays:
        np.savez(tmp_path / "less.npz", **{k: v for k, v in arrays.items() if k != missing})
        with pytest.raises(UserError, match=f"no array {missing}"):
            load(tmp_path / "less.npz")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    parts = {}
    for name, samples in (("train", 6), ("t10k", 3)):
        parts[name] = rng.integers(0, 256, (samples, 4, 4), dtype=np.uint8), rng.integers(0, 3, samples)
        write_idx(tmp_path / f"{name}-images-idx3-ubyte{suffix}", parts[name][0])
        write_idx(tmp_path / f"{name}-labels-idx1-ubyte{suffix}", parts[name][1])
    dataset = load(tmp_path)
    np.testing.assert_array_equal(dataset.train_images, parts["train"][0])
    np.testing.assert_array_equal(dataset.test_labels, parts["t10k"][1])
    write_idx(tmp_path / f"t10k-labels-idx1-ubyte{suffix}", np.array([0, 1, 9]))
    with pytest.raises(UserError, match="doesn't know: 9;"):
        load(tmp_path)
    (tmp_path / f"t10k-labels-idx1-ubyte{suffix}").unlink()
    with pytest.raises(UserError, match="no t10k-labels-idx1-ubyte"):
        load(tmp_path)


def test_class_folders_are_split_by_seed_class_by_class(tmp_path: Path) -> None:
    save_class(tmp_path / "hat", range(10))
    save_class(tmp_path / "shoe", range(20, 25))
    dataset = load(tmp_path)
    assert np.bincount(dataset.test_labels).tolist() == [2, 0, 1]
    assert values(dataset.train_images) | values(dataset.test_images) == {*range(10), *range(20, 25)}
    assert not values(dataset.train_images) & values(dataset.test_images)
    np.testing.assert_array_equal(dataset.test_images, load(tmp_path).test_images)
    half = load(tmp_path, test_share=0.5)
    assert np.bincount(half.test_labels).tolist() == [5, 0, 2]
    assert len({tuple(sorted(values(load(tmp_path, seed=s).test_images))) for s in range(8)}) > 1


def test_train_and_test_folders_are_kept_apart(tmp_path: Path) -> None:
    save_class(tmp_path / "train" / "bag", range(3))
    save_class(tmp_path / "test" / "bag", range(5, 7))
    dataset = load(tmp_path)
    assert values(dataset.train_images) == {0, 1, 2}
    assert values(dataset.test_images) == {5, 6}
    save_class(tmp_path / "hat", range(1))
    with pytest.raises(UserError, match="nothing beside them"):
        load(tmp_path)


def test_one_folder_a_client(tmp_path: Path) -> None:
    save_class(tmp_path / "zoe" / "bag", range(4))
    save_class(tmp_path / "zoe" / "hat", range(4, 8))
    save_class(tmp_path / "amy" / "train" / "shoe", range(10, 12))
    save_class(tmp_path / "amy" / "test" / "shoe", range(12, 13))
    dataset = load(tmp_path, natural=True)
    assert dataset.client_names == ("amy", "zoe")
    assert dataset.train_owners is not None
    assert dataset.test_owners is not None
    assert values(dataset.train_images[dataset.train_owners == 0]) == {10, 11}
    assert values(dataset.test_images[dataset.test_owners == 0]) == {12}
    assert len(values(dataset.train_images[dataset.train_owners == 1])) == 6
    assert set(dataset.test_labels[dataset.test_owners == 1].tolist()) == {0, 1}


def test_missing_and_empty_data_are_explained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such data"):
        load(tmp_path / "absent")
    with pytest.raises(UserError, match="no class folders"):
        load(tmp_path)
    with pytest.raises(UserError, match="no client folders"):
        load(tmp_path, natural=True)
    with pytest.raises(UserError, match="one folder for each client"):
        load(None, natural=True)
    with pytest.raises(UserError, match="test share"):
        load(tmp_path, test_share=1.0)
    Image.new("L", (4, 4)).save(tmp_path / "x.png")
    with pytest.raises(UserError, match="lie in no class folder"):
        load(tmp_path)
    (tmp_path / "x.png").unlink()
    save_class(tmp_path / "bag", range(1))
    with pytest.raises(UserError, match="two or more"):
        load(tmp_path)
    (tmp_path / "bag" / "0.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"0\.png: not an image"):
        load(tmp_path)


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=60), share=st.floats(0.01, 0.99), seed=st.integers(0, 99)
)
def test_every_class_keeps_some_to_train_and_gives_some_to_test(labels: list[int], share: float, seed: int) -> None:
    array = np.array(labels, dtype=np.int64)
    held_out = draw_test_samples(array, share, np.random.default_rng(seed))
    for label in np.unique(array):
        members, tested = int((array == label).sum()), int(held_out[array == label].sum())
        assert tested < members
        assert tested > 0 or members == 1
        assert abs(tested - share * members) <= 1
