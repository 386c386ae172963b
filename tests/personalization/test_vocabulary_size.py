"""A device chooses how many tokens it keeps, by what spelling the others and cutting its blocks should cost."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import personalization.vocabulary_size as sizes_of
from personalization.errors import UserError
from personalization.layers import find_layers
from personalization.own_vocabulary import own_vocabulary
from personalization.prior import Prior
from personalization.settings import PersonalizationSettings
from personalization.tasks import text_samples
from personalization.texts import TextPreprocessing
from personalization.vocabulary import choose_tokens
from personalization.vocabulary_size import spelled_shares, vocabulary_size
from tests.tiny_text import VOCABULARY, tiny_language_model, tiny_tokenizer

SETTINGS = PersonalizationSettings(budget=0.8, budget_kind="bytes", tolerance=math.inf, seed=2)
NAMED = tiny_tokenizer().get_vocab_size()


def preprocessing():
    return TextPreprocessing(tiny_tokenizer().to_str(), None, 64)


def windows(*, news: float = 0.0, seed: int = 0, count: int = 60):
    """Text of a few tokens, of which a share of the last fifth is drawn from all."""
    rng = np.random.default_rng(seed)
    found = rng.integers(260, 280, (count, 21))
    late = found[count * 4 // 5 :]
    new = rng.random(late.shape) < news
    late[new] = rng.integers(0, NAMED, int(new.sum()))
    return found


def chosen(text, *, tied=True, prior=None, settings=SETTINGS):
    model = tiny_language_model("llama", tied=tied)
    inputs = text_samples(text, most=10).inputs
    return vocabulary_size(model, preprocessing(), inputs, text, prior=prior, settings=settings)


def prior(sensitivity: float):
    atoms = len(find_layers(tiny_language_model("llama"))) * len(SETTINGS.levels)
    return Prior(np.full(atoms, sensitivity) * np.tile([1.0, 3.0], atoms // 2), np.full(atoms, 9.0))


@pytest.mark.parametrize("news", [0.0, 0.4])
def test_the_end_of_a_text_says_how_often_words_come_that_its_beginning_gives_no_reason_to_keep(news):
    text, expected = windows(news=news), np.random.default_rng(1).dirichlet(np.full(VOCABULARY, 0.5))
    sizes, shares = spelled_shares(preprocessing(), text, expected)
    assert sizes.tolist() == [260, 280, 300, 320]
    split = round(60 * 20 * 0.8)
    beginning, end = text[:, 1:].ravel()[:split], text[:, 1:].ravel()[split:]
    for size, share in zip(sizes, shares, strict=True):
        kept = choose_tokens(preprocessing(), beginning, expected, most=int(size)).kept
        spelled = ~np.isin(end, kept), expected[~np.isin(np.arange(VOCABULARY), kept)].sum()
        assert share == pytest.approx((spelled[0].sum() + 1000 * spelled[1]) / (len(end) + 1000))
    assert (np.diff(shares) <= 0.0).all()


def test_who_says_what_is_new_keeps_more_tokens():
    few, more = (chosen(windows(news=news), prior=prior(1.0)) for news in (0.0, 0.6))
    assert few < more


@pytest.mark.parametrize("known", [True, False])
def test_the_more_a_spelled_token_costs_beside_the_blocks_the_more_tokens_stay(known, monkeypatch):
    text, fleet = windows(news=0.3), prior(1.0) if known else None
    found = []
    for cost in (0.0, sizes_of._SPELLED, 1e6):
        monkeypatch.setattr(sizes_of, "_SPELLED", cost)
        found.append(chosen(text, prior=fleet))
    assert found[0] == 260 <= found[1] <= found[2] == VOCABULARY


def test_where_the_fleet_needs_its_blocks_fewer_tokens_stay():
    found = [chosen(windows(news=0.3), prior=prior(sensitivity)) for sensitivity in (1e-4, 1e3)]
    assert found == [VOCABULARY, 260]


def test_without_a_fleet_errors_are_taken_for_what_a_pass_of_the_cut_model_costs(monkeypatch):
    """Of a model that is felt as a whole but not by its local errors nothing else would tell."""
    text, lost = windows(news=0.3), []
    monkeypatch.setattr(sizes_of, "_lost", lambda trace, sizes, curves, settings: lost.append(curves) or sizes * 0.0)
    for increase in (1.0, 4.0):
        monkeypatch.setattr(sizes_of, "measure", lambda *_, increase=increase, **__: increase)
        chosen(text)
    one, four = lost
    np.testing.assert_allclose(four.scale, 4.0 * one.scale)
    layers = find_layers(tiny_language_model("llama"))
    limits = np.full(len(layers), SETTINGS.generic_limit)
    counts = sizes_of.allocate(layers, one, sizes_of.weight_costs(layers), SETTINGS.budget, limits=limits)
    assert sum(one.at(layer.index, 1.0 - counts[layer.index] / layer.units) for layer in layers) == pytest.approx(1.0)


@pytest.mark.parametrize("tied", [True, False])
def test_blocks_get_the_bytes_of_the_rows_that_go(tied, monkeypatch):
    rooms = []
    allocate = sizes_of.allocate

    def noted(layers, curves, costs, budget, **kwargs):
        rooms.append((costs, budget))
        return allocate(layers, curves, costs, budget, **kwargs)

    monkeypatch.setattr(sizes_of, "allocate", noted)
    chosen(windows(), tied=tied, prior=prior(1.0))
    dense = np.array([layer.units for layer in find_layers(tiny_language_model("llama"))])
    (small, share), *_, (whole, all_of_it) = rooms
    assert whole.fixed - small.fixed == 60 * 36 * 4 * (1 if tied else 2)
    assert all_of_it == pytest.approx(SETTINGS.budget)
    assert share * small.total(dense) == pytest.approx(all_of_it * whole.total(dense))


def test_sizes_without_room_for_any_blocks_are_not_chosen(monkeypatch):
    monkeypatch.setattr(sizes_of, "_SPELLED", 1e6)
    settings = replace(SETTINGS, budget=0.45)
    assert chosen(windows(news=0.3), prior=prior(1.0), settings=settings) < VOCABULARY
    with pytest.raises(UserError, match=r"budget 0\.\d+: the limits allow at least"):
        chosen(windows(), prior=prior(1.0), settings=replace(SETTINGS, budget=0.1))


def test_a_vocabulary_of_its_own_choice_is_that_of_the_number_it_chose():
    model, text = tiny_language_model("llama"), windows(news=0.3)
    samples = text_samples(text, most=10)
    own = own_vocabulary(model, preprocessing(), samples, most=-1, settings=SETTINGS, prior=prior(1.0))
    told = own_vocabulary(model, preprocessing(), samples, most=chosen(text, prior=prior(1.0)))
    assert own.preprocessing == told.preprocessing
    for one, other in zip(own.model.parameters(), told.model.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(UserError, match="but the budget is of weights; use --budget-kind bytes"):
        own_vocabulary(model, preprocessing(), samples, most=-1, settings=replace(SETTINGS, budget_kind="weights"))
