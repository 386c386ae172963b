"""A fleet of people who write or speak: one folder of text for each, the later texts kept for testing."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from client.data import Config, InputFacts, text_batch
from personalization.data.image_data import class_folders
from personalization.data.tasks import FEWEST_WINDOWS, PrivateSamples, TextBatch, text_samples
from personalization.data.texts import TextPreprocessing, Tokens, read_windows, spread, text_files
from personalization.errors import UserError

_TEST_SHARE = 0.2


@dataclass(frozen=True)
class Speaker:
    """A client of a fleet of text: windows [windows, tokens + 1] of all private text and of some test text.

    measured: how many of the private windows are measured on.
    """

    name: str
    private: Tokens
    test: Tokens
    measured: int

    @property
    def samples(self) -> PrivateSamples:
        """The private samples: those that are measured on, and all of them to train on."""
        return text_samples(self.private, most=self.measured)


class SpeakerData:
    """Who says what; the same for the same folder, and nothing is drawn at random."""

    def __init__(self, speakers: tuple[Speaker, ...]) -> None:
        """Take the speakers in the order of their clients' numbers."""
        self.speakers = speakers

    def __call__(self, node_config: Config, run_config: Config, facts: InputFacts) -> PrivateSamples:
        """Return the private samples of the client `partition-id` of `node_config`."""
        return self.speakers[int(node_config["partition-id"])].samples

    @property
    def clients(self) -> int:
        """Number of speakers."""
        return len(self.speakers)

    def one_sample(self) -> dict[str, Tensor]:
        """Return the inputs of one sample, to time models on."""
        return {"input_ids": torch.from_numpy(self.speakers[0].private[:1, :-1])}


def make_speaker_data(config: Config, clients: int, facts: InputFacts) -> SpeakerData:
    """Return the first `clients` speakers, by name, of the folder `data` of a run configuration. Raises UserError."""
    assert isinstance(facts.preprocessing, TextPreprocessing)
    if config.get("partition") not in (None, "", "natural"):
        raise UserError(f"partition {config['partition']}: text is shared out by speakers; use --partition natural")
    if not config.get("data"):
        raise UserError(
            "a fleet of text needs --data, a folder with one folder of text for each speaker; "
            "python -m simulations.sotu fetches one"
        )
    folders = speaker_folders(Path(str(config["data"])), clients)
    return SpeakerData(tuple(_read_speaker(own, facts.preprocessing, text_batch(config)) for own in folders))


def speaker_folders(folder: Path, most: int) -> list[Path]:
    """Return the folders of the first speakers in `folder`, by name, at most so many. Raises UserError if none."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected one with a folder of text for each speaker")
    folders = class_folders(folder)[:most]
    if not folders:
        raise UserError(f"{folder}: no folders in it; expected one folder of text for each speaker")
    return folders


def _read_speaker(folder: Path, preprocessing: TextPreprocessing, batch: TextBatch) -> Speaker:
    train, test = split_files(folder)
    private, later = (
        read_windows(files, preprocessing, length=batch.tokens, fewest=fewest, source=source)
        for files, fewest, source in ((train, FEWEST_WINDOWS, folder), (test, 1, test[0]))
    )
    return Speaker(folder.name, private, spread(later, batch.windows), batch.windows)


def split_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return a speaker's private and test files: those of train/ and test/, or the last fifth, by name, for testing.

    Raises UserError.
    """
    inside = {own.name: own for own in class_folders(folder)}
    if inside:
        if set(inside) != {"train", "test"}:
            raise UserError(f"{folder}: has {', '.join(inside)}; expected files of text, or train/ and test/")
        return text_files(inside["train"]), text_files(inside["test"])
    files = text_files(folder)
    if len(files) < 2:
        raise UserError(f"{folder}: one file of text; expected two or more, the last by name to test with")
    last = max(1, round(_TEST_SHARE * len(files)))
    return files[:-last], files[-last:]
