"""A device on this machine: a folder with all that is its own, and a home."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Device:
    """A device. folder: all that is its own."""

    name: str
    folder: Path

    @property
    def node_file(self) -> Path:
        """The file that was carried to it."""
        return self.folder / f"{self.name}.json"

    @property
    def data(self) -> Path:
        """Its private images or text."""
        return self.folder / "data"

    @property
    def tests(self) -> list[Path]:
        """Files like its own that it never uses to personalize, sorted by name."""
        return sorted((self.folder / "test").iterdir())

    @property
    def state(self) -> Path:
        """What it keeps."""
        return self.folder / "state"

    @property
    def export(self) -> Path:
        """Its exported model."""
        return self.folder / "export"

    @property
    def environment(self) -> dict[str, str]:
        """What sets it apart from other devices on this machine: a home of its own."""
        home = self.folder / "home"
        return {
            "HOME": str(home),
            **{f"XDG_{kind}_HOME": str(home / kind.lower()) for kind in ("CONFIG", "DATA", "CACHE")},
        }
