"""A reply that was announced and never uploaded holds up neither the deadline nor anybody else's reply."""

import threading
import time
from collections.abc import Iterable

import pytest
from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid.http_grid import HttpGrid

from server.app import punctual
from server.punctual_grid import PunctualGrid


class Announced(Grid):
    """Stands for Flower's grid: node n has its reply after n polls, and the nodes of `stuck` never upload theirs."""

    def __init__(self, *, stuck=(), broken=False):
        self._stuck, self._broken, self._lock = set(stuck), broken, threading.Lock()
        self._sent, self.polls, self.released = {}, {}, threading.Event()

    def set_run(self, run):
        raise NotImplementedError

    @property
    def run(self):
        return Run.create_empty(1)

    def create_message(self, content, message_type, dst_node_id, group_id, ttl=None):
        raise NotImplementedError

    def get_node_ids(self):
        return [1, 2, 3]

    def push_messages(self, messages: Iterable[Message]):
        for message in messages:
            name = f"message {message.metadata.dst_node_id}"
            message.metadata.__dict__["_message_id"] = name
            self._sent[name] = message
        return list(self._sent)

    def pull_messages(self, message_ids):
        replies = []
        for name in message_ids:
            node = self._sent[name].metadata.dst_node_id
            if self._broken:
                raise ConnectionError("no SuperLink")
            if node in self._stuck:
                self.released.wait(30)
            with self._lock:
                self.polls[node] = self.polls.get(node, 0) + 1
            if self.polls[node] >= node:
                replies.append(Message(RecordDict(), reply_to=self._sent[name]))
        return replies

    def send_and_receive(self, messages, *, timeout=None):
        raise NotImplementedError


def ask(grid, nodes, timeout, threads=64):
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    messages = [Message(RecordDict(), node, MessageType.TRAIN) for node in nodes]
    replies = PunctualGrid(grid, poll_seconds=0.01, threads=threads).send_and_receive(messages, timeout=timeout)
    return sorted(reply.metadata.src_node_id for reply in replies)


@pytest.mark.parametrize("threads", [1, 2, 64])
def test_all_replies_come_once_however_many_threads(threads):
    grid = Announced()
    assert ask(grid, range(1, 8), None, threads) == list(range(1, 8))
    assert grid.polls == {node: node for node in range(1, 8)}, "nobody is asked for again"


def test_an_upload_that_never_comes_holds_up_nobody_else_and_no_deadline():
    grid, started = Announced(stuck={2}), time.monotonic()
    assert ask(grid, [1, 2, 3], 1.0) == [1, 3]
    assert time.monotonic() - started < 15, "the deadline is kept, not the patience of the stand-in"
    grid.released.set()


def test_what_a_pull_raises_is_raised():
    with pytest.raises(ConnectionError, match="no SuperLink"):
        ask(Announced(broken=True), [1, 2], 10.0)


def test_no_messages_no_waiting():
    assert ask(Announced(), [], None) == []


def test_only_the_grid_that_waits_is_wrapped():
    flowers = HttpGrid.__new__(HttpGrid)
    assert isinstance(punctual(flowers), PunctualGrid)
    other = Announced()
    assert punctual(other) is other
