"""One writer at a time: the operating system's lock on a folder, gone with the process that holds it."""

import fcntl
import os
from pathlib import Path
from types import TracebackType

from personalization.errors import UserError


class StateLock:
    """Locks a folder against other processes while it is entered; the same object may be entered again inside.

    The lock is on the folder itself (flock), so there is no lock file to be left behind or removed.
    """

    def __init__(self, folder: Path) -> None:
        """Take the folder; nothing is locked yet."""
        self._folder = folder
        self._descriptor = -1
        self._depth = 0

    def __enter__(self) -> "StateLock":
        """Lock, without waiting. Raises UserError if another process has locked the folder, OSError if it is gone."""
        if self._depth == 0:
            descriptor = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                raise UserError(
                    f"{self._folder}: another process is writing here; wait until it ends, "
                    "or give each node a state-dir of its own"
                ) from None
            except BaseException:
                os.close(descriptor)
                raise
            self._descriptor = descriptor
        self._depth += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Unlock when what was entered first is left."""
        self._depth -= 1
        if self._depth == 0:
            os.close(self._descriptor)
            self._descriptor = -1
