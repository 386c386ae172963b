"""The folder of a comparison: the results of cells by their hash, so that nothing is ever computed twice."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from personalization.errors import UserError
from personalization.system.files import remove_temporary, write_atomically
from simulations.comparison.cells import CELL_FORMAT, Cell

CACHE, CELLS, FAILED, SCRATCH = "compare.json", "cells", "failed", "work"


class Cache:
    """Results in `cells/<key>.json`, each beside the description of its cell; what went wrong in `failed/<key>.txt`."""

    def __init__(self, out: Path) -> None:
        """Take a folder that `opened_cache` has looked at."""
        self.out = out
        self.scratch = out / SCRATCH

    def load(self, cell: Cell) -> dict[str, Any] | None:
        """Return the result of a cell; None if it is not there or can't be read, and then it is to be run again."""
        try:
            result = json.loads(self._path(cell).read_text())["result"]
        except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return result if isinstance(result, dict) else None

    def holds(self, cell: Cell) -> bool:
        """Say whether the result of a cell is there."""
        return self.load(cell) is not None

    def save(self, cell: Cell, result: Mapping[str, Any]) -> None:
        """Keep the result of a cell, whole or not at all. Raises OSError."""
        record = {"cell": cell.to_record(), "result": result}
        write_atomically(self._path(cell), json.dumps(record, allow_nan=False).encode(), mode=0o644)
        self._trace(cell).unlink(missing_ok=True)

    def save_failure(self, cell: Cell, trace: str) -> Path:
        """Keep what a cell failed with, for people to read, and return the file. Raises OSError."""
        path = self._trace(cell)
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, f"{json.dumps(cell.to_record(), indent=1)}\n\n{trace}\n".encode(), mode=0o644)
        return path

    def _path(self, cell: Cell) -> Path:
        return self.out / CELLS / f"{cell.key}.json"

    def _trace(self, cell: Cell) -> Path:
        return self.out / FAILED / f"{cell.key}.txt"


@contextmanager
def opened_cache(out: Path) -> Iterator[Cache]:
    """Open the cache in `out` for one comparison at a time; the folder is made if need be.

    Raises UserError if the folder holds something else or the cells of another version, which stay as they are, or if
    another comparison runs in it.
    """
    check_folder(out)
    (out / CELLS).mkdir(parents=True, exist_ok=True)
    descriptor = os.open(out / CELLS, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{out}: another comparison runs in it; wait for it or choose another --out") from error
        remove_temporary(out)
        remove_temporary(out / CELLS)
        if not (out / CACHE).is_file():
            write_atomically(out / CACHE, json.dumps(_versions()).encode(), mode=0o644)
        shutil.rmtree(out / SCRATCH, ignore_errors=True)
        (out / SCRATCH).mkdir()
        try:
            yield Cache(out)
        finally:
            shutil.rmtree(out / SCRATCH, ignore_errors=True)
    finally:
        os.close(descriptor)


def check_folder(out: Path) -> None:
    """Raise UserError if `out` can't be the folder of this version's comparisons; changes nothing."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: a file; expected a folder for this comparison")
    path = out / CACHE
    if not path.is_file():
        # An empty `cells` alone is what a comparison leaves that was killed before its first write.
        if out.is_dir() and any(entry.name != CELLS or any(entry.iterdir()) for entry in out.iterdir()):
            raise UserError(f"{out}: holds something else; choose a new folder, or that of an earlier comparison")
        return
    try:
        found = json.loads(path.read_text())
        described = f"fedsieve {found['fedsieve']}, cell format {found['cell_format']}"
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: damaged; choose another --out (the cells in this one are kept)") from error
    if found != _versions():
        raise UserError(
            f"{out}: holds cells of {described}; this is fedsieve {version('fedsieve')}, cell format {CELL_FORMAT}; "
            "choose another --out (the cells in this one are kept)"
        )


def _versions() -> dict[str, Any]:
    return {"cell_format": CELL_FORMAT, "fedsieve": version("fedsieve")}
