import json
import shutil
import warnings
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM, ViTConfig, ViTModel
from transformers import ViTForImageClassification as ViT
from transformers.utils import logging

from personalization.data.images import ImagePreprocessing
from personalization.errors import UserError
from personalization.model_files.backbone import load_backbone, model_identifier

BUNDLED = Path(__file__).parents[3] / "simulations" / "assets" / "vit_fashion_mnist"
CONFIG = ViTConfig(
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=16,
    image_size=8,
    patch_size=4,
    num_channels=1,
    id2label={0: "bag", 1: "coat", 2: "shoe"},
    label2id={"bag": 0, "coat": 1, "shoe": 2},
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    ViT(CONFIG).half().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refusal(name: object) -> str:
    with pytest.raises(UserError) as caught:
        load_backbone(str(name))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_saved_model_comes_back_in_float32_and_evaluation_mode(folder: Path) -> None:
    backbone = load_backbone(str(folder))
    assert isinstance(backbone.model, ViT)
    assert not backbone.model.training
    assert {p.dtype for p in backbone.model.parameters()} == {torch.float32}
    for name, tensor in load_file(folder / "model.safetensors").items():
        reference = ViT.from_pretrained(folder, dtype=torch.float32).state_dict()
        if name in reference:
            assert torch.equal(reference[name], backbone.model.state_dict()[name])
            assert torch.equal(reference[name], tensor.float())
    assert backbone.labels == ("bag", "coat", "shoe")
    assert backbone.preprocessing == ImagePreprocessing(height=8, width=8, channels=1, mean=(0.5,), std=(0.5,))


def test_the_processor_file_is_read(folder: Path) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": 0.25, "image_std": 0.125}))
    preprocessing = load_backbone(str(folder)).preprocessing
    assert preprocessing is not None
    assert (preprocessing.mean, preprocessing.std) == ((0.25,), (0.125,))
    (folder / "preprocessor_config.json").write_text("{")
    assert "preprocessor_config.json" in refusal(folder)


def test_language_models_have_no_image_preprocessing(tmp_path: Path) -> None:
    llama = LlamaConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=16,
        vocab_size=9,
    )
    LlamaForCausalLM(llama).save_pretrained(tmp_path / "llama")
    backbone = load_backbone(str(tmp_path / "llama"))
    assert (backbone.preprocessing, backbone.labels) == (None, ())
    bert = BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=9, num_labels=4
    )
    BertForSequenceClassification(bert).save_pretrained(tmp_path / "bert")
    assert len(load_backbone(str(tmp_path / "bert")).labels) == 4


def test_sharded_weights_load_alike(folder: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    ViT.from_pretrained(folder).save_pretrained(shards, max_shard_size="2KB")
    assert len(list(shards.glob("*.safetensors"))) > 1
    assert load_backbone(str(shards)).identifier == load_backbone(str(folder)).identifier
    next(shards.glob("model-00002*")).unlink()
    assert "model-00002" in refusal(shards)


def test_an_index_that_leaves_the_folder_is_refused(folder: Path) -> None:
    shutil.move(folder / "model.safetensors", folder.parent / "outside.safetensors")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../outside.safetensors"}}')
    assert "same folder" in refusal(folder)


def test_the_identifier_sees_every_byte_name_shape_and_type_but_no_order() -> None:
    tensors = {"a": torch.arange(6.0), "b": torch.tensor(3)}
    same = model_identifier(tensors)
    assert same == model_identifier(dict(reversed(tensors.items())))
    bit = tensors["a"].clone()
    bit[5] = torch.nextafter(bit[5], torch.tensor(9.0))
    others = [
        {**tensors, "a": bit},
        {**tensors, "a": tensors["a"].reshape(2, 3)},
        {**tensors, "a": tensors["a"].view(torch.int32)},
        {"c": tensors["a"], "b": tensors["b"]},
        {"a": tensors["a"]},
    ]
    assert len({same, *map(model_identifier, others)}) == 1 + len(others)


def test_the_identifier_does_not_depend_on_strides() -> None:
    matrix = torch.arange(6.0).reshape(2, 3)
    assert model_identifier({"a": matrix.t()}) == model_identifier({"a": matrix.t().contiguous()})


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_named(folder: Path, share: float) -> None:
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    message = refusal(folder)
    assert str(path) in message
    assert "truncated" in message


def test_a_corrupt_header_is_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[8:40] = b"?" * 32
    path.write_bytes(raw)
    assert "corrupt" in refusal(folder)


def test_weights_that_are_not_finite_are_named(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.bias"][0] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert "classifier.bias" in refusal(folder)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"architectures": None}, "names no class"),
        ({"architectures": ["__import__"]}, "names no class"),
        ({"architectures": ["ViTForTelepathy"]}, "no model class ViTForTelepathy"),
        ({"architectures": ["ViTConfig"]}, "no model class ViTConfig"),
        ({"architectures": ["AutoModel"]}, "no model class AutoModel"),
        ({"model_type": "bert"}, "does not go with"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantized"),
        ({"num_hidden_layers": 3}, "missing or of another shape"),
        ({"hidden_size": 16}, "missing or of another shape"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"hidden_act": "telepathy"}, "telepathy"),
    ],
)
def test_a_config_that_does_not_fit_is_explained(folder: Path, change: dict[str, object], expected: str) -> None:
    change_config(folder, **change)
    assert expected in refusal(folder)


