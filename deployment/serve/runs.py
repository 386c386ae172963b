"""Runs: submitted when they are due, followed to their end, and gone on with when they end too early."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from deployment.serve.control import RunStatus
from deployment.serve.record import RunRecord, time_text
from deployment.serve.schedule import Schedule
from personalization.errors import UserError
from server.journal import JOURNAL, Journal, load_journal

_REASON_LENGTH = 300
# A run that no process takes on: the one that should is gone, and the SuperLink does not notice.
STUCK = timedelta(seconds=90)


class RunControl(Protocol):
    """Where runs are submitted, see `Control`."""

    def start_run(self, bundle: bytes) -> int:
        """Submit a run and return its id. Raises ControlError."""

    def run_status(self, run: int) -> RunStatus | None:
        """Return how a run does, None if it is unknown. Raises ControlError."""


@dataclass
class Runs:
    """The runs of a server. journal_dir: folder of the journal that they share. records: newest last, at least all that
    the record shows. say: takes a line for what happens. began: when the rounds that are under way were first begun."""

    bundle: bytes
    journal_dir: Path
    schedule: Schedule
    records: list[RunRecord]
    say: Callable[[str], None]
    began: datetime | None = None
    _rounds_before: int = 0
    _rounds_said: int = 0

    @property
    def current(self) -> RunRecord | None:
        """The run under way."""
        return self.records[-1] if self.records and self.records[-1].ended is None else None

    def tick(self, control: RunControl, now: datetime) -> bool:
        """Submit what is due, and look after what runs. True if something changed. Raises ControlError."""
        if self.current is not None:
            return self._follow(control, self.current, now)
        if not self.schedule.is_due(now):
            return False
        run = control.start_run(self.bundle)
        self.schedule.started()
        self.began = self.began or now
        self._rounds_before = self._rounds_said = rounds_done(self.journal_dir)
        number = self.records[-1].number + 1 if self.records else 1
        self.records.append(RunRecord(number=number, run_id=str(run), started=time_text(now)))
        self.say(f"run {number}: started, after {self._rounds_before} rounds")
        return True

    def is_stuck(self, status: RunStatus, now: datetime) -> bool:
        """Whether no process has taken on the run under way for too long."""
        run = self.current
        return (
            run is not None
            and status.status in ("pending", "starting")
            and now - datetime.fromisoformat(run.started) > STUCK
        )

    def _follow(self, control: RunControl, run: RunRecord, now: datetime) -> bool:
        self._say_rounds()
        status = control.run_status(int(run.run_id))
        if status is None:
            self.end(now, "failed", "the SuperLink does not know it any more")
        elif status.finished:
            self.end(now, status.result, status.details)
        elif self.is_stuck(status, now):
            raise StuckError
        else:
            return False
        return True

    def end(self, now: datetime, state: str, reason: str) -> None:
        """Note how the run under way has ended, and when the next one is due."""
        run = self.records[-1]
        self._say_rounds()
        run.ended, run.state = time_text(now), state
        run.reason = "" if state == "completed" else " ".join(reason.split())[:_REASON_LENGTH]
        done = rounds_done(self.journal_dir)
        self.say(f"run {run.number}: {state}, {done} rounds done{': ' + run.reason if run.reason else ''}")
        if state in ("completed", "stopped"):  # who stops a run by hand does not want it back at once
            self.schedule.completed(self.began or now, now)
            self.began = None
        else:
            self.schedule.failed(now, progress=done > self._rounds_before)

    def _say_rounds(self) -> None:
        journal = read_journal(self.journal_dir)
        records = [] if journal is None else journal.rounds[self._rounds_said :]
        for record in records:
            failed = sum(record["failures"].values())
            codes = {**record["failures"], **record.get("dropped_replies", {})}
            self.say(
                f"round {record['round']}: {record['clients_replied']} of {record['clients_sampled']} devices replied"
                + (f", {failed} failed" if failed else "")
                + (f" ({', '.join(f'{number} {code}' for code, number in codes.items())})" if codes else "")
                + (f"; nothing learned: {record['not_learned']}" if "not_learned" in record else "")
            )
        self._rounds_said += len(records)


class StuckError(Exception):
    """The SuperLink takes runs but nothing carries them out."""


def read_journal(folder: Path) -> Journal | None:
    """Return the journal in a folder, None while there is none or it can't be read."""
    try:
        return load_journal(folder) if (folder / JOURNAL).exists() else None
    except (UserError, OSError):
        return None


def rounds_done(folder: Path) -> int:
    """Return how many rounds the journal in a folder holds."""
    journal = read_journal(folder)
    return 0 if journal is None else len(journal.rounds)


def is_unfinished(folder: Path) -> bool:
    """Say whether the journal in a folder waits for rounds or for its final pass."""
    journal = read_journal(folder)
    return journal is not None and journal.final is None
