"""What each part of personalization buys on a language model: `python -m benchmarks.text`.

Speakers with private text, tested on their own later speeches. Rows say where a device's idea of its layers comes from,
columns what is done about the cut; every cell is a personal model of every speaker. Needs `make llm`. Takes hours on
two cores; results are kept as they come in `--out`, and an interrupted run goes on where it stopped.
"""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from rich.console import Console

from benchmarks.kept_results import kept, map_and_keep
from benchmarks.text.cells import Fleet, Record, evaluate, sense
from benchmarks.text.clients import default_data
from benchmarks.text.rows import ROWS
from benchmarks.text.tables import checks, summary_tables
from personalization.errors import UserError
from personalization.texts import WINDOW_TOKENS


def run(fleet: Fleet, out: Path, jobs: int, console: Console) -> tuple[list[Record], list[Record]]:
    """Measure and evaluate all speakers; return their records and the cells."""
    out.mkdir(parents=True, exist_ok=True)
    first, second = out / "sensed.jsonl", out / "cells.jsonl"
    with ProcessPoolExecutor(jobs) as pool:
        sensed: list[Record] = kept(first)
        known = {record["client"] for record in sensed}
        todo = [number for number in range(fleet.clients) if number not in known]
        sensed += map_and_keep(pool, partial(sense, fleet), todo, first, console)
        cells: list[list[Record]] = kept(second)
        made = {(records[0]["client"], records[0]["row"]) for records in cells}
        wanted = [(number, row) for number in range(fleet.clients) for row in ROWS]
        work = partial(evaluate, fleet, {record["client"]: record for record in sensed})
        cells += map_and_keep(pool, work, [task for task in wanted if task not in made], second, console)
    return sensed, [record for records in cells for record in records]


def main() -> int:
    """Run what is missing, print the tables and write them to `tables.md`; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=8, help="speakers, the first by name (default: 8)")
    parser.add_argument(
        "--model", default="smollm2", help="folder or name of a causal language model (default: smollm2)"
    )
    parser.add_argument("--data", type=Path, default=default_data(), help="folder with a folder for each speaker")
    parser.add_argument(
        "--window-tokens", type=int, default=WINDOW_TOKENS, help=f"tokens of a window (default: {WINDOW_TOKENS})"
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes of one thread each (default: 2)")
    parser.add_argument("--out", type=Path, default=Path("runs/text"), help="folder that keeps the results")
    arguments = parser.parse_args()
    if arguments.clients < 2:
        parser.error("--clients: expected 2 or more, for a fleet's prior comes from the others")
    console = Console()
    fleet = Fleet(arguments.model, str(arguments.data), arguments.clients, arguments.window_tokens)
    try:
        sensed, cells = run(fleet, arguments.out, arguments.jobs, console)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    text = summary_tables(sensed, cells) + "\n" + checks(sensed, cells)
    (arguments.out / "tables.md").write_text(text)
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
