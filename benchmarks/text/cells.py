"""What `benchmarks.text` measures of one client, in a worker process."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.text.clients import Client, Counts, World, load_client, load_world, nats_per_token
from benchmarks.text.rows import BLOCK_INFLUENCE, BUDGETS, block_influence, fleet_prior, row_curves, without_blocks
from personalization.sensing import one_at_a_time, take_samples
from personalization.texts import WINDOW_TOKENS

Record = dict[str, Any]
FOLDED, COMPENSATED = "folded", "closed form"
COLUMNS = (FOLDED, COMPENSATED)
# The same counts of units, chosen and compensated on the text of the speaker who comes next.
OTHERS_TEXT = "closed form on another's text"


@dataclass(frozen=True)
class Fleet:
    """Which model, whose text, how many speakers, and how long their windows are."""

    model: str
    data: str
    clients: int
    window_tokens: int = WINDOW_TOKENS

    def load(self) -> World:
        """Return the world, loaded once in each process."""
        return load_world(self.model, self.data, self.clients, self.window_tokens)


def sense(fleet: Fleet, number: int) -> Record:
    """Measure every layer of one client by itself at every level, its blocks' influence, and the dense model."""
    client = load_client(fleet.load(), number)
    levels, started = client.settings.levels, time.perf_counter()
    design = one_at_a_time(len(client.world.layers), len(levels))
    single = take_samples(client.masked(everything=False), design, levels, measure=client.increase)
    seconds = time.perf_counter() - started
    return {
        "client": number,
        "name": client.speaker.name,
        "single": single.measurements.tolist(),
        "influence": block_influence(client.trace).tolist(),
        "dense": nats_per_token(client.world.model, client.speaker),
        "seconds_per_probe": seconds / len(design),
    }


def evaluate(fleet: Fleet, sensed: dict[int, Record], task: tuple[int, str]) -> list[Record]:
    """Cut and score the models of one client for one row: every budget and column."""
    number, row = task
    client = load_client(fleet.load(), number)
    other = load_client(fleet.load(), (number + 1) % fleet.clients)
    records = []
    for budget in BUDGETS:
        counts, evaluations = row_counts(client, row, budget, sensed, number)
        for column in (*COLUMNS, OTHERS_TEXT):
            started = time.perf_counter()
            maker = other if column == OTHERS_TEXT else client
            model = maker.cut(counts, fold=column == FOLDED)
            seconds = time.perf_counter() - started
            records.append(
                {
                    "client": number,
                    "row": row,
                    "column": column,
                    "budget": budget,
                    "nats": nats_per_token(model, client.speaker),
                    "evaluations": evaluations,
                    "seconds": seconds + evaluations * sensed[number]["seconds_per_probe"],
                }
            )
    return records


def row_counts(client: Client, row: str, budget: float, sensed: dict[int, Record], number: int) -> tuple[Counts, int]:
    """Return the units that each layer keeps, [layers], and the evaluations that the row has spent to know."""
    layers, own = client.world.layers, sensed[number]
    if row == BLOCK_INFLUENCE:
        return without_blocks(np.array(own["influence"]), layers, budget), 0
    others = [np.array(record["single"]) for key, record in sensed.items() if key != number]
    prior = fleet_prior(others, len(layers), len(client.settings.levels), client.settings.seed)
    curves, evaluations = row_curves(row, layers, np.array(own["single"]), prior, client.settings)
    return client.counts(curves, budget), evaluations
