import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_export import TINY, save_tiny_personal, write_images

from personalization.data.images import ImagePreprocessing, pixel_array, to_pixel_values
from personalization.device import DEVICE_MANIFEST
from personalization.device.manifest import DeviceManifest
from personalization.device.predict import predict_files
from personalization.device.runtime import load_device_model, open_session, softmax
from personalization.errors import UserError
from personalization.export.export_model import export_folder

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """An export, as the bytes of its files: each test spoils a copy of its own."""
    base = tmp_path_factory.mktemp("device")
    out, images = base / "out", write_images(base / "images", 8)
    export_folder(save_tiny_personal(base / "personal"), images, out, precision="int8-dynamic")
    return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.fixture
def exported(made: dict[str, bytes], tmp_path: Path) -> Path:
    folder = tmp_path / "exported"
    folder.mkdir()
    for name, data in made.items():
        (folder / name).write_bytes(data)
    return folder


@given(
    shape=st.sampled_from([(8, 8), (8, 8, 3), (5, 13), (12, 7, 3)]),
    channels=st.sampled_from([1, 3]),
    samples=st.integers(0, 3),
    seed=st.integers(0, 99),
)
def test_pixels_on_the_device_are_those_that_torch_gets(shape, channels, samples, seed):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (samples, *shape), dtype=np.uint8)
    mean, std = rng.random(channels), 0.1 + rng.random(channels)
    preprocessing = ImagePreprocessing(height=8, width=8, channels=channels, mean=tuple(mean), std=tuple(std))
    values = pixel_array(images, preprocessing)
    assert values.dtype == np.float32
    assert torch.equal(torch.from_numpy(values), to_pixel_values(images, preprocessing))


@given(st.lists(st.lists(st.floats(-80, 80, width=32), min_size=3, max_size=3), min_size=1))
def test_softmax_is_that_of_torch(rows):
    logits = np.array(rows, np.float32)
    torch.testing.assert_close(torch.from_numpy(softmax(logits)), torch.from_numpy(logits).double().softmax(-1))


def test_a_manifest_comes_back_as_it_was_written(made):
    manifest = DeviceManifest.from_json(made[DEVICE_MANIFEST].decode(), "here")
    assert manifest.to_json().encode() == made[DEVICE_MANIFEST]
    assert manifest.preprocessing == TINY


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 99}, "newer"),
        ({"format": "1"}, "not the manifest"),
        ({"precision": "int4"}, "precision"),
        ({"model_file": "../model-0123456789abcdef.onnx"}, "model_file"),
        ({"labels": []}, "labels"),
        ({"labels": ["a", 2]}, "labels"),
        ({"check": {}}, "check"),
        ({"footprint": {"bytes": 1}}, "footprint"),
        ({"preprocessing": {}}, "preprocessing"),
        ({"more": 1}, "more"),
        ({"model_sha256": "0" * 64}, "hash"),
        ({"model_file": "model-0123456789abcdef.onnx"}, "No such file"),
    ],
)
def test_a_changed_manifest_is_one_line(change, words, exported):
    path = exported / DEVICE_MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=words) as caught:
        load_device_model(exported)
    assert str(exported) in str(caught.value) or "preprocessing" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "\x00"])
def test_a_manifest_that_is_none_is_refused(text, exported):
    (exported / DEVICE_MANIFEST).write_text(text)
    with pytest.raises(UserError, match=r"manifest|JSON"):
        load_device_model(exported)


def test_a_model_for_images_of_another_size_is_refused(exported):
    path = exported / DEVICE_MANIFEST
    record = json.loads(path.read_text())
    record["preprocessing"]["height"] = 9
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match="another size"):
        load_device_model(exported)


def test_a_changed_or_truncated_model_is_refused(exported):
    (path,) = exported.glob("*.onnx")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    for spoiled in (data, data[:-100]):
        path.write_bytes(spoiled)
        with pytest.raises(UserError, match="hash"):
            load_device_model(exported)


def test_what_is_no_model_and_no_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="no exported model"):
        predict_files(tmp_path, [])
    (tmp_path / "words.onnx").write_text("words")
    for name in ("words.onnx", "nowhere.onnx"):
        with pytest.raises(UserError, match="onnxruntime cannot run it"):
            open_session(tmp_path / name)


def test_an_image_that_cannot_be_read_is_named(exported, tmp_path):
    (tmp_path / "words.png").write_text("words")
    with pytest.raises(UserError, match=r"words\.png"):
        predict_files(exported, [tmp_path / "words.png"])


def test_peak_memory_is_that_of_the_process_itself():
    """What is held and freed counts; what the process that started this one holds does not."""
    code = """
from personalization.device.measurement import peak_memory
before = peak_memory()
b"x" * (64 << 20)
print(before, peak_memory())
"""
    ours = np.ones(256 << 20, dtype=np.uint8)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before < ours.nbytes
    assert before + (63 << 20) <= after < before + (96 << 20)
