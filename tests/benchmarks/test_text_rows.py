import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_text import VOCABULARY, write_language_model, write_speakers

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks are not installed

from rich.console import Console

from benchmarks.text.__main__ import TOKENS, TRAINED, WHOLE, run
from benchmarks.text.cells import COLUMNS, COMPENSATED, Fleet, all_tasks, evaluate, sense, whole_client
from benchmarks.text.clients import load_client, load_world
from benchmarks.text.proportionality import proportionality
from benchmarks.text.rows import (
    BLOCK_INFLUENCE,
    BUDGETS,
    FLEET,
    FLEET_AND_OWN,
    FLEET_ROUNDS,
    OWN,
    PROBES,
    ROWS,
    block_influence,
    fleet_prior,
    without_blocks,
)
from benchmarks.text.speaker_table import speaker_table
from benchmarks.text.tables import checks, summary_tables, whole_table
from benchmarks.text.tokens import WINDOWS as TOLD_BY
from benchmarks.text.tokens import count_spelled, fewer_table, score_fewer, spelled_table
from benchmarks.text.whole import (
    ARMS,
    CUT,
    DENSE,
    DENSE_TRAINED,
    SHARE,
    SPELLED,
    TUNED,
    evaluate_trained_dense,
    evaluate_whole,
)
from benchmarks.text.whole import TRAINED as TRAINED_ARM
from personalization.errors import UserError
from personalization.transformer.layers import Layer, LayerKind
from simulations.speakers import Speaker

# Of the tiny vocabulary, most of which is single bytes.
TOKEN_SHARES = (0.85, 0.92, 1.0)


