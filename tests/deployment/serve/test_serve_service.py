"""The order in which a server comes up, with processes that are only noted."""

import threading
from types import SimpleNamespace

from deployment.serve.children import PROXY, STATUS, SUPERLINK
from deployment.serve.service import Service


class Noted(Service):
    """Notes what it starts and waits for, and is told to stop as soon as it is up."""

    def __init__(self, *, stopped_early: bool = False) -> None:
        self.order: list[str] = []
        self._stop, self._stopped_early = threading.Event(), stopped_early
        self._settings = SimpleNamespace(host="127.0.0.1", port=1, status=None)
        self._children = {
            name: SimpleNamespace(start=lambda name=name: self.order.append(name))
            for name in (SUPERLINK, PROXY, STATUS)
        }
        self._say = lambda line: self._stop.set()

    def _await_superlink(self) -> None:
        self.order.append("devices registered")
        if self._stopped_early:
            self._stop.set()

    def _await_proxy(self) -> None:
        self.order.append("proxy listens")

    def _warn_of_expiry(self) -> None:
        pass

    def _write(self, phase: str, *, always: bool = True) -> None:
        pass


def test_devices_can_connect_only_when_they_are_registered():
    service = Noted()
    assert service.run() == 0
    assert service.order == [SUPERLINK, STATUS, "devices registered", PROXY, "proxy listens"]


def test_a_server_that_is_told_to_stop_while_it_starts_lets_nobody_connect():
    service = Noted(stopped_early=True)
    assert service.run() == 0
    assert PROXY not in service.order
