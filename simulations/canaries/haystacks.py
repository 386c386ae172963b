"""Which files of a run others can see: what the server keeps, and the reports; not what stays with the clients."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from client.recording import SUFFIX

_STAYS = "clients"


def files_that_leave(run: Path | None, search: Sequence[Path], *, leave_out: Path) -> Iterator[Path]:
    """Yield the files to be searched. run: folder of a simulated run. search: more files and folders.

    Recordings are searched message by message, and `leave_out`, the folder of the audit itself, is not.
    """
    tops = [] if run is None else [path for path in sorted(run.iterdir()) if path.name != _STAYS]
    own = leave_out.resolve()
    for top in [*tops, *search]:
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and path.suffix != SUFFIX and not path.resolve().is_relative_to(own):
                yield path
