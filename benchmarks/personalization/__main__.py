"""What each part of personalization buys: `python -m benchmarks.personalization`.

30 clients of 3 classes with 200 private images each, without labels, three seeds. Rows say where a device's idea of its
layers comes from, columns what is done about the cut; every cell is a personal model of every client, evaluated on
the client's own test images and on images of all classes. All models have their head fitted to the client's class
mixture, the dense one too. Cells are kept as they come in `--out`, and an interrupted run goes on where it stopped.
"""

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from torch import nn

from benchmarks.kept_results import kept, map_and_keep
from benchmarks.personalization.client import Client, load_client
from benchmarks.personalization.rows import (
    BUDGETS,
    FLEET_PROBES,
    ROWS,
    SAME_EVALUATIONS,
    SENSED_LAYERS,
    SENSED_PROBES,
    Sensed,
    fleet_prior,
    row_curves,
    share_of_atoms,
)
from benchmarks.personalization.tables import checks, summary_tables
from personalization.allocation.allocate import Curves, allocate, weight_costs
from personalization.allocation.pruning import Schedule, StepBuffer
from personalization.cutting.masked import MaskedPass
from personalization.final_model import final_pass, trained
from personalization.pipeline import STEP_PROBES
from personalization.sensing.local_errors import local_errors
from personalization.sensing.probes import ProbeSamples, draw_probes, one_at_a_time, take_samples

Record = dict[str, Any]


def sense(task: tuple[int, int], *, clients: int) -> Record:
    """Measure all that the rows need of one client: every atom by itself, and probes of several layers."""
    seed, number = task
    client = load_client(seed, number, clients)
    layers, levels = client.world.layers, client.settings.levels
    masked = client.masked(everything=False)
    started = time.perf_counter()
    single = take_samples(masked, one_at_a_time(len(layers), len(levels)), levels, measure=client.increase)
    seconds = (time.perf_counter() - started) / len(single.measurements)
    design = draw_probes(
        len(layers),
        len(levels),
        SENSED_PROBES,
        layers_per_probe=SENSED_LAYERS,
        prior=None,
        seen=np.zeros(len(layers) * len(levels)),
        rng=np.random.default_rng(client.settings.seed),
    )
    many = take_samples(masked, design, levels, measure=client.increase)
    own, everything = client.accuracies(client.dense())
    plain, _ = client.accuracies(client.world.model)
    return {
        "seed": seed,
        "client": number,
        "single": single.measurements.tolist(),
        "design": many.design.tolist(),
        "many": many.measurements.tolist(),
        "errors": local_errors(masked, levels).tolist(),
        "seconds_per_probe": seconds,
        "dense": own,
        "dense_all_classes": everything,
        "dense_plain_head": plain,
    }


def evaluate(task: tuple[int, int, str], *, clients: int, sensed: dict[tuple[int, int], Record]) -> list[Record]:
    """Make and evaluate the personal models of one client for one row: every column and budget."""
    seed, number, row = task
    client = load_client(seed, number, clients)
    own = _sensed(sensed[seed, number])
    others = [key for key in sensed if key[0] == seed and key[1] != number]
    shape = (len(client.world.layers), len(client.settings.levels))
    masks = [share_of_atoms(*shape, FLEET_PROBES, np.random.default_rng(1000 * s + n)) for s, n in others]
    prior = fleet_prior([np.array(sensed[key]["single"]) for key in others], np.array(masks))
    records = []
    rng = np.random.default_rng(client.settings.seed)
    curves, spent = row_curves(row, client.world.layers, own, prior, client.settings, rng)
    probing = spent * sensed[seed, number]["seconds_per_probe"]
    for budget in BUDGETS:
        cells = _columns(client, curves, budget, only_compensated=row == SAME_EVALUATIONS)
        for column, make in cells.items():
            started = time.perf_counter()
            model, evaluations = make()
            seconds = time.perf_counter() - started + probing
            accuracy, everything = client.accuracies(model)
            records.append(
                {
                    "seed": seed,
                    "client": number,
                    "row": row,
                    "column": column,
                    "budget": budget,
                    "accuracy": accuracy,
                    "all_classes": everything,
                    "evaluations": spent + evaluations,
                    "seconds": seconds,
                }
            )
    return records


Maker = Callable[[], tuple[nn.Module, int]]


