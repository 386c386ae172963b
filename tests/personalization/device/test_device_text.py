import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_export import save_tiny_personal, write_images
from tiny_text_export import save_tiny_speaker, write_text

from personalization.device import DEVICE_MANIFEST
from personalization.device.manifest import DeviceManifest, read_device_manifest
from personalization.device.predict import predict_files
from personalization.device.text import DeviceTextModel, predict_text, token_nats
from personalization.device.text_measurement import time_texts
from personalization.errors import UserError
from personalization.export.export_model import export_folder
from personalization.prediction.continuation import Generation

GREEDY = Generation(tokens=5)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """An export, as the bytes of its files: each test spoils a copy of its own."""
    base = tmp_path_factory.mktemp("speaker")
    export_folder(save_tiny_speaker(base / "personal"), write_text(base / "text"), base / "out", precision="fp32")
    return {path.name: path.read_bytes() for path in (base / "out").iterdir()}


@pytest.fixture
def exported(made: dict[str, bytes], tmp_path: Path) -> Path:
    folder = tmp_path / "exported"
    folder.mkdir()
    for name, data in made.items():
        (folder / name).write_bytes(data)
    return folder


def test_a_manifest_comes_back_as_it_was_written(made):
    manifest = DeviceManifest.from_json(made[DEVICE_MANIFEST].decode(), "here")
    assert manifest.to_json().encode() == made[DEVICE_MANIFEST]
    assert set(made) == {DEVICE_MANIFEST} | manifest.files


@pytest.mark.parametrize("suffix", [".onnx", ".json"])
def test_a_changed_or_missing_file_is_refused(suffix, exported):
    (name,) = [name for name in read_device_manifest(exported).files if name.endswith(suffix)]
    path = exported / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=f"{name}: its hash"):
        DeviceTextModel(exported)
    path.unlink()
    with pytest.raises(UserError, match="No such file"):
        DeviceTextModel(exported)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": ["a"]}, "labels"),
        ({"check": {}}, "check"),
        ({"footprint": {"bytes": 1}}, "footprint"),
        ({"preprocessing": {"tokenizer_file": "tokenizer.json"}}, "preprocessing"),
        ({"more": 1}, "more"),
    ],
)
def test_a_changed_manifest_is_one_line(change, words, exported):
    path = exported / DEVICE_MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=words):
        DeviceTextModel(exported)


@pytest.mark.parametrize(
    "change",
    [
        {"tokenizer_file": "../tokenizer-0123456789abcdef.json"},
        {"tokenizer_sha256": "00"},
        {"separator": -1},
        {"stops": [True]},
        {"stops": 0},
        {"context": 1},
        {"more": 1},
    ],
)
def test_a_changed_preprocessing_is_one_line(change, exported):
    path = exported / DEVICE_MANIFEST
    record = json.loads(path.read_text())
    record["preprocessing"] |= change
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match="preprocessing is not what was expected"):
        DeviceTextModel(exported)


def test_a_prompt_longer_than_the_context_is_one_line(exported):
    speaker = DeviceTextModel(exported)
    for prompt in ("", "river " * 70):
        with pytest.raises(UserError, match="at most 64 together") as caught:
            speaker.generate(prompt, GREEDY)
        assert "\n" not in str(caught.value)


def test_a_seed_draws_the_same_again(exported):
    speaker = DeviceTextModel(exported)
    drawn = [
        speaker.generate("the river", Generation(tokens=20, temperature=1.5, seed=seed, top_k=0)) for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    narrow = Generation(tokens=20, temperature=1.5, seed=1, top_k=1)
    assert speaker.generate("the river", narrow) == speaker.generate("the river", Generation(tokens=20))


def test_images_and_text_are_not_mixed_up(exported, tmp_path):
    image = tmp_path / "a.png"
    with pytest.raises(UserError, match="a language model"):
        predict_files(exported, [image])
    images = write_images(tmp_path / "images", 8)
    export_folder(save_tiny_personal(tmp_path / "vit"), images, tmp_path / "pictures", precision="fp32")
    with pytest.raises(UserError, match="not a language model"):
        predict_text(tmp_path / "pictures", prompt="the river", files=[], settings=GREEDY)
    model = read_device_manifest(tmp_path / "pictures")
    (exported / model.model_file).write_bytes((tmp_path / "pictures" / model.model_file).read_bytes())
    path = exported / DEVICE_MANIFEST
    own = {"model_file": model.model_file, "model_sha256": model.model_sha256}
    path.write_text(json.dumps(json.loads(path.read_text()) | own))
    with pytest.raises(UserError, match="takes no text"):
        DeviceTextModel(exported)


def test_nats_are_cross_entropies():
    rng = np.random.default_rng(0)
    logits, following = rng.normal(0, 5, (7, 11)).astype(np.float32), rng.integers(0, 11, 7)
    expected = -torch.from_numpy(logits).double().log_softmax(-1)[range(7), following]
    np.testing.assert_allclose(token_nats(logits, following), expected.numpy(), rtol=1e-5)


def test_runs_are_counted_without_the_first(exported):
    session = DeviceTextModel(exported)._device.session
    speeds = time_texts([session, session], prompt=9, steps=3, runs=2)
    assert [(len(speed.prompt), len(speed.steps)) for speed in speeds] == [(2, 2), (2, 2)]
    assert min(min(speed.prompt + speed.steps) for speed in speeds) > 0