@pytest.fixture
def fleet(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.text.cells.DISTILLING_STEPS", 3)
    monkeypatch.setattr("benchmarks.text.whole.TUNING_STEPS", 3)
    monkeypatch.setattr("benchmarks.text.whole.TRAINING_STEPS", 3)
    monkeypatch.setattr("benchmarks.text.whole.WINDOWS", 20)
    monkeypatch.setattr("benchmarks.text.cells.MORE_WINDOWS", 20)
    monkeypatch.setattr("benchmarks.text.tokens.SCORED_WINDOWS", (10, 20))
    monkeypatch.setattr("benchmarks.text.tokens.SHARES", TOKEN_SHARES)
    threads = torch.get_num_threads()
    model = write_language_model(tmp_path / "model")
    yield Fleet(str(model), str(write_speakers(tmp_path / "speakers")), 3, window_tokens=16)
    load_world.cache_clear()
    whole_client.cache_clear()
    torch.set_num_threads(threads)


def one_layer_blocks(blocks):
    kinds = [LayerKind.ATTENTION, LayerKind.MLP] * blocks
    return [Layer(i, i // 2, kind, "", "", (), "", 4, 1, 10) for i, kind in enumerate(kinds)]


def test_the_blocks_of_least_influence_go_and_no_more_than_needed():
    layers = one_layer_blocks(4)
    influence = np.array([0.9, 0.1, 0.5, 0.2])
    assert without_blocks(influence, layers, 0.75).tolist() == [4, 4, 0, 0, 4, 4, 4, 4]
    assert without_blocks(influence, layers, 0.74).tolist() == [4, 4, 0, 0, 4, 4, 0, 0]
    assert without_blocks(influence, layers, 1.0).tolist() == [4] * 8


def test_a_fleet_knows_more_than_any_of_its_clients_and_nothing_that_none_of_them_measured():
    others = [np.full(30, value) for value in (0.1, 0.1, 0.1)]
    prior = fleet_prior(others, 15, 2, seed=0)
    known = prior.precision > 0.0
    assert known.sum() > FLEET_ROUNDS * PROBES
    np.testing.assert_allclose(prior.sensitivity, np.where(known, 0.1, 0.0), rtol=1e-6)


def test_influence_is_one_minus_the_cosine_of_what_a_block_reads_and_returns(fleet):
    client = load_client(fleet.load(), 0)
    model, tokens = client.world.model, client.trace.inputs["input_ids"]
    with torch.inference_mode():
        hidden = model.model(tokens, output_hidden_states=True).hidden_states
    first = 1.0 - torch.nn.functional.cosine_similarity(hidden[0], hidden[1], dim=-1).mean()
    assert block_influence(client.trace)[0] == pytest.approx(float(first), abs=1e-5)


def test_every_row_has_a_model_for_every_budget_and_the_tables_show_it(fleet):
    sensed = {number: sense(fleet, number) for number in range(fleet.clients)}
    cells = [evaluate(fleet, sensed, task) for task in all_tasks(fleet)]
    assert len(cells) == fleet.clients * len(BUDGETS) * (3 * len(ROWS) + 3)
    assert all(np.isfinite(cell["nats"]) for cell in cells)
    spent = {row: {cell["evaluations"] for cell in cells if cell["row"] == row} for row in ROWS}
    assert spent[FLEET] == spent[BLOCK_INFLUENCE] == {0}
    assert spent[FLEET_AND_OWN] == {PROBES}
    text = summary_tables(list(sensed.values()), cells) + checks(list(sensed.values()), cells)
    assert all(f"| {row} |" in text for row in ROWS)
    assert " | ".join(COLUMNS) in text


def test_units_that_another_chose_are_compensated_on_ones_own_text(fleet):
    client, other = (load_client(fleet.load(), number) for number in (0, 1))
    counts = np.array([(layer.units + 1) // 2 for layer in client.world.layers])
    chosen = other.chosen(counts)
    assert any(not np.array_equal(units, client.chosen(counts)[layer]) for layer, units in chosen.items())
    ran = client.masked(everything=True, among=chosen).run(dict(enumerate(map(int, counts))))
    assert all(np.array_equal(units, ran.kept[layer]) for layer, units in chosen.items())

    def nats(model):
        return client.nats_per_token(model)

    refitted = nats(client.cut(counts, among=chosen))
    assert nats(client.cut(counts, among=client.chosen(counts))) == pytest.approx(nats(client.cut(counts)), abs=1e-6)
    assert len({round(found, 4) for found in (refitted, nats(client.cut(counts)), nats(other.cut(counts)))}) == 3


def test_checks_say_in_percent_of_perplexity_which_is_better_and_of_how_many_speakers():
    sensed = [{"client": number, "dense": 3.0} for number in range(3)]

    def cells(row, nats):
        return [
            {"client": number, "row": row, "budget": 0.8, "column": COMPENSATED, "nats": value, "evaluations": 0}
            for number, value in enumerate(nats)
        ]

    best, own = cells(FLEET_AND_OWN, [3.1, 3.2, 3.3]), cells(OWN, [3.1 + np.log(2), 3.2 + np.log(2)])
    text = checks(sensed, best + own)
    assert f"- 0.8 {COMPENSATED}: {FLEET_AND_OWN} against {OWN}: -50.0 % (-50.0 to -50.0), reached [2]" in text
    table = summary_tables(sensed, best + own)
    assert f"| {OWN} |  | 2.324 (2.210 to 2.443) [2] |" in table
    assert f"| {FLEET_AND_OWN} |  | 1.221 (1.105 to 1.350) |" in table


def test_a_run_goes_on_with_the_parts_that_it_is_asked_for(fleet, tmp_path):
    console = Console(quiet=True)
    first = run(fleet, tmp_path / "out", 1, console, [WHOLE])
    assert [len(part) for part in (first.sensed, first.cells, first.tokens, first.whole)] == [3, 0, 0, 3 * len(ARMS)]
    assert f"| {ROWS[0]} |" in summary_tables(first.sensed, first.cells)
    assert "against" not in checks(first.sensed, first.cells)
    then = run(fleet, tmp_path / "out", 1, console, [TRAINED, TOKENS])
    assert (then.sensed, then.whole) == (first.sensed, first.whole)
    assert len(then.cells) == len(ROWS) * fleet.clients * len(BUDGETS)
    assert {record["client"] for record in then.tokens} == set(range(fleet.clients))
    assert {record["client"] for record in then.fewer} == set(range(fleet.clients))
    assert whole_table([]) == ""


def test_later_tokens_that_go_are_counted_and_fewer_go_the_more_are_kept(fleet):
    records = count_spelled(fleet, 1)
    spelled = {(record["windows"], record["tokens"]): record["spelled"] for record in records}
    assert len(spelled) == len(records) == len(TOLD_BY) * len(TOKEN_SHARES)
    for windows in TOLD_BY:
        by_size = [spelled[windows, size] for size in sorted({record["tokens"] for record in records})]
        assert by_size == sorted(by_size, reverse=True)
        assert 0.0 <= by_size[-1] < by_size[0] < 1.0
    text = spelled_table([*records, *({**record, "client": 2, "spelled": 0.0} for record in records)])
    windows, size = next(iter(spelled))
    row = next(line for line in text.splitlines() if line.startswith(f"| {windows} |"))
    assert f" {spelled[windows, size] / 2:.2%} |" in row
    assert spelled_table([]) == ""


def test_a_model_with_fewer_tokens_is_scored_by_those_of_the_dense_one(fleet):
    records = score_fewer(fleet, 1)
    assert [(r["windows"], r["tokens"]) for r in records] == [
        (windows, round(share * VOCABULARY)) for windows in (10, 20) for share in TOKEN_SHARES
    ]
    client = load_client(fleet.load(), 1)
    dense = client.nats_per_token(client.trace.model)
    whole = [record for record in records if record["tokens"] == VOCABULARY]
    # One row of the tiny model is no token's, and goes.
    assert [record["share"] for record in whole] == pytest.approx([1.0] * 2, abs=0.005)
    assert [record["nats"] for record in whole] == pytest.approx([dense] * 2, abs=0.01)
    few = load_client(fleet.load(), 1, vocabulary=records[0]["tokens"], windows=10)
    assert records[0]["nats"] == pytest.approx(few.nats_per_token(few.trace.model))
    assert records[0]["share"] < whole[0]["share"]
    known = [{**whole[0], "client": client, "share": 0.5, "nats": nats} for client, nats in ((1, 2.0), (2, 5.0))]
    middle = f"{np.exp(1.0):.3f} ({np.exp(-0.5):.3f} to {np.exp(2.5):.3f})"
    assert f"| {VOCABULARY} | 0.500 | {middle} |" in fewer_table(known, {1: 2.5, 2: 2.5})
    assert fewer_table([], {}) == ""


def test_what_keeps_everything_is_the_dense_model(fleet):
    client = load_client(fleet.load(), 1)
    whole = np.array([layer.units for layer in client.world.layers])
    dense = client.nats_per_token(client.world.model)
    assert client.nats_per_token(client.cut(whole, fold=True)) == pytest.approx(dense, abs=1e-6)


def test_fewer_speakers_than_clients_are_refused(fleet):
    with pytest.raises(UserError, match="3 speakers; expected 4"):
        replace(fleet, clients=4).load()


def test_whole_models_keep_their_share_of_all_weights_and_the_table_judges_them(fleet):
    sensed = {number: sense(fleet, number) for number in range(fleet.clients)}
    made = [record for number in sensed for record in evaluate_whole(fleet, sensed, number)]
    records = [*made, *(evaluate_trained_dense(fleet, number) for number in sensed)]
    assert sorted(record["arm"] for record in records) == sorted(list(ARMS) * fleet.clients)
    shares = {record["share"] for record in records if record["arm"] in ARMS[-2:]}
    assert all(SHARE - 0.05 < share <= SHARE for share in shares)
    dense = {record["client"]: record["nats"] for record in records if record["arm"] == DENSE}
    assert all(dense[number] == pytest.approx(sensed[number]["dense"]) for number in sensed)
    went = {record["client"]: {r["went"] for r in made if r["client"] == record["client"]} for record in made}
    assert all(len(shares) == 1 and 0.0 <= max(shares) < 0.5 for shares in went.values())
    assert all(0.0 <= record["nats_of_went"] <= record["nats"] for record in made)
    kept = {record["arm"]: record["tokens"] for record in records}
    assert kept[DENSE] == kept[TUNED] == kept[DENSE_TRAINED] == VOCABULARY
    assert VOCABULARY >= kept[SPELLED] == kept[CUT] == kept[TRAINED_ARM] > 256
    text = whole_table(records)
    assert all(f"| {arm} |" in text for arm in ARMS)
    assert text.count("reached") == 5
    part = whole_table([record for record in records if record["client"] or record["arm"] == DENSE])
    assert part.count(f"[{fleet.clients - 1}]") == len(ARMS) - 1 + 5
    assert f"| {DENSE_TRAINED} |" not in whole_table(made)
    nats = {(record["client"], record["arm"]): record["nats"] for record in records}
    assert all(nats[number, DENSE_TRAINED] != nats[number, TUNED] for number in sensed)


def test_proportion_is_a_slope_of_one_and_the_same_rise_over_levels():
    rng, layers = np.random.default_rng(0), one_layer_blocks(6)
    errors = np.exp(rng.normal(size=(5, 12, 2)).cumsum(-1))
    power = np.where(np.arange(12) % 2, 1.0, 2.0)[:, None]
    sensed = [{"errors": e.ravel().tolist(), "single": (0.01 * e**power).ravel().tolist()} for e in errors]
    lines = proportionality(sensed, layers, 2).splitlines()
    rise = np.log(errors[:, 1::2, 1] / errors[:, 1::2, 0]).mean()
    assert f"| mlp | 1.00, slope 1.00 | 1.00, slope 1.00 | 1.00, error {rise:+.2f}, entropy {rise:+.2f} |" in lines
    assert any(line.startswith("| attention | 1.00, slope 2.00 | 1.00, slope 2.00 |") for line in lines)


def test_speakers_stand_in_the_order_of_what_their_models_lost():
    def speaker(name, later):
        return Speaker(name, np.array([[1, 2, 3], [3, 4, 5]]), np.array([later]), measured=1)

    lost = {DENSE: 0.3, TUNED: 0.0, SPELLED: 0.1, CUT: 0.2, TRAINED_ARM: 0.15}
    records = [
        {
            "client": number,
            "arm": arm,
            "nats": 3.0 + factor * nats,
            "tokens": 24_000,
            "went": 0.01,
            "nats_of_went": 0.2 + nats / 2,
        }
        for number, factor in enumerate((2.0, 1.0))
        for arm, nats in lost.items()
    ]
    speakers = [speaker("ada", [1, 9, 8, 2]), speaker("ben", [5, 4, 3, 7]), speaker("nobody", [1, 1, 1, 1])]
    *_, first, second = speaker_table(records, speakers).splitlines()
    assert first == "| ben | 25.0% | 24,000 | 1.0% | 1.105 | 1.221 | 1.162 | +0.075 | +0.075 |"
    assert second == "| ada | 50.0% | 24,000 | 1.0% | 1.221 | 1.492 | 1.350 | +0.075 | +0.225 |"
    assert speaker_table([], speakers) == ""
