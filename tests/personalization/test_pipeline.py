import importlib
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from architectures import Shape, build
from hypothesis import given, settings
from hypothesis import strategies as st

from personalization import PersonalizationSettings, UserError, costs, personalize
from personalization.backbone import load_backbone
from personalization.footprint import block_weights, count_macs, kept_weights, stored_bytes
from personalization.images import to_pixel_values
from personalization.layers import find_layers
from personalization.measurement import loss_increase
from personalization.pipeline import fit_split
from personalization.prior import Prior
from personalization.settings import AUTOMATIC
from personalization.storage import load_personal_model, save_personal_model
from simulations.data import load_dataset
from simulations.pretrain import MODEL_FOLDER

either = pytest.mark.parametrize("name", ["vit", "llama"])
SAMPLES = 24
SHAPE = Shape(groups=4, queries_per_group=1, mlp=14, depth=3)
LAYERS, ATOMS = 6, 12


def tiny(name, seed=1):
    """Return a model with 6 layers and the inputs of 24 samples; texts are padded to different lengths."""
    model = build(name, SHAPE, seed).model
    generator = torch.Generator().manual_seed(seed)
    if name == "vit":
        return model, {"pixel_values": torch.randn(SAMPLES, 3, 8, 8, generator=generator)}
    mask = (torch.arange(7) < 4 + torch.arange(SAMPLES)[:, None] % 4).long()
    return model, {
        "input_ids": torch.randint(1, 31, (SAMPLES, 7), generator=generator),
        "attention_mask": mask,
    }


def chosen(**fields):
    return PersonalizationSettings(
        **{"tolerance": math.inf, "probes": 4, "step_probes": 2, "training_steps": 3} | fields
    )


def prior(seed=0, precision=1.0):
    return Prior(np.random.default_rng(seed).exponential(0.1, ATOMS), np.full(ATOMS, precision))


@torch.no_grad()
def outputs(model, inputs):
    logits = model(**inputs).logits
    return logits if logits.ndim == 2 else logits[inputs["attention_mask"].bool()]


def tensors(model):
    return {key: tensor.clone() for key, tensor in model.state_dict().items()}


@pytest.mark.parametrize("recovery", ["distill", "tune"])
def test_no_steps_are_no_training_and_need_no_labels_and_no_adapters(recovery, monkeypatch):
    monkeypatch.setattr("personalization.extras.importlib.util.find_spec", lambda name: None)
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
@pytest.mark.parametrize("kind", ["weights", "bytes", "macs"])
def test_every_kind_of_budget_is_met_in_its_own_measure(name, kind):
    model, inputs = tiny(name)
    budget = {"weights": 0.4, "bytes": 0.75, "macs": 0.6}[kind]
    found = personalize(model, inputs, settings=chosen(budget=budget, budget_kind=kind))
    one = {key: value[:1] for key, value in inputs.items()}
    share = {
        "weights": lambda: found.weights_kept,
        "bytes": lambda: stored_bytes(found.model) / stored_bytes(model),
        "macs": lambda: count_macs(found.model, one, found.layers) / count_macs(model, one, found.layers),
    }[kind]()
    # Biases that a decoder's writers did not have before are not in the budget: 16 numbers a layer and their names.
    slack = LAYERS * (16 * 4 + 120) / stored_bytes(model) if kind == "bytes" else 1e-9
    assert share <= budget + slack
    assert share > budget - 0.2


@either
def test_a_latency_budget_is_met_where_latency_follows_the_work(name, monkeypatch):
    """Clocks of a busy machine decide nothing here: each multiply-accumulate is said to take a nanosecond."""
    model, inputs = tiny(name)
    layers = find_layers(model)

    def latency(measured, sample):
        return 1e-6 * count_macs(measured, sample, layers)

    monkeypatch.setattr(costs, "measure_latency", latency)
    found = personalize(model, inputs, settings=chosen(budget=0.8, budget_kind="latency"))
    one = {key: value[:1] for key, value in inputs.items()}
    assert latency(found.model, one) <= 0.8 * latency(model, one) * (1 + 1e-9)


