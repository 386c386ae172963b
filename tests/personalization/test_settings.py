import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalization.errors import UserError
from personalization.settings import AUTOMATIC, PersonalizationSettings

SHARES = ("budget", "personalized_share", "layer_limit")
COUNTS = ("probes", "training_steps", "adapters", "seed")
POSITIVE_COUNTS = ("layers_per_probe", "steps")
POSITIVE = ("ridge", "tolerance")
CHOICES = {
    "signal": ("entropy", "loss"),
    "solver": ("deviation", "lasso", "omp"),
    "recovery": ("fold", "ridge", "distill", "tune", "distill-tune"),
    "score": ("variance", "residual"),
    "training_precision": ("single", "bfloat16"),
    "budget_kind": ("weights", "bytes", "macs", "latency"),
}


def refused(**fields):
    (name,) = fields
    with pytest.raises(UserError, match=rf"^{name}\b.*expected") as error:
        PersonalizationSettings(**fields)
    assert "\n" not in str(error.value)


@given(
    share=st.floats(0, 1, exclude_min=True),
    count=st.integers(0, 10**6),
    positive=st.floats(1e-9, 1e9),
    held=st.floats(0.01, 0.99),
    levels=st.lists(st.floats(0, 1, exclude_min=True), min_size=1, max_size=4).map(sorted).map(tuple),
)
def test_what_makes_sense_is_kept_as_it_is(share, count, positive, held, levels):
    fields = dict.fromkeys(SHARES, share) | dict.fromkeys(COUNTS, count) | dict.fromkeys(POSITIVE, positive)
    fields |= dict.fromkeys(POSITIVE_COUNTS, count + 1) | {"held_out_share": held, "levels": levels}
    made = PersonalizationSettings(**fields)
    assert {name: getattr(made, name) for name in fields} == fields


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in CHOICES.items() for v in values])
def test_every_choice_is_accepted(name, value):
    assert getattr(PersonalizationSettings(**{name: value}), name) == value


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("value", ["", "nothing", None])
def test_other_choices_are_refused_and_the_right_ones_named(name, value):
    with pytest.raises(UserError, match=", ".join(CHOICES[name])):
        PersonalizationSettings(**{name: value})


@pytest.mark.parametrize("name", SHARES)
@pytest.mark.parametrize("value", [0.0, -0.1, 1.0001, math.nan, math.inf])
def test_shares_outside_their_range_are_refused(name, value):
    refused(**{name: value})


@pytest.mark.parametrize("name", COUNTS)
def test_negative_counts_are_refused(name):
    refused(**{name: -1})


@pytest.mark.parametrize("name", POSITIVE_COUNTS)
@pytest.mark.parametrize("value", [0, -1])
def test_counts_that_must_be_positive_are(name, value):
    refused(**{name: value})


@pytest.mark.parametrize("name", POSITIVE)
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_strengths_that_are_not_positive_are_refused(name, value):
    refused(**{name: value})


def test_an_infinite_tolerance_is_no_tolerance_but_an_infinite_ridge_is_a_mistake():
    assert PersonalizationSettings(tolerance=math.inf).tolerance == math.inf
    refused(ridge=math.inf)


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, math.nan])
def test_some_samples_are_held_out_and_some_are_not(value):
    refused(held_out_share=value)


@pytest.mark.parametrize("levels", [(), (0.0,), (0.5, 1.1), (0.8, 0.5), (math.nan,), (-0.5, 0.5)])
def test_levels_rise_and_are_shares(levels):
    refused(levels=levels)


def test_fresh_probes_are_none_or_more_or_chosen_by_the_prior():
    assert PersonalizationSettings().step_probes == AUTOMATIC
    with pytest.raises(UserError, match="step_probes -2"):
        PersonalizationSettings(step_probes=-2)
