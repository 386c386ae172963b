"""What a run shows while it goes: a bar of clients' answers on a terminal, one plain line a round everywhere.

Where there is no terminal, a round that takes long tells of its clients in plain lines too.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn

from simulations.report.transient_bar import TransientBar
from simulations.report.units import format_bytes

_SECONDS_BETWEEN_LINES = 30.0


def round_line(record: Mapping[str, Any], rounds: int) -> str:
    """Return one line about a round's record; the last of `rounds` is the pass in which everybody gets a model."""
    name = "final pass" if record["round"] == rounds else f"round {record['round']}"
    return (
        f"{name}: {record['clients_replied']} of {record['clients_sampled']} clients replied, "
        f"{format_bytes(record['downlink_bytes'])} down, {format_bytes(record['uplink_bytes'])} up, "
        f"{record['seconds']:.1f} s{_problems(record)}"
    )


def _problems(record: Mapping[str, Any]) -> str:
    """Say how many clients failed how, and why a round taught nothing."""
    codes = {**record.get("failures", {}), **record.get("dropped_replies", {})}
    failed = [f"{count} {name}" for name, count in codes.items()]
    reasons = [*failed, *([f"not learned: {record['not_learned']}"] if "not_learned" in record else [])]
    return f" ({'; '.join(reasons)})" if reasons else ""


class RoundProgress(TransientBar):
    """Shows a run on `console` (standard error, so that results can be piped).

    rounds: the final pass included. answers: how many answers of clients are expected over all of them. clock: seconds.
    """

    def __init__(
        self, console: Console, *, rounds: int, answers: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Set up the bar; it is drawn only on a terminal."""
        super().__init__(
            console,
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self._rounds, self._asked, self._answers = rounds, 0, answers
        self._clock, self._said, self._judged = clock, clock(), 0
        self._task = self._bar.add_task("answers of clients", total=answers)

    @property
    def done(self) -> int:
        """How many answers have come."""
        return int(self._bar.tasks[0].completed)

    def show(self, record: Mapping[str, Any]) -> None:
        """Tell that a round is done, with its record as it stands in the report."""
        self._console.print(round_line(record, self._rounds), highlight=False, soft_wrap=True)
        self._said = self._clock()
        self._asked += record["clients_sampled"]
        self._bar.update(self._task, completed=self._asked)

    def answered(self) -> None:
        """Tell that one client has answered."""
        self._bar.advance(self._task)
        self._tell(f"{self.done} of {self._answers} answers of clients")

    def judged(self) -> None:
        """Tell that one personal model was run on its client's test data, after the last round."""
        self._judged += 1
        line = f"personal models judged: {self._judged}"
        self._bar.update(self._task, description=line)
        self._tell(line)

    def _tell(self, line: str) -> None:
        if not self._console.is_terminal and self._clock() - self._said >= _SECONDS_BETWEEN_LINES:
            self._said = self._clock()
            self._console.print(line, highlight=False)