def _columns(client: Client, curves: Curves, budget: float, *, only_compensated: bool) -> dict[str, Maker]:
    """Return for each column what makes its model and counts the evaluations that this takes."""

    def shot(*, fold: bool = False) -> tuple[nn.Module, int]:
        return client.cut(_one_shot(client, curves, budget, fold=fold)), 0

    def buffered() -> tuple[nn.Module, int]:
        result, evaluations = _step_buffer(client, curves, budget)
        return client.cut(result), evaluations

    def distilled() -> tuple[nn.Module, int]:
        return trained(shot()[0], client.trace, replace(client.settings, recovery="distill"), client.samples), 0

    if only_compensated:
        return {"compensated": shot}
    return {"folded": partial(shot, fold=True), "compensated": shot, "step buffer": buffered, "distilled": distilled}


def _one_shot(client: Client, curves: Curves, budget: float, *, fold: bool) -> MaskedPass:
    layers = client.world.layers
    limits = np.full(len(layers), client.settings.layer_limit)
    counts = allocate(layers, curves, weight_costs(layers), budget, limits=limits)
    return client.masked(everything=True, fold=fold).run(dict(enumerate(map(int, counts))))


def _step_buffer(client: Client, curves: Curves, budget: float) -> tuple[MaskedPass, int]:
    layers, settings = client.world.layers, client.settings
    schedule = Schedule(
        budget=budget,
        steps=settings.steps,
        step_probes=STEP_PROBES,
        tolerance=np.inf,
        limits=np.full(len(layers), settings.layer_limit),
    )
    masked = client.masked(everything=False)
    pruned = StepBuffer(masked, curves, weight_costs(layers), schedule, client.increase).prune()
    return final_pass(masked, pruned), pruned.evaluations


def _sensed(record: Record) -> Sensed:
    many = ProbeSamples(np.array(record["design"]), np.array(record["many"]))
    return Sensed(np.array(record["single"]), many, np.array(record["errors"]))


def run(
    clients: int, evaluated: int, seeds: int, out: Path, jobs: int, console: Console
) -> tuple[list[Record], list[Record]]:
    """Measure all clients of all seeds and evaluate the first `evaluated`; return these clients' records and cells."""
    out.mkdir(parents=True, exist_ok=True)
    # Seeds in turns, so that an interrupted run has seen all of them.
    tasks = [(seed, number) for number in range(clients) for seed in range(seeds)]
    with ProcessPoolExecutor(jobs) as pool:
        first, second = out / "sensed.jsonl", out / "cells.jsonl"
        sensed = kept(first)
        known = {(record["seed"], record["client"]) for record in sensed}
        sensed += map_and_keep(
            pool, partial(sense, clients=clients), (t for t in tasks if t not in known), first, console, told_every=10
        )
        # A fleet's clients take turns, so that their order is part of the result.
        table = dict(sorted(((record["seed"], record["client"]), record) for record in sensed))
        cells = kept(second)
        done = {(records[0]["seed"], records[0]["client"], records[0]["row"]) for records in cells}
        wanted = [(*task, row) for task in tasks if task[1] < evaluated for row in (*ROWS, SAME_EVALUATIONS)]
        work = partial(evaluate, clients=clients, sensed=table)
        cells += map_and_keep(pool, work, (t for t in wanted if t not in done), second, console, told_every=10)
    shown = [record for records in cells for record in records if record["client"] < evaluated]
    return [record for record in sensed if record["client"] < evaluated], shown


def main() -> None:
    """Run what is missing, print the tables and write them to `tables.md`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=30, help="clients of each fleet (default: 30)")
    parser.add_argument(
        "--evaluated", type=int, help="so many clients of each fleet get personal models (default: all)"
    )
    parser.add_argument("--seeds", type=int, default=3, help="fleets with different clients (default: 3)")
    parser.add_argument("--jobs", type=int, default=2, help="processes of one thread each (default: 2)")
    parser.add_argument("--out", type=Path, default=Path("runs/personalization"), help="folder that keeps the cells")
    arguments = parser.parse_args()
    console = Console()
    sensed, cells = run(
        arguments.clients,
        arguments.clients if arguments.evaluated is None else arguments.evaluated,
        arguments.seeds,
        arguments.out,
        arguments.jobs,
        console,
    )
    text = summary_tables(sensed, cells) + "\n" + checks(sensed, cells)
    (arguments.out / "tables.md").write_text(text)
    console.print(text, markup=False, highlight=False)


if __name__ == "__main__":
    main()
