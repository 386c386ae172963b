"""Keeps the SuperLink's list of devices the same as the fleet's record."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from deployment.fleet import Fleet
from deployment.serve.control import ONLINE, UNREGISTERED, ControlError, RegisteredNode, key_bytes


class Registry(Protocol):
    """Where devices are registered, see `Control`."""

    def nodes(self) -> list[RegisteredNode]:
        """Return all devices that were ever registered."""

    def register(self, key: bytes, name: str) -> None:
        """Let a device connect. Raises ControlError."""

    def unregister(self, node: int) -> None:
        """Refuse a device from now on. Raises ControlError."""


@dataclass(frozen=True)
class NodeCounts:
    """How many devices there are. online: connected now."""

    enrolled: int
    revoked: int
    online: int


def reconcile(fleet: Fleet, registry: Registry, say: Callable[[str], None]) -> NodeCounts:
    """Register the fleet's devices that are not, and unregister every other key: the record alone decides.

    say: takes a line for each change, and for each that fails; the next call tries again. Raises ControlError if the
    registry does not answer.
    """
    nodes = [node for node in registry.nodes() if node.status != UNREGISTERED]
    known = {node.key for node in nodes}
    wanted = {}
    for member in fleet.active:
        try:
            wanted[key_bytes(member.public_key)] = member.name
        except ValueError as error:
            say(f"{member.name}: its public key in the fleet's record is damaged ({error})")
    for key, name in wanted.items():
        if key not in known:
            _try(partial(registry.register, key, name), f"{name}: registered", say)
    names = {_key(member.public_key): member.name for member in fleet.revoked}
    for node in nodes:
        if node.key not in wanted:
            name = names.get(node.key, f"node {node.node}")
            _try(partial(registry.unregister, node.node), f"{name}: no longer admitted", say)
    online = sum(node.status == ONLINE and node.key in wanted for node in nodes)
    return NodeCounts(enrolled=len(fleet.active), revoked=len(fleet.revoked), online=online)


def _try(change: Callable[[], None], done: str, say: Callable[[str], None]) -> None:
    try:
        change()
    except ControlError as error:
        say(f"{done.partition(':')[0]}: not yet ({error})")
    else:
        say(done)


def _key(public_key: str) -> bytes:
    try:
        return key_bytes(public_key)
    except ValueError:
        return b""
