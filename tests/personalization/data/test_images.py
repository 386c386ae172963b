import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import BertConfig, ViTConfig

from personalization.data.images import (
    ImagePreprocessing,
    fit_image,
    image_preprocessing,
    read_image,
    to_pixel_values,
)
from personalization.errors import UserError

GREY = ImagePreprocessing(height=6, width=5, channels=1, mean=(0.5,), std=(0.5,))
RGB = ImagePreprocessing(height=6, width=5, channels=3, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))


def picture(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@given(samples=st.integers(0, 4), seed=st.integers(0, 99))
def test_default_scale_is_byte_over_127_5_minus_1_bit_for_bit(samples: int, seed: int) -> None:
    images = picture(samples, 6, 5, seed=seed)
    expected = torch.from_numpy(images.astype(np.float32) / 127.5 - 1.0).unsqueeze(1)
    values = to_pixel_values(images, GREY)
    assert values.dtype == torch.float32
    assert torch.equal(values, expected)


@given(seed=st.integers(0, 99))
def test_rgb_channels_get_their_own_mean_and_std(seed: int) -> None:
    images = picture(3, 6, 5, 3, seed=seed)
    expected = (images / 255.0 - np.array(RGB.mean)) / np.array(RGB.std)
    np.testing.assert_allclose(to_pixel_values(images, RGB).numpy(), expected.transpose(0, 3, 1, 2), atol=1e-5)


def test_grey_becomes_three_equal_channels_and_back() -> None:
    grey = picture(2, 6, 5)
    same = ImagePreprocessing(height=6, width=5)
    values = to_pixel_values(grey, same)
    assert values.shape == (2, 3, 6, 5)
    assert torch.equal(values[:, 0], values[:, 2])
    rgb = np.repeat(grey[..., None], 3, axis=-1)
    assert torch.equal(to_pixel_values(rgb, GREY), to_pixel_values(grey, GREY))


def test_other_sizes_are_resized_and_a_flat_image_stays_flat() -> None:
    values = to_pixel_values(np.full((2, 13, 9), 255, np.uint8), GREY)
    assert values.shape == (2, 1, 6, 5)
    assert torch.equal(values, torch.ones_like(values))


def test_resizing_one_by_one_is_resizing_the_batch() -> None:
    images = picture(3, 11, 7, 3)
    fitted = np.stack([fit_image(image, RGB) for image in images])
    assert torch.equal(to_pixel_values(images, RGB), to_pixel_values(fitted, RGB))


def test_an_image_that_fits_is_not_copied() -> None:
    image = picture(6, 5)
    assert fit_image(image, GREY) is image


def test_arrays_of_another_rank_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[samples, h, w\]"):
        to_pixel_values(picture(6, 5), GREY)


def test_png_round_trip_keeps_bytes_and_channels(tmp_path: Path) -> None:
    for image in (picture(6, 5), picture(6, 5, 3)):
        Image.fromarray(image).save(tmp_path / "image.png")
        np.testing.assert_array_equal(read_image(tmp_path / "image.png"), image)


def test_sixteen_bit_grey_keeps_its_upper_byte(tmp_path: Path) -> None:
    image = picture(6, 5)
    Image.fromarray(image.astype(np.uint16) * 256 + 77).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png"), image)


@pytest.mark.parametrize("mode", ["1", "LA", "P", "RGBA", "CMYK"])
def test_every_common_mode_is_read_as_grey_or_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    Image.fromarray(picture(6, 5, 3)).convert(mode).save(path)
    shape = (6, 5) if mode in ("1", "LA") else (6, 5, 3)
    image = read_image(path)
    assert image.shape == shape
    assert image.dtype == np.uint8


def test_the_rotation_that_a_camera_noted_is_applied(tmp_path: Path) -> None:
    image = Image.fromarray(picture(6, 5))
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees
    image.save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png"), np.rot90(np.asarray(image), -1))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tif"])
def test_a_file_cut_anywhere_is_named_in_one_line(tmp_path: Path, suffix: str) -> None:
    whole = tmp_path / f"whole.{suffix}"
    Image.fromarray(picture(32, 32)).save(whole)
    raw = whole.read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    for length in (0, 1, 10, len(raw) // 4, len(raw) // 2):
        cut.write_bytes(raw[:length])
        with pytest.raises(UserError, match=rf"cut\.{suffix}") as caught:
            read_image(cut)
        assert "\n" not in str(caught.value)


def test_what_is_not_there_and_what_is_no_image_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such image file"):
        read_image(tmp_path / "absent.png")
    (tmp_path / "words.png").write_text("words")
    with pytest.raises(UserError, match=r"words\.png: not an image"):
        read_image(tmp_path / "words.png")


def test_the_config_gives_size_and_channels() -> None:
    config = ViTConfig(image_size=[6, 5], num_channels=1)
    assert image_preprocessing(config) == GREY
    assert image_preprocessing(BertConfig()) is None


def test_the_processor_comes_before_the_config() -> None:
    processor = {
        "size": {"shortest_edge": 256},
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    }
    found = image_preprocessing(ViTConfig(image_size=518), processor)
    assert found is not None
    assert (found.height, found.width) == (224, 224)
    np.testing.assert_allclose(found.mean, processor["image_mean"])
    assert image_preprocessing(ViTConfig(), {"size": 32}) == ImagePreprocessing(height=32, width=32)


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        ({"do_normalize": False}, 1.0),
        ({"do_rescale": False, "do_normalize": False}, 255.0),
        ({"rescale_factor": 1 / 127.5, "do_normalize": False}, 2.0),
        ({"rescale_factor": 1 / 127.5, "image_mean": 1.0, "image_std": [1.0]}, 1.0),
    ],
)
def test_scale_and_normalization_of_the_processor_are_folded(processor: dict[str, object], expected: float) -> None:
    found = image_preprocessing(ViTConfig(image_size=4, num_channels=1), processor)
    assert found is not None
    white = to_pixel_values(np.full((1, 4, 4), 255, np.uint8), found)
    torch.testing.assert_close(white, torch.full_like(white, expected))


@pytest.mark.parametrize(
    "processor", [{"size": {"height": 3}}, {"size": "wide"}, {"image_std": 0.0}, {"image_mean": []}]
)
def test_a_processor_without_sense_is_refused(processor: dict[str, object]) -> None:
    with pytest.raises(UserError):
        image_preprocessing(ViTConfig(), processor)


def test_a_manifest_keeps_every_field() -> None:
    assert ImagePreprocessing.from_dict(json.loads(json.dumps(RGB.to_dict()))) == RGB


@pytest.mark.parametrize(
    "change",
    [{"height": 0}, {"channels": 2}, {"mean": [0.5]}, {"std": [1, 0, 1]}, {"std": [1, "inf", 1]}, {"width": None}],
)
def test_a_manifest_without_sense_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(UserError):
        ImagePreprocessing.from_dict({**RGB.to_dict(), **change})
