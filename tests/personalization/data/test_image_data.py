from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from personalization.data.image_data import LabelledImages, load_images, map_labels, match_labels
from personalization.data.images import ImagePreprocessing
from personalization.errors import UserError

GREY = ImagePreprocessing(height=4, width=4, channels=1, mean=(0.5,), std=(0.5,))
LABELS = ("t-shirt", "ankle boot", "bag")


def save(path: Path, value: int, size: tuple[int, int] = (4, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)


def load(path: Path, labels: tuple[str, ...] = LABELS, preprocessing: ImagePreprocessing = GREY) -> LabelledImages:
    return load_images(path, labels=labels, preprocessing=preprocessing)


def test_a_flat_folder_has_no_labels_and_keeps_its_file_names(tmp_path: Path) -> None:
    for value, name in ((10, "b.png"), (20, "a.PNG"), (30, "c.bmp")):
        save(tmp_path / name, value)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / ".hidden.png").write_text("not an image")
    loaded = load(tmp_path)
    assert loaded.labels is None
    assert [file.name for file in loaded.files] == ["a.PNG", "b.png", "c.bmp"]
    assert loaded.images[:, 0, 0].tolist() == [20, 10, 30]


def test_class_folders_are_matched_by_label_or_number(tmp_path: Path) -> None:
    save(tmp_path / "Ankle_Boot" / "x.png", 1)
    save(tmp_path / "T SHIRT" / "x.png", 2)
    save(tmp_path / "2" / "x.png", 3)
    loaded = load(tmp_path)
    assert loaded.labels is not None
    assert dict(zip(loaded.images[:, 0, 0].tolist(), loaded.labels.tolist(), strict=True)) == {1: 1, 2: 0, 3: 2}


def test_sizes_and_channels_may_differ_within_a_folder(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 7, (9, 5))
    Image.new("RGB", (3, 8), (7, 7, 7)).save(tmp_path / "b.png")
    np.testing.assert_array_equal(load(tmp_path).images, np.full((2, 4, 4), 7))
    rgb = ImagePreprocessing(height=5, width=6)
    np.testing.assert_array_equal(load(tmp_path, preprocessing=rgb).images, np.full((2, 5, 6, 3), 7))


def test_arrays_with_and_without_labels(tmp_path: Path) -> None:
    images = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    np.savez(tmp_path / "plain.npz", images=images)
    assert load(tmp_path / "plain.npz").labels is None
    np.savez(tmp_path / "named.npz", images=images[..., None], labels=[0, 1, 0], class_names=["bag", "T-Shirt"])
    loaded = load(tmp_path / "named.npz")
    np.testing.assert_array_equal(loaded.images, images)
    assert loaded.labels is not None
    assert loaded.labels.tolist() == [2, 0, 2]


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"pictures": np.zeros((1, 4, 4), np.uint8)}, "no array images"),
        ({"images": np.zeros((1, 4, 4))}, "float64"),
        ({"images": np.zeros((0, 4, 4), np.uint8)}, r"\[0, 4, 4\]"),
        ({"images": np.zeros((4, 4), np.uint8)}, r"\[4, 4\]"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": np.zeros(3, int)}, "each of the 2 images"),
        ({"images": np.zeros((1, 4, 4), np.uint8), "labels": np.zeros(1)}, "whole number"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": np.array([1, 7])}, "doesn't know: 7;"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": np.array([-1, 2])}, "doesn't know: -1;"),
        (
            {"images": np.zeros((1, 4, 4), np.uint8), "labels": np.array([3]), "class_names": np.array(["bag"])},
            "only 1 class names",
        ),
        ({"images": np.array([[[None]]])}, "Python objects"),
    ],
)
def test_arrays_that_do_not_fit_are_explained(tmp_path: Path, arrays: dict[str, np.ndarray], expected: str) -> None:
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(UserError, match=expected):
        load(tmp_path / "data.npz")


@pytest.mark.parametrize("length", [0, 3, 60, 200])
def test_a_truncated_npz_is_named(tmp_path: Path, length: int) -> None:
    path = tmp_path / "data.npz"
    np.savez_compressed(path, images=np.zeros((3, 4, 4), np.uint8))
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=r"data\.npz: a damaged"):
        load(path)


def test_folders_without_sense_are_explained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such data folder"):
        load(tmp_path / "absent")
    with pytest.raises(UserError, match="no images in it"):
        load(tmp_path)
    (tmp_path / "bag").mkdir()
    with pytest.raises(UserError, match="bag: no images"):
        load(tmp_path)
    save(tmp_path / "bag" / "x.png", 1)
    save(tmp_path / "x.png", 1)
    with pytest.raises(UserError, match="images beside folders"):
        load(tmp_path)


def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    save(tmp_path / "good.png", 1)
    (tmp_path / "broken.png").write_bytes((tmp_path / "good.png").read_bytes()[:40])
    with pytest.raises(UserError, match=r"broken\.png"):
        load(tmp_path)


def test_labels_that_the_model_does_not_know_are_listed(tmp_path: Path) -> None:
    for name in ("bag", "hat", "7"):
        save(tmp_path / name / "x.png", 1)
    with pytest.raises(UserError, match="labels that the model doesn't know: 7, hat; it knows t-shirt"):
        load(tmp_path)
    with pytest.raises(UserError, match="it is no classifier"):
        match_labels(["bag"], (), tmp_path)


def test_a_label_that_is_a_number_comes_before_the_number(tmp_path: Path) -> None:
    assert match_labels(["1", "0"], ("1", "0"), tmp_path) == {"1": 0, "0": 1}


def test_labels_that_say_nothing_are_matched_by_number(tmp_path: Path) -> None:
    values = np.array([1, 0, 1])
    mapped = map_labels(values, ("coat", "hat"), ("LABEL_0", "LABEL_1"), tmp_path)
    np.testing.assert_array_equal(mapped, values)
    assert match_labels(["1"], ("LABEL_0", "LABEL_1"), tmp_path) == {"1": 1}


def test_only_classes_that_occur_must_be_known(tmp_path: Path) -> None:
    mapped = map_labels(np.array([2, 2]), ("hat", "scarf", "bag"), LABELS, tmp_path)
    assert mapped.tolist() == [2, 2]
