import errno
import hashlib
import json
import os
import stat
import tempfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn

from personalization.cutting.cut_model import cut_model, folded_writers
from personalization.cutting.gates import unit_means
from personalization.errors import UserError
from personalization.model_files.storage import load_personal_model, read_manifest, save_personal_model
from personalization.system import files
from personalization.transformer.layers import find_layers
from tests.personalization.architectures import ARCHITECTURES, DECODERS, Shape, build, logits, random_kept, shapes

SHAPE = Shape()
every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)


def personal(name, shape=SHAPE, seed=0, drop=0.3):
    """Return a case, its layers, kept units and the model that was cut with means folded."""
    case = build(name, shape, seed)
    layers = find_layers(case.model)
    kept = random_kept(layers, seed, drop)
    means = unit_means(case.model, layers, case.inputs)
    return case, layers, kept, cut_model(case.model, layers, kept, folded_writers(case.model, layers, kept, means))


def kinds(model):
    """Paths and names of the classes of all modules; a plain ViT is built from classes of the same names."""
    return [(path, type(module).__name__.replace("GELUActivation", "GELU")) for path, module in model.named_modules()]


def weights_file(folder):
    (path,) = folder.glob("*.safetensors")
    return path


def edit_manifest(folder, **fields):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.fixture
def saved(tmp_path):
    case, layers, kept, model = personal("vit")
    folder = tmp_path / "model"
    save_personal_model(folder, model, layers=layers, kept=kept)
    return case, model, folder


@every_architecture
@settings(max_examples=5)
@given(shape=shapes(), seed=st.integers(0, 10**6))
def test_save_and_load_is_exact(name, shape, seed):
    case, layers, kept, model = personal(name, shape, seed)
    with tempfile.TemporaryDirectory() as folder:
        manifest = save_personal_model(folder, model, layers=layers, kept=kept, extra={"seed": seed})
        loaded = load_personal_model(folder)
        assert torch.equal(logits(loaded.model, case.inputs), logits(model, case.inputs))
        assert loaded.manifest == manifest
    assert kinds(loaded.model) == kinds(model)
    assert not loaded.model.training


@every_architecture
@pytest.mark.parametrize("writers", [False, True], ids=["dense", "refitted"])
def test_a_model_of_which_nothing_or_everything_was_cut_is_exact(name, writers, tmp_path):
    case = build(name)
    layers = find_layers(case.model)
    for number, keep in enumerate((True, False)):
        kept = [np.arange(layer.units if keep else 0) for layer in layers]
        refitted = {
            layer.index: (torch.randn(SHAPE.width, layer.columns_per_unit * len(units)), None)
            for layer, units in zip(layers, kept, strict=True)
        }
        model = cut_model(case.model, layers, kept, refitted if writers else {})
        folder = tmp_path / str(number)
        save_personal_model(folder, model, layers=layers, kept=kept)
        assert torch.equal(logits(load_personal_model(folder).model, case.inputs), logits(model, case.inputs))


def test_eager_attention_stays_eager(tmp_path):
    case = build("llama")
    case.model.set_attn_implementation("eager")
    layers = find_layers(case.model)
    kept = random_kept(layers, 0)
    model = cut_model(case.model, layers, kept)
    save_personal_model(tmp_path, model, layers=layers, kept=kept)
    loaded = load_personal_model(tmp_path).model
    assert loaded.config._attn_implementation == "eager"
    assert torch.equal(logits(loaded, case.inputs), logits(model, case.inputs))


@pytest.mark.parametrize("name", DECODERS)
def test_a_loaded_decoder_generates_the_same(name, tmp_path):
    case, layers, kept, model = personal(name, seed=3)
    model.generation_config.max_new_tokens = 6
    save_personal_model(tmp_path, model, layers=layers, kept=kept)
    loaded = load_personal_model(tmp_path).model
    prompt = case.inputs["input_ids"]
    assert torch.equal(loaded.generate(prompt, do_sample=False), model.generate(prompt, do_sample=False))
    assert loaded.generate(prompt, do_sample=False).shape[1] == 7 + 6


