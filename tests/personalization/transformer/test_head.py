import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from personalization.transformer.head import classifier_path, label_shift, shift_classifier
from personalization.transformer.layers import find_layers
from tests.personalization.architectures import CLASSES, build

few = settings(max_examples=15)


def calibrated_logits(mixture, samples, seed, noise=1.0):
    """Draw classes from `mixture` and evidence from Gaussians; return the logits of the exact posterior if all classes
    were equally likely, and the classes drawn.
    """
    rng = np.random.default_rng(seed)
    classes = len(mixture)
    labels = rng.choice(classes, samples, p=mixture)
    evidence = np.eye(classes)[labels] + noise * rng.standard_normal((samples, classes))
    # log N(e; unit vector of class c, noise^2) up to what all classes share.
    return torch.from_numpy(evidence / noise**2), labels


@few
@given(seed=st.integers(0, 10**6), classes=st.integers(2, 6))
def test_the_mixture_of_classes_is_recovered(seed, classes):
    mixture = np.random.default_rng(seed).dirichlet(np.ones(classes))
    logits, _ = calibrated_logits(mixture, 4000, seed, noise=0.5)
    found = label_shift(logits).exp() / classes
    np.testing.assert_allclose(found.sum(), 1.0, atol=1e-9)
    np.testing.assert_allclose(found, mixture, atol=0.03)


def test_shifted_predictions_are_better_where_classes_are_missing():
    logits, labels = calibrated_logits([0.4, 0.4, 0.2, 0.0, 0.0, 0.0], 300, seed=0, noise=0.8)
    plain = (logits.argmax(-1).numpy() == labels).mean()
    shifted = ((logits + label_shift(logits)).argmax(-1).numpy() == labels).mean()
    assert shifted > plain + 0.05


@few
@given(seed=st.integers(0, 10**6))
def test_a_balanced_device_is_hardly_shifted(seed):
    logits, _ = calibrated_logits(np.full(4, 0.25), 4000, seed, noise=0.5)
    assert label_shift(logits).abs().max() < 0.2


def test_classes_that_were_never_seen_stay_possible():
    logits = torch.zeros(200, 10)
    logits[:, 0] = 60.0
    shift = label_shift(logits)
    assert torch.isfinite(shift).all()
    assert shift.dtype == logits.dtype
    # One sample is spread over all classes: (1 / 10) / 201 of the mixture for each that was never seen.
    torch.testing.assert_close(shift[1:], torch.full((9,), float(np.log(1 / 201))), atol=1e-3, rtol=0)
    assert (label_shift(logits, pseudo_samples=50.0)[1:] > shift[1:]).all()


@few
@given(seed=st.integers(0, 10**6))
def test_the_order_of_samples_and_classes_does_not_matter(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(20, 5, generator=generator, dtype=torch.float64)
    rows, columns = torch.randperm(20, generator=generator), torch.randperm(5, generator=generator)
    torch.testing.assert_close(label_shift(logits[rows][:, columns]), label_shift(logits)[columns])


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("vit", "classifier"),
        ("deit", "classifier"),
        ("dinov2", "classifier"),
        ("bert", "classifier"),
        ("llama", None),
        ("gpt2", None),
    ],
)
def test_the_classifier_is_found_and_a_language_model_has_none(name, path):
    case = build(name)
    classes = case.model(**case.inputs).logits.shape[-1]
    assert classifier_path(case.model, find_layers(case.model), classes) == path


def test_a_linear_module_inside_the_blocks_is_no_classifier():
    case = build("vit")
    assert classifier_path(case.model, find_layers(case.model), case.mlp_units) is None


def test_a_shifted_classifier_shifts_the_logits_and_no_other_model():
    case = build("vit")
    shared = {id(parameter): parameter for parameter in case.model.parameters()}
    other = copy.deepcopy(case.model, dict(shared))
    before = case.model.classifier.bias.clone()
    shift = torch.arange(CLASSES, dtype=torch.float32)
    shift_classifier(other, "classifier", shift)
    assert torch.equal(case.model.classifier.bias, before)
    assert other.classifier.weight is case.model.classifier.weight
    with torch.no_grad():
        torch.testing.assert_close(
            other(**case.inputs).logits, case.model(**case.inputs).logits + shift, atol=1e-5, rtol=1e-5
        )