@either
def test_a_saved_personal_model_is_the_one_that_was_made(name, tmp_path):
    model, inputs = tiny(name)
    found = personalize(model, inputs, settings=chosen(recovery="distill"))
    save_personal_model(tmp_path, found.model, layers=found.layers, kept=found.kept)
    assert torch.equal(outputs(load_personal_model(tmp_path).model, inputs), outputs(found.model, inputs))


@either
def test_a_whole_budget_gives_the_dense_model_back(name):
    model, inputs = tiny(name)
    found = personalize(model, inputs, settings=chosen(budget=1.0, step_probes=0, adapt_head=False))
    assert found.weights_kept == 1.0
    torch.testing.assert_close(outputs(found.model, inputs), outputs(model, inputs), atol=1e-3, rtol=1e-3)


@either
def test_what_no_step_could_commit_is_not_cut(name):
    model, inputs = tiny(name)
    found = personalize(model, inputs, settings=chosen(tolerance=1e-9))
    assert (found.weights_kept, found.agreement, found.entropy_increase) == (1.0, 1.0, 0.0)
    assert not found.levels.any()


def test_compensation_keeps_predictions_closer_than_folding():
    model, inputs = tiny("vit")
    increases = [
        personalize(model, inputs, prior=prior(), settings=chosen(recovery=r, probes=0, step_probes=0)).entropy_increase
        for r in ("fold", "ridge")
    ]
    assert increases[1] < increases[0]


@either
def test_the_loss_signal_measures_the_loss_of_the_labels_on_held_out_samples(name):
    model, inputs = tiny(name)
    dense = model(**inputs).logits.detach()
    labels = dense.argmax(-1)
    found = personalize(model, inputs, labels=labels, settings=chosen(signal="loss", adapt_head=False))
    entropy = personalize(model, inputs, settings=chosen(adapt_head=False))
    np.testing.assert_array_equal(found.samples.design, entropy.samples.design)
    assert (found.samples.measurements != entropy.samples.measurements).any()
    held = ~fit_split(SAMPLES, 0.25, np.random.default_rng(0))
    with torch.no_grad():
        masked = found.pruned.last.outputs if name == "vit" else model.lm_head(found.pruned.last.outputs)
    increase = loss_increase(dense[held], masked[held], labels[held])
    counted = increase if increase.ndim == 1 else increase[inputs["attention_mask"][held].bool()]
    assert found.entropy_increase > 0.0
    assert found.entropy_increase == pytest.approx(float(counted.mean()), abs=1e-5)


def test_past_samples_and_the_prior_stand_in_for_probes():
    model, inputs = tiny("vit")
    first = personalize(model, inputs, settings=chosen(probes=5, step_probes=0))
    second = personalize(model, inputs, past=first.samples, settings=chosen(probes=7, step_probes=0, seed=1))
    # Twelve probes of one layer each: every atom once, for what has been seen comes last.
    np.testing.assert_array_equal(second.samples.design.sum(0), np.ones(ATOMS))
    np.testing.assert_array_equal(second.samples.measurements[:5], first.samples.measurements)
    assert second.evaluations == 7 + 1
    alone = personalize(model, inputs, prior=prior(), settings=chosen(probes=0, step_probes=0))
    assert alone.evaluations == 1
    # What the prior holds for nearly nothing is raised a little, see `recovery.scaling`.
    np.testing.assert_allclose(alone.sensitivity, prior().sensitivity, rtol=1e-6, atol=2e-3)
    assert not alone.precision.any()


def test_the_head_is_adapted_only_where_asked_for_and_only_in_the_personal_model():
    model, inputs = tiny("vit")
    for recovery in ("ridge", "distill"):
        plain, adapted = (
            personalize(model, inputs, settings=chosen(adapt_head=a, recovery=recovery, training_steps=0))
            for a in (False, True)
        )
        assert torch.equal(plain.model.classifier.bias, model.classifier.bias)
        assert not torch.equal(adapted.model.classifier.bias, model.classifier.bias)


@pytest.mark.parametrize("solver", ["deviation", "lasso", "omp"])
@pytest.mark.parametrize("score", ["variance", "residual"])
def test_every_solver_and_score_with_large_probes(solver, score):
    model, inputs = tiny("vit")
    fields = {"solver": solver, "score": score, "layers_per_probe": 3, "probes": 8}
    found = personalize(model, inputs, prior=prior(), settings=chosen(**fields))
    assert found.weights_kept <= 0.5
    assert found.fit_r2 is not None


