"""Results that took long to make, kept as they come, a JSON line each: an interrupted run goes on where it stopped."""

import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console


def kept(path: Path) -> list[Any]:
    """Return the results that an earlier run has kept in `path`; none if there was no such run."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def map_and_keep(
    pool: ProcessPoolExecutor,
    work: Callable[..., Any],
    tasks: Iterable[Any],
    path: Path,
    console: Console,
    *,
    told_every: int = 1,
) -> Iterator[Any]:
    """Yield what `work` makes of each task, in their order, after it was appended to `path`; tell of every so many."""
    todo = list(tasks)
    with path.open("a") as file:
        for number, result in enumerate(pool.map(work, todo), 1):
            file.write(json.dumps(result) + "\n")
            file.flush()
            if number % told_every == 0 or number == len(todo):
                console.print(f"{path.stem}: {number} of {len(todo)}")
            yield result
