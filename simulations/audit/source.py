"""What is audited: the folder of a simulated run, a folder of recordings, or one recording."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from client.recording import Kind, read_recording, recordings
from personalization.errors import UserError
from server.journal import JOURNAL, Journal, load_journal
from simulations.audit import device
from simulations.audit.leaves import Decoded
from simulations.audit.messages import read_messages
from simulations.recording import FOLDER
from simulations.recording import FORM as MESSAGES


@dataclass(frozen=True)
class Source:
    """files: the recordings. run: the folder of the simulated run that they belong to, None for those of devices."""

    files: list[Path]
    run: Path | None

    def journal(self) -> Journal | None:
        """Return the journal of the run, None if there is none yet. Raises UserError."""
        if self.run is None or not (self.run / "server" / JOURNAL).is_file():
            return None
        return load_journal(self.run / "server")


def find_source(path: Path) -> Source:
    """Return what is to be audited. Raises UserError if there is no recording at `path`."""
    if path.is_file():
        return Source([path], None)
    if not path.is_dir():
        raise UserError(f"{path}: no such folder or recording")
    if files := recordings(path / FOLDER):
        return Source(files, path)
    if files := recordings(path):
        return Source(files, None)
    raise UserError(f"{path}: no recording in it; make one with fedsieve simulate --record, or fedsieve join --record")


def read_file(path: Path, problems: list[dict[str, str]]) -> Iterator[Decoded]:
    """Yield the messages in a recording; add to `problems` what is wrong beside them. Raises UserError, OSError."""
    first = next(read_recording(path), None)
    if first is None or first.kind is not Kind.BEGINNING:
        raise UserError(f"{path}: a recording without a beginning; nothing was recorded yet, or it is damaged")
    form = first.facts().get("form")
    if form == MESSAGES:
        yield from read_messages(read_recording(path))
    elif form == device.FORM:
        traffic = device.read_traffic(read_recording(path))
        problems += [{"where": path.stem, "what": problem} for problem in device.connection_problems(traffic)]
        yield from device.read_device(traffic, path.stem)
    else:
        raise UserError(f"{path}: a recording of another kind ({form!r}) than this version knows")


def recorded_bytes(path: Path) -> int:
    """Return how many bytes left, by the lengths in a recording alone."""
    return sum(len(entry.data) for entry in read_recording(path) if entry.kind is Kind.UP)