def test_a_model_without_head_is_refused(tmp_path: Path) -> None:
    ViTModel(CONFIG).save_pretrained(tmp_path / "headless")
    assert "no head" in refusal(tmp_path / "headless")


def test_an_unsupported_model_is_named(tmp_path: Path) -> None:
    from transformers import ResNetConfig, ResNetForImageClassification

    resnet = ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic")
    ResNetForImageClassification(resnet).save_pretrained(tmp_path / "resnet")
    assert "ResNetForImageClassification" in refusal(tmp_path / "resnet")


def test_missing_folders_and_files_are_told_apart(folder: Path, tmp_path: Path) -> None:
    assert "no such folder" in refusal(tmp_path / "absent")
    assert "a file" in refusal(folder / "config.json")
    (tmp_path / "empty").mkdir()
    assert "config.json" in refusal(tmp_path / "empty")
    (folder / "config.json").write_text("[1]")
    assert "not a JSON object" in refusal(folder)
    (folder / "config.json").write_text("{")
    assert "not valid JSON" in refusal(folder)


def test_pickled_checkpoints_are_not_read(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "pickled" in refusal(folder)


def test_a_hub_name_is_fetched_and_an_unreachable_hub_is_explained(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def snapshot(name: str, **options: object) -> str:
        asked.append(name)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert load_backbone("someone/vit").identifier == load_backbone(str(folder)).identifier
    assert asked == ["someone/vit"]

    def unreachable(name: str, **options: object) -> str:
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    assert "hub could not be reached" in refusal("someone/vit")


@pytest.mark.parametrize("name", ["./model", "/absent/model", "a/b/c", "../vit", "", "https://host/x"])
def test_what_is_no_hub_name_is_never_looked_up(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: pytest.fail("asked the hub"))
    assert refusal(name)


def test_loading_is_quiet_and_leaves_logging_as_it_was(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = logging.get_verbosity()
    logging.set_verbosity_info()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            load_backbone(str(folder))
        change_config(folder, num_hidden_layers=3)
        refusal(folder)
        assert logging.get_verbosity() == logging.INFO
        assert logging.is_progress_bar_enabled()
    finally:
        logging.set_verbosity(before)
    assert capfd.readouterr() == ("", "")


def test_the_bundled_model_loads_here_and_in_transformers() -> None:
    backbone = load_backbone(str(BUNDLED))
    reference = ViT.from_pretrained(BUNDLED, dtype=torch.float32).eval()
    pixels = torch.linspace(-1, 1, 2 * 28 * 28).reshape(2, 1, 28, 28)
    with torch.inference_mode():
        assert torch.equal(backbone.model(pixel_values=pixels).logits, reference(pixel_values=pixels).logits)
    assert backbone.identifier == model_identifier(reference.state_dict())
    assert len(backbone.labels) == 10
    size = sum(file.stat().st_size for file in BUNDLED.glob("*.safetensors"))
    assert size < 3_000_000
