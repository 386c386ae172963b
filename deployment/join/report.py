"""What a running join prints: a line with its time for each event, or one JSON object a line."""

import json
import sys
from collections.abc import Callable
from datetime import datetime
from typing import TextIO

from deployment.certificates import utc_now
from deployment.join.watch import Event


class Reporter:
    """Prints events, flushed, so that a service manager's journal has them at once."""

    def __init__(self, *, as_json: bool, out: TextIO | None = None, clock: Callable[[], datetime] = utc_now) -> None:
        """out: where to print, standard output unless given. clock: returns the time, with its zone."""
        self._json, self._out, self._clock = as_json, out or sys.stdout, clock

    def tell(self, name: str, line: str, **facts: object) -> None:
        """Print an event."""
        now = self._clock()
        if self._json:
            text = json.dumps({"time": now.isoformat(timespec="seconds"), "event": name, "line": line, **facts})
        else:
            text = f"{now.astimezone():%Y-%m-%d %H:%M:%S} {line}"
        print(text, file=self._out, flush=True)

    def show(self, event: Event) -> None:
        """Print an event of the state."""
        self.tell(event.name, event.line, **event.facts)
