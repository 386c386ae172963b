"""Replies collected until a deadline, whatever one client does: what Flower's grid of a deployed server does not do.

A client announces its reply before it uploads it. Where the upload never comes, `HttpGrid.pull_messages` waits for it
until the SuperLink's patience ends (three minutes), deadline or not, and so do the replies that arrived with it.
"""

import queue
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from flwr.app import Message
from flwr.serverapp import Grid

from server.forwarding_grid import ForwardingGrid

# As often as Flower's own loop. More threads than this make a server no faster.
_POLL_SECONDS, _THREADS = 3.0, 64


class PunctualGrid(ForwardingGrid):
    """Passes everything on to another grid, and leaves to threads what may keep it waiting.

    Each thread asks for the replies of some clients, of one alone while no more are asked than there are threads: an
    upload that does not come holds up no other client's.
    """

    def __init__(self, grid: Grid, *, poll_seconds: float = _POLL_SECONDS, threads: int = _THREADS) -> None:
        """grid: whose `pull_messages` may be called in several threads at a time."""
        super().__init__(grid)
        self._poll_seconds, self._threads = poll_seconds, threads

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Send messages and yield the replies that are there within `timeout` seconds, as they come.

        Raises what pulling raises, after the replies that came before.
        """
        end = None if timeout is None else time.monotonic() + timeout
        pulls = _Pulls(self._grid, poll_seconds=self._poll_seconds)
        waiting = {name for name in self.push_messages(messages) if name}
        pulls.start(_parts(sorted(waiting), self._threads))
        try:
            while waiting:
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0.0:
                    return
                try:
                    found = pulls.results.get(timeout=left)
                except queue.Empty:
                    return
                if isinstance(found, Exception):
                    raise found
                if found.metadata.reply_to_message_id in waiting:
                    waiting.discard(found.metadata.reply_to_message_id)
                    yield found
        finally:
            pulls.ended.set()


class _Pulls:
    """Threads that ask for replies until they have them all, or `ended` is set; one that waits is left to itself."""

    def __init__(self, grid: Grid, *, poll_seconds: float) -> None:
        self._grid, self._poll_seconds = grid, poll_seconds
        self.results: queue.SimpleQueue[Message | Exception] = queue.SimpleQueue()
        self.ended = threading.Event()

    def start(self, parts: Iterable[Sequence[str]]) -> None:
        for part in parts:
            threading.Thread(target=self._pull, args=(part,), daemon=True).start()

    def _pull(self, names: Sequence[str]) -> None:
        waiting = set(names)
        try:
            while waiting and not self.ended.is_set():
                for reply in self._grid.pull_messages(sorted(waiting)):
                    waiting.discard(reply.metadata.reply_to_message_id)
                    self.results.put(reply)
                if waiting:
                    self.ended.wait(self._poll_seconds)
        except Exception as error:
            self.results.put(error)


def _parts(names: Sequence[str], most: int) -> Iterator[Sequence[str]]:
    size, iterator = max(1, -(-len(names) // most)), iter(names)
    while part := list(islice(iterator, size)):
        yield part
