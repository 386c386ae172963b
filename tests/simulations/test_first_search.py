"""What is kept of a first search, and for whom it is computed again."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from personalization.data.texts import TextPreprocessing
from personalization.sensing.prior import Prior
from personalization.settings import PersonalizationSettings
from personalization.training.loop import TrainingData
from simulations.comparison import first_search
from simulations.comparison.first_search import FirstSearches

INPUTS = {"input_ids": torch.arange(12).reshape(3, 4)}


@pytest.fixture
def searches(monkeypatch):
    calls = []

    def personalize(model, inputs, **given):
        calls.append(given)
        return SearchStandIn(len(calls))

    monkeypatch.setattr(first_search, "personalize", personalize)
    monkeypatch.setattr(first_search, "replace", lambda found, **_: found)
    own = FirstSearches()
    model = nn.Linear(2, 2)

    def ask(**changed):
        given = {
            "labels": None,
            "prior": None,
            "dropped_units": None,
            "past": None,
            "training": None,
            "preprocessing": None,
            "final": True,
            "settings": PersonalizationSettings(),
            **changed,
        }
        return own(given.pop("model", model), INPUTS, **given).number

    return ask


class SearchStandIn(SimpleNamespace):
    def __init__(self, number):
        super().__init__(number=number, pruned=None)


def test_the_same_search_is_made_once(searches):
    assert [searches(), searches(), searches()] == [1, 1, 1]


@pytest.mark.parametrize(
    "changed",
    [
        {"labels": torch.ones(3)},
        {"training": TrainingData(INPUTS, None)},
        {"training": TrainingData(INPUTS, torch.ones(3, 4))},
        {"preprocessing": TextPreprocessing("{}", None, 64)},
        {"model": nn.Linear(2, 2)},
        {"settings": PersonalizationSettings(recovery="fold")},
    ],
)
def test_another_search_is_made_anew_and_kept_beside_it(searches, changed):
    assert [searches(), searches(**changed), searches(), searches(**changed)] == [1, 2, 1, 2]


@pytest.mark.parametrize("trains", [True, False])
def test_a_round_s_model_is_another_one_only_where_the_settings_train(searches, trains):
    settings = PersonalizationSettings(recovery="distill" if trains else "ridge", training_steps=5 if trains else 0)
    found = [searches(settings=settings, final=final) for final in (True, False)]
    assert found == [1, 2 if trains else 1]


def test_what_a_fleet_knows_is_no_first_search(searches):
    prior = Prior(np.ones(2), np.ones(2))
    assert [searches(prior=prior), searches(prior=prior), searches()] == [1, 2, 3]
