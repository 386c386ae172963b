from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from personalization.errors import UserError
from personalization.model_files.storage import stored_tensors
from personalization.transformer.layers import find_layers, linear_weight
from personalization.transformer.readout import outputs_of
from personalization.unstructured import magnitude, sparse_bytes, wanda, zipped_bytes
from tests.personalization.architectures import ARCHITECTURES, build

SHARES = (0.0, 0.3, 0.5)


def paths_of(layers):
    return [path for layer in layers for path in (*(reader.path for reader in layer.readers), layer.writer)]


def weights(model, layers):
    return {path: linear_weight(model.get_submodule(path)).detach() for path in paths_of(layers)}


def zeros(tensor):
    return int(tensor.numel() - tensor.count_nonzero())


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("share", SHARES)
def test_magnitude_takes_the_smallest_weights_of_each_module(name, share):
    case = build(name)
    layers = find_layers(case.model)
    before = {key: tensor.clone() for key, tensor in case.model.state_dict().items()}
    sparse = magnitude(case.model, layers, share)
    own = weights(sparse, layers)
    for path, dense in weights(case.model, layers).items():
        gone, left = dense[own[path] == 0], dense[own[path] != 0]
        assert len(gone) == round(share * dense.numel())
        assert torch.equal(own[path][own[path] != 0], left)
        assert not len(gone) or gone.abs().max() <= left.abs().min()
    assert all(torch.equal(tensor, before[key]) for key, tensor in case.model.state_dict().items())
    ours = {id(parameter) for parameter in sparse.parameters()}
    shared = [p for p in case.model.parameters() if id(p) in ours]
    assert len(shared) == len(list(case.model.parameters())) - len(own)


def keep(seen, path, _module, args):
    seen[path] = args[0].clone()


def wanda_directly(case, layers, share):
    """Equation 1 of 2306.11695 in loops: each block with its inputs behind the pruned ones before it."""
    model = magnitude(case.model, layers, 0.0)
    mask = case.inputs.get("attention_mask")
    for block in dict.fromkeys(layer.block for layer in layers):
        seen: dict[str, torch.Tensor] = {}
        paths = paths_of([layer for layer in layers if layer.block == block])
        hooks = [model.get_submodule(p).register_forward_pre_hook(partial(keep, seen, p)) for p in paths]
        with torch.no_grad():
            outputs_of(model, case.inputs)
        for hook in hooks:
            hook.remove()
        for path in paths:
            x = seen[path].double().numpy()
            x = x.reshape(-1, x.shape[-1]) if mask is None else x[mask.numpy().astype(bool)]
            weight = linear_weight(model.get_submodule(path)).detach().numpy()  # the module's own memory
            for row in weight:
                score = np.abs(row) * np.sqrt((x**2).sum(0))
                row[np.argsort(score, kind="stable")[: round(share * len(row))]] = 0.0
    return model


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("share", SHARES)
def test_wanda_is_what_its_equation_says(name, share):
    case = build(name)
    layers = find_layers(case.model)
    before = {key: tensor.clone() for key, tensor in case.model.state_dict().items()}
    sparse = wanda(case.model, layers, case.inputs, share)
    expected = weights(wanda_directly(case, layers, share), layers)
    for path, own in weights(sparse, layers).items():
        assert torch.equal(own, expected[path])
        assert (own.shape[1] - own.count_nonzero(dim=1) == round(share * own.shape[1])).all()
    assert all(torch.equal(tensor, before[key]) for key, tensor in case.model.state_dict().items())
    # Nothing of the pass stays behind: the model answers as one that was given its weights by hand.
    with torch.no_grad():
        again = outputs_of(wanda_directly(case, layers, share), case.inputs)
        torch.testing.assert_close(outputs_of(sparse, case.inputs), again)


def test_what_stands_at_padding_does_not_count():
    case = build("llama")
    layers = find_layers(case.model)
    spoiled = case.inputs["input_ids"].where(case.inputs["attention_mask"].bool(), 3)
    sparse, other = (
        weights(wanda(case.model, layers, case.inputs | {"input_ids": ids}, 0.4), layers)
        for ids in (case.inputs["input_ids"], spoiled)
    )
    assert all(torch.equal(sparse[path], other[path]) for path in sparse)


def test_bytes_are_those_of_a_bitmap_and_the_values_that_are_left():
    case = build("qwen2")  # its embeddings are tied
    layers = find_layers(case.model)
    sparse = magnitude(case.model, layers, 0.5)
    expected = 0
    for name, tensor in stored_tensors(sparse, "float16")[0].items():
        array = tensor.numpy()
        left = array[array != 0]
        packed = np.packbits(array.reshape(-1) != 0).tobytes() + left.tobytes()
        again = np.zeros(array.size, dtype=np.float16)
        again[np.unpackbits(np.frombuffer(packed, np.uint8)[: -(-array.size // 8)], count=array.size) == 1] = left
        np.testing.assert_array_equal(again.reshape(array.shape), array, err_msg=name)
        expected += min(len(packed), array.nbytes)
    dense = sum(tensor.numel() for tensor in case.model.parameters()) * 2
    assert sparse_bytes(sparse) == expected < dense == sparse_bytes(case.model)
    assert zipped_bytes(sparse) < zipped_bytes(case.model)


def test_a_model_of_zeros_takes_next_to_nothing():
    linear = nn.Linear(64, 1000, bias=False)
    nn.init.zeros_(linear.weight)
    assert sparse_bytes(linear) == 8000
    assert zipped_bytes(linear) < 500


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    case = build("vit")
    layers = find_layers(case.model)
    with pytest.raises(UserError, match="expected a share from 0 to below 1"):
        magnitude(case.model, layers, share)
    with pytest.raises(UserError, match="expected a share from 0 to below 1"):
        wanda(case.model, layers, case.inputs, share)
