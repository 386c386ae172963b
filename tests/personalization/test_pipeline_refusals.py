import pytest
import torch

from personalization import UserError, personalize
from tests.personalization.pipelines import SAMPLES, chosen, tiny


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


def test_nothing_to_recover_from():
    model, inputs = tiny("vit")
    with pytest.raises(UserError, match="no probes were measured and there is no fleet prior"):
        personalize(model, inputs, settings=chosen(probes=0))


def test_samples_that_are_no_numbers():
    model, inputs = tiny("vit")
    inputs["pixel_values"][0] = torch.nan
    with pytest.raises(UserError, match="not finite"):
        personalize(model, inputs, settings=chosen())
