import numpy as np
import torch
from conftest import make_tiny_vit
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

from personalization.transformer.groups import unit_groups
from personalization.transformer.layers import LayerKind, find_layers, linear_bias, linear_weight
from server.data_free import group_folds, mean_activations

SAMPLES = 200_000


def norm_of(model, layer) -> nn.Module:
    paths = {
        "vit": ("layernorm_before", "layernorm_after"),
        "llama": ("input_layernorm", "post_attention_layernorm"),
    }[model.config.model_type]
    return model.get_submodule(f"{layer.block_path}.{paths[layer.kind is LayerKind.MLP]}")


def inputs_of(norm, seed=0):
    z = torch.randn(SAMPLES, len(norm.weight), generator=torch.Generator().manual_seed(seed))
    bias = getattr(norm, "bias", None)
    return z * norm.weight + (0.0 if bias is None else bias)


@torch.no_grad()
def test_the_mean_activation_of_a_channel_is_that_of_gaussian_inputs():
    model = make_tiny_vit()
    layers = find_layers(model)
    for layer in (layer for layer in layers if layer.kind is LayerKind.MLP):
        reader = model.get_submodule(layer.readers[0].path)
        sampled = nn.functional.gelu(reader(inputs_of(norm_of(model, layer)))).mean(0)
        found = mean_activations(model, layers, layer)
        torch.testing.assert_close(found.float(), sampled, rtol=0, atol=0.02)


@torch.no_grad()
def test_the_mean_of_a_gated_channel_is_that_of_gaussian_inputs():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=11,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = LlamaForCausalLM(config).eval()
    for parameter in model.parameters():
        parameter += 0.3 * torch.randn_like(parameter)
    layers = find_layers(model)
    mlp = model.get_submodule(layers[1].core)
    x = inputs_of(norm_of(model, layers[1]))
    sampled = (nn.functional.silu(mlp.gate_proj(x)) * mlp.up_proj(x)).mean(0)
    torch.testing.assert_close(mean_activations(model, layers, layers[1]).float(), sampled, rtol=0.02, atol=0.05)


@torch.no_grad()
def test_a_heads_mean_value_is_the_value_of_beta():
    model = make_tiny_vit()
    layers = find_layers(model)
    value = model.get_submodule(layers[0].readers[-1].path)
    expected = nn.functional.linear(norm_of(model, layers[0]).bias, linear_weight(value), linear_bias(value))
    torch.testing.assert_close(mean_activations(model, layers, layers[0]).float(), expected)


@torch.no_grad()
def test_a_block_that_normalizes_its_outputs_reads_the_norm_before():
    torch.manual_seed(0)
    model = BertForSequenceClassification(
        BertConfig(vocab_size=11, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2)
    ).eval()
    for parameter in model.parameters():
        parameter += 0.3 * torch.randn_like(parameter)
    layers = find_layers(model)
    embeddings = model.bert.embeddings.LayerNorm
    first, second = model.bert.encoder.layer
    for layer, norm in zip(
        layers,
        (embeddings, first.attention.output.LayerNorm, first.output.LayerNorm, second.attention.output.LayerNorm),
        strict=True,
    ):
        x = inputs_of(norm)
        reader = model.get_submodule(layer.readers[-1].path)
        sampled = reader(x) if layer.kind is LayerKind.ATTENTION else nn.functional.gelu(reader(x))
        found = mean_activations(model, layers, layer).float()
        torch.testing.assert_close(found, sampled.mean(0), rtol=0, atol=0.03)


@torch.no_grad()
def test_folds_of_separate_groups_add_up():
    model = make_tiny_vit()
    layers = find_layers(model)
    groups = unit_groups(model, layers, mlp_groups=4)
    count = sum(len(g) for g in groups)
    rng = np.random.default_rng(0)
    flags = rng.random(count) < 0.5
    total = group_folds(model, layers, groups, flags)
    singles = [group_folds(model, layers, groups, np.eye(count, dtype=bool)[i]) for i in np.flatnonzero(flags)]
    for layer, fold in total.items():
        torch.testing.assert_close(fold, sum(s[layer] for s in singles if layer in s))
    assert not group_folds(model, layers, groups, np.zeros(count, dtype=bool))