@pytest.mark.parametrize("name", ["gpt2", "qwen2"])
def test_tied_embeddings_are_stored_once_and_loaded_tied(name, tmp_path):
    _, layers, kept, model = personal(name)
    manifest = save_personal_model(tmp_path, model, layers=layers, kept=kept)
    loaded = load_personal_model(tmp_path).model
    assert loaded.get_input_embeddings().weight is loaded.get_output_embeddings().weight
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert 4 * parameters < manifest.weights_bytes < 4 * parameters + 100 * len(list(model.parameters())) + 1000


def test_half_precision_halves_the_weights_and_loads_as_float32(saved, tmp_path):
    _, layers, kept, model = personal("vit", Shape(head=16, mlp=64))
    full = save_personal_model(tmp_path / "full", model, layers=layers, kept=kept)
    half = save_personal_model(tmp_path / "half", model, layers=layers, kept=kept, dtype="float16")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert full.weights_bytes - half.weights_bytes == pytest.approx(2 * parameters, abs=100)
    loaded = load_personal_model(tmp_path / "half").model
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.half().float())


def test_loading_leaves_the_global_random_state_alone(saved):
    _, _, folder = saved
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_personal_model(folder)
    assert torch.equal(torch.rand(3), expected)


def test_manifest_keeps_what_was_given(tmp_path):
    _, layers, kept, model = personal("vit")
    save_personal_model(
        tmp_path,
        model,
        layers=layers,
        kept=kept,
        backbone="tiny/vit",
        labels=["shoe", "chemise à carreaux"],
        preprocessing={"height": 8, "mean": [0.5]},
        extra={"footprint": {"macs": 10}},
    )
    manifest = read_manifest(tmp_path)
    assert manifest.backbone == "tiny/vit"
    assert manifest.labels == ("shoe", "chemise à carreaux")
    assert manifest.preprocessing == {"height": 8, "mean": [0.5]}
    assert manifest.extra == {"footprint": {"macs": 10}}
    assert [list(record.kept) for record in manifest.layers] == [units.tolist() for units in kept]


def test_files_can_be_read_by_their_owner_only(saved):
    _, _, folder = saved
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".safetensors"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_second_save_replaces_the_first_and_leaves_nothing_behind(saved):
    _, _, folder = saved
    case, layers, kept, model = personal("vit", seed=9)
    (folder / ".model-0.safetensors.dead.part").write_bytes(b"left by a killed save")
    save_personal_model(folder, model, layers=layers, kept=kept)
    assert len(list(folder.iterdir())) == 2
    assert torch.equal(logits(load_personal_model(folder).model, case.inputs), logits(model, case.inputs))


class Killed(BaseException):
    """Stands for the end of a process: from this system call on nothing happens any more, no cleaning up either."""


def fail_at(monkeypatch, step, error):
    """Let the `step`-th system call of a save fail with `error`, and all that follow it if it was killed."""
    count = 0

    def failing(call):
        def wrapper(*args, **kwargs):
            nonlocal count
            count += 1
            if count == step or (count > step and isinstance(error, Killed)):
                raise error
            return call(*args, **kwargs)

        return wrapper

    for name in ("open", "write", "fsync", "replace", "unlink"):
        monkeypatch.setattr(files.os, name, failing(getattr(os, name)))


@pytest.mark.parametrize("seed", [0, 9], ids=["same weights", "other weights"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), Killed()], ids=["full", "killed"])
def test_a_save_that_stops_at_any_step_leaves_a_whole_model(saved, monkeypatch, error, seed):
    case, old, folder = saved
    _, layers, kept, new = personal("vit", seed=seed)
    before, after = logits(old, case.inputs), logits(new, case.inputs)
    failures = 0
    for step in range(1, 14):
        save_personal_model(folder, old, **cut_of(case))
        with monkeypatch.context() as patched:
            fail_at(patched, step, error)
            try:
                save_personal_model(folder, new, layers=layers, kept=kept)
                expected = after
            except UserError:
                assert len(list(folder.iterdir())) == 2
                failures, expected = failures + 1, before
            except Killed:
                failures, expected = failures + 1, after if step > 10 else before
        assert torch.equal(logits(load_personal_model(folder).model, case.inputs), expected), step
    assert failures >= 8
    save_personal_model(folder, new, layers=layers, kept=kept)
    assert len(list(folder.iterdir())) == 2