@given(samples=st.integers(8, 300), share=st.floats(0.01, 0.99), seed=st.integers(0, 10**6))
@settings(deadline=None)
def test_samples_are_split_by_share_with_two_or_more_on_each_side(samples, share, seed):
    fit = fit_split(samples, share, np.random.default_rng(seed))
    held = int((~fit).sum())
    assert len(fit) == samples
    assert 2 <= held <= samples - 2
    assert abs(held - share * samples) <= 2


@pytest.mark.parametrize("count", [0, 1, 7])
def test_too_few_samples(count):
    model, inputs = tiny("vit")
    few = {key: value[:count] for key, value in inputs.items()}
    with pytest.raises(UserError, match=f"{count} private samples; probes need at least 8"):
        personalize(model, few, settings=chosen())


def test_the_fewest_samples_are_enough():
    model, inputs = tiny("vit")
    found = personalize(model, {key: value[:8] for key, value in inputs.items()}, settings=chosen())
    assert found.weights_kept <= 0.5


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "needs a label for every private sample"),
        (torch.zeros(3, dtype=torch.long), "needs a label for every private sample"),
        (torch.full((SAMPLES,), 5), "labels from 5 to 5; the model knows 0 to 4"),
        (torch.full((SAMPLES,), -100), "labels from -100"),
        (torch.zeros(SAMPLES, 2, dtype=torch.long), r"labels of shape \[24, 2\]; expected \[24\]"),
    ],
)
def test_labels_that_do_not_fit(labels, message):
    model, inputs = tiny("vit")
    with pytest.raises(UserError, match=message):
        personalize(model, inputs, labels=labels, settings=chosen(signal="loss"))


def test_a_language_model_needs_a_label_for_every_position():
    model, inputs = tiny("llama")
    with pytest.raises(UserError, match=r"expected \[24, 7\]"):
        personalize(model, inputs, labels=torch.zeros(SAMPLES, dtype=torch.long), settings=chosen(signal="loss"))


def test_inputs_of_different_numbers_of_samples():
    model, inputs = tiny("llama")
    inputs["attention_mask"] = inputs["attention_mask"][:9]
    with pytest.raises(UserError, match=r"inputs of \[9, 24\] samples"):
        personalize(model, inputs, settings=chosen())


def test_a_budget_that_the_limits_do_not_allow():
    model, inputs = tiny("vit")
    with pytest.raises(UserError, match=r"budget 0\.1: the limits allow at least"):
        personalize(model, inputs, settings=chosen(budget=0.1, personalized_limit=0.5, generic_limit=0.5))


def test_nothing_to_recover_from():
    model, inputs = tiny("vit")
    with pytest.raises(UserError, match="no probes were measured and there is no fleet prior"):
        personalize(model, inputs, settings=chosen(probes=0))


def test_samples_that_are_no_numbers():
    model, inputs = tiny("vit")
    inputs["pixel_values"][0] = torch.nan
    with pytest.raises(UserError, match="not finite"):
        personalize(model, inputs, settings=chosen())


def test_the_package_gives_the_function_though_a_module_has_its_name():
    importlib.import_module("personalization.pipeline")
    from personalization import personalize as found

    assert found is importlib.import_module("personalization.pipeline").personalize


def test_the_package_alone_imports_nothing_large():
    code = "import sys, personalization; sys.exit(any(name in sys.modules for name in ('torch', 'numpy')))"
    subprocess.run([sys.executable, "-c", code], check=True)


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


def test_fresh_probes_are_spent_only_where_no_prior_helps():
    model, inputs = tiny("vit")
    settings = chosen(probes=4, step_probes=AUTOMATIC, steps=1)
    alone = personalize(model, inputs, settings=settings)
    helped = personalize(model, inputs, prior=prior(), settings=settings)
    assert helped.evaluations == 4 + 1
    assert alone.evaluations > helped.evaluations
    full = prior()
    thin = Prior(full.sensitivity, np.where(np.arange(len(full.precision)) == 0, 0.0, full.precision))
    assert personalize(model, inputs, prior=thin, settings=settings).evaluations > helped.evaluations
