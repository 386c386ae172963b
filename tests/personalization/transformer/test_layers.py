import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from personalization.errors import UserError
from personalization.transformer.layers import LayerKind, find_layers, linear_weight
from tests.personalization.architectures import ARCHITECTURES, build, shapes

every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)


@every_architecture
@settings(max_examples=8)
@given(shape=shapes(), seed=st.integers(0, 100))
def test_layers_alternate_and_have_the_units_of_the_configuration(name, shape, seed):
    case = build(name, shape, seed)
    layers = find_layers(case.model)
    assert [layer.index for layer in layers] == list(range(2 * shape.depth))
    assert [layer.block for layer in layers] == [block for block in range(shape.depth) for _ in range(2)]
    assert [layer.kind for layer in layers] == [LayerKind.ATTENTION, LayerKind.MLP] * shape.depth
    assert {layer.units for layer in layers[::2]} == {case.attention_units}
    assert {layer.units for layer in layers[1::2]} == {case.mlp_units}


@every_architecture
@settings(max_examples=8)
@given(shape=shapes())
def test_units_divide_the_columns_and_rows_among_them(name, shape):
    case = build(name, shape)
    for layer in find_layers(case.model):
        weight = linear_weight(case.model.get_submodule(layer.writer))
        columns = torch.cat([torch.from_numpy(layer.columns([unit])) for unit in range(layer.units)])
        assert torch.equal(columns.sort().values, torch.arange(weight.shape[1]))
        for reader in layer.readers:
            rows = torch.cat([torch.from_numpy(layer.rows(reader, [unit])) for unit in range(layer.units)])
            count = linear_weight(case.model.get_submodule(reader.path)).shape[0]
            assert torch.equal(rows.sort().values, torch.arange(count))


@every_architecture
def test_weights_of_a_layer_are_those_of_its_readers_and_of_the_writers_columns(name):
    case = build(name)
    for layer in find_layers(case.model):
        readers = [case.model.get_submodule(reader.path) for reader in layer.readers]
        count = sum(parameter.numel() for reader in readers for parameter in reader.parameters())
        assert layer.weights == count + linear_weight(case.model.get_submodule(layer.writer)).numel()


@every_architecture
def test_a_heads_columns_depend_on_its_value_rows_only(name):
    """Setting the value rows of a unit to zero silences that unit's columns of the writer's input and no others."""
    case = build(name)
    layer = find_layers(case.model)[0]
    value = layer.readers[-1]
    rows = torch.from_numpy(layer.rows(value, [1]))[-value.rows_per_unit :]
    module = case.model.get_submodule(value.path)
    with torch.no_grad():
        linear_weight(module)[rows] = 0
        if module.bias is not None:
            module.bias[rows] = 0
    seen = []
    case.model.get_submodule(layer.writer).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    case.model(**case.inputs)
    silent = seen[0].abs().amax(dim=(0, 1)) == 0
    assert set(silent.nonzero()[:, 0].tolist()) == set(layer.columns([1]).tolist())


class Attention(nn.Module):
    def __init__(self, width=8, head_dim=4, outputs=8, key=8):
        super().__init__()
        self.head_dim = head_dim
        self.q_proj, self.k_proj, self.v_proj = nn.Linear(8, width), nn.Linear(8, key), nn.Linear(8, width)
        self.o_proj = nn.Linear(width, outputs)


class Block(nn.Module):
    def __init__(self, attention, **modules):
        super().__init__()
        self.attention = attention
        for name, module in modules.items():
            self.add_module(name, module)


class Model(nn.Module):
    def __init__(self, block, **more):
        super().__init__()
        self.blocks = nn.ModuleList([block])
        for name, module in more.items():
            self.add_module(name, module)


def mlp():
    return {"fc1": nn.Linear(8, 12), "fc2": nn.Linear(12, 8)}


def test_an_unknown_model_with_known_names_is_understood():
    layers = find_layers(Model(Block(Attention(), **mlp())))
    assert [layer.units for layer in layers] == [2, 12]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Linear(2, 2)), "Sequential: no list of transformer blocks"),
        (Model(Block(Attention(), **mlp()), others=nn.ModuleList([Block(Attention(), **mlp())])), "others is a second"),
        (Model(Block(Attention(), second=Attention(), **mlp())), "blocks.0: 2 attention modules"),
        (Model(Block(Attention(head_dim=0), **mlp())), "blocks.0.attention: the width of a head"),
        (Model(Block(Attention(head_dim=3), **mlp())), "blocks.0.attention: the width of a head"),
        (Model(Block(Attention(outputs=4), **mlp())), "blocks.0.attention.o_proj: writes 4"),
        (Model(Block(Attention(key=4, width=12), **mlp())), "blocks.0.attention: query, key, value"),
        (Model(Block(Attention(), **mlp(), extra=nn.Linear(5, 7))), "blocks.0.extra: this linear module"),
        (Model(Block(Attention(), **mlp(), router=nn.Linear(8, 12))), "blocks.0.router: 2 modules read into the MLP"),
        (Model(Block(Attention(), fc1=nn.Linear(8, 12), fc2=nn.Linear(6, 8))), "blocks.0.fc1: its outputs are not"),
        (Model(Block(Attention())), "blocks.0.mlp: this linear module"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_unsupported_model_is_refused_with_the_module_that_was_not_understood(model, message):
    with pytest.raises(UserError) as error:
        find_layers(model)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_model_with_two_stacks_is_refused():
    config = T5Config(vocab_size=9, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    with pytest.raises(UserError, match="T5ForConditionalGeneration"):
        find_layers(T5ForConditionalGeneration(config))
