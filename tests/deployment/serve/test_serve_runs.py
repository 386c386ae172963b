import json
from datetime import UTC, datetime, timedelta

import pytest

from deployment.serve.control import RunStatus
from deployment.serve.record import RunRecord, ServeRecord, earlier_runs
from deployment.serve.runs import STUCK, Runs, StuckError, is_unfinished
from deployment.serve.schedule import Schedule
from personalization.wire.statistics import StatisticsLayout
from server.journal import Journal
from server.planning import FleetKnowledge

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


class SuperLink:
    """Takes runs and says of each what it is told to."""

    def __init__(self) -> None:
        self.runs: list[RunStatus | None] = []

    def start_run(self, bundle: bytes) -> int:
        self.runs.append(RunStatus("running", "", ""))
        return len(self.runs)

    def run_status(self, run: int) -> RunStatus | None:
        return self.runs[run - 1]


@pytest.fixture
def superlink() -> SuperLink:
    return SuperLink()


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def runs(tmp_path, lines) -> Runs:
    return Runs(b"bundle", tmp_path, Schedule(None, NOW), [], lines.append)


def write_rounds(folder, count: int, *, final: bool = False) -> None:
    journal = Journal({}, "00", FleetKnowledge.empty(StatisticsLayout(layers=2, levels=1, groups=4)))
    journal.rounds = [
        {"round": n + 1, "clients_replied": 2, "clients_sampled": 3, "failures": {"no_reply": 1}} for n in range(count)
    ]
    journal.final = {} if final else None
    journal.save(folder)


def test_a_run_is_followed_to_its_end(runs, superlink, lines, tmp_path):
    assert runs.tick(superlink, NOW)
    assert not runs.tick(superlink, NOW + SECOND)
    write_rounds(tmp_path, 2, final=True)
    superlink.runs[0] = RunStatus("finished", "completed", "")
    assert runs.tick(superlink, NOW + 2 * SECOND)
    assert runs.records == [
        RunRecord(1, "1", "2026-01-01T00:00:00+00:00", "2026-01-01T00:00:02+00:00", "completed", "")
    ]
    assert lines[1:3] == [f"round {n}: 2 of 3 devices replied, 1 failed (1 no_reply)" for n in (1, 2)]
    assert runs.schedule.due is None
    assert not runs.tick(superlink, NOW + 900 * SECOND)


@pytest.mark.parametrize("end", [RunStatus("finished", "failed", "Task\n  failed"), None])
def test_a_run_that_fails_or_is_lost_is_submitted_again(runs, superlink, end):
    runs.tick(superlink, NOW)
    superlink.runs[0] = end
    runs.tick(superlink, NOW + SECOND)
    assert runs.records[0].state == "failed"
    assert "\n" not in runs.records[0].reason != ""
    assert not runs.tick(superlink, NOW + 2 * SECOND)
    assert runs.tick(superlink, NOW + 3 * SECOND)
    assert [(run.number, run.state) for run in runs.records] == [(1, "failed"), (2, "running")]


def test_the_hours_of_a_series_count_from_its_first_run(runs, superlink):
    runs.schedule.every = timedelta(hours=1)
    runs.tick(superlink, NOW)
    superlink.runs[0] = None
    runs.tick(superlink, NOW + SECOND)
    runs.tick(superlink, NOW + 5 * SECOND)
    superlink.runs[1] = RunStatus("finished", "completed", "")
    runs.tick(superlink, NOW + 9 * SECOND)
    assert runs.schedule.due == NOW + timedelta(hours=1)


def test_a_run_that_is_stopped_by_hand_does_not_come_back(runs, superlink):
    runs.tick(superlink, NOW)
    superlink.runs[0] = RunStatus("finished", "stopped", "")
    runs.tick(superlink, NOW + SECOND)
    assert (runs.records[0].state, runs.schedule.due) == ("stopped", None)


def test_a_run_that_nothing_takes_on_is_noticed(runs, superlink):
    runs.tick(superlink, NOW)
    superlink.runs[0] = RunStatus("pending", "", "")
    runs.tick(superlink, NOW + STUCK)
    with pytest.raises(StuckError):
        runs.tick(superlink, NOW + STUCK + SECOND)


def test_a_journal_without_its_final_pass_is_unfinished(tmp_path):
    assert not is_unfinished(tmp_path)
    write_rounds(tmp_path, 1)
    assert is_unfinished(tmp_path)
    write_rounds(tmp_path, 1, final=True)
    assert not is_unfinished(tmp_path)
    (tmp_path / "journal.json").write_text("{")
    assert not is_unfinished(tmp_path)


def test_the_record_keeps_the_last_runs_and_closes_those_that_a_killed_server_left(tmp_path):
    path = tmp_path / "serve.json"
    assert earlier_runs(path) == []
    record = ServeRecord(fleet="f", server="a.org:1", started="t", settings={})
    record.runs = [RunRecord(n, str(n), "t", "t", "completed") for n in range(1, 70)] + [RunRecord(70, "70", "t")]
    record.write(path, NOW)
    back = earlier_runs(path)
    assert [run.number for run in back] == list(range(21, 71))
    assert (back[-1].state, back[-1].ended, back[-2].state) == ("stopped", "t", "completed")
    assert json.loads(path.read_text())["written"] == "2026-01-01T00:00:00+00:00"
    path.write_text("{}")
    assert earlier_runs(path) == []
