"""The folder that a server keeps its state in, and the lock that keeps a second server out of it."""

import contextlib
import fcntl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from personalization.errors import UserError
from personalization.system.files import write_atomically
from personalization.system.private_files import check_private


@dataclass(frozen=True)
class StateFolder:
    """Where things stand in a state folder (absolute path)."""

    path: Path

    @property
    def database(self) -> Path:
        """The SuperLink's database."""
        return self.path / "superlink.db"

    @property
    def flower_home(self) -> Path:
        """Flower's own folder: unpacked apps, and the connection that `flwr list` takes."""
        return self.path / "flower"

    @property
    def record(self) -> Path:
        """What the server says of itself."""
        return self.path / "serve.json"

    @property
    def proxy(self) -> Path:
        """The reverse proxy's folder."""
        return self.path / "proxy"

    @property
    def run(self) -> Path:
        """The folder of the journal."""
        return self.path / "run"

    @property
    def marker(self) -> str:
        """What marks the processes of this server, see `marked_processes`."""
        return f"FEDSIEVE_SERVE_STATE={self.path}"

    def log(self, name: str) -> Path:
        """Return the log file of a process."""
        return self.path / "log" / f"{name}.log"

    def write_connection(self, port: int, authority: Path) -> None:
        """Write which SuperLink Flower's own commands speak to. Raises OSError."""
        text = (
            f'[superlink]\ndefault = "fleet"\n\n[superlink.fleet]\naddress = "127.0.0.1:{port}"\n'
            f'root-certificates = "{authority}"\n'
        )
        write_atomically(self.flower_home / "config.toml", text.encode())


@contextlib.contextmanager
def open_state(path: Path) -> Iterator[StateFolder]:
    """Make or take a state folder, for as long as the context lasts.

    Raises UserError if another server uses it, it is open to others or holds something else; OSError.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: a file; expected a folder for the server's state")
    if path.is_dir() and any(path.iterdir()) and not (path / ".lock").exists():
        raise UserError(f"{path}: holds something else; choose a new folder for the server's state")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_private(path, "state folder")
    state = StateFolder(path.absolute())
    with (path / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{path}: another fedsieve serve uses this state folder; give --state another") from None
        for folder in (state.flower_home, state.run, state.path / "log"):
            folder.mkdir(mode=0o700, exist_ok=True)
        yield state
