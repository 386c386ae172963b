"""News of a state, with and without a vault."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from client.entries import VERSION
from client.state import ClientState
from deployment.join.vault_choice import VaultChoice, make_missing_key, open_state
from deployment.join.watch import StateWatcher
from personalization.errors import UserError

ENTRY = {"samples": 20, "agreement": 0.9, "entropy_increase": 0.1, "weights_kept": 0.5, "levels": [0.5]}


@pytest.fixture(params=["file", "none"])
def choice(request, tmp_path: Path) -> VaultChoice:
    found = VaultChoice(source=request.param, name=str(tmp_path / "key") if request.param == "file" else "")
    make_missing_key(tmp_path / "state", found)
    return found


def write_plan(state: ClientState, series: int, version: int) -> None:
    state.write(VERSION, json.dumps({"series": series, "version": version, "plan": "00"}).encode())


def test_plans_and_models_are_news_once(choice, tmp_path):
    writer = open_state(tmp_path / "state", choice, {})
    write_plan(writer, 1, 1)
    watcher = StateWatcher(tmp_path / "state", lambda: open_state(tmp_path / "state", choice, {}))
    assert list(watcher.news()) == []
    write_plan(writer, 1, 2)
    (plan,) = watcher.news()
    assert (plan.name, plan.facts) == ("plan", {"plan": 2, "series": 1})
    with writer.exclusive():  # a client at work keeps nobody from reading
        writer.add_record(2, ENTRY)
        (made,) = watcher.news()
    assert made.name == "personalized"
    assert made.facts["agreement"] == 0.9
    assert "50 % of the weights" in made.line
    assert "90 %" in made.line
    assert "tokens" not in made.line
    writer.add_record(2, {**ENTRY, "task": "text", "vocabulary": 8000})
    (made,) = watcher.news()
    assert "20 windows of text: 8,000 tokens and 50 % of the weights kept" in made.line
    assert made.facts["vocabulary"] == 8000
    writer.add_record(1, ENTRY)  # a new run counts from 1 again
    assert [event.facts["plan"] for event in watcher.news()] == [1]
    assert list(watcher.news()) == []


def test_a_full_disk_is_told_once_and_so_is_its_end(tmp_path, monkeypatch):
    watcher = StateWatcher(tmp_path, lambda: ClientState(tmp_path))
    found = []
    for free in (10 << 20, 4096, 0, 10 << 20, 10 << 20):
        monkeypatch.setattr("shutil.disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        found.append([(event.name, event.facts["free"], event.line.startswith("warning")) for event in watcher.news()])
    assert found == [[], [("disk", 4096, True)], [], [("disk", 10 << 20, False)], []]


def test_a_state_that_no_longer_opens_is_told_once(tmp_path):
    choice = VaultChoice(source="file", name=str(tmp_path / "key"))
    make_missing_key(tmp_path / "state", choice)
    writer, opened = open_state(tmp_path / "state", choice, {}), [choice]
    write_plan(writer, 1, 1)
    watcher = StateWatcher(tmp_path / "state", lambda: open_state(tmp_path / "state", opened[0], {}))
    opened[0] = VaultChoice(source="none")
    write_plan(writer, 1, 2)
    with pytest.raises(UserError, match="no key was given"):
        list(watcher.news())
    assert list(watcher.news()) == []
    opened[0] = choice
    write_plan(writer, 1, 3)
    assert [event.facts["plan"] for event in watcher.news()] == [3]


def test_a_failure_is_told_with_its_code_and_line(choice, tmp_path):
    writer = open_state(tmp_path / "state", choice, {})
    watcher = StateWatcher(tmp_path / "state", lambda: open_state(tmp_path / "state", choice, {}))
    for message in ("first\nline", "second"):
        writer.write_error(json.dumps({"code": "data_unusable", "message": message, "traceback": "x"}).encode())
        (event,) = watcher.news()
        assert (event.name, event.facts) == ("failed", {"code": "data_unusable"})
        assert " ".join(message.split()) in event.line
    assert list(watcher.news()) == []
    os.unlink(tmp_path / "state" / "last_error.json")
    assert list(watcher.news()) == []
