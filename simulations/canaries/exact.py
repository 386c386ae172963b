"""Find a fragment of any of many byte strings: blocks of 8 bytes in a sorted table, then the bytes around."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BLOCK = 8
FRAGMENT = 16  # values in a row that make a finding
_DISTINCT = 12
_LEAST_BYTES = 16
_AT_ONCE = 1 << 20
_MOST_ALIKE = 16  # blocks; what is in more places than that, such as the black of a frame, tells nothing
_REACH = 64  # values to either side that are looked at


class FragmentTable:
    """Blocks of all forms. A fragment counts if it is long enough, and 12 of its values differ: a sky is no finding."""

    def __init__(self, forms: Sequence[tuple[str, int, bytes]], *, fragment: int = FRAGMENT) -> None:
        """Index `forms`: of each its name, the bytes of one value, and it itself.

        fragment: how many values in a row make a finding, 16 or more.
        """
        self._forms, self._fragment = list(forms), fragment
        blocks, owners, places = [np.zeros(0, np.uint64)], [np.zeros(0, np.intp)], [np.zeros(0, np.intp)]
        for number, (_, size, data) in enumerate(self._forms):
            all_blocks = np.frombuffer(data, dtype="<u8", count=len(data) // BLOCK).astype(np.uint64)
            telling = _telling(all_blocks, size)
            blocks.append(all_blocks[telling])
            owners.append(np.full(len(telling), number))
            places.append(telling * BLOCK)
        joined = np.concatenate(blocks)
        _, which, counts = np.unique(joined, return_inverse=True, return_counts=True)
        rare = np.flatnonzero(counts[which] <= _MOST_ALIKE)
        order = rare[np.argsort(joined[rare], kind="stable")]
        self._blocks = joined[order]
        self._owners, self._places = np.concatenate(owners)[order], np.concatenate(places)[order]

    def find(self, data: bytes) -> set[str]:
        """Return the names of the forms of which there is a fragment in `data`."""
        found: set[str] = set()
        if len(self._blocks) == 0:
            return found
        # Any 15 bytes of a form hold one of its blocks whole; here they may begin anywhere.
        for start in range(0, len(data) - BLOCK + 1, _AT_ONCE):
            windows = _windows(data[start : start + _AT_ONCE + BLOCK - 1])
            first = np.searchsorted(self._blocks, windows, side="left")
            equal = self._blocks[np.minimum(first, len(self._blocks) - 1)] == windows
            for at in np.flatnonzero(equal).tolist():
                self._check(data, start + at, int(first[at]), found)
        return found

    def _check(self, data: bytes, at: int, entry: int, found: set[str]) -> None:
        block = self._blocks[entry]
        while entry < len(self._blocks) and self._blocks[entry] == block:
            name, size, form = self._forms[int(self._owners[entry])]
            if name not in found and _is_fragment(data, at, form, int(self._places[entry]), size, self._fragment):
                found.add(name)
            entry += 1


def _windows(data: bytes) -> NDArray[np.uint64]:
    windows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(data, np.uint8), BLOCK)
    return np.ascontiguousarray(windows).view("<u8").ravel().astype(np.uint64)


def _telling(blocks: NDArray[np.uint64], size: int) -> NDArray[np.intp]:
    """Return which blocks do not hold one value over and over. size: bytes of a value."""
    width = min(size, BLOCK)
    values = np.sort(np.ascontiguousarray(blocks).view(f"<u{width}").reshape(-1, BLOCK // width), axis=1)
    distinct = 1 + (values[:, 1:] != values[:, :-1]).sum(axis=1)
    return np.flatnonzero(distinct >= (5 if width == 1 else BLOCK // width - (width == 2)))


def _is_fragment(data: bytes, at: int, form: bytes, place: int, size: int, fragment: int) -> bool:
    """Return whether the bytes around data[at:] and form[place:] agree for long enough."""
    reach = _REACH * size
    before = _agreeing(data[max(0, at - reach) : at][::-1], form[max(0, place - reach) : place][::-1])
    length = before + _agreeing(data[at : at + reach], form[place : place + reach])
    start = place - before
    whole = start + -start % size
    count = (start + length - whole) // size
    if length < _LEAST_BYTES or count < fragment:
        return False
    values = np.frombuffer(form, dtype=f"V{size}", count=count, offset=whole)
    return len({value.tobytes() for value in values}) >= _DISTINCT


def _agreeing(one: bytes, other: bytes) -> int:
    """Return how many bytes two strings begin with alike."""
    size = min(len(one), len(other))
    differ = np.flatnonzero(np.frombuffer(one, np.uint8, size) != np.frombuffer(other, np.uint8, size))
    return int(differ[0]) if len(differ) else size
