"""Write whole files into folders that may not exist yet."""

from pathlib import Path

from personalization.files import write_atomically


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` as `write_atomically` does, readable by its owner only; makes the folder if need be.

    Raises OSError (a full disk, a folder that can't be written); the old file then stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
