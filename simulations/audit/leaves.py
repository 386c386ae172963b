"""What an audit makes of one message: its bytes, each in a field with a name and a meaning, and what is wrong."""

from collections.abc import Sequence
from dataclasses import dataclass, field

FRAMING = "field number and length of what follows"
_SHOWN = 24


@dataclass(frozen=True)
class Leaf:
    """A field. start, size: its bytes in the message, with those of its number and length. meaning: None, nobody knows.

    value: what stands in it, in a few words.
    """

    name: str
    start: int
    size: int
    meaning: str | None
    value: str = ""


@dataclass(frozen=True)
class Piece:
    """A field of a message inside a message, by its length alone: where it stands follows from those before it."""

    name: str
    size: int
    meaning: str | None
    value: str = ""


@dataclass
class Decoded:
    """A message. client: who sent it. number: of the client's messages, from 1. kind: what it is. raw: its bytes."""

    client: str
    number: int
    kind: str
    raw: bytes = field(repr=False)
    leaves: list[Leaf] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def finish(self) -> "Decoded":
        """Return it, once a problem is noted for whatever has no meaning and for bytes in no field or in two."""
        reached = 0
        for leaf in sorted(self.leaves, key=lambda leaf: leaf.start):
            if leaf.start != reached:
                self.problems.append(f"bytes {reached} to {leaf.start} belong to no field, or to two")
            reached = leaf.start + leaf.size
            if leaf.meaning is None:
                self.problems.append(f"{leaf.name}: {leaf.size} bytes at {leaf.start} that nothing explains")
        if reached != len(self.raw):
            self.problems.append(f"bytes {reached} to {len(self.raw)} belong to no field")
        return self


def shown(value: object) -> str:
    """Return a value in a few words."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value[:_SHOWN].hex() + ("..." if len(value) > _SHOWN else "")
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) < 1e6 else f"{value:.3f}"
    return str(value)


def cut(start: int, pieces: Sequence[Piece], *, prefix: str = "") -> list[Leaf]:
    """Return the fields that `pieces` make when they follow on each other from `start`; none empty."""
    leaves = []
    for piece in pieces:
        if piece.size:
            leaves.append(Leaf(f"{prefix}{piece.name}", start, piece.size, piece.meaning, piece.value))
            start += piece.size
    return leaves