def cut_of(case):
    layers = find_layers(case.model)
    return {"layers": layers, "kept": random_kept(layers, 0)}


def test_a_first_save_that_fails_leaves_no_model(tmp_path, monkeypatch):
    _, layers, kept, model = personal("vit")
    with monkeypatch.context() as patched:
        fail_at(patched, 8, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        with pytest.raises(UserError, match="not saved"):
            save_personal_model(tmp_path, model, layers=layers, kept=kept)
    assert list(tmp_path.iterdir()) == []


def test_missing(tmp_path):
    with pytest.raises(UserError, match="no personal model here"):
        load_personal_model(tmp_path)


def test_missing_weights(saved):
    _, _, folder = saved
    weights_file(folder).unlink()
    with pytest.raises(UserError, match="missing, though the manifest names it"):
        load_personal_model(folder)


@pytest.mark.parametrize("size", [0, 7, 200, -1])
def test_truncated_weights(saved, size):
    _, _, folder = saved
    path = weights_file(folder)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match="truncated or changed"):
        load_personal_model(folder)


def test_changed_weights(saved):
    _, _, folder = saved
    path = weights_file(folder)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="hash is not the manifest's"):
        load_personal_model(folder)


def replace_weights(folder, data):
    weights_file(folder).write_bytes(data)
    edit_manifest(folder, weights_sha256=hashlib.sha256(data).hexdigest(), weights_bytes=len(data))


def test_weights_that_are_not_safetensors(saved):
    _, _, folder = saved
    replace_weights(folder, b"not tensors" * 9)
    with pytest.raises(UserError, match="not a readable safetensors file"):
        load_personal_model(folder)


def test_weights_of_another_model(saved):
    _, _, folder = saved
    replace_weights(folder, save({"weight": torch.zeros(2)}))
    with pytest.raises(UserError, match="do not fit together"):
        load_personal_model(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": 2}, "format 2 is newer"),
        ({"format": 0}, "format is not"),
        ({"format": "1"}, "not the manifest"),
        ({"surprise": 1}, "unknown: surprise"),
        ({"architecture": "NoSuchModel"}, "NoSuchModel: not a model class"),
        ({"architecture": "ViTConfig"}, "ViTConfig: not a model class"),
        ({"architecture": "os.system"}, "architecture is not"),
        ({"attention": "hub/kernel"}, "attention is not"),
        ({"config": {"hidden_size": "wide"}}, "does not build a model"),
        ({"config": {}}, "not those of its configuration"),
        ({"layers": []}, "not those of its configuration"),
        ({"layers": [{"units": 2, "kept": [2], "writer": "Linear", "writer_bias": True}]}, "layers is not"),
        ({"weights_file": "../model-0123456789abcdef.safetensors"}, "weights_file is not"),
        ({"weights_sha256": "abc"}, "weights_sha256 is not"),
        ({"weights_bytes": -1}, "weights_bytes is not"),
        ({"tied": {"a": "b"}}, "tied parameters a and b"),
        ({"labels": [1]}, "labels is not"),
    ],
)
def test_damaged_manifests(saved, fields, message):
    _, _, folder = saved
    edit_manifest(folder, **fields)
    with pytest.raises(UserError) as error:
        load_personal_model(folder)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\udcff", "[" * 100_000], ids=range(6))
def test_manifests_that_are_not_json_objects(saved, text):
    _, _, folder = saved
    (folder / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError):
        load_personal_model(folder)


def test_what_cannot_be_saved_is_refused(tmp_path):
    _, layers, kept, model = personal("vit")
    with pytest.raises(UserError, match="dtype 'int4'"):
        save_personal_model(tmp_path, model, layers=layers, kept=kept, dtype="int4")
    with pytest.raises(UserError, match="Linear: not a model of transformers"):
        save_personal_model(tmp_path, nn.Linear(2, 2), layers=(), kept=())
    with torch.no_grad():
        model.classifier.bias[0] = 1e6
    with pytest.raises(UserError, match=r"classifier\.bias: a weight is not a finite number in float16"):
        save_personal_model(tmp_path, model, layers=layers, kept=kept, dtype="float16")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_folders_place(saved, tmp_path):
    _, layers, kept, model = personal("vit")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="not saved"):
        save_personal_model(tmp_path / "file", model, layers=layers, kept=kept)
