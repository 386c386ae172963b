"""What `benchmarks.text` measures of one client, in a worker process."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from benchmarks.text.clients import Client, Counts, World, load_client, load_world
from benchmarks.text.rows import (
    BLOCK_INFLUENCE,
    BUDGETS,
    ERRORS,
    FLEET_AND_OWN,
    ROWS,
    block_influence,
    fleet_prior,
    row_curves,
    without_blocks,
)
from personalization.allocation.allocate import Curves
from personalization.data.texts import WINDOW_TOKENS
from personalization.sensing.local_errors import local_errors
from personalization.sensing.probes import one_at_a_time, take_samples

Record = dict[str, Any]
# Number of the client, row, budget, column.
Task = tuple[int, str, float, str]
FOLDED, COMPENSATED = "folded", "closed form"
# The same counts of units, chosen and compensated on the text of the speaker who comes next.
OTHERS_TEXT = "closed form on another's text"
# The units that those choose, compensated on one's own text.
OTHERS_UNITS = "closed form of another's units"
# As `--refit-samples`.
MORE_WINDOWS = 64
MORE_TEXT = f"closed form, {MORE_WINDOWS} windows"
DISTILLED = "distilled"
DISTILLING_STEPS = 200
COLUMNS = (FOLDED, COMPENSATED, MORE_TEXT, OTHERS_TEXT, OTHERS_UNITS, DISTILLED)
_BUDGETS_BY_URGENCY = (0.8, 0.5, 0.7, 0.9)
# The others are made for all rows.
ROWS_OF = dict.fromkeys((MORE_TEXT, OTHERS_TEXT, OTHERS_UNITS), (FLEET_AND_OWN,))


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


@lru_cache(maxsize=2)
def whole_client(fleet: Fleet, number: int) -> Client:
    """Return a client with all tokens; the last two are remembered, as their traces are large."""
    return load_client(fleet.load(), number)


def sense(fleet: Fleet, number: int) -> Record:
    """Measure one client: each layer by itself at every level, its local errors, blocks' influence, the dense model."""
    client = whole_client(fleet, number)
    levels = client.settings.levels
    design = one_at_a_time(len(client.world.layers), len(levels))
    single = take_samples(client.masked(everything=False), design, levels, measure=client.increase)
    return {
        "client": number,
        "name": client.speaker.name,
        "single": single.measurements.tolist(),
        "errors": local_errors(client.masked(everything=False), levels).ravel().tolist(),
        "influence": block_influence(client.trace).tolist(),
        "dense": client.nats_per_token(client.world.model),
    }


def evaluate(fleet: Fleet, sensed: dict[int, Record], task: Task) -> Record:
    """Cut and score the model of one client for one row, budget and column."""
    number, row, budget, column = task
    client = whole_client(fleet, number)
    counts, evaluations = row_counts(client, row, budget, sensed, number)
    if column in (OTHERS_TEXT, OTHERS_UNITS):
        other = whole_client(fleet, (number + 1) % fleet.clients)
        model = other.cut(counts) if column == OTHERS_TEXT else client.cut(counts, among=other.chosen(counts))
    elif column == MORE_TEXT:
        model = client.cut_on_more(counts, MORE_WINDOWS)
    else:
        model = client.cut(counts, fold=column == FOLDED)
    if column == DISTILLED:
        model = client.trained(model, "distill", steps=DISTILLING_STEPS)
    found = {"client": number, "row": row, "budget": budget, "column": column, "evaluations": evaluations}
    return {**found, "nats": client.nats_per_token(model)}


def all_tasks(fleet: Fleet) -> list[Task]:
    """Return what `evaluate` has to do for the whole table: what is asked for most first, and what trains, which takes
    most of the time, at the end, budget by budget and row by row: a row that is there for some speakers tells little.
    """
    tasks = [
        (number, row, budget, column)
        for number in range(fleet.clients)
        for column in COLUMNS
        for budget in BUDGETS
        for row in ROWS_OF.get(column, ROWS)
    ]
    return sorted(tasks, key=_urgency)


def _urgency(task: Task) -> tuple[bool, bool, bool, int, int]:
    _, row, budget, column = task
    trains = column == DISTILLED
    # What does not train goes by speakers instead: to load one takes as long as to cut its model.
    by_rows = ROWS.index(row) if trains else 0
    return trains, column != COMPENSATED, trains and row == ERRORS, _BUDGETS_BY_URGENCY.index(budget), by_rows


def row_counts(client: Client, row: str, budget: float, sensed: dict[int, Record], number: int) -> tuple[Counts, int]:
    """Return the units that each layer keeps, [layers], and the evaluations that the row has spent to know."""
    layers, own = client.world.layers, sensed[number]
    if row == BLOCK_INFLUENCE:
        return without_blocks(np.array(own["influence"]), layers, budget), 0
    curves, evaluations = sensed_curves(client, row, sensed, number)
    return client.counts(curves, budget), evaluations


def sensed_curves(client: Client, row: str, sensed: dict[int, Record], number: int) -> tuple[Curves, int]:
    """Return the curves of a row but `block influence`, and the evaluations that it has spent to know them."""
    layers, levels, own = client.world.layers, len(client.settings.levels), sensed[number]
    others = [np.array(record["single"]) for key, record in sensed.items() if key != number]
    prior = fleet_prior(others, len(layers), levels, client.settings.seed)
    return row_curves(row, layers, np.array(own["single"]), np.array(own["errors"]), prior, client.settings)
