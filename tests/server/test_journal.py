import json

import numpy as np
import pytest

from personalization.errors import UserError
from personalization.wire.statistics import StatisticsLayout
from server.journal import JOURNAL, Journal, extend_journal, load_journal, open_journal
from server.planning import FleetKnowledge

EMPTY = FleetKnowledge.empty(StatisticsLayout(layers=2, levels=1, groups=4))
SETTINGS = {"seed": 1, "budget": 0.5, "out-dir": "/a", "resume": False}


def start(folder, settings=SETTINGS, *, root=b"r", resume=False) -> Journal:
    return open_journal(folder, settings=settings, root=root, empty=EMPTY, resume=resume)


def test_a_journal_survives_its_file(tmp_path):
    journal = start(tmp_path)
    journal.rounds.append({"round": 1, "seconds": 1 / 3})
    journal.nodes[2**63 - 1] = np.array([False, True, False, False])
    journal.save(tmp_path)
    back = load_journal(tmp_path)
    assert (back.rounds, back.root, back.final) == (journal.rounds, journal.root, None)
    assert np.array_equal(back.nodes[2**63 - 1], journal.nodes[2**63 - 1])


def test_a_folder_with_another_run_is_left_alone(tmp_path):
    start(tmp_path).save(tmp_path)
    with pytest.raises(UserError, match="another run"):
        start(tmp_path)


def test_there_must_be_something_to_resume(tmp_path):
    with pytest.raises(UserError, match="no run to resume"):
        start(tmp_path, resume=True)


def test_resuming_with_other_settings_names_them(tmp_path):
    start(tmp_path).save(tmp_path)
    with pytest.raises(UserError, match=r"budget was 0\.5 and is 0\.3"):
        start(tmp_path, {**SETTINGS, "budget": 0.3}, resume=True)
    with pytest.raises(UserError, match="probes was None and is 6"):
        start(tmp_path, {**SETTINGS, "probes": 6}, resume=True)
    with pytest.raises(UserError, match="different model"):
        start(tmp_path, root=b"s", resume=True)


def test_how_a_run_is_called_may_differ(tmp_path):
    start(tmp_path).save(tmp_path)
    assert start(tmp_path, {**SETTINGS, "out-dir": "/b", "resume": True}, resume=True).root == b"r".hex()


def extend(folder, settings=SETTINGS, *, root=b"r", rounds=2) -> Journal:
    return extend_journal(folder, settings=settings, root=root, empty=EMPTY, rounds=rounds)


def test_a_fleet_that_goes_on_begins_with_an_empty_journal_and_keeps_its_goal_until_its_final_pass(tmp_path):
    journal = extend(tmp_path)
    journal.series = 5
    journal.rounds.append({"round": 1})
    journal.save(tmp_path)
    again = extend(tmp_path, rounds=9)
    assert (again.goal, again.final, again.passed, again.series) == (2, None, 0, 0)
    again.rounds.append({"round": 2})
    again.final = {"round": 3}
    again.save(tmp_path)
    longer = extend(tmp_path, rounds=9)
    assert (longer.goal, longer.final, longer.finals, longer.passed) == (11, None, [{"round": 3}], 1)


def test_a_fleet_that_goes_on_may_ask_for_more_but_not_for_something_else(tmp_path):
    extend(tmp_path).save(tmp_path)
    assert extend(tmp_path, {**SETTINGS, "budget": 0.3, "num-rounds": 8}).settings["budget"] == 0.3
    with pytest.raises(UserError, match="seed was 1 and is 2"):
        extend(tmp_path, {**SETTINGS, "seed": 2})
    with pytest.raises(UserError, match="different model"):
        extend(tmp_path, root=b"s")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"settings": {}}'])
def test_a_damaged_journal_is_named(tmp_path, text):
    (tmp_path / JOURNAL).write_text(text)
    with pytest.raises(UserError, match="damaged journal"):
        load_journal(tmp_path)


def test_a_save_that_fails_leaves_the_old_journal(tmp_path):
    journal = start(tmp_path)
    journal.save(tmp_path)
    before = (tmp_path / JOURNAL).read_bytes()
    journal.rounds.append({"round": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        journal.save(tmp_path)
    assert (tmp_path / JOURNAL).read_bytes() == before
    assert json.loads(before)["rounds"] == []
    assert [p.name for p in tmp_path.iterdir()] == [JOURNAL]


def test_a_journal_from_before_a_setting_goes_on_with_what_held_then(tmp_path):
    extend(tmp_path).save(tmp_path)
    assert extend(tmp_path, {**SETTINGS, "layer-limit": 0.95}).settings["layer-limit"] == 0.95
    with pytest.raises(UserError, match=r"layer-limit was 0\.95 and is 1\.0"):
        extend(tmp_path, {**SETTINGS, "layer-limit": 1.0})
