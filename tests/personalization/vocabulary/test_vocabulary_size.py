"""A device chooses how many tokens it keeps, by what spelling the others and cutting its blocks should cost."""

import math
from dataclasses import replace

import numpy as np
import pytest

import personalization.vocabulary.size as sizes_of
from personalization.allocation.allocate import fit_curves
from personalization.data.tasks import text_samples
from personalization.errors import UserError
from personalization.pipeline import personalize
from personalization.sensing.probes import probe_levels
from personalization.settings import PersonalizationSettings
from personalization.transformer.layers import find_layers
from personalization.transformer.trace import trace_dense
from personalization.vocabulary.cut import choose_tokens, mean_predictions
from personalization.vocabulary.size import spelled_shares, vocabulary_size
from tests.tiny_text import VOCABULARY, tiny_language_model, tiny_preprocessing, tiny_tokenizer

NAMED = tiny_tokenizer().get_vocab_size()


def windows(*, news: float = 0.0, seed: int = 0, count: int = 60):
    """Text of a few tokens, of which a share of the last fifth is drawn from all."""
    rng = np.random.default_rng(seed)
    found = rng.integers(260, 280, (count, 21))
    late = found[count * 4 // 5 :]
    new = rng.random(late.shape) < news
    late[new] = rng.integers(0, NAMED, int(new.sum()))
    return found


def chosen(text, *, tied=True, sensitivity=4.0, budget=0.8):
    """The number of tokens that a person with this text keeps, whose layers cost `sensitivity` nats at half."""
    model = tiny_language_model("llama", tied=tied)
    trace = trace_dense(model, find_layers(model), text_samples(text, most=10).inputs)
    levels = np.array([0.5, 0.8])
    curves = fit_curves(np.tile(sensitivity * np.array([1.0, 3.0]), len(trace.layers)), levels)
    expected = mean_predictions(trace.head, trace.outputs)
    limits = np.full(len(trace.layers), 0.95)
    return vocabulary_size(trace, tiny_preprocessing(), text, expected, curves=curves, budget=budget, limits=limits)


@pytest.mark.parametrize("news", [0.0, 0.4])
def test_the_end_of_a_text_says_how_often_words_come_that_its_beginning_gives_no_reason_to_keep(news):
    text, expected = windows(news=news), np.random.default_rng(1).dirichlet(np.full(VOCABULARY, 0.5))
    sizes, shares = spelled_shares(tiny_preprocessing(), text, expected)
    assert sizes.tolist() == [260, 280, 300, 320]
    split = round(60 * 20 * 0.8)
    beginning, end = text[:, 1:].ravel()[:split], text[:, 1:].ravel()[split:]
    for size, share in zip(sizes, shares, strict=True):
        kept = choose_tokens(tiny_preprocessing(), beginning, expected, most=int(size)).kept
        spelled = ~np.isin(end, kept), expected[~np.isin(np.arange(VOCABULARY), kept)].sum()
        assert share == pytest.approx((spelled[0].sum() + 1000 * spelled[1]) / (len(end) + 1000))
    assert (np.diff(shares) <= 0.0).all()


def test_who_says_what_is_new_keeps_more_tokens():
    few, more = (chosen(windows(news=news), sensitivity=1.5) for news in (0.0, 0.6))
    assert few < more


def test_the_more_a_spelled_token_costs_beside_the_blocks_the_more_tokens_stay(monkeypatch):
    text, found = windows(news=0.3), []
    for cost in (0.0, sizes_of._SPELLED, 1e6):
        monkeypatch.setattr(sizes_of, "_SPELLED", cost)
        found.append(chosen(text))
    assert found[0] == 260 <= found[1] <= found[2] == VOCABULARY


def test_where_blocks_are_needed_fewer_tokens_stay():
    found = [chosen(windows(news=0.3), sensitivity=sensitivity, budget=0.7) for sensitivity in (1e-4, 1e3)]
    assert found == [VOCABULARY, 260]


@pytest.mark.parametrize("tied", [True, False])
def test_blocks_get_the_bytes_of_the_rows_that_go(tied, monkeypatch):
    rooms = []
    allocate = sizes_of.allocate

    def noted(layers, curves, costs, budget, **kwargs):
        rooms.append((costs, budget))
        return allocate(layers, curves, costs, budget, **kwargs)

    monkeypatch.setattr(sizes_of, "allocate", noted)
    chosen(windows(), tied=tied)
    dense = np.array([layer.units for layer in find_layers(tiny_language_model("llama"))])
    (small, share), *_, (whole, all_of_it) = rooms
    assert whole.fixed - small.fixed == 60 * 36 * 4 * (1 if tied else 2)
    assert all_of_it == pytest.approx(0.8)
    assert share * small.total(dense) == pytest.approx(all_of_it * whole.total(dense))


def test_sizes_without_room_for_any_blocks_are_not_chosen(monkeypatch):
    monkeypatch.setattr(sizes_of, "_SPELLED", 1e6)
    assert chosen(windows(news=0.3), budget=0.46) < VOCABULARY
    with pytest.raises(UserError, match=r"budget 0\.1: with 260 tokens the limits allow at least (0\.\d+)") as error:
        chosen(windows(), budget=0.1)
    least = float(str(error.value).split("at least ")[1][:5])
    assert chosen(windows(), budget=least + 0.001) == 260


@pytest.mark.parametrize("tune_first", [0, 20])
def test_a_device_keeps_as_many_tokens_as_it_chose_by_what_it_found_of_its_layers(tune_first, monkeypatch):
    text, asked = windows(news=0.3), []

    def size(trace, preprocessing, found, expected, *, curves, budget, limits):
        asked.append((found.tolist(), budget, curves))
        return vocabulary_size(trace, preprocessing, found, expected, curves=curves, budget=budget, limits=limits)

    monkeypatch.setattr("personalization.vocabulary.fewer_tokens.vocabulary_size", size)
    samples = text_samples(text, most=10)
    common = {"labels": samples.labels, "training": samples.training, "preprocessing": tiny_preprocessing()}
    settings = PersonalizationSettings(
        budget=0.8, budget_kind="bytes", tolerance=math.inf, seed=2, vocabulary=-1, tune_first=tune_first
    )
    found = personalize(tiny_language_model("llama"), samples.inputs, settings=settings, **common)
    ((read, budget, curves),) = asked
    levels = probe_levels(found.layers, settings.levels)
    assert (read, budget) == (text.tolist(), 0.8)
    np.testing.assert_allclose(curves.scale, fit_curves(found.sensitivity, levels).scale)
    most = found.model.config.vocab_size
    assert 257 <= most <= VOCABULARY
    told = personalize(
        tiny_language_model("llama"), samples.inputs, settings=replace(settings, vocabulary=most), **common
    )
    assert found.fewer_tokens == told.fewer_tokens


def test_a_share_of_bytes_is_what_it_takes():
    with pytest.raises(UserError, match="but the budget is of weights; use --budget-kind bytes"):
        PersonalizationSettings(vocabulary=-1)
