"""Write files so that a crash or a full disk leaves either the old file or the new one, never a part."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

_CHUNK_BYTES = 1 << 20
_TEMPORARY = ".part"


def write_atomically(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write `data` beside `path`, flush it to the disk and only then put it in the place of `path`.

    mode: the permissions of the new file. Raises OSError, and then `path` is as it was and nothing is left beside it.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_TEMPORARY}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


@contextlib.contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """Yield a file beside `path` to be written, which its owner only can read; then put it in the place of `path`.

    It is flushed to the disk before. If anything is raised meanwhile, `path` is as it was and nothing is left beside
    it. Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_TEMPORARY}")
    try:
        temporary.touch(mode=0o600, exist_ok=False)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte of `data` to an open file. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view[:_CHUNK_BYTES]) :]


def remove_temporary(folder: Path) -> None:
    """Remove what writes that were killed have left in `folder`. Raises OSError."""
    for path in folder.glob(f".*{_TEMPORARY}"):
        path.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    # The new name itself is on the disk only once the folder is. Some file systems cannot flush a folder: the file is
    # in place and whole all the same, so that is no failure.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
