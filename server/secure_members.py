"""Whom the server knows in secure sums: lives as long as a run, in memory alone, because it is about single clients."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from server.enrolment_file import EnrolmentFile
from strategies.secure_aggregation.errors import MessageError
from strategies.secure_aggregation.identity import read_advert


@dataclass
class SecureMembers:
    """Clients with a key for this run. Each has a handle by node id, and an advertisement by handle.

    A client that loses its key gets a new handle with its next one, so that everybody gets to know it again.
    """

    enrolment: EnrolmentFile
    epoch: int
    _handles: dict[int, int] = field(default_factory=dict)
    _adverts: dict[int, bytes] = field(default_factory=dict)
    _nodes: dict[bytes, int] = field(default_factory=dict)
    _introduced: dict[int, set[int]] = field(default_factory=dict)
    _last: int = 0

    def strangers(self, nodes: Iterable[int]) -> list[int]:
        """Return those of `nodes` that have to be asked for their key."""
        return [node for node in nodes if node not in self._handles]

    def enlist(self, node: int, advert: bytes) -> None:
        """Take a node's advertisement. Raises MessageError if no enrolled node has signed it, or another sent it."""
        peer = read_advert(advert, self.enrolment.authority, fleet=self.enrolment.fleet, epoch=self.epoch)
        if self._nodes.setdefault(peer.fingerprint, node) != node:
            raise MessageError("an advertisement that another client has sent", reason="copied")
        self._last += 1
        self._handles[node], self._adverts[self._last] = self._last, advert

    def forget(self, node: int) -> None:
        """Ask a node for its key again before the next sum."""
        handle = self._handles.pop(node, None)
        if handle is not None:
            del self._adverts[handle]

    def handles(self, nodes: Iterable[int]) -> dict[int, int]:
        """Return the node of each handle, for those of `nodes` that have one."""
        return {self._handles[node]: node for node in nodes if node in self._handles}

    def adverts(self, handles: Iterable[int]) -> dict[int, bytes]:
        """Return the advertisement of each handle."""
        return {handle: self._adverts[handle] for handle in handles}

    def met(self, handle: int, others: Iterable[int]) -> None:
        """Note whom a client has been introduced to: it has answered with masks that it shares with them."""
        self._introduced.setdefault(handle, set()).update(others)

    @property
    def introduced(self) -> Mapping[int, Collection[int]]:
        """For each handle the handles that it knows."""
        return self._introduced
