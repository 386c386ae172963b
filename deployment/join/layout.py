"""What tells the state folder of a node from the folder of a model. Needs nothing that a bare device lacks."""

from pathlib import Path

from client.entries import RECORD, VAULT

OWNER = "join.json"
_MARKS = (OWNER, VAULT, RECORD)


def is_state(folder: Path) -> bool:
    """Say whether a folder is the state of a node, rather than a personal model."""
    return any((folder / name).exists() for name in _MARKS)
