from collections.abc import Sequence

import pytest

from deployment.command import Enrolment, enroll
from deployment.fleet import Fleet, read_fleet
from deployment.serve.control import ControlError, RegisteredNode, key_bytes
from deployment.serve.registration import NodeCounts, reconcile


class Registry:
    """A SuperLink's list of devices. refuses: names that it does not register."""

    def __init__(self, *, refuses: Sequence[str] = ()) -> None:
        self.known: dict[int, RegisteredNode] = {}
        self.names: dict[int, str] = {}
        self.refuses = refuses

    def nodes(self) -> list[RegisteredNode]:
        return list(self.known.values())

    def register(self, key: bytes, name: str) -> None:
        if name in self.refuses:
            raise ControlError("500")
        node = len(self.known) + 1
        self.known[node], self.names[node] = RegisteredNode(node, key, "registered"), name

    def unregister(self, node: int) -> None:
        self.known[node] = RegisteredNode(node, self.known[node].key, "unregistered")

    def admitted(self) -> list[str]:
        return sorted(self.names[node] for node, one in self.known.items() if one.status != "unregistered")


@pytest.fixture
def fleet(tmp_path) -> Fleet:
    enroll(tmp_path / "fleet", Enrolment(server="a.org", nodes=["a", "b"]))
    return read_fleet(tmp_path / "fleet")


def test_the_record_alone_decides_who_is_admitted(fleet):
    registry, lines = Registry(), []
    counts = reconcile(fleet, registry, lines.append)
    assert registry.admitted() == ["a", "b"]
    assert counts == NodeCounts(enrolled=2, revoked=0, online=0)
    assert lines == ["a: registered", "b: registered"]
    reconcile(fleet, registry, lines.append)
    assert len(lines) == 2
    enroll(fleet.folder, Enrolment(revoke=["a"], nodes=["c"]))
    changed = read_fleet(fleet.folder)
    assert reconcile(changed, registry, lines.append) == NodeCounts(enrolled=2, revoked=1, online=0)
    assert registry.admitted() == ["b", "c"]
    assert lines[2:] == ["c: registered", "a: no longer admitted"]


def test_a_key_that_is_not_in_the_record_is_thrown_out(fleet, tmp_path):
    enroll(tmp_path / "other", Enrolment(server="a.org", nodes=["x"]))
    registry = Registry()
    registry.register(key_bytes(read_fleet(tmp_path / "other").nodes[0].public_key), "x")
    reconcile(fleet, registry, lambda line: None)
    assert registry.admitted() == ["a", "b"]


def test_one_that_fails_keeps_no_other_out_and_is_tried_again(fleet):
    registry, lines = Registry(refuses=["a"]), []
    reconcile(fleet, registry, lines.append)
    assert registry.admitted() == ["b"]
    assert "a: not yet (500)" in lines
    registry.refuses = ()
    reconcile(fleet, registry, lines.append)
    assert registry.admitted() == ["a", "b"]


def test_online_counts_devices_that_are_connected_and_admitted(fleet):
    registry = Registry()
    reconcile(fleet, registry, lambda line: None)
    registry.known = {n: RegisteredNode(n, one.key, "online") for n, one in registry.known.items()}
    registry.known[9] = RegisteredNode(9, b"stranger", "online")
    assert reconcile(fleet, registry, lambda line: None).online == 2
