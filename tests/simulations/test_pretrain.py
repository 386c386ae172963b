import json
from collections.abc import Iterator
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import ViTForImageClassification

import simulations.pretrain
from personalization.data.images import image_preprocessing, to_pixel_values
from personalization.model_files.backbone import model_identifier
from simulations.bundle import BUNDLE, CLASS_NAMES, FashionMnist
from simulations.pretrain import (
    MODEL_FOLDER,
    PretrainSettings,
    accuracy,
    augment,
    model_card,
    model_config,
    pretrain,
    to_pixels,
)

TINY = PretrainSettings(epochs=1, batch=8, threads=1)


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> FashionMnist:
    monkeypatch.setattr(simulations.pretrain, "held_out_of_training", lambda data: np.arange(len(data.train_labels)))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (42, 28, 28), dtype=np.uint8)
    labels = (np.arange(42) % 10).astype(np.uint8)
    return FashionMnist(images[:32], labels[:32], images[32:], labels[32:])


def random_pixels(samples: int, seed: int) -> Tensor:
    return torch.rand((samples, 1, 28, 28), generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tiny: FashionMnist) -> None:
    first, first_accuracy = pretrain(tiny, TINY)
    again, again_accuracy = pretrain(tiny, TINY)
    other, _ = pretrain(tiny, PretrainSettings(epochs=1, batch=8, threads=1, seed=1))
    assert model_identifier(first.state_dict()) == model_identifier(again.state_dict())
    assert model_identifier(first.state_dict()) != model_identifier(other.state_dict())
    assert first_accuracy == again_accuracy
    assert not first.training


def test_trained_weights_survive_half_precision(tiny: FashionMnist) -> None:
    model, _ = pretrain(tiny, TINY)
    for tensor in model.state_dict().values():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, tensor.half().float())


@given(samples=st.integers(1, 6), seed=st.integers(0, 999))
def test_augmentation_keeps_shape_and_range(samples: int, seed: int) -> None:
    pixels = random_pixels(samples, seed)
    before = pixels.clone()
    changed = augment(pixels, PretrainSettings(), torch.Generator().manual_seed(seed))
    assert changed.shape == pixels.shape
    assert changed.min() >= -1
    assert changed.max() <= 1
    assert torch.equal(pixels, before)


@given(seed=st.integers(0, 999))
def test_augmentation_only_moves_flips_and_erases(seed: int) -> None:
    pixels = random_pixels(4, seed)
    changed = augment(pixels, PretrainSettings(), torch.Generator().manual_seed(seed))
    for before, after in zip(pixels, changed, strict=True):
        visible = after[after > -1]
        assert torch.isin(visible, before).all()
        # At most 2 rows and 2 columns are shifted out, and a square of 8 x 8 is erased.
        assert len(visible) >= 26 * 26 - 64


def test_without_shift_and_erasing_only_flips_are_left() -> None:
    pixels = random_pixels(32, 0)
    plain = PretrainSettings(largest_shift=0, erased_share=0.0)
    changed = augment(pixels, plain, torch.Generator().manual_seed(0))
    flipped = [torch.equal(a, b.flip(-1)) for a, b in zip(changed, pixels, strict=True)]
    same = [torch.equal(a, b) for a, b in zip(changed, pixels, strict=True)]
    assert all(f != s for f, s in zip(flipped, same, strict=True))
    assert any(flipped)
    assert any(same)


def test_pixels_are_those_that_the_model_is_fed_later() -> None:
    images = np.arange(2 * 28 * 28, dtype=np.uint64).reshape(2, 28, 28).astype(np.uint8)
    preprocessing = image_preprocessing(model_config())
    assert preprocessing is not None
    assert torch.equal(to_pixels(images), to_pixel_values(images, preprocessing))


def test_accuracy_counts_right_answers(tiny: FashionMnist) -> None:
    model, _ = pretrain(tiny, TINY)
    pixels = to_pixels(tiny.test_images)
    with torch.inference_mode():
        answers = model(pixel_values=pixels).logits.argmax(-1)
    assert accuracy(model, pixels, answers) == 1.0
    assert accuracy(model, pixels, (answers + 1) % 10) == 0.0


def test_the_card_and_config_beside_the_checkpoint_tell_how_it_was_made() -> None:
    card = (MODEL_FOLDER / "README.md").read_text()
    assert "python -m simulations.pretrain" in card
    written = next(line for line in card.splitlines() if line.startswith("- Settings:"))
    assert json.loads(written[written.index("{") : written.index("}") + 1]) == asdict(PretrainSettings())
    config = json.loads((MODEL_FOLDER / "config.json").read_text())
    assert [config["id2label"][str(i)] for i in range(10)] == list(CLASS_NAMES)
    for key in ("hidden_size", "num_hidden_layers", "image_size", "patch_size", "num_channels"):
        assert config[key] == getattr(model_config(), key)


def test_the_bundled_model_is_as_accurate_on_the_bundled_images_as_its_card_says() -> None:
    card = (MODEL_FOLDER / "README.md").read_text()
    claimed = float(card.split("10,000 test images: ")[1].split()[0])
    model = ViTForImageClassification.from_pretrained(MODEL_FOLDER, dtype=torch.float32)
    with np.load(BUNDLE, allow_pickle=False) as bundle:
        found = accuracy(model, to_pixels(bundle["test_images"]), torch.from_numpy(bundle["test_labels"]).long())
    # The 2,000 bundled images are a fifth of those that the card counts, three sigmas are 0.02.
    assert claimed >= 0.88
    assert abs(found - claimed) < 0.02


def test_a_card_states_settings_images_and_accuracy() -> None:
    card = model_card(TINY, 47_000, 0.9123, 680_000)
    for text in ("47,000", "0.9123", "680,000", '"batch": 8', torch.__version__):
        assert text in card
