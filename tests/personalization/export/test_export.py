import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from tiny_export import LABELS, TINY, save_tiny_personal, write_images

from personalization.device import DEVICE_MANIFEST
from personalization.device.manifest import read_device_manifest
from personalization.device.predict import predict_files
from personalization.errors import UserError
from personalization.export import export_model, image_export
from personalization.export.export_model import export_folder
from personalization.export.image_export import compare
from simulations.device import predict_files as predict_with_torch


@pytest.fixture
def personal(tmp_path: Path) -> Path:
    return save_tiny_personal(tmp_path / "personal")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("precision", ["fp32", "int8-dynamic", "int8-static"])
def test_an_export_predicts_what_torch_predicts(precision, personal, images, tmp_path):
    out = tmp_path / "out"
    manifest = export_folder(personal, images, out, precision=precision)
    assert read_device_manifest(out) == manifest
    assert (manifest.labels, manifest.preprocessing, manifest.precision) == (LABELS, TINY, precision)
    assert set(files(out)) == {DEVICE_MANIFEST, manifest.model_file}
    data = (out / manifest.model_file).read_bytes()
    assert manifest.model_sha256 == hashlib.sha256(data).hexdigest()
    assert manifest.personal == json.loads((personal / "manifest.json").read_text())["weights_sha256"]

    check, footprint = manifest.check, manifest.footprint
    assert footprint.bytes == len(data)
    assert footprint.latency_ms > 0
    assert 1 << 20 < footprint.runtime_memory_bytes <= footprint.peak_memory_bytes
    paths = sorted(images.iterdir())
    ours, theirs = predict_files(out, paths), predict_with_torch(personal, paths)
    assert check.samples == len(paths)
    assert sum(a["class"] != b["class"] for a, b in zip(ours, theirs, strict=True)) == check.disagreements
    tolerance = check.difference + 1e-5
    for a, b in zip(ours, theirs, strict=True):
        assert a["file"] == b["file"]
        assert a["probability"] == pytest.approx(b["probability"], abs=tolerance)


def test_the_next_export_takes_the_place_of_the_old_one(personal, images, tmp_path):
    out = tmp_path / "out"
    first = export_folder(personal, images, out, precision="fp32")
    second = export_folder(personal, images, out, precision="int8-dynamic")
    assert first.model_file != second.model_file
    assert set(files(out)) == {DEVICE_MANIFEST, second.model_file}


def spoil_check(monkeypatch):
    monkeypatch.setattr(image_export, "FP32_DIFFERENCE", -1.0)


def spoil_measurement(monkeypatch):
    def refuse(path):
        raise UserError("its footprint could not be measured")

    monkeypatch.setattr(export_model, "measure_device_footprint", refuse)


def spoil_disk(monkeypatch):
    whole = export_model.write_atomically

    def full(path, data, **settings):
        if path.name == DEVICE_MANIFEST:
            raise OSError(28, "No space left on device")
        whole(path, data, **settings)

    monkeypatch.setattr(export_model, "write_atomically", full)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(spoil_check, "too far"), (spoil_measurement, "measured"), (spoil_disk, "No space left")],
)
def test_what_fails_leaves_the_old_export_as_it_was(spoil, words, personal, images, tmp_path, monkeypatch):
    out = tmp_path / "out"
    export_folder(personal, images, out, precision="fp32")
    before = files(out)
    other = save_tiny_personal(tmp_path / "other", seed=1)
    spoil(monkeypatch)
    with pytest.raises(UserError, match=words):
        export_folder(other, images, out, precision="fp32")
    assert files(out) == before


def test_thresholds_count_classes_and_probabilities():
    reference = np.tile(np.array([[2.0, 0.0]], np.float32), (40, 1))
    exported = reference.copy()
    assert compare(reference, exported, "fp32").passed
    exported[:2] = [0.0, 0.1]
    check = compare(reference, exported, "int8-static")
    assert (check.disagreements, check.disagreements_allowed) == (2, 2)
    assert check.difference == pytest.approx(1 / (1 + np.exp(-2)) - 1 / (1 + np.exp(0.1)))
    assert not check.passed, "the classes would do, the probabilities do not"
    near = np.tile(np.array([[0.1, 0.0]], np.float32), (40, 1))
    turned = near.copy()
    turned[:3] = [0.0, 0.1]
    assert not compare(near, turned, "int8-dynamic").passed
    assert compare(near, np.concatenate([turned[:2], near[2:]]), "int8-dynamic").passed
    assert not compare(near, np.concatenate([turned[:1], near[1:]]), "fp32").passed
    assert compare(near[:8], np.concatenate([turned[:1], near[1:8]]), "int8-dynamic").passed, "one of a few always may"


def test_a_model_that_says_nothing_finite_is_refused():
    reference = np.zeros((3, 2), np.float32)
    check = compare(reference, np.full_like(reference, np.nan), "int8-dynamic")
    assert not check.passed
    json.loads(json.dumps(check.difference, allow_nan=False))


def test_refuses_folders_that_hold_something_else(personal, images, tmp_path):
    for out in (images, personal):
        before = files(out)
        with pytest.raises(UserError, match="something else"):
            export_folder(personal, images, out, precision="fp32")
        assert files(out) == before
    with pytest.raises(UserError, match="no personal model"):
        export_folder(images, images, tmp_path / "out", precision="fp32")
    assert not (tmp_path / "out").exists()
