import numpy as np
import pytest
import torch

from personalization import PersonalizationSettings, personalize
from personalization.allocation.footprint import block_weights, kept_weights
from personalization.data.images import to_pixel_values
from personalization.errors import UserError
from personalization.model_files.backbone import load_backbone
from personalization.model_files.storage import load_personal_model, save_personal_model
from personalization.transformer.layers import find_layers
from simulations.data import load_dataset
from simulations.pretrain import MODEL_FOLDER
from tests.personalization.pipelines import ATOMS, LAYERS, chosen, either, outputs, prior, tiny


def tensors(model):
    return {key: tensor.clone() for key, tensor in model.state_dict().items()}


@pytest.mark.parametrize("recovery", ["distill", "tune", "distill-tune"])
def test_no_steps_are_no_training_and_need_no_labels_and_no_adapters(recovery, monkeypatch):
    monkeypatch.setattr("personalization.system.extras.importlib.util.find_spec", lambda name: None)
    model, inputs = tiny("vit")
    found, ridge = (
        personalize(model, inputs, settings=chosen(**own))
        for own in ({"recovery": recovery, "training_steps": 0, "adapters": 2}, {"recovery": "ridge"})
    )
    for one, other in zip(found.model.parameters(), ridge.model.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(UserError, match="adapters need the library peft" if recovery == "distill" else "needs labels"):
        personalize(model, inputs, settings=chosen(recovery=recovery, adapters=2))


@either
@pytest.mark.parametrize("recovery", ["fold", "ridge", "distill"])
@pytest.mark.parametrize("steps", [1, 3])
def test_the_budget_is_met_and_what_is_reported_is_what_was_made(name, recovery, steps):
    model, inputs = tiny(name)
    found = personalize(model, inputs, settings=chosen(recovery=recovery, steps=steps))
    assert found.weights_kept <= 0.5
    assert found.weights_kept == kept_weights(found.layers, found.kept) / block_weights(found.layers)
    for layer, units, level in zip(found.layers, found.kept, found.levels, strict=True):
        assert level == pytest.approx(1 - len(units) / layer.units)
        assert level <= 0.95
        if len(units):
            assert found.model.get_submodule(layer.writer).weight.shape[1] == len(units) * layer.columns_per_unit
    assert found.sensitivity.shape == found.precision.shape == (ATOMS,)
    assert (found.sensitivity >= 0).all()
    assert ((found.precision >= 0) & (found.precision < 1)).all()
    assert found.personalized.any()
    assert 0.0 <= found.agreement <= 1.0
    assert found.entropy_increase > 0.0
    assert found.samples.design.shape == (4, ATOMS)
    assert 4 + steps * 3 <= found.evaluations <= 4 + steps * 4
    assert outputs(found.model, inputs).isfinite().all()
    assert not found.model.training


@either
def test_nothing_happens_to_the_dense_model(name):
    model, inputs = tiny(name)
    before, kept_inputs = tensors(model), {key: value.clone() for key, value in inputs.items()}
    personalize(model, inputs, settings=chosen(recovery="distill", steps=2))
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert all(torch.equal(value, kept_inputs[key]) for key, value in inputs.items())
    assert not any(m._forward_hooks or m._forward_pre_hooks or "forward" in m.__dict__ for m in model.modules())


@either
def test_the_seed_decides_everything(name):
    model, inputs = tiny(name)
    global_state = torch.random.get_rng_state()
    one, same, other = (
        personalize(model, inputs, settings=chosen(recovery="distill", steps=2, seed=seed)) for seed in (5, 5, 6)
    )
    assert all(map(np.array_equal, one.kept, same.kept))
    assert all(torch.equal(tensor, same.model.state_dict()[key]) for key, tensor in one.model.state_dict().items())
    np.testing.assert_array_equal(one.samples.measurements, same.samples.measurements)
    assert one.evaluations == same.evaluations
    assert (one.samples.design != other.samples.design).any()
    assert torch.equal(torch.random.get_rng_state(), global_state)


@either
def test_units_that_the_fleet_dropped_are_never_kept(name):
    model, inputs = tiny(name)
    dropped = [np.empty(0, dtype=np.int64) for _ in range(LAYERS)]
    dropped[1], dropped[2], dropped[5] = np.arange(5), np.array([0, 3]), np.arange(14)
    found = personalize(model, inputs, dropped_units=dropped, settings=chosen(budget=0.6, steps=2))
    assert not any(set(units) & set(gone) for units, gone in zip(found.kept, dropped, strict=True))
    assert len(found.kept[5]) == 0
    assert found.weights_kept <= 0.6


@either
def test_a_saved_personal_model_is_the_one_that_was_made(name, tmp_path):
    model, inputs = tiny(name)
    found = personalize(model, inputs, settings=chosen(recovery="distill"))
    save_personal_model(tmp_path, found.model, layers=found.layers, kept=found.kept)
    assert torch.equal(outputs(load_personal_model(tmp_path).model, inputs), outputs(found.model, inputs))


def test_compensation_keeps_predictions_closer_than_folding():
    model, inputs = tiny("vit")
    increases = [
        personalize(model, inputs, prior=prior(), settings=chosen(recovery=r, probes=0, step_probes=0)).entropy_increase
        for r in ("fold", "ridge")
    ]
    assert increases[1] < increases[0]


def test_the_head_is_adapted_only_where_asked_for_and_only_in_the_personal_model():
    model, inputs = tiny("vit")
    for recovery in ("ridge", "distill"):
        plain, adapted = (
            personalize(model, inputs, settings=chosen(adapt_head=a, recovery=recovery, training_steps=0))
            for a in (False, True)
        )
        assert torch.equal(plain.model.classifier.bias, model.classifier.bias)
        assert not torch.equal(adapted.model.classifier.bias, model.classifier.bias)


@pytest.mark.slow
def test_half_of_the_bundled_model_is_as_accurate_as_all_of_it_on_a_client_s_classes():
    backbone = load_backbone(str(MODEL_FOLDER))
    assert backbone.preprocessing is not None
    data = load_dataset(labels=backbone.labels, preprocessing=backbone.preprocessing)
    rng = np.random.default_rng(0)
    classes = rng.choice(10, 3, replace=False)
    own = rng.choice(np.flatnonzero(np.isin(data.train_labels, classes)), 200, replace=False)
    tested = np.flatnonzero(np.isin(data.test_labels, classes))
    inputs, test_inputs = (
        {"pixel_values": to_pixel_values(images, backbone.preprocessing)}
        for images in (data.train_images[own], data.test_images[tested])
    )
    found = personalize(backbone.model, inputs, settings=PersonalizationSettings(probes=12))
    dense, personal = (
        float((outputs(model, test_inputs).argmax(-1).numpy() == data.test_labels[tested]).mean())
        for model in (backbone.model, found.model)
    )
    assert found.weights_kept <= 0.5
    assert personal >= dense - 0.01
    # Without the head's shift, which alone makes up for much.
    plain = personalize(backbone.model, inputs, settings=PersonalizationSettings(probes=12, adapt_head=False))
    assert plain.agreement >= 0.9
    assert len(find_layers(backbone.model)) == len(found.kept)
