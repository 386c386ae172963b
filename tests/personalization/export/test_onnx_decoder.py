import numpy as np
import onnx
import pytest
import torch
from tiny_text import FAMILIES, VOCABULARY, tiny_language_model
from tiny_text_export import CUTS, cut_tiny
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from personalization.device.decoder import DecoderRun
from personalization.device.runtime import open_session
from personalization.errors import UserError
from personalization.export import onnx_decoder
from personalization.export.decoder import read_decoder
from personalization.export.onnx_decoder import decoder_graph
from personalization.export.onnx_products import FloatProducts, Int8Products, Products

TOKENS = np.random.default_rng(0).integers(0, VOCABULARY, 20)


def run(model: nn.Module, products: Products | None = None) -> DecoderRun:
    graph = decoder_graph(read_decoder(model), products or FloatProducts())
    onnx.checker.check_model(graph, full_check=True)
    return DecoderRun(open_session(graph.SerializeToString()))


@torch.inference_mode()
def logits_of(model: nn.Module, tokens: np.ndarray) -> np.ndarray:
    return model(input_ids=torch.from_numpy(tokens)[None]).logits[0].numpy()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cut", CUTS)
def test_a_graph_computes_what_the_model_computes_at_once_and_bit_by_bit(family: str, cut: str) -> None:
    """Prompt and steps are one graph: a long prompt, shorter ones after it and single tokens all give the same."""
    model = cut_tiny(family, CUTS[cut], folded=True)
    expected = logits_of(model, TOKENS)
    text = run(model)
    assert text.tokens == 0
    parts = [text.read(TOKENS[a:b], last=False) for a, b in ((0, 7), (7, 12), (12, 13), (13, 14), (14, 20))]
    assert text.tokens == len(TOKENS)
    np.testing.assert_allclose(np.concatenate(parts), expected, atol=1e-4)
    np.testing.assert_allclose(run(model).read(TOKENS, last=False), expected, atol=1e-4)
    np.testing.assert_allclose(run(model).read(TOKENS), expected[-1:], atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_head_of_its_own(family: str) -> None:
    model = tiny_language_model(family, tied=False)
    np.testing.assert_allclose(run(model).read(TOKENS, last=False), logits_of(model, TOKENS), atol=1e-4)


@pytest.mark.parametrize("products", [FloatProducts, Int8Products])
def test_each_weight_is_stored_once(products: type[Products]) -> None:
    model = cut_tiny("llama", CUTS["uneven"])
    size = decoder_graph(read_decoder(model), products()).ByteSize()
    matrices = sum(p.numel() for p in model.parameters() if p.ndim == 2)
    rest = sum(p.numel() for p in model.parameters() if p.ndim == 1)
    scales = sum(len(p) for p in model.parameters() if p.ndim == 2)
    weights = 4 * (matrices + rest) if products is FloatProducts else matrices + 4 * (rest + scales)
    assert weights <= size < weights + 16_000


@pytest.mark.parametrize("family", FAMILIES)
def test_in_int8_no_matrix_is_left_in_32_bits_and_logits_stay_close(family: str) -> None:
    model = cut_tiny(family, CUTS["uneven"])
    graph = decoder_graph(read_decoder(model), Int8Products())
    large = [t for t in graph.graph.initializer if len(t.dims) == 2 and t.data_type == onnx.TensorProto.FLOAT]
    learned_positions = [[64, 36]] if family == "gpt2" else []
    assert [list(tensor.dims) for tensor in large] == learned_positions
    expected, found = logits_of(model, TOKENS), run(model, Int8Products()).read(TOKENS, last=False)
    assert 0 < np.abs(found - expected).mean() < 0.06 * expected.std()


def test_int8_takes_rows_of_very_different_sizes() -> None:
    """One token a thousand times larger than the others: in shared steps these would be rounded to nothing."""
    model = tiny_language_model("llama")
    model.model.embed_tokens.weight.data[TOKENS[0]] *= 1000.0
    model.model.layers[1].mlp.down_proj.weight.data *= 30.0
    expected, found = logits_of(model, TOKENS), run(model, Int8Products()).read(TOKENS, last=False)
    assert np.abs(found - expected)[1:].mean() < 0.06 * expected[1:].std()


def test_rotary_positions_that_are_scaled() -> None:
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10_000.0}
    config = LlamaConfig(
        **dict.fromkeys(("hidden_size", "intermediate_size", "vocab_size"), 16),
        num_hidden_layers=1,
        num_attention_heads=2,
        rope_parameters=rope,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    tokens = TOKENS % 16
    np.testing.assert_allclose(run(model).read(tokens, last=False), logits_of(model, tokens), atol=1e-4)


def test_what_is_not_understood_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"hidden_size": 16, "intermediate_size": 16, "vocab_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    sliding = Qwen2Config(
        **small,
        **heads,
        use_sliding_window=True,
        sliding_window=8,
        max_window_layers=0,
        layer_types=["sliding_attention"],
    )
    longer = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}
    for model, words in (
        (Qwen2ForCausalLM(sliding), "sliding window"),
        (LlamaForCausalLM(LlamaConfig(**small, **heads, rope_parameters=longer)), "dynamic"),
        (LlamaForCausalLM(LlamaConfig(**small, **heads, hidden_act="tanh")), "tanh"),
        (nn.Linear(2, 2), "families"),
    ):
        with pytest.raises(UserError, match=words):
            read_decoder(model)
    monkeypatch.setattr(onnx_decoder, "_MOST_BYTES", 1000)
    with pytest.raises(UserError, match="one ONNX file holds 1,000"):
        decoder_graph(read_decoder(tiny_language_model("llama")), Int8Products())
