"""Devices with text: each holds a speaker's texts but the last ones by name, and is tried on those."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks.edge.device import Device
from benchmarks.edge.settings import EdgeSettings
from personalization.errors import UserError
from simulations.speakers import speaker_folders, split_files


def make_speakers(settings: EdgeSettings) -> list[Device]:
    """Give each device the texts of one speaker, split as the simulator splits them. Raises UserError."""
    if settings.data is None:
        raise UserError("a language model needs --data, a folder with one folder of text for each speaker")
    speakers = speaker_folders(settings.data, settings.devices)
    if len(speakers) < settings.devices:
        raise UserError(f"{settings.data}: {len(speakers)} speakers; expected {settings.devices} or more")
    devices = []
    for name, speaker in zip(settings.names, speakers, strict=True):
        private, later = split_files(speaker)
        folder = (settings.out / "devices" / name).absolute()
        _copy(private, folder / "data")
        _copy(later, folder / "test")
        (folder / "home").mkdir()
        devices.append(Device(name, folder))
    return devices


def _copy(files: Sequence[Path], folder: Path) -> None:
    folder.mkdir(parents=True)
    for file in files:
        shutil.copyfile(file, folder / file.name)
