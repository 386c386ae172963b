import numpy as np
import pytest
import torch

from personalization.cutting.cut_model import cut_model
from personalization.model_files.pieces import (
    BackboneManifest,
    PieceError,
    assemble_backbone,
    make_manifest,
    piece_hash,
    split_backbone,
)
from personalization.transformer.groups import unit_groups
from personalization.transformer.layers import find_layers
from tests.personalization.architectures import ARCHITECTURES, build, logits


def split(model):
    layers = find_layers(model)
    groups = unit_groups(model, layers, mlp_groups=3)
    pieces = split_backbone(model, layers, groups)
    return layers, groups, pieces, make_manifest(model, {"identifier": "x"}, groups, pieces)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_pieces_put_together_are_the_model(name):
    case = build(name)
    _, _, pieces, manifest = split(case.model)
    again = assemble_backbone(manifest, pieces, {})
    assert tuple(pieces) == manifest.names
    assert torch.equal(logits(again, case.inputs), logits(case.model, case.inputs))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_model_without_some_groups_is_the_cut_model(name):
    case = build(name)
    layers, groups, pieces, manifest = split(case.model)
    lacking = {f"{layer.index}.0" for layer in layers}
    held = {key: piece for key, piece in pieces.items() if key not in lacking}
    kept = [np.setdiff1d(np.arange(layer.units), own[0]) for layer, own in zip(layers, groups, strict=True)]
    cut = cut_model(case.model, layers, kept)
    hollow = assemble_backbone(manifest, held, {})
    torch.testing.assert_close(logits(hollow, case.inputs), logits(cut, case.inputs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["vit", "llama"])
def test_a_fold_is_added_to_the_writers_bias(name):
    case = build(name)
    layers, _, pieces, manifest = split(case.model)
    width = case.model.config.hidden_size
    fold = torch.arange(float(width))
    again = assemble_backbone(manifest, pieces, {1: fold})
    writer, own = again.get_submodule(layers[1].writer), case.model.get_submodule(layers[1].writer)
    before = torch.zeros(width) if own.bias is None else own.bias
    torch.testing.assert_close(writer.bias, before + fold)


def test_the_manifest_survives_its_record_and_the_root_tells_backbones_apart():
    roots = set()
    for seed in (0, 1):
        _, _, _, manifest = split(build("vit", seed=seed).model)
        assert BackboneManifest.from_record(manifest.to_record()).root == manifest.root
        roots.add(manifest.root)
    assert len(roots) == 2


@pytest.mark.parametrize("key", ["config", "hashes", "order", "order-type", "group-sizes", "layer-groups", "base"])
def test_a_manifest_that_lacks_something_is_refused(key):
    record = split(build("vit").model)[3].to_record()
    del record[key]
    with pytest.raises(PieceError):
        BackboneManifest.from_record(record)


@pytest.mark.parametrize(
    "change", [{"hashes": b"short"}, {"config": "{"}, {"order": b"\0"}, {"group-sizes": [1]}, {"order-type": "O"}]
)
def test_a_manifest_that_does_not_fit_together_is_refused(change):
    record = split(build("vit").model)[3].to_record()
    with pytest.raises(PieceError):
        BackboneManifest.from_record({**record, **change})


@pytest.mark.parametrize("description", ["{}", "[]", '{"architecture": "os", "attention": "sdpa"}'])
def test_a_manifest_builds_only_models_of_transformers(description):
    _, _, pieces, manifest = split(build("vit").model)
    wrong = BackboneManifest.from_record({**manifest.to_record(), "description": description})
    with pytest.raises(PieceError):
        assemble_backbone(wrong, pieces, {})


def test_a_piece_of_the_wrong_shape_is_refused():
    _, _, pieces, manifest = split(build("vit").model)
    with pytest.raises(PieceError):
        assemble_backbone(manifest, {**pieces, "0.0": pieces["0.0"][:-1]}, {})
    with pytest.raises(PieceError):
        assemble_backbone(manifest, {}, {})


def test_half_precision_is_used_only_where_it_is_exact():
    model = build("vit").model
    assert torch.float32 in {piece.dtype for piece in split(model)[2].values()}
    assert {piece.dtype for piece in split(model.half().float())[2].values()} == {torch.float16}


def test_a_hash_covers_type_shape_and_contents():
    a = torch.arange(6.0)
    assert len({piece_hash(t) for t in (a, a.half(), a.view(2, 3), a + 1)}) == 4
    assert piece_hash(a) == piece_hash(a.clone())
