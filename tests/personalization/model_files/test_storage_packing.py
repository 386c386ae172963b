import dataclasses

import pytest
import torch
from safetensors.torch import save

from personalization.cutting.cut_model import cut_model
from personalization.errors import UserError
from personalization.model_files.storage import (
    load_personal_model,
    pack_personal_model,
    save_personal_model,
    stored_bytes,
    stored_tensors,
    unpack_personal_model,
    write_personal_model,
)
from personalization.transformer.layers import find_layers
from tests.personalization.architectures import ARCHITECTURES, Shape, build, logits, random_kept


@pytest.fixture
def cut():
    case = build("vit", Shape(), 0)
    layers = find_layers(case.model)
    kept = random_kept(layers, 0, 0.3)
    return case, layers, kept, cut_model(case.model, layers, kept)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_packed_and_saved_models_are_the_same(cut, tmp_path, dtype):
    case, layers, kept, model = cut
    packed = pack_personal_model(model, layers=layers, kept=kept, dtype=dtype)
    save_personal_model(tmp_path / "saved", model, layers=layers, kept=kept, dtype=dtype)
    write_personal_model(tmp_path / "written", packed)
    for folder in (tmp_path / "saved", tmp_path / "written"):
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == packed.files()
    unpacked, loaded = unpack_personal_model(packed), load_personal_model(tmp_path / "saved")
    assert unpacked.manifest == loaded.manifest == packed.manifest
    assert torch.equal(logits(unpacked.model, case.inputs), logits(loaded.model, case.inputs))


def test_the_manifest_is_written_last(cut):
    _, layers, kept, model = cut
    packed = pack_personal_model(model, layers=layers, kept=kept)
    assert list(packed.files()) == [packed.manifest.weights_file, "manifest.json"]


def test_weights_that_were_changed_or_cut_short_are_refused(cut):
    _, layers, kept, model = cut
    packed = pack_personal_model(model, layers=layers, kept=kept)
    for weights in (packed.weights[:-1], packed.weights[:-1] + bytes([packed.weights[-1] ^ 1]), b""):
        with pytest.raises(UserError, match="save the"):
            unpack_personal_model(dataclasses.replace(packed, weights=weights))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_size_of_a_file_is_known_without_writing_it(name):
    model = build(name, Shape(), 0).model
    model.register_buffer("counts", torch.arange(7))
    model.register_buffer("mask", torch.ones(3, dtype=torch.bool))
    for dtype in ("float32", "float16"):
        assert stored_bytes(model, dtype) == len(save(stored_tensors(model, dtype)[0]))


def test_a_size_takes_no_copy_of_the_weights():
    with torch.device("meta"):
        model = torch.nn.Linear(2**16, 2**16)
    assert 0 < stored_bytes(model) - 4 * (2**32 + 2**16) < 200
