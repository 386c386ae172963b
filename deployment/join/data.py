"""A device's own data, looked at before anything is started: images or text, and whether they can be read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from personalization.data.tasks import TaskName
from personalization.errors import UserError

_IMAGES_CHECKED = 64


@dataclass(frozen=True)
class DataFound:
    """What is in a device's data: `count` images, or files of text."""

    task: TaskName
    count: int

    def describe(self) -> str:
        """Return what a log line calls it."""
        what = "image" if self.task == "image" else "file"
        return f"{self.count} {what}{'' if self.count == 1 else 's'}" + (" of text" if self.task == "text" else "")


def check_data(data: Path) -> DataFound:
    """Return what is in a device's data. Raises UserError if there is nothing, or it cannot be read.

    Of many images 64 are decoded, evenly spread, and text is read whole; what they are to the model is only known once
    there is one. Files of text beside images, such as a readme, are passed over.
    """
    from personalization.data.image_data import check_images, class_folders, image_files, read_npz
    from personalization.data.texts import holds_text

    if data.suffix == ".npz" and data.is_file():
        return DataFound("image", len(check_images(read_npz(data, ("images",)).get("images"), data, "images")))
    if not data.is_dir():
        raise UserError(f"{data}: no such data folder or .npz file")
    try:
        files, folders = image_files(data), class_folders(data)
        if files and folders:
            raise UserError(f"{data}: images beside folders ({folders[0].name}); expected either images or folders")
        files += [file for folder in folders for file in image_files(folder)]
        if not files and holds_text(data):
            return DataFound("text", _read(data))
    except OSError as error:
        raise UserError(f"{error.filename or data}: {error.strerror}; expected a folder that can be read") from None
    if not files:
        raise UserError(
            f"{data}: no images in it and no text; expected files like .png or .jpg, class folders of them, or .txt or "
            ".jsonl files for a language model"
        )
    _decode(files)
    return DataFound("image", len(files))


def _decode(files: Sequence[Path]) -> None:
    from personalization.data.images import read_image

    count = min(len(files), _IMAGES_CHECKED)
    for number in range(count):
        read_image(files[number * len(files) // count])


def _read(folder: Path) -> int:
    from personalization.data.texts import read_texts, text_files

    files = text_files(folder)
    texts = [text for file in files for text in read_texts(file) if text.strip()]
    if not texts:
        raise UserError(
            f"{folder}: no text in its files; expected .txt files, or .jsonl files with a text in each line"
        )
    return len(files)
