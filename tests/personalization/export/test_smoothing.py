import numpy as np
import pytest
import torch
from test_onnx_decoder import TOKENS, logits_of
from tiny_text import FAMILIES, VOCABULARY, tiny_language_model
from tiny_text_export import CUTS, cut_tiny

from personalization.device.decoder import DecoderRun
from personalization.device.runtime import open_session
from personalization.export.decoder import Decoder, read_decoder
from personalization.export.onnx_decoder import decoder_graph
from personalization.export.onnx_products import FloatProducts, Int8Products, Products
from personalization.export.smoothing import channel_ranges, smooth

TEXT = torch.from_numpy(np.random.default_rng(1).integers(0, VOCABULARY, (6, 20)))


def read(decoder: Decoder, products: Products) -> np.ndarray:
    return DecoderRun(open_session(decoder_graph(decoder, products).SerializeToString())).read(TOKENS, last=False)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cut", CUTS)
def test_a_smoothed_model_computes_the_same(family: str, cut: str) -> None:
    model = cut_tiny(family, CUTS[cut], folded=True)
    decoder = read_decoder(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    smoothed = smooth(decoder, channel_ranges(model, decoder, TEXT))
    assert smoothed.tied == decoder.tied
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    np.testing.assert_allclose(read(smoothed, FloatProducts()), logits_of(model, TOKENS), atol=1e-3)


def test_a_head_of_its_own_leaves_the_embedding_alone() -> None:
    model = tiny_language_model("llama", tied=False)
    decoder = read_decoder(model)
    smoothed = smooth(decoder, channel_ranges(model, decoder, TEXT))
    assert smoothed.embedding is decoder.embedding
    np.testing.assert_allclose(read(smoothed, FloatProducts()), logits_of(model, TOKENS), atol=1e-3)


def test_ranges_are_the_largest_of_all_windows_and_no_hook_is_left() -> None:
    model = tiny_language_model("llama")
    decoder = read_decoder(model)
    whole = channel_ranges(model, decoder, TEXT)
    parts = [channel_ranges(model, decoder, window[None]) for window in TEXT]
    for module, largest in whole.items():
        torch.testing.assert_close(largest, torch.stack([part[module] for part in parts]).amax(0))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_channels_that_are_far_larger_cost_int8_less() -> None:
    model = tiny_language_model("llama")
    for layer in model.model.layers:
        for norm, readers in (
            (layer.input_layernorm, (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj)),
            (layer.post_attention_layernorm, (layer.mlp.gate_proj, layer.mlp.up_proj)),
        ):
            norm.weight.data[::12] *= 100.0
            for reader in readers:
                reader.weight.data[:, ::12] /= 100.0
        for reader, writer, every in (
            (layer.self_attn.v_proj, layer.self_attn.o_proj, layer.self_attn.head_dim),
            (layer.mlp.up_proj, layer.mlp.down_proj, 12),
        ):
            reader.weight.data[::every] *= 100.0
            writer.weight.data[:, ::every] /= 100.0
    decoder, expected = read_decoder(model), logits_of(model, TOKENS)
    smoothed = smooth(decoder, channel_ranges(model, decoder, TEXT))
    plain, smooth_ = (np.abs(read(d, Int8Products()) - expected).mean() for d in (decoder, smoothed))
    assert smooth_ < 0.3 * plain
