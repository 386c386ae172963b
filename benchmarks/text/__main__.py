"""What each part of personalization buys on a language model: `python -m benchmarks.text`.

Speakers with private text, tested on their own later speeches. Rows say where a device's idea of its layers comes from,
columns what is done about the cut; every cell is a personal model of every speaker. Needs `make llm`. Takes hours on
two cores; results are kept as they come in `--out`, and an interrupted run goes on where it stopped. `--parts` says
what to work on; the tables show all that is kept.
"""

import argparse
import sys
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.kept_results import kept, map_and_keep
from benchmarks.text.cells import DISTILLED, Fleet, Record, all_tasks, evaluate, sense
from benchmarks.text.clients import default_data
from benchmarks.text.proportionality import proportionality
from benchmarks.text.speaker_table import speaker_table
from benchmarks.text.tables import checks, summary_tables, whole_table
from benchmarks.text.tokens import count_spelled, fewer_table, score_fewer, spelled_table
from benchmarks.text.whole import evaluate_trained_dense, evaluate_whole
from personalization.data.texts import WINDOW_TOKENS
from personalization.errors import UserError
from personalization.settings import PersonalizationSettings

UNTRAINED, TRAINED, TOKENS, WHOLE = "untrained", "distilled", "tokens", "whole"
PARTS = (UNTRAINED, TRAINED, TOKENS, WHOLE)


@dataclass(frozen=True)
class Measured:
    """sensed: of each speaker. cells: of the tables. tokens: vocabularies that are cut, and fewer: dense models with
    them. whole: whole models.
    """

    sensed: list[Record]
    cells: list[Record]
    tokens: list[Record]
    fewer: list[Record]
    whole: list[Record]


def run(fleet: Fleet, out: Path, jobs: int, console: Console, parts: Collection[str] = PARTS) -> Measured:
    """Measure all speakers and evaluate `parts`; return what is kept by now."""
    out.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(jobs) as pool:

        def complete(name: str, work: Callable[..., Any], tasks: Sequence[Any], key: Callable[[Any], Any]) -> list[Any]:
            """Return the results of `tasks`, and others that are kept: the missing ones are made now."""
            found = kept(out / name)
            known = {key(result) for result in found}
            todo = [task for task in tasks if task not in known]
            return [*found, *map_and_keep(pool, work, todo, out / name, console)]

        numbers = range(fleet.clients)
        sensed = complete("sensed.jsonl", partial(sense, fleet), numbers, lambda record: record["client"])
        # A fleet's clients take turns, so that their order is part of the result.
        known = {record["client"]: record for record in sorted(sensed, key=lambda record: record["client"])}
        cells = complete(
            "cells.jsonl",
            partial(evaluate, fleet, known),
            [task for task in all_tasks(fleet) if (TRAINED if task[3] == DISTILLED else UNTRAINED) in parts],
            lambda cell: (cell["client"], cell["row"], cell["budget"], cell["column"]),
        )
        tokens = complete(
            "tokens.jsonl",
            partial(count_spelled, fleet),
            numbers if TOKENS in parts else [],
            lambda records: records[0]["client"],
        )
        fewer = complete(
            "fewer_tokens.jsonl",
            partial(score_fewer, fleet),
            numbers if TOKENS in parts else [],
            lambda records: records[0]["client"],
        )
        whole = complete(
            "whole.jsonl",
            partial(evaluate_whole, fleet, known),
            numbers if WHOLE in parts else [],
            lambda records: records[0]["client"],
        )
        dense = complete(
            "whole_dense.jsonl",
            partial(evaluate_trained_dense, fleet),
            numbers if WHOLE in parts else [],
            lambda record: record["client"],
        )
    return Measured(sensed, cells, [*chain(*tokens)], [*chain(*fewer)], [*dense, *chain(*whole)])


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
    parser.add_argument(
        "--parts",
        nargs="*",
        choices=PARTS,
        default=PARTS,
        help="what to work on after the sensing (default: all; nothing behind it: show the tables of what is kept)",
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes of one thread each (default: 2)")
    parser.add_argument("--out", type=Path, default=Path("runs/text"), help="folder that keeps the results")
    arguments = parser.parse_args()
    if arguments.clients < 2:
        parser.error("--clients: expected 2 or more, for a fleet's prior comes from the others")
    console = Console()
    fleet = Fleet(arguments.model, str(arguments.data), arguments.clients, arguments.window_tokens)
    try:
        found = run(fleet, arguments.out, arguments.jobs, console, arguments.parts)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    world = fleet.load()
    dense = {record["client"]: record["dense"] for record in found.sensed}
    tables = [
        summary_tables(found.sensed, found.cells),
        checks(found.sensed, found.cells),
        spelled_table(found.tokens),
        fewer_table(found.fewer, dense),
        whole_table(found.whole),
        speaker_table(found.whole, world.speakers),
        proportionality(found.sensed, world.layers, len(PersonalizationSettings.levels)),
    ]
    text = "\n".join(tables)
    (arguments.out / "tables.md").write_text(text)
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
