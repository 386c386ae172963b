"""What each part of personalization buys on a language model: `python -m benchmarks.text`.

Speakers with private text, tested on their own later speeches. Rows say where a device's idea of its layers comes from,
columns what is done about the cut; every cell is a personal model of every speaker. Needs `make llm`. Takes hours on
two cores; results are kept as they come in `--out`, and an interrupted run goes on where it stopped.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.text.cells import Fleet, Record, evaluate, sense
from benchmarks.text.clients import default_data
from benchmarks.text.rows import ROWS
from benchmarks.text.tables import checks, summary_tables


def run(fleet: Fleet, out: Path, jobs: int, console: Console) -> tuple[list[Record], list[Record]]:
    """Measure and evaluate all speakers; return their records and the cells."""
    out.mkdir(parents=True, exist_ok=True)
    first, second = out / "sensed.jsonl", out / "cells.jsonl"
    with ProcessPoolExecutor(jobs) as pool:
        sensed: list[Record] = _done(first)
        known = {record["client"] for record in sensed}
        todo = [number for number in range(fleet.clients) if number not in known]
        sensed += _map(pool, partial(sense, fleet), todo, first, console)
        cells: list[list[Record]] = _done(second)
        made = {(records[0]["client"], records[0]["row"]) for records in cells}
        wanted = [(number, row) for number in range(fleet.clients) for row in ROWS]
        work = partial(evaluate, fleet, {record["client"]: record for record in sensed})
        cells += _map(pool, work, [task for task in wanted if task not in made], second, console)
    return sensed, [record for records in cells for record in records]


def _done(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _map(
    pool: ProcessPoolExecutor, work: Callable[[Any], Any], tasks: Iterable[Any], path: Path, console: Console
) -> Iterator[Any]:
    todo = list(tasks)
    with path.open("a") as file:
        for number, result in enumerate(pool.map(work, todo), 1):
            file.write(json.dumps(result) + "\n")
            file.flush()
            console.print(f"{path.stem}: {number} of {len(todo)}")
            yield result


def main() -> None:
    """Run what is missing, print the tables and write them to `tables.md`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=8, help="speakers, the first by name (default: 8)")
    parser.add_argument(
        "--model", default="smollm2", help="folder or name of a causal language model (default: smollm2)"
    )
    parser.add_argument("--data", type=Path, default=default_data(), help="folder with a folder for each speaker")
    parser.add_argument("--jobs", type=int, default=2, help="processes of one thread each (default: 2)")
    parser.add_argument("--out", type=Path, default=Path("runs/text"), help="folder that keeps the results")
    arguments = parser.parse_args()
    if arguments.clients < 2:
        parser.error("--clients: expected 2 or more, for a fleet's prior comes from the others")
    console = Console()
    fleet = Fleet(arguments.model, str(arguments.data), arguments.clients)
    sensed, cells = run(fleet, arguments.out, arguments.jobs, console)
    text = summary_tables(sensed, cells) + "\n" + checks(sensed, cells)
    (arguments.out / "tables.md").write_text(text)
    console.print(text, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
