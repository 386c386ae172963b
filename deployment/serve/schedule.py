"""When the next run starts: on the schedule, or soon after one that failed."""

from dataclasses import dataclass
from datetime import datetime, timedelta

_FIRST_RETRY = timedelta(seconds=2)
_LONGEST_RETRY = timedelta(minutes=5)
TRIES = 5


@dataclass
class Schedule:
    """Says when to start a run. every: time from start to start, None for a single series of rounds.

    due: when the next run starts, None for never. failures: how many runs in a row ended without a round done.
    """

    every: timedelta | None
    due: datetime | None
    failures: int = 0

    @staticmethod
    def begin(every: timedelta | None, *, now: datetime, last_start: datetime | None, unfinished: bool) -> "Schedule":
        """Return the schedule of a server that starts now.

        last_start: when the last series of rounds began, as an earlier server noted it. unfinished: whether its rounds
        wait to be gone on with. A server that is started again keeps the hours that it had.
        """
        if every is None or last_start is None or unfinished:
            return Schedule(every, now)
        return Schedule(every, max(now, last_start + every))

    def is_due(self, now: datetime) -> bool:
        """Say whether to start a run."""
        return self.due is not None and now >= self.due

    def started(self) -> None:
        """Note that a run has started."""
        self.due = None

    def completed(self, began: datetime, now: datetime) -> None:
        """Note that the rounds which `began` then are done. Starts that a long series has missed are left out."""
        self.failures, self.due = 0, None
        if self.every is not None:
            missed = max(0, -(-(now - began) // self.every) - 1)
            self.due = began + (missed + 1) * self.every

    def failed(self, now: datetime, *, progress: bool) -> None:
        """Note that a run ended early. progress: whether it has done a round; without one the wait doubles."""
        self.failures = 0 if progress else self.failures + 1
        self.due = now + min(_LONGEST_RETRY, _FIRST_RETRY * 2 ** max(0, self.failures - 1))

    @property
    def hopeless(self) -> bool:
        """Whether so many runs in a row did nothing that a single series of rounds should be given up."""
        return self.failures >= TRIES
