"""What a client keeps between the steps of one round; no secret, but it must not be lost or set back."""

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strategies.secure_aggregation.errors import MessageError

_FORMAT = 1
_HEAD = struct.Struct("<B32sIIB")


@dataclass(frozen=True, eq=False)
class Participation:
    """session: the round's digest. threshold: how many peers must be left. peers [degree]: rising handles.

    dead [degree]: whose masks were told. finished: the shares were told, and nothing more will be.
    """

    session: bytes
    threshold: int
    peers: NDArray[np.uint32]
    dead: NDArray[np.bool_]
    finished: bool = False

    def to_bytes(self) -> bytes:
        """Return everything as bytes: 42, and 5 a peer."""
        head = _HEAD.pack(_FORMAT, self.session, self.threshold, len(self.peers), self.finished)
        return head + self.peers.astype("<u4").tobytes() + self.dead.tobytes()

    @staticmethod
    def from_bytes(raw: bytes) -> "Participation":
        """Return what `to_bytes` wrote. Raises MessageError for anything else."""
        if len(raw) < _HEAD.size or raw[0] != _FORMAT:
            raise MessageError("not a participation of this version")
        _, session, threshold, count, finished = _HEAD.unpack_from(raw)
        flags = _HEAD.size + 4 * count
        if len(raw) != flags + count or {*raw[flags:], finished} - {0, 1}:
            raise MessageError("a participation of the wrong length")
        peers = np.frombuffer(raw, dtype="<u4", count=count, offset=_HEAD.size).astype(np.uint32)
        dead = np.frombuffer(raw, dtype=np.bool_, count=count, offset=flags).copy()
        return Participation(session, threshold, peers, dead, bool(finished))
