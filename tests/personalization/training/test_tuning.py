import copy

import pytest
import torch
from torch import nn

from personalization.cutting.cut_model import cut_model
from personalization.prediction.scoring import score_tokens
from personalization.training.loop import TrainingData, TrainingSettings
from personalization.training.tuning import tune
from personalization.transformer.layers import find_layers
from personalization.transformer.readout import outputs_of
from tests.tiny_text import FAMILIES, VOCABULARY, tiny_language_model


def prepared(family, *, dropped=False):
    """A model cut by half (its first attention layer whole if `dropped`), and text in which tokens count upwards."""
    model = tiny_language_model(family)
    layers = find_layers(model)
    kept = [torch.arange(max(1, layer.units // 2)).numpy() for layer in layers]
    if dropped:
        kept[0] = kept[0][:0]
    starts = torch.arange(40)[:, None] * 5
    tokens = (starts + torch.arange(17)) % VOCABULARY
    return cut_model(model, layers, kept), layers, TrainingData({"input_ids": tokens[:, :-1]}, tokens[:, 1:])


def nats(model, data):
    return float(score_tokens(model, data.inputs["input_ids"], data.labels).nats.mean())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("adapters", [0, 4])
@pytest.mark.parametrize("precision", ["single", "bfloat16"])
def test_tuning_makes_the_text_more_likely_and_leaves_the_cut_model_alone(family, adapters, precision):
    cut, layers, data = prepared(family)
    before = {key: tensor.clone() for key, tensor in cut.state_dict().items()}
    settings = TrainingSettings(steps=30, adapters=adapters, precision=precision)
    tuned = tune(cut, layers, data, settings=settings)
    assert nats(tuned, data) < nats(cut, data) - 0.02
    assert all(torch.equal(tensor, before[key]) for key, tensor in cut.state_dict().items())
    assert tuned.state_dict().keys() == before.keys()
    assert all(tensor.dtype == torch.float32 for tensor in tuned.state_dict().values())
    assert not any(parameter.requires_grad for parameter in tuned.parameters())
    assert tuned.get_input_embeddings().weight is tuned.get_output_embeddings().weight
    assert torch.equal(tuned.get_input_embeddings().weight, cut.get_input_embeddings().weight)


@pytest.mark.parametrize("adapters", [0, 4])
def test_what_training_took_is_free_at_its_end(monkeypatch, adapters):
    cut, layers, data = prepared("llama")
    made = []

    class Noted(torch.optim.Adam):
        def __init__(self, parameters, **given):
            super().__init__(parameters, **given)
            made.append(self)

    monkeypatch.setattr("personalization.training.loop.torch.optim.Adam", Noted)
    tuned = tune(cut, layers, data, settings=TrainingSettings(steps=2, adapters=adapters))
    (optimizer,) = made
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert trained
    assert not optimizer.state
    assert all(parameter.grad is None for parameter in (*trained, *tuned.parameters()))


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_change_each_map_of_a_layer_by_their_rank_and_nothing_else(family):
    cut, layers, data = prepared(family, dropped=True)
    tuned = tune(cut, layers, data, settings=TrainingSettings(steps=5, adapters=2))
    paths = {path for layer in layers[1:] for path in (*(reader.path for reader in layer.readers), layer.writer)}
    adapted = {f"{path}.weight" for path in paths}
    for key, tensor in tuned.state_dict().items():
        difference = tensor - cut.state_dict()[key]
        if key in adapted:
            assert 1 <= torch.linalg.matrix_rank(difference, rtol=1e-3) <= 2
        else:
            assert not difference.any(), key


def test_the_loss_in_chunks_is_the_loss(monkeypatch):
    cut, layers, data = prepared("llama")
    whole = tune(cut, layers, data, settings=TrainingSettings(steps=4))
    monkeypatch.setattr("personalization.transformer.readout.CHUNK_LOGITS", 50 * VOCABULARY)
    parts = tune(cut, layers, data, settings=TrainingSettings(steps=4))
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_the_first_step_follows_the_gradient_of_the_cross_entropy():
    cut, layers, data = prepared("llama")
    tuned = tune(
        cut, layers, TrainingData({"input_ids": data.inputs["input_ids"][:1]}, data.labels[:1]), settings=one()
    )
    hidden = outputs_of(clone := gradients_on(cut), {"input_ids": data.inputs["input_ids"][:1]})
    nn.functional.cross_entropy(clone.lm_head(hidden).flatten(0, 1), data.labels[:1].flatten()).backward()
    name = "model.layers.0.mlp.down_proj.weight"
    gradient = dict(clone.named_parameters())[name].grad
    step = tuned.get_parameter(name) - cut.get_parameter(name)
    clear = gradient.abs() > 1e-6
    assert torch.equal(step.sign()[clear], -gradient.sign()[clear])


def one():
    return TrainingSettings(steps=1)


def gradients_on(model):
    own = copy.deepcopy(model)
    for parameter in own.parameters():
        parameter.requires_grad_(True)
    return own
