from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployment.serve.schedule import TRIES, Schedule
from deployment.serve.settings import parse_interval
from personalization.errors import UserError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("5m", 300), ("6h", 21_600), ("1d", 86_400), (" 10s ", 10)])
def test_an_interval_is_a_number_and_a_unit(text, seconds):
    assert parse_interval(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "6", "h", "9s", "0d", "-1h", "1.5h", "1w", "6 h", "6H", "1h30m"])
def test_other_intervals_are_refused(text):
    with pytest.raises(UserError, match="such as 30s, 5m, 6h or 1d"):
        parse_interval(text)


def test_a_new_server_runs_at_once_and_one_that_is_started_again_keeps_its_hours():
    def due(every, last, unfinished=False):
        return Schedule.begin(every, now=NOW, last_start=last, unfinished=unfinished).due

    assert due(HOUR, None) == due(None, None) == due(None, NOW - HOUR / 2) == NOW
    assert due(HOUR, NOW - HOUR / 4) == NOW + 3 * HOUR / 4
    assert due(HOUR, NOW - 5 * HOUR) == NOW
    assert due(HOUR, NOW - HOUR / 4, unfinished=True) == NOW


@given(st.floats(0, 1e6), st.floats(10, 1e5))
def test_the_next_start_is_a_whole_number_of_intervals_after_the_last_and_never_past(took, every):
    schedule = Schedule(timedelta(seconds=every), None)
    end = NOW + timedelta(seconds=took)
    schedule.completed(NOW, end)
    assert schedule.due is not None
    assert (schedule.due - NOW) % schedule.every == timedelta()
    assert max(end, NOW + schedule.every) <= schedule.due < max(end, NOW + schedule.every / 2) + schedule.every


def test_a_single_series_is_never_due_again():
    schedule = Schedule.begin(None, now=NOW, last_start=None, unfinished=False)
    assert schedule.is_due(NOW)
    schedule.started()
    assert not schedule.is_due(NOW + 99 * HOUR)
    schedule.completed(NOW, NOW)
    assert not schedule.is_due(NOW + 99 * HOUR)


def test_a_run_that_fails_again_and_again_waits_longer_and_progress_forgives_it():
    schedule, waits = Schedule(HOUR, NOW), []
    for _ in range(12):
        schedule.failed(NOW, progress=False)
        waits.append((schedule.due - NOW).total_seconds())
    assert waits[:4] == [2, 4, 8, 16]
    assert waits[-1] == 300
    assert schedule.hopeless
    schedule.failed(NOW, progress=True)
    assert (schedule.due - NOW).total_seconds() == 2
    assert not schedule.hopeless
    assert TRIES > 1
