import copy
import json

import pytest
import torch
from conftest import make_tiny_vit

from personalization.cutting.cut_model import cut_model
from personalization.model_files.skeleton import build_skeleton
from personalization.transformer.layers import find_layers
from personalization.transformer.vision_transformer import ViTForImageClassification, build_vision_transformer
from tests.personalization.architectures import Shape, build

SHAPES = (Shape(), Shape(depth=1), Shape(depth=3))


def twins(model):
    """A model of transformers and its double with the same weights, from the configuration as a file has it."""
    own = build_vision_transformer(json.loads(json.dumps(model.config.to_dict())), "sdpa")
    own.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
    return model, own


@pytest.mark.parametrize("model", [make_tiny_vit(), *(build("vit", shape).model for shape in SHAPES)])
def test_it_is_the_model_of_transformers_bit_for_bit(model):
    theirs, own = twins(model)
    assert list(own.state_dict()) == list(theirs.state_dict())
    assert [path for path, _ in own.named_modules()] == [path for path, _ in theirs.named_modules()]
    assert find_layers(own) == find_layers(theirs)
    size = (theirs.config.num_channels, theirs.config.image_size, theirs.config.image_size)
    for samples in (1, 5, 33):
        pixels = torch.randn(samples, *size, generator=torch.Generator().manual_seed(samples))
        assert torch.equal(own(pixel_values=pixels).logits, theirs(pixel_values=pixels).logits)


def test_it_trains_bit_for_bit_with_dropout():
    model = make_tiny_vit()
    model.config.hidden_dropout_prob = model.config.attention_probs_dropout_prob = 0.2
    theirs, own = twins(type(model)(model.config).float())
    pixels = torch.randn(6, 1, 8, 8)
    gradients = []
    for one in (theirs, own):
        torch.manual_seed(3)
        one.train()(pixel_values=pixels).logits.square().sum().backward()
        gradients.append([parameter.grad for parameter in one.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_it_can_be_cut_and_keeps_its_configuration():
    theirs, own = twins(make_tiny_vit())
    layers = find_layers(own)
    kept = [torch.arange(layer.units - 1).numpy() for layer in layers]
    pixels = torch.randn(4, 1, 8, 8)
    cut = cut_model(own, layers, kept)
    assert torch.equal(cut(pixels).logits, cut_model(theirs, layers, kept)(pixels).logits)
    assert cut.config.to_dict() == json.loads(json.dumps(theirs.config.to_dict()))
    assert cut.config.hidden_size == theirs.config.hidden_size
    assert not hasattr(cut.config, "no_such_entry")


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_act": "relu"},
        {"model_type": "deit"},
        {"output_hidden_states": True},
        {"return_dict": False},
        {"image_size": [8, 8]},
        {"hidden_size": 15},
        {"hidden_size": "16"},
        {"num_hidden_layers": 0},
        {"patch_size": 9},
        {"id2label": {}},
        {"head_dim": 4},
        {"hidden_dropout_prob": None},
        {"qkv_bias": 1},
    ],
)
def test_what_it_does_not_compute_exactly_is_left_to_transformers(change):
    config = make_tiny_vit().config.to_dict()
    assert build_vision_transformer(config, "sdpa") is not None
    assert build_vision_transformer(config | change, "sdpa") is None


def test_eager_attention_and_an_incomplete_configuration_are_left_to_transformers():
    config = make_tiny_vit().config.to_dict()
    assert not isinstance(build_skeleton("ViTForImageClassification", config, "eager"), ViTForImageClassification)
    for key in ("hidden_act", "model_type", "patch_size", "qkv_bias", "id2label"):
        assert build_vision_transformer({k: v for k, v in config.items() if k != key}, "sdpa") is None


def test_building_leaves_the_random_state_alone():
    before = torch.random.get_rng_state()
    assert isinstance(
        build_skeleton("ViTForImageClassification", make_tiny_vit_config(), "sdpa"), ViTForImageClassification
    )
    assert torch.equal(torch.random.get_rng_state(), before)


def make_tiny_vit_config():
    with torch.random.fork_rng([]):
        return make_tiny_vit().config.to_dict()


def test_images_of_another_size_are_refused():
    _, own = twins(make_tiny_vit())
    with pytest.raises(ValueError, match="the model takes"):
        own(torch.zeros(1, 1, 12, 12))
