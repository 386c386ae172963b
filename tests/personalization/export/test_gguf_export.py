from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from tiny_text import tiny_language_model
from tiny_text_export import cut_tiny, preprocessing
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from personalization.errors import UserError
from personalization.export import gguf_export
from personalization.export.gguf_export import export_gguf, read_back
from personalization.export.gguf_tokenizer import read_tokenizer
from personalization.model_files.source_model import SourceModel

TOKENS = torch.from_numpy(np.random.default_rng(0).integers(0, 320, (1, 20)))
ALIKE = (2, 32, 2, 32)


def source(model: nn.Module) -> SourceModel:
    return SourceModel(
        model=model, preprocessing=preprocessing(), labels=(), identifier="ab" * 32, name="here", dense=True
    )


@torch.no_grad()
def logits(model: nn.Module) -> np.ndarray:
    return model(input_ids=TOKENS).logits[0].numpy()


@pytest.mark.parametrize(
    ("family", "units", "tied"),
    [("llama", None, True), ("llama", ALIKE, True), ("llama", None, False), ("qwen2", (3, 32, 3, 32), True)],
)
def test_transformers_loads_the_same_model_again(
    family: str, units: tuple[int, ...] | None, tied: bool, tmp_path: Path
) -> None:
    """Of dense models and of cuts that are alike in every layer; with the tokenizer that it goes with."""
    model = cut_tiny(family, units, tied=tied)
    record = export_gguf(source(model), tmp_path / "model.gguf", precision="fp32")
    assert record.difference == 0.0
    assert record.bytes == (tmp_path / "model.gguf").stat().st_size
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", dtype=torch.float32).eval()
    np.testing.assert_allclose(logits(loaded), logits(model), atol=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    for text in ("the river union", "harvest 1893, and gold"):
        assert tokenizer(text, add_special_tokens=False).input_ids == preprocessing().encode(text).tolist()


def test_int8_is_close_and_smaller(tmp_path: Path) -> None:
    model = cut_tiny("llama", ALIKE)
    whole, small = (export_gguf(source(model), tmp_path / p, precision=p) for p in ("fp32", "int8"))
    assert 0 < small.difference < 0.01
    assert small.bytes < 0.7 * whole.bytes
    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "int8").tensors}
    # Rows of 32 channels share scales; those of 36 numbers, the width of the residual stream, cannot.
    assert kinds["blk.0.ffn_down.weight"] == "Q8_0"
    assert kinds["blk.0.ffn_up.weight"] == kinds["token_embd.weight"] == "F16"
    assert kinds["output_norm.weight"] == "F32"


@pytest.mark.parametrize(("family", "units"), [("llama", ALIKE), ("gpt2", (3, 32, 3, 32))])
def test_biases_that_a_cut_left_are_in_the_file(family: str, units: tuple[int, ...], tmp_path: Path) -> None:
    model = cut_tiny(family, units, folded=True)
    export_gguf(source(model), tmp_path / "model.gguf", precision="fp32")
    tensors = {tensor.name: tensor.data for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    block = model.model.layers[1] if family == "llama" else model.transformer.h[1]
    down = block.mlp.down_proj if family == "llama" else block.mlp.c_proj
    np.testing.assert_array_equal(tensors["blk.1.ffn_down.bias"], down.bias.detach().numpy())
    np.testing.assert_array_equal(tensors["blk.1.ffn_down.weight"], down.weight.detach().numpy())
    if family == "gpt2":
        fused = block.attn.c_attn.weight.detach().t().numpy()
        np.testing.assert_array_equal(tensors["blk.1.attn_qkv.weight"], fused)


@pytest.mark.parametrize(
    ("family", "units", "words"),
    [
        ("llama", (2, 32, 1, 32), r"layer 1\.attention has another size than 0\.attention"),
        ("llama", (2, 32, 2, 31), r"layer 1\.mlp has another size than 0\.mlp"),
        ("llama", (2, 32, 0, 32), r"layer 1\.attention was cut whole"),
        ("llama", (2, 0, 2, 0), r"layer 0\.mlp was cut whole"),
        ("qwen2", ALIKE, r"layer 0\.attention was cut; of the family qwen2"),
        ("gpt2", ALIKE, r"layer 0\.attention was cut; of the family gpt2"),
    ],
)
def test_a_cut_that_has_no_place_in_the_format_is_one_line(
    family: str, units: tuple[int, ...], words: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=words) as caught:
        export_gguf(source(cut_tiny(family, units)), tmp_path / "model.gguf", precision="fp32")
    assert "use ONNX" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_biases_that_the_family_has_no_place_for_are_one_line(tmp_path: Path) -> None:
    model = cut_tiny("qwen2", (3, 32, 3, 32), folded=True)
    with pytest.raises(UserError, match="no place for them"):
        export_gguf(source(model), tmp_path / "model.gguf", precision="fp32")


def test_what_is_read_back_otherwise_is_refused_and_an_older_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, model = tmp_path / "model.gguf", tiny_language_model("llama")
    export_gguf(source(model), out, precision="fp32")
    before = out.read_bytes()
    tensors = {tensor.name: np.array(tensor.data) for tensor in gguf.GGUFReader(out).tensors}
    assert read_back(out, tensors) == 0.0
    with pytest.raises(UserError, match="other tensors"):
        read_back(out, {"more": np.zeros(1, np.float32), **tensors})
    tensors["output_norm.weight"][3] += 1.0
    with pytest.raises(UserError, match=r"output_norm\.weight is not what was written"):
        read_back(out, tensors)
    monkeypatch.setattr(gguf_export, "_ALLOWED", dict.fromkeys(("F32", "F16", "Q8_0"), -1.0))
    with pytest.raises(UserError, match="not what was written"):
        export_gguf(source(model), out, precision="int8")
    assert out.read_bytes() == before
    assert list(tmp_path.iterdir()) == [out]


def test_tokens_without_a_name_get_one_and_tokenizers_without_one_are_refused() -> None:
    record = read_tokenizer(preprocessing(), 322)
    assert record.name == "gpt-2"
    assert record.tokens[320:] == ("[unused 320]", "[unused 321]")
    assert (record.kinds[0], record.kinds[-1]) == (3, 5)
    assert len(set(record.tokens)) == 322
    text = preprocessing()
    other = text.__class__(text.tokenizer.replace('"use_regex":true', '"use_regex":false'), 0, 64)
    with pytest.raises(UserError, match="no name for"):
        read_tokenizer(other, 320)
