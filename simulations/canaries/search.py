"""Search what others can see for canaries, private images and text, and names."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulations.canaries.correlation import correlates, stretches, views
from simulations.canaries.exact import FragmentTable
from simulations.canaries.needles import Needle
from simulations.canaries.peeling import number_lists, peel

# Letters of a passage that somebody wrote which make a finding: fewer in a row can be in anybody's text.
NATURAL_FRAGMENT = 48
# Larger ones are searched for fragments and lists of numbers alone: reading them as numbers of every kind takes long.
LARGEST_VIEWED = 1 << 18


class Search:
    """Looks for needles. places: how many messages and files were searched, and how many bytes they had."""

    def __init__(self, needles: Sequence[Needle]) -> None:
        """Index the needles."""
        self._needles = list(needles)
        self._tables = [
            FragmentTable(_forms([needle for needle in needles if not needle.natural])),
            FragmentTable(_forms([needle for needle in needles if needle.natural]), fragment=NATURAL_FRAGMENT),
        ]
        self._noise = {needle.name: stretches(needle.noise) for needle in needles if needle.noise}
        self._words = {
            needle.name: {form.encode() for form in (needle.word, needle.word.lower(), needle.word.upper())}
            for needle in needles
            if needle.word
        }
        self._found: list[dict[str, str]] = []
        self._bytes: Counter[str] = Counter()
        self._places: Counter[str] = Counter()

    def message(self, data: bytes, where: str) -> None:
        """Search a message that left a device."""
        self._search(data, where, "messages", words=True)

    def file(self, path: Path) -> None:
        """Search a file that others can see; names are not looked for: a report may well say what a class is called."""
        self._search(path.read_bytes(), str(path), "files", words=False)

    def find(self, data: bytes, *, words: bool = True) -> list[str]:
        """Return what of the needles is in `data`, and how it is wrapped."""
        found: dict[str, None] = {}
        for wrapped, inner in peel(data) if self._needles else ():
            inside = f" in {wrapped}" if wrapped else ""
            lists = list(number_lists(inner))
            written = [_as_bytes(values) for values in lists]
            found |= dict.fromkeys(f"{name}{inside}" for name in self._fragments(inner))
            found |= dict.fromkeys(f"{name} in a list" for data in written for name in self._fragments(data))
            found |= dict.fromkeys(f"{name}, scaled{inside}" for name in self._scaled(inner, lists))
            if words:
                found |= dict.fromkeys(f"{name}{inside}" for name in self._named(inner))
        return list(found)

    def problems(self) -> list[dict[str, str]]:
        """Return what was found."""
        return self._found

    def to_record(self) -> dict[str, Any]:
        """Return what was searched for and where, as what JSON can hold."""
        return {
            "canaries": sum(needle.planted for needle in self._needles),
            "images": sum(bool(needle.forms) and not (needle.planted or needle.natural) for needle in self._needles),
            "passages": sum(needle.natural for needle in self._needles),
            "names": len(self._words),
            "forms": len(next((needle.forms for needle in self._needles if needle.forms), [])),
            "messages": self._places["messages"],
            "message_bytes": self._bytes["messages"],
            "files": self._places["files"],
            "file_bytes": self._bytes["files"],
            "found": len(self._found),
        }

    def _search(self, data: bytes, where: str, kind: str, *, words: bool) -> None:
        self._places[kind] += 1
        self._bytes[kind] += len(data)
        self._found += [{"where": where, "what": f"found: {what}"} for what in self.find(data, words=words)]

    def _fragments(self, data: bytes) -> list[str]:
        return sorted(name for table in self._tables for name in table.find(data))

    def _scaled(self, data: bytes, lists: Sequence[NDArray[np.float64]]) -> list[str]:
        if not self._noise:
            return []
        seen = [*lists, *(views(data) if len(data) <= LARGEST_VIEWED else ())]
        return [name for name, patterns in self._noise.items() if any(correlates(one, patterns) for one in seen)]

    def _named(self, data: bytes) -> list[str]:
        return [name for name, forms in self._words.items() if any(form in data for form in forms)]


def _forms(needles: Sequence[Needle]) -> list[tuple[str, int, bytes]]:
    return [(f"{needle.name}: {name}", size, data) for needle in needles for name, size, data in needle.forms]


def _as_bytes(values: NDArray[np.float64]) -> bytes:
    """Return whole numbers from 0 to 255 as bytes, and others as 32-bit numbers."""
    whole = ((values >= 0) & (values <= 255) & (values == np.floor(values))).all()
    return values.astype(np.uint8 if whole else np.dtype("<f4")).tobytes()
